//! An intake that listens on loopback, over the test binary's Kafka.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use riderflow::config::{Routes, Secret};
use riderflow::gateway::access::{Access, AccessRules, Algorithm, Subject};
use riderflow::gateway::intake::{self, End, Intake, Pace, Parts};
use riderflow::gateway::metrics::{GatewayMetrics, UpdateOutcome};
use riderflow::kafka::routing::RouteTable;
use riderflow::kafka::{Outlet, OutletSettings};
use riderflow::model::DriverId;
use riderflow::wire::Limits;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;

use crate::common::{GATEWAY_KEY, Lab, Received};

pub(crate) const TOPIC: &str = "rider-updates";

pub(crate) struct Stand {
    runtime: tokio::runtime::Runtime,
    pub(crate) at: SocketAddr,
    pub(crate) access: Arc<Access>,
    pub(crate) intake: Arc<Intake>,
    pub(crate) metrics: GatewayMetrics,
    drain: watch::Sender<bool>,
}

/// What a test may want otherwise.
pub(crate) struct Wanted {
    pub(crate) pace: Pace,
    pub(crate) updates_per_s: u32,
    pub(crate) buffer_updates: u32,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            pace: Pace::default(),
            updates_per_s: 1_000,
            buffer_updates: 100_000,
        }
    }
}

pub(crate) fn access_with(key: &str) -> Access {
    Access::open(AccessRules {
        algorithm: Algorithm::Hs256,
        issuer: "riderflow".to_owned(),
        audience: "riderflow".to_owned(),
        key: Some(Secret::new(key)),
        jwks: None,
    })
    .expect("a key is given")
}

impl Stand {
    /// Makes the topics and listens.
    pub(crate) fn begin(lab: &Lab, wanted: Wanted) -> Self {
        let pipeline = lab.pipeline("intake", "clickhouse.enabled = false");
        lab.init(&pipeline);
        Self::again(lab, wanted)
    }

    /// One more on the same topics.
    pub(crate) fn again(lab: &Lab, wanted: Wanted) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("tokio");
        let metrics = GatewayMetrics::new();
        let (drain, draining) = watch::channel(false);
        let settings = OutletSettings {
            queue_records: wanted.buffer_updates,
            ..OutletSettings::default()
        };
        let outlet = Outlet::connect(&lab.brokers(), settings).expect("Kafka answers");
        let access = Arc::new(access_with(GATEWAY_KEY));
        let intake = Intake::new(Parts {
            access: Arc::clone(&access),
            routes: RouteTable::new(&Routes::default(), 2).expect("two partitions"),
            limits: Limits::default(),
            outlet,
            updates_per_s: wanted.updates_per_s,
            sessions: 10_000,
            pace: wanted.pace,
            drain: draining,
            metrics: metrics.clone(),
        });
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let at = listener.local_addr().expect("an address");
        let routes = intake::routes(Arc::clone(&intake));
        runtime.spawn(async move { axum::serve(listener, routes).await });
        Self {
            runtime,
            at,
            access,
            intake,
            metrics,
            drain,
        }
    }

    pub(crate) fn run<T>(&self, test: impl Future<Output = T>) -> T {
        self.runtime.block_on(test)
    }

    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime.spawn(work)
    }

    pub(crate) fn token(&self, driver: u64) -> String {
        self.token_for(&Subject::Driver(DriverId(driver)), Duration::from_secs(600))
    }

    pub(crate) fn token_for(&self, subject: &Subject, ttl: Duration) -> String {
        self.access.mint(subject, ttl).expect("there is a key")
    }

    pub(crate) fn drain(&self) {
        self.drain.send(true).expect("the intake listens");
    }

    pub(crate) fn count(&self, outcome: UpdateOutcome) -> u64 {
        self.metrics.updates.get(outcome)
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.count(UpdateOutcome::Accepted)
    }

    pub(crate) fn ended(&self, end: End) -> u64 {
        self.metrics.sockets_ended.get(end)
    }
}

/// One update's JSON; the place tells them apart.
pub(crate) fn update(number: u64, state: &str) -> String {
    let latitude = 12.9 + number as f64 * 1e-5;
    let timestamp = 1_790_000_000_000u64.min(crate::common::now_ms() as u64) - 3_600_000 + number;
    format!(
        r#"{{"longitude":77.5946,"latitude":{latitude:.5},"state":"{state}","timestamp":{timestamp}}}"#
    )
}

/// The same with its number.
pub(crate) fn numbered(seq: u64) -> String {
    let state = if seq.is_multiple_of(3) {
        "south"
    } else {
        "north"
    };
    format!("{{\"seq\":{seq},{}", &update(seq, state)[1..])
}

/// How often each number of a session is in the topic, after its records were seen to be in
/// order within each partition, allowing for repeats.
pub(crate) fn stored(lab: &Lab, session: &str) -> BTreeMap<u64, usize> {
    stored_in(&lab.read_all(TOPIC), session)
}

pub(crate) fn stored_in(records: &[Received], session: &str) -> BTreeMap<u64, usize> {
    let mut times = BTreeMap::new();
    for record in records {
        let (name, seq) = record.header("rf-seq").split_once('/').expect("rf-seq");
        if name == session {
            *times.entry(seq.parse().expect("a number")).or_insert(0) += 1;
        }
    }
    times
}

/// The numbers of a session, partition by partition, in the order of the topic.
pub(crate) fn by_partition(records: &[Received], session: &str) -> BTreeMap<i32, Vec<u64>> {
    let mut all: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
    for record in records {
        let (name, seq) = record.header("rf-seq").split_once('/').expect("rf-seq");
        if name == session {
            let seq = seq.parse().expect("a number");
            all.entry(record.partition).or_default().push(seq);
        }
    }
    all
}

pub(crate) fn once_each(seqs: impl IntoIterator<Item = u64>) -> BTreeMap<u64, usize> {
    seqs.into_iter().map(|seq| (seq, 1)).collect()
}

/// Kafka stands still for as long as this lives.
pub(crate) struct Frozen(u32);

impl Frozen {
    pub(crate) fn kafka(lab: &mut Lab) -> Self {
        let pid = lab.services().pids()[0];
        signal(pid, Signal::STOP);
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal(self.0, Signal::CONT);
    }
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid as i32).expect("a process");
    kill_process(pid, signal).expect("it runs");
}
