//! Where things are inside a subject is found from the running container, however it was started.

use lockproof::config::plan::Plan;
use lockproof_deploy::{
    deployment::{Deployment, ready::Readiness},
    engine::{Engine, Run},
    layout::{self, Layout},
};
use lockproof_model::{
    config::{ConfigFile, LayoutEntry},
    event::Event,
    verdict::Verdict,
};
use rstest::rstest;

use crate::{
    assert_said,
    command::Lockproof,
    derived::Derived,
    gate::{Gate, block_on},
    suite::{Source, Subject, Suite, suite},
};

/// Brings a subject up, without a lock, and looks where things are.
#[track_caller]
fn found(subject: Subject) -> Layout {
    let file = ConfigFile { subjects: vec![subject.0], ..ConfigFile::default() };
    let plan = Plan::new(&file, std::path::Path::new("/")).unwrap_or_else(|e| panic!("the test is wrong: {e}"));
    let run = Run::new();
    let found = block_on(async {
        let engine = Engine::connect().await?;
        let found = async {
            let deployment = Deployment::bring_up(&engine, &run, "detection", &plan.subjects[0]).await?;
            match deployment.wait_ready().await? {
                Readiness::Ready { client, .. } => layout::detect(&deployment, &client).await,
                Readiness::Down(down) => panic!("{}: {:#?}", down.why, down.log),
            }
        };
        let found = found.await;
        engine.sweep_run(run.id()).await?;
        found
    });
    found.unwrap_or_else(|e| panic!("{e}"))
}

/// What is found in the suite's image when nothing is unusual.
fn usual(suite: &Suite) -> Layout {
    Layout {
        code_dir: suite.code_dir.clone(),
        custom_nodes: vec![suite.custom_nodes()],
        python: suite.python(),
        ids: (0, 0),
    }
}

#[rstest]
fn the_image_s_own_command_is_enough(suite: Suite) {
    assert_eq!(found(suite.subject("usual")), usual(&suite));
}

#[rstest]
fn the_code_may_lie_in_app(suite: Suite) {
    let image = Derived::of(&suite, &format!("RUN mv {} /app\nWORKDIR /app", suite.code_dir));
    let layout = found(suite.subject("app").image(image.name()));
    assert_eq!(
        (layout.code_dir.as_str(), layout.custom_nodes.as_slice()),
        ("/app", &["/app/custom_nodes".to_owned()][..])
    );
    assert_eq!(layout.python, suite.python());
}

#[rstest]
fn a_base_directory_moves_custom_nodes_but_not_the_code(suite: Suite) {
    let line = suite.command_line("--base-directory=/data/base");
    let layout = found(suite.subject("base").shell(format!("mkdir -p /data/base/custom_nodes && exec {line}")));
    assert_eq!(layout, Layout { custom_nodes: vec!["/data/base/custom_nodes".to_owned()], ..usual(&suite) });
}

#[rstest]
fn extra_model_paths_may_add_custom_nodes(suite: Suite) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = "shared:\n  base_path: /data\n  custom_nodes: nodes\n";
    std::fs::write(directory.path().join("extra.yaml"), file).expect("written");
    let line = suite.command_line("--extra-model-paths-config /configuration/extra.yaml");
    let subject = suite
        .subject("extra")
        .shell(format!("mkdir -p /data/nodes && exec {line}"))
        .mount(Source::Bind(directory.path().to_owned()), "/configuration");
    let expected = vec![suite.custom_nodes(), "/data/nodes".to_owned()];
    assert_eq!(found(subject), Layout { custom_nodes: expected, ..usual(&suite) });
}

#[rstest]
fn custom_nodes_are_found_behind_a_lock_too(suite: Suite) {
    // Once it is locked, the server itself does not tell; the files and arguments do.
    let image = Derived::baked(&suite);
    let directory = tempfile::tempdir().expect("a directory");
    let file = "first:\n  base_path: /data\n  is_default: true\n  custom_nodes: nodes\n";
    std::fs::write(directory.path().join("extra.yaml"), file).expect("written");
    let line = suite.command_line("--extra-model-paths-config /configuration/extra.yaml");
    let subject = suite
        .subject("behind-a-lock")
        .image(image.name())
        .shell(format!("mkdir -p /data/nodes && exec {line}"))
        .mount(Source::Bind(directory.path().to_owned()), "/configuration");
    let expected = vec!["/data/nodes".to_owned(), suite.custom_nodes()];
    assert_eq!(found(subject), Layout { custom_nodes: expected, ..usual(&suite) });
}

#[rstest]
fn an_init_may_be_the_first_process(suite: Suite) {
    assert_eq!(found(suite.subject("init").with(|entry| entry.init = Some(true))), usual(&suite));
}

#[rstest]
fn a_shell_may_start_the_server_and_stay(suite: Suite) {
    let line = suite.command_line("");
    assert_eq!(found(suite.subject("shell").shell(format!("echo starting; {line}; echo ended"))), usual(&suite));
}

#[rstest]
fn the_script_may_be_named_from_another_directory(suite: Suite) {
    let line = suite.command_line("").replace("main.py", &format!("{}/main.py", suite.code_dir));
    assert_eq!(found(suite.subject("elsewhere").shell(format!("cd / && exec {line}"))), usual(&suite));
}

#[rstest]
fn the_python_of_the_system_is_told_from_a_virtual_environment(suite: Suite) {
    // The environment's interpreter is a link to the system's, so both run the same file.
    let line = suite.command_line("").replacen("python", "/usr/bin/python3", 1);
    assert_eq!(found(suite.subject("system").shell(format!("exec {line}"))).python, "/usr/bin/python3");
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let line = suite.command_line("").replacen("python", "python3", 1);
    let subject = suite.subject("path").shell(format!("exec {line}")).env("PATH", path);
    assert_eq!(found(subject).python, "/usr/bin/python3");
}

#[rstest]
fn a_server_of_another_user_gets_its_lock_from_that_user(suite: Suite) {
    let image = Derived::of(&suite, &format!("RUN chown -R 1000:1000 {} {}", suite.code_dir, suite.venv));
    let subject = suite
        .subject("user")
        .image(image.name())
        .env("HOME", "/tmp")
        .with(|entry| entry.user = Some(lockproof_model::config::Scalar("1000:1000".to_owned())));
    assert_eq!(found(subject.clone()).ids, (1000, 1000));
    let outcome = Gate::of(subject).events([Event::Restart]).run();
    assert_eq!(outcome.verdict(Event::Installed), suite.installed, "{}", outcome.told());
    assert_eq!(outcome.verdict(Event::Restart), suite.installed, "{}", outcome.told());
}

#[rstest]
fn what_the_file_says_is_taken_as_it_is(suite: Suite) {
    let given = LayoutEntry {
        code_dir: Some("/code".to_owned()),
        custom_nodes: Some("/nodes/".to_owned()),
        python: Some("/usr/bin/python3".to_owned()),
    };
    let layout = found(suite.subject("given").with(|entry| entry.layout = Some(given)));
    assert_eq!(layout.code_dir, "/code");
    assert_eq!((layout.custom_nodes_dir(), layout.python.as_str()), ("/nodes", "/usr/bin/python3"));
}

#[rstest]
fn a_server_that_is_not_comfyui_is_told_what_to_write(suite: Suite) {
    let subject = suite.subject("other").command([&suite.python(), "-m", "http.server", "8188"].map(str::to_owned));
    let ran = Lockproof::gate_of(subject, &[Event::Restart]).args(["--report", "json=report.json"]).run();
    ran.ends_with(4);
    let report = ran.report();
    assert_eq!(report.subjects[0].events.iter().filter_map(|e| e.verdict).collect::<Vec<Verdict>>(), []);
    let said = ran.said().replace(&suite.python(), "[python]").replace(&suite.code_dir, "[code]");
    // The line that says what to write has a directory of its own.
    assert_said!(ran, said);
}
