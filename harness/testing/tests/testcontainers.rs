//! `lockproof_testcontainers` on a real engine: what it promises beyond testcontainers itself.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bollard::{Docker, query_parameters::ListContainersOptionsBuilder};
use lockproof_deploy::{
    engine::{
        Engine, Run,
        sweep::{Leftovers, Whose},
    },
    lab::Kit,
    subject::Install,
};
use lockproof_model::{error::Result, secret, verdict::Verdict};
use lockproof_testcontainers::{ComfyUi, testcontainers::runners::AsyncRunner};

/// The command that was built with these tests, as nextest's set-up script names it.
fn lockproof() -> PathBuf {
    match std::env::var_os("LOCKPROOF_BIN").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        // Beside the directory of the tests, where cargo puts it.
        None => std::env::current_exe().expect("a path").ancestors().nth(2).expect("a directory").join("lockproof"),
    }
}

/// What is on the engine of one run.
async fn left(run: &str) -> Leftovers {
    let engine = Engine::connect().await.expect("there is an engine");
    engine.leftovers(Whose::Run(run)).await.expect("it lists").remove(run).unwrap_or_default()
}

/// The addresses on which the engine publishes a container.
async fn published_on(id: &str) -> Vec<String> {
    let docker = Docker::connect_with_defaults().expect("there is an engine");
    let container = docker.inspect_container(id, None).await.expect("it is there");
    let ports = container.network_settings.and_then(|n| n.ports).unwrap_or_default();
    ports.into_values().flatten().flatten().filter_map(|binding| binding.host_ip).collect()
}

/// An address of this machine that is not its loopback, if it has one.
fn outside_address() -> Option<IpAddr> {
    // No packet is sent: the route tells which address it would come from.
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

fn port(url: &str) -> u16 {
    url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a URL with a port")
}

#[test]
fn the_example_runs_to_its_end() {
    let example = lockproof().with_file_name("examples").join("testcontainers");
    if !example.exists() {
        // It is built with all tests, but not when only this file is asked for; with another
        // selection than nextest's, cargo would build some dependencies anew.
        let build = ["build", "--quiet", "--locked", "--workspace", "--example", "testcontainers"];
        let built = Command::new(env!("CARGO")).args(build).status();
        assert!(built.is_ok_and(|status| status.success()), "the example cannot be built");
    }
    let output = Command::new(&example).output().expect("it was built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn the_port_is_asked_for_again_after_each_start() -> Result<()> {
    let mut comfyui = ComfyUi::lab().await?.start().await?;
    let mut ports = vec![port(&comfyui.base_url().await?)];

    // Ready means ready: the first request after each start is answered.
    comfyui.restart().await?;
    ports.push(port(&comfyui.base_url().await?));
    assert_eq!(comfyui.status("/system_stats").await?, 200);

    comfyui.stop().await?;
    let error = comfyui.base_url().await.expect_err("it does not run").to_string();
    assert!(error.contains("is not running"), "{error}");
    assert!(comfyui.status("/system_stats").await.is_err());
    comfyui.start().await?;
    ports.push(port(&comfyui.base_url().await?));
    assert_eq!(comfyui.status("/system_stats").await?, 200);

    comfyui.kill().await?;
    assert!(comfyui.base_url().await.is_err());
    comfyui.start().await?;
    ports.push(port(&comfyui.base_url().await?));
    assert_eq!(comfyui.status("/system_stats").await?, 200);

    // Docker 20.10 gives another port each time; an engine that does not is as good.
    println!("the ports of four lives: {ports:?}");
    comfyui.remove().await
}

#[tokio::test]
async fn it_is_published_on_the_loopback_address_only() -> Result<()> {
    let comfyui = ComfyUi::lab().await?.start().await?;
    assert_eq!(published_on(&comfyui.id()).await, ["127.0.0.1"]);
    if let Some(ip) = outside_address() {
        let outside = SocketAddr::new(ip, port(&comfyui.base_url().await?));
        assert!(TcpStream::connect_timeout(&outside, Duration::from_secs(2)).is_err(), "{outside} answers");
    }
    comfyui.remove().await
}

#[tokio::test]
async fn a_request_for_testcontainers_alone_is_published_on_the_loopback_address_only() -> Result<()> {
    let container = ComfyUi::lab().await?.request()?.start().await.expect("it logs that it listens");
    assert_eq!(published_on(container.id()).await, ["127.0.0.1"]);
    Ok(())
}

#[tokio::test]
async fn a_container_that_exits_gives_an_error_at_once_with_its_log() -> Result<()> {
    let mark = secret::random(12);
    let dying = ComfyUi::lab()
        .await?
        .with_label("test", &mark)
        .with_volume("nodes", "/opt/ComfyUI/custom_nodes")
        .with_startup_timeout(Duration::from_secs(300))
        .with_cmd(["sh", "-c", "echo 'no such model: qwen' >&2; exit 3"]);
    let begun = Instant::now();
    let error = dying.start().await.expect_err("it exits").to_string();
    assert!(begun.elapsed() < Duration::from_secs(60), "it took {:?}", begun.elapsed());
    assert!(error.contains("exited with code 3"), "{error}");
    assert!(error.contains("no such model: qwen"), "{error}");

    let docker = Docker::connect_with_defaults().expect("there is an engine");
    let filters = HashMap::from([("label".to_owned(), vec![format!("test={mark}")])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    assert_eq!(docker.list_containers(Some(options)).await.expect("it lists").len(), 0);
    Ok(())
}

#[tokio::test]
async fn a_missing_program_is_reported_with_the_engine_s_message() -> Result<()> {
    let error = ComfyUi::lab().await?.with_entrypoint("/no/such/program").start().await.expect_err("it cannot start");
    assert!(error.to_string().contains("/no/such/program"), "{error}");
    Ok(())
}

/// In both kinds of runtime, because there is no asynchronous drop.
async fn drop_one_and_look() -> Result<()> {
    let files = tempfile::tempdir().expect("a directory");
    let comfyui = ComfyUi::lab()
        .await?
        .with_volume("nodes", "/opt/ComfyUI/custom_nodes")
        .with_bind(files.path(), "/workspace")
        .start()
        .await?;
    let run = comfyui.run_id().to_owned();
    let there = left(&run).await;
    assert_eq!((there.containers.len(), there.networks.len()), (1, 1));
    assert!(there.volumes.len() >= 2, "{there:?}");
    drop(comfyui);
    assert_eq!(left(&run).await, Leftovers::default());
    Ok(())
}

#[tokio::test]
async fn a_drop_removes_everything() -> Result<()> {
    drop_one_and_look().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drop_removes_everything_on_many_threads() -> Result<()> {
    drop_one_and_look().await
}

#[tokio::test]
async fn a_lock_on_volumes_survives_a_recreate() -> Result<()> {
    let mut comfyui = ComfyUi::lab()
        .await?
        .with_volume("nodes", "/opt/ComfyUI/custom_nodes")
        .with_volume("login", "/opt/ComfyUI/login")
        .with_volume("venv", "/opt/venv")
        .start()
        .await?;
    let first = comfyui.id();
    comfyui.install_lab_login().await?;
    let keys = comfyui.mint().await?;
    comfyui.recreate().await?;
    assert_ne!(comfyui.id(), first);
    assert_eq!(comfyui.verdict(&keys).await?, Verdict::Locked);
    assert_eq!(comfyui.status_with("/queue", &keys).await?, 200);
    assert_eq!(published_on(&comfyui.id()).await, ["127.0.0.1"]);
    comfyui.remove().await
}

/// A script that installs what the baked-in plugin lacks.
fn script_for_the_baked_plugin(directory: &Path) -> PathBuf {
    let script = directory.join("install.sh");
    let text = "set -eu\n\
        requirements=$LOCKPROOF_CUSTOM_NODES/lab-login/requirements.txt\n\
        \"$LOCKPROOF_PYTHON\" -m pip install --no-index --find-links \"$LOCKPROOF_WHEELS\" -r \"$requirements\"\n";
    std::fs::write(&script, text).expect("it can be written");
    script
}

#[tokio::test]
async fn an_empty_bind_over_a_plugin_that_the_image_has_is_open() -> Result<()> {
    let image = ComfyUi::image("lockproof/comfyui-lab:baked").with_stop_timeout(Duration::from_secs(1));
    let scratch = tempfile::tempdir().expect("a directory");

    // The image's plugin locks, once its dependencies are there.
    let mut baked = image.clone().start().await?;
    let kit = Kit::prepare(&Engine::connect().await?, &Run::new()).await?;
    let script = Some(script_for_the_baked_plugin(scratch.path()));
    baked.install(Install { from: None, into: None, script, wheels: Some(kit.wheels()) }).await?;
    let keys = baked.mint().await?;
    assert_eq!(baked.verdict(&keys).await?, Verdict::Locked);
    baked.remove().await?;

    // An empty bind hides it, as in life; an empty volume would have been filled from the image.
    let empty = scratch.path().join("custom_nodes");
    std::fs::create_dir(&empty).expect("it can be made");
    let bound = image.with_bind(&empty, "/opt/ComfyUI/custom_nodes").start().await?;
    assert_eq!(bound.exec(["ls", "-A", "/opt/ComfyUI/custom_nodes"]).await?.stdout, "");
    assert_eq!(bound.verdict(&keys).await?, Verdict::Open);
    bound.remove().await?;
    assert_eq!(std::fs::read_dir(&empty).expect("it is there").count(), 0, "the bind was written through");
    Ok(())
}

/// Not a test: the process that the next one kills.
#[tokio::test]
#[ignore = "is run and killed by a_killed_test_is_tidied_up_after"]
async fn a_test_that_hangs() -> Result<()> {
    let comfyui = ComfyUi::lab().await?.with_volume("nodes", "/opt/ComfyUI/custom_nodes").start().await?;
    println!("\nrun={}", comfyui.run_id());
    std::future::pending().await
}

#[tokio::test]
async fn a_killed_test_is_tidied_up_after() {
    let mut hanging = Command::new(std::env::current_exe().expect("this test"))
        .args(["--ignored", "--exact", "a_test_that_hangs", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it can be run again");
    let said = BufReader::new(hanging.stdout.take().expect("it is piped"));
    let run = said.lines().map_while(std::io::Result::ok).find_map(|line| line.strip_prefix("run=").map(str::to_owned));
    hanging.kill().expect("it runs");
    hanging.wait().expect("it ends");
    let run = run.expect("it said its run before it was killed");
    assert_ne!(left(&run).await, Leftovers::default(), "SIGKILL leaves no time to clean up");

    let cleaned = Command::new(lockproof()).arg("clean").output().expect("it runs");
    assert!(cleaned.status.success(), "{}", String::from_utf8_lossy(&cleaned.stderr));
    assert_eq!(left(&run).await, Leftovers::default());
}
