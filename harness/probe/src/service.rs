//! Checks whether an answer comes from ComfyUI: its data, or an error of its own handler. A redirect or an
//! error that everyone gets is no evidence about a lock.
//!
//! | anonymous | the token | result |
//! |---|---|---|
//! | data, or the handler's own error | the same | served |
//! | a redirect to the same path elsewhere | any | inconclusive: this port only redirects |
//! | an error or a page | the same | inconclusive, unless another sentinel is served |

use super::{
    decide::{Decision, ERROR_KEYS, Kind, carries_data, is_same, kind},
    message::{Answer, Request},
    seen::Seen,
    sentinel::is_from_the_handler,
};

/// Whether an answer to a sentinel contains ComfyUI's data or comes from its handler.
pub(crate) fn is_service(request: &Request, answer: &Answer) -> bool {
    let has_data = match kind(answer) {
        Kind::Object(keys) => !keys.is_empty() && !keys.iter().any(|key| ERROR_KEYS.contains(&key.as_str())),
        Kind::Array => true,
        _ => false,
    };
    answer.status.is_success() && has_data || is_from_the_handler(request, answer)
}

/// Whether an answer redirects to the same path on another scheme, host or port.
pub(crate) fn is_moved(request: &Request, answer: &Answer) -> bool {
    if !answer.status.is_redirection() {
        return false;
    }
    let location = answer.location();
    let Some((_, rest)) = location.split_once("://").or_else(|| location.split_once("//")) else { return false };
    let path = rest.find('/').map_or("/", |start| &rest[start..]);
    path.split(['?', '#']).next().is_some_and(|path| path.ends_with(request.path()))
}

/// Resets each decision that is based on an answer that does not come from ComfyUI.
pub(crate) fn doubt(seen: &mut [Seen]) {
    let served =
        seen.iter().any(|s| s.decision.let_through() && s.anonymous.as_ref().is_ok_and(|answer| is_served(s, answer)));
    for seen in seen {
        let Ok(anonymous) = &seen.anonymous else { continue };
        let moved = is_moved(&seen.request, anonymous);
        let refused = seen.decision == Decision::Rejected && is_error_for_all(seen, anonymous);
        if moved || refused || seen.decision.let_through() && !served {
            seen.decision = Decision::Indeterminate;
        }
    }
}

/// Whether an answer is a service, or a refusal by its status alone that holds the owner's data.
fn is_served(seen: &Seen, anonymous: &Answer) -> bool {
    let with_data = |owner: &Answer| is_service(&seen.request, owner) && carries_data(anonymous, owner);
    is_service(&seen.request, anonymous) || seen.token.as_ref().is_ok_and(with_data)
}

/// Whether both got the same error, with a status other than that of a rejection.
fn is_error_for_all(seen: &Seen, anonymous: &Answer) -> bool {
    let status = anonymous.status;
    status.is_client_error()
        && !matches!(status.as_u16(), 401 | 403 | 404 | 407)
        && seen.token.as_ref().is_ok_and(|token| is_same(anonymous, token))
}

/// What to do about an inconclusive answer.
pub(crate) fn hint(request: &Request, answer: &Answer) -> &'static str {
    let says = |words: &str| memchr::memmem::find(&answer.body, words.as_bytes()).is_some();
    if is_moved(request, answer) {
        "this port only redirects: probe the address that it redirects to"
    } else if answer.status.as_u16() == 400 && (says("HTTPS port") || says("HTTPS server") || says("SSL-enabled")) {
        "this port expects TLS: probe it with https://"
    } else {
        "the server may not be ComfyUI: check the address and the port"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        judge::{Case, judge},
        look::{Reference, look},
        stand_in::{Reply, StandIn},
    };
    use lockproof_model::{scheme::Scheme, verdict::Verdict};

    const NGINX: &str = "<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head></html>";
    const NO_PROMPT: &str = r#"{"error":{"type":"no_prompt"},"node_errors":{}}"#;

    async fn judged(
        with_token: bool,
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Result<Verdict, String> {
        let server = StandIn::start(answer).await;
        let scheme = Scheme::find(Scheme::DEFAULT, std::path::Path::new(".")).expect("built in");
        let keys = with_token.then(|| crate::keys::Keys::new("the-token-of-the-test".to_owned(), None, None));
        let look = look(&server.client, &scheme, keys.as_ref(), &Reference::default()).await;
        judge(Case { look: &look, claimed: false, leaks: false })
    }

    #[tokio::test]
    async fn a_port_that_only_redirects_is_undecided() {
        for with_token in [true, false] {
            let why = judged(with_token, |r| Reply::redirect(&format!("https://comfy.example{}", r.target))).await;
            assert!(why.as_ref().is_err_and(|why| why.contains("only redirects")), "{why:?}");
        }
    }

    #[tokio::test]
    async fn a_port_that_expects_tls_is_undecided() {
        for with_token in [true, false] {
            let why = judged(with_token, |_| Reply::html(400, NGINX)).await;
            assert!(why.as_ref().is_err_and(|why| why.contains("https://")), "{why:?}");
        }
    }

    #[tokio::test]
    async fn a_page_that_everybody_gets_is_no_service() {
        let why = judged(true, |_| Reply::html(200, "<h1>Welcome to nginx!</h1>")).await;
        assert!(why.as_ref().is_err_and(|why| why.contains("may not be ComfyUI")), "{why:?}");
        let why = judged(true, |_| Reply::html(405, "")).await;
        assert!(why.is_err(), "{why:?}");
    }

    #[tokio::test]
    async fn a_login_page_for_the_token_too_locks_the_owner_out() {
        assert_eq!(judged(true, |_| Reply::redirect("/login")).await, Ok(Verdict::LockedOut));
        assert_eq!(judged(false, |_| Reply::redirect("https://sso.example/start")).await, Ok(Verdict::Locked));
    }

    #[tokio::test]
    async fn a_404_for_a_token_that_worked_before_is_a_rejection() {
        let hidden = StandIn::start(|_| Reply::html(404, "")).await;
        let scheme = Scheme::find(Scheme::DEFAULT, std::path::Path::new(".")).expect("built in");
        let keys = crate::keys::Keys::new("the-token-of-the-test".to_owned(), None, None);
        let works = StandIn::start(|r| match r.headers.iter().any(|(name, _)| name == "authorization") {
            true if r.path() == "/prompt" => Reply::json(400, NO_PROMPT),
            true => Reply::json(200, r#"{"system":{},"devices":[]}"#),
            false => Reply::html(404, ""),
        })
        .await;
        let before = look(&works.client, &scheme, Some(&keys), &Reference::default()).await;
        assert_eq!(judge(Case { look: &before, claimed: false, leaks: false }), Ok(Verdict::Locked));
        let after = look(&hidden.client, &scheme, Some(&keys), &before.reference()).await;
        assert_eq!(judge(Case { look: &after, claimed: false, leaks: false }), Ok(Verdict::LockedOut));
    }

    #[tokio::test]
    async fn data_and_the_handler_s_own_error_are_a_service() {
        let open = |r: &Request| match (r.method.as_str(), r.path()) {
            ("POST", "/prompt") => Reply::json(400, NO_PROMPT),
            _ => Reply::json(200, r#"{"system":{},"devices":[]}"#),
        };
        assert_eq!(judged(true, open).await, Ok(Verdict::Open));
        assert_eq!(judged(false, open).await, Ok(Verdict::Open));
    }

    #[test]
    fn a_login_page_elsewhere_is_no_move() {
        let request = Request::get("/queue");
        let to = |location: &str| {
            let mut answer = Reply::redirect(location).answer();
            answer.status = http::StatusCode::MOVED_PERMANENTLY;
            is_moved(&request, &answer)
        };
        assert!(to("https://comfy.example/queue") && to("//comfy.example/queue") && to("https://c.example/team/queue"));
        assert!(!to("/queue") && !to("/login") && !to("https://sso.example/?next=/queue"));
    }
}
