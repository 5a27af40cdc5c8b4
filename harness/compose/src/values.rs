//! The values of a file with their variables replaced.

use super::{
    env::Environment,
    error::Trouble,
    interpolate::{DEEPEST, LONGEST, Problem, substitute},
    raw::Raw,
    source::Span,
    yaml::{Kind, Node},
};

/// Replaces the variables of every value below `node`.
///
/// # Errors
/// A `$` that begins nothing, and a variable that must be set and is not.
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

/// The trouble that a problem is at its place.
fn trouble(problem: Problem, span: Span, env: &Environment) -> Trouble {
    match problem {
        Problem::Invalid(at) => Trouble::new(format!("`{at}` is no variable, so Compose refuses the file"), span)
            .fix("write a dollar sign that is meant as one twice: `$$`"),
        Problem::Required { name, message } => {
            let message = message.trim();
            let what = if message.is_empty() {
                format!("the variable {name} must be set")
            } else {
                format!("the variable {name} must be set: {message}")
            };
            Trouble::new(what, span).fix(env.how_to_set(&name))
        }
        Problem::TooLong => {
            Trouble::new(format!("with its variables, this value is longer than {LONGEST} bytes"), span)
                .fix("no compose file needs that; look at the variables")
        }
        Problem::TooDeep => Trouble::new(format!("variables lie in each other more than {DEEPEST} deep"), span)
            .fix("write the default out"),
    }
}
