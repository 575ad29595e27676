//! The dataflow as plain data: its stages, what flows between them and by which route.
//!
//! This is the declaration that `riderflow explain` prints. The timely operators carry exactly
//! the names of the stages that run on every worker ([`Graph::operators`]), so a test can hold
//! the running dataflow against it. Nothing here runs anything.

use crate::config::Pipeline;
use crate::model::Input;

/// What a stage is, in `source → decode → detect → encode → sink`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads records.
    Source,
    /// Bytes to model.
    Decode,
    /// Model to events.
    Detect,
    /// Events to bytes, in the order in which they are told.
    Encode,
    /// Writes them.
    Sink,
}

impl Kind {
    /// The kind in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Decode => "decode",
            Self::Detect => "detect",
            Self::Encode => "encode",
            Self::Sink => "sink",
        }
    }
}

/// Where a stage runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// A timely operator, on every worker.
    Workers,
    /// The one thread whose Kafka transactions may block.
    Committer,
    /// The one ClickHouse writer.
    Writer,
    /// The one thread that writes snapshots.
    Snapshots,
}

impl Site {
    /// All sites, in the order in which data passes them.
    pub const ALL: [Self; 4] = [
        Self::Workers,
        Self::Committer,
        Self::Writer,
        Self::Snapshots,
    ];

    /// The site in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workers => "every worker",
            Self::Committer => "committer thread",
            Self::Writer => "ClickHouse writer",
            Self::Snapshots => "snapshot thread",
        }
    }
}

/// How data finds the instance that is to have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Partition index modulo workers.
    Partition,
    /// To the worker that a hash of the order id names.
    Order,
    /// To the worker that owns the fence's key group.
    Fence,
    /// To the worker that owns the driver's key group.
    Driver,
    /// To the worker that a hash of the window and its H3 cell names.
    Cell,
    /// Stays on the worker where it is.
    Worker,
    /// To every worker.
    Broadcast,
    /// To one worker.
    One,
    /// Through a bounded queue; when it is full, the sender waits.
    Queue,
}

impl Route {
    /// The route in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Partition => "by partition",
            Self::Order => "by order",
            Self::Fence => "by fence",
            Self::Driver => "by driver",
            Self::Cell => "by window and cell",
            Self::Worker => "on the same worker",
            Self::Broadcast => "to all",
            Self::One => "to one",
            Self::Queue => "bounded queue",
        }
    }
}

/// Where data rests outside the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// A Kafka topic.
    Topic,
    /// A ClickHouse table.
    Table,
    /// A folder or an object store.
    Folder,
}

/// A topic, a table or a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Its name.
    pub name: String,
    /// Which of them it is.
    pub kind: StoreKind,
    /// How many partitions a topic has.
    pub partitions: Option<i32>,
}

/// Something that flows from one store or stage to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The name of a store or stage.
    pub from: String,
    /// The name of a store or stage.
    pub to: String,
    /// What flows.
    pub carries: &'static str,
    /// How; `None` into a store.
    pub route: Option<Route>,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its name, which is also the timely operator's.
    pub name: &'static str,
    /// What it is; the source decodes too.
    pub kinds: &'static [Kind],
    /// Where it runs.
    pub site: Site,
    /// What it does, with the pipeline's thresholds, a line each.
    pub does: Vec<String>,
}

/// The whole dataflow of one pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    /// The pipeline's name.
    pub pipeline: String,
    /// In the order in which data passes them.
    pub stages: Vec<Stage>,
    /// Inputs first.
    pub stores: Vec<Store>,
    /// Everything that flows.
    pub flows: Vec<Flow>,
}

/// The tables that the job writes.
const TABLES: [(&str, &str); 3] = [
    ("driver_locations", "judged updates"),
    ("events", "events"),
    ("rejected_updates", "dead letters"),
];

/// The tables of windows.
const WINDOW_TABLES: [&str; 3] = ["cell_minutes", "driver_minutes", "driver_sessions"];

impl Graph {
    /// The dataflow that `pipeline` runs.
    pub fn of(pipeline: &Pipeline) -> Self {
        let rows = pipeline.clickhouse.enabled;
        let windows = rows && pipeline.windows.enabled;
        let mut stages = vec![
            read_inputs(pipeline),
            keep_fences(),
            resolve_orders(),
            detect(pipeline),
        ];
        if windows {
            stages.extend(window_stages(pipeline));
        }
        stages.extend([collect_epoch(pipeline), collect_parts(), commit(pipeline)]);
        let mut graph = Self {
            pipeline: pipeline.name.clone(),
            stages,
            stores: Vec::new(),
            flows: Vec::new(),
        };
        graph.add_inputs(pipeline);
        let carries = "fence changes";
        graph.flow("read_inputs", "keep_fences", carries, Route::Fence);
        graph.flow(
            "read_inputs",
            "resolve_orders",
            "order changes",
            Route::Order,
        );
        graph.flow("read_inputs", "detect", "updates", Route::Driver);
        graph.flow("read_inputs", "detect", "fence changes", Route::Broadcast);
        graph.flow("resolve_orders", "detect", "order steps", Route::Driver);
        let carries = "dead letters, offset ranges";
        graph.flow("read_inputs", "collect_epoch", carries, Route::One);
        let carries = if rows {
            "events, judged updates"
        } else {
            "events"
        };
        graph.flow("detect", "collect_epoch", carries, Route::One);
        graph.flow("collect_epoch", "commit", "whole epochs", Route::Queue);
        let mut stateful = vec!["keep_fences", "resolve_orders", "detect"];
        if windows {
            stateful.extend(["trace_drivers", "tell_cells"]);
        }
        for stage in stateful {
            graph.flow(stage, "collect_parts", "state, if it is wanted", Route::One);
        }
        graph.flow("collect_parts", "commit", "whole snapshots", Route::Queue);
        graph.add_topics_out(pipeline);
        if windows {
            let carries = "updates flagged ok or late";
            graph.flow("detect", "trace_drivers", carries, Route::Worker);
            let carries = "differences of traffic";
            graph.flow("trace_drivers", "arrange_cells", carries, Route::Cell);
            let carries = "sums of before the start";
            graph.flow("restore_cells", "arrange_cells", carries, Route::Cell);
            for stage in ["expire_cells", "tell_cells"] {
                graph.flow("arrange_cells", stage, "arranged sums", Route::Worker);
            }
            for stage in ["trace_drivers", "tell_cells"] {
                graph.flow(stage, "commit", "windows that changed", Route::Queue);
            }
        }
        if rows {
            graph.stages.push(write_rows(pipeline));
            graph.flow("commit", "write_rows", "committed epochs", Route::Queue);
            for (table, carries) in TABLES {
                graph.write("write_rows", table, StoreKind::Table, None, carries);
            }
        }
        if windows {
            for table in WINDOW_TABLES {
                graph.write("write_rows", table, StoreKind::Table, None, "windows");
            }
        }
        let every_s = pipeline.snapshots.interval_s;
        graph.stages.push(write_snapshots(every_s));
        graph.flow("commit", "write_snapshots", "snapshots", Route::Queue);
        let folder = &pipeline.snapshots.url;
        graph.write("write_snapshots", folder, StoreKind::Folder, None, "state");
        graph
    }

    /// The names of the timely operators, in order.
    pub fn operators(&self) -> impl Iterator<Item = &'static str> {
        self.at(Site::Workers).map(|stage| stage.name)
    }

    /// The stages that run at `site`, in order.
    pub fn at(&self, site: Site) -> impl Iterator<Item = &Stage> {
        self.stages.iter().filter(move |stage| stage.site == site)
    }

    /// What flows into a stage or store.
    pub fn flows_into(&self, name: &str) -> impl Iterator<Item = &Flow> {
        self.flows.iter().filter(move |flow| flow.to == name)
    }

    /// What flows out of a stage or store.
    pub fn flows_out_of(&self, name: &str) -> impl Iterator<Item = &Flow> {
        self.flows.iter().filter(move |flow| flow.from == name)
    }

    fn flow(&mut self, from: &str, to: &str, carries: &'static str, route: Route) {
        self.flows.push(Flow {
            from: from.into(),
            to: to.into(),
            carries,
            route: Some(route),
        });
    }

    fn write(
        &mut self,
        stage: &str,
        store: &str,
        kind: StoreKind,
        partitions: Option<i32>,
        carries: &'static str,
    ) {
        self.stores.push(Store {
            name: store.into(),
            kind,
            partitions,
        });
        self.flows.push(Flow {
            from: stage.into(),
            to: store.into(),
            carries,
            route: None,
        });
    }

    fn add_inputs(&mut self, pipeline: &Pipeline) {
        for input in Input::ALL {
            let (partitions, carries) = match input {
                Input::Geofences => (1, "fences"),
                Input::Orders => (pipeline.topics.partitions, "orders"),
                Input::Updates => (pipeline.topics.partitions, "updates"),
            };
            self.stores.push(Store {
                name: input.topic().into(),
                kind: StoreKind::Topic,
                partitions: Some(partitions),
            });
            self.flow(input.topic(), "read_inputs", carries, Route::Partition);
        }
    }

    fn add_topics_out(&mut self, pipeline: &Pipeline) {
        let partitions = pipeline.topics.partitions;
        let epochs = format!("riderflow-{}-epochs", pipeline.name);
        for (topic, partitions, carries) in [
            ("rider-notifications", partitions, "events"),
            ("rider-updates-dead-letter", 1, "dead letters"),
            (&epochs, 1, "epoch records"),
        ] {
            self.write("commit", topic, StoreKind::Topic, Some(partitions), carries);
        }
    }
}

fn read_inputs(pipeline: &Pipeline) -> Stage {
    let updates = &pipeline.updates;
    Stage {
        name: "read_inputs",
        kinds: &[Kind::Source, Kind::Decode],
        site: Site::Workers,
        does: vec![
            "decodes each record while its bytes are at hand; gives it its place in the merged order".into(),
            format!("closes an epoch every {} ms", pipeline.epoch.interval_ms),
            format!(
                "refuses updates over {} bytes or more than {} s ahead of Kafka's timestamp",
                updates.max_bytes, updates.future_limit_s
            ),
        ],
    }
}

fn keep_fences() -> Stage {
    Stage {
        name: "keep_fences",
        kinds: &[Kind::Detect],
        site: Site::Workers,
        does: vec!["keeps each fence once, for snapshots".into()],
    }
}

fn collect_parts() -> Stage {
    Stage {
        name: "collect_parts",
        kinds: &[Kind::Encode],
        site: Site::Workers,
        does: vec!["gathers the state after an epoch, by 256 key groups".into()],
    }
}

fn write_snapshots(every_s: f64) -> Stage {
    Stage {
        name: "write_snapshots",
        kinds: &[Kind::Sink],
        site: Site::Snapshots,
        does: vec![format!(
            "every {every_s} s, what has changed since the one before; beside the commits"
        )],
    }
}

fn resolve_orders() -> Stage {
    Stage {
        name: "resolve_orders",
        kinds: &[Kind::Detect],
        site: Site::Workers,
        does: vec![
            "keeps each order's last version; turns a change into one step per driver it concerns"
                .into(),
        ],
    }
}

fn detect(pipeline: &Pipeline) -> Stage {
    let Pipeline {
        updates,
        orders,
        drivers,
        fences,
        ..
    } = pipeline;
    let repeat = if orders.near_repeat {
        format!("again after {} m", orders.rearm_m)
    } else {
        "once a leg".into()
    };
    let mut does = vec![
        "merges an epoch's updates, order steps and fence changes into the one order".into(),
        "drops what was resent: by driver, partition and session, numbers that were reached".into(),
        format!(
            "flags: inaccurate over {} m, teleport over {} m/s",
            updates.max_accuracy_m, updates.max_speed_mps
        ),
        format!(
            "geofence.crossed: fixes at most {} s apart",
            fences.crossing_gap_s
        ),
        format!("agent.near: within {} m, {repeat}", orders.near_m),
        format!(
            "agent.arrived: {} s within {} m; agent.departed: past {} m",
            orders.arrive_s, orders.arrive_m, orders.depart_m
        ),
        format!(
            "driver.silent: nothing for {} s with an open order",
            drivers.silent_s
        ),
    ];
    if updates.lateness_s > 0.0 {
        let line = format!(
            "holds an update for {} s, for older ones to overtake it",
            updates.lateness_s
        );
        does.insert(2, line);
    }
    Stage {
        name: "detect",
        kinds: &[Kind::Detect],
        site: Site::Workers,
        does,
    }
}

/// The stages of windows; those of cells are differential dataflow.
fn window_stages(pipeline: &Pipeline) -> [Stage; 5] {
    let windows = &pipeline.windows;
    let stage = |name, does| Stage {
        name,
        kinds: &[Kind::Detect],
        site: Site::Workers,
        does,
    };
    let drivers = vec![
        format!(
            "driver_minutes: {}; driver_sessions: ended by {} s without an update",
            lengths(pipeline),
            windows.session_gap_s
        ),
        format!(
            "a late update corrects its windows, for {} s; then they leave memory",
            windows.horizon_s
        ),
    ];
    let cells = format!(
        "cell_minutes: sums drivers, updates and speeds per H3 cell and window of {}",
        lengths(pipeline)
    );
    let restore = "at a start, gives the sums that a snapshot has".into();
    let expire = "negates the sums of windows that have passed the horizon".into();
    let tell = "counts each cell's sums and tells what has changed".into();
    [
        stage("trace_drivers", drivers),
        stage("restore_cells", vec![restore]),
        stage("arrange_cells", vec![cells]),
        stage("expire_cells", vec![expire]),
        stage("tell_cells", vec![tell]),
    ]
}

/// The windows' kind.
fn lengths(pipeline: &Pipeline) -> String {
    let windows = &pipeline.windows;
    if windows.hop_s == 0 || windows.hop_s == windows.size_s {
        format!("{} s", windows.size_s)
    } else {
        format!("{} s every {} s", windows.size_s, windows.hop_s)
    }
}

fn collect_epoch(pipeline: &Pipeline) -> Stage {
    let what = if pipeline.clickhouse.enabled {
        "events, judged updates, dead letters and offset ranges"
    } else {
        "events, dead letters and offset ranges"
    };
    Stage {
        name: "collect_epoch",
        kinds: &[Kind::Encode],
        site: Site::Workers,
        does: vec![format!(
            "gathers an epoch's {what}, in the order in which they are told"
        )],
    }
}

fn commit(pipeline: &Pipeline) -> Stage {
    Stage {
        name: "commit",
        kinds: &[Kind::Sink],
        site: Site::Committer,
        does: vec![
            format!(
                "one Kafka transaction for an epoch's outputs and its record, as `{}`",
                pipeline.name
            ),
            "commits the inputs' offsets beside it, for lag tools".into(),
        ],
    }
}

fn write_rows(pipeline: &Pipeline) -> Stage {
    let clickhouse = &pipeline.clickhouse;
    Stage {
        name: "write_rows",
        kinds: &[Kind::Sink],
        site: Site::Writer,
        does: vec![format!(
            "after the commit; a batch every {} rows or {} ms, whichever is first",
            clickhouse.batch_rows, clickhouse.batch_ms
        )],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn default_graph() -> Graph {
        Graph::of(&Pipeline::defaults("rider-alerts"))
    }

    #[test]
    fn every_flow_joins_what_exists_and_nothing_stands_alone() {
        let graph = default_graph();
        let stages = graph.stages.iter().map(|stage| stage.name);
        let stores = graph.stores.iter().map(|store| store.name.as_str());
        let nodes: BTreeSet<&str> = stages.chain(stores).collect();
        assert_eq!(nodes.len(), graph.stages.len() + graph.stores.len());
        for flow in &graph.flows {
            assert!(nodes.contains(flow.from.as_str()), "{flow:?}");
            assert!(nodes.contains(flow.to.as_str()), "{flow:?}");
        }
        for node in nodes {
            let joined = graph.flows_into(node).count() + graph.flows_out_of(node).count();
            assert!(joined > 0, "{node}");
        }
    }

    #[test]
    fn stages_come_in_the_order_of_the_flow() {
        let graph = default_graph();
        let rank = |name: &str| graph.stages.iter().position(|stage| stage.name == name);
        for flow in &graph.flows {
            if let (Some(from), Some(to)) = (rank(&flow.from), rank(&flow.to)) {
                assert!(from < to, "{flow:?}");
            }
        }
        let kinds = graph.stages.iter().flat_map(|stage| stage.kinds);
        let kinds: Vec<_> = kinds.map(|kind| *kind as u8).collect();
        assert!(kinds.is_sorted());
    }

    #[test]
    fn the_operators_are_the_stages_of_the_workers() {
        let operators: Vec<_> = default_graph().operators().collect();
        let expected = [
            "read_inputs",
            "keep_fences",
            "resolve_orders",
            "detect",
            "trace_drivers",
            "restore_cells",
            "arrange_cells",
            "expire_cells",
            "tell_cells",
            "collect_epoch",
            "collect_parts",
        ];
        assert_eq!(operators, expected);
    }

    #[test]
    fn without_clickhouse_there_is_no_writer_and_no_table() {
        let mut pipeline = Pipeline::defaults("rider-alerts");
        pipeline.clickhouse.enabled = false;
        let graph = Graph::of(&pipeline);
        assert_eq!(graph.at(Site::Writer).count(), 0);
        let is_table = |store: &&Store| store.kind == StoreKind::Table;
        assert_eq!(graph.stores.iter().filter(is_table).count(), 0);
    }
}
