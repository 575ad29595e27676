//! One row a table: its conversion from the model, its identity, its columns.
//!
//! Columns are the tables' own in their order; [`super::native`] makes blocks of them. Updates
//! are rows as they are. The H3 cell is found while a block is written, so on the writer's
//! thread.

use std::fmt::Debug;
use std::hash::Hash;

use compact_str::CompactString;

use super::native::Tile;
use super::parcel::{StoredEvent, Table};
use crate::model::{DeadLetter, Flag, Location, TimeMs};

/// What a row takes in memory besides the texts and bytes that it owns, bytes.
pub(super) const ROW_COST: usize = 192;

/// A row with an identity that its table can be asked for.
pub(super) trait Record: Send + Sync + 'static {
    /// What the row is, once, in its table.
    type Key: Hash + Eq + Debug + Send + Sync;
    /// Its table.
    const TABLE: Table;
    /// The columns in the order of [`Record::encode`], with the types of their values.
    const STRUCTURE: &'static str;
    /// Writes the columns of some rows, one after the other.
    fn encode(rows: &mut Tile<'_, Self>)
    where
        Self: Sized;
    /// Its identity.
    fn key(&self) -> Self::Key;
    /// What it costs in memory, bytes, as [`super::Rows`] counted it.
    fn cost(&self) -> usize;
    /// The ClickHouse partition it falls into: year × 100 + month in UTC; 0 if its table has
    /// only one.
    fn partition(&self, months: &mut Months) -> u32;
}

/// A row of `driver_locations`, as the job gives it: most rows are of this table.
impl Record for Location {
    type Key = (i32, i64);
    const TABLE: Table = Table::DriverLocations;
    const STRUCTURE: &'static str = "driver_id UInt64, timestamp DateTime64(3), \
        latitude Float64, longitude Float64, state String, accuracy Nullable(Float32), \
        speed Nullable(Float32), heading Nullable(Float32), h3 UInt64, flag Int8, \
        kafka_partition Int32, kafka_offset Int64, received_at DateTime64(3)";

    fn encode(rows: &mut Tile<'_, Self>) {
        rows.numbers(|row| row.update.driver.0.to_le_bytes());
        rows.numbers(|row| row.update.event_time_ms.to_le_bytes());
        rows.numbers(|row| row.update.position.latitude.to_le_bytes());
        rows.numbers(|row| row.update.position.longitude.to_le_bytes());
        rows.texts(|row| row.update.state.as_deref().unwrap_or_default().as_bytes());
        rows.nullables(|row| row.update.accuracy_m.map(f32::to_le_bytes));
        rows.nullables(|row| row.update.speed_mps.map(f32::to_le_bytes));
        rows.nullables(|row| row.update.heading_deg.map(f32::to_le_bytes));
        rows.cells(|row| row.update.position);
        rows.numbers(|row| flag(row.flag).to_le_bytes());
        rows.numbers(|row| row.update.place.source.partition.to_le_bytes());
        rows.numbers(|row| row.update.place.source.offset.to_le_bytes());
        rows.numbers(|row| row.update.received_at_ms.to_le_bytes());
    }

    fn key(&self) -> Self::Key {
        let source = self.update.place.source;
        (source.partition, source.offset)
    }

    fn cost(&self) -> usize {
        ROW_COST
    }

    fn partition(&self, months: &mut Months) -> u32 {
        months.of(self.update.event_time_ms)
    }
}

/// Its number in the column's `Enum8`.
fn flag(flag: Flag) -> i8 {
    match flag {
        Flag::Ok => 0,
        Flag::Late => 1,
        Flag::Duplicate => 2,
        Flag::Inaccurate => 3,
        Flag::Teleport => 4,
    }
}

/// A row of `events`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EventRow {
    pub(super) id: String,
    kind: CompactString,
    pub(super) driver_id: u64,
    order_id: CompactString,
    fence_id: CompactString,
    pub(super) event_time: i64,
    detected_at: i64,
    data: String,
}

impl From<StoredEvent> for EventRow {
    fn from(event: StoredEvent) -> Self {
        Self {
            id: event.id,
            kind: CompactString::const_new(event.kind.name()),
            driver_id: event.driver.0,
            order_id: event.order_id,
            fence_id: event.fence_id,
            event_time: event.event_time_ms,
            detected_at: event.detected_at_ms,
            data: event.data,
        }
    }
}

impl Record for EventRow {
    type Key = String;
    const TABLE: Table = Table::Events;
    const STRUCTURE: &'static str = "id String, type String, driver_id UInt64, order_id String, \
        fence_id String, event_time DateTime64(3), detected_at DateTime64(3), data String";

    fn encode(rows: &mut Tile<'_, Self>) {
        rows.texts(|row| row.id.as_bytes());
        rows.texts(|row| row.kind.as_bytes());
        rows.numbers(|row| row.driver_id.to_le_bytes());
        rows.texts(|row| row.order_id.as_bytes());
        rows.texts(|row| row.fence_id.as_bytes());
        rows.numbers(|row| row.event_time.to_le_bytes());
        rows.numbers(|row| row.detected_at.to_le_bytes());
        rows.texts(|row| row.data.as_bytes());
    }

    fn key(&self) -> Self::Key {
        self.id.clone()
    }

    fn cost(&self) -> usize {
        ROW_COST + self.id.len() + self.data.len()
    }

    fn partition(&self, months: &mut Months) -> u32 {
        months.of(self.event_time)
    }
}

/// A row of `rejected_updates`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RejectedRow {
    reason: CompactString,
    detail: String,
    pub(super) topic: CompactString,
    pub(super) kafka_partition: i32,
    pub(super) kafka_offset: i64,
    value: Vec<u8>,
}

impl From<DeadLetter> for RejectedRow {
    fn from(letter: DeadLetter) -> Self {
        let source = letter.place.source;
        Self {
            reason: CompactString::const_new(letter.fault.reason.as_str()),
            detail: letter.fault.detail,
            topic: CompactString::const_new(source.input.topic()),
            kafka_partition: source.partition,
            kafka_offset: source.offset,
            value: letter.value.unwrap_or_default(),
        }
    }
}

impl Record for RejectedRow {
    type Key = (CompactString, i32, i64);
    const TABLE: Table = Table::RejectedUpdates;
    const STRUCTURE: &'static str = "reason String, detail String, topic String, \
        kafka_partition Int32, kafka_offset Int64, value String";

    fn encode(rows: &mut Tile<'_, Self>) {
        rows.texts(|row| row.reason.as_bytes());
        rows.texts(|row| row.detail.as_bytes());
        rows.texts(|row| row.topic.as_bytes());
        rows.numbers(|row| row.kafka_partition.to_le_bytes());
        rows.numbers(|row| row.kafka_offset.to_le_bytes());
        rows.texts(|row| &row.value);
    }

    fn key(&self) -> Self::Key {
        (self.topic.clone(), self.kafka_partition, self.kafka_offset)
    }

    fn cost(&self) -> usize {
        ROW_COST + self.detail.len() + self.value.len()
    }

    fn partition(&self, _months: &mut Months) -> u32 {
        0
    }
}

/// Which month a time falls into, remembering the last one.
#[derive(Debug)]
pub(super) struct Months {
    from_ms: TimeMs,
    to_ms: TimeMs,
    month: u32,
}

impl Months {
    /// Remembers none yet.
    pub(super) fn new() -> Self {
        Self {
            from_ms: 0,
            to_ms: 0,
            month: 0,
        }
    }

    /// ClickHouse's `toYYYYMM` in UTC of ms since 1970.
    pub(super) fn of(&mut self, at_ms: TimeMs) -> u32 {
        if !(self.from_ms..self.to_ms).contains(&at_ms) {
            let (year, month) = civil_month(at_ms);
            let next = if month == 12 {
                (year + 1, 1)
            } else {
                (year, month + 1)
            };
            self.from_ms = days_before(year, month) * MS_PER_DAY;
            self.to_ms = days_before(next.0, next.1) * MS_PER_DAY;
            self.month = (year * 100 + month) as u32;
        }
        self.month
    }
}

const MS_PER_DAY: i64 = 86_400_000;

/// Year and month of a time, by the proleptic Gregorian calendar.
fn civil_month(at_ms: TimeMs) -> (i64, i64) {
    // Years counted from March, in eras of 400: http://howardhinnant.github.io/date_algorithms.html
    let days = at_ms.div_euclid(MS_PER_DAY) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month)
}

/// Days from 1970-01-01 to the first of a month.
fn days_before(year: i64, month: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_agree_with_the_calendar() {
        let mut months = Months::new();
        let mut at = time::macros_free_date(1999, 12, 1);
        // Every day over 60 years, first and last millisecond.
        for _ in 0..60 * 366 {
            let expected = at.year() as u32 * 100 + u32::from(u8::from(at.month()));
            let start = at.midnight().assume_utc().unix_timestamp() * 1000;
            assert_eq!(months.of(start), expected);
            assert_eq!(months.of(start + MS_PER_DAY - 1), expected);
            at = at.next_day().expect("a date before 9999 has a next day");
        }
        assert_eq!(months.of(-1), 196_912);
        assert_eq!(months.of(0), 197_001);
    }

    mod time {
        pub(super) use ::time::Date;
        pub(super) fn macros_free_date(year: i32, month: u8, day: u8) -> Date {
            let month = ::time::Month::try_from(month).expect("1 to 12");
            Date::from_calendar_date(year, month, day).expect("a valid date")
        }
    }
}
