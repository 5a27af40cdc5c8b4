//! Interpolates the values of a file.

use super::{
    env::Environment,
    error::Trouble,
    interpolate::{DEEPEST, LONGEST, Problem, substitute},
    raw::Raw,
    source::Span,
    yaml::{Kind, Node},
};

/// Interpolates every value below `node`.
///
/// # Errors
/// An invalid `$`, or a required variable that is not set.
pub(super) fn interpolate(node: &mut Node, env: &Environment) -> Result<(), Trouble> {
    let span = node.span;
    match &mut node.kind {
        Kind::Scalar(scalar) if scalar.text.contains('$') => {
            let mut uses = Vec::new();
            let text = substitute(&scalar.text, &|name| env.get(name).map(str::to_owned), &mut uses)
                .map_err(|problem| trouble(problem, span, env))?;
            let grown = text.len().saturating_sub(scalar.text.len());
            env.spend(grown).map_err(|()| trouble(Problem::TooLong, span, env))?;
            let raw = std::mem::replace(&mut scalar.text, text);
            scalar.raw = Some(Box::new(Raw { text: raw, uses }));
        }
        Kind::List(items) => items.iter_mut().try_for_each(|item| interpolate(item, env))?,
        Kind::Map(entries) => entries.iter_mut().try_for_each(|entry| interpolate(&mut entry.value, env))?,
        _ => {}
    }
    Ok(())
}

/// Converts a problem to an error with its position.
fn trouble(problem: Problem, span: Span, env: &Environment) -> Trouble {
    match problem {
        Problem::Invalid(at) => {
            Trouble::new(format!("`{at}` is not a valid variable reference; Compose rejects the file"), span)
                .fix("write a literal dollar sign as `$$`")
        }
        Problem::Required { name, message } => {
            let message = message.trim();
            let what = if message.is_empty() {
                format!("required variable {name} is not set")
            } else {
                format!("required variable {name} is not set: {message}")
            };
            Trouble::new(what, span).fix(env.how_to_set(&name))
        }
        Problem::TooLong => {
            Trouble::new(format!("this value is longer than {LONGEST} bytes after interpolation"), span)
                .fix("check the values of its variables")
        }
        Problem::TooDeep => Trouble::new(format!("variables are nested more than {DEEPEST} levels deep"), span)
            .fix("write the default value without nested variables"),
    }
}
