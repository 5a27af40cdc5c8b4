//! `lockproof probe` on servers that run already: the lab in each of the recorded states, behind
//! TLS, behind a path, behind a proxy, and what is no ComfyUI at all.

use std::{net::SocketAddr, panic::AssertUnwindSafe, path::Path, sync::Arc};

use futures_util::FutureExt;
use lockproof::config::plan::Plan;
use lockproof_deploy::engine::{Engine, Run};
use lockproof_model::config::ConfigFile;
use rstest::rstest;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    assert_said,
    command::{Lockproof, Ran},
    contract::{Server, State},
    gate::block_on,
    suite::{Subject, Suite, suite},
};

/// Brings a subject up in a state, and gives its address and token to `then`.
fn with_server(subject: Subject, state: State, then: impl AsyncFnOnce(&mut Server)) {
    let file = ConfigFile { subjects: vec![subject.0], ..ConfigFile::default() };
    let plan = Plan::new(&file, Path::new("/")).unwrap_or_else(|e| panic!("the test is wrong: {e}"));
    let run = Run::new();
    block_on(async {
        let engine = Engine::connect().await.unwrap_or_else(|e| panic!("{e}"));
        let tested = AssertUnwindSafe(async {
            let mut server = Server::up(&engine, &run, &plan, state).await.unwrap_or_else(|e| panic!("{e}"));
            then(&mut server).await;
        });
        // What failed is told after it has been cleaned up.
        let tested = tested.catch_unwind().await;
        engine.sweep_run(run.id()).await.unwrap_or_else(|e| panic!("{e}"));
        tested.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Runs the command beside the server.
async fn probe(url: &str, token: Option<&str>, arguments: &[&str]) -> Ran {
    let mut command = Lockproof::new(["probe", url, "--rate", "0", "--report", "json=report.json"]);
    if let Some(token) = token {
        command = command.env("COMFYUI_API_TOKEN", token).args(["--token-env", "COMFYUI_API_TOKEN"]);
    }
    let command = command.args(arguments.iter().copied());
    tokio::task::spawn_blocking(|| command.run()).await.unwrap_or_else(|e| panic!("{e}"))
}

fn rules(ran: &Ran) -> Vec<String> {
    let mut rules: Vec<String> = ran.report().findings.iter().map(|f| f.rule.id().to_owned()).collect();
    rules.sort();
    rules.dedup();
    rules
}

fn said(ran: &Ran, server: &str) -> String {
    let nonce = regex_lite::Regex::new("lockproof-[a-z2-9]{8}").expect("a pattern");
    let text = ran.said().replace(server, "http://[server]");
    let text = nonce.replace_all(&text, "lockproof-<nonce>");
    let counts = regex_lite::Regex::new(r"\d+ ms|\d+\.\d s").expect("a pattern");
    counts.replace_all(&text, "#").into_owned()
}

#[rstest]
#[case::without_the_plugin(State::NoPlugin)]
#[case::before_there_is_a_password(State::LoginNoPassword)]
#[case::with_a_password(State::LoginPassword)]
fn each_recorded_state_is_seen_for_what_it_is(suite: Suite, #[case] state: State) {
    let subject = suite.subject("probe").env("LAB_LOGIN_MODE", "faithful");
    with_server(subject, state, async |server| {
        let ran = probe(&server.base, server.token.as_deref(), &[]).await;
        ran.ends_with(1);
        insta::with_settings!({ snapshot_suffix => format!("{state:?}"), omit_expression => true }, {
            assert_said!(ran, said(&ran, &server.base));
        });
    });
}

#[rstest]
fn a_faithful_lab_has_exactly_the_holes_of_the_real_plugin(suite: Suite) {
    let subject = suite.subject("faithful").env("LAB_LOGIN_MODE", "faithful");
    with_server(subject, State::LoginPassword, async |server| {
        // It prints its token at each start that finds one.
        server.restart().await.unwrap_or_else(|e| panic!("{e}"));
        let ran = probe(&server.base, server.token.as_deref(), &["--mutating"]).await;
        // The empty token needs a missing password, guests a file, the others an event or a header.
        assert_eq!(rules(&ran), ["lock/malformed-header", "lock/static-suffix", "lock/token-leak"]);
        let report = ran.report();
        let of = |rule: &str| report.findings.iter().find(|f| f.rule.id() == rule).expect("it is there").clone();
        // What is written with a suffix is written for good: the worst of it is shown.
        let evidence = of("lock/static-suffix").evidence.join("\n");
        assert!(evidence.contains("/userdata/") && evidence.contains(".js"), "{evidence}");
    });
}

#[rstest]
fn a_sound_lock_is_passed_through_tls_and_below_a_path(suite: Suite) {
    with_server(suite.subject("sound"), State::LoginPassword, async |server| {
        let token = server.token.as_deref();
        let address: SocketAddr = server.base.trim_start_matches("http://").parse().expect("an address");
        let directory = tempfile::tempdir().expect("a directory");
        let (tls, ca) = tls_before(address, directory.path()).await;

        let url = format!("https://localhost:{}", tls.port());
        let ran = probe(&url, token, &["--ca", &ca]).await;
        assert_eq!(ran.ends_with(0).report().findings.len(), 0, "{}", ran.said());
        probe(&url, token, &["--insecure"]).await.ends_with(0);
        // A certificate that nobody vouches for is an error with a way out.
        let ran = probe(&url, token, &[]).await;
        assert!(ran.ends_with(3).stderr.contains("--ca FILE"), "{}", ran.stderr);

        let below = below_a_path(address).await;
        let ran = probe(&format!("http://{below}/comfy/"), token, &[]).await;
        assert_eq!(ran.ends_with(0).report().findings.len(), 0, "{}", ran.said());
    });
}

/// TLS that ends before the server, as at a proxy: its address, and the file with its certificate.
async fn tls_before(server: SocketAddr, directory: &Path) -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let ca = directory.join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).expect("written");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(made.cert.der().to_vec())],
            PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key"),
        )
        .expect("they belong together");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let address = serve(move |inside| {
        let acceptor = acceptor.clone();
        async move {
            let mut inside = acceptor.accept(inside).await?;
            copy_bidirectional(&mut inside, &mut TcpStream::connect(server).await?).await.map(|_| ())
        }
    })
    .await;
    (address, ca.display().to_string())
}

/// A proxy that shows the server below `/comfy`.
async fn below_a_path(server: SocketAddr) -> SocketAddr {
    serve(move |inside| async move {
        let (reader, mut back) = inside.into_split();
        let (mut from_server, mut to_server) = TcpStream::connect(server).await?.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut back).await });
        requests(BufReader::new(reader), &mut to_server).await
    })
    .await
}

/// Passes requests on, each with the head of its target taken off.
async fn requests(
    mut reader: BufReader<impl AsyncRead + Unpin>,
    server: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<()> {
    loop {
        let (mut line, mut length) = (Vec::new(), 0);
        if reader.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let first = String::from_utf8_lossy(&line).replacen(" /comfy/", " /", 1);
        server.write_all(first.as_bytes()).await?;
        loop {
            let mut line = Vec::new();
            reader.read_until(b'\n', &mut line).await?;
            let text = String::from_utf8_lossy(&line).to_ascii_lowercase();
            if let Some(value) = text.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            server.write_all(&line).await?;
            if line.len() <= 2 {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).await?;
        server.write_all(&body).await?;
    }
}

/// Answers connections until the test ends.
async fn serve<F>(each: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(each(stream));
        }
    });
    address
}

/// A server that gives the same answer to everything.
async fn always(answer: &'static str) -> SocketAddr {
    serve(move |mut stream| async move {
        let mut request = [0; 4096];
        while stream.read(&mut request).await? > 0 {
            stream.write_all(answer.as_bytes()).await?;
        }
        Ok(())
    })
    .await
}

#[rstest]
#[case::a_page_of_something_else(
    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello",
    "may not be ComfyUI"
)]
#[case::a_proxy_that_redirects(
    "HTTP/1.1 302 Found\r\nLocation: https://sso.example/login\r\nContent-Length: 0\r\n\r\n",
    "redirects every request to https://sso.example/login"
)]
fn what_stands_before_it_is_told(#[case] answer: &'static str, #[case] told: &str) {
    block_on(async {
        let address = always(answer).await;
        let ran = probe(&format!("http://{address}"), None, &["--timeout", "2s"]).await;
        assert!(ran.stderr.contains(told), "{}", ran.said());
    });
}

#[test]
fn a_server_that_is_down_is_told_within_a_line() {
    block_on(async {
        let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
        let ran = probe(&format!("http://{free}"), None, &[]).await;
        assert!(ran.ends_with(3).stderr.contains("does not answer"), "{}", ran.said());
    });
}

#[rstest]
fn an_unclassified_route_is_probed_and_a_routes_file_names_more(suite: Suite) {
    // A route of a custom node that the lock forgot, which only the file knows of.
    let node = "mkdir -p custom_nodes/forgotten && printf '%s\\n' \
         'from aiohttp import web' 'from server import PromptServer' \
         '@PromptServer.instance.routes.get(\"/forgotten/{name}.js\")' \
         'async def forgotten(request): return web.json_response({\"secret\": request.match_info[\"name\"]})' \
         'NODE_CLASS_MAPPINGS = {}' > custom_nodes/forgotten/__init__.py";
    let subject = suite
        .subject("routes")
        .env("LAB_LOGIN_MODE", "faithful")
        .shell(format!("{node} && exec {}", suite.command_line("")));
    with_server(subject, State::LoginPassword, async |server| {
        let routes = "- { path: \"/forgotten/{name}.js\" }\n";
        let command = Lockproof::new(["probe", &server.base, "--rate", "0", "--routes", "routes.yaml"])
            .file("routes.yaml", routes)
            .env("TOKEN", server.token.as_deref().unwrap_or_default())
            .args(["--token-env", "TOKEN", "--report", "json=report.json"]);
        let ran = tokio::task::spawn_blocking(|| command.run()).await.unwrap_or_else(|e| panic!("{e}"));
        let evidence: Vec<String> = ran.report().findings.iter().flat_map(|f| f.evidence.clone()).collect();
        assert!(evidence.iter().any(|line| line.contains("/forgotten/")), "{evidence:#?}");
    });
}
