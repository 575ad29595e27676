//! A child that ends when a bench is done with it, or fails; and what it says of itself.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};

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
        let any = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let http = any.local_addr().expect("it is bound");
        drop(any);
        command.args(["--http", &http.to_string()]);
        let mut running = Self::start(command);
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

    /// All metrics, as they are served; `None` of one that is starting or dead.
    pub fn metrics(&self) -> Option<String> {
        let mut stream = TcpStream::connect(self.http?).ok()?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")
            .ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// The sum of a metric's series.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = self.metrics()?;
        let series = text.lines().filter(|line| line.starts_with(name));
        Some(
            series
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum(),
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
