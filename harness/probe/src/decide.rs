//! The oracle: classifies an answer by comparing it with the token's answer to the same request.

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::Value;

use super::message::{Answer, Frame, Outcome};

/// The classification of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// The lock rejected the request.
    Rejected,
    /// The caller got what the token would get.
    Served,
    /// The lock let the request through, but the handler refused it.
    Passed,
    /// It is unknown.
    Indeterminate,
}

impl Decision {
    /// Whether the lock let the request through.
    pub fn let_through(self) -> bool {
        matches!(self, Self::Served | Self::Passed)
    }
}

/// Classifies `answer`, given the token's answer to the same request.
///
/// | answer | the token's answer | decision |
/// |---|---|---|
/// | none, 5xx, 429, or 403 and 503 with `Retry-After` | any | indeterminate |
/// | a WebSocket that is closed at once | any | rejected |
/// | 3xx or 4xx with the data of the token's answer | 2xx | served |
/// | 401, 407 | any | rejected |
/// | redirect | any, the same redirect too | rejected |
/// | 2xx or 101 | the same status and kind of body | served |
/// | 403 and other 4xx | the same status and kind of body, and not 403 | passed |
/// | anything else | anything else | rejected |
/// | 2xx or 101 | unknown | served |
/// | 400, 404, 405, 409, 413, 415, 422 | unknown | indeterminate |
/// | other 3xx, 4xx | unknown | rejected |
///
/// A status does not hide the body: an answer that [carries the data](carries_data) is not a
/// rejection. Otherwise the form does not matter: a login page with status 200, or a 404 that hides
/// the route, is not what the token gets.
pub fn decide(answer: &Outcome, token: Option<&Answer>) -> Decision {
    let Ok(answer) = answer else { return Decision::Indeterminate };
    if is_indeterminate(answer) {
        return Decision::Indeterminate;
    }
    let status = answer.status;
    if answer.frame == Some(Frame::Close) {
        return Decision::Rejected;
    }
    if token.is_some_and(|token| carries_data(answer, token)) {
        return Decision::Served;
    }
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED) {
        return Decision::Rejected;
    }
    let Some(token) = token.filter(|t| !is_indeterminate(t)) else { return without_token(status) };
    if !is_same(answer, token) {
        return Decision::Rejected;
    }
    if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
        Decision::Served
    } else if status == StatusCode::FORBIDDEN || status.is_redirection() {
        // Rejected or redirected for everyone, so perhaps not by the lock.
        Decision::Rejected
    } else {
        Decision::Passed
    }
}

/// The keys of an error object.
pub(crate) const ERROR_KEYS: [&str; 6] = ["error", "errors", "message", "msg", "detail", "reason"];

/// Whether a rejection contains the data that the token gets: an object with the same keys and
/// types, a list that is not empty, or the same bytes. An error message or a page is not data.
pub fn carries_data(answer: &Answer, token: &Answer) -> bool {
    may_carry_data(answer) && token.status.is_success() && {
        match (json(answer), json(token)) {
            (Some(Value::Object(one)), Some(Value::Object(other))) => {
                one.len() == other.len()
                    && one.iter().all(|(key, value)| {
                        other.get(key).is_some_and(|same| std::mem::discriminant(value) == std::mem::discriminant(same))
                    })
            }
            (Some(Value::Array(_)), Some(Value::Array(other))) => !other.is_empty(),
            (None, None) => answer.body == token.body && answer.media_type() == token.media_type(),
            _ => false,
        }
    }
}

/// Whether the body of a rejection may be compared with what the token gets.
pub fn may_carry_data(answer: &Answer) -> bool {
    let status = answer.status;
    if !status.is_redirection() && !status.is_client_error() || is_indeterminate(answer) || answer.body.is_empty() {
        return false;
    }
    match json(answer) {
        Some(Value::Object(map)) => !map.is_empty() && !map.keys().any(|key| ERROR_KEYS.contains(&key.as_str())),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(_) => false,
        None => answer.media_type() != "text/html",
    }
}

/// The body as JSON, if it is valid.
fn json(answer: &Answer) -> Option<Value> {
    answer.media_type().ends_with("json").then(|| serde_json::from_slice(&answer.body).ok()).flatten()
}

fn without_token(status: StatusCode) -> Decision {
    match status.as_u16() {
        101 | 200..=299 => Decision::Served,
        400 | 404 | 405 | 409 | 413 | 415 | 422 => Decision::Indeterminate,
        _ => Decision::Rejected,
    }
}

/// Whether an answer says nothing about the lock.
pub fn is_indeterminate(answer: &Answer) -> bool {
    match answer.status.as_u16() {
        403 | 503 if answer.retry_after().is_some() => true,
        429 => true,
        status => status >= 500,
    }
}

/// Whether two answers have the same status and kind of body, or the same redirect.
pub fn is_same(one: &Answer, other: &Answer) -> bool {
    one.status == other.status
        && if one.status.is_redirection() {
            one.location() == other.location()
        } else {
            // Equal bytes with an equal media type need no parsing.
            (one.body == other.body && one.media_type() == other.media_type()) || kind(one) == kind(other)
        }
}

/// The kind of a body: distinguishes a page, an error and data, but not two answers to the same
/// request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Empty,
    /// A JSON object with these keys.
    Object(BTreeSet<String>),
    /// A JSON array.
    Array,
    /// Any other JSON value, by its type.
    Scalar(&'static str),
    /// Anything else, by its media type.
    Media(String),
}

/// The kind of an answer's body.
pub fn kind(answer: &Answer) -> Kind {
    if answer.body.is_empty() {
        return Kind::Empty;
    }
    let media = answer.media_type();
    if media.ends_with("json") {
        match serde_json::from_slice::<Value>(&answer.body) {
            Ok(Value::Object(map)) => return Kind::Object(map.keys().cloned().collect()),
            Ok(Value::Array(_)) => return Kind::Array,
            Ok(Value::Null) => return Kind::Scalar("null"),
            Ok(Value::Bool(_)) => return Kind::Scalar("boolean"),
            Ok(Value::Number(_)) => return Kind::Scalar("number"),
            Ok(Value::String(_)) => return Kind::Scalar("string"),
            Err(_) => {}
        }
    }
    Kind::Media(media)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;
    use proptest::prelude::*;

    use super::*;
    use crate::message::Fault;

    fn answer(status: u16, media: &str, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        if !media.is_empty() {
            headers.insert("content-type", media.parse().expect("a media type"));
        }
        Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers,
            body: Bytes::from(body.to_owned()),
            frame: None,
        }
    }

    #[test]
    fn the_data_itself_is_served() {
        let token = answer(200, "application/json", r#"{"system":{},"devices":[]}"#);
        let anonymous = answer(200, "application/json; charset=utf-8", r#"{"devices":[1],"system":{"a":1}}"#);
        assert_eq!(decide(&Ok(anonymous), Some(&token)), Decision::Served);
    }

    #[test]
    fn a_login_page_with_200_is_a_rejection() {
        let token = answer(200, "application/json", r#"{"system":{}}"#);
        assert_eq!(decide(&Ok(answer(200, "text/html", "<form>")), Some(&token)), Decision::Rejected);
        assert_eq!(decide(&Ok(answer(200, "application/json", "{}")), Some(&token)), Decision::Rejected);
    }

    #[test]
    fn a_refusal_with_the_data_in_it_is_none() {
        let object = answer(200, "application/json", r#"{"system":{"os":"posix"},"devices":[]}"#);
        for status in [401, 403, 302, 404, 418] {
            let data = answer(status, "application/json", r#"{"devices":[1],"system":{"os":"nt"}}"#);
            assert_eq!(decide(&Ok(data), Some(&object)), Decision::Served, "{status}");
            let less = answer(status, "application/json", r#"{"system":{}}"#);
            assert_eq!(decide(&Ok(less), Some(&object)), Decision::Rejected, "{status}");
            let null = answer(status, "application/json", r#"{"system":null,"devices":null}"#);
            assert_eq!(decide(&Ok(null), Some(&object)), Decision::Rejected, "{status}");
        }
        let list = answer(200, "application/json", "[1]");
        assert_eq!(decide(&Ok(answer(401, "application/json", "[2]")), Some(&list)), Decision::Served);
        assert_eq!(decide(&Ok(answer(401, "application/json", "[]")), Some(&list)), Decision::Rejected);
        let picture = answer(200, "image/png", "PNG");
        assert_eq!(decide(&Ok(answer(401, "image/png", "PNG")), Some(&picture)), Decision::Served);
        assert_eq!(decide(&Ok(answer(401, "image/png", "png")), Some(&picture)), Decision::Rejected);
    }

    #[test]
    fn an_error_that_the_token_gets_as_well_is_no_data() {
        for body in [r#"{"error":"x"}"#, r#"{"message":"x","code":1}"#, "{}", "[]", "null"] {
            for status in [200, 400] {
                let token = answer(status, "application/json", body);
                assert_eq!(
                    decide(&Ok(answer(401, "application/json", body)), Some(&token)),
                    Decision::Rejected,
                    "{body}"
                );
            }
        }
        let page = answer(200, "text/html", "<form>");
        assert_eq!(decide(&Ok(answer(401, "text/html", "<form>")), Some(&page)), Decision::Rejected);
    }

    #[test]
    fn the_handler_s_refusal_is_passed() {
        let token = answer(400, "application/json", r#"{"error":{},"node_errors":{}}"#);
        assert_eq!(decide(&Ok(token.clone()), Some(&token)), Decision::Passed);
        assert_eq!(decide(&Ok(answer(403, "application/json", r#"{"error":""}"#)), Some(&token)), Decision::Rejected);
    }

    #[test]
    fn a_busy_server_is_not_a_lock() {
        let token = answer(200, "application/json", "{}");
        let mut busy = answer(403, "", "");
        busy.headers.insert("retry-after", "1".parse().expect("a value"));
        assert_eq!(decide(&Ok(busy), Some(&token)), Decision::Indeterminate);
        assert_eq!(decide(&Err(Fault::Timeout), Some(&token)), Decision::Indeterminate);
    }

    fn any_answer() -> impl Strategy<Value = Answer> {
        (
            prop_oneof![Just(101_u16), 200..207_u16, 300..309_u16, 400..432_u16, 500..512_u16],
            prop_oneof![Just(""), Just("application/json"), Just("text/html"), Just("text/plain")],
            prop_oneof![
                Just(""),
                Just("{}"),
                Just(r#"{"error":1}"#),
                Just(r#"{"system":1}"#),
                Just("[]"),
                Just("[1]"),
                Just("null"),
                Just("<html>"),
                Just("{")
            ],
            any::<bool>(),
            prop_oneof![Just("/login"), Just("/")],
        )
            .prop_map(|(status, media, body, retry, location)| {
                let mut made = answer(status, media, body);
                if retry {
                    made.headers.insert("retry-after", "1".parse().expect("a value"));
                }
                if made.status.is_redirection() {
                    made.headers.insert("location", location.parse().expect("a value"));
                }
                made
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn nothing_makes_a_rejection_served(status in prop_oneof![Just(401_u16), Just(407)], media in ".{0,4}", token in proptest::option::of(any_answer())) {
            let media: String = media.chars().filter(char::is_ascii_alphanumeric).collect();
            prop_assert_eq!(decide(&Ok(answer(status, &media, "x")), token.as_ref()), Decision::Rejected);
        }

        #[test]
        fn only_the_token_s_own_data_makes_a_refusal_served(
            status in prop_oneof![Just(401_u16), Just(407)],
            anonymous in any_answer(),
            token in any_answer(),
        ) {
            let refused = Answer { status: StatusCode::from_u16(status).expect("a status"), ..anonymous };
            let decision = decide(&Ok(refused.clone()), Some(&token));
            if decision == Decision::Served {
                prop_assert!(token.status.is_success());
                prop_assert_eq!(kind(&refused), kind(&token));
                prop_assert!(refused.media_type() != "text/html");
                let says_nothing = matches!(refused.body.as_ref(), b"{}" | b"[]" | b"null" | br#"{"error":1}"#);
                prop_assert!(!refused.body.is_empty());
                prop_assert!(!says_nothing || !refused.media_type().ends_with("json"));
            } else {
                prop_assert_eq!(decision, Decision::Rejected);
            }
        }

        #[test]
        fn nothing_makes_a_server_error_a_rejection(status in 500..600_u16, token in proptest::option::of(any_answer())) {
            prop_assert_eq!(decide(&Ok(answer(status, "text/plain", "x")), token.as_ref()), Decision::Indeterminate);
        }

        #[test]
        fn only_what_the_token_gets_is_let_through(anonymous in any_answer(), token in any_answer()) {
            let decision = decide(&Ok(anonymous.clone()), Some(&token));
            if decision.let_through() && !is_indeterminate(&token) {
                prop_assert!(is_same(&anonymous, &token) || carries_data(&anonymous, &token));
            }
            if decision == Decision::Rejected {
                prop_assert!(!is_indeterminate(&anonymous));
            }
        }

        #[test]
        fn the_token_s_own_answer_is_never_a_rejection_unless_it_is_one(token in any_answer()) {
            let decision = decide(&Ok(token.clone()), Some(&token));
            let refused = matches!(token.status.as_u16(), 401 | 403 | 407) || token.status.is_redirection();
            prop_assert_eq!(decision == Decision::Rejected, refused && !is_indeterminate(&token));
        }
    }
}
