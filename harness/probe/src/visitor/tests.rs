//! Visits of stand-in servers.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use super::*;
use crate::{
    look::{Reference, look},
    stand_in::{Reply, StandIn},
};

const DATA: &str = r#"{"system":{},"devices":[]}"#;
const NO_PROMPT: &str = r#"{"error":{"type":"no_prompt"},"node_errors":{}}"#;
const OWNER: &str = "the-owner-s-token-of-the-test";
const KEY: &str = "q7w8e9r0t1y2u3i4";

/// What a request shows as its key.
fn shown(request: &Request) -> String {
    let header =
        |name: &str| request.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
    let bearer = header("authorization").and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let cookie = header("cookie").and_then(|value| value.strip_prefix("sid=")).unwrap_or_default();
    if bearer.is_empty() { cookie.to_owned() } else { bearer.to_owned() }
}

/// ComfyUI behind a lock that takes the owner's token and `KEY`; `own` are the routes of the lock.
async fn visited(own: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> Visited {
    let server = StandIn::start(move |request| match own(request) {
        Some(reply) => reply,
        None if [OWNER, KEY].contains(&shown(request).as_str()) => match request.path() {
            "/prompt" => Reply::json(400, NO_PROMPT),
            "/system_stats" | "/queue" | "/object_info" => Reply::json(200, DATA),
            _ => Reply::html(404, ""),
        },
        None => Reply::json(401, r#"{"error":"Authentication required."}"#),
    })
    .await;
    let scheme = Scheme::find(Scheme::DEFAULT, std::path::Path::new(".")).expect("built in");
    let keys = Keys::new(OWNER.to_owned(), None, None);
    let look = look(&server.client, &scheme, Some(&keys), &Reference::default()).await;
    assert_eq!(look.token, Works::Yes);
    Visitor::new(&server.client, &scheme, Some(&keys), &[], &look).with_patience(Duration::from_secs(4)).visit().await
}

fn chain(visited: &Visited) -> String {
    let Some(claim) = &visited.claim else { return format!("nobody gets in ({:?})", visited.undecided) };
    let step = |step: &Step| {
        format!("{} {} {}", step.request.method, step.request.target, String::from_utf8_lossy(&step.request.body))
    };
    format!("{}: {}", claim.how, claim.steps.iter().map(step).collect::<Vec<_>>().join(" | "))
}

fn body(request: &Request) -> String {
    String::from_utf8_lossy(&request.body).into_owned()
}

fn token(status: u16) -> Reply {
    Reply::json(status, &format!(r#"{{"jwt_token":"{KEY}"}}"#))
}

#[tokio::test]
async fn a_form_that_never_answers_leaves_it_undecided() {
    let visited = visited(|request| match (request.method.as_str(), request.path()) {
        ("POST", "/login") => Some(Reply::none()),
        _ => None,
    })
    .await;
    assert!(visited.claim.is_none());
    let why = visited.undecided.expect("it is undecided");
    assert!(why.contains("got no answer"), "{why}");
}

#[tokio::test]
async fn a_page_that_never_answers_leaves_it_undecided() {
    let visited = visited(|request| match (request.method.as_str(), request.path()) {
        ("GET", "/guest") => Some(Reply::none()),
        _ => None,
    })
    .await;
    assert!(visited.claim.is_none() && visited.undecided.is_some());
}

#[tokio::test]
async fn an_answer_that_holds_the_owner_s_token_among_others_is_seen() {
    let visited = visited(|request| match (request.method.as_str(), request.path()) {
        ("POST", "/login") => Some(Reply::html(401, &format!("<p>not {OWNER}!</p>"))),
        _ => None,
    })
    .await;
    assert_eq!(visited.shown.expect("it is shown").request.path(), "/login");
}

#[tokio::test]
async fn a_lock_that_gives_nothing_away_is_not_claimed() {
    let visited = visited(|request| match (request.method.as_str(), request.path()) {
        ("GET", "/login") => Some(Reply::html(
            200,
            r#"<form method=post><input name=username><input name=password type=password></form>"#,
        )),
        ("POST", "/login") => {
            Some(Reply::redirect("/login?wrong_password=1").header("set-cookie", "sid=f1a2b3c4d5e6f7a8"))
        }
        ("POST", "/register") => Some(Reply::json(403, r#"{"error":"Registration is closed."}"#)),
        _ => None,
    })
    .await;
    assert_eq!(chain(&visited), "nobody gets in (None)");
    assert!(!visited.is_disturbed && visited.shown.is_none());
}

#[tokio::test]
async fn a_guest_by_json_is_told_by_one_field() {
    let visited = visited(|request| match (request.method.as_str(), request.path()) {
        ("POST", "/login") if body(request).contains(r#""guest":true"#) => Some(token(200)),
        ("POST", "/login") => Some(Reply::json(401, r#"{"error":"no"}"#)),
        _ => None,
    })
    .await;
    assert_eq!(chain(&visited), r#"the login form accepts guests: POST /login {"guest":true} | GET /system_stats "#);
}

#[tokio::test]
async fn an_account_that_a_visitor_makes_is_tried_at_the_door() {
    let users: Arc<Mutex<Vec<String>>> = Arc::default();
    let visited = visited(move |request| match (request.method.as_str(), request.path()) {
        ("GET", "/login") => {
            Some(Reply::html(200, r#"<a href="/members/new">Register</a><script src="/lock.js"></script>"#))
        }
        ("GET", "/members/new") => Some(Reply::html(
            200,
            r#"<form id="register"><input name="nick"><input type="password" name="word"></form>"#,
        )),
        ("GET", "/lock.js") => Some(Reply::new(
            200,
            "text/javascript",
            r#"fetch("/login", {method: "POST", body: JSON.stringify({ nick, word })})"#,
        )),
        ("POST", "/members/new") if body(request).starts_with("nick=") => {
            users
                .lock()
                .expect("unpoisoned")
                .push(body(request).replace("nick=", "").split('&').next().unwrap_or_default().to_owned());
            Some(Reply::json(200, r#"{"message":"welcome"}"#))
        }
        ("POST", "/login") => {
            let known = users
                .lock()
                .expect("unpoisoned")
                .iter()
                .any(|user| body(request).contains(&format!(r#""nick":"{user}""#)));
            Some(if known { token(200) } else { Reply::json(401, r#"{"error":"no"}"#) })
        }
        _ => None,
    })
    .await;
    let told = chain(&visited);
    assert!(
        told.starts_with("/members/new lets any visitor register an account with access: POST /members/new nick="),
        "{told}"
    );
    assert!(told.contains("| POST /login {") && visited.is_disturbed, "{told}");
}

#[tokio::test]
async fn what_is_only_read_comes_first() {
    let well_known = visited(|request| {
        (request.path() == "/.well-known/comfyui.json")
            .then(|| Reply::json(200, &format!(r#"{{"api":{{"bearer":"{KEY}"}}}}"#)))
    })
    .await;
    assert_eq!(
        chain(&well_known),
        "/.well-known/comfyui.json returns a credential to anonymous visitors: GET /.well-known/comfyui.json  | GET /system_stats "
    );
    let error = visited(|request| {
        (request.path() == "/token" && request.method == Method::POST)
            .then(|| Reply::json(422, &format!(r#"{{"detail":"expected {KEY}"}}"#)))
    })
    .await;
    assert!(error.claim.is_none() || chain(&error).contains("POST /token"), "{}", chain(&error));
}

#[tokio::test]
async fn a_link_to_set_a_new_password_is_followed() {
    let visited = visited(|request| match (request.method.as_str(), request.path()) {
        ("POST", "/reset") => Some(Reply::json(200, r#"{"sent":"https://comfy.example/reset/now?ticket=abc123"}"#)),
        ("GET", "/reset/now") if request.target.contains("abc123") => {
            Some(Reply::redirect("/").header("set-cookie", &format!("sid={KEY}; Path=/")))
        }
        _ => None,
    })
    .await;
    let told = chain(&visited);
    assert!(told.contains("| GET /reset/now?ticket=abc123  | GET /system_stats "), "{told}");
}

#[tokio::test]
async fn a_cookie_that_opens_by_being_there_is_no_key() {
    let server = visited(|request| {
        let has_cookie = request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("cookie"));
        match (request.method.as_str(), request.path()) {
            ("POST", "/login") => Some(Reply::redirect("/").header("set-cookie", "sid=anything1")),
            ("GET", "/system_stats") if has_cookie => Some(Reply::json(200, DATA)),
            _ => None,
        }
    })
    .await;
    assert_eq!(chain(&server), "nobody gets in (None)");
}

#[tokio::test]
async fn a_lock_that_blocks_is_waited_for_or_undecided() {
    let lock = |pause: u32| {
        let wrong = AtomicU32::new(0);
        move |request: &Request| {
            (request.method == Method::POST && request.path() == "/login").then(|| {
                let n = wrong.fetch_add(1, Ordering::Relaxed);
                if n % 4 == 3 {
                    let text = format!(r#"{{"error":"Too many failed attempts.","remaining_seconds":{pause}}}"#);
                    Reply::json(403, &text)
                } else {
                    Reply::json(401, r#"{"error":"no"}"#)
                }
            })
        }
    };
    assert_eq!(
        chain(&visited(lock(300)).await),
        "nobody gets in (Some(\"the lock blocks further attempts at /login for 301 s, longer than lockproof waits\"))"
    );
}

#[tokio::test]
async fn a_lock_that_makes_the_wrong_wait_is_asked_for_little_and_to_the_end() {
    let wrong = Arc::new(Mutex::new((0_u32, None::<std::time::Instant>)));
    let counted = Arc::clone(&wrong);
    // As comfyui-sentinel, with seconds for minutes: from the third wrong try on, each blocks.
    let visited = visited(move |request| {
        if request.method != Method::POST || request.path() != "/login" {
            return None;
        }
        let mut state = counted.lock().expect("unpoisoned");
        if state.1.is_some_and(|until| std::time::Instant::now() < until) {
            return Some(Reply::json(403, r#"{"error":"Too many failed attempts.","remaining_seconds":0.2}"#));
        }
        let form = body(request);
        let field = |name: &str| form.split('&').any(|pair| pair.starts_with(name) && !pair.ends_with('='));
        if !field("username=") || !field("password=") {
            return Some(Reply::json(400, r#"{"error":"Missing login credentials"}"#));
        }
        state.0 += 1;
        if state.0 >= 3 {
            state.1 = Some(std::time::Instant::now() + Duration::from_millis(200));
        }
        Some(Reply::json(401, r#"{"error":"Invalid username or password"}"#))
    })
    .await;
    assert_eq!(chain(&visited), "nobody gets in (None)");
    assert!(wrong.lock().expect("unpoisoned").0 <= 6, "{wrong:?}");
}

#[tokio::test]
async fn an_address_that_is_shut_out_for_good_is_undecided() {
    let shut = Arc::new(AtomicU32::new(0));
    let visited = visited(move |request| {
        if request.method == Method::POST && request.path() == "/login" {
            shut.fetch_add(1, Ordering::Relaxed);
        }
        (shut.load(Ordering::Relaxed) > 2).then(|| Reply::html(429, "").header("retry-after", "3600"))
    })
    .await;
    assert!(visited.claim.is_none() && visited.undecided.is_some() && visited.is_disturbed, "{visited:?}");
}

#[tokio::test]
async fn the_token_of_record_itself_is_another_finding() {
    let visited =
        visited(|request| (request.path() == "/me").then(|| Reply::json(200, &format!(r#"{{"token":"{OWNER}"}}"#))))
            .await;
    assert_eq!(chain(&visited), "nobody gets in (None)");
    assert_eq!(visited.shown.map(|step| step.request.target).as_deref(), Some("/me"));
}
