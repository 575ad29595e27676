//! `riderflow init` against a real Kafka and a real ClickHouse.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use riderflow::clickhouse::{DATABASE, Server, migrate};
use riderflow::config::Pipeline;
use riderflow::kafka::admin;
use riderflow::services::{Options, Services};

const BINARY: &str = env!("CARGO_BIN_EXE_riderflow");

fn pipeline_file(dir: &Path, more: &str) -> PathBuf {
    let path = dir.join("pipeline.toml");
    std::fs::write(&path, format!("name = \"alerts\"\n{more}")).unwrap();
    path
}

fn init(pipeline: &Path, services: &Services, more: &[&str]) -> Output {
    Command::new(BINARY)
        .arg("init")
        .arg(pipeline)
        .args(more)
        .env("RIDERFLOW_KAFKA", services.kafka())
        .env("RIDERFLOW_CLICKHOUSE", services.clickhouse_url())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

const OBJECTS: [&str; 15] = [
    "topic rider-updates",
    "topic orders",
    "topic geofences",
    "topic rider-notifications",
    "topic rider-updates-dead-letter",
    "topic riderflow-alerts-epochs",
    "database riderflow",
    "table riderflow.cell_minutes",
    "table riderflow.driver_locations",
    "table riderflow.driver_minutes",
    "table riderflow.driver_sessions",
    "table riderflow.events",
    "table riderflow.rejected_updates",
    "table riderflow.schema_migrations",
    "table riderflow.writers",
];

/// One pair of services for the whole story: they are what takes the time.
#[test]
fn topics_and_tables_are_made_once_and_compared_ever_after() {
    let dir = tempfile::tempdir().unwrap();
    let services =
        Services::start(&Options::for_tests(dir.path().join("services"), BINARY)).unwrap();
    let file = pipeline_file(dir.path(), "");

    let first = stdout(&init(&file, &services, &[]));
    assert_eq!(
        first.lines().collect::<Vec<_>>(),
        OBJECTS.map(|object| format!("{object}: created"))
    );
    let second = stdout(&init(&file, &services, &[]));
    assert_eq!(
        second.lines().collect::<Vec<_>>(),
        OBJECTS.map(|object| format!("{object}: was there"))
    );

    let json = stdout(&init(&file, &services, &["--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["objects"].as_array().unwrap().len(), OBJECTS.len());
    assert_eq!(
        json["objects"][1],
        serde_json::json!({"kind": "topic", "name": "orders", "created": false})
    );

    // What `check --connect` asks.
    let pipeline: Pipeline = toml::from_str("name = \"alerts\"").unwrap();
    admin::verify_topics(services.kafka(), &pipeline).unwrap();
    let server = Server {
        url: services.clickhouse_url().into(),
        user: None,
        password: None,
    };
    migrate::verify(&server, DATABASE).unwrap();

    // A user that the server does not know.
    let refused = Command::new(BINARY)
        .arg("init")
        .arg(&file)
        .env("RIDERFLOW_KAFKA", services.kafka())
        .env("RIDERFLOW_CLICKHOUSE", services.clickhouse_url())
        .env("RIDERFLOW_CLICKHOUSE_USER", "nobody")
        .env("RIDERFLOW_CLICKHOUSE_PASSWORD", "secret")
        .output()
        .unwrap();
    let error = stderr(&refused, 1);
    assert!(
        error.contains("RIDERFLOW_CLICKHOUSE_USER") && !error.contains("secret"),
        "{error}"
    );

    // Another pipeline shares all but the epoch log.
    let other = pipeline_file(dir.path(), "").with_file_name("other.toml");
    std::fs::write(&other, "name = \"other\"").unwrap();
    let shared = stdout(&init(&other, &services, &[]));
    let created: Vec<_> = shared
        .lines()
        .filter(|line| line.ends_with(": created"))
        .collect();
    assert_eq!(created, ["topic riderflow-other-epochs: created"]);

    // Keeping more is no difference; keeping less is one, and so are other partitions.
    alter(&services, "rider-updates", "retention.ms", "172800000");
    stdout(&init(&file, &services, &[]));
    alter(&services, "orders", "cleanup.policy", "delete");
    alter(&services, "geofences", "min.compaction.lag.ms", "1000");
    more_partitions(&services, "rider-notifications", 3);
    let error = stderr(&init(&file, &services, &[]), 1);
    for expected in [
        "orders: cleanup.policy: expected compact, found delete; run kafka-configs.sh",
        "geofences: min.compaction.lag.ms: expected at least 172800000, found 1000",
        "rider-notifications: partitions: expected 2, found 3",
    ] {
        assert!(error.contains(expected), "{expected} is not in:\n{error}");
    }
    let error = admin::verify_topics(services.kafka(), &pipeline).unwrap_err();
    assert!(
        matches!(&error, admin::TopicError::Different(differences) if differences.len() == 3),
        "{error}"
    );
    let missing: Pipeline = toml::from_str("name = \"third\"").unwrap();
    let error = admin::verify_topics(services.kafka(), &missing)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("riderflow-third-epochs: topic: expected 1 partitions, found nothing"),
        "{error}"
    );
}

#[test]
fn services_that_are_away_are_named_with_exit_code_4() {
    let dir = tempfile::tempdir().unwrap();
    let file = pipeline_file(dir.path(), "[kafka]\nbrokers = \"127.0.0.1:9\"");
    let output = Command::new(BINARY)
        .arg("init")
        .arg(&file)
        .env_remove("RIDERFLOW_KAFKA")
        .output()
        .unwrap();
    let error = stderr(&output, 4);
    assert!(
        error.contains("127.0.0.1:9") && error.contains("riderflow up"),
        "{error}"
    );
}

#[test]
fn clickhouse_away_is_code_4_and_disabled_is_not_asked() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::for_tests(dir.path().join("services"), BINARY);
    options.clickhouse = false;
    let services = Services::start(&options).unwrap();
    let run = |file: &Path| {
        Command::new(BINARY)
            .arg("init")
            .arg(file)
            .env("RIDERFLOW_KAFKA", services.kafka())
            .env("RIDERFLOW_CLICKHOUSE", "http://127.0.0.1:9")
            .output()
            .unwrap()
    };
    let away = run(&pipeline_file(dir.path(), ""));
    let error = stderr(&away, 4);
    assert!(
        error.contains("http://127.0.0.1:9") && error.contains("RIDERFLOW_CLICKHOUSE"),
        "{error}"
    );

    let without = run(&pipeline_file(dir.path(), "[clickhouse]\nenabled = false"));
    let text = stdout(&without);
    assert_eq!(text.lines().count(), 6, "{text}");
    assert!(!text.contains("table"), "{text}");
}

fn client(services: &Services) -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", services.kafka())
        .create()
        .unwrap()
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

/// Sets one setting; the topic's others go back to defaults, so all of them are given.
fn alter(services: &Services, topic: &str, name: &str, value: &str) {
    let client = client(services);
    let options = AdminOptions::new();
    let described =
        wait(client.describe_configs(&[ResourceSpecifier::Topic(topic)], &options)).unwrap();
    let resource = described.into_iter().next().unwrap().unwrap();
    let mut settings: Vec<_> = resource
        .entries
        .iter()
        .filter(|entry| !entry.is_default && entry.name != name)
        .filter_map(|entry| Some((entry.name.as_str(), entry.value.as_deref()?)))
        .collect();
    settings.push((name, value));
    let mut config = AlterConfig::new(ResourceSpecifier::Topic(topic));
    for (name, value) in settings {
        config = config.set(name, value);
    }
    for result in wait(client.alter_configs(&[config], &options)).unwrap() {
        result.unwrap();
    }
    settle();
}

fn more_partitions(services: &Services, topic: &str, count: usize) {
    let client = client(services);
    let more = NewPartitions::new(topic, count);
    for result in wait(client.create_partitions(&[more], &AdminOptions::new())).unwrap() {
        result.unwrap();
    }
    settle();
}

/// The broker applies what the controller wrote a moment later.
fn settle() {
    std::thread::sleep(Duration::from_millis(500));
}
