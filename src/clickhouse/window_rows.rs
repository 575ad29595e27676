//! Rows of the tables of windows, which are upserts: of one window's rows the greatest version
//! holds. So after an answer was lost they are simply sent again, and never asked for.

use std::collections::HashSet;

use clickhouse::Client;
use clickhouse::error::Result;

use super::reconcile::Ask;
use super::rows::{Months, ROW_COST, Record, take};
use super::writer::Table;
use crate::model::{CellWindow, DriverId, DriverWindow, Epoch, SessionWindow, TimeMs};

impl Record for CellWindow {
    type Key = (u64, TimeMs);
    const TABLE: Table = Table::CellMinutes;
    const STRUCTURE: &'static str = "cell UInt64, minute DateTime, drivers UInt64, \
        updates UInt64, mean_speed Nullable(Float64), epoch UInt64";

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.cell.to_le_bytes());
        put_seconds(out, self.start_ms);
        out.extend(self.drivers.to_le_bytes());
        out.extend(self.updates.to_le_bytes());
        put_nullable(out, self.mean_speed_mps);
        out.extend(self.version.0.to_le_bytes());
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self {
            cell: u64::from_le_bytes(take(bytes)?),
            start_ms: take_seconds(bytes)?,
            drivers: u64::from_le_bytes(take(bytes)?),
            updates: u64::from_le_bytes(take(bytes)?),
            mean_speed_mps: take_nullable(bytes)?,
            version: Epoch(u64::from_le_bytes(take(bytes)?)),
        })
    }

    fn key(&self) -> Self::Key {
        (self.cell, self.start_ms)
    }

    fn cost(&self) -> usize {
        ROW_COST
    }

    fn partition(&self, months: &mut Months) -> u32 {
        months.of(self.start_ms)
    }
}

impl Record for DriverWindow {
    type Key = (u64, TimeMs);
    const TABLE: Table = Table::DriverMinutes;
    const STRUCTURE: &'static str = "driver_id UInt64, minute DateTime, updates UInt64, \
        distance_m Float64, max_speed Nullable(Float64), epoch UInt64";

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.driver.0.to_le_bytes());
        put_seconds(out, self.start_ms);
        out.extend(self.updates.to_le_bytes());
        out.extend(self.distance_m.to_le_bytes());
        put_nullable(out, self.max_speed_mps);
        out.extend(self.version.0.to_le_bytes());
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self {
            driver: DriverId(u64::from_le_bytes(take(bytes)?)),
            start_ms: take_seconds(bytes)?,
            updates: u64::from_le_bytes(take(bytes)?),
            distance_m: f64::from_le_bytes(take(bytes)?),
            max_speed_mps: take_nullable(bytes)?,
            version: Epoch(u64::from_le_bytes(take(bytes)?)),
        })
    }

    fn key(&self) -> Self::Key {
        (self.driver.0, self.start_ms)
    }

    fn cost(&self) -> usize {
        ROW_COST
    }

    fn partition(&self, months: &mut Months) -> u32 {
        months.of(self.start_ms)
    }
}

impl Record for SessionWindow {
    type Key = (u64, TimeMs);
    const TABLE: Table = Table::DriverSessions;
    const STRUCTURE: &'static str = "driver_id UInt64, start DateTime64(3), \
        end DateTime64(3), distance_m Float64, updates UInt64, epoch UInt64, is_deleted UInt8";

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.driver.0.to_le_bytes());
        out.extend(self.start_ms.to_le_bytes());
        out.extend(self.end_ms.to_le_bytes());
        out.extend(self.distance_m.to_le_bytes());
        out.extend(self.updates.to_le_bytes());
        out.extend(self.version.0.to_le_bytes());
        out.push(u8::from(self.updates == 0));
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let session = Self {
            driver: DriverId(u64::from_le_bytes(take(bytes)?)),
            start_ms: i64::from_le_bytes(take(bytes)?),
            end_ms: i64::from_le_bytes(take(bytes)?),
            distance_m: f64::from_le_bytes(take(bytes)?),
            updates: u64::from_le_bytes(take(bytes)?),
            version: Epoch(u64::from_le_bytes(take(bytes)?)),
        };
        let [_is_deleted] = take(bytes)?;
        Some(session)
    }

    fn key(&self) -> Self::Key {
        (self.driver.0, self.start_ms)
    }

    fn cost(&self) -> usize {
        ROW_COST
    }

    fn partition(&self, months: &mut Months) -> u32 {
        months.of(self.start_ms)
    }
}

/// No row is known to be there: an upsert may be repeated.
macro_rules! never_asked {
    ($($row:ty),*) => {$(
        impl Ask for $row {
            async fn present(_client: &Client, _rows: &[Self]) -> Result<HashSet<Self::Key>> {
                Ok(HashSet::new())
            }
        }
    )*};
}

never_asked!(CellWindow, DriverWindow, SessionWindow);

/// A `DateTime`: seconds since 1970.
fn put_seconds(out: &mut Vec<u8>, at_ms: TimeMs) {
    let seconds = u32::try_from(at_ms.div_euclid(1000)).unwrap_or(u32::MAX);
    out.extend(seconds.to_le_bytes());
}

fn take_seconds(bytes: &mut &[u8]) -> Option<TimeMs> {
    Some(i64::from(u32::from_le_bytes(take(bytes)?)) * 1000)
}

fn put_nullable(out: &mut Vec<u8>, value: Option<f64>) {
    match value {
        Some(value) => {
            out.push(0);
            out.extend(value.to_le_bytes());
        }
        None => out.push(1),
    }
}

fn take_nullable(bytes: &mut &[u8]) -> Option<Option<f64>> {
    match take(bytes)? {
        [0] => Some(Some(f64::from_le_bytes(take(bytes)?))),
        _ => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_from_their_bytes() {
        let cell = CellWindow {
            cell: 0x88_6189_2d8d_ffff,
            start_ms: 1_790_000_040_000,
            drivers: 3,
            updates: 70,
            mean_speed_mps: Some(7.25),
            version: Epoch(17_900_000_600),
        };
        let driver = DriverWindow {
            driver: DriverId(453),
            start_ms: 1_790_000_040_000,
            updates: 60,
            distance_m: 433.25,
            max_speed_mps: None,
            version: Epoch(17_900_000_600),
        };
        let session = SessionWindow {
            driver: DriverId(453),
            start_ms: 1_790_000_040_123,
            end_ms: 1_790_000_090_456,
            distance_m: 433.25,
            updates: 60,
            version: Epoch(17_900_000_600),
        };
        let mut bytes = Vec::new();
        cell.encode(&mut bytes);
        driver.encode(&mut bytes);
        session.encode(&mut bytes);
        let mut rest = &bytes[..];
        assert_eq!(CellWindow::decode(&mut rest), Some(cell));
        assert_eq!(DriverWindow::decode(&mut rest), Some(driver));
        assert_eq!(SessionWindow::decode(&mut rest), Some(session));
        assert_eq!(SessionWindow::decode(&mut rest), None);
    }
}
