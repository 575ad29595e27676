//! Rows of the tables of windows, which are upserts: of one window's rows the greatest version
//! holds. So after an answer was lost they are simply sent again, and never asked for.

use std::collections::HashSet;

use clickhouse::Client;
use clickhouse::error::Result;

use super::native::Tile;
use super::parcel::Table;
use super::reconcile::Ask;
use super::rows::{Months, ROW_COST, Record};
use crate::model::{CellWindow, DriverWindow, SessionWindow, TimeMs};

impl Record for CellWindow {
    type Key = (u64, TimeMs);
    const TABLE: Table = Table::CellMinutes;
    const STRUCTURE: &'static str = "cell UInt64, minute DateTime, drivers UInt64, \
        updates UInt64, mean_speed Nullable(Float64), epoch UInt64";

    fn encode(rows: &mut Tile<'_, Self>) {
        rows.numbers(|row| row.cell.to_le_bytes());
        rows.numbers(|row| seconds(row.start_ms));
        rows.numbers(|row| row.drivers.to_le_bytes());
        rows.numbers(|row| row.updates.to_le_bytes());
        rows.nullables(|row| row.mean_speed_mps.map(f64::to_le_bytes));
        rows.numbers(|row| row.version.0.to_le_bytes());
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

    fn encode(rows: &mut Tile<'_, Self>) {
        rows.numbers(|row| row.driver.0.to_le_bytes());
        rows.numbers(|row| seconds(row.start_ms));
        rows.numbers(|row| row.updates.to_le_bytes());
        rows.numbers(|row| row.distance_m.to_le_bytes());
        rows.nullables(|row| row.max_speed_mps.map(f64::to_le_bytes));
        rows.numbers(|row| row.version.0.to_le_bytes());
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

    fn encode(rows: &mut Tile<'_, Self>) {
        rows.numbers(|row| row.driver.0.to_le_bytes());
        rows.numbers(|row| row.start_ms.to_le_bytes());
        rows.numbers(|row| row.end_ms.to_le_bytes());
        rows.numbers(|row| row.distance_m.to_le_bytes());
        rows.numbers(|row| row.updates.to_le_bytes());
        rows.numbers(|row| row.version.0.to_le_bytes());
        rows.numbers(|row| [u8::from(row.updates == 0)]);
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
            async fn present(_client: &Client, _rows: &[&Self]) -> Result<HashSet<Self::Key>> {
                Ok(HashSet::new())
            }
        }
    )*};
}

never_asked!(CellWindow, DriverWindow, SessionWindow);

/// A `DateTime`: seconds since 1970.
fn seconds(at_ms: TimeMs) -> [u8; 4] {
    let seconds = u32::try_from(at_ms.div_euclid(1000)).unwrap_or(u32::MAX);
    seconds.to_le_bytes()
}
