//! What the dataflow asks of whatever feeds it.

use crate::model::{Source, TimeMs};

/// A fetched record; its bytes are borrowed from the fetch buffer.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Which record.
    pub source: Source,
    /// Its Kafka timestamp, ms since 1970; 0 where the producer gave none.
    pub timestamp_ms: TimeMs,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is null.
    pub value: Option<&'a [u8]>,
    /// Its last header `rf-seq`, if it has one; of `rider-updates` only.
    pub sequence: Option<&'a [u8]>,
}

/// What polling a partition yields.
#[derive(Clone, Copy, Debug)]
pub enum Polled<'a> {
    /// The partition's next record.
    Record(Record<'a>),
    /// The partition has nothing unread, for now.
    End {
        /// The partition.
        partition: i32,
    },
    /// The connection was in trouble: what is known of ends no longer holds.
    Disturbed,
}

/// Reads some partitions of one input, each in offset order.
pub trait RecordReader: 'static {
    /// What stops reading for good.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Hands at most `max` records or ends to `visit`, without waiting. Returns how many.
    ///
    /// # Errors
    /// Only what no retry can mend, such as an offset that is no longer there.
    fn poll(&mut self, max: usize, visit: &mut dyn FnMut(Polled<'_>))
    -> Result<usize, Self::Error>;

    /// Asks again whether a partition that had nothing unread still has: the answer is an
    /// [`Polled::End`], or records.
    ///
    /// # Errors
    /// As [`RecordReader::poll`].
    fn ask_for_end(&mut self, partition: i32) -> Result<(), Self::Error>;

    /// Stops (`true`) or resumes (`false`) delivery from one partition.
    ///
    /// # Errors
    /// As [`RecordReader::poll`].
    fn set_paused(&mut self, partition: i32, paused: bool) -> Result<(), Self::Error>;
}
