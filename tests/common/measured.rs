//! What a running job says of itself: the latency of its events between two moments, and the
//! memory that it takes.

use std::time::Duration;

use super::running::Running;

/// A Prometheus histogram of seconds at one moment: how many values are at most so large.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Vec<(f64, u64)>);

impl Latencies {
    /// Those of all events that a job has committed, by its own account: from the Kafka timestamp
    /// of the cause to committed.
    pub fn of_events(job: &Running) -> Self {
        Self::read(job, "riderflow_event_latency_seconds")
    }

    pub fn read(job: &Running, name: &str) -> Self {
        let text = job.metrics().expect("metrics are served");
        let prefix = format!("{name}_bucket{{le=\"");
        let buckets = text.lines().filter_map(|line| {
            let (bound, count) = line.strip_prefix(&prefix)?.split_once("\"} ")?;
            let bound = match bound {
                "+Inf" => f64::INFINITY,
                number => number.parse().ok()?,
            };
            Some((bound, count.parse().ok()?))
        });
        Self(buckets.collect())
    }

    /// What came after `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let pairs = self.0.iter().zip(&earlier.0);
        Self(
            pairs
                .map(|((bound, now), (_, then))| (*bound, now - then))
                .collect(),
        )
    }

    pub fn count(&self) -> u64 {
        self.0.last().map_or(0, |(_, count)| *count)
    }

    /// What a share of the values does not exceed: interpolated within a bucket.
    pub fn quantile(&self, share: f64) -> Duration {
        assert!(self.count() > 0, "no events");
        let rank = share * self.count() as f64;
        let (mut lower, mut below) = (0.0, 0);
        for &(bound, count) in &self.0 {
            if count as f64 >= rank && count > below {
                let within = (rank - below as f64) / (count - below) as f64;
                // What is over the last bound is at least that.
                let upper = if bound.is_finite() { bound } else { lower };
                return Duration::from_secs_f64(lower + (upper - lower) * within);
            }
            (lower, below) = (bound, count);
        }
        Duration::from_secs_f64(lower)
    }

    /// The upper bound of the bucket of the largest value.
    pub fn largest(&self) -> Duration {
        let largest = self.0.iter().find(|(_, count)| *count == self.count());
        let bound = largest.map_or(0.0, |(bound, _)| *bound);
        Duration::try_from_secs_f64(bound).unwrap_or(Duration::MAX)
    }
}

/// Resident memory of a process, MiB.
pub fn resident_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let kib: Option<f64> = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    kib.expect("a size") / 1024.0
}

/// User and system time of a process so far, by the kernel's account.
pub fn cpu_s(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let after_name = stat.rsplit(')').next().expect("a name in parentheses");
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("ticks");
    // Hundredths of a second on every Linux that Rust supports.
    (ticks(11) + ticks(12)) / 100.0
}
