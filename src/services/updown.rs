//! `up` and `down`: services that stay when the command ends.
//!
//! What runs is read from the services' folders: a lock that only the running process holds,
//! and the record it wrote of itself (process, start time, address). So there is no state that
//! can be stale, and no moment at which a service runs that `down` can't find.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::child::Found;
use super::progress::Progress;
use super::server::{GRACE, running, wait_until_free};
use super::{
    CLICKHOUSE_VARIABLE, KAFKA_VARIABLE, Lifetime, Options, ServiceError, Services, base_folder,
    external, files,
};

/// The services' names and folders, in the order in which they are stopped.
const SERVICES: [(&str, &str); 2] = [("Kafka", "kafka"), ("ClickHouse", "clickhouse")];

/// How long a service that runs already may take to answer.
const EARLIER_PATIENCE: Duration = Duration::from_secs(120);

/// Where `up`'s services answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// Kafka, `host:port`.
    pub kafka: String,
    /// ClickHouse, `http://host:port`.
    pub clickhouse: String,
}

/// One service that [`down`] stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stopped {
    /// Kafka or ClickHouse.
    pub service: &'static str,
    /// The process it was.
    pub pid: u32,
    /// Whether it ended in order; if not, it was killed.
    pub in_order: bool,
}

/// `$XDG_DATA_HOME/riderflow`, by default `~/.local/share/riderflow`.
///
/// # Errors
/// If neither variable nor home is set.
pub fn default_data_dir() -> Result<PathBuf, ServiceError> {
    base_folder("XDG_DATA_HOME", ".local/share")
}

/// Starts what doesn't run yet on the data folder, and leaves it running.
///
/// A service that the environment names is used if it answers; a variable left over from an
/// earlier `up` is no obstacle.
///
/// # Errors
/// As [`Services::start`].
pub fn up(options: &Options) -> Result<Addresses, ServiceError> {
    files::create_folder(&options.data_dir)?;
    // Another `up` on the folder first finishes.
    let _lock = lock(&options.data_dir)?;
    let services = Services::start_for(options, Lifetime::Down, |variable, is_ready| {
        let folder = if variable == KAFKA_VARIABLE {
            "kafka"
        } else {
            "clickhouse"
        };
        let folder = options.data_dir.join(folder);
        if let Some(record) = running(&folder) {
            if record.parent.is_some() {
                // It would go with its parent.
                return Some(Err(ServiceError::FolderInUse { folder }));
            }
            return Some(wait_for(variable, &folder, record.address, is_ready));
        }
        let named = external(variable)?;
        if is_ready(&named) {
            return Some(Ok(named));
        }
        if !options.quiet {
            eprintln!("{variable} names {named}, which does not answer: starting one");
        }
        None
    })?;
    let addresses = Addresses {
        kafka: services.kafka().to_owned(),
        clickhouse: services.clickhouse_url().to_owned(),
    };
    services.leave();
    Ok(addresses)
}

/// Waits for a service that an earlier `up` started, which may have been cut off while it did.
fn wait_for(
    variable: &'static str,
    folder: &Path,
    address: String,
    is_ready: fn(&str) -> bool,
) -> Result<String, ServiceError> {
    let deadline = Instant::now() + EARLIER_PATIENCE;
    while !is_ready(&address) {
        if running(folder).is_none() || Instant::now() >= deadline {
            return Err(ServiceError::Unreachable { variable, address });
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(address)
}

impl Addresses {
    /// Lines for a shell to evaluate.
    pub fn exports(&self) -> String {
        format!(
            "export {KAFKA_VARIABLE}={}\nexport {CLICKHOUSE_VARIABLE}={}\n",
            self.kafka, self.clickhouse
        )
    }
}

/// Stops what [`up`] started on the data folder, and says what that was. Services that belong
/// to a `demo` or a test are left alone.
///
/// # Errors
/// If a process can't be signalled, or survives.
pub fn down(data_dir: &Path, quiet: bool) -> Result<Vec<Stopped>, ServiceError> {
    if !data_dir.exists() {
        return Ok(Vec::new());
    }
    let _lock = lock(data_dir)?;
    let progress = Progress::new(quiet);
    let mut stopped = Vec::new();
    for (service, folder) in SERVICES {
        let folder = data_dir.join(folder);
        let Some(record) = running(&folder) else {
            continue;
        };
        if let Some(parent) = record.parent {
            if !quiet {
                eprintln!("{service} belongs to process {parent} and is left alone");
            }
            continue;
        }
        let Some(found) = Found::find(&record) else {
            continue;
        };
        let task = progress.task(&format!("stopping {service}"));
        let in_order = found
            .terminate(GRACE)
            .map_err(|error| ServiceError::io(format!("stop {service}"), error))?;
        wait_until_free(&folder);
        // A record of a process that is gone is never believed; this is tidiness.
        let _ = std::fs::remove_file(folder.join(super::launch::RECORD));
        task.done(&format!("stopped {service}"));
        stopped.push(Stopped {
            service,
            pid: record.pid,
            in_order,
        });
    }
    Ok(stopped)
}

fn lock(data_dir: &Path) -> Result<File, ServiceError> {
    let path = data_dir.join("up.lock");
    let attempt = || {
        let file = File::create(&path)?;
        file.lock()?;
        Ok(file)
    };
    attempt().map_err(|error| ServiceError::io(format!("lock {}", path.display()), error))
}
