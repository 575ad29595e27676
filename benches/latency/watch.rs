//! What all processes take, second by second.

use std::time::{Duration, Instant};

use riderflow::runtime::wall_clock_ms;

use crate::common::{Running, cost_of, cpu_s, sum_of};

/// Those that are looked at, in order; `bench` is this one, which receives the events.
pub(crate) const PROCESSES: [&str; 5] = ["job", "city", "Kafka", "ClickHouse", "bench"];

/// One moment.
#[derive(Clone)]
pub(crate) struct Sample {
    pub(crate) at_ms: i64,
    /// Updates that the job has judged.
    pub(crate) updates: f64,
    /// Records that it has not committed.
    pub(crate) lag: f64,
    pub(crate) resident_mib: f64,
    pub(crate) peak_mib: f64,
    cpu_s: [f64; PROCESSES.len()],
    /// All processes of the machine.
    busy_s: f64,
    pub(crate) stolen_s: f64,
}

impl Sample {
    pub(crate) fn cpu_since(&self, earlier: &Self) -> [f64; PROCESSES.len()] {
        std::array::from_fn(|at| self.cpu_s[at] - earlier.cpu_s[at])
    }

    /// CPU seconds of all processes that are not looked at.
    pub(crate) fn others_since(&self, earlier: &Self) -> f64 {
        let known: f64 = self.cpu_since(earlier).iter().sum();
        (self.busy_s - earlier.busy_s - known).max(0.0)
    }
}

pub(crate) struct Watch {
    processes: [u32; PROCESSES.len()],
    began: Instant,
    pub(crate) samples: Vec<Sample>,
}

impl Watch {
    pub(crate) fn new(processes: [u32; PROCESSES.len()]) -> Self {
        Self {
            processes,
            began: Instant::now(),
            samples: Vec::new(),
        }
    }

    /// Until so many seconds after the beginning.
    pub(crate) fn sleep_until(&self, second: u64) {
        let due = self.began + Duration::from_secs(second);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }

    pub(crate) fn look(&mut self, job: &Running) {
        let metrics = job.metrics().expect("metrics are served");
        let cost = cost_of(job.id(), Duration::ZERO, 0);
        let (busy_s, stolen_s) = machine();
        self.samples.push(Sample {
            at_ms: wall_clock_ms(),
            updates: sum_of(&metrics, "riderflow_updates_total"),
            lag: sum_of(&metrics, "riderflow_lag_records"),
            resident_mib: cost.resident_mib,
            peak_mib: cost.peak_mib,
            // One that has just ended has said its last.
            cpu_s: std::array::from_fn(|at| self.cpu_of(at)),
            busy_s,
            stolen_s,
        });
    }

    fn cpu_of(&self, at: usize) -> f64 {
        let pid = self.processes[at];
        let lives = std::path::Path::new(&format!("/proc/{pid}")).exists();
        match (lives, self.samples.last()) {
            (false, Some(last)) => last.cpu_s[at],
            _ => cpu_s(pid),
        }
    }
}

/// CPU seconds of all cores that were spent, and that another machine had.
fn machine() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/stat").expect("the kernel's account");
    let line = stat.lines().next().expect("all cores");
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|ticks| ticks.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal
    let busy: f64 = [0, 1, 2, 5, 6].iter().map(|&at| ticks[at]).sum();
    (busy / 100.0, ticks[7] / 100.0)
}
