//! One struct a table: its conversion from the model, its identity, its bytes.
//!
//! Fields are the tables' columns in their order. A row's bytes are ClickHouse's `RowBinary`:
//! numbers little-endian, times as the milliseconds since 1970 of a `DateTime64(3)`, texts after
//! their length in LEB128, nullable values after a byte that is 1 for null. They are written
//! here and not by the `clickhouse` crate, because its typed insert can't carry the condition
//! that fences off an older run. The H3 cell is computed here, so on the writer's thread.

use std::fmt::Debug;
use std::hash::Hash;

use compact_str::CompactString;

use super::parcel::{StoredEvent, Table};
use crate::model::{DeadLetter, Flag, Location, Position, TimeMs};

/// What a row takes in memory besides the texts and bytes that it owns, bytes.
pub(super) const ROW_COST: usize = 192;

/// A row with an identity that its table can be asked for.
pub(super) trait Record: Send + Sync + 'static {
    /// What the row is, once, in its table.
    type Key: Hash + Eq + Debug + Send + Sync;
    /// Its table.
    const TABLE: Table;
    /// The columns in the order of [`Record::encode`], with the types of its bytes.
    const STRUCTURE: &'static str;
    /// Appends the row in `RowBinary`.
    fn encode(&self, out: &mut Vec<u8>);
    /// Its identity.
    fn key(&self) -> Self::Key;
    /// What it costs in memory, bytes, as [`super::Rows`] counted it.
    fn cost(&self) -> usize;
    /// The ClickHouse partition it falls into: year × 100 + month in UTC; 0 if its table has
    /// only one.
    fn partition(&self, months: &mut Months) -> u32;
}

/// The column `driver_locations.h3`: the cell of resolution 9 around a position.
pub(super) fn h3_cell(position: Position) -> u64 {
    // Only a number that is not finite has no cell, and a valid update has none of those.
    h3o::LatLng::new(position.latitude, position.longitude)
        .map_or(0, |place| place.to_cell(h3o::Resolution::Nine).into())
}

/// A row of `driver_locations`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LocationRow {
    driver_id: u64,
    pub(super) timestamp: i64,
    latitude: f64,
    longitude: f64,
    state: CompactString,
    accuracy: Option<f32>,
    speed: Option<f32>,
    heading: Option<f32>,
    h3: u64,
    flag: i8,
    pub(super) kafka_partition: i32,
    pub(super) kafka_offset: i64,
    received_at: i64,
}

impl From<Location> for LocationRow {
    fn from(Location { update, flag }: Location) -> Self {
        Self {
            driver_id: update.driver.0,
            timestamp: update.event_time_ms,
            latitude: update.position.latitude,
            longitude: update.position.longitude,
            state: update.state.unwrap_or_default(),
            accuracy: update.accuracy_m,
            speed: update.speed_mps,
            heading: update.heading_deg,
            h3: h3_cell(update.position),
            flag: match flag {
                Flag::Ok => 0,
                Flag::Late => 1,
                Flag::Duplicate => 2,
                Flag::Inaccurate => 3,
                Flag::Teleport => 4,
            },
            kafka_partition: update.place.source.partition,
            kafka_offset: update.place.source.offset,
            received_at: update.received_at_ms,
        }
    }
}

impl Record for LocationRow {
    type Key = (i32, i64);
    const TABLE: Table = Table::DriverLocations;
    const STRUCTURE: &'static str = "driver_id UInt64, timestamp DateTime64(3), \
        latitude Float64, longitude Float64, state String, accuracy Nullable(Float32), \
        speed Nullable(Float32), heading Nullable(Float32), h3 UInt64, flag Int8, \
        kafka_partition Int32, kafka_offset Int64, received_at DateTime64(3)";

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.driver_id.to_le_bytes());
        out.extend(self.timestamp.to_le_bytes());
        out.extend(self.latitude.to_le_bytes());
        out.extend(self.longitude.to_le_bytes());
        put_bytes(out, self.state.as_bytes());
        put_nullable(out, self.accuracy);
        put_nullable(out, self.speed);
        put_nullable(out, self.heading);
        out.extend(self.h3.to_le_bytes());
        out.extend(self.flag.to_le_bytes());
        out.extend(self.kafka_partition.to_le_bytes());
        out.extend(self.kafka_offset.to_le_bytes());
        out.extend(self.received_at.to_le_bytes());
    }

    fn key(&self) -> Self::Key {
        (self.kafka_partition, self.kafka_offset)
    }

    fn cost(&self) -> usize {
        ROW_COST
    }

    fn partition(&self, months: &mut Months) -> u32 {
        months.of(self.timestamp)
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

    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.id.as_bytes());
        put_bytes(out, self.kind.as_bytes());
        out.extend(self.driver_id.to_le_bytes());
        put_bytes(out, self.order_id.as_bytes());
        put_bytes(out, self.fence_id.as_bytes());
        out.extend(self.event_time.to_le_bytes());
        out.extend(self.detected_at.to_le_bytes());
        put_bytes(out, self.data.as_bytes());
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

    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.reason.as_bytes());
        put_bytes(out, self.detail.as_bytes());
        put_bytes(out, self.topic.as_bytes());
        out.extend(self.kafka_partition.to_le_bytes());
        out.extend(self.kafka_offset.to_le_bytes());
        put_bytes(out, &self.value);
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

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}

fn put_nullable(out: &mut Vec<u8>, value: Option<f32>) {
    match value {
        Some(value) => {
            out.push(0);
            out.extend(value.to_le_bytes());
        }
        None => out.push(1),
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
    fn lengths_are_leb128() {
        for (length, prefix) in [
            (0, vec![0]),
            (127, vec![127]),
            (128, vec![0x80, 1]),
            (16_384, vec![0x80, 0x80, 1]),
        ] {
            let mut out = Vec::new();
            put_bytes(&mut out, &vec![7; length]);
            assert_eq!(out[..prefix.len()], prefix);
            assert_eq!(out.len(), prefix.len() + length);
        }
    }

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
