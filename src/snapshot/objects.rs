//! Objects in a folder or an object store, by blocking calls: the one user of `object_store`.
//!
//! Promises that what [`Objects::put`] has written is durable and appears whole or not at all.
//! In a folder that is a temporary file beside it, its fsync, a rename and the directory's
//! fsync. Knows nothing of what the objects hold.

use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    ClientOptions, Error, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutPayload, Result,
    RetryConfig,
};
use tokio::runtime::Runtime;

/// Larger objects go to and come from an object store in pieces of this size, so that each
/// request ends within the client's time limit on a slow line.
const PIECE_BYTES: usize = 16 << 20;
/// Requests at a time.
const REQUESTS: usize = 4;
/// A request that fails is tried again so often, and no longer than this: the next snapshot
/// is due soon.
const RETRIES: usize = 4;
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);
/// Of one request to a WebDAV server, which takes objects in one piece only.
const HTTP_TIMEOUT: Duration = Duration::from_secs(300);
/// Schemes other than a folder, as they are told to the user.
pub(super) const SCHEMES: &str =
    "a folder, file://, s3://, s3a://, gs://, az://, abfs://, abfss://, http:// or https://";

/// A folder or a place in an object store.
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    /// Where in the store.
    root: Path,
    /// The folder, if it is one.
    pub(super) folder: Option<PathBuf>,
    /// Whether objects can be written and read in pieces.
    in_pieces: bool,
    runtime: Runtime,
}

/// An object to be read.
pub(super) struct Wanted {
    pub(super) path: Path,
    /// Its size, if it is known.
    pub(super) bytes: Option<u64>,
}

impl Objects {
    /// Opens `url`; a folder is created, an object store is not yet asked.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn open(url: &str) -> std::result::Result<Self, OpenError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(OpenError::Io)?;
        let folder = match url.split_once("://") {
            None => Some(url),
            Some(("file", path)) => Some(path),
            Some(_) => None,
        };
        if let Some(folder) = folder {
            let folder = FilePath::new(folder);
            create_folder(folder).map_err(OpenError::Io)?;
            let folder = folder.canonicalize().map_err(OpenError::Io)?;
            let store = LocalFileSystem::new_with_prefix(&folder)
                .map_err(|error| OpenError::Url(told(&error)))?
                .with_fsync(true)
                .with_automatic_cleanup(true);
            return Ok(Self {
                store: Arc::new(store),
                root: Path::default(),
                folder: Some(folder),
                in_pieces: false,
                runtime,
            });
        }
        let (store, root, in_pieces) = remote(url).map_err(OpenError::Url)?;
        Ok(Self {
            store,
            root,
            folder: None,
            in_pieces,
            runtime,
        })
    }

    /// The path of an object.
    pub(super) fn path(&self, names: &[&str]) -> Path {
        names
            .iter()
            .fold(self.root.clone(), |path, name| path.join(*name))
    }

    /// Writes an object, in place of one that is there.
    pub(super) fn put(&self, path: &Path, pieces: &[Bytes]) -> Result<()> {
        let size: usize = pieces.iter().map(Bytes::len).sum();
        self.runtime.block_on(async {
            if !self.in_pieces || size <= PIECE_BYTES {
                let payload: PutPayload = pieces.iter().cloned().collect();
                return self.store.put(path, payload).await.map(drop);
            }
            let mut upload = self.store.put_multipart(path).await?;
            let parts: Vec<_> = payloads(pieces, PIECE_BYTES)
                .into_iter()
                .map(|payload| upload.put_part(payload))
                .collect();
            let sent = stream::iter(parts).buffered(REQUESTS).try_collect::<()>();
            let done = match sent.await {
                Ok(()) => upload.complete().await.map(drop),
                Err(error) => Err(error),
            };
            if done.is_err() {
                // Only for tidiness: stores forget uploads that are not completed.
                let _ = upload.abort().await;
            }
            done
        })
    }

    /// Reads objects, several at a time, in the order wanted.
    ///
    /// # Errors
    /// The place in `wanted` of the object that could not be read, and why.
    pub(super) fn get(&self, wanted: &[Wanted]) -> std::result::Result<Vec<Bytes>, (usize, Error)> {
        let one = |(at, wanted): (usize, &Wanted)| {
            let (path, bytes) = (wanted.path.clone(), wanted.bytes);
            async move {
                self.get_one(&path, bytes)
                    .await
                    .map_err(|error| (at, error))
            }
        };
        let all = stream::iter(wanted.iter().enumerate().map(one));
        self.runtime.block_on(all.buffered(REQUESTS).try_collect())
    }

    async fn get_one(&self, path: &Path, bytes: Option<u64>) -> Result<Bytes> {
        let is_large = bytes.is_some_and(|bytes| bytes > PIECE_BYTES as u64);
        let size = match bytes {
            // One that was cut short has no such pieces.
            Some(bytes) if self.in_pieces && is_large => {
                let size = self.store.head(path).await?.size;
                (size == bytes).then_some(size)
            }
            _ => None,
        };
        let Some(size) = size else {
            return self.store.get(path).await?.bytes().await;
        };
        let starts = (0..size).step_by(PIECE_BYTES);
        let ranges = starts.map(|start| start..size.min(start + PIECE_BYTES as u64));
        let pieces = stream::iter(ranges.map(|range| self.store.get_range(path, range)));
        let mut whole = Vec::with_capacity(size as usize);
        let mut pieces = pieces.buffered(REQUESTS);
        while let Some(piece) = pieces.try_next().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.into())
    }

    /// All objects under `path`; none if there is no such place.
    pub(super) fn list(&self, path: &Path) -> Result<Vec<Path>> {
        let listed = self.store.list(Some(path)).map_ok(|object| object.location);
        match self.runtime.block_on(listed.try_collect()) {
            Err(Error::NotFound { .. }) => Ok(Vec::new()),
            listed => listed,
        }
    }

    /// Deletes an object; `false` if it wasn't there.
    pub(super) fn delete(&self, path: &Path) -> Result<bool> {
        match self.runtime.block_on(self.store.delete(path)) {
            Ok(()) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Why a place can't be opened.
pub(super) enum OpenError {
    /// The URL is wrong, or what the environment says of it.
    Url(String),
    /// The folder can't be made.
    Io(io::Error),
}

/// The object store, the path in it, and whether it takes objects in pieces.
fn remote(url: &str) -> std::result::Result<(Arc<dyn ObjectStore>, Path, bool), String> {
    let unknown = || format!("snapshots go to {SCHEMES}");
    let parsed = url::Url::parse(url).map_err(|error| format!("{error}; {}", unknown()))?;
    let (scheme, root) = ObjectStoreScheme::parse(&parsed).map_err(|_| unknown())?;
    // reqwest is built without a choice of its own; that another was installed before is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let retry = RetryConfig {
        max_retries: RETRIES,
        retry_timeout: RETRY_TIMEOUT,
        ..RetryConfig::default()
    };
    let store: Result<Arc<dyn ObjectStore>> = match scheme {
        ObjectStoreScheme::AmazonS3 => AmazonS3Builder::from_env()
            .with_url(url)
            .with_retry(retry)
            .build()
            .map(|store| Arc::new(store) as _),
        ObjectStoreScheme::GoogleCloudStorage => GoogleCloudStorageBuilder::from_env()
            .with_url(url)
            .with_retry(retry)
            .build()
            .map(|store| Arc::new(store) as _),
        ObjectStoreScheme::MicrosoftAzure => MicrosoftAzureBuilder::from_env()
            .with_url(url)
            .with_retry(retry)
            .build()
            .map(|store| Arc::new(store) as _),
        ObjectStoreScheme::Http => HttpBuilder::new()
            .with_url(&parsed[..url::Position::BeforePath])
            .with_client_options(
                ClientOptions::new()
                    .with_allow_http(parsed.scheme() == "http")
                    .with_timeout(HTTP_TIMEOUT),
            )
            .with_retry(retry)
            .build()
            .map(|store| Arc::new(store) as _),
        _ => return Err(unknown()),
    };
    let store = store.map_err(|error| told(&error))?;
    Ok((store, root, scheme != ObjectStoreScheme::Http))
}

/// Creates a folder so that it survives a power cut: each new entry's directory is synced.
fn create_folder(folder: &FilePath) -> io::Result<()> {
    let is_missing = |folder: &&FilePath| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<_> = folder.ancestors().take_while(is_missing).collect();
    std::fs::create_dir_all(folder)?;
    for folder in missing {
        let parent = folder
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        std::fs::File::open(parent.unwrap_or(FilePath::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// The same bytes in payloads of `size`, but for the last: some stores want them equal.
fn payloads(pieces: &[Bytes], size: usize) -> Vec<PutPayload> {
    let mut payloads = Vec::new();
    let mut payload = Vec::new();
    let mut room = size;
    for piece in pieces {
        let mut piece = piece.clone();
        while !piece.is_empty() {
            let taken = piece.split_to(piece.len().min(room));
            room -= taken.len();
            payload.push(taken);
            if room == 0 {
                payloads.push(std::mem::take(&mut payload).into_iter().collect());
                room = size;
            }
        }
    }
    if !payload.is_empty() {
        payloads.push(payload.into_iter().collect());
    }
    payloads
}

/// An error with its causes, each said once.
pub(super) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_of_one_size_and_keep_the_bytes() {
        for size in 1..12 {
            let pieces: Vec<Bytes> = ["abc", "", "defghij", "k", "lmnop"]
                .map(|text| Bytes::from_static(text.as_bytes()))
                .into();
            let payloads = payloads(&pieces, size);
            let (last, others) = payloads.split_last().expect("there are bytes");
            assert!(
                others
                    .iter()
                    .all(|payload| payload.content_length() == size)
            );
            assert!((1..=size).contains(&last.content_length()));
            let bytes: Vec<u8> = payloads.into_iter().flatten().flatten().collect();
            assert_eq!(bytes, b"abcdefghijklmnop", "{size}");
        }
    }
}
