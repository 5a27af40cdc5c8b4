//! Colour, bars and width, decided once by a pure function.

use std::io::IsTerminal;

/// The values of `--color`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Color {
    /// Use colour on a terminal, unless NO_COLOR or CI is set.
    Auto,
    /// Always use colour.
    Always,
    /// Never use colour.
    Never,
}

/// How to format terminal output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) stdout_colour: bool,
    pub(super) stderr_colour: bool,
    /// Whether to draw progress bars on standard error.
    pub(super) bars: bool,
    /// Terminal width in columns.
    pub(super) width: u16,
}

/// The inputs of the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Surroundings {
    stdout_terminal: bool,
    stderr_terminal: bool,
    no_color: bool,
    ci: bool,
    dumb: bool,
    columns: Option<u16>,
}

impl Style {
    pub(super) fn of_this_process(color: Color) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let columns = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
        decide(
            color,
            Surroundings {
                stdout_terminal: std::io::stdout().is_terminal(),
                stderr_terminal: std::io::stderr().is_terminal(),
                no_color: set("NO_COLOR"),
                ci: set("CI"),
                dumb: std::env::var_os("TERM").is_some_and(|t| t == "dumb"),
                columns: columns.or_else(|| console::Term::stdout().size_checked().map(|(_, columns)| columns)),
            },
        )
    }
}

fn decide(color: Color, around: Surroundings) -> Style {
    let colour = |terminal: bool| match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => terminal && !around.no_color && !around.dumb,
    };
    Style {
        stdout_colour: colour(around.stdout_terminal),
        stderr_colour: colour(around.stderr_terminal),
        // A log file would keep every frame of a bar.
        bars: around.stderr_terminal && !around.ci && !around.dumb,
        width: around.columns.unwrap_or(100).clamp(60, 140),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const TERMINAL: Surroundings = Surroundings {
        stdout_terminal: true,
        stderr_terminal: true,
        no_color: false,
        ci: false,
        dumb: false,
        columns: Some(80),
    };

    #[rstest]
    #[case::terminal(Color::Auto, TERMINAL, true, true)]
    #[case::no_color(Color::Auto, Surroundings { no_color: true, ..TERMINAL }, false, true)]
    #[case::ci(Color::Auto, Surroundings { ci: true, ..TERMINAL }, true, false)]
    #[case::pipe(Color::Auto, Surroundings { stdout_terminal: false, ..TERMINAL }, false, true)]
    #[case::flag_before_environment(Color::Always, Surroundings { no_color: true, ..TERMINAL }, true, true)]
    #[case::never(Color::Never, TERMINAL, false, true)]
    fn colour_and_bars(#[case] color: Color, #[case] around: Surroundings, #[case] colour: bool, #[case] bars: bool) {
        let style = decide(color, around);
        assert_eq!((style.stdout_colour, style.bars), (colour, bars));
    }
}
