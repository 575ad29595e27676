//! The start: every process finds every other.
//!
//! A process connects to those before it and is connected to by those after it, as in timely,
//! with two connections a pair. Whoever has all of them says so ([`READY`]), and all begin once
//! everyone has. A process that goes away before that may come back.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::hello::{Greeter, Hello, Identity, Refusal, Role, retriable};
use super::links::READY;
use super::{Cluster, ClusterError, Limits};

/// How long a connection may take to come about, or to say who it is.
const GREETING: Duration = Duration::from_secs(5);
/// Between two attempts to reach a process, and two looks at what has come.
const RETRY: Duration = Duration::from_millis(200);
const NAP: Duration = Duration::from_millis(20);
/// How often it is said who is waited for.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// All processes, met and ready.
pub struct Formed {
    pub(super) process: usize,
    pub(super) workers: usize,
    pub(super) limits: Limits,
    /// By process; `None` for this one.
    pub(super) peers: Vec<Option<Peer>>,
    /// Kept, so that a second start of this process finds the address taken.
    pub(super) listener: Option<TcpListener>,
}

/// The two connections to a process.
pub(super) struct Peer {
    pub(super) address: String,
    pub(super) control: TcpStream,
    pub(super) data: TcpStream,
}

impl Cluster {
    /// Meets all other processes, and returns when everyone has met everyone; `None` if `stop`
    /// became true before.
    ///
    /// # Errors
    /// When this process can't listen at its address, a peer does not belong to this cluster, or
    /// one does not come within the limit.
    pub fn form(
        &self,
        identity: &Identity,
        limits: Limits,
        stop: impl Fn() -> bool,
    ) -> Result<Option<Formed>, ClusterError> {
        if self.is_alone() {
            return Ok(Some(Formed {
                process: 0,
                workers: identity.workers,
                limits,
                peers: vec![None],
                listener: None,
            }));
        }
        Forming::begin(self, identity, limits)?.run(stop)
    }
}

/// What the threads that greet have to say.
enum Heard {
    Met(Hello, TcpStream),
    Differs(String),
    /// Process, and why it could not be reached.
    Unreached(usize, String),
}

/// What there is of one peer so far.
#[derive(Default)]
struct Meeting {
    run: u64,
    control: Option<TcpStream>,
    data: Option<TcpStream>,
    /// It was told that this process has met everyone.
    told: bool,
    /// It has met everyone.
    ready: bool,
    why_not: Option<String>,
}

impl Meeting {
    fn is_met(&self) -> bool {
        self.control.is_some() && self.data.is_some()
    }
}

struct Forming {
    greeter: Greeter,
    workers: usize,
    limits: Limits,
    listener: TcpListener,
    /// By process, without this one.
    meetings: BTreeMap<usize, Meeting>,
    sender: Sender<Heard>,
    receiver: Receiver<Heard>,
    /// Ends the threads that connect.
    over: Arc<AtomicBool>,
}

impl Drop for Forming {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
    }
}

impl Forming {
    fn begin(cluster: &Cluster, identity: &Identity, limits: Limits) -> Result<Self, ClusterError> {
        let process = cluster.process;
        let address = &cluster.hosts[process];
        let listen = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = listen().map_err(|source| ClusterError::Listen {
            process,
            address: address.clone(),
            source,
        })?;
        let (sender, receiver) = channel();
        let forming = Self {
            greeter: Greeter {
                identity: identity.clone(),
                process,
                hosts: cluster.hosts.clone(),
                run: RandomState::new().build_hasher().finish(),
            },
            workers: identity.workers,
            limits,
            listener,
            meetings: (0..cluster.processes())
                .filter(|&other| other != process)
                .map(|other| (other, Meeting::default()))
                .collect(),
            sender,
            receiver,
            over: Arc::new(AtomicBool::new(false)),
        };
        for other in 0..process {
            forming.connect_to(other);
        }
        Ok(forming)
    }

    fn run(mut self, stop: impl Fn() -> bool) -> Result<Option<Formed>, ClusterError> {
        let deadline = Instant::now() + self.limits.forming;
        let mut say_at = Instant::now();
        loop {
            if stop() {
                return Ok(None);
            }
            self.accept();
            self.hear()?;
            self.look_after_the_met();
            if self.tell_and_check_ready() {
                return Ok(Some(self.formed()));
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(self.absent());
            }
            if now >= say_at {
                say_at = now + SAY_EVERY;
                tracing::info!("waiting for {}", self.missing());
            }
        }
    }

    /// Greets whoever has connected, each on a thread of its own: a stranger who says nothing
    /// holds nobody up.
    fn accept(&self) {
        loop {
            match self.listener.accept() {
                Ok((mut stream, from)) => {
                    let greeter = self.greeter.clone();
                    let sender = self.sender.clone();
                    spawn("riderflow-greet", move || {
                        let greeted = stream
                            .set_nonblocking(false)
                            .map_err(Refusal::from)
                            .and_then(|()| greeter.answer(&mut stream, GREETING));
                        // Nobody listens any more once the cluster is formed.
                        let _ = match greeted {
                            Ok(hello) => sender.send(Heard::Met(hello, stream)),
                            Err(Refusal::Differs(fault)) => sender.send(Heard::Differs(fault)),
                            Err(Refusal::Foreign(error)) => {
                                tracing::warn!("turned away a connection from {from}: {error}");
                                Ok(())
                            }
                        };
                    });
                }
                Err(error) if retriable(&error) => return,
                Err(error) => {
                    // Such as too many open files: it may pass, and waiting has its limit.
                    tracing::warn!("could not take a connection: {error}");
                    return;
                }
            }
        }
    }

    /// Tries to reach process `to` until it answers or the start is over.
    fn connect_to(&self, to: usize) {
        let greeter = self.greeter.clone();
        let sender = self.sender.clone();
        let over = Arc::clone(&self.over);
        spawn("riderflow-call", move || {
            while !over.load(Ordering::Acquire) {
                let heard = match call(&greeter, to) {
                    Ok([(hello, control), (other, data)]) => {
                        let _ = sender.send(Heard::Met(hello, control));
                        let _ = sender.send(Heard::Met(other, data));
                        return;
                    }
                    Err(Refusal::Differs(fault)) => {
                        let _ = sender.send(Heard::Differs(fault));
                        return;
                    }
                    Err(Refusal::Foreign(error)) => Heard::Unreached(to, error.to_string()),
                };
                if sender.send(heard).is_err() {
                    return;
                }
                std::thread::sleep(RETRY);
            }
        });
    }

    /// Takes in what the greeting threads say; waits a moment if they say nothing.
    fn hear(&mut self) -> Result<(), ClusterError> {
        let mut next = self.receiver.recv_timeout(NAP);
        loop {
            match next {
                Ok(Heard::Met(hello, stream)) => self.meet(&hello, stream),
                Ok(Heard::Differs(fault)) => return Err(ClusterError::Differs(fault)),
                Ok(Heard::Unreached(process, why)) => {
                    if let Some(meeting) = self.meetings.get_mut(&process) {
                        meeting.why_not = Some(why);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(()),
            }
            next = self
                .receiver
                .try_recv()
                .map_err(|_| RecvTimeoutError::Timeout);
        }
    }

    /// The newest start of a process counts, and only connections of one start go together.
    fn meet(&mut self, hello: &Hello, stream: TcpStream) {
        let Some(meeting) = self.meetings.get_mut(&hello.process) else {
            return;
        };
        if meeting.run != hello.run {
            *meeting = Meeting {
                run: hello.run,
                ..Meeting::default()
            };
        }
        match hello.role {
            Role::Control => meeting.control = Some(stream),
            Role::Data => meeting.data = Some(stream),
        }
        if meeting.is_met() {
            meeting.why_not = None;
            tracing::info!(
                "met process {} at {}",
                hello.process,
                self.greeter.hosts[hello.process]
            );
        }
    }

    /// Forgets those that went away again, and reads who is ready.
    fn look_after_the_met(&mut self) {
        let mut lost = Vec::new();
        for (&process, meeting) in &mut self.meetings {
            if !meeting.is_met() {
                continue;
            }
            let Some(control) = &mut meeting.control else {
                continue;
            };
            match look(control, meeting.ready) {
                Ok(is_ready) => meeting.ready = is_ready,
                Err(error) => lost.push((process, error)),
            }
        }
        for (process, error) in lost {
            let address = &self.greeter.hosts[process];
            tracing::warn!("process {process} at {address} went away again ({error})");
            self.meetings.insert(process, Meeting::default());
            if process < self.greeter.process {
                self.connect_to(process);
            }
        }
    }

    /// Tells everyone that all are met, once they are; whether all others have said so too.
    fn tell_and_check_ready(&mut self) -> bool {
        if !self.meetings.values().all(Meeting::is_met) {
            return false;
        }
        for meeting in self.meetings.values_mut() {
            if let Some(control) = &mut meeting.control
                && !meeting.told
            {
                // If it is gone, the next look finds that out.
                meeting.told = control.write_all(&[READY]).is_ok();
            }
        }
        self.meetings
            .values()
            .all(|meeting| meeting.told && meeting.ready)
    }

    /// Those that are waited for, each with why it could not be reached, if that was tried.
    fn missing(&self) -> String {
        let of = |wanted: fn(&Meeting) -> bool| {
            let waited_for = self.meetings.iter().filter(|(_, meeting)| wanted(meeting));
            let names: Vec<String> = waited_for
                .map(|(process, meeting)| {
                    let address = &self.greeter.hosts[*process];
                    let why = meeting.why_not.as_ref().map(|why| format!(" ({why})"));
                    format!("process {process} at {address}{}", why.unwrap_or_default())
                })
                .collect();
            names.join(", ")
        };
        let strangers = of(|meeting| !meeting.is_met());
        if strangers.is_empty() {
            of(|meeting| !meeting.ready) + ", which has not met all others,"
        } else {
            strangers
        }
    }

    fn absent(&self) -> ClusterError {
        ClusterError::Absent {
            who: self.missing(),
            waited: self.limits.forming,
        }
    }

    fn formed(mut self) -> Formed {
        let mut meetings = std::mem::take(&mut self.meetings);
        let hosts = &self.greeter.hosts;
        let peers = hosts.iter().enumerate().map(|(process, address)| {
            let meeting = meetings.remove(&process)?;
            Some(Peer {
                address: address.clone(),
                control: meeting.control.expect("all are met"),
                data: meeting.data.expect("all are met"),
            })
        });
        Formed {
            process: self.greeter.process,
            workers: self.workers,
            limits: self.limits,
            peers: peers.collect(),
            listener: self.listener.try_clone().ok(),
        }
    }
}

/// Both connections to process `to`.
fn call(greeter: &Greeter, to: usize) -> Result<[(Hello, TcpStream); 2], Refusal> {
    let mut control = connect(&greeter.hosts[to])?;
    let hello = greeter.call(&mut control, to, Role::Control, GREETING)?;
    let mut data = connect(&greeter.hosts[to])?;
    let other = greeter.call(&mut data, to, Role::Data, GREETING)?;
    if hello.run != other.run {
        return Err(std::io::Error::other("it was started again meanwhile").into());
    }
    Ok([(hello, control), (other, data)])
}

fn connect(address: &str) -> std::io::Result<TcpStream> {
    let mut failure = std::io::Error::other("the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, GREETING) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Whether the peer has said that it is ready; an error if it has closed the connection.
fn look(control: &mut TcpStream, was_ready: bool) -> std::io::Result<bool> {
    control.set_nonblocking(true)?;
    let mut byte = [0];
    let seen = if was_ready {
        control.peek(&mut byte)
    } else {
        control.read(&mut byte)
    };
    control.set_nonblocking(false)?;
    match seen {
        Ok(0) => Err(std::io::Error::other("it closed the connection")),
        Ok(_) => Ok(was_ready || byte[0] == READY),
        Err(error) if retriable(&error) => Ok(was_ready),
        Err(error) => Err(error),
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .expect("the system gives a thread");
}
