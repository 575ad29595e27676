//! `docker-compose.yml` and `Dockerfile` agree with each other and with the rest of the source.
//!
//! No container engine is needed: the files are parsed, and what they say of names, ports,
//! versions and order is compared.

use std::collections::BTreeSet;

use riderflow::runtime::cluster::Cluster;
use serde_json::Value;

const MANIFEST: &str = include_str!("../Cargo.toml");
const DOCKERFILE: &str = include_str!("../Dockerfile");
const POM: &str = include_str!("../src/services/assets/pom.xml");

/// The job's processes, by number.
const RUNS: [&str; 2] = ["run-0", "run-1"];

fn compose() -> Value {
    let mut compose: Value = serde_saphyr::from_str(include_str!("../docker-compose.yml")).unwrap();
    for service in compose["services"].as_object_mut().unwrap().values_mut() {
        let service = service.as_object_mut().unwrap();
        merge(service);
        if let Some(environment) = service.get_mut("environment") {
            merge(environment.as_object_mut().unwrap());
        }
    }
    compose
}

/// `<<`: what is not said is as in the service that it refers to.
fn merge(service: &mut serde_json::Map<String, Value>) {
    if let Some(Value::Object(base)) = service.remove("<<") {
        for (key, value) in base {
            service.entry(key).or_insert(value);
        }
    }
}

/// What follows `flag` in a command.
fn flag<'a>(command: &[&'a str], flag: &str) -> &'a str {
    let at = command.iter().position(|&word| word == flag);
    command[at.unwrap_or_else(|| panic!("no {flag}")) + 1]
}

fn strings(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .unwrap_or_else(|| panic!("{value} is no list"))
        .iter()
        .map(|item| item.as_str().unwrap())
        .collect()
}

#[test]
fn the_services_are_the_two_the_job_and_a_gateway() {
    let compose = compose();
    let names: BTreeSet<&str> = compose["services"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        names,
        BTreeSet::from(["clickhouse", "gateway", "init", "kafka", "run-0", "run-1"])
    );
}

#[test]
fn images_are_pinned_to_the_versions_that_are_embedded() {
    let compose = compose();
    assert_eq!(compose["services"]["kafka"]["image"], "apache/kafka:4.3.1");
    assert!(POM.contains("<version>4.3.1</version>"));
    assert_eq!(
        compose["services"]["clickhouse"]["image"],
        "clickhouse/clickhouse-server:26.7"
    );
    for job in ["gateway", "init", "run-0", "run-1"] {
        assert_eq!(compose["services"][job]["build"], ".");
        assert_eq!(compose["services"][job]["image"], "riderflow");
    }
}

#[test]
fn the_job_finds_the_services_by_name_and_port() {
    let compose = compose();
    let kafka = &compose["services"]["kafka"]["environment"];
    let clickhouse = &compose["services"]["clickhouse"]["environment"];
    let advertised = kafka["KAFKA_ADVERTISED_LISTENERS"].as_str().unwrap();
    for job in ["gateway", "init", "run-0", "run-1"] {
        let environment = &compose["services"][job]["environment"];
        let brokers = environment["RIDERFLOW_KAFKA"].as_str().unwrap();
        assert_eq!(brokers, "kafka:9092");
        assert!(
            advertised
                .split(',')
                .any(|listener| listener == format!("PLAINTEXT://{brokers}"))
        );
        assert_eq!(
            environment["RIDERFLOW_CLICKHOUSE"],
            "http://clickhouse:8123"
        );
        for (ours, theirs) in [
            ("RIDERFLOW_CLICKHOUSE_USER", "CLICKHOUSE_USER"),
            ("RIDERFLOW_CLICKHOUSE_PASSWORD", "CLICKHOUSE_PASSWORD"),
        ] {
            assert!(environment[ours].is_string());
            assert_eq!(environment[ours], clickhouse[theirs]);
        }
    }
}

#[test]
fn kafka_advertises_to_the_host_the_port_that_is_published() {
    let compose = compose();
    let kafka = &compose["services"]["kafka"];
    let environment = &kafka["environment"];
    let listeners = environment["KAFKA_LISTENERS"].as_str().unwrap();
    let advertised = environment["KAFKA_ADVERTISED_LISTENERS"].as_str().unwrap();
    let (_, port) = advertised
        .split(',')
        .find_map(|listener| listener.strip_prefix("HOST://"))
        .unwrap()
        .split_once(':')
        .unwrap();
    assert!(
        listeners
            .split(',')
            .any(|listener| listener == format!("HOST://:{port}"))
    );
    assert_eq!(
        strings(&kafka["ports"]),
        [format!("127.0.0.1:{port}:{port}")]
    );

    let protocols = environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"]
        .as_str()
        .unwrap();
    for listener in listeners.split(',') {
        let (name, _) = listener.split_once("://").unwrap();
        assert!(
            protocols
                .split(',')
                .any(|entry| entry.split(':').next() == Some(name)),
            "{name}"
        );
    }
}

#[test]
fn nothing_is_published_beyond_the_hosts_loopback() {
    for (name, service) in compose()["services"].as_object().unwrap() {
        if let Some(ports) = service.get("ports") {
            for port in strings(ports) {
                assert!(port.starts_with("127.0.0.1:"), "{name} publishes {port}");
            }
        }
    }
}

#[test]
fn what_stays_up_is_checked_for_health() {
    let compose = compose();
    for name in ["kafka", "clickhouse", "run-0", "run-1", "gateway"] {
        let service = &compose["services"][name];
        let check = &service["healthcheck"];
        assert_eq!(strings(&check["test"])[0], "CMD", "{name}");
        for key in ["interval", "timeout", "start_period"] {
            assert!(check[key].is_string(), "{name}: {key}");
        }
        assert_eq!(service["restart"], "unless-stopped", "{name}");
    }
}

#[test]
fn init_waits_for_both_and_run_waits_for_init() {
    let compose = compose();
    let init = &compose["services"]["init"];
    for service in ["kafka", "clickhouse"] {
        assert_eq!(init["depends_on"][service]["condition"], "service_healthy");
    }
    assert_eq!(strings(&init["command"])[0], "init");
    assert_eq!(init["restart"], "no");

    for run in RUNS {
        let run = &compose["services"][run];
        assert_eq!(
            run["depends_on"]["init"]["condition"],
            "service_completed_successfully"
        );
        assert_eq!(strings(&run["command"])[0], "run");
        assert_eq!(
            strings(&run["command"])[1],
            strings(&init["command"])[1],
            "the same pipeline"
        );
    }
}

#[test]
fn the_jobs_health_and_metrics_are_where_it_is_told_to_serve_them() {
    let compose = compose();
    for (process, run) in RUNS.into_iter().enumerate() {
        let run = &compose["services"][run];
        assert_eq!(flag(&strings(&run["command"]), "--http"), "0.0.0.0:9464");
        let published = format!("127.0.0.1:{}:9464", 9464 + process);
        assert_eq!(strings(&run["ports"]), [published]);
        let check = strings(&run["healthcheck"]["test"]);
        assert_eq!(check.last(), Some(&"http://127.0.0.1:9464/readyz"));
        assert!(DOCKERFILE.contains(check[1]), "the image has {}", check[1]);
    }
}

#[test]
fn the_gateway_is_where_it_is_told_to_listen_and_has_a_key() {
    let compose = compose();
    let gateway = &compose["services"]["gateway"];
    let command = strings(&gateway["command"]);
    let init = strings(&compose["services"]["init"]["command"]);
    assert_eq!(command[..2], ["gateway", init[1]], "the same pipeline");
    let init = &gateway["depends_on"]["init"]["condition"];
    assert_eq!(init, "service_completed_successfully");
    let mut published = Vec::new();
    for option in ["--listen", "--http"] {
        let (host, port) = flag(&command, option).split_once(':').unwrap();
        assert_eq!(host, "0.0.0.0");
        published.push(format!("127.0.0.1:{port}:{port}"));
    }
    assert_eq!(strings(&gateway["ports"]), published);
    let http = flag(&command, "--http").replace("0.0.0.0", "127.0.0.1");
    let check = strings(&gateway["healthcheck"]["test"]);
    assert_eq!(
        check.last(),
        Some(&format!("http://{http}/readyz").as_str())
    );
    assert!(DOCKERFILE.contains(check[1]), "the image has {}", check[1]);

    let mut pipeline = riderflow::config::Pipeline::defaults("x");
    let key = gateway["environment"]["RIDERFLOW_GATEWAY_KEY"].as_str();
    pipeline.gateway.key = key.map(riderflow::config::Secret::new);
    assert!(riderflow::gateway::access_of(&pipeline.gateway).is_ok());
    let files = gateway["ulimits"]["nofile"]["soft"].as_u64().unwrap();
    assert!(files > pipeline.gateway.connections as u64 + 256);
}

#[test]
fn the_jobs_processes_differ_in_their_number_alone_and_find_each_other() {
    let compose = compose();
    let hosts = compose["configs"]["hosts"]["content"].as_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hosts");
    std::fs::write(&file, hosts).unwrap();
    let mut commands = BTreeSet::new();
    for (process, run) in RUNS.into_iter().enumerate() {
        let service = &compose["services"][run];
        let command = strings(&service["command"]);
        assert_eq!(flag(&command, "--processes"), RUNS.len().to_string());
        assert_eq!(flag(&command, "--process"), process.to_string());
        let cluster = Cluster::read(RUNS.len(), process, &file).unwrap();
        assert_eq!(cluster.processes(), RUNS.len());
        let host = hosts.lines().nth(process).unwrap();
        assert_eq!(host.split_once(':').unwrap().0, run);

        let config = &service["configs"][0];
        assert_eq!(config["source"], "hosts");
        assert_eq!(config["target"], flag(&command, "--hosts"));
        assert_eq!(strings(&service["volumes"]), ["state:/var/lib/riderflow"]);

        let number = command.iter().position(|&word| word == "--process");
        let mut command = command.clone();
        command.remove(number.unwrap() + 1);
        commands.insert(command.join(" "));
    }
    assert_eq!(commands.len(), 1, "{commands:?}");
}

#[test]
fn configs_that_are_used_exist_and_clickhouse_keeps_tokens_for_a_week() {
    let compose = compose();
    for (name, service) in compose["services"].as_object().unwrap() {
        for config in service["configs"].as_array().into_iter().flatten() {
            let source = config["source"].as_str().unwrap();
            let content = &compose["configs"][source]["content"];
            assert!(content.is_string(), "{name} uses {source}");
        }
    }
    let config = &compose["services"]["clickhouse"]["configs"][0];
    let target = config["target"].as_str().unwrap();
    assert!(target.starts_with("/etc/clickhouse-server/config.d/") && target.ends_with(".xml"));
    let text = compose["configs"]["clickhouse"]["content"]
        .as_str()
        .unwrap();
    let value = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>")).unwrap();
        let (value, _) = rest.split_once(&format!("</{name}>")).unwrap();
        value.parse::<u64>().unwrap()
    };
    // As many as the plain tables keep.
    let plain = include_str!("../schemas/clickhouse/001_driver_locations.sql");
    let window = value("replicated_deduplication_window");
    assert!(plain.contains(&format!("non_replicated_deduplication_window = {window}\n")));
    let window_s = value("replicated_deduplication_window_seconds");
    assert_eq!(window_s, 7 * 24 * 3600);
}

#[test]
fn volumes_that_are_used_exist_and_the_state_lies_where_the_job_runs() {
    let compose = compose();
    for (name, service) in compose["services"].as_object().unwrap() {
        if let Some(volumes) = service.get("volumes") {
            for volume in strings(volumes) {
                let (volume, _) = volume.split_once(':').unwrap();
                let all = compose["volumes"].as_object().unwrap();
                assert!(all.contains_key(volume), "{name} uses {volume}");
            }
        }
    }
    let state = strings(&compose["services"]["run-0"]["volumes"])[0];
    let (_, path) = state.split_once(':').unwrap();
    assert!(DOCKERFILE.contains(&format!("WORKDIR {path}\n")));
}

#[test]
fn the_image_is_built_by_the_oldest_rust_that_is_promised_and_holds_the_pipelines() {
    let manifest: toml::Table = MANIFEST.parse().unwrap();
    let rust = manifest["package"]["rust-version"].as_str().unwrap();
    assert!(DOCKERFILE.contains(&format!("FROM rust:{rust}-bookworm AS build\n")));
    assert!(DOCKERFILE.contains("\nUSER riderflow\n"));
    assert!(DOCKERFILE.contains("COPY pipelines/ /etc/riderflow/\n"));
    let compose = compose();
    let pipeline = strings(&compose["services"]["run-0"]["command"])[1];
    let file = pipeline.strip_prefix("/etc/riderflow/").unwrap();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    assert!(root.join("pipelines").join(file).is_file());
}
