//! What a process has taken, by the kernel's account.

use std::time::Duration;

use super::measured::{cpu_s, resident_mib};

/// What one process took to handle so many updates.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub cpu_s: f64,
    pub wall_s: f64,
    /// The most that was resident.
    pub peak_mib: f64,
    /// What is resident now.
    pub resident_mib: f64,
    pub updates: u64,
    /// Events told, if it is a job.
    pub events: f64,
}

impl Cost {
    pub fn cpu_per_million(&self) -> f64 {
        self.cpu_s / self.updates as f64 * 1e6
    }

    pub fn per_second(&self) -> f64 {
        self.updates as f64 / self.wall_s
    }

    /// Without what `start` took.
    pub fn after(&self, start: &Self) -> Self {
        Self {
            cpu_s: self.cpu_s - start.cpu_s,
            ..*self
        }
    }
}

/// CPU and memory of a living process; `wall` is how long it took.
pub fn cost_of(pid: u32, wall: Duration, updates: u64) -> Cost {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let peak_kib: Option<f64> = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    Cost {
        cpu_s: cpu_s(pid),
        wall_s: wall.as_secs_f64(),
        peak_mib: peak_kib.expect("a peak") / 1024.0,
        resident_mib: resident_mib(pid),
        updates,
        events: 0.0,
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    (values[last / 2] + values[last.div_ceil(2)]) / 2.0
}
