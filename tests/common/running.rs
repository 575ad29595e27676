//! A child that ends when a test or a bench is done with it, or fails; and what it says of itself.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A child, killed when dropped.
pub struct Running {
    child: Child,
    http: Option<SocketAddr>,
}

impl Running {
    /// Any program.
    pub fn start(command: &mut Command) -> Self {
        Self {
            child: command.spawn().expect("the child starts"),
            http: None,
        }
    }

    /// One that takes `--http` for where it serves its metrics.
    pub fn start_served(command: &mut Command) -> Self {
        let http = free_address();
        let mut running = Self::start(command.args(["--http", &http.to_string()]));
        running.http = Some(http);
        running
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it runs");
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("a child")
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child")
    }

    /// SIGTERM, and the exit code that it gives.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "the job did not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Until it has read its inputs to their end; fails if it ends or takes longer than `limit`.
    pub fn wait_until_ready(&mut self, limit: Duration) {
        let began = Instant::now();
        while !self.is_ready() {
            assert!(self.is_running(), "it has ended before it was ready");
            assert!(began.elapsed() < limit, "not ready within {limit:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Whether it has read its inputs to their end.
    pub fn is_ready(&self) -> bool {
        let answer = self.get("/readyz");
        answer.is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// The sum of a metric's series.
    pub fn metric(&self, name: &str) -> f64 {
        self.try_metric(name).expect("metrics are served")
    }

    /// The same of one that may be starting or dead.
    pub fn try_metric(&self, name: &str) -> Option<f64> {
        Some(sum_of(&self.metrics()?, name))
    }

    /// All metrics, as they are served; `None` of one that is starting or dead.
    pub fn metrics(&self) -> Option<String> {
        self.get("/metrics")
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.http?).ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The sum of a metric's series, of all metrics as they are served.
pub fn sum_of(metrics: &str, name: &str) -> f64 {
    let series = metrics.lines().filter(|line| line.starts_with(name));
    series
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// A loopback address that nobody listens on now; below the ports that the kernel gives to
/// connections, one of which would else hold it while a killed process starts again, and below
/// those of the services.
pub fn free_address() -> SocketAddr {
    // Each asks a random one, since tests run side by side; the standard library's random keys do.
    let random = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8);
    let listening = (0..1_000).find_map(|_| {
        let port = 10_000 + (random() % 2_000) as u16;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
    });
    let free = listening.expect("a free port");
    free.local_addr().expect("an address")
}
