//! The cache: software fetched once per user, pinned and checked.
//!
//! Owns `$XDG_CACHE_HOME/riderflow`, one folder a piece of software. A folder of its final name
//! is whole and checked: it was filled under another name, compared with pinned checksums,
//! written to disk, listed file by file, and only then renamed. Two processes that need the
//! same piece fetch it once: the second waits for the first. A second start asks no network.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::progress::{Progress, Task};
use super::{ServiceError, child, files};

/// The list of a whole folder's files and their sizes.
const MANIFEST: &str = "manifest.json";

/// The cache, and what is needed to fill it.
pub(super) struct Cache<'a> {
    folder: PathBuf,
    launcher: &'a Path,
    progress: &'a Progress,
}

/// The cache's folder: `$XDG_CACHE_HOME/riderflow`, by default `~/.cache/riderflow`.
pub(super) fn default_folder() -> Result<PathBuf, ServiceError> {
    super::base_folder("XDG_CACHE_HOME", ".cache")
}

impl<'a> Cache<'a> {
    pub(super) fn open(launcher: &'a Path, progress: &'a Progress) -> Result<Self, ServiceError> {
        Ok(Self {
            folder: default_folder()?,
            launcher,
            progress,
        })
    }

    /// The folder called `name`; if it isn't there or not whole, `fill` fills it.
    pub(super) fn get(
        &self,
        name: &str,
        fill: impl FnOnce(&Stage<'_>) -> Result<(), ServiceError>,
    ) -> Result<PathBuf, ServiceError> {
        let whole = self.folder.join(name);
        if is_whole(&whole) {
            return Ok(whole);
        }
        files::create_folder(&self.folder)?;
        let _lock = self.lock(name)?;
        if is_whole(&whole) {
            return Ok(whole);
        }
        self.remove_leftovers(name)?;

        let folder = self
            .folder
            .join(format!("{name}.part-{}", std::process::id()));
        files::create_folder(&folder)?;
        let stage = Stage {
            folder,
            launcher: self.launcher,
            progress: self.progress,
        };
        fill(&stage)?;
        // Its own log is of no use to anyone once it succeeded.
        let _ = fs::remove_file(stage.log());
        let manifest = list(&stage.folder)
            .map_err(|error| ServiceError::io(format!("list {}", stage.folder.display()), error))?;
        files::write_json(&stage.folder.join(MANIFEST), &manifest)?;
        sync(&stage.folder, &manifest)
            .and_then(|()| fs::rename(&stage.folder, &whole))
            .map_err(|error| ServiceError::io(format!("keep {}", whole.display()), error))?;
        Ok(whole)
    }

    fn lock(&self, name: &str) -> Result<File, ServiceError> {
        let path = self.folder.join(format!("{name}.lock"));
        let attempt = || {
            let file = File::create(&path)?;
            if file.try_lock().is_err() {
                let _task = self.progress.task(&format!(
                    "waiting for another riderflow that fetches {name}"
                ));
                file.lock()?;
            }
            Ok(file)
        };
        attempt()
            .map_err(|error: io::Error| ServiceError::io(format!("lock {}", path.display()), error))
    }

    /// What was left by fetches that were cut off, and a folder that isn't whole: nobody uses
    /// them, since this process holds the lock.
    fn remove_leftovers(&self, name: &str) -> Result<(), ServiceError> {
        let attempt = || {
            for entry in fs::read_dir(&self.folder)? {
                let entry = entry?;
                let entry_name = entry.file_name();
                let entry_name = entry_name.to_string_lossy();
                if entry_name == name || entry_name.starts_with(&format!("{name}.part-")) {
                    fs::remove_dir_all(entry.path())?;
                }
            }
            Ok(())
        };
        attempt().map_err(|error: io::Error| {
            ServiceError::io(format!("tidy {}", self.folder.display()), error)
        })
    }
}

/// A folder that is being filled; removed unless it became whole.
pub(super) struct Stage<'a> {
    folder: PathBuf,
    launcher: &'a Path,
    progress: &'a Progress,
}

impl Stage<'_> {
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn progress(&self) -> &Progress {
        self.progress
    }

    fn log(&self) -> PathBuf {
        self.folder.join("fetch.log")
    }

    /// Runs a program in the folder to its end; it dies with this process. `what` completes
    /// the sentence "could not …". With `(task, path)`, the task follows the size of that path.
    pub(super) fn run(
        &self,
        what: &str,
        command: &[&str],
        follow: Option<(&Task<'_>, &Path)>,
    ) -> Result<(), ServiceError> {
        let log = self.log();
        let attempt = || {
            let output = File::create(&log)?;
            let mut launched = Command::new(self.launcher);
            launched
                .args([
                    "internal",
                    "--parent",
                    &std::process::id().to_string(),
                    "--",
                ])
                .args(command)
                .current_dir(&self.folder)
                .stdin(Stdio::null())
                .stdout(output.try_clone()?)
                .stderr(output);
            let mut running = child::spawn(launched)?;
            loop {
                if let Some(status) = running.try_wait()? {
                    return Ok(status);
                }
                if let Some((task, path)) = follow {
                    task.at(size(path));
                }
                thread::sleep(Duration::from_millis(50));
            }
        };
        let status =
            attempt().map_err(|error: io::Error| ServiceError::io(what.to_owned(), error))?;
        if status.success() {
            return Ok(());
        }
        Err(ServiceError::Tool {
            what: what.to_owned(),
            command: command.join(" "),
            status,
            output: files::tail(&log, 20),
        })
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        // After a rename there is nothing here; after a failure the next fetch tries again.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Files below a folder, by path from there, with their sizes.
type Manifest = Vec<(PathBuf, u64)>;

fn is_whole(folder: &Path) -> bool {
    files::read_json::<Manifest>(&folder.join(MANIFEST)).is_some_and(|manifest| {
        manifest.iter().all(|(path, size)| {
            fs::metadata(folder.join(path)).is_ok_and(|data| data.is_file() && data.len() == *size)
        })
    })
}

fn list(folder: &Path) -> io::Result<Manifest> {
    let mut found = Manifest::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(current) = pending.pop() {
        for entry in fs::read_dir(&current)? {
            let entry = entry?;
            let data = entry.metadata()?;
            if data.is_dir() {
                pending.push(entry.path());
            } else if let Ok(path) = entry.path().strip_prefix(folder) {
                found.push((path.to_owned(), data.len()));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn sync(folder: &Path, manifest: &Manifest) -> io::Result<()> {
    for path in manifest.iter().map(|(path, _)| path.as_path()) {
        File::open(folder.join(path))?.sync_all()?;
    }
    File::open(folder.join(MANIFEST))?.sync_all()?;
    File::open(folder)?.sync_all()
}

/// The size of a file, or of all files below a folder.
fn size(path: &Path) -> u64 {
    match fs::metadata(path) {
        Ok(data) if data.is_dir() => {
            list(path).map_or(0, |files| files.iter().map(|(_, size)| size).sum())
        }
        Ok(data) => data.len(),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn with_cache<T>(folder: &Path, body: impl FnOnce(&Cache<'_>) -> T) -> T {
        let progress = Progress::new(true);
        body(&Cache {
            folder: folder.to_owned(),
            launcher: Path::new("no-launcher"),
            progress: &progress,
        })
    }

    fn fill(stage: &Stage<'_>) -> Result<(), ServiceError> {
        files::create_folder(&stage.folder().join("inner"))?;
        files::write(&stage.folder().join("inner/file"), "whole")
    }

    #[test]
    fn what_is_whole_is_not_fetched_again_and_what_is_not_is() {
        let folder = tempfile::tempdir().unwrap();
        with_cache(folder.path(), |cache| {
            let whole = cache.get("it", fill).unwrap();
            assert_eq!(whole, folder.path().join("it"));
            cache.get("it", |_| panic!("it is whole")).unwrap();

            fs::write(whole.join("inner/file"), "cut").unwrap();
            cache.get("it", fill).unwrap();
            assert_eq!(
                fs::read_to_string(whole.join("inner/file")).unwrap(),
                "whole"
            );

            fs::remove_file(whole.join(MANIFEST)).unwrap();
            let mut again = false;
            cache
                .get("it", |stage| {
                    again = true;
                    fill(stage)
                })
                .unwrap();
            assert!(again);
        });
    }

    #[test]
    fn a_fetch_that_failed_or_was_cut_off_leaves_nothing_that_is_taken_for_whole() {
        let folder = tempfile::tempdir().unwrap();
        with_cache(folder.path(), |cache| {
            let error = cache
                .get("it", |stage| {
                    fill(stage)?;
                    Err(ServiceError::Unsupported)
                })
                .unwrap_err();
            assert!(matches!(error, ServiceError::Unsupported));
            assert!(!folder.path().join("it").exists());
            assert_eq!(
                fs::read_dir(folder.path()).unwrap().count(),
                1,
                "the lock file"
            );

            // What `kill -9` in a fetch leaves.
            let leftover = folder.path().join("it.part-1");
            fs::create_dir(&leftover).unwrap();
            fs::write(leftover.join("file"), "half").unwrap();
            cache.get("it", fill).unwrap();
            assert!(!leftover.exists());
        });
    }

    #[test]
    fn two_that_need_the_same_fetch_it_once() {
        let folder = tempfile::tempdir().unwrap();
        let fetches = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    with_cache(folder.path(), |cache| {
                        cache.get("it", |stage| {
                            fetches.fetch_add(1, Ordering::Relaxed);
                            thread::sleep(Duration::from_millis(50));
                            fill(stage)
                        })
                    })
                    .unwrap();
                });
            }
        });
        assert_eq!(fetches.into_inner(), 1);
    }
}
