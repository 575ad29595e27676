//! Rows that wait on disk, so that an outage of ClickHouse does not stop the job.
//!
//! When half of the writer's memory is taken, the newest rows go to a file, some at a time;
//! when three quarters are free again they come back, first in, first out. The order among rows
//! does not matter, since each has an identity. A file holds many segments and goes with the
//! last of them. It is unlinked as soon as it is open, so it goes at the latest when the
//! process goes, and a restart sends its rows again, as it does with those in memory. When the disk's share is full, or writing fails, rows stay in memory and senders
//! wait as they would without this.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::batches::{Amount, Buffer, BufferId};
use super::rows::Record;
use super::writer::{Shared, SpillOptions};

/// A file takes no more segments once it has so many bytes.
const FILE_BYTES: u64 = 256 << 20;
/// How long nothing is tried after the disk failed.
const PAUSE: Duration = Duration::from_secs(10);

/// The files of a writer.
pub(super) struct Spill {
    options: Option<SpillOptions>,
    /// What one segment may hold.
    most: Amount,
    segments: VecDeque<Segment>,
    /// The file that is written, and its length.
    file: Option<(Arc<File>, u64)>,
    used_bytes: u64,
    made: u64,
    paused_until: Option<Instant>,
}

/// Rows of one buffer, one after the other in a file.
struct Segment {
    buffer: BufferId,
    /// The oldest parcel in it.
    parcel: u64,
    at: Instant,
    amount: Amount,
    file: Arc<File>,
    from: u64,
    bytes: u64,
}

impl Spill {
    pub(super) fn new(options: Option<SpillOptions>, most: Amount) -> Self {
        Self {
            options,
            most,
            segments: VecDeque::new(),
            file: None,
            used_bytes: 0,
            made: 0,
            paused_until: None,
        }
    }

    /// Whether a row may go to disk now.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.options
            .as_ref()
            .is_some_and(|options| self.used_bytes < options.max_bytes)
            && self.paused_until.is_none_or(|until| until <= now)
    }

    /// Moves the newest rows of a buffer to disk; if that fails, they stay.
    pub(super) fn put<R: Record>(
        &mut self,
        buffer_id: BufferId,
        buffer: &mut Buffer<R>,
        shared: &Shared,
    ) {
        let Some((rows, parcel, at)) = buffer.take_newest(self.most) else {
            return;
        };
        let mut encoded = Vec::new();
        rows.iter().for_each(|row| row.encode(&mut encoded));
        match self.write(&encoded) {
            Ok((file, from)) => {
                let amount = Amount::of(&rows);
                if self.segments.is_empty() {
                    info!("ClickHouse is behind: rows go to disk");
                }
                shared.to_disk(amount);
                let bytes = encoded.len() as u64;
                self.used_bytes += bytes;
                self.segments.push_back(Segment {
                    buffer: buffer_id,
                    parcel,
                    at,
                    amount,
                    file,
                    from,
                    bytes,
                });
            }
            Err(error) => {
                warn!("could not move rows to disk, they stay in memory: {error}");
                self.paused_until = Some(Instant::now() + PAUSE);
                self.file = None;
                buffer.put_back(rows, parcel, at);
            }
        }
    }

    /// Appends to the file of the moment; says which, and where it begins.
    fn write(&mut self, bytes: &[u8]) -> io::Result<(Arc<File>, u64)> {
        let (file, from) = match self.file.take().filter(|(_, length)| *length < FILE_BYTES) {
            Some(open) => open,
            None => (Arc::new(self.create()?), 0),
        };
        file.write_all_at(bytes, from)?;
        self.file = Some((file.clone(), from + bytes.len() as u64));
        Ok((file, from))
    }

    fn create(&mut self) -> io::Result<File> {
        let options = self.options.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        fs::create_dir_all(&options.dir)?;
        self.made += 1;
        let name = format!(
            "riderflow-rows-{}-{}-{:08x}",
            std::process::id(),
            self.made,
            rand::random::<u32>()
        );
        let path = options.dir.join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    }

    /// The buffer that the oldest segment belongs to.
    pub(super) fn next(&self) -> Option<BufferId> {
        self.segments.front().map(|segment| segment.buffer)
    }

    /// Moves the oldest segment's rows back to their buffer.
    ///
    /// # Errors
    /// It can't be read. Its rows are lost to this process, which must end: a restart sends
    /// them again.
    pub(super) fn take<R: Record>(
        &mut self,
        buffer: &mut Buffer<R>,
        shared: &Shared,
    ) -> io::Result<()> {
        let Some(segment) = self.segments.pop_front() else {
            return Ok(());
        };
        let rows = segment.read()?;
        self.used_bytes -= segment.bytes;
        shared.to_memory(segment.amount);
        buffer.put_back(rows, segment.parcel, segment.at);
        if self.segments.is_empty() {
            self.file = None;
            info!("all rows are back from disk");
        }
        Ok(())
    }

    /// The oldest parcel of which rows are on disk.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.segments.iter().map(|segment| segment.parcel).min()
    }
}

impl Segment {
    fn read<R: Record>(&self) -> io::Result<Vec<R>> {
        let mut bytes = vec![0; self.bytes as usize];
        self.file.read_exact_at(&mut bytes, self.from)?;
        let mut rest = bytes.as_slice();
        let rows: Vec<R> = std::iter::from_fn(|| R::decode(&mut rest))
            .take(self.amount.rows)
            .collect();
        if rows.len() == self.amount.rows && rest.is_empty() {
            Ok(rows)
        } else {
            let reason = "the file is not what was written";
            Err(io::Error::new(io::ErrorKind::InvalidData, reason))
        }
    }
}
