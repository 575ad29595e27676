//! What two processes tell each other before anything else, and whether they belong together.
//!
//! A hello is `riderflow`, its length (u32, big-endian) and a JSON object. Its `version` is
//! read before the rest, so that two versions whose hellos differ still say so.

use std::hash::Hasher;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::config::Pipeline;

const MAGIC: [u8; 9] = *b"riderflow";
/// Longer is nobody's hello.
const MAX_BYTES: usize = 64 * 1024;

/// What all processes of a cluster must have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// riderflow's version.
    pub version: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// A hash of what the pipeline file says.
    pub settings: u64,
    /// Timely workers of one process.
    pub workers: usize,
}

impl Identity {
    /// This build's, for a pipeline. The addresses of Kafka and ClickHouse are left out of the
    /// hash: a process may have them from its environment.
    pub fn of(pipeline: &Pipeline, workers: usize) -> Self {
        let mut same = pipeline.clone();
        same.kafka.brokers.clear();
        same.clickhouse.url.clear();
        // No part of the job.
        same.gateway = crate::config::Gateway::default();
        let text = serde_json::to_vec(&same).expect("a pipeline is plain data");
        let mut hasher = XxHash3_64::with_seed(0);
        hasher.write(&text);
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            pipeline: pipeline.name.clone(),
            settings: hasher.finish(),
            workers,
        }
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    Control,
    Data,
}

/// Who speaks, to whom it thinks it speaks, and for what.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    version: String,
    pipeline: String,
    settings: u64,
    workers: usize,
    processes: usize,
    pub(super) process: usize,
    to: usize,
    /// A random number of this start, so that connections of two starts are not mixed.
    pub(super) run: u64,
    pub(super) role: Role,
}

/// Why a hello failed.
pub(super) enum Refusal {
    /// Not riderflow, too slow, or cut off: nobody to bother about.
    Foreign(io::Error),
    /// riderflow, but not of this cluster.
    Differs(String),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Foreign(error)
    }
}

/// One process, to all its peers.
#[derive(Clone)]
pub(super) struct Greeter {
    pub(super) identity: Identity,
    pub(super) process: usize,
    pub(super) hosts: Vec<String>,
    pub(super) run: u64,
}

impl Greeter {
    /// Greets process `to` on a connection to its address.
    pub(super) fn call(
        &self,
        stream: &mut TcpStream,
        to: usize,
        role: Role,
        limit: Duration,
    ) -> Result<Hello, Refusal> {
        let deadline = Instant::now() + limit;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(limit))?;
        write_hello(stream, &self.hello(to, role))?;
        let theirs = self.read_from(stream, deadline)?;
        self.check(&theirs, Some(to))?;
        Ok(theirs)
    }

    /// Answers whoever has connected.
    pub(super) fn answer(&self, stream: &mut TcpStream, limit: Duration) -> Result<Hello, Refusal> {
        let deadline = Instant::now() + limit;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(limit))?;
        // The answer goes out even if they differ, so that the other side says it too.
        let theirs = self.read_from(stream, deadline);
        let (to, role) = match &theirs {
            Ok(theirs) => (theirs.process, theirs.role),
            Err(Refusal::Differs(_)) => (self.process, Role::Control),
            Err(Refusal::Foreign(_)) => return theirs,
        };
        write_hello(stream, &self.hello(to, role))?;
        let theirs = theirs?;
        self.check(&theirs, None)?;
        Ok(theirs)
    }

    fn hello(&self, to: usize, role: Role) -> Hello {
        Hello {
            version: self.identity.version.clone(),
            pipeline: self.identity.pipeline.clone(),
            settings: self.identity.settings,
            workers: self.identity.workers,
            processes: self.hosts.len(),
            process: self.process,
            to,
            run: self.run,
            role,
        }
    }

    fn name_of(&self, process: usize) -> String {
        match self.hosts.get(process) {
            Some(address) => format!("process {process} at {address}"),
            None => "a process that is not in the hosts file".into(),
        }
    }

    fn read_from(&self, stream: &mut TcpStream, deadline: Instant) -> Result<Hello, Refusal> {
        let bytes = read_hello(stream, deadline)?;
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(io::Error::from)?;
        let version = value["version"].as_str().unwrap_or("of unknown version");
        if version != self.identity.version {
            let process = value["process"].as_u64().unwrap_or(u64::MAX);
            let peer = self.name_of(usize::try_from(process).unwrap_or(usize::MAX));
            let own = &self.identity.version;
            return Err(Refusal::Differs(format!(
                "{peer} runs riderflow {version} and this one {own}; start all with the same build"
            )));
        }
        serde_json::from_value(value).map_err(|error| io::Error::from(error).into())
    }

    /// Whether the two may run together. `called`: the process whose address was connected to.
    fn check(&self, theirs: &Hello, called: Option<usize>) -> Result<(), Refusal> {
        let own = &self.identity;
        let peer = self.name_of(theirs.process);
        let fault = if theirs.pipeline != own.pipeline {
            format!(
                "{peer} runs the pipeline {} and this one {}; give every pipeline its own \
                 addresses in its hosts file",
                theirs.pipeline, own.pipeline
            )
        } else if theirs.settings != own.settings {
            format!(
                "{peer} has another pipeline file of {} than this one; start all with the same file",
                own.pipeline
            )
        } else if theirs.processes != self.hosts.len() {
            format!(
                "{peer} was started with --processes {} and this one with {}; start all with the \
                 same number",
                theirs.processes,
                self.hosts.len()
            )
        } else if theirs.workers != own.workers {
            format!(
                "{peer} has {} workers and this one {}; start all with the same --workers",
                theirs.workers, own.workers
            )
        } else if let Some(called) = called.filter(|&called| called != theirs.process) {
            format!(
                "process {} answers at {}, which is the address of process {called}; start all \
                 with the same hosts file",
                theirs.process, self.hosts[called]
            )
        } else if called.is_none() && (theirs.to != self.process || theirs.process <= self.process)
        {
            format!(
                "process {} takes this one, which is process {}, for process {}; start all with \
                 the same hosts file",
                theirs.process, self.process, theirs.to
            )
        } else {
            return Ok(());
        };
        Err(Refusal::Differs(fault))
    }
}

fn write_hello(stream: &mut TcpStream, hello: &Hello) -> io::Result<()> {
    let text = serde_json::to_vec(hello)?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend((text.len() as u32).to_be_bytes());
    bytes.extend(text);
    stream.write_all(&bytes)
}

fn read_hello(stream: &mut TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut magic = [0; MAGIC.len()];
    read_by(stream, &mut magic, deadline)?;
    if magic != MAGIC {
        return Err(io::Error::other("it does not speak as riderflow does"));
    }
    let mut length = [0; 4];
    read_by(stream, &mut length, deadline)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_BYTES {
        return Err(io::Error::other("its greeting is too long"));
    }
    let mut text = vec![0; length];
    read_by(stream, &mut text, deadline)?;
    Ok(text)
}

/// Fills `bytes`, however slowly they drip, by `deadline`.
fn read_by(stream: &mut TcpStream, bytes: &mut [u8], deadline: Instant) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "it does not answer",
            ));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut bytes[filled..]) {
            Ok(0) => return Err(io::Error::other("it closed the connection")),
            Ok(read) => filled += read,
            Err(error) if retriable(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Interrupted or out of time: the caller looks at its own clock.
pub(super) fn retriable(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}
