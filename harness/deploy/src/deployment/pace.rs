//! Measures the speed of this machine, for time limits of tests.

use std::{path::Path, time::Duration};

use super::{Deployment, ready::Readiness};
use crate::{
    engine::{Engine, Run},
    lab,
    subject::Subject,
};
use lockproof_model::{
    config::{SchemeEntry, SubjectEntry},
    error::{Error, Result},
};

/// The time of one lab start, from the engine's start to the first answer.
///
/// # Errors
/// An environment error if the lab does not start.
pub async fn start_of_the_lab(engine: &Engine, run: &Run) -> Result<Duration> {
    let subject =
        SubjectEntry { name: "pace".to_owned(), image: Some(lab::REPOSITORY.to_owned()), ..SubjectEntry::default() };
    let subject = Subject::new(&subject, &SchemeEntry::default(), Path::new("/"))?;
    let deployment = Deployment::bring_up(engine, run, "pace", &subject).await?;
    let ready = deployment.wait_ready().await;
    deployment.take_down().await?;
    match ready? {
        Readiness::Ready { after, .. } => Ok(after),
        Readiness::Down(down) => Err(Error::environment("the lab does not start").detail(down.why).fix(down.fix)),
    }
}
