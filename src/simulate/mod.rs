//! A city of drivers, orders and fences.
//!
//! ```text
//! Plan ─► Simulation (pure: city, drivers, orders, fences) ─► Batch ─► run ─┬─► kafka::producer
//!                                                                         └─► phones ─► gateway
//! ```
//!
//! Owns the made-up world and its pace. [`Simulation`] is a pure function of its [`Plan`]: the
//! same plan gives the same bytes in the same order, whatever the clock and however it is
//! sliced; it does no I/O. [`run`] alone knows the wall clock, a [`Road`] how messages travel.
//! None knows rdkafka, nor reads anything that the job writes. What only the [`phones`] know is
//! WebSockets; of the gateway they know its protocol alone, none of its code.

mod agenda;
mod backlog;
mod base_map;
mod city;
mod dice;
mod driver;
mod message;
mod orders;
pub mod phones;
mod road;
mod run;
mod simulation;
mod zones;

#[cfg(test)]
mod simulation_tests;

pub use backlog::Backlog;
pub use base_map::base_map;
pub use message::{Batch, Counts, Message, Oddity, What};
pub use phones::GatewaySummary;
pub use road::{ByPhone, Road, Straight};
pub use run::{Limit, Pace, Progress, RunError, Settings, Summary, run};
pub use simulation::Simulation;

use crate::model::{Position, TimeMs};

/// Bengaluru.
const CENTER: Position = Position {
    longitude: 77.5946,
    latitude: 12.9716,
};

/// How often a driver's phone is odd: probabilities per update, except [`Oddities::dark`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Oddities {
    /// A fix is held back and sent after newer ones. Default 0.003.
    pub late: f64,
    /// A fix is sent twice. Default 0.002.
    pub duplicate: f64,
    /// A fix is off by up to its `accuracy` of 120 to 600 m. Default 0.003.
    pub inaccurate: f64,
    /// A fix jumps further than any vehicle could. Default 0.0003.
    pub teleport: f64,
    /// Per order given to a driver: the phone says nothing for more than 30 s. Default 0.06.
    pub dark: f64,
}

impl Default for Oddities {
    fn default() -> Self {
        Self {
            late: 0.003,
            duplicate: 0.002,
            inaccurate: 0.003,
            teleport: 0.0003,
            dark: 0.06,
        }
    }
}

impl Oddities {
    /// Perfect phones.
    pub const NONE: Self = Self {
        late: 0.0,
        duplicate: 0.0,
        inaccurate: 0.0,
        teleport: 0.0,
        dark: 0.0,
    };
}

/// Everything that decides what a city does.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Drivers, ids 0 to drivers − 1; at least 1.
    pub drivers: u32,
    /// Orders open at any time: one per driver at most is under way, the rest wait as `placed`.
    pub orders: u32,
    /// Fences that stand from the beginning; with any, up to 3 surges come and go.
    pub fences: u32,
    /// Fixes every choice.
    pub seed: u64,
    /// Between two updates of a driver, µs; at least 1. Default 1 s.
    pub interval_us: u64,
    /// The beginning, ms since 1970.
    pub start_ms: TimeMs,
    /// City time per [`Simulation::next_step`], ms; at least 1. Default 20.
    pub slice_ms: u32,
    /// What goes wrong.
    pub oddities: Oddities,
    /// Share of drivers whose phones tell accuracy, speed and heading, 0..=1. Default 0.5.
    pub detailed: f64,
    /// Begins every order id: two cities on one topic need two. Default `o-<start>-`, the
    /// start in seconds, base 36.
    pub order_prefix: String,
}

impl Plan {
    /// A plan with the defaults, for a city that begins at `start_ms`.
    pub fn new(drivers: u32, orders: u32, fences: u32, seed: u64, start_ms: TimeMs) -> Self {
        Self {
            drivers,
            orders,
            fences,
            seed,
            interval_us: 1_000_000,
            start_ms,
            slice_ms: 20,
            oddities: Oddities::default(),
            detailed: 0.5,
            order_prefix: format!("o-{}-", base36(start_ms.unsigned_abs() / 1_000)),
        }
    }

    /// Sets the interval so that all drivers together send `per_s` updates a second.
    pub fn with_rate(mut self, per_s: f64) -> Self {
        self.interval_us = ((f64::from(self.drivers) / per_s * 1e6).round() as u64).max(1);
        self
    }

    /// Updates a second, oddities aside.
    pub fn rate_per_s(&self) -> f64 {
        f64::from(self.drivers) * 1e6 / self.interval_us as f64
    }
}

fn base36(mut n: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit((n % 36) as u32, 36).unwrap_or('0'));
        n /= 36;
        if n == 0 {
            return digits.iter().rev().collect();
        }
    }
}

/// What a phone says.
#[derive(Clone, Copy, Debug)]
struct Fix {
    position: Position,
    state: &'static str,
    accuracy_m: Option<f32>,
    /// Speed m/s and heading in degrees.
    motion: Option<(f32, f32)>,
}

/// Writes decimal digits: every key, so without the formatter.
fn write_number(mut n: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
