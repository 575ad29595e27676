//! One running service: a folder, ports, a child process and its log.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::child::{self, Record};
use super::launch::{FOLDER_PATIENCE, LOCK, RECORD};
use super::ports::{self, Ports};
use super::progress::Progress;
use super::{Lifetime, ServiceError, files};

/// How long SIGTERM gets before SIGKILL follows.
pub(super) const GRACE: Duration = Duration::from_secs(20);
/// How often a start is tried again because someone took a port between choosing and use.
const PORT_TRIES: u32 = 3;

/// What differs between Kafka and ClickHouse.
pub(super) trait Software: Send {
    /// Its name for people.
    fn name(&self) -> &'static str;
    /// Its folder in the data folder.
    fn folder_name(&self) -> &'static str;
    /// Its version, for people.
    fn version(&self) -> &'static str;
    /// How long a start may take.
    fn patience(&self) -> Duration;
    /// Writes its configuration, and its first data if there is none. Paths in it are relative
    /// to the folder, where it will run.
    fn prepare(&self, folder: &Path, ports: Ports) -> Result<(), ServiceError>;
    /// The shared library to call, unless it is a program.
    fn library(&self) -> Option<&Path>;
    /// The program and its arguments.
    fn command(&self) -> Vec<OsString>;
    /// What clients are told.
    fn address(&self, ports: Ports) -> String;
    /// Whether it answers.
    fn is_ready(&self, ports: Ports) -> bool;
}

/// A service of ours, running or stopped. Dropping it stops it.
pub(super) struct Server {
    software: Box<dyn Software>,
    launcher: PathBuf,
    folder: PathBuf,
    lifetime: Lifetime,
    ports: Ports,
    address: String,
    child: Option<Child>,
}

impl Server {
    /// Starts `software` on its folder in `data_dir` and waits until it answers.
    pub(super) fn start(
        software: Box<dyn Software>,
        launcher: &Path,
        data_dir: &Path,
        lifetime: Lifetime,
        progress: &Progress,
    ) -> Result<Self, ServiceError> {
        let folder = data_dir.join(software.folder_name());
        files::create_folder(&folder)?;
        if running(&folder).is_some_and(|record| record.parent.is_none()) {
            return Err(ServiceError::FolderInUse { folder });
        }
        let (name, version) = (software.name(), software.version());
        let task = progress.task(&format!("starting {name} {version}"));
        let begin = Instant::now();
        // A killed predecessor keeps its ports as long as its lock.
        if !wait_until_free(&folder) {
            return Err(ServiceError::FolderInUse { folder });
        }
        let ports = ports::choose(&folder)?;
        let mut server = Self {
            address: software.address(ports),
            software,
            launcher: launcher.to_owned(),
            folder,
            lifetime,
            ports,
            child: None,
        };
        for attempt in 1.. {
            match server.restart() {
                Err(ServiceError::Died { tail, .. })
                    if attempt < PORT_TRIES && tail.contains("Address already in use") =>
                {
                    ports::forget(&server.folder);
                    server.ports = ports::choose(&server.folder)?;
                    server.address = server.software.address(server.ports);
                }
                outcome => {
                    outcome?;
                    break;
                }
            }
        }
        task.done(&format!(
            "{name} {version} answers on {} after {:.1} s",
            server.address,
            begin.elapsed().as_secs_f64()
        ));
        Ok(server)
    }

    /// Starts it on its ports and data, unless it runs, and waits until it answers.
    pub(super) fn restart(&mut self) -> Result<(), ServiceError> {
        if let Some(child) = &mut self.child
            && matches!(child.try_wait(), Ok(None))
        {
            return Ok(());
        }
        self.child = None;
        self.software.prepare(&self.folder, self.ports)?;
        let mut child = self.spawn()?;
        let answer = self.wait_until_ready(&mut child);
        if answer.is_ok() {
            self.child = Some(child);
        } else {
            // It may have ended already; in any case it must not stay.
            let _ = child::kill(&mut child);
        }
        answer
    }

    fn log(&self) -> PathBuf {
        self.folder
            .join(format!("{}.log", self.software.folder_name()))
    }

    fn spawn(&self) -> Result<Child, ServiceError> {
        let log = self.log();
        // The last run's log stays beside the new one.
        let _ = fs::rename(&log, log.with_extension("log.1"));
        let attempt = || {
            let output = File::create(&log)?;
            let mut command = Command::new(&self.launcher);
            command.arg("internal");
            if self.lifetime == Lifetime::Parent {
                command.args(["--parent", &std::process::id().to_string()]);
            }
            command.arg("--folder").arg(".");
            command.args(["--address", &self.address]);
            if let Some(library) = self.software.library() {
                command.arg("--library").arg(library);
            }
            command
                .arg("--")
                .args(self.software.command())
                .current_dir(&self.folder)
                .stdin(Stdio::null())
                .stdout(output.try_clone()?)
                .stderr(output);
            child::spawn(command)
        };
        attempt().map_err(|error: io::Error| {
            let name = self.software.name();
            let launcher = self.launcher.display();
            ServiceError::io(format!("start {name} by way of {launcher}"), error)
        })
    }

    fn wait_until_ready(&self, child: &mut Child) -> Result<(), ServiceError> {
        let deadline = Instant::now() + self.software.patience();
        let tail = || files::tail(&self.log(), 20);
        loop {
            let ended = child
                .try_wait()
                .map_err(|error| ServiceError::io("watch a child", error))?;
            if let Some(status) = ended {
                return Err(ServiceError::Died {
                    service: self.software.name(),
                    status,
                    log: self.log(),
                    tail: tail(),
                });
            }
            // Only the child's own record says that the folder is its, so that the answer
            // can't come from a predecessor on the same port.
            let claimed = running(&self.folder).is_some_and(|record| record.pid == child.id());
            if claimed && self.software.is_ready(self.ports) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(ServiceError::NotReady {
                    service: self.software.name(),
                    patience: self.software.patience(),
                    log: self.log(),
                    tail: tail(),
                });
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The process, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Ends it in order: SIGTERM, and SIGKILL if that is not enough.
    pub(super) fn stop(&mut self) -> Result<(), ServiceError> {
        self.end(|child| child::terminate(child, GRACE))
    }

    /// Ends it by SIGKILL.
    pub(super) fn kill(&mut self) -> Result<(), ServiceError> {
        self.end(child::kill)
    }

    fn end<T>(
        &mut self,
        how: impl FnOnce(&mut Child) -> io::Result<T>,
    ) -> Result<(), ServiceError> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        how(&mut child)
            .map_err(|error| ServiceError::io(format!("stop {}", self.software.name()), error))?;
        // Gone already if another start on the folder was quicker.
        let _ = fs::remove_file(self.folder.join(RECORD));
        Ok(())
    }

    /// Leaves it running when this is dropped.
    pub(super) fn leave(&mut self) {
        self.child = None;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // There is no caller left to tell; the child also dies with this process.
        let _ = self.stop();
    }
}

/// Waits until no service has `folder`, and so none has its ports; false if one keeps it.
pub(super) fn wait_until_free(folder: &Path) -> bool {
    let deadline = Instant::now() + FOLDER_PATIENCE;
    while child::is_locked(&folder.join(LOCK)) {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(child::POLL);
    }
    true
}

/// The service that runs on `folder`, by the lock that only its process holds.
pub(super) fn running(folder: &Path) -> Option<Record> {
    if !child::is_locked(&folder.join(LOCK)) {
        return None;
    }
    let record: Record = files::read_json(&folder.join(RECORD))?;
    // Between taking the lock and writing the record, it is still the last one's.
    (child::started_at(record.pid) == Some(record.started)).then_some(record)
}
