//! `riderflow check`: what a pipeline file means, and what is wrong with it.

use std::collections::BTreeSet;

use serde_json::json;

use super::Failure;
use super::init::{table_failure, topic_failure};
use crate::clickhouse::{DATABASE, Server, migrate};
use crate::config::{self, ConfigError, Pipeline};
use crate::dataflow::graph::{Graph, Store, StoreKind};
use crate::kafka::admin;

/// Validates a pipeline file and, with --connect, the services and tables.
///
/// Nothing is created or changed; `init` creates what is missing. The exit code is 3 for a bad
/// file, 4 for a service that can't be reached, and 1 for topics or tables that differ.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The pipeline file
    pub(super) pipeline: std::path::PathBuf,
    /// Also compare Kafka's topics and ClickHouse's tables with what the pipeline needs
    #[arg(long)]
    connect: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: Args) -> Result<(), Failure> {
    let file = args.pipeline.display().to_string();
    let pipeline = config::load(&args.pipeline).or_else(|error| {
        if args.json {
            super::print(&format!("{}\n", refusal(&error)))?;
        }
        Err(Failure::from(error))
    })?;
    let graph = Graph::of(&pipeline);
    let warnings = warnings(&pipeline);
    let services = if args.connect {
        connect(&pipeline)
    } else {
        Vec::new()
    };
    if args.json {
        let mut report = report(&file, &pipeline, &graph, &warnings);
        add_services(&mut report, &services);
        super::print(&format!("{report}\n"))?;
    } else {
        let mut text = summary(&file, &pipeline, &graph);
        for service in services.iter().filter(|service| service.outcome.is_ok()) {
            text.push_str(&format!("{}\n", service.praise));
        }
        super::print(&text)?;
    }
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    verdict(services)
}

/// A service that was asked, and what came of it.
struct Service {
    name: &'static str,
    /// What to say if all is well.
    praise: String,
    outcome: Result<(), Failure>,
}

/// Asks every service that the pipeline needs; one that fails doesn't hide the next.
fn connect(pipeline: &Pipeline) -> Vec<Service> {
    let brokers = &pipeline.kafka.brokers;
    let topics = admin::verify_topics(brokers, pipeline).map_err(topic_failure);
    let mut services = vec![Service {
        name: "kafka",
        praise: format!("Kafka at {brokers}: all topics are as they should be"),
        outcome: topics,
    }];
    if pipeline.clickhouse.enabled {
        let tables = migrate::verify(&Server::of(pipeline), DATABASE).map_err(table_failure);
        services.push(Service {
            name: "clickhouse",
            praise: format!(
                "ClickHouse at {}: all tables are as they should be",
                pipeline.clickhouse.url
            ),
            outcome: tables,
        });
    }
    services
}

fn add_services(report: &mut serde_json::Value, services: &[Service]) {
    for Service { name, outcome, .. } in services {
        let error = outcome.as_ref().err();
        report["services"][name] = json!({
            "ok": error.is_none(),
            "reachable": !matches!(error, Some(Failure::Unreachable(_))),
            "error": error.map(Failure::to_string),
        });
        if error.is_some() {
            report["ok"] = json!(false);
        }
    }
}

/// One failure for all: out of reach weighs more than different.
fn verdict(services: Vec<Service>) -> Result<(), Failure> {
    let failures: Vec<Failure> = services
        .into_iter()
        .filter_map(|service| service.outcome.err())
        .collect();
    if failures.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = failures.iter().map(Failure::to_string).collect();
    let text = texts.join("\n");
    let is_unreachable = |failure: &Failure| matches!(failure, Failure::Unreachable(_));
    if failures.iter().any(is_unreachable) {
        Err(Failure::Unreachable(text))
    } else {
        Err(Failure::Failed(anyhow::anyhow!(text)))
    }
}

/// What a refused file looks like as JSON.
fn refusal(error: &ConfigError) -> serde_json::Value {
    json!({ "ok": false, "file": error.file(), "problems": error.problems() })
}

fn report(
    file: &str,
    pipeline: &Pipeline,
    graph: &Graph,
    warnings: &[String],
) -> serde_json::Value {
    let (inputs, outputs, tables) = stores(graph);
    let topics = |stores: &[&Store]| -> Vec<_> {
        let topic = |store: &&Store| json!({ "topic": store.name, "partitions": store.partitions });
        stores.iter().map(topic).collect()
    };
    let tables: Vec<_> = tables.iter().map(|table| &table.name).collect();
    let operators: Vec<_> = graph.stages.iter().map(|stage| stage.name).collect();
    json!({
        "ok": true,
        "file": file,
        "pipeline": pipeline,
        "inputs": topics(&inputs),
        "outputs": topics(&outputs),
        "tables": tables,
        "stages": operators,
        "warnings": warnings,
    })
}

/// Topics that are read, topics that are written, tables.
fn stores(graph: &Graph) -> (Vec<&Store>, Vec<&Store>, Vec<&Store>) {
    let of_kind = |kind| graph.stores.iter().filter(move |store| store.kind == kind);
    let tables = of_kind(StoreKind::Table).collect();
    let (inputs, outputs) = of_kind(StoreKind::Topic)
        .partition(|topic| graph.flows_out_of(&topic.name).next().is_some());
    (inputs, outputs, tables)
}

fn summary(file: &str, pipeline: &Pipeline, graph: &Graph) -> String {
    let (inputs, outputs, tables) = stores(graph);
    let topics = |stores: &[&Store]| {
        let topic = |store: &&Store| match store.partitions {
            Some(partitions) => format!("{} ({partitions})", store.name),
            None => store.name.clone(),
        };
        stores.iter().map(topic).collect::<Vec<_>>().join(", ")
    };
    let states = pipeline
        .routes
        .0
        .iter()
        .filter(|(state, _)| *state != "default");
    let mut routes: Vec<_> = states
        .map(|(state, to)| format!("{state} to {to}"))
        .collect();
    routes.push(match pipeline.routes.0.get("default") {
        Some(to) => format!("every other state to {to}"),
        None => "every other state by key".into(),
    });
    let rows = &pipeline.clickhouse;
    let clickhouse = if rows.enabled {
        let tables: Vec<_> = tables.iter().map(|table| table.name.as_str()).collect();
        let tables = tables.join(", ");
        format!(
            "{} ({tables}), a batch every {} rows or {} ms",
            rows.url, rows.batch_rows, rows.batch_ms
        )
    } else {
        "off".into()
    };
    let orders = &pipeline.orders;
    let near = if orders.near_repeat {
        format!("{} m, again after {} m", orders.near_m, orders.rearm_m)
    } else {
        format!("{} m, once a leg", orders.near_m)
    };
    let updates = &pipeline.updates;
    let lines = [
        ("kafka", pipeline.kafka.brokers.clone()),
        ("reads", topics(&inputs)),
        ("writes", topics(&outputs)),
        ("routes", routes.join(", ")),
        ("clickhouse", clickhouse),
        ("near", near),
        (
            "arrived",
            format!("{} s within {} m", orders.arrive_s, orders.arrive_m),
        ),
        ("departed", format!("past {} m", orders.depart_m)),
        ("silent", format!("after {} s", pipeline.drivers.silent_s)),
        (
            "crossed",
            format!("fixes at most {} s apart", pipeline.fences.crossing_gap_s),
        ),
        (
            "updates",
            format!(
                "at most {} bytes, {} m, {} m/s, {} s ahead; held for {} s",
                updates.max_bytes,
                updates.max_accuracy_m,
                updates.max_speed_mps,
                updates.future_limit_s,
                updates.lateness_s
            ),
        ),
        ("epoch", format!("{} ms", pipeline.epoch.interval_ms)),
        (
            "snapshots",
            format!(
                "{}, every {} s",
                pipeline.snapshots.folder().display(),
                pipeline.snapshots.interval_s
            ),
        ),
        ("gateway", gateway(pipeline)),
    ];
    let mut text = format!("{file}: pipeline {} is valid\n", pipeline.name);
    for (name, value) in lines {
        text.push_str(&format!("  {name:<11} {value}\n"));
    }
    text
}

fn gateway(pipeline: &Pipeline) -> String {
    let gateway = &pipeline.gateway;
    let tls = if gateway.certificate.is_empty() {
        "without TLS"
    } else {
        "with TLS"
    };
    let keys = if gateway.jwks.is_empty() {
        "RIDERFLOW_GATEWAY_KEY"
    } else {
        &gateway.jwks
    };
    let origins: Vec<_> = gateway.allowed_origins().collect();
    let origins = if origins.is_empty() {
        "its own pages".to_owned()
    } else {
        format!("its own pages and {}", origins.join(", "))
    };
    format!(
        "{} {tls}, {} tokens of {} for {} by {keys}, browsers from {origins}, at most {} connections",
        gateway.listen, gateway.algorithm, gateway.issuer, gateway.audience, gateway.connections
    )
}

/// What is allowed but seldom meant.
fn warnings(pipeline: &Pipeline) -> Vec<String> {
    let mut warnings = Vec::new();
    let routes = &pipeline.routes.0;
    let used: BTreeSet<i32> = routes.values().copied().collect();
    let unused: Vec<String> = (0..pipeline.topics.partitions)
        .filter(|partition| !used.contains(partition))
        .map(|partition| partition.to_string())
        .collect();
    if routes.contains_key("default") && !unused.is_empty() {
        warnings.push(format!(
            "no route leads to partition {} of rider-updates",
            unused.join(", ")
        ));
    }
    let orders = &pipeline.orders;
    if orders.arrive_m > orders.near_m {
        warnings.push(format!(
            "orders.arrive_m is {} and orders.near_m {}: a driver arrives before being near",
            orders.arrive_m, orders.near_m
        ));
    }
    let gateway = &pipeline.gateway;
    let is_loopback = gateway
        .listen
        .parse()
        .is_ok_and(|address: std::net::SocketAddr| address.ip().is_loopback());
    if gateway.certificate.is_empty() && !is_loopback {
        warnings.push(format!(
            "gateway.listen is {} without gateway.certificate: tokens and positions are readable \
             on the way unless a proxy speaks TLS before it",
            gateway.listen
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_the_pipeline_does() {
        let pipeline = Pipeline::defaults("rider-alerts");
        let text = summary("p.toml", &pipeline, &Graph::of(&pipeline));
        assert_eq!(
            text,
            "\
p.toml: pipeline rider-alerts is valid
  kafka       localhost:9092
  reads       geofences (1), orders (2), rider-updates (2)
  writes      rider-notifications (2), rider-updates-dead-letter (1), riderflow-rider-alerts-epochs (1)
  routes      south to 0, every other state to 1
  clickhouse  http://localhost:8123 (driver_locations, events, rejected_updates, cell_minutes, driver_minutes, driver_sessions), a batch every 100000 rows or 1000 ms
  near        500 m, once a leg
  arrived     10 s within 60 m
  departed    past 150 m
  silent      after 30 s
  crossed     fixes at most 60 s apart
  updates     at most 16384 bytes, 100 m, 70 m/s, 60 s ahead; held for 0 s
  epoch       100 ms
  snapshots   ./riderflow-state, every 10 s
  gateway     127.0.0.1:8080 without TLS, HS256 tokens of riderflow for riderflow by RIDERFLOW_GATEWAY_KEY, browsers from its own pages, at most 100000 connections
"
        );
    }

    #[test]
    fn the_report_holds_what_a_script_needs() {
        let mut pipeline = Pipeline::defaults("rider-alerts");
        pipeline.clickhouse.enabled = false;
        let report = report("p.toml", &pipeline, &Graph::of(&pipeline), &[]);
        assert_eq!(report["ok"], true);
        assert_eq!(report["pipeline"]["orders"]["near_m"], 500.0);
        assert_eq!(report["inputs"][2]["topic"], "rider-updates");
        assert_eq!(report["outputs"][0]["partitions"], 2);
        assert_eq!(report["tables"], json!([]));
    }

    #[test]
    fn a_refusal_gives_the_place_of_each_problem() {
        let error = Pipeline::parse("name = \"x\"\n[orders]\nnear_km = 1\n", "p.toml").unwrap_err();
        let refusal = refusal(&error);
        assert_eq!(refusal["ok"], false);
        assert_eq!(
            refusal["problems"][0]["at"],
            json!({ "line": 3, "column": 1 })
        );
    }

    #[test]
    fn out_of_reach_weighs_more_than_different_and_both_are_told() {
        let service = |name, outcome| Service {
            name,
            praise: String::new(),
            outcome,
        };
        let differs = || Err(Failure::Failed(anyhow::anyhow!("a topic differs")));
        let away = || Err(Failure::Unreachable("ClickHouse is away".into()));
        assert!(verdict(vec![service("kafka", Ok(()))]).is_ok());
        let both = verdict(vec![
            service("kafka", differs()),
            service("clickhouse", away()),
        ]);
        let failure = both.unwrap_err();
        assert_eq!(failure.exit_code(), 4);
        assert_eq!(failure.to_string(), "a topic differs\nClickHouse is away");
        let one = verdict(vec![service("kafka", differs())]);
        assert_eq!(one.unwrap_err().exit_code(), 1);

        let mut report = json!({ "ok": true });
        add_services(
            &mut report,
            &[service("kafka", Ok(())), service("clickhouse", away())],
        );
        assert_eq!(report["ok"], false);
        assert_eq!(report["services"]["kafka"]["ok"], true);
        assert_eq!(report["services"]["clickhouse"]["reachable"], false);
    }

    #[test]
    fn what_is_seldom_meant_is_a_warning() {
        let mut pipeline = Pipeline::defaults("x");
        assert_eq!(warnings(&pipeline), Vec::<String>::new());
        pipeline.topics.partitions = 4;
        pipeline.orders.arrive_m = 600.0;
        assert_eq!(
            warnings(&pipeline),
            [
                "no route leads to partition 2, 3 of rider-updates",
                "orders.arrive_m is 600 and orders.near_m 500: a driver arrives before being near",
            ]
        );
        pipeline.routes.0.clear();
        assert_eq!(warnings(&pipeline).len(), 1);
        pipeline.gateway.listen = "0.0.0.0:8080".into();
        assert!(warnings(&pipeline)[1].contains("without gateway.certificate"));
        pipeline.gateway.certificate = "cert.pem".into();
        assert_eq!(warnings(&pipeline).len(), 1);
    }
}
