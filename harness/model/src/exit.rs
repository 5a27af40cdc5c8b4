//! The exit codes. They are part of the contract: CI files depend on them.

/// Every verdict is the expected one, and no finding counts.
pub const OK: u8 = 0;
/// A finding counts at or above `--fail-on`, or a verdict is not the expected one.
pub const FAILED: u8 = 1;
/// A usage or configuration error, found before any work.
pub const USAGE: u8 = 2;
/// The environment failed: no engine, no image, port in use, disk full.
pub const ENVIRONMENT: u8 = 3;
/// No verdict could be reached.
pub const UNDECIDED: u8 = 4;
/// Interrupted by SIGINT, after cleaning up.
pub const INTERRUPTED: u8 = 130;
/// Terminated by SIGTERM, after cleaning up.
pub const TERMINATED: u8 = 143;
