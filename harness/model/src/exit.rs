//! The exit codes, in one place. They are part of the contract: CI files depend on them.

/// All is as it must be.
pub const OK: u8 = 0;
/// A finding that counts at or above `--fail-on`, or a verdict other than the expected one.
pub const FAILED: u8 = 1;
/// A usage or configuration error, found before any work.
pub const USAGE: u8 = 2;
/// The environment: no engine, an image that cannot be had, a port taken, a full disk.
pub const ENVIRONMENT: u8 = 3;
/// It could not find out.
pub const UNDECIDED: u8 = 4;
/// Interrupted by SIGINT, after cleaning up.
pub const INTERRUPTED: u8 = 130;
/// Terminated by SIGTERM, after cleaning up.
pub const TERMINATED: u8 = 143;
