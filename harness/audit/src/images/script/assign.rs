//! Assignments: strings, lists, tables, and `PATH`.

use brush_parser::ast::{Assignment, AssignmentName, AssignmentValue, Word};

use super::{
    expand::{Value, is_unknown},
    walk::Walk,
};
use crate::images::script::expand;
use lockproof_compose::in_container;

impl Walk<'_> {
    pub(super) fn assign(&mut self, assignment: &Assignment) {
        match (&assignment.name, &assignment.value) {
            (AssignmentName::VariableName(name), AssignmentValue::Scalar(word)) => {
                let mut value = self.scoped(|scope| expand::one(&word.value, scope));
                if assignment.append {
                    value = self.scoped(|s| s.lookup(name)).unwrap_or_default() + &value;
                }
                if name == "PATH" {
                    self.path(&value);
                } else if name == "VIRTUAL_ENV" && !is_unknown(&value) {
                    self.state.active = Some(value.clone());
                }
                self.state.variables.insert(name.clone(), Value::Text(value));
            }
            (AssignmentName::VariableName(name), AssignmentValue::Array(items)) => {
                let keyed = items.iter().any(|(key, _)| key.is_some());
                let value = if keyed {
                    let text = |w: &Word| self.scoped(|scope| expand::one(&w.value, scope));
                    Value::Map(items.iter().filter_map(|(k, v)| Some((text(k.as_ref()?), text(v)))).collect())
                } else {
                    Value::List(items.iter().flat_map(|(_, w)| self.expand(&w.value)).collect())
                };
                let value = match (self.state.variables.remove(name), value) {
                    (Some(Value::List(mut before)), Value::List(more)) if assignment.append => {
                        before.extend(more);
                        Value::List(before)
                    }
                    (_, value) => value,
                };
                self.state.variables.insert(name.clone(), value);
            }
            (AssignmentName::ArrayElementName(name, key), AssignmentValue::Scalar(word)) => {
                let (key, value) = self.scoped(|s| (expand::one(key, s), expand::one(&word.value, s)));
                match self.state.variables.get_mut(name) {
                    Some(Value::Map(map)) => map.push((key, value)),
                    _ => {
                        self.state.variables.insert(name.clone(), Value::Map(vec![(key, value)]));
                    }
                }
            }
            _ => {}
        }
    }

    /// `PATH=/srv/venv/bin:$PATH` activates a virtual environment.
    fn path(&mut self, value: &str) {
        let first = value.split(':').next().unwrap_or_default();
        if let Some(environment) = first.strip_suffix("/bin")
            && environment.starts_with('/')
            && !is_unknown(environment)
            && !matches!(environment, "/usr" | "/usr/local" | "/opt")
            && !environment.ends_with("/.local")
        {
            self.state.active = Some(in_container(environment));
        }
    }
}
