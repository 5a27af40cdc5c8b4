//! The recordings against a server that was brought up for it, in each of the three states.

use std::path::Path;

use lockproof::config::plan::Plan;
use lockproof_deploy::{
    engine::{Engine, Run},
    lab,
};
use lockproof_model::{config::ConfigFile, error::Result};
use rstest::rstest;

use super::{Report, Server, State, Subject, replay_all};
use crate::{
    gate::block_on,
    suite::{Suite, suite},
};

#[rstest]
#[case::without_the_plugin(State::NoPlugin)]
#[case::before_there_is_a_password(State::LoginNoPassword)]
#[case::with_a_password(State::LoginPassword)]
fn every_recorded_exchange_is_answered_as_it_was(suite: Suite, #[case] state: State) {
    // The lab's plugin has the holes of the recorded one in this mode; a real one has its own.
    let subject = suite.subject("contract").env("LAB_LOGIN_MODE", "faithful");
    let file = ConfigFile { subjects: vec![subject.0], ..ConfigFile::default() };
    let plan = Plan::new(&file, Path::new("/")).unwrap_or_else(|e| panic!("the test is wrong: {e}"));
    let run = Run::new();
    let report = block_on(async {
        let engine = Engine::connect().await.unwrap_or_else(|e| panic!("{e}"));
        let report = replayed(&engine, &run, &plan, state).await;
        engine.sweep_run(run.id()).await.unwrap_or_else(|e| panic!("{e}"));
        report.unwrap_or_else(|e| panic!("{e}"))
    });
    let report = report.unwrap_or_else(|e| panic!("{e:#}"));
    println!("{report}");
    assert!(report.failures.is_empty(), "{report}");
    if suite.image == lab::REPOSITORY {
        insta::with_settings!({ snapshot_suffix => format!("{state:?}") }, {
            insta::assert_snapshot!(report.to_string());
        });
    } else {
        assert!(report.deviations.is_empty(), "the real server never deviates: {report}");
    }
}

/// Brings the server up, in the state that was recorded, and replays the recordings.
async fn replayed(engine: &Engine, run: &Run, plan: &Plan, state: State) -> Result<anyhow::Result<Report>> {
    let Server { base, token, code_dir, .. } = Server::up(engine, run, plan, state).await?;
    Ok(replay_all(&Subject { base, state, token, code_dir }).await)
}
