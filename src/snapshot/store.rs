//! Where snapshots are kept: `<url>/<pipeline>/<snapshot>/state`, and `manifest` beside it,
//! which is written last, so that what has a manifest is whole.
//!
//! Promises that what is read is what was written, to the bit, or an error; and that nothing
//! outside the pipeline's own snapshots is touched. Never decides which snapshot holds.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use object_store::path::Path;

use super::file::{self, Loaded};
use super::manifest::{Manifest, Taken};
use super::objects::{Objects, OpenError, Wanted, told};
use super::{Part, SnapshotError};
use crate::epoch::SnapshotId;
use crate::fail;
use crate::model::{Epoch, TimeMs};

const STATE: &str = "state";
const MANIFEST: &str = "manifest";

/// The snapshots of one pipeline. Its calls block, and are not for async code.
pub struct Store {
    url: String,
    pipeline: String,
    objects: Objects,
}

impl Store {
    /// Opens `url` for a pipeline. A folder is created; an object store is not yet asked.
    ///
    /// # Errors
    /// [`SnapshotError::Url`], or [`SnapshotError::Unreachable`] when the folder can't be made.
    pub fn open(url: &str, pipeline: &str) -> Result<Self, SnapshotError> {
        let objects = Objects::open(url).map_err(|error| match error {
            OpenError::Url(reason) => SnapshotError::Url {
                url: url.to_owned(),
                reason,
            },
            OpenError::Io(error) => SnapshotError::Unreachable {
                attempt: "create the snapshots' folder",
                place: url.to_owned(),
                reason: error.to_string(),
                remote: false,
            },
        })?;
        Ok(Self {
            url: url.to_owned(),
            pipeline: pipeline.to_owned(),
            objects,
        })
    }

    /// Where the snapshots are.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Writes a snapshot. `before` is the one that it goes on from, `None` if it is the first or
    /// has all groups whole; then a group without a part is empty.
    ///
    /// # Errors
    /// [`SnapshotError::Unreachable`], after which the next must not go on from this one, and
    /// [`SnapshotError::Unsound`].
    pub fn write(
        &self,
        taken: &Taken,
        before: Option<&Manifest>,
        mut parts: Vec<Part>,
    ) -> Result<Manifest, SnapshotError> {
        parts.sort_by_key(|part| (part.kind, part.group));
        let mut manifest = Manifest::after(taken, before, &parts, now_ms())?;
        let state = file::encode(parts);
        manifest.complete(state.bytes, state.checksum);
        let pieces = [manifest.encode().into()];
        for (name, pieces) in [(STATE, &state.pieces[..]), (MANIFEST, &pieces)] {
            self.objects
                .put(&self.path(taken.id, name), pieces)
                .map_err(|error| {
                    let place = self.place(taken.id, name);
                    self.unreachable("write the snapshot file", place, &error)
                })?;
            if name == STATE {
                fail::point("snapshot-state-written");
            }
        }
        Ok(manifest)
    }

    /// Reads the manifest of a snapshot.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`], also if there is none, [`SnapshotError::Newer`] and
    /// [`SnapshotError::Unreachable`].
    pub fn manifest(&self, id: SnapshotId) -> Result<Manifest, SnapshotError> {
        let bytes = self.read(&[(id, MANIFEST, None)])?;
        Manifest::decode(&bytes[0], id, &self.place(id, MANIFEST))
    }

    /// Reads and verifies all state files that a snapshot takes.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`] and [`SnapshotError::Unreachable`].
    pub fn load(&self, manifest: &Manifest) -> Result<Loaded, SnapshotError> {
        let chain = &manifest.chain;
        let wanted: Vec<_> = chain
            .iter()
            .map(|file| (file.id, STATE, Some(file.bytes)))
            .collect();
        let mut loaded = Loaded::new();
        for (file, bytes) in chain.iter().zip(self.read(&wanted)?) {
            let damaged = |reason| self.damaged(file.id, STATE, reason);
            loaded.add(file, &bytes).map_err(damaged)?;
        }
        let damaged = |reason| self.damaged(manifest.id, MANIFEST, reason);
        loaded.check(manifest).map_err(damaged)?;
        Ok(loaded)
    }

    /// All snapshots that have a manifest, by epoch, newest last; also those of other starts.
    ///
    /// # Errors
    /// [`SnapshotError::Unreachable`]
    pub fn list(&self) -> Result<Vec<SnapshotId>, SnapshotError> {
        let objects = self.objects()?.into_iter();
        let mut ids: Vec<_> = objects
            .filter(|object| object.name == MANIFEST)
            .map(|object| object.id)
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// All snapshots of which anything is left, by epoch, newest last: also those without a
    /// manifest, whose state files later ones need.
    ///
    /// # Errors
    /// [`SnapshotError::Unreachable`]
    pub fn list_all(&self) -> Result<BTreeSet<SnapshotId>, SnapshotError> {
        let objects = self.objects()?.into_iter();
        Ok(objects.map(|object| object.id).collect())
    }

    /// Removes these snapshots, whoever needs them, and returns how many objects.
    ///
    /// # Errors
    /// [`SnapshotError::Unreachable`]
    pub fn remove_these(&self, ids: &BTreeSet<SnapshotId>) -> Result<usize, SnapshotError> {
        self.remove(|id, _| ids.contains(&id))
    }

    /// Removes what none of these snapshots needs, and returns how many objects. Snapshots of
    /// later epochs than the last of these stay: they are of a job that has taken over from
    /// this one, which may not know it yet. So without any, nothing is removed.
    ///
    /// # Errors
    /// [`SnapshotError::Unreachable`]
    pub fn keep_only(&self, keep: &[Manifest]) -> Result<usize, SnapshotError> {
        let Some(last) = keep.iter().map(|manifest| manifest.id.epoch).max() else {
            return Ok(0);
        };
        let manifests: BTreeSet<_> = keep.iter().map(|manifest| manifest.id).collect();
        let chains = keep.iter().flat_map(|manifest| &manifest.chain);
        let states: BTreeSet<_> = chains.map(|file| file.id).collect();
        self.remove(|id, name| {
            let is_needed = match name {
                MANIFEST => manifests.contains(&id),
                STATE => states.contains(&id),
                _ => false,
            };
            id.epoch <= last && !is_needed
        })
    }

    fn remove(&self, goes: impl Fn(SnapshotId, &str) -> bool) -> Result<usize, SnapshotError> {
        let mut objects = self.objects()?;
        objects.retain(|object| goes(object.id, object.name));
        // Manifests go first: should this be cut short, then none is left without its files.
        objects.sort_unstable_by_key(|object| (object.name != MANIFEST, object.id));
        let mut removed = 0;
        for Object { id, name, path } in objects {
            let was_there = self.objects.delete(&path).map_err(|error| {
                let place = self.place(id, name);
                self.unreachable("remove the snapshot file", place, &error)
            })?;
            removed += usize::from(was_there);
        }
        if let Some(folder) = self.folder() {
            sweep(&folder, goes).map_err(|error| SnapshotError::Unreachable {
                attempt: "remove leftovers in the snapshots' folder",
                place: folder.display().to_string(),
                reason: error.to_string(),
                remote: false,
            })?;
        }
        Ok(removed)
    }

    /// All objects of this pipeline's snapshots.
    fn objects(&self) -> Result<Vec<Object>, SnapshotError> {
        let root = self.objects.path(&[&self.pipeline]);
        let listed = self.objects.list(&root).map_err(|error| {
            let place = format!("{}/{}", self.url.trim_end_matches('/'), self.pipeline);
            self.unreachable("list the snapshots in", place, &error)
        })?;
        let object = |path: Path| {
            let names = path.prefix_match(&root)?;
            let names: Vec<_> = names.collect();
            let [folder, name] = &names[..] else {
                return None;
            };
            let name = [MANIFEST, STATE]
                .into_iter()
                .find(|known| *known == name.as_ref())?;
            let id = parse_id(folder.as_ref())?;
            Some(Object { id, name, path })
        };
        Ok(listed.into_iter().filter_map(object).collect())
    }

    /// Reads objects: whose, which, and the size if it is known.
    fn read(
        &self,
        wanted: &[(SnapshotId, &str, Option<u64>)],
    ) -> Result<Vec<bytes::Bytes>, SnapshotError> {
        let paths: Vec<_> = wanted
            .iter()
            .map(|&(id, name, bytes)| Wanted {
                path: self.path(id, name),
                bytes,
            })
            .collect();
        self.objects.get(&paths).map_err(|(at, error)| {
            let (id, name, _) = wanted[at];
            match error {
                object_store::Error::NotFound { .. } => {
                    self.damaged(id, name, "it is missing".into())
                }
                error => {
                    let place = self.place(id, name);
                    self.unreachable("read the snapshot file", place, &error)
                }
            }
        })
    }

    fn path(&self, id: SnapshotId, name: &str) -> Path {
        self.objects.path(&[&self.pipeline, &id.to_string(), name])
    }

    /// The pipeline's own folder, if snapshots go to one.
    fn folder(&self) -> Option<PathBuf> {
        let root = self.objects.folder.as_ref()?;
        Some(root.join(self.objects.path(&[&self.pipeline]).as_ref()))
    }

    /// A file, for messages.
    fn place(&self, id: SnapshotId, name: &str) -> String {
        let url = self.url.trim_end_matches('/');
        format!("{url}/{}/{id}/{name}", self.pipeline)
    }

    fn unreachable(
        &self,
        attempt: &'static str,
        place: String,
        error: &object_store::Error,
    ) -> SnapshotError {
        SnapshotError::Unreachable {
            attempt,
            place,
            reason: told(error),
            remote: self.objects.folder.is_none(),
        }
    }

    fn damaged(&self, id: SnapshotId, name: &str, reason: String) -> SnapshotError {
        let place = self.place(id, name);
        SnapshotError::Damaged { place, reason }
    }
}

struct Object {
    id: SnapshotId,
    name: &'static str,
    path: Path,
}

/// The inverse of its `Display`; nothing else is a snapshot's folder.
fn parse_id(name: &str) -> Option<SnapshotId> {
    let (epoch, run) = name.split_once('-')?;
    let id = SnapshotId {
        epoch: Epoch(epoch.parse().ok()?),
        run: u64::from_str_radix(run, 16).ok()?,
    };
    (id.to_string() == name).then_some(id)
}

/// Removes what a killed job has left in a folder: temporary files, which are not listed as
/// objects, and snapshots' folders with nothing in them.
fn sweep(folder: &std::path::Path, goes: impl Fn(SnapshotId, &str) -> bool) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(parse_id) else {
            continue;
        };
        let mut is_empty = true;
        for file in std::fs::read_dir(entry.path())? {
            let file = file?;
            let name = file.file_name();
            // As `object_store` names them: `state#1`.
            let name = name.to_str().and_then(|name| name.split_once('#'));
            let is_temporary = name.is_some_and(|(of, _)| [STATE, MANIFEST].contains(&of));
            if is_temporary && goes(id, "") {
                std::fs::remove_file(file.path())?;
            } else {
                is_empty = false;
            }
        }
        if is_empty && goes(id, "") {
            std::fs::remove_dir(entry.path())?;
        }
    }
    Ok(())
}

fn now_ms() -> TimeMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as TimeMs)
}
