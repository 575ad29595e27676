//! The processes of one pipeline: who they are, how they find each other, and how all of them
//! end when one does.
//!
//! ```text
//!  process 0 ◀── data: timely's own bytes ───────────▶ process 1
//!            ◀── control: I am here, I stop, I fail ──▶
//! ```
//!
//! Each pair of processes has two connections. Owns both: whoever connects must first say who
//! it is, and a process of another version, pipeline or shape is refused with the reason, on
//! both sides ([`Cluster::form`]). While the job runs, the control connection tells at once of
//! a stop, a failure or a death ([`Formed::watch`]).
//!
//! Promises: waiting has a limit, says for whom it waits, and ends when a stop is asked for;
//! nothing is written to standard output; a peer's death is an event with its name, never a
//! panic in timely's threads; and a cluster ends together: a stop of one is a stop of all.
//!
//! Never restarts anything and never goes on with fewer processes: that is a supervisor's
//! part, and a start reads again what was not committed.
//!
//! **How soon.** A process that dies, killed or by itself, is known by its closed connections,
//! within milliseconds. A host that vanishes closes nothing; nor does a process that is held
//! (SIGSTOP, a paused machine), and the two can't be told apart. So silence alone is borne for
//! [`Limits::silence`], during which everyone waits and nothing is lost.

mod agree;
mod form;
mod hello;
mod links;
mod run;
mod stream;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use agree::agree;
pub use form::Formed;
pub use hello::Identity;
pub use links::{Event, Links, Status};
pub use run::Running;

/// The processes that run one pipeline together, and which of them this one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    process: usize,
    /// `host:port` of each process, in their order; none for a process alone.
    hosts: Vec<String>,
}

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For all processes to come, at the start.
    pub forming: Duration,
    /// For a sign of life from a process whose connections are open.
    pub silence: Duration,
}

impl Default for Limits {
    /// A minute to come, ten seconds of silence.
    fn default() -> Self {
        Self {
            forming: Duration::from_secs(60),
            silence: Duration::from_secs(10),
        }
    }
}

/// Why processes can't run together, or no longer do.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The hosts file can't be read.
    #[error("could not read the hosts file {}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The hosts file is wrong.
    #[error("{}:{line}: {fault}", file.display())]
    Hosts {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong, and what helps.
        fault: String,
    },
    /// The process can't listen at its own address.
    #[error(
        "could not listen at {address}, the address of process {process}: {source}; each process \
         needs an address of its own machine that nothing else uses, and one start for each \
         --process"
    )]
    Listen {
        /// This process.
        process: usize,
        /// Its line of the hosts file.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Two processes don't belong together.
    #[error("{0}")]
    Differs(String),
    /// Processes did not come.
    #[error("{who} did not come within {} s; every process is started with the same pipeline \
         and hosts file and its own --process", waited.as_secs_f32())]
    Absent {
        /// Which, with their addresses, and what connecting to them said.
        who: String,
        /// How long they had.
        waited: Duration,
    },
    /// A peer is there no longer.
    #[error(
        "process {process} at {address} has gone ({why}); all processes of the pipeline end with \
         it: start them again"
    )]
    Gone {
        /// Which.
        process: usize,
        /// Its line of the hosts file.
        address: String,
        /// How it was noticed.
        why: String,
    },
    /// A peer has failed and says so.
    #[error(
        "process {process} at {address} has failed; its own messages say why. All processes of \
         the pipeline end with it: start them again"
    )]
    Failed {
        /// Which.
        process: usize,
        /// Its line of the hosts file.
        address: String,
    },
    /// timely can't start.
    #[error("could not start the workers: {0}")]
    Workers(String),
}

impl Cluster {
    /// One process, without network.
    pub fn alone() -> Self {
        Self {
            process: 0,
            hosts: Vec::new(),
        }
    }

    /// Process `process` of `processes`, whose addresses are the lines of `file`: `host:port`,
    /// the first that of process 0; empty lines and what follows a `#` don't count.
    ///
    /// # Errors
    /// When the file can't be read, a line is no address or repeats one, or there are not as
    /// many as processes.
    pub fn read(processes: usize, process: usize, file: &Path) -> Result<Self, ClusterError> {
        let text = std::fs::read_to_string(file).map_err(|source| ClusterError::Unreadable {
            file: file.to_owned(),
            source,
        })?;
        let hosts = parse_hosts(&text, processes).map_err(|(line, fault)| ClusterError::Hosts {
            file: file.to_owned(),
            line,
            fault,
        })?;
        Ok(Self { process, hosts })
    }

    /// How many processes.
    pub fn processes(&self) -> usize {
        self.hosts.len().max(1)
    }

    /// Which this one is, from 0. Process 0 commits.
    pub fn process(&self) -> usize {
        self.process
    }

    /// Whether this process is the only one.
    pub fn is_alone(&self) -> bool {
        self.processes() == 1
    }

    /// Where metrics and health are served unless the command line says otherwise: port 9464
    /// for process 0, one more for each further process, so that they fit on one machine.
    pub fn default_http(&self) -> SocketAddr {
        let port = u16::try_from(self.process).unwrap_or(u16::MAX);
        SocketAddr::from(([127, 0, 0, 1], 9464_u16.saturating_add(port)))
    }
}

/// The addresses, or the line from 1 that is wrong and why.
fn parse_hosts(text: &str, processes: usize) -> Result<Vec<String>, (usize, String)> {
    let mut hosts: Vec<(usize, &str)> = Vec::new();
    let mut last = 1;
    for (at, line) in text.lines().enumerate() {
        let line_number = at + 1;
        last = line_number;
        let host = line.split('#').next().unwrap_or_default().trim();
        if host.is_empty() {
            continue;
        }
        if !is_address(host) {
            let fault = format!("`{host}` is no address; write host:port, such as 10.0.0.7:2101");
            return Err((line_number, fault));
        }
        if let Some((first, _)) = hosts.iter().find(|(_, other)| *other == host) {
            let fault = format!(
                "`{host}` stands in line {first} already; every process needs an address of its own"
            );
            return Err((line_number, fault));
        }
        if hosts.len() == processes {
            let fault = format!(
                "an address too many: --processes is {processes}; take the line away, or start \
                 every process with a larger --processes"
            );
            return Err((line_number, fault));
        }
        hosts.push((line_number, host));
    }
    if hosts.len() < processes {
        let fault = format!(
            "{} of {processes} addresses are here; give each process a line host:port, process 0 \
             first, or start every process with a smaller --processes",
            hosts.len()
        );
        return Err((last, fault));
    }
    Ok(hosts.into_iter().map(|(_, host)| host.to_owned()).collect())
}

fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host_is_fine = match bare {
        Some(ipv6) => ipv6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '/', '[', ']']),
    };
    host_is_fine
        && !text.contains(char::is_whitespace)
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}
