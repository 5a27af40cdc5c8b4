//! Anonymous answers for paths that do not exist, to distinguish the lock's routes from its rejections.

use http::Method;

use super::scene::Visitor;
use crate::{
    decide::is_same,
    message::{Answer, Request},
};
use lockproof_model::secret;

/// The answers for a path that does not exist, each twice: a rejection may contain a request ID.
#[derive(Clone, Debug)]
pub(super) struct Absent {
    answers: Vec<(String, Answer)>,
    is_stable: bool,
}

impl Absent {
    /// Requests two random paths, as a browser and as a script.
    pub(super) async fn learn(visitor: &Visitor<'_>, method: &Method) -> Self {
        let mut answers = Vec::new();
        for accept in ["text/html", "*/*"] {
            for _ in 0..2 {
                let path = format!("/lockproof-{}", secret::random(8));
                let request = Request::new(method.clone(), &*path).header("Accept", accept);
                if let Some(answer) = visitor.ask(&request).await {
                    answers.push((path, answer));
                }
            }
        }
        let is_stable = answers.chunks(2).all(|two| match two {
            [one, other] => text(one) == text(other),
            _ => false,
        });
        Self { answers, is_stable }
    }

    /// Whether the answer for `path` equals that of a path that does not exist.
    pub(super) fn is(&self, path: &str, answer: &Answer) -> bool {
        matches!(answer.status.as_u16(), 404 | 405 | 501)
            || self.answers.iter().any(|(made_up, absent)| {
                is_same(answer, absent)
                    && (!self.is_stable
                        || text(&(path.to_owned(), answer.clone())) == text(&(made_up.clone(), absent.clone())))
            })
    }

    /// The answers, one of each kind.
    pub(super) fn samples(&self) -> impl Iterator<Item = (&str, &Answer)> {
        self.answers.iter().step_by(2).map(|(path, answer)| (path.as_str(), answer))
    }
}

/// The body without the requested path, which it may repeat.
fn text((path, answer): &(String, Answer)) -> String {
    String::from_utf8_lossy(&answer.body).replace(path.as_str(), "")
}
