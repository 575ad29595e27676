//! How soon is an event there, with 100,000 updates a second and everything on two cores?
//!
//! `cargo bench --bench latency [-- --seconds 300 --rate 100000 --drivers 100000 --p99-ms 250]`
//!
//! Density of the input: one city in real time, 100,000 drivers with an update a second, 1,000
//! fences, 20,000 open orders, 3 in 100 updates late, duplicate or inaccurate; it sends every
//! 20 ms. The city, Kafka, ClickHouse and the job are processes of their own; the job keeps
//! everything: events, rows, windows, snapshots.
//!
//! Latency is what a reader of committed messages sees: from the Kafka timestamp of the update or
//! order that set an event off to the moment at which the event is received here. Timers are left
//! out, since nothing set them off. The causes' timestamps are looked up in Kafka afterwards. Lag
//! is in records, of all inputs, as the consumer group shows it, which is told twice a second.
//! Seconds before `--warm-up` are shown and don't count.
//!
//! At the end all events that the job told must have been received, those of timers too, and no
//! record may be left. Exit code 1 if a bar is missed, unless `--only-print`.

mod common;
#[path = "latency/events.rs"]
mod events;
#[path = "latency/watch.rs"]
mod watch;

use std::io::Read;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use common::{Bars, Lab, Latencies, Running, median};
use events::{Listener, quantile_ms};
use watch::{PROCESSES, Sample, Watch};

/// A job that takes longer to start is stuck; nor is it waited for longer at the end.
const PATIENCE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
/// A line of the report.
const SLICE_S: usize = 10;

/// `--bench` is Cargo's, and says nothing.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    #[arg(long, default_value_t = 100_000)]
    rate: u64,
    #[arg(long, default_value_t = 100_000)]
    drivers: u64,
    #[arg(long, default_value_t = 20_000)]
    orders: u64,
    #[arg(long, default_value_t = 1_000)]
    fences: u64,
    #[arg(long, default_value_t = 2)]
    workers: u32,
    #[arg(long, default_value_t = 20)]
    warm_up: u64,
    /// Events alone: neither rows nor windows
    #[arg(long)]
    no_clickhouse: bool,
    #[arg(long)]
    no_windows: bool,
    /// Further lines of the pipeline file
    #[arg(long, default_value = "")]
    toml: String,
    #[arg(long, default_value_t = 250.0)]
    p99_ms: f64,
    #[arg(long)]
    only_print: bool,
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let lab = Lab::start("latency");
    let toml = format!(
        "clickhouse.enabled = {}\nwindows.enabled = {}\n{}",
        !arguments.no_clickhouse,
        !arguments.no_clickhouse && !arguments.no_windows,
        arguments.toml,
    );
    let pipeline = lab.pipeline("latency", &toml);
    let mut job = lab.job(&pipeline, arguments.workers);
    job.wait_until_ready(PATIENCE);
    let listener = Listener::start(lab.services().kafka());

    let mut city = city(&lab, &arguments);
    let [kafka, clickhouse] = lab.services().pids()[..] else {
        panic!("the services run here, not where the environment says");
    };
    let mut watch = Watch::new([job.id(), city.id(), kafka, clickhouse, std::process::id()]);
    let mut warm = Latencies::default();
    for second in 0..=arguments.seconds {
        assert!(job.is_running(), "the job has ended");
        assert!(
            second == arguments.seconds || city.is_running(),
            "the city has ended"
        );
        watch.look(&job);
        if second == arguments.warm_up {
            warm = Latencies::of_events(&job);
        }
        if second < arguments.seconds {
            watch.sleep_until(second + 1);
        }
    }
    let own = Latencies::of_events(&job).since(&warm);
    let city = ended(city);
    let inserts = (!arguments.no_clickhouse).then(|| Inserts::of(&lab));

    let began = Instant::now();
    let mut left = job.try_metric("riderflow_lag_records").unwrap_or(f64::NAN);
    while left != 0.0 && began.elapsed() < PATIENCE {
        std::thread::sleep(SECOND / 5);
        left = job.try_metric("riderflow_lag_records").unwrap_or(f64::NAN);
    }
    let catching_up_s = began.elapsed().as_secs_f64();
    let [received, told] = received_and_told(&listener, &job);
    let events = listener.finish();
    drop(job);
    let events = events::resolve(lab.services().kafka(), events);

    let mut bars = Bars::default();
    report(&arguments, &watch.samples, &events);
    let first = watch.samples[0].at_ms;
    let warm_ms = first + arguments.warm_up as i64 * 1_000;
    let counted = events.iter().filter(|event| event.cause_ms >= warm_ms);
    let mut latencies: Vec<i64> = counted.map(events::Told::latency_ms).collect();
    latencies.sort_unstable();
    println!(
        "{} events after {} s: p50 {:.0} ms, p90 {:.0} ms, p99 {:.0} ms, p99.9 {:.0} ms, at most {:.0} \
         ms",
        latencies.len(),
        arguments.warm_up,
        quantile_ms(&latencies, 0.5),
        quantile_ms(&latencies, 0.9),
        quantile_ms(&latencies, 0.99),
        quantile_ms(&latencies, 0.999),
        quantile_ms(&latencies, 1.0),
    );
    println!(
        "by the job's own account, to the commit: p50 {:.0?}, p99 {:.0?}, at most {:.0?}",
        own.quantile(0.5),
        own.quantile(0.99),
        own.largest(),
    );
    costs(&watch.samples);
    if let Some(inserts) = inserts {
        inserts.print();
    }
    println!(
        "the city sent {:.0} updates/s, at most {:.2} s behind the clock",
        city["rate_per_s"].as_f64().unwrap_or(0.0),
        city["most_behind_s"].as_f64().unwrap_or(0.0),
    );

    println!("{received:.0} events were received of {told:.0} that the job told");

    let [early, late] = lag_early_and_late(&watch.samples[arguments.warm_up as usize..]);
    println!(
        "after the last update it took {catching_up_s:.1} s until {left:.0} records were left"
    );
    println!("lag, median of the first third {early:.0} records, of the last {late:.0}");
    let grown_s = (late - early) / arguments.rate as f64;
    let rate = rate_of(&watch.samples[arguments.warm_up as usize..]);
    bars.hold("judged, updates/s", rate, arguments.rate as f64..);
    bars.hold("events received, of those told", received / told, 1.0..=1.0);
    bars.hold("records left", left, ..=0.0);
    let p99_ms = quantile_ms(&latencies, 0.99);
    bars.hold("p99, ms", p99_ms, ..=arguments.p99_ms);
    bars.hold("growth of the lag, seconds of updates", grown_s, ..=0.25);
    bars.finish(arguments.only_print)
}

fn city(lab: &Lab, arguments: &Arguments) -> Running {
    let mut command = lab.command();
    command
        .args(["simulate", "--json", "--keep-orders"])
        .args(["--drivers", &arguments.drivers.to_string()])
        .args(["--orders", &arguments.orders.to_string()])
        .args(["--fences", &arguments.fences.to_string()])
        // A few phones say nothing for a while.
        .args(["--rate", &(arguments.rate * 106 / 100).to_string()])
        .args(["--duration", &arguments.seconds.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    Running::start(&mut command)
}

/// How many events have been received, and how many the job has told; waits until it is the same
/// number.
fn received_and_told(listener: &Listener, job: &Running) -> [f64; 2] {
    let told = || job.try_metric("riderflow_events_total");
    let began = Instant::now();
    loop {
        // Timers may tell more between.
        let before = told();
        let received = listener.count() as f64;
        let is_settled = before == Some(received) && told() == before;
        if is_settled || began.elapsed() > PATIENCE {
            return [received, before.unwrap_or(f64::NAN)];
        }
        std::thread::sleep(SECOND / 5);
    }
}

/// The city's own summary, once it has ended.
fn ended(mut city: Running) -> serde_json::Value {
    let mut summary = String::new();
    let output = city.child().stdout.as_mut().expect("piped");
    output.read_to_string(&mut summary).expect("a summary");
    serde_json::from_str(&summary).expect("JSON")
}

/// A line for each slice.
fn report(arguments: &Arguments, samples: &[Sample], events: &[events::Told]) {
    println!(
        "{} drivers, {} updates/s asked, {} workers, ClickHouse {}, windows {}",
        arguments.drivers,
        arguments.rate,
        arguments.workers,
        !arguments.no_clickhouse,
        !arguments.no_clickhouse && !arguments.no_windows,
    );
    println!(
        "{:>5} {:>9} {:>8} {:>7} {:>7} {:>7} {:>9}   cores: {} {:>7} {:>7} {:>6}",
        "s",
        "updates/s",
        "events/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "lag",
        PROCESSES.map(|name| format!("{name:>10}")).join(" "),
        "others",
        "stolen",
        "MiB",
    );
    for pair in samples
        .iter()
        .step_by(SLICE_S)
        .zip(samples.iter().skip(SLICE_S).step_by(SLICE_S))
    {
        let (from, to) = pair;
        let within = |event: &&events::Told| (from.at_ms..to.at_ms).contains(&event.cause_ms);
        let told = events.iter().filter(within);
        let mut latencies: Vec<i64> = told.map(events::Told::latency_ms).collect();
        latencies.sort_unstable();
        let wall_s = (to.at_ms - from.at_ms) as f64 / 1e3;
        let cores = to.cpu_since(from).map(|cpu_s| cpu_s / wall_s);
        println!(
            "{:>5} {:>9.0} {:>8.0} {:>7.0} {:>7.0} {:>7.0} {:>9.0}          {} {:>7.2} {:>7.2} {:>6.0}",
            (from.at_ms - samples[0].at_ms + 500) / 1_000,
            (to.updates - from.updates) / wall_s,
            latencies.len() as f64 / wall_s,
            quantile_ms(&latencies, 0.5),
            quantile_ms(&latencies, 0.99),
            quantile_ms(&latencies, 1.0),
            to.lag,
            cores.map(|cores| format!("{cores:>10.2}")).join(" "),
            to.others_since(from) / wall_s,
            (to.stolen_s - from.stolen_s) / wall_s,
            to.resident_mib,
        );
    }
}

/// What each process took in all, from the first update to the last.
fn costs(samples: &[Sample]) {
    let (first, last) = (&samples[0], &samples[samples.len() - 1]);
    let wall_s = (last.at_ms - first.at_ms) as f64 / 1e3;
    let updates = last.updates - first.updates;
    for (name, cpu_s) in PROCESSES.iter().zip(last.cpu_since(first)) {
        println!(
            "  {name:<10} {cpu_s:>7.1} CPU s, {:>5.2} cores, {:>5.2} CPU s per million updates",
            cpu_s / wall_s,
            cpu_s / updates * 1e6,
        );
    }
    println!(
        "  others {:.2} cores, stolen from this machine {:.2}; the job's memory {:.0} MiB at the \
         end, {:.0} MiB at the most",
        last.others_since(first) / wall_s,
        (last.stolen_s - first.stolen_s) / wall_s,
        last.resident_mib,
        last.peak_mib,
    );
}

/// Updates a second that the job has judged.
fn rate_of(samples: &[Sample]) -> f64 {
    let (first, last) = (&samples[0], &samples[samples.len() - 1]);
    (last.updates - first.updates) / (last.at_ms - first.at_ms) as f64 * 1e3
}

/// The lag's median in the first and in the last third.
fn lag_early_and_late(samples: &[Sample]) -> [f64; 2] {
    let third = samples.len() / 3;
    let of = |samples: &[Sample]| median(samples.iter().map(|sample| sample.lag).collect());
    [of(&samples[..third]), of(&samples[samples.len() - third..])]
}

/// What ClickHouse says of `driver_locations`.
struct Inserts {
    rows: f64,
    inserts: f64,
    bytes: f64,
}

impl Inserts {
    fn of(lab: &Lab) -> Self {
        let ask = |what: &str| {
            let parts = "system.parts WHERE active AND database = 'riderflow' AND table = \
                         'driver_locations'";
            lab.number(&format!("SELECT {what} FROM {parts}"))
        };
        Self {
            rows: ask("sum(rows)"),
            inserts: lab.inserts(),
            bytes: ask("sum(bytes_on_disk)"),
        }
    }

    fn print(&self) {
        println!(
            "driver_locations: {} rows by {} inserts of {:.0} on average, {:.1} bytes a row on disk",
            self.rows,
            self.inserts,
            self.rows / self.inserts.max(1.0),
            self.bytes / self.rows.max(1.0),
        );
    }
}
