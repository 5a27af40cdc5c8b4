//! Values before interpolation.

/// A value before interpolation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    /// The text with its `$`.
    pub text: String,
    /// The variables that it uses.
    pub uses: Vec<Use>,
}

impl Raw {
    /// The unset variables, if the text consists only of them.
    pub fn unset(&self) -> impl Iterator<Item = &str> {
        self.uses.iter().filter(|u| u.how == How::Unset).map(|u| u.name.as_str())
    }
}

/// One use of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// Its name.
    pub name: String,
    /// The source of the value.
    pub how: How,
    /// Whether it was written without braces, as `$NAME`.
    pub bare: bool,
}

/// The source of a variable's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The environment.
    Set,
    /// The text after `-` or `+`.
    Default,
    /// None: the value is empty.
    Unset,
}
