//! What is on the engine that a process of ours has made. Other people's runs are none of our
//! business.

use std::collections::HashMap;

use bollard::{
    API_DEFAULT_VERSION, Docker,
    models::ContainerInspectResponse,
    query_parameters::{
        ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder, RemoveImageOptionsBuilder,
    },
};
use lockproof_deploy::engine::{
    Engine,
    run::{LABEL_OWNER, LABEL_RUN},
};

/// Seconds that a call may take.
const PATIENCE: u64 = 120;

/// A connection of our own: the library shows nothing of the engine's interface.
pub(crate) async fn docker() -> Docker {
    let engine = Engine::connect().await.unwrap_or_else(|e| panic!("{e}"));
    let docker = match engine.address().strip_prefix("unix://") {
        Some(_) => Docker::connect_with_unix(engine.address(), PATIENCE, API_DEFAULT_VERSION),
        None => Docker::connect_with_host(engine.address()),
    };
    docker.expect("it answered just now").negotiate_version().await.expect("it answers")
}

/// Everything that the process has made and that is still there: its kind, name and run.
pub(crate) async fn by_process(pid: u32) -> Vec<Thing> {
    let docker = docker().await;
    let filters = HashMap::from([("label".to_owned(), vec![LABEL_RUN.to_owned()])]);
    let mut things = Vec::new();
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    for container in docker.list_containers(Some(options)).await.expect("containers are listed") {
        things.extend(Thing::of(pid, "container", container.labels, container.id.unwrap_or_default()));
    }
    let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
    for volume in docker.list_volumes(Some(options)).await.expect("volumes are listed").volumes.unwrap_or_default() {
        things.extend(Thing::of(pid, "volume", Some(volume.labels), volume.name));
    }
    let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
    for network in docker.list_networks(Some(options)).await.expect("networks are listed") {
        things.extend(Thing::of(pid, "network", network.labels, network.name.unwrap_or_default()));
    }
    things
}

/// Something on the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Thing {
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) run: String,
}

impl Thing {
    /// The owner's label is `boot/namespace/pid/start`.
    fn of(pid: u32, kind: &'static str, labels: Option<HashMap<String, String>>, name: String) -> Option<Self> {
        let labels = labels?;
        let owner = labels.get(LABEL_OWNER)?.split('/').nth(2)?.parse::<u32>().ok()?;
        (owner == pid).then(|| Self { kind, name, run: labels.get(LABEL_RUN).cloned().unwrap_or_default() })
    }
}

/// How a container is, in the engine's own words; `None` when it is gone.
pub(crate) async fn inspect(container: &str) -> Option<ContainerInspectResponse> {
    docker().await.inspect_container(container, None).await.ok()
}

/// Removes an image, or one of its names.
pub(crate) async fn remove_image(name: &str) {
    let options = RemoveImageOptionsBuilder::default().force(true).build();
    if let Err(e) = docker().await.remove_image(name, Some(options), None).await {
        eprintln!("the image {name} is left: {e}");
    }
}
