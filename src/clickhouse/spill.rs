//! Rows that wait on disk, so that an outage of ClickHouse does not stop the job.
//!
//! When half of the writer's memory is taken, the newest rows go to a file, some at a time;
//! when three quarters are free again they come back, oldest file first. The order among rows
//! does not matter, since each has an identity. A file is unlinked as soon as it is open: it
//! goes when the process goes, and a restart sends its rows again, as it does with those in
//! memory. When the disk's share is full, or writing fails, rows stay in memory and senders
//! wait as they would without this.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::batches::{Buffer, BufferId};
use super::rows::Record;
use super::writer::{Shared, SpillOptions};

/// Rows in a file.
const SEGMENT_ROWS: usize = 100_000;
/// Or what they take in memory, bytes: a dead letter may be a megabyte.
const SEGMENT_COST: usize = 64 << 20;
/// How long nothing is tried after the disk failed.
const PAUSE: Duration = Duration::from_secs(10);

/// The files of a writer.
pub(super) struct Spill {
    options: Option<SpillOptions>,
    segments: VecDeque<Segment>,
    used_bytes: u64,
    made: u64,
    paused_until: Option<Instant>,
}

/// One file: rows of one buffer.
struct Segment {
    buffer: BufferId,
    /// The oldest parcel in it.
    parcel: u64,
    at: Instant,
    rows: usize,
    cost: usize,
    bytes: u64,
    file: File,
}

impl Spill {
    pub(super) fn new(options: Option<SpillOptions>) -> Self {
        Self {
            options,
            segments: VecDeque::new(),
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

    /// Moves the newest rows of a buffer to a file; if that fails, they stay.
    pub(super) fn put<R: Record>(&mut self, id: BufferId, buffer: &mut Buffer<R>, shared: &Shared) {
        let Some(options) = &self.options else { return };
        let Some((rows, parcel, at)) = buffer.take_newest(SEGMENT_ROWS, SEGMENT_COST) else {
            return;
        };
        if self.segments.is_empty() {
            info!(dir = %options.dir.display(), "ClickHouse is behind: rows go to disk");
        }
        self.made += 1;
        match write(options, self.made, &rows) {
            Ok((file, bytes)) => {
                let cost = rows.iter().map(R::cost).sum();
                self.used_bytes += bytes;
                shared.to_disk(rows.len(), cost);
                let rows = rows.len();
                self.segments.push_back(Segment {
                    buffer: id,
                    parcel,
                    at,
                    rows,
                    cost,
                    bytes,
                    file,
                });
            }
            Err(error) => {
                warn!(dir = %options.dir.display(), "could not move rows to disk, they stay in memory: {error}");
                self.paused_until = Some(Instant::now() + PAUSE);
                buffer.put_back(rows, parcel, at);
            }
        }
    }

    /// The buffer that the oldest file belongs to.
    pub(super) fn next(&self) -> Option<BufferId> {
        self.segments.front().map(|segment| segment.buffer)
    }

    /// Moves the oldest file's rows back to their buffer.
    ///
    /// # Errors
    /// The file can't be read. Its rows are lost to this process: it must end, and a restart
    /// sends them again.
    pub(super) fn take<R: Record>(
        &mut self,
        buffer: &mut Buffer<R>,
        shared: &Shared,
    ) -> io::Result<()> {
        let Some(mut segment) = self.segments.pop_front() else {
            return Ok(());
        };
        let rows = read(&mut segment)?;
        self.used_bytes -= segment.bytes;
        shared.to_memory(segment.rows, segment.cost);
        buffer.put_back(rows, segment.parcel, segment.at);
        if self.segments.is_empty() {
            info!("all rows are back from disk");
        }
        Ok(())
    }

    /// The oldest parcel of which rows are on disk.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.segments.iter().map(|segment| segment.parcel).min()
    }
}

fn write<R: Record>(options: &SpillOptions, number: u64, rows: &[R]) -> io::Result<(File, u64)> {
    fs::create_dir_all(&options.dir)?;
    let name = format!(
        "riderflow-rows-{}-{number}-{:08x}",
        std::process::id(),
        rand::random::<u32>()
    );
    let path = options.dir.join(name);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    fs::remove_file(&path)?;
    let mut bytes = Vec::new();
    let mut written = 0;
    for row in rows {
        row.encode(&mut bytes);
        if bytes.len() >= 1 << 20 {
            file.write_all(&bytes)?;
            written += bytes.len() as u64;
            bytes.clear();
        }
    }
    file.write_all(&bytes)?;
    Ok((file, written + bytes.len() as u64))
}

fn read<R: Record>(segment: &mut Segment) -> io::Result<Vec<R>> {
    let mut bytes = Vec::with_capacity(segment.bytes as usize);
    segment.file.rewind()?;
    segment.file.read_to_end(&mut bytes)?;
    let mut rest = bytes.as_slice();
    let rows: Vec<R> = std::iter::from_fn(|| R::decode(&mut rest))
        .take(segment.rows)
        .collect();
    if rows.len() == segment.rows && rest.is_empty() {
        Ok(rows)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the file is not what was written",
        ))
    }
}
