//! Creates, controls and inspects containers.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bollard::{
    container::LogOutput,
    models::{
        ContainerCreateBody, ContainerInspectResponse, HostConfig, Mount, MountType, MountVolumeOptions, PortBinding,
        RestartPolicy as EnginePolicy, RestartPolicyNameEnum,
    },
    query_parameters::{
        CreateContainerOptionsBuilder, KillContainerOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
        RestartContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
    },
};
use futures_util::StreamExt;

use super::{Engine, failed, is_already, is_missing};
use lockproof_model::{
    error::{Error, Result},
    restart::RestartPolicy,
};

/// The size limits of a log, and of a line of a followed log, in bytes.
const LARGEST_LOG: usize = 64 * 1024 * 1024;
const LONGEST_LINE: usize = 16 * 1024 * 1024;
/// The number of kept lines of standard error.
const MOST_ERRORS: usize = 1000;

/// The specification of a container.
#[derive(Clone, Debug, Default)]
pub struct ContainerSpec {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Its labels, including those of the run.
    pub labels: HashMap<String, String>,
    /// The command, if not the image's own.
    pub command: Option<Vec<String>>,
    /// The entry point, if not the image's own.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// The user, if not the image's own.
    pub user: Option<String>,
    /// The working directory, if not the image's own.
    pub working_dir: Option<String>,
    /// Whether an init runs as PID 1; `None`: the engine's setting.
    pub init: Option<bool>,
    /// The restart policy.
    pub restart: RestartPolicy,
    /// The mounts.
    pub mounts: Vec<Attachment>,
    /// The server's port in the container, published on 127.0.0.1.
    pub port: Option<u16>,
    /// The host port on 127.0.0.1; `None`: chosen by the engine.
    pub host_port: Option<u16>,
    /// The name of the network; `None`: the engine's default network.
    pub network: Option<String>,
    /// Whether that network has no route out: ports cannot be published, and name lookups must fail
    /// soon.
    pub isolated: bool,
    /// The time limit of a stop before SIGKILL.
    pub stop_timeout: Option<Duration>,
    /// `host` for the helper that must see the host's processes.
    pub pid_mode: Option<String>,
}

/// A mount of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// A volume by its real name.
    Volume {
        /// The volume.
        name: String,
        /// The path in the container.
        target: String,
        /// Whether it is read-only.
        read_only: bool,
        /// Whether an empty volume stays empty instead of being filled from the image.
        no_copy: bool,
    },
    /// A tmpfs.
    Tmpfs {
        /// The path in the container.
        target: String,
    },
    /// A direct bind mount: only for lockproof's own files, or for a copy in one of its volumes.
    /// All other host paths are mounted through [`cow`](super::cow).
    Bind {
        /// The host path.
        source: String,
        /// The path in the container.
        target: String,
        /// Whether it is read-only.
        read_only: bool,
    },
}

/// The state of a container at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// Its id.
    pub id: String,
    /// The start time of its process; with the id, it identifies one life of the container.
    pub started_at: String,
    /// Whether it is running.
    pub running: bool,
    /// Whether the engine is about to restart it.
    pub restarting: bool,
    /// The exit code of its last life.
    pub exit_code: i64,
    /// The engine's error message if it could not start.
    pub error: String,
    /// Whether it was killed because it ran out of memory.
    pub oom_killed: bool,
    /// The id of its main process in the host's PID namespace.
    pub pid: i64,
    /// The number of restarts by the restart policy.
    pub restarts: i64,
    /// The current host port on 127.0.0.1.
    pub host_port: Option<u16>,
    /// Its address in its network.
    pub ip: Option<IpAddr>,
}

impl Life {
    /// Whether `other` is the same process of the same container.
    pub fn is_same(&self, other: &Self) -> bool {
        self.id == other.id && self.started_at == other.started_at && self.running && other.running
    }

    /// Whether its process could not start at all: for example because the command or user does not
    /// exist. This is an error of the configuration, not of the engine.
    pub fn never_ran(&self) -> bool {
        !self.running && !self.error.is_empty() && is_refused_by_runtime(&self.error, self.exit_code)
    }

    /// The current address of the server: published on the loopback interface, or in its network.
    pub fn address(&self, port: u16) -> Option<SocketAddr> {
        match (self.host_port, self.ip) {
            (Some(host_port), _) => Some(SocketAddr::from(([127, 0, 0, 1], host_port))),
            (None, Some(ip)) => Some(SocketAddr::new(ip, port)),
            (None, None) => None,
        }
    }
}

impl ContainerSpec {
    fn body(&self) -> ContainerCreateBody {
        ContainerCreateBody {
            image: Some(self.image.clone()),
            cmd: self.command.clone(),
            entrypoint: self.entrypoint.clone(),
            env: Some(self.env.clone()),
            user: self.user.clone(),
            working_dir: self.working_dir.clone(),
            labels: Some(self.labels.clone()),
            exposed_ports: self.port_key().map(|key| vec![key]),
            stop_timeout: self.stop_timeout.and_then(|t| i64::try_from(t.as_secs()).ok()),
            host_config: Some(self.host_config()),
            ..Default::default()
        }
    }

    /// The host settings for the engine: ports, mounts, network.
    pub fn host_config(&self) -> HostConfig {
        let published = self.port_key().filter(|_| !self.isolated).map(|key| {
            // The engine chooses the port, but never the address: 0.0.0.0 would publish the server
            // under test to the whole network.
            let binding = PortBinding {
                host_ip: Some("127.0.0.1".into()),
                host_port: Some(self.host_port.map_or_else(String::new, |p| p.to_string())),
            };
            HashMap::from([(key, Some(vec![binding]))])
        });
        HostConfig {
            port_bindings: published,
            mounts: Some(self.mounts.iter().map(Attachment::to_engine).collect()),
            network_mode: self.network.clone(),
            init: self.init,
            restart_policy: Some(to_engine(self.restart)),
            pid_mode: self.pid_mode.clone(),
            // An isolated network drops packets, so every name lookup runs into its time limit:
            // make it short.
            dns_options: self.isolated.then(|| vec!["timeout:1".into(), "attempts:1".into()]),
            ..Default::default()
        }
    }

    fn port_key(&self) -> Option<String> {
        self.port.map(|p| format!("{p}/tcp"))
    }
}

impl Attachment {
    /// The path in the container.
    pub fn target(&self) -> &str {
        match self {
            Self::Volume { target, .. } | Self::Tmpfs { target } | Self::Bind { target, .. } => target,
        }
    }

    fn to_engine(&self) -> Mount {
        match self {
            Self::Volume { name, target, read_only, no_copy } => Mount {
                typ: Some(MountType::VOLUME),
                source: Some(name.clone()),
                target: Some(target.clone()),
                read_only: Some(*read_only),
                volume_options: Some(MountVolumeOptions { no_copy: Some(*no_copy), ..Default::default() }),
                ..Default::default()
            },
            Self::Tmpfs { target } => {
                Mount { typ: Some(MountType::TMPFS), target: Some(target.clone()), ..Default::default() }
            }
            Self::Bind { source, target, read_only } => Mount {
                typ: Some(MountType::BIND),
                source: Some(source.clone()),
                target: Some(target.clone()),
                read_only: Some(*read_only),
                ..Default::default()
            },
        }
    }
}

fn to_engine(policy: RestartPolicy) -> EnginePolicy {
    let (name, times) = match policy {
        RestartPolicy::No => (RestartPolicyNameEnum::NO, None),
        RestartPolicy::Always => (RestartPolicyNameEnum::ALWAYS, None),
        RestartPolicy::UnlessStopped => (RestartPolicyNameEnum::UNLESS_STOPPED, None),
        RestartPolicy::OnFailure(times) => (RestartPolicyNameEnum::ON_FAILURE, times.map(i64::from)),
    };
    EnginePolicy { name: Some(name), maximum_retry_count: times }
}

impl Engine {
    /// Creates a container without starting it, and returns its id.
    ///
    /// # Errors
    /// An environment error if the engine fails.
    pub async fn create(&self, spec: &ContainerSpec) -> Result<String> {
        let options = CreateContainerOptionsBuilder::default().name(&spec.name).build();
        let made = self
            .docker
            .create_container(Some(options), spec.body())
            .await
            .map_err(|e| failed(&format!("creating a container of {}", spec.image), &e))?;
        Ok(made.id)
    }

    /// Starts a container. If its process cannot start ([`Life::never_ran`]), this is not an error:
    /// its [`Life`] has the reason.
    ///
    /// # Errors
    /// An environment error if the engine fails, for example because a port is in use or the disk
    /// is full.
    pub async fn start(&self, id: &str) -> Result<()> {
        match self.docker.start_container(id, None::<StartContainerOptions>).await {
            Ok(()) => Ok(()),
            Err(e) if is_already(&e) => Ok(()),
            Err(e) => match self.life(id).await {
                Ok(Some(life)) if life.never_ran() => Ok(()),
                _ => Err(failed("starting the container", &e)),
            },
        }
    }

    /// Stops a container: SIGTERM, then SIGKILL after `grace`.
    ///
    /// # Errors
    /// An environment error if the engine fails.
    pub async fn stop(&self, id: &str, grace: Duration) -> Result<()> {
        let options = StopContainerOptionsBuilder::default().t(seconds(grace)).build();
        match self.docker.stop_container(id, Some(options)).await {
            Ok(()) => Ok(()),
            Err(e) if is_already(&e) => Ok(()),
            Err(e) => Err(failed("stopping the container", &e)),
        }
    }

    /// Restarts a container.
    ///
    /// # Errors
    /// An environment error if the engine fails.
    pub async fn restart(&self, id: &str, grace: Duration) -> Result<()> {
        let options = RestartContainerOptionsBuilder::default().t(seconds(grace)).build();
        self.docker.restart_container(id, Some(options)).await.map_err(|e| failed("restarting the container", &e))
    }

    /// Kills a container with SIGKILL. The engine treats this as a manual stop, so no restart
    /// policy restarts it.
    ///
    /// # Errors
    /// An environment error if the engine fails.
    pub async fn kill(&self, id: &str) -> Result<()> {
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        match self.docker.kill_container(id, Some(options)).await {
            Ok(()) => Ok(()),
            Err(e) if is_already(&e) => Ok(()),
            Err(e) => Err(failed("killing the container", &e)),
        }
    }

    /// Removes a container if it exists, running or not. Keeps its volumes.
    ///
    /// # Errors
    /// An environment error if the engine fails.
    pub async fn remove(&self, id: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(false).build();
        match self.docker.remove_container(id, Some(options)).await {
            Ok(()) => Ok(()),
            Err(e) if is_missing(&e) => Ok(()),
            Err(e) if is_already(&e) => self.wait_removed(id).await,
            Err(e) => Err(failed("removing a container", &e)),
        }
    }

    /// Waits for a removal that another client started.
    async fn wait_removed(&self, id: &str) -> Result<()> {
        for _ in 0..100 {
            if self.life(id).await?.is_none() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(Error::environment(format!("cannot remove the container {id}")).fix("remove it with `docker rm -f`"))
    }

    /// The state of a container; `None` if it does not exist.
    ///
    /// # Errors
    /// An environment error if the engine does not answer.
    pub async fn life(&self, id: &str) -> Result<Option<Life>> {
        match self.docker.inspect_container(id, None).await {
            Ok(response) => Ok(Some(self.with_lent_network(life_of(&response), &response).await)),
            Err(e) if is_missing(&e) => Ok(None),
            Err(e) => Err(failed("inspecting the container", &e)),
        }
    }

    /// Adds the address of the container whose network this container uses.
    async fn with_lent_network(&self, life: Life, response: &ContainerInspectResponse) -> Life {
        let mode = response.host_config.as_ref().and_then(|h| h.network_mode.as_deref());
        let Some(other) = mode.and_then(|m| m.strip_prefix("container:")) else { return life };
        match self.docker.inspect_container(other, None).await {
            Ok(response) => {
                let Life { host_port, ip, .. } = life_of(&response);
                Life { host_port, ip, ..life }
            }
            Err(_) => life,
        }
    }

    /// The last `count` lines of a container's log, over all its starts.
    ///
    /// # Errors
    /// An environment error if the engine does not return it.
    pub async fn last_lines(&self, id: &str, count: usize) -> Result<Vec<String>> {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail(&count.to_string()).build();
        let mut stream = self.docker.logs(id, Some(options));
        let mut text = String::new();
        while let Some(chunk) = stream.next().await {
            match chunk.map_err(|e| failed("reading the container's log", &e))? {
                LogOutput::StdErr { message } | LogOutput::StdOut { message } | LogOutput::Console { message } => {
                    text.push_str(&String::from_utf8_lossy(&message));
                }
                LogOutput::StdIn { .. } => {}
            }
            if text.len() > LARGEST_LOG {
                return Err(Error::environment(format!(
                    "the last {count} lines of the container's log are larger than {LARGEST_LOG} bytes"
                )));
            }
        }
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        Ok(lines[lines.len().saturating_sub(count)..].to_vec())
    }

    /// The address of a foreign container from this machine: its published port, preferably that of
    /// ComfyUI, else its address in its network; `None` if it is not running.
    ///
    /// # Errors
    /// An environment error if the engine does not answer.
    pub async fn published(&self, id: &str) -> Result<Option<SocketAddr>> {
        const COMFYUI: &str = "8188/tcp";
        let response = match self.docker.inspect_container(id, None).await {
            Ok(response) => response,
            Err(e) if is_missing(&e) => return Ok(None),
            Err(e) => return Err(failed("inspecting the container", &e)),
        };
        let network = response.network_settings.unwrap_or_default();
        let ports = network.ports.unwrap_or_default();
        let mut bound: Vec<(bool, SocketAddr)> = ports
            .iter()
            .flat_map(|(port, bindings)| bindings.iter().flatten().map(move |binding| (port, binding)))
            .filter_map(|(port, binding)| {
                let ip: IpAddr = binding.host_ip.as_deref().unwrap_or("0.0.0.0").parse().ok()?;
                let host_port = binding.host_port.as_deref()?.parse().ok()?;
                // If bound to every address, use the loopback address.
                let ip = if ip.is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { ip };
                Some((port != COMFYUI, SocketAddr::new(ip, host_port)))
            })
            .collect();
        bound.sort();
        let own = || {
            let ip = network.networks.iter().flatten().find_map(|(_, n)| n.ip_address.as_deref()?.parse().ok())?;
            Some(SocketAddr::new(ip, 8188))
        };
        Ok(bound.first().map(|(_, address)| *address).or_else(own))
    }

    /// The working directory of a container's process; empty for `/`.
    ///
    /// # Errors
    /// An environment error if the engine does not answer.
    pub async fn working_dir(&self, id: &str) -> Result<String> {
        let response =
            self.docker.inspect_container(id, None).await.map_err(|e| failed("inspecting the container", &e))?;
        Ok(response.config.and_then(|c| c.working_dir).unwrap_or_default())
    }

    /// Follows a container's output until it exits: passes each line of standard output to `line`,
    /// and collects standard error in `errors`.
    ///
    /// # Errors
    /// An environment error if the engine does not return it.
    pub async fn follow(&self, id: &str, mut line: impl FnMut(&str), errors: &mut Vec<String>) -> Result<()> {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).follow(true).build();
        let mut stream = self.docker.logs(id, Some(options));
        let mut pending = Vec::new();
        while let Some(chunk) = stream.next().await {
            match chunk.map_err(|e| failed("reading the container's log", &e))? {
                LogOutput::StdOut { message } | LogOutput::Console { message } => {
                    pending.extend_from_slice(&message);
                    while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                        let whole: Vec<u8> = pending.drain(..=end).collect();
                        line(String::from_utf8_lossy(&whole).trim_end());
                    }
                    if pending.len() > LONGEST_LINE {
                        return Err(Error::environment(format!(
                            "a line of the container's log is longer than {LONGEST_LINE} bytes"
                        )));
                    }
                }
                LogOutput::StdErr { message } => {
                    errors.extend(String::from_utf8_lossy(&message).lines().map(str::to_owned));
                    // Only the last ones are shown.
                    errors.drain(..errors.len().saturating_sub(MOST_ERRORS));
                }
                LogOutput::StdIn { .. } => {}
            }
        }
        Ok(())
    }
}

/// Whether a failed start corresponds to a shell's exit code 126 or 127, or is caused by the user.
fn is_refused_by_runtime(error: &str, exit_code: i64) -> bool {
    let named = ["executable file not found", "no such file or directory", "permission denied", "exec format error"];
    let user = ["unable to find user", "unable to find group", "no matching entries in"];
    !super::is_port_taken(error)
        && !error.contains("no space left")
        && (user.iter().any(|words| error.contains(words))
            || matches!(exit_code, 126 | 127) && named.iter().any(|words| error.contains(words)))
}

fn seconds(grace: Duration) -> i32 {
    i32::try_from(grace.as_secs()).unwrap_or(i32::MAX)
}

fn life_of(response: &ContainerInspectResponse) -> Life {
    let state = response.state.clone().unwrap_or_default();
    let network = response.network_settings.clone().unwrap_or_default();
    let host_port = network
        .ports
        .unwrap_or_default()
        .into_values()
        .flatten()
        .flatten()
        .filter(|binding| binding.host_ip.as_deref() == Some("127.0.0.1"))
        .find_map(|binding| binding.host_port?.parse().ok());
    let ip = network.networks.unwrap_or_default().into_values().find_map(|endpoint| endpoint.ip_address?.parse().ok());
    Life {
        id: response.id.clone().unwrap_or_default(),
        started_at: state.started_at.unwrap_or_default(),
        running: state.running.unwrap_or_default() && !state.restarting.unwrap_or_default(),
        restarting: state.restarting.unwrap_or_default(),
        exit_code: state.exit_code.unwrap_or_default(),
        error: state.error.unwrap_or_default(),
        oom_killed: state.oom_killed.unwrap_or_default(),
        pid: state.pid.unwrap_or_default(),
        restarts: response.restart_count.unwrap_or_default(),
        host_port,
        ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_command_is_distinguished_from_an_engine_failure() {
        let life = |error: &str, exit_code| Life { error: error.into(), exit_code, ..Life::default() };
        let missing = "OCI runtime create failed: exec: \"nope\": executable file not found in $PATH: unknown";
        assert!(life(missing, 127).never_ran());
        assert!(life("unable to find user nobody2: no matching entries in passwd file", 128).never_ran());
        assert!(!life("driver failed: Bind for 127.0.0.1:80 failed: port is already allocated", 128).never_ran());
        assert!(!life("mkdir /x: no space left on device", 128).never_ran());
        assert!(!life("", 127).never_ran());
        assert!(!Life { running: true, ..life(missing, 127) }.never_ran());
    }

    #[test]
    fn a_port_is_published_on_the_loopback_address_only() {
        let spec = ContainerSpec { port: Some(8188), ..Default::default() };
        let json = serde_json::to_value(spec.body()).expect("it can be written");
        assert_eq!(json["HostConfig"]["PortBindings"]["8188/tcp"][0]["HostIp"], "127.0.0.1");
        let isolated = ContainerSpec { port: Some(8188), isolated: true, ..Default::default() };
        let json = serde_json::to_value(isolated.body()).expect("it can be written");
        assert!(json["HostConfig"].get("PortBindings").is_none());
        assert_eq!(json["HostConfig"]["DnsOptions"][0], "timeout:1");
    }
}
