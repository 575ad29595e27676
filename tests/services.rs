//! The embedded services, as real ones: they start, keep their data, survive nothing they
//! should not, and stay when they should.
//!
//! The first run fetches them. Every process that a test starts dies with the test, by the
//! very means that are tested here, or by a guard's `down`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use riderflow::services::{CLICKHOUSE_VARIABLE, KAFKA_VARIABLE, Options, ServiceError, Services};

const RIDERFLOW: &str = env!("CARGO_BIN_EXE_riderflow");

fn options(data_dir: &Path) -> Options {
    for variable in [KAFKA_VARIABLE, CLICKHOUSE_VARIABLE] {
        assert!(
            std::env::var_os(variable).is_none(),
            "these tests are about services that they start: unset {variable}"
        );
    }
    Options::for_tests(data_dir, RIDERFLOW)
}

/// Runs `query` on the ClickHouse at `url`.
fn query(url: &str, query: &str) -> String {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    write!(
        stream,
        "POST / HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{query}",
        query.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.") && head.contains(" 200 "),
        "{query}: {answer}"
    );
    body.trim_end().to_owned()
}

fn create_table(url: &str) {
    query(url, "CREATE DATABASE riderflow");
    query(
        url,
        "CREATE TABLE riderflow.kept (n UInt32) ENGINE = MergeTree ORDER BY n",
    );
    query(
        url,
        "INSERT INTO riderflow.kept SELECT number FROM numbers(7)",
    );
}

fn rows(url: &str) -> String {
    query(url, "SELECT count() FROM riderflow.kept")
}

fn create_topic(brokers: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .unwrap();
    let topic = NewTopic::new(topic, 2, TopicReplication::Fixed(1));
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(admin.create_topics([&topic], &AdminOptions::new()))
        .unwrap()
        .into_iter()
        .for_each(|outcome| drop(outcome.unwrap()));
}

/// The number of `topic`'s partitions; 0 if it isn't there.
fn partitions(brokers: &str, topic: &str) -> usize {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .unwrap();
    let metadata = client
        .fetch_metadata(None, Duration::from_secs(20))
        .unwrap();
    metadata
        .topics()
        .iter()
        .find(|found| found.name() == topic)
        .map_or(0, |found| found.partitions().len())
}

/// Whether the process runs; a zombie doesn't.
fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat[stat.rfind(')').unwrap()..].starts_with(") Z"))
}

fn wait_until_gone(pids: &[u32], limit: Duration) {
    let deadline = Instant::now() + limit;
    while pids.iter().any(|&pid| runs(pid)) {
        assert!(Instant::now() < deadline, "one of {pids:?} is left");
        thread::sleep(Duration::from_millis(20));
    }
}

fn riderflow(arguments: &[&str], data_dir: &Path) -> Command {
    let mut command = Command::new(RIDERFLOW);
    command
        .args(arguments)
        .arg("--data")
        .arg(data_dir)
        .env_remove(KAFKA_VARIABLE)
        .env_remove(CLICKHOUSE_VARIABLE)
        .stdin(Stdio::null());
    command
}

fn succeed(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// `riderflow up` on a folder; dropping it runs `down`.
struct Up<'a>(&'a Path);

impl Up<'_> {
    /// Runs `up`, and returns the two addresses that a shell would take from it.
    fn run(&self, adapt: impl FnOnce(&mut Command)) -> (String, String) {
        let mut command = riderflow(&["up", "--kafka-heap", "512"], self.0);
        adapt(&mut command);
        let output = String::from_utf8(succeed(command).stdout).unwrap();
        let (kafka, clickhouse) = output.trim_end().split_once('\n').unwrap();
        (
            kafka
                .strip_prefix("export RIDERFLOW_KAFKA=")
                .unwrap()
                .to_owned(),
            clickhouse
                .strip_prefix("export RIDERFLOW_CLICKHOUSE=")
                .unwrap()
                .to_owned(),
        )
    }

    /// The processes by their own records.
    fn pids(&self) -> Vec<u32> {
        ["kafka", "clickhouse"]
            .iter()
            .map(|service| self.0.join(service).join("service.json"))
            .map(|path| std::fs::read(path).unwrap())
            .map(|text| serde_json::from_slice::<serde_json::Value>(&text).unwrap())
            .map(|record| u32::try_from(record["pid"].as_u64().unwrap()).unwrap())
            .collect()
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        let status = riderflow(&["down"], self.0).status();
        // Never a panic while panicking.
        if !thread::panicking() {
            assert!(status.unwrap().success());
        }
    }
}

/// This test program again, as one that holds services and waits to be killed; see [`holder`].
struct Holder {
    process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

const HOLD: &str = "RIDERFLOW_TEST_HOLD";

impl Holder {
    fn start(data_dir: &Path, services: &str, environment: &[(&str, &str)]) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["holder", "--exact", "--nocapture"])
            .env_remove(KAFKA_VARIABLE)
            .env_remove(CLICKHOUSE_VARIABLE)
            .env(HOLD, data_dir)
            .env("RIDERFLOW_TEST_SERVICES", services)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// What it says after `holding `.
    fn says(&mut self) -> String {
        self.lines
            .by_ref()
            .map(Result::unwrap)
            .find_map(|line| Some(line.split_once("holding ")?.1.to_owned()))
            .expect("the holder says what it holds")
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // By SIGKILL; what it holds goes with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Does nothing as a test; as [`Holder`]'s process, starts services from a thread that then
/// ends, as a test's does, says so, and waits to be killed.
#[test]
fn holder() {
    let Some(data_dir) = std::env::var_os(HOLD) else {
        return;
    };
    let wanted = std::env::var("RIDERFLOW_TEST_SERVICES").unwrap();
    let options = Options {
        kafka: wanted.contains("kafka"),
        clickhouse: wanted.contains("clickhouse"),
        ..Options::for_tests(data_dir, RIDERFLOW)
    };
    let started = thread::spawn(move || Services::start(&options))
        .join()
        .unwrap();
    match started {
        Ok(services) => {
            let url = if wanted.contains("clickhouse") {
                services.clickhouse_url()
            } else {
                ""
            };
            let pids: Vec<String> = services.pids().iter().map(u32::to_string).collect();
            println!("holding {url} {}", pids.join(" "));
            thread::sleep(Duration::from_secs(600));
        }
        Err(error) => println!("holding nothing: {error}"),
    }
}

#[test]
fn a_data_folder_serves_start_after_start_without_a_fetch() {
    let folder = tempfile::tempdir().unwrap();
    // A name that configuration files and command lines like to get wrong.
    let data_dir = folder.path().join("données, 100 % & <more>");
    let services = Services::start(&options(&data_dir)).unwrap();
    create_topic(services.kafka(), "kept");
    create_table(services.clickhouse_url());
    let (kafka, url) = (
        services.kafka().to_owned(),
        services.clickhouse_url().to_owned(),
    );
    let pids = services.pids();
    assert_eq!(pids.len(), 2);
    drop(services);
    assert!(
        !pids.iter().any(|&pid| runs(pid)),
        "dropping stops and waits"
    );

    // Java is all that a second start finds on the path, so it can't fetch.
    let java = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|folder| folder.join("java"))
        .find(|path| path.is_file())
        .unwrap();
    let only_java = folder.path().join("bin");
    std::fs::create_dir(&only_java).unwrap();
    std::os::unix::fs::symlink(java.canonicalize().unwrap(), only_java.join("java")).unwrap();
    let up = Up(&data_dir);
    let addresses = up.run(|command| {
        command.env("PATH", &only_java);
    });
    assert_eq!(addresses, (kafka.clone(), url.clone()), "the same ports");
    assert_eq!(partitions(&kafka, "kept"), 2);
    assert_eq!(rows(&url), "7");
}

#[test]
fn nothing_outlives_a_killed_parent_and_the_folder_is_free_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut holder = Holder::start(folder.path(), "kafka clickhouse", &[]);
    let said = holder.says();
    let pids: Vec<u32> = said
        .split_whitespace()
        .skip(1)
        .map(|pid| pid.parse().unwrap())
        .collect();
    assert_eq!(pids.len(), 2, "{said}");
    let url = said.split_whitespace().next().unwrap();
    create_table(url);
    assert!(pids.iter().all(|&pid| runs(pid)));
    drop(holder);
    wait_until_gone(&pids, Duration::from_secs(3));

    let services = Services::start(&options(folder.path())).unwrap();
    assert_eq!(rows(services.clickhouse_url()), "7");
}

#[test]
fn nothing_outlives_a_parent_that_is_killed_while_it_starts() {
    let folder = tempfile::tempdir().unwrap();
    let holder = Holder::start(folder.path(), "kafka clickhouse", &[]);
    let records = ["kafka", "clickhouse"].map(|name| folder.path().join(name).join("service.json"));
    let deadline = Instant::now() + Duration::from_secs(300);
    while !records.iter().any(|record| record.exists()) {
        assert!(Instant::now() < deadline, "no child appears");
        thread::sleep(Duration::from_millis(1));
    }
    drop(holder);
    thread::sleep(Duration::from_secs(1));
    for record in records.iter().filter(|record| record.exists()) {
        let record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
        wait_until_gone(
            &[u32::try_from(record["pid"].as_u64().unwrap()).unwrap()],
            Duration::from_secs(3),
        );
    }
}

#[test]
fn up_stays_until_down() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up(folder.path());
    let (kafka, url) = up.run(|_| {});
    let pids = up.pids();
    create_topic(&kafka, "kept");
    create_table(&url);

    // The environment that its own output makes is no reason to start anything.
    let again = up.run(|command| {
        command
            .env(KAFKA_VARIABLE, &kafka)
            .env(CLICKHOUSE_VARIABLE, &url);
    });
    assert_eq!(again, (kafka.clone(), url.clone()));
    assert_eq!(up.pids(), pids);

    // Nobody else gets the folder.
    let error = Services::start(&options(folder.path())).err().unwrap();
    assert!(matches!(error, ServiceError::FolderInUse { .. }), "{error}");
    assert!(pids.iter().all(|&pid| runs(pid)));

    // One that died is started again, with its data, and the other is left alone.
    let status = Command::new("kill")
        .args(["-9", &pids[1].to_string()])
        .status();
    assert!(status.unwrap().success());
    wait_until_gone(&pids[1..], Duration::from_secs(3));
    assert_eq!(up.run(|_| {}), (kafka.clone(), url.clone()));
    assert_eq!(up.pids()[0], pids[0]);
    assert_eq!(rows(&url), "7");

    let pids = up.pids();
    let mut down = riderflow(&["down", "--json"], folder.path());
    down.stderr(Stdio::null());
    let stopped: serde_json::Value = serde_json::from_slice(&succeed(down).stdout).unwrap();
    assert_eq!(stopped.as_array().unwrap().len(), 2);
    assert!(!pids.iter().any(|&pid| runs(pid)));
    let nothing = succeed(riderflow(&["down"], folder.path()));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("nothing to stop"));

    // The variables are still set in that shell, and name nothing that answers.
    let again = up.run(|command| {
        command
            .env(KAFKA_VARIABLE, &kafka)
            .env(CLICKHOUSE_VARIABLE, &url);
    });
    assert_eq!(again, (kafka.clone(), url));
    assert_eq!(partitions(&kafka, "kept"), 2);
}

#[test]
fn a_service_comes_back_where_it_was_after_a_stop_and_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut services = Services::start(&options(folder.path())).unwrap();
    let (kafka, url) = (
        services.kafka().to_owned(),
        services.clickhouse_url().to_owned(),
    );
    create_topic(&kafka, "kept");
    create_table(&url);
    let pids = services.pids();

    services.kill_clickhouse().unwrap();
    services.kill_kafka().unwrap();
    assert!(services.pids().is_empty());
    assert!(!pids.iter().any(|&pid| runs(pid)));
    services.start_clickhouse().unwrap();
    services.start_kafka().unwrap();
    assert_eq!(rows(&url), "7");
    assert_eq!(partitions(&kafka, "kept"), 2);

    services.stop_kafka().unwrap();
    services.stop_clickhouse().unwrap();
    // Stopping what is stopped and starting what runs change nothing.
    services.stop_kafka().unwrap();
    services.start_kafka().unwrap();
    services.start_clickhouse().unwrap();
    let pids = services.pids();
    services.start_kafka().unwrap();
    assert_eq!(services.pids(), pids);
    assert_eq!(
        (services.kafka(), services.clickhouse_url()),
        (&*kafka, &*url)
    );
    assert_eq!(rows(&url), "7");
    assert_eq!(partitions(&kafka, "kept"), 2);
}

/// The first start chooses other ports when a log has these words.
#[test]
fn a_port_that_someone_took_is_named_as_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let mut services = Services::start(&options(folder.path())).unwrap();
    services.stop_kafka().unwrap();
    services.stop_clickhouse().unwrap();
    let taken = [
        services.kafka(),
        services.clickhouse_url().strip_prefix("http://").unwrap(),
    ]
    .map(|address| std::net::TcpListener::bind(address).unwrap());
    for outcome in [services.start_kafka(), services.start_clickhouse()] {
        let text = outcome.unwrap_err().to_string();
        assert!(text.contains("Address already in use"), "{text}");
    }
    assert!(services.pids().is_empty());
    drop(taken);
    services.start_kafka().unwrap();
    services.start_clickhouse().unwrap();
}

#[test]
fn a_service_that_the_environment_names_is_used_and_none_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let mut services = Services::start(&Options {
        kafka: false,
        ..options(folder.path())
    })
    .unwrap();
    let url = services.clickhouse_url().to_owned();
    assert!(matches!(
        services.kill_kafka(),
        Err(ServiceError::NotOurs { .. })
    ));

    let other = tempfile::tempdir().unwrap();
    let named = [(CLICKHOUSE_VARIABLE, url.as_str())];
    let mut holder = Holder::start(other.path(), "clickhouse", &named);
    assert_eq!(holder.says().trim_end(), url, "its address, and no process");
    assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 0);

    services.stop_clickhouse().unwrap();
    let mut holder = Holder::start(other.path(), "clickhouse", &named);
    let said = holder.says();
    assert!(
        said.contains(&url) && said.contains(CLICKHOUSE_VARIABLE),
        "{said}"
    );
}

#[test]
fn a_child_that_dies_is_reported_with_the_end_of_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("kafka/data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(
        data.join("meta.properties"),
        "version=1\nnode.id=2\ncluster.id=x\n",
    )
    .unwrap();
    let error = Services::start(&Options {
        clickhouse: false,
        ..options(folder.path())
    })
    .err()
    .unwrap();
    let text = error.to_string();
    assert!(matches!(error, ServiceError::Died { .. }), "{text}");
    assert!(
        text.contains("kafka.log") && text.contains("node id 2"),
        "{text}"
    );
}

#[test]
fn a_missing_prerequisite_is_named_with_what_to_install() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = riderflow(&["up"], &folder.path().join("data"));
    command
        .env("PATH", folder.path())
        .env("XDG_CACHE_HOME", folder.path())
        .env_remove("JAVA_HOME");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("openjdk-17-jre-headless") && text.contains(KAFKA_VARIABLE),
        "{text}"
    );
    assert!(output.stdout.is_empty());
}
