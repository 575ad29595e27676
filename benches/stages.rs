//! Where do the CPU seconds of an update go? The job under `perf`, by stage.
//!
//! `setarch -R cargo bench --bench stages [-- --updates 5000000 --rounds 3]`
//!
//! Density of the input: as `drain`'s. In each round, in turn: the job without ClickHouse, with
//! it but without windows, and the whole job. `perf` samples the machine 997 times a second, and
//! what it took of the job's process is kept, with its call chain; a sample belongs to the stage
//! of the function nearest to its leaf that one names, so that what a stage allocates or copies
//! is counted there. A stage's cost is its share of the samples times the process's CPU by the
//! kernel's account; sampling itself makes all a little dearer.
//!
//! By where libraries happen to lie in memory, `perf` follows calls out of them or not; without
//! random places (`setarch -R`) it does.
//!
//! Needs Linux's `perf` (Debian's `linux-perf`) and the right to sample the machine: root, or
//! `kernel.perf_event_paranoid` at -1.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;
use common::{Drain, Lab, Running, median};
use rustix::process::Signal;

/// `--bench` is Cargo's, and says nothing.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 5_000_000)]
    updates: u64,
    #[arg(long, default_value_t = 2)]
    workers: u32,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many functions of each stage are shown
    #[arg(long, default_value_t = 0)]
    functions: usize,
    #[arg(long, hide = true)]
    bench: bool,
}

/// The job without ClickHouse, with it, and with windows too.
const JOBS: [(&str, bool, bool); 3] = [
    ("without ClickHouse", false, false),
    ("without windows", true, false),
    ("with all", true, true),
];

/// A stage: its name, the start of its threads' name, and parts of its functions' names; without
/// any it has all that is left of these threads.
type Stage = (&'static str, &'static str, &'static [&'static str]);

/// In the order in which they are asked.
const STAGES: &[Stage] = &[
    (
        "commit: librdkafka's thread",
        "rdk:",
        &[
            "produce_toppars",
            "ProduceRequest",
            "handle_Produce",
            "msgset_writer",
            "rd_kafka_txn",
        ],
    ),
    ("fetch: librdkafka's threads", "rdk:", &[]),
    ("encode events", "riderflow-commi", &["wire::event"]),
    ("commit: hand over, wait", "riderflow-commi", &[]),
    (
        "ClickHouse: compress",
        "clickhouse",
        &["compress", "cityhash"],
    ),
    (
        "ClickHouse: encode",
        "clickhouse",
        &["::encode", "clickhouse::native", "clickhouse::rows"],
    ),
    ("ClickHouse: batch, send", "clickhouse", &[]),
    ("parse", "timely", &["wire::", "serde_json"]),
    ("windows", "timely", &["windows", "differential_dataflow"]),
    (
        "detect: fences",
        "timely",
        &["geo::", "Tiles", "detect::fences", "judge_visits"],
    ),
    ("detect: look ahead", "timely", &["detect::ahead"]),
    ("detect: state", "timely", &["detect::"]),
    (
        "fetch: polls by the workers",
        "timely",
        &["rd_kafka", "partition_queue"],
    ),
    ("sort", "timely", &["slice::sort"]),
    (
        "place, put into parcels",
        "timely",
        &[
            "outboxes",
            "Outboxes",
            "read_inputs",
            "dataflow::partition",
            "epoch::merge",
        ],
    ),
    ("exchange, progress, epochs", "timely", &[]),
    ("snapshots", "riderflow-snaps", &[]),
    ("metrics, main, rest", "", &[]),
];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let lab = Lab::start("stages");
    lab.preload_city(arguments.updates);

    let mut samples = [const { Samples::new() }; JOBS.len()];
    let mut costs = [const { Vec::new() }; JOBS.len()];
    for round in 1..=arguments.rounds {
        for (at, (name, clickhouse, windows)) in JOBS.into_iter().enumerate() {
            eprintln!("round {round}: the job {name}");
            let drain = Drain {
                name: &format!("stages-{round}-{at}"),
                workers: arguments.workers,
                clickhouse,
                windows,
                toml: "",
            };
            let (cost, seen) = sample(&lab, &drain);
            costs[at].push(cost);
            samples[at].join(seen);
        }
    }
    print(&samples, costs.map(median), &arguments);
    ExitCode::SUCCESS
}

/// Samples by stage and by the function that was running.
struct Samples {
    all: u64,
    /// Whose chain ends with the function that was running, or its caller.
    cut: u64,
    stages: BTreeMap<usize, BTreeMap<String, u64>>,
}

impl Samples {
    const fn new() -> Self {
        Self {
            all: 0,
            cut: 0,
            stages: BTreeMap::new(),
        }
    }

    fn add(&mut self, thread: &str, chain: &[String]) {
        let leaf = chain.first().map_or("", String::as_str);
        let functions = self.stages.entry(stage(thread, chain)).or_default();
        *functions.entry(leaf.to_owned()).or_default() += 1;
        self.all += 1;
        self.cut += u64::from(chain.len() <= 2);
    }

    fn join(&mut self, other: Self) {
        self.all += other.all;
        for (stage, functions) in other.stages {
            let known = self.stages.entry(stage).or_default();
            for (function, count) in functions {
                *known.entry(function).or_default() += count;
            }
        }
    }

    /// The share of a stage.
    fn share(&self, stage: usize) -> f64 {
        let functions = self.stages.get(&stage);
        let count: u64 = functions.map_or(0, |functions| functions.values().sum());
        count as f64 / self.all as f64
    }
}

/// Of the stages that a chain of functions names, the one nearest to its leaf.
fn stage(thread: &str, chain: &[String]) -> usize {
    let of_thread = || {
        let stages = STAGES.iter().enumerate();
        stages.filter(|(_, (_, name, _))| thread.starts_with(name))
    };
    let named = chain.iter().find_map(|function| {
        let names = |part: &&str| function.contains(*part);
        of_thread().find(|(_, (_, _, parts))| parts.iter().any(names))
    });
    let rest = || of_thread().find(|(_, (_, _, parts))| parts.is_empty());
    named.or_else(rest).expect("the last takes all").0
}

/// Drains under `perf`; returns CPU seconds per million, and what was seen of the job.
fn sample(lab: &Lab, drain: &Drain<'_>) -> (f64, Samples) {
    let file = lab.folder().join("perf.data");
    let mut perf = Command::new("perf");
    perf.args([
        "record",
        "-a",
        "-F",
        "997",
        "--call-graph",
        "dwarf,4096",
        "--mmap-pages",
        "4096",
    ])
    .arg("-o")
    .arg(&file)
    .stdout(Stdio::null())
    .stderr(Stdio::null());
    let mut perf = Running::start(&mut perf);
    std::thread::sleep(Duration::from_millis(500));
    assert!(
        perf.is_running(),
        "perf may not sample this machine: run this as root, or set kernel.perf_event_paranoid to -1"
    );
    let mut job = 0;
    let cost = lab.drain_watched(drain, |running| job = running.id());
    perf.signal(Signal::INT);
    perf.wait();
    let samples = read(&file, job);
    std::fs::remove_file(&file).expect("perf's file is there");
    assert!(
        samples.cut * 10 < samples.all,
        "perf did not follow {} of {} chains: run this under setarch -R",
        samples.cut,
        samples.all
    );
    (cost.cpu_per_million(), samples)
}

/// What `perf` recorded of a process: of each sample a line with the thread's name, one for each
/// function from the leaf on, and an empty one.
fn read(file: &Path, process: u32) -> Samples {
    let mut samples = Samples::new();
    let mut script = Command::new("perf");
    script
        .args(["script", "--no-inline", "-F", "comm,ip,sym", "--pid"])
        .arg(process.to_string())
        .arg("-i")
        .arg(file)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut script = Running::start(&mut script);
    let output = script.child().stdout.take().expect("piped");
    let mut thread: Option<String> = None;
    let mut chain = Vec::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.expect("perf writes on");
        let line = String::from_utf8_lossy(&line);
        let line = line.trim();
        if line.is_empty() {
            if let Some(thread) = thread.take() {
                samples.add(&thread, &chain);
            }
            chain.clear();
        } else if thread.is_none() {
            thread = Some(line.to_owned());
        } else {
            let function = line.split_once(' ').map_or("", |(_, function)| function);
            chain.push(function.to_owned());
        }
    }
    assert!(script.wait().success(), "perf reads what it has written");
    samples
}

fn print(samples: &[Samples], costs: [f64; JOBS.len()], arguments: &Arguments) {
    let row = |name: &str, cells: [f64; JOBS.len()]| {
        println!(
            "{name:<30} {:>20.3} {:>20.3} {:>20.3}",
            cells[0], cells[1], cells[2]
        );
    };
    println!(
        "CPU s per million updates, {} rounds\n{:<30} {:>20} {:>20} {:>20}",
        arguments.rounds, "stage", JOBS[0].0, JOBS[1].0, JOBS[2].0
    );
    for (stage, (name, _, _)) in STAGES.iter().enumerate() {
        row(
            name,
            std::array::from_fn(|job| samples[job].share(stage) * costs[job]),
        );
        let dearest = &samples[JOBS.len() - 1];
        let Some(functions) = dearest.stages.get(&stage) else {
            continue;
        };
        let mut functions: Vec<_> = functions.iter().collect();
        functions.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (function, count) in functions.iter().take(arguments.functions) {
            let cost = **count as f64 / dearest.all as f64 * costs[JOBS.len() - 1];
            println!("    {cost:.3} {function}");
        }
    }
    row("all", costs);
    let counts: Vec<u64> = samples.iter().map(|samples| samples.all).collect();
    println!("of {counts:?} samples");
}
