//! Apache Kafka, one node in KRaft mode: what is fetched, its configuration, its command.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cache::{Cache, Stage};
use super::ports::Ports;
use super::server::Software;
use super::{ServiceError, files, tools};

/// Its version.
pub(super) const VERSION: &str = "4.3.1";

const POM: &str = include_str!("assets/pom.xml");
const CHECKSUMS: &str = include_str!("assets/kafka-4.3.1.sha256");
const LOG4J: &str = include_str!("assets/log4j2.xml");
/// The goal that copies the jars, pinned: what a bare `dependency:` means depends on Maven.
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

/// A Kafka that is on this machine and can be started.
pub(super) struct Kafka {
    installed: PathBuf,
    java: PathBuf,
    heap_mb: u32,
    quick: bool,
}

impl Kafka {
    /// Finds Java and the cached jars, or fetches them.
    pub(super) fn install(
        cache: &Cache<'_>,
        heap_mb: u32,
        quick: bool,
    ) -> Result<Self, ServiceError> {
        let java = tools::java()?;
        let installed = cache.get(&format!("kafka-{VERSION}"), |stage| fetch(stage, &java))?;
        Ok(Self {
            installed,
            java,
            heap_mb,
            quick,
        })
    }
}

fn fetch(stage: &Stage<'_>, java: &Path) -> Result<(), ServiceError> {
    tools::require_java_17(java)?;
    tools::find(
        "mvn",
        "Maven, which fetches Kafka once,",
        "maven",
        "RIDERFLOW_KAFKA",
    )?;
    let task = stage
        .progress()
        .task(&format!("fetching Kafka {VERSION} with mvn (44 MB, once)"));
    files::write(&stage.folder().join("pom.xml"), POM)?;
    stage.run(
        "fetch Kafka",
        &[
            "mvn",
            "-q",
            "-B",
            "--strict-checksums",
            COPY,
            "-DincludeScope=runtime",
            "-DoutputDirectory=libs",
        ],
        None,
    )?;
    files::write(&stage.folder().join("libs.sha256"), CHECKSUMS)?;
    check_names(&stage.folder().join("libs"))?;
    let check = "cd libs && sha256sum --check --strict --quiet ../libs.sha256";
    stage.run("verify Kafka's jars", &["sh", "-c", check], None)?;

    // A formatted folder that every new data folder starts from: copying three small files
    // spares each first start a Java process.
    let template = stage.folder().join("template");
    files::create_folder(&template)?;
    write_configuration(&template, [9092, 9093])?;
    let format = format!(
        "cd template && exec '{}' -XX:TieredStopAtLevel=1 -cp '../libs/*' \
         kafka.tools.StorageTool format -t {CLUSTER} -c server.properties",
        java.display()
    );
    stage.run("format a Kafka data folder", &["sh", "-c", &format], None)?;
    task.done(&format!("fetched Kafka {VERSION}"));
    Ok(())
}

/// The embedded cluster's id: 16 bytes in URL-safe base64.
const CLUSTER: &str = "cmlkZXJmbG93LWRlbW8tMQ";

/// `sha256sum --check` sees a missing or changed jar; this sees one too many.
fn check_names(libs: &Path) -> Result<(), ServiceError> {
    let wrong = |detail: String| ServiceError::Checksum {
        what: format!("Kafka {VERSION}"),
        detail,
    };
    for entry in fs::read_dir(libs).map_err(|error| wrong(error.to_string()))? {
        let name = entry.map_err(|error| wrong(error.to_string()))?.file_name();
        let name = name.to_string_lossy();
        if !CHECKSUMS
            .lines()
            .any(|line| line.ends_with(&format!("  {name}")))
        {
            return Err(wrong(format!(
                "Maven brought {name}, which is not part of it"
            )));
        }
    }
    Ok(())
}

fn write_configuration(folder: &Path, [port, controller]: Ports) -> Result<(), ServiceError> {
    files::write(&folder.join("log4j2.xml"), LOG4J)?;
    files::write(
        &folder.join("server.properties"),
        &format!(
            "\
# Written by riderflow at every start.
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.quorum.voters=1@127.0.0.1:{controller}
log.dirs=data

# One node: one replica of everything, and few partitions of what is internal.
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=2

# A group's first member need not wait for others, and a dead one is missed soon.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000

# Room for an update of 1 MB to be carried on whole, with headers, as a dead letter.
message.max.bytes=4194304
replica.fetch.max.bytes=4194304

# A small machine.
num.network.threads=2
num.io.threads=2
background.threads=2
group.coordinator.threads=1
share.coordinator.threads=1
log.cleaner.dedupe.buffer.size=16777216
metadata.max.idle.interval.ms=5000

# After a SIGKILL, the next start waits until the last one's session has run out.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"
        ),
    )
}

impl Software for Kafka {
    fn name(&self) -> &'static str {
        "Kafka"
    }

    fn folder_name(&self) -> &'static str {
        "kafka"
    }

    fn version(&self) -> &'static str {
        VERSION
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(120)
    }

    fn prepare(&self, folder: &Path, ports: Ports) -> Result<(), ServiceError> {
        write_configuration(folder, ports)?;
        let data = folder.join("data");
        if data.join("meta.properties").exists() {
            return Ok(());
        }
        let template = self.installed.join("template/data");
        let attempt = || {
            let beside = folder.join("data.part");
            if beside.exists() {
                fs::remove_dir_all(&beside)?;
            }
            fs::create_dir(&beside)?;
            for entry in fs::read_dir(&template)? {
                let entry = entry?;
                fs::copy(entry.path(), beside.join(entry.file_name()))?;
            }
            fs::rename(&beside, &data)
        };
        attempt().map_err(|error| ServiceError::io(format!("format {}", data.display()), error))
    }

    fn library(&self) -> Option<&Path> {
        None
    }

    fn command(&self) -> Vec<OsString> {
        let mut command: Vec<OsString> = vec![
            self.java.clone().into(),
            format!("-Xmx{}m", self.heap_mb).into(),
            "-Djava.awt.headless=true".into(),
            "-Dlog4j2.configurationFile=log4j2.xml".into(),
        ];
        let flags: &[&str] = if self.quick {
            &["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
        } else {
            &["-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"]
        };
        command.extend(flags.iter().map(OsString::from));
        command.extend([
            "-cp".into(),
            self.installed.join("libs/*").into(),
            "kafka.Kafka".into(),
            "server.properties".into(),
        ]);
        command
    }

    fn address(&self, [port, _]: Ports) -> String {
        format!("127.0.0.1:{port}")
    }

    fn is_ready(&self, [port, _]: Ports) -> bool {
        // Kafka opens its listener only once it can answer, so a client is made once or twice.
        tools::connects(port)
            && crate::kafka::ready::wait_until_ready(
                &format!("127.0.0.1:{port}"),
                Duration::from_secs(2),
            )
            .is_ok()
    }
}
