//! When a server is ready: at the first complete HTTP answer from a container that still runs.
//!
//! An accepted connection is not an answer: the engine's port proxy accepts before the process
//! listens. A container that exited will not answer, so it is not waited for.

use std::time::{Duration, Instant};

use super::Deployment;
use crate::engine::{container::Life, exec::Command};
use lockproof_model::{error::Result, restart::RestartPolicy};
use lockproof_probe::{client::Client, message::Request};

/// How often it is tried.
const PAUSE: Duration = Duration::from_millis(40);
/// How long one try may take; a server that is busy loading may be slow.
const PATIENCE: Duration = Duration::from_secs(5);
/// For how long a look at the container is good: each costs the engine, and so the start that is
/// waited for.
const FRESH: Duration = Duration::from_millis(150);
/// How long one answer may take once the server is ready.
const ANSWER: Duration = Duration::from_secs(30);
/// How long the container's own address may take to answer: another machine's is never reached.
const REACHED: Duration = Duration::from_millis(500);
/// So many lives that ended without an answer are a crash loop. The engine doubles its pause after
/// each: a process that only waits for something else is given some seconds.
const LIVES: i64 = 6;

/// Whether a server came up.
#[derive(Debug)]
pub enum Readiness {
    /// It answers.
    Ready {
        /// A client of it.
        client: Client,
        /// How long it took from the call on.
        after: Duration,
    },
    /// It does not.
    Down(Down),
}

/// Why a server does not answer.
#[derive(Clone, Debug)]
pub struct Down {
    /// In one sentence.
    pub why: String,
    /// The last lines of its log.
    pub log: Vec<String>,
    /// What to look at.
    pub fix: String,
}

impl Deployment {
    /// Waits until the server answers, at most as long as the subject says.
    ///
    /// # Errors
    /// An environment error when the engine fails. A server that does not come up is not an error.
    pub async fn wait_ready(&self) -> Result<Readiness> {
        let readiness = self.wait_ready_for(self.subject.ready_timeout).await;
        self.admission.leave();
        readiness
    }

    async fn wait_ready_for(&self, timeout: Duration) -> Result<Readiness> {
        let begun = Instant::now();
        let mut client: Option<Client> = None;
        let mut last = "nothing was tried".to_owned();
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
                    Ok(_) => "it answered and died".clone_into(&mut last),
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

    /// A client of the container's own address, where this machine reaches it: the engine's port proxy
    /// costs as much processor time as the server. It passes bytes on and nothing else, and the server
    /// sees the same peer, the network's gateway, either way.
    async fn past_the_port_proxy(&self, life: &Life) -> Option<Client> {
        let address = std::net::SocketAddr::new(life.ip?, self.subject.port);
        Client::new(address, REACHED).send(&Request::get("/system_stats")).await.ok()?;
        Some(Client::new(address, ANSWER))
    }

    /// Whether its process ended and nothing will bring it back.
    pub(super) fn has_ended(&self, life: &Life) -> bool {
        !life.running && !life.restarting && !self.may_come_back(life)
    }

    /// Whether a restart policy is about to bring the process back. Between a crash and the next
    /// try the engine reports neither running nor, for an instant, restarting.
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
                why: format!("the container cannot be started: {}", life.error),
                log: self.last_lines().await?,
                fix: "correct `command:`, `entrypoint:`, `user:` or the mounts, or the image; \
                      `docker run` with the same fails likewise"
                    .to_owned(),
            });
        }
        let memory = if life.oom_killed { ", killed for want of memory" } else { "" };
        Ok(Down {
            why: format!("the container exited with code {}{memory}", life.exit_code),
            log: self.last_lines().await?,
            fix: "the lines above are the last that the container logged; run the image by hand with the same \
                  mounts and command to see more"
                .to_owned(),
        })
    }

    async fn crash_loop(&self, life: &Life, within: Duration) -> Result<Down> {
        Ok(Down {
            why: format!(
                "the process exits with code {} and was restarted {} times within {} s, without an answer",
                life.exit_code,
                life.restarts,
                within.as_secs()
            ),
            log: self.last_lines().await?,
            fix: "the lines above are the last that the container logged; correct what they complain of".to_owned(),
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
                "nothing listens in the container; raise `ready_timeout` if it needs longer than {} s to start",
                timeout.as_secs()
            ),
            Some(found) if found.loopback => format!(
                "port {port} is open on the container's own 127.0.0.1 only; let ComfyUI listen on 0.0.0.0 (--listen 0.0.0.0)"
            ),
            Some(_) => format!("something listens on port {port}, but gives no HTTP answer; is it ComfyUI?"),
            None => format!(
                "the container listens on port {}; set `port:`, and let ComfyUI listen on 0.0.0.0 (--listen 0.0.0.0)",
                elsewhere.join(", ")
            ),
        };
        Ok(Down {
            why: format!("port {port} gave no answer within {} s ({last})", timeout.as_secs()),
            log: self.last_lines().await?,
            fix,
        })
    }

    async fn last_lines(&self) -> Result<Vec<String>> {
        self.engine.last_lines(&self.container_id(), 20).await
    }

    /// The TCP ports on which something listens in the container.
    async fn listening_ports(&self) -> Vec<Listening> {
        let command = Command::new(["sh", "-c", "cat /proc/net/tcp /proc/net/tcp6"]).user("0");
        match self.engine.exec(&self.container_id(), command).await {
            Ok(output) => listening(&output.stdout),
            Err(_) => Vec::new(),
        }
    }
}

/// A TCP port on which something listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Listening {
    port: u16,
    /// Whether it is reached from inside the container only.
    loopback: bool,
}

/// Reads proc_net_tcp(5): the local address is the second field, state `0A` is LISTEN. The engine's
/// own resolver listens on 127.0.0.11 and does not count.
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
    // What every address reaches goes before what only the loopback address does.
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
