//! What a child does before it becomes the service: the body of the hidden `internal` commands.
//!
//! Owns the promise that a child started for a parent dies with it, even by SIGKILL, and that
//! no two services ever run on one folder. A child asks the kernel to be killed with its
//! parent, takes the folder's lock, writes its `Record` there and turns
//! into the service, which inherits the lock.
//!
//! Runs in a fresh process with one thread, never in the caller's.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getppid, set_parent_process_death_signal, setsid};

use super::child::{Record, started_at};
use super::{ServiceError, clickhouse_lib};

/// How long a service waits for its predecessor on the same folder to be gone.
pub(super) const FOLDER_PATIENCE: Duration = Duration::from_secs(10);

/// The lock file of a service's folder.
pub(super) const LOCK: &str = "lock";
/// The record of the service that holds the lock.
pub(super) const RECORD: &str = "service.json";

/// Starts a child of `riderflow up`, `demo` or a test; not meant to be typed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The process to die with
    #[arg(long)]
    parent: Option<u32>,
    /// The folder of the service, to be locked
    #[arg(long, requires = "address")]
    folder: Option<PathBuf>,
    /// Where the service will answer
    #[arg(long)]
    address: Option<String>,
    /// Load this library and call its command line, instead of starting a program
    #[arg(long)]
    library: Option<PathBuf>,
    /// The program and its arguments, or the library's
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Becomes what `args` says; returns only if that fails or, for a library, ends.
///
/// # Errors
/// If the parent is already gone, the folder is in use, or the program can't be started.
pub fn execute(args: Args) -> Result<(), ServiceError> {
    if let Some(parent) = args.parent {
        die_with(parent)?;
    }
    // Away from the terminal's process group: Ctrl-C is for the parent, which stops its
    // children in order. Fails only in a group leader, which is already away.
    let _ = setsid();

    let lock = match (&args.folder, &args.address) {
        (Some(folder), Some(address)) => Some(claim(folder, address, args.parent)?),
        _ => None,
    };
    if let Some(library) = &args.library {
        clickhouse_lib::run(library, &args.command)?;
        drop(lock);
        return Ok(());
    }
    let (program, arguments) = args
        .command
        .split_first()
        .expect("clap requires at least one");
    // Only returns if it failed.
    let error = Command::new(program).args(arguments).exec();
    Err(ServiceError::io(
        format!("start {}", Path::new(program).display()),
        error,
    ))
}

/// Asks the kernel for SIGKILL when `parent`'s spawning thread ends.
fn die_with(parent: u32) -> Result<(), ServiceError> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| ServiceError::io("tie a child to its parent", error.into()))?;
    // If the parent died before that call, no signal comes: but then the parent is another.
    let actual = getppid().map_or(0, |pid| pid.as_raw_pid());
    if u32::try_from(actual).ok() == Some(parent) {
        Ok(())
    } else {
        Err(ServiceError::io(
            "start a child",
            io::Error::other(format!("its parent {parent} has ended")),
        ))
    }
}

/// Locks `folder` and writes the record; the lock lasts as long as the returned file is open
/// in any process, this one or what it turns into.
fn claim(folder: &Path, address: &str, parent: Option<u32>) -> Result<File, ServiceError> {
    let path = folder.join(LOCK);
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| ServiceError::io(format!("open {}", path.display()), error))?;
    let deadline = Instant::now() + FOLDER_PATIENCE;
    while lock.try_lock().is_err() {
        if Instant::now() >= deadline {
            return Err(ServiceError::FolderInUse {
                folder: folder.to_owned(),
            });
        }
        thread::sleep(Duration::from_millis(25));
    }
    rustix::io::fcntl_setfd(&lock, rustix::io::FdFlags::empty())
        .map_err(|error| ServiceError::io("keep a lock over exec", error.into()))?;

    let pid = std::process::id();
    let record = Record {
        pid,
        started: started_at(pid).unwrap_or(0),
        address: address.to_owned(),
        parent,
    };
    super::files::write_json(&folder.join(RECORD), &record)?;
    Ok(lock)
}
