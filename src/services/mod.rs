//! A real Kafka and a real ClickHouse as child processes on loopback.
//!
//! `up`, `demo` and the tests start the services by way of [`Services`]; there is no fake of
//! either. What is needed is fetched once per user, checked and cached; a data folder serves
//! start after start.
//!
//! Promises: what `demo` or a test started never outlives it, not even after `kill -9`
//! ([`launch`]); what [`up`] started stays until [`down`]; no process is ever signalled that
//! this did not start. `RIDERFLOW_KAFKA` or `RIDERFLOW_CLICKHOUSE` set means: use that one and
//! start none.
//!
//! Never: creates topics or tables, or listens on anything but loopback.
//!
//! ```text
//! DATA/kafka/       server.properties  log4j2.xml  kafka.log       data/  ports.json  lock  service.json
//! DATA/clickhouse/  config.xml  users.xml          clickhouse.log  data/  ports.json  lock  service.json
//! ```

mod cache;
mod child;
mod clickhouse;
mod clickhouse_lib;
mod files;
mod kafka;
pub mod launch;
mod ports;
mod progress;
mod server;
mod tools;
mod updown;

use std::env;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

pub use updown::{Addresses, Stopped, default_data_dir, down, up};

use cache::Cache;
use progress::Progress;
use server::{Server, Software};

/// The variable that names a Kafka to use instead of starting one.
pub const KAFKA_VARIABLE: &str = "RIDERFLOW_KAFKA";
/// The variable that names a ClickHouse to use instead of starting one.
pub const CLICKHOUSE_VARIABLE: &str = "RIDERFLOW_CLICKHOUSE";

/// How long a service that the environment names may take to answer.
const EXTERNAL_PATIENCE: Duration = Duration::from_secs(10);

/// What to start, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// Holds the services' data; created if missing, reused if not.
    pub data_dir: PathBuf,
    /// The `riderflow` binary, which every child starts from: `current_exe()` in the binary
    /// itself, `env!("CARGO_BIN_EXE_riderflow")` in tests and benches.
    pub launcher: PathBuf,
    /// Whether to start Kafka (true).
    pub kafka: bool,
    /// Whether to start ClickHouse (true).
    pub clickhouse: bool,
    /// The most that Kafka's heap may take, in MiB (1024).
    pub kafka_heap_mb: u32,
    /// Java flags that cost speed under load and spare processor time at the start: for tests,
    /// not for benches (false).
    pub kafka_quick_start: bool,
    /// Say nothing on standard error (false).
    pub quiet: bool,
}

impl Options {
    /// Both services, as `demo` and benches want them.
    pub fn new(data_dir: impl Into<PathBuf>, launcher: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            launcher: launcher.into(),
            kafka: true,
            clickhouse: true,
            kafka_heap_mb: 1024,
            kafka_quick_start: false,
            quiet: false,
        }
    }

    /// Both services, as tests want them: a 512 MiB heap, a quick start, no output.
    pub fn for_tests(data_dir: impl Into<PathBuf>, launcher: impl Into<PathBuf>) -> Self {
        Self {
            kafka_heap_mb: 512,
            kafka_quick_start: true,
            quiet: true,
            ..Self::new(data_dir, launcher)
        }
    }
}

/// Until when a child runs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lifetime {
    /// It dies with the process that started it.
    Parent,
    /// It stays until `down`.
    Down,
}

/// Why a service could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A program that must be on the machine isn't.
    #[error(
        "could not find `{program}`: {what} must be installed (Debian: `apt install {package}`), \
         or set {instead} to a service of your own"
    )]
    Missing {
        /// The program.
        program: &'static str,
        /// What it is and what for.
        what: &'static str,
        /// The Debian package that holds it.
        package: &'static str,
        /// The variable that makes it unnecessary.
        instead: &'static str,
    },
    /// Java is too old for Kafka.
    #[error(
        "could not use {} for Kafka: it is Java {version}, and 17 or later is needed (Debian: \
         `apt install openjdk-17-jre-headless`; JAVA_HOME says which one is used)",
        java.display()
    )]
    OldJava {
        /// The program.
        java: PathBuf,
        /// Its version.
        version: u32,
    },
    /// There is no ClickHouse package for this processor.
    #[error(
        "could not fetch ClickHouse: there is a package for x86-64 and arm64 only; set \
         RIDERFLOW_CLICKHOUSE to a service of your own"
    )]
    Unsupported,
    /// A program that fetches, verifies or unpacks failed.
    #[error("could not {what}: `{command}` ended with {status}\n{output}")]
    Tool {
        /// What was attempted.
        what: String,
        /// The command.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines it wrote.
        output: String,
    },
    /// What was fetched is not what is pinned.
    #[error("could not accept what was fetched as {what}: {detail}")]
    Checksum {
        /// The software.
        what: String,
        /// What is wrong.
        detail: String,
    },
    /// Another service runs on the folder.
    #[error(
        "could not use {}: a service runs on it already (`riderflow down` stops what \
         `riderflow up` started)",
        folder.display()
    )]
    FolderInUse {
        /// The service's folder.
        folder: PathBuf,
    },
    /// A child ended before it answered.
    #[error("could not start {service}: it ended with {status}; the end of {}:\n{tail}", log.display())]
    Died {
        /// Kafka or ClickHouse.
        service: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// A child did not answer in time.
    #[error(
        "could not start {service}: no answer within {} s; the end of {}:\n{tail}",
        patience.as_secs(),
        log.display()
    )]
    NotReady {
        /// Kafka or ClickHouse.
        service: &'static str,
        /// How long it was given.
        patience: Duration,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// The service that the environment names does not answer.
    #[error("could not reach {address}, which {variable} names")]
    Unreachable {
        /// The variable.
        variable: &'static str,
        /// Its value.
        address: String,
    },
    /// A service that was not started here can't be stopped or started here.
    #[error("could not {attempted}: it was not started here")]
    NotOurs {
        /// What was attempted.
        attempted: &'static str,
    },
    /// A file, a process or a socket failed.
    #[error("could not {attempted}: {source}")]
    Io {
        /// What was attempted.
        attempted: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl ServiceError {
    fn io(attempted: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            attempted: attempted.into(),
            source,
        }
    }
}

/// A Kafka and a ClickHouse that answer. Dropping this stops those it started, and waits.
pub struct Services {
    kafka: Option<Service>,
    clickhouse: Option<Service>,
}

/// Finds a piece of software in the cache, or fetches it.
type Install<'a> = dyn Fn(&Cache<'_>) -> Result<Box<dyn Software>, ServiceError> + 'a;

enum Service {
    /// Named by the environment.
    External(String),
    /// Started here.
    Ours(Box<Server>),
}

impl Service {
    fn address(&self) -> &str {
        match self {
            Self::External(address) => address,
            Self::Ours(server) => server.address(),
        }
    }
}

impl Services {
    /// Starts what `options` asks for, both at once, and waits until Kafka answers a metadata
    /// request and ClickHouse answers over HTTP. What is missing on this machine is fetched.
    ///
    /// A service that `RIDERFLOW_KAFKA` or `RIDERFLOW_CLICKHOUSE` names is used as it is.
    ///
    /// # Errors
    /// If something can't be fetched, a child ends or does not answer (the message then ends
    /// with its log's last lines), or a service that the environment names does not answer.
    pub fn start(options: &Options) -> Result<Self, ServiceError> {
        Self::start_for(options, Lifetime::Parent, |variable, is_ready| {
            external(variable).map(|address| {
                let deadline = Instant::now() + EXTERNAL_PATIENCE;
                while !is_ready(&address) {
                    if Instant::now() >= deadline {
                        return Err(ServiceError::Unreachable { variable, address });
                    }
                    thread::sleep(Duration::from_millis(200));
                }
                Ok(address)
            })
        })
    }

    /// [`Services::start`], for a lifetime and a way to find services that run already.
    fn start_for(
        options: &Options,
        lifetime: Lifetime,
        find: impl Fn(&'static str, fn(&str) -> bool) -> Option<Result<String, ServiceError>> + Sync,
    ) -> Result<Self, ServiceError> {
        let data_dir = std::path::absolute(&options.data_dir)
            .map_err(|error| ServiceError::io("find the data folder", error))?;
        let launcher = std::path::absolute(&options.launcher)
            .map_err(|error| ServiceError::io("find the riderflow binary", error))?;
        let progress = Progress::new(options.quiet);

        let service = |wanted: bool,
                       variable: &'static str,
                       is_ready: fn(&str) -> bool,
                       install: &Install<'_>| {
            if !wanted {
                return Ok(None);
            }
            if let Some(found) = find(variable, is_ready) {
                return found.map(|address| Some(Service::External(address)));
            }
            let software = install(&Cache::open(&launcher, &progress)?)?;
            let server = Server::start(software, &launcher, &data_dir, lifetime, &progress)?;
            Ok(Some(Service::Ours(Box::new(server))))
        };
        let kafka = || {
            service(options.kafka, KAFKA_VARIABLE, kafka_answers, &|cache| {
                let kafka =
                    kafka::Kafka::install(cache, options.kafka_heap_mb, options.kafka_quick_start)?;
                Ok(Box::new(kafka))
            })
        };
        let clickhouse = || {
            service(
                options.clickhouse,
                CLICKHOUSE_VARIABLE,
                clickhouse_answers,
                &|cache| Ok(Box::new(clickhouse::Clickhouse::install(cache)?)),
            )
        };
        let (kafka, clickhouse) = thread::scope(|scope| {
            let kafka = scope.spawn(kafka);
            let clickhouse = clickhouse();
            let kafka = kafka
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (kafka, clickhouse)
        });
        // If one failed, dropping the other stops it.
        Ok(Self {
            kafka: kafka?,
            clickhouse: clickhouse?,
        })
    }

    /// Kafka's address, `host:port`.
    ///
    /// # Panics
    /// If [`Options::kafka`] was false.
    pub fn kafka(&self) -> &str {
        self.kafka
            .as_ref()
            .expect("the options asked for Kafka")
            .address()
    }

    /// ClickHouse's address, `http://host:port`.
    ///
    /// # Panics
    /// If [`Options::clickhouse`] was false.
    pub fn clickhouse_url(&self) -> &str {
        self.clickhouse
            .as_ref()
            .expect("the options asked for ClickHouse")
            .address()
    }

    /// The processes that run now: Kafka's and ClickHouse's, as far as they were started here.
    pub fn pids(&self) -> Vec<u32> {
        [&self.kafka, &self.clickhouse]
            .into_iter()
            .filter_map(|service| match service {
                Some(Service::Ours(server)) => server.pid(),
                _ => None,
            })
            .collect()
    }

    /// Stops Kafka in order.
    ///
    /// # Errors
    /// If it was not started here.
    pub fn stop_kafka(&mut self) -> Result<(), ServiceError> {
        ours(&mut self.kafka, "stop Kafka")?.stop()
    }

    /// Kills Kafka by SIGKILL.
    ///
    /// # Errors
    /// If it was not started here.
    pub fn kill_kafka(&mut self) -> Result<(), ServiceError> {
        ours(&mut self.kafka, "kill Kafka")?.kill()
    }

    /// Starts Kafka again on its ports and data, and waits until it answers; does nothing while
    /// it runs. After [`Services::kill_kafka`] it waits 3 s longer, for its own last session.
    ///
    /// # Errors
    /// If it was not started here, ends, or does not answer.
    pub fn start_kafka(&mut self) -> Result<(), ServiceError> {
        ours(&mut self.kafka, "start Kafka")?.restart()
    }

    /// Stops ClickHouse: it ends at once.
    ///
    /// # Errors
    /// If it was not started here.
    pub fn stop_clickhouse(&mut self) -> Result<(), ServiceError> {
        ours(&mut self.clickhouse, "stop ClickHouse")?.stop()
    }

    /// Kills ClickHouse by SIGKILL.
    ///
    /// # Errors
    /// If it was not started here.
    pub fn kill_clickhouse(&mut self) -> Result<(), ServiceError> {
        ours(&mut self.clickhouse, "kill ClickHouse")?.kill()
    }

    /// Starts ClickHouse again on its ports and data, and waits until it answers; does nothing
    /// while it runs.
    ///
    /// # Errors
    /// If it was not started here, ends, or does not answer.
    pub fn start_clickhouse(&mut self) -> Result<(), ServiceError> {
        ours(&mut self.clickhouse, "start ClickHouse")?.restart()
    }

    fn leave(mut self) {
        for service in [&mut self.kafka, &mut self.clickhouse] {
            if let Some(Service::Ours(server)) = service {
                server.leave();
            }
        }
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        // Both at once: Kafka takes its time.
        thread::scope(|scope| {
            scope.spawn(|| drop(self.clickhouse.take()));
            drop(self.kafka.take());
        });
    }
}

fn ours<'a>(
    service: &'a mut Option<Service>,
    attempted: &'static str,
) -> Result<&'a mut Server, ServiceError> {
    match service {
        Some(Service::Ours(server)) => Ok(server),
        _ => Err(ServiceError::NotOurs { attempted }),
    }
}

/// The service that the environment names.
fn external(variable: &str) -> Option<String> {
    env::var(variable)
        .ok()
        .filter(|address| !address.is_empty())
}

fn kafka_answers(brokers: &str) -> bool {
    crate::kafka::ready::wait_until_ready(brokers, Duration::from_secs(2)).is_ok()
}

/// Whether ClickHouse answers at `http://host[:port][/…]`. Of an `https://` address only the
/// socket is tried.
fn clickhouse_answers(url: &str) -> bool {
    let (tls, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (scheme == "https", rest),
        None => (false, url),
    };
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = match (has_port, tls) {
        (true, _) => host.to_owned(),
        (false, true) => format!("{host}:8443"),
        (false, false) => format!("{host}:8123"),
    };
    address.to_socket_addrs().is_ok_and(|mut addresses| {
        addresses.any(|address| {
            if tls {
                TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok()
            } else {
                clickhouse::ping(address)
            }
        })
    })
}

/// `$variable/riderflow`, or `~/fallback/riderflow`.
fn base_folder(variable: &'static str, fallback: &str) -> Result<PathBuf, ServiceError> {
    let base = match env::var_os(variable).map(PathBuf::from) {
        // The XDG specification: a relative path is invalid and to be ignored.
        Some(folder) if folder.is_absolute() => folder,
        _ => match env::var_os("HOME") {
            Some(home) if !home.is_empty() => Path::new(&home).join(fallback),
            _ => {
                return Err(ServiceError::io(
                    "find a folder to keep things in",
                    io::Error::other(format!("neither {variable} nor HOME is set")),
                ));
            }
        },
    };
    Ok(base.join("riderflow"))
}
