//! What stood in a value before interpolation.

/// What stood in a value before interpolation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    /// The text with its `$`.
    pub text: String,
    /// The variables that it uses.
    pub uses: Vec<Use>,
}

impl Raw {
    /// Whether what is left of the text comes from variables that are not set.
    pub fn unset(&self) -> impl Iterator<Item = &str> {
        self.uses.iter().filter(|u| u.how == How::Unset).map(|u| u.name.as_str())
    }
}

/// One use of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// Its name.
    pub name: String,
    /// Where the value came from.
    pub how: How,
    /// Whether it stood without braces, as `$NAME`.
    pub bare: bool,
}

/// Where the value of a variable came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The environment.
    Set,
    /// The text behind `-` or `+`.
    Default,
    /// Nowhere: it is empty.
    Unset,
}
