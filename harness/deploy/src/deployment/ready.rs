//! Readiness: a server is ready at the first complete HTTP answer while its container is running.
//!
//! An accepted connection is not enough: the engine's port proxy accepts before the process
//! listens. A container that exited is not waited for.

use std::time::{Duration, Instant};

use super::Deployment;
use crate::engine::{container::Life, exec::Command};
use lockproof_model::{error::Result, restart::RestartPolicy};
use lockproof_probe::{client::Client, message::Request};

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(40);
/// The time limit of one attempt; a server that is loading may be slow.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the inspected state of a container is reused: each inspection costs engine time, and so
/// delays the start.
const FRESH: Duration = Duration::from_millis(150);
/// The time limit of one answer once the server is ready.
const ANSWER: Duration = Duration::from_secs(30);
/// The time limit of the container's own address, which may not be reachable.
const REACHED: Duration = Duration::from_millis(500);
/// The number of exits without an answer that counts as a crash loop. The engine doubles its pause
/// after each, so that a process that waits for another service gets some seconds.
const LIVES: i64 = 6;

/// Whether a server started.
#[derive(Debug)]
pub enum Readiness {
    /// It answers.
    Ready {
        /// An HTTP client for it.
        client: Client,
        /// The time since the call.
        after: Duration,
    },
    /// It does not answer.
    Down(Down),
}

/// Why a server does not answer.
#[derive(Clone, Debug)]
pub struct Down {
    /// The reason, in one sentence.
    pub why: String,
    /// The last lines of its log.
    pub log: Vec<String>,
    /// What to do.
    pub fix: String,
}

impl Deployment {
    /// Waits until the server answers, up to the subject's `ready_timeout`.
    ///
    /// # Errors
    /// An environment error if the engine fails. A server that does not start is not an error.
    pub async fn wait_ready(&self) -> Result<Readiness> {
        let readiness = self.wait_ready_for(self.subject.ready_timeout).await;
        self.admission.leave();
        readiness
    }

    async fn wait_ready_for(&self, timeout: Duration) -> Result<Readiness> {
        let begun = Instant::now();
        let mut client: Option<Client> = None;
        let mut last = "no attempt was made".to_owned();
        let mut first_life = None;
        let mut looked: Option<(Instant, Life)> = None;
        loop {
            let (at, life) = match looked.take() {
                Some((at, life)) if at.elapsed() < FRESH => (at, life),
                _ => (Instant::now(), self.life().await?),
            };
            if self.has_ended(&life) {
                return Ok(Readiness::Down(self.exited(&life).await?));
            }
            if life.restarts - *first_life.get_or_insert(life.restarts) >= LIVES {
                return Ok(Readiness::Down(self.crash_loop(&life, begun.elapsed()).await?));
            }
            if let Some(address) = life.address(self.subject.port) {
                let known = client.take().filter(|c| c.address() == Some(address));
                let known = known.unwrap_or_else(|| Client::new(address, PATIENCE));
                match known.send(&Request::get("/system_stats")).await {
                    Ok(_) if self.life().await?.is_same(&life) => {
                        let client = match self.past_the_port_proxy(&life).await {
                            Some(client) => client,
                            None => Client::new(address, ANSWER),
                        };
                        return Ok(Readiness::Ready { client, after: begun.elapsed() });
                    }
                    Ok(_) => "the server answered and then exited".clone_into(&mut last),
                    Err(fault) => last = fault.to_string(),
                }
                client = Some(known);
            }
            looked = Some((at, life));
            if begun.elapsed() > timeout {
                return Ok(Readiness::Down(self.silent(timeout, &last).await?));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A client for the container's own address, if this machine can reach it: the engine's port
    /// proxy uses as much processor time as the server. The proxy only forwards bytes, and the
    /// server sees the network's gateway as the peer in both cases.
    async fn past_the_port_proxy(&self, life: &Life) -> Option<Client> {
        let address = std::net::SocketAddr::new(life.ip?, self.subject.port);
        Client::new(address, REACHED).send(&Request::get("/system_stats")).await.ok()?;
        Some(Client::new(address, ANSWER))
    }

    /// Whether its process has ended and will not be restarted.
    pub(super) fn has_ended(&self, life: &Life) -> bool {
        !life.running && !life.restarting && !self.may_come_back(life)
    }

    /// Whether a restart policy is about to restart the process. Between a crash and the next
    /// attempt, the engine briefly reports neither running nor restarting.
    fn may_come_back(&self, life: &Life) -> bool {
        if life.never_ran() {
            return false;
        }
        match self.subject.restart {
            RestartPolicy::No => false,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
            RestartPolicy::OnFailure(times) => {
                life.exit_code != 0 && times.is_none_or(|times| life.restarts < i64::from(times))
            }
        }
    }

    async fn exited(&self, life: &Life) -> Result<Down> {
        if life.never_ran() {
            return Ok(Down {
                why: format!("the container cannot start: {}", life.error),
                log: self.last_lines().await?,
                fix: "check `command:`, `entrypoint:`, `user:`, the mounts and the image; `docker run` with \
                    the same options shows the same error"
                    .to_owned(),
            });
        }
        let memory = if life.oom_killed { ", killed because it ran out of memory" } else { "" };
        Ok(Down {
            why: format!("the container exited with code {}{memory}", life.exit_code),
            log: self.last_lines().await?,
            fix: "the last lines of the container's log are above; run the image with the same mounts and \
                command to see more"
                .to_owned(),
        })
    }

    async fn crash_loop(&self, life: &Life, within: Duration) -> Result<Down> {
        Ok(Down {
            why: format!(
                "the process exits with code {} and was restarted {} times in {} s without an HTTP answer",
                life.exit_code,
                life.restarts,
                within.as_secs()
            ),
            log: self.last_lines().await?,
            fix: "the last lines of the container's log are above; correct the error that they show".to_owned(),
        })
    }

    async fn silent(&self, timeout: Duration, last: &str) -> Result<Down> {
        let port = self.subject.port;
        let life = self.life().await?;
        if life.restarts > 0 {
            return self.crash_loop(&life, timeout).await;
        }
        let listening = self.listening_ports().await;
        let elsewhere: Vec<String> = listening.iter().map(|l| l.port.to_string()).collect();
        let fix = match listening.iter().find(|l| l.port == port) {
            _ if listening.is_empty() => format!(
                "no process listens in the container; raise `ready_timeout` if the start takes longer than {} s",
                timeout.as_secs()
            ),
            Some(found) if found.loopback => format!(
                "port {port} listens only on the container's own 127.0.0.1; start ComfyUI with --listen 0.0.0.0"
            ),
            Some(_) => format!("port {port} is open but gives no HTTP answer; check that it is ComfyUI's"),
            None => format!(
                "the container listens on port {}; set `port:`, and start ComfyUI with --listen 0.0.0.0",
                elsewhere.join(", ")
            ),
        };
        Ok(Down {
            why: format!("timed out after {} s waiting for an HTTP answer on port {port} ({last})", timeout.as_secs()),
            log: self.last_lines().await?,
            fix,
        })
    }

    async fn last_lines(&self) -> Result<Vec<String>> {
        self.engine.last_lines(&self.container_id(), 20).await
    }

    /// The TCP ports on which processes listen in the container.
    async fn listening_ports(&self) -> Vec<Listening> {
        let command = Command::new(["sh", "-c", "cat /proc/net/tcp /proc/net/tcp6"]).user("0");
        match self.engine.exec(&self.container_id(), command).await {
            Ok(output) => listening(&output.stdout),
            Err(_) => Vec::new(),
        }
    }
}

/// A TCP port in state LISTEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Listening {
    port: u16,
    /// Whether it listens only on the loopback address.
    loopback: bool,
}

/// Parses proc_net_tcp(5): the local address is the second field, state `0A` is LISTEN. Ignores the
/// engine's own resolver on 127.0.0.11.
fn listening(table: &str) -> Vec<Listening> {
    let mut found: Vec<Listening> = table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (address, port) = fields.nth(1)?.rsplit_once(':')?;
            let state = fields.nth(1)?;
            let loopback = matches!(address, "0100007F" | "00000000000000000000000001000000");
            let port = u16::from_str_radix(port, 16).ok()?;
            (state == "0A" && address != "0B00007F").then_some(Listening { port, loopback })
        })
        .collect();
    // Ports that listen on all addresses come before those on the loopback address.
    found.sort_by_key(|l| (l.port, l.loopback));
    found.dedup_by_key(|l| l.port);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_ports_are_read_from_the_kernel_s_table() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1FFC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0B00007F:9C41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1
   2: 0100007F:1FFC 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 3 1
   3: 0100007F:2328 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4 1";
        let found: Vec<(u16, bool)> = listening(table).into_iter().map(|l| (l.port, l.loopback)).collect();
        assert_eq!(found, [(8188, false), (9000, true)]);
    }
}
