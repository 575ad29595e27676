//! Files that are read again when they change: keys and certificates that rotate.
//!
//! Promises that what was last good stays in force while a file is away or bad, and that this
//! is told once for each change. Looks at the files only when somebody asks for what is in them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How often at most the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The largest file, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What tells that a file has changed.
type Stamp = Option<(SystemTime, u64)>;

struct State<T> {
    value: Arc<T>,
    stamps: Vec<Stamp>,
    looked_at: Instant,
}

type Load<T> = Box<dyn Fn() -> Result<T, String> + Send + Sync>;

/// What was last good in some files.
pub(super) struct Watched<T> {
    paths: Vec<PathBuf>,
    load: Load<T>,
    look_every: Duration,
    state: Mutex<State<T>>,
}

impl<T> Watched<T> {
    /// What `load` makes of `paths`, now and after each change.
    ///
    /// # Errors
    /// What `load` says at first.
    pub(super) fn open(
        paths: Vec<PathBuf>,
        load: impl Fn() -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        // The stamps are taken first: a write in between is then seen at the next look.
        let stamps = paths.iter().map(|path| stamp_of(path)).collect();
        let value = Arc::new(load()?);
        Ok(Self {
            paths,
            load: Box::new(load),
            look_every: LOOK_EVERY,
            state: Mutex::new(State {
                value,
                stamps,
                looked_at: Instant::now(),
            }),
        })
    }

    #[cfg(test)]
    pub(super) fn looking_every(mut self, interval: Duration) -> Self {
        self.look_every = interval;
        self
    }

    /// What is in force. Looks at the files every two seconds at most, which costs the caller a
    /// `stat` each, and reading small files when one has changed.
    pub(super) fn current(&self) -> Arc<T> {
        // Whoever panicked here left a whole value behind: it is replaced in one step.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked_at.elapsed() >= self.look_every {
            state.looked_at = Instant::now();
            let stamps: Vec<Stamp> = self.paths.iter().map(|path| stamp_of(path)).collect();
            if stamps != state.stamps {
                state.stamps = stamps;
                let names: Vec<_> = self.paths.iter().map(|p| p.display().to_string()).collect();
                let files = names.join(" and ");
                match (self.load)() {
                    Ok(value) => {
                        tracing::info!("read {files} again, after a change");
                        state.value = Arc::new(value);
                    }
                    Err(fault) => tracing::warn!(
                        "could not use the changed {files}, so what was in force stays: {fault}"
                    ),
                }
            }
        }
        Arc::clone(&state.value)
    }
}

/// A small file's bytes.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let fault = |error: std::io::Error| error.to_string();
    let length = std::fs::metadata(path).map_err(fault)?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!("it has {length} bytes, more than {FILE_BYTES_MAX}"));
    }
    std::fs::read(path).map_err(fault)
}

fn stamp_of(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
