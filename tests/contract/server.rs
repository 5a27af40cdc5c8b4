//! A server that is brought up in one of the recorded states.

use lockproof::config::plan::Plan;
use lockproof_deploy::{
    deployment::{Deployment, ready::Readiness},
    engine::{Engine, Run},
    install, layout, mint,
};
use lockproof_model::error::Result;
use lockproof_probe::{client::Client, keys};

use super::{State, credential};

/// A server that runs. It ends with its run.
#[derive(Debug)]
pub(crate) struct Server {
    /// `http://127.0.0.1:8188`, without a slash at the end.
    pub(crate) base: String,
    /// The token, where the state has one.
    pub(crate) token: Option<String>,
    /// Where its code is.
    pub(crate) code_dir: String,
    deployment: Deployment,
}

impl Server {
    /// Brings the plan's first subject up.
    ///
    /// # Errors
    /// What kept it from coming up.
    pub(crate) async fn up(engine: &Engine, run: &Run, plan: &Plan, state: State) -> Result<Self> {
        let deployment = Deployment::bring_up(engine, run, "server", &plan.subjects[0]).await?;
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
                token = mint::read(&deployment, &layout, &installed).await?;
                assert!(token.is_some(), "no token was minted: {answer:?}");
            }
        }
        Ok(Self { base: client.base(), token, code_dir: layout.code_dir, deployment })
    }

    /// Starts it anew.
    ///
    /// # Errors
    /// What kept it from coming up.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        self.deployment.restart().await?;
        self.base = ready(&self.deployment).await?.base();
        Ok(())
    }
}

async fn ready(deployment: &Deployment) -> Result<Client> {
    match deployment.wait_ready().await? {
        Readiness::Ready { client, .. } => Ok(client),
        Readiness::Down(down) => panic!("{}: {:#?}", down.why, down.log),
    }
}
