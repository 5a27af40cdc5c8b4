//! Names that several parts of the tool use.

/// The lab's image, without its tag.
pub const LAB_REPOSITORY: &str = "lockproof/comfyui-lab";

/// The default user name for the login form.
pub const USERNAME: &str = "lockproof";
