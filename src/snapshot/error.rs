//! Why a snapshot can't be written or read.

use super::manifest::FORMAT;

/// Why a snapshot can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The address names no store.
    #[error("can't keep snapshots at `{url}`: {reason}; correct `snapshots.url` in the pipeline")]
    Url {
        /// The address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store can't be reached, or refuses.
    #[error(
        "could not {attempt} {place}: {reason}; look at `snapshots.url`, at the rights there{}",
        if *remote { ", and at the environment's credentials and endpoint" } else { ", and at the space left" }
    )]
    Unreachable {
        /// What was attempted, such as "write the snapshot file".
        attempt: &'static str,
        /// On what.
        place: String,
        /// What the store said.
        reason: String,
        /// Not a folder.
        remote: bool,
    },
    /// What the store holds isn't what was written, or is gone.
    #[error(
        "the snapshot file {place} is damaged: {reason}; an older snapshot may still serve, and \
         `riderflow reset` lets the pipeline begin anew"
    )]
    Damaged {
        /// The file.
        place: String,
        /// In what way.
        reason: String,
    },
    /// A newer build wrote it.
    #[error(
        "the snapshot file {place} has format {format}, written by riderflow {version}, and this \
         build reads format {FORMAT}: run that version or a newer one, or `riderflow reset` to \
         let the pipeline begin anew without this state"
    )]
    Newer {
        /// The file.
        place: String,
        /// Its format.
        format: u32,
        /// The version that wrote it.
        version: String,
    },
    /// The parts are no snapshot: a start from it would lack state. Nothing was written.
    #[error(
        "refused to write the snapshot {id}: {reason}; this is a bug, and a snapshot with all \
         groups whole gets over it"
    )]
    Unsound {
        /// The snapshot.
        id: crate::epoch::SnapshotId,
        /// What is wrong with them.
        reason: String,
    },
}
