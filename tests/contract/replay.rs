//! The recordings against a server that was brought up for it, in each of the three states.

use std::path::Path;

use lockproof::{
    config::{file::ConfigFile, plan::Plan},
    deployment::{Deployment, ready::Readiness},
    engine::{Engine, Run},
    error::Result,
    install, keys, lab, layout,
    probe::client::Client,
};
use rstest::rstest;

use super::{Report, State, Subject, credential, replay_all};
use crate::{gate::block_on, suite::Suite};

#[rstest]
#[case::without_the_plugin(State::NoPlugin)]
#[case::before_there_is_a_password(State::LoginNoPassword)]
#[case::with_a_password(State::LoginPassword)]
fn every_recorded_exchange_is_answered_as_it_was(#[case] state: State) {
    let Some(suite) = Suite::of_this_test() else { return };
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
    let deployment = Deployment::bring_up(engine, run, "contract", &plan.subjects[0]).await?;
    let mut client = ready(&deployment).await?;
    let layout = layout::detect(&deployment, &client).await?;
    let mut token = None;
    if state != State::NoPlugin {
        let installed = install::install(&deployment, &layout).await?;
        deployment.restart().await?;
        client = ready(&deployment).await?;
        if state == State::LoginPassword {
            let login = deployment.subject.lock.scheme.login.as_ref().expect("the scheme has a form");
            let answer = client.send(&keys::form(login, "owner", credential::PASSWORD)).await;
            token = keys::read(&deployment, &layout, &installed).await?;
            assert!(token.is_some(), "no token was minted: {answer:?}");
        }
    }
    let subject = Subject { base: client.base(), state, token, code_dir: layout.code_dir };
    Ok(replay_all(&subject).await)
}

async fn ready(deployment: &Deployment) -> Result<Client> {
    match deployment.wait_ready().await? {
        Readiness::Ready { client, .. } => Ok(client),
        Readiness::Down(down) => panic!("{}: {:#?}", down.why, down.log),
    }
}
