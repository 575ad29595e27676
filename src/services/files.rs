//! Small files, written whole or not at all.

use std::fs;
use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};

use super::ServiceError;

/// Writes `content` to `path` by way of a file beside it, so that a reader sees the old or the
/// new one.
pub(super) fn write(path: &Path, content: &str) -> Result<(), ServiceError> {
    let beside = path.with_extension(format!("part-{}", std::process::id()));
    fs::write(&beside, content)
        .and_then(|()| fs::rename(&beside, path))
        .map_err(|error| ServiceError::io(format!("write {}", path.display()), error))
}

/// [`write`], as JSON.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), ServiceError> {
    let text = serde_json::to_string(value)
        .map_err(|error| ServiceError::io(format!("write {}", path.display()), error.into()))?;
    write(path, &text)
}

/// Reads what [`write_json`] wrote; none if it is missing or of another shape.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

/// Creates `path` and what leads to it.
pub(super) fn create_folder(path: &Path) -> Result<(), ServiceError> {
    fs::create_dir_all(path)
        .map_err(|error| ServiceError::io(format!("create {}", path.display()), error))
}

/// The last `lines` lines of a log without Java's stack frames, from at most its last 64 KiB.
pub(super) fn tail(path: &Path, lines: usize) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let mut bytes = Vec::new();
    if let Ok(mut file) = fs::File::open(path) {
        let length = file.metadata().map_or(0, |data| data.len());
        if file
            .seek(SeekFrom::Start(length.saturating_sub(64 << 10)))
            .is_ok()
        {
            // What could be read is all there is to show.
            let _ = file.read_to_end(&mut bytes);
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("\tat "))
        .collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
