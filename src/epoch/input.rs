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
    End,
}

/// Reads some partitions of one input, each in offset order.
///
/// What has come of a partition waits, within bounds, until it is polled: one that is not polled
/// stands still, and costs nothing.
pub trait RecordReader: 'static {
    /// What stops reading for good.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Hands at most `max` of what has come of a partition to `visit`, without waiting. Returns
    /// how many; fewer than `max` mean that no more had come.
    ///
    /// # Errors
    /// Only what no retry can mend, such as an offset that is no longer there.
    fn poll(
        &mut self,
        partition: i32,
        max: usize,
        visit: &mut dyn FnMut(Polled<'_>),
    ) -> Result<usize, Self::Error>;

    /// Whether the connection has been in trouble since this was last asked, so that what is
    /// known of all ends no longer holds.
    ///
    /// # Errors
    /// As [`RecordReader::poll`].
    fn was_disturbed(&mut self) -> Result<bool, Self::Error>;

    /// Asks again whether a partition that had nothing unread still has: the answer is a
    /// [`Polled::End`], or records. What waits of it may be fetched anew.
    ///
    /// # Errors
    /// As [`RecordReader::poll`].
    fn ask_for_end(&mut self, partition: i32) -> Result<(), Self::Error>;
}
