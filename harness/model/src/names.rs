//! Names that more than one part of the tool goes by.

/// The lab's image, without its tag.
pub const LAB_REPOSITORY: &str = "lockproof/comfyui-lab";

/// The default user name for the login form.
pub const USERNAME: &str = "lockproof";
