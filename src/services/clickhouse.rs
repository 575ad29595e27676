//! ClickHouse, from the shared library that npm carries: what is fetched, its configuration,
//! its command.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cache::{Cache, Stage};
use super::ports::Ports;
use super::server::Software;
use super::{ServiceError, files, tools};

/// What it says of itself.
pub(super) const VERSION: &str = "26.7.2";
/// The version of the package that holds it.
const PACKAGE_VERSION: &str = "26.7.3-stable.1";
/// The package for this processor, and its SHA-512; for arm64, npm's own check must do.
const PACKAGE: Option<(&str, Option<&str>)> = if cfg!(target_arch = "x86_64") {
    Some((
        "lib-linux-x64-gnu",
        Some(
            "5cff7b98caa7739b59a4a432c11f0dedc2d3b073624e61ebdf4a42e66ce8de35\
             a6ba48ca9f62016bad1cd81fe059435cb858ce3235a8a2b408082a81563e70a7",
        ),
    ))
} else if cfg!(target_arch = "aarch64") {
    Some(("lib-linux-arm64-gnu", None))
} else {
    None
};
/// Sizes for the progress bars: packed and unpacked.
const PACKED_BYTES: u64 = 177_817_999;
const UNPACKED_BYTES: u64 = 566_330_096;

const LIBRARY: &str = "libchdb.so";
const USERS: &str = include_str!("assets/users.xml");
/// Listens, then keeps the process busy with nothing: the library ends with its last query.
const QUERY: &str = "SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP; \
    SELECT sleepEachRow(1) FROM numbers(1000000000) \
    SETTINGS function_sleep_max_microseconds_per_block = 0, max_block_size = 1 FORMAT Null";

/// A ClickHouse that is on this machine and can be started.
pub(super) struct Clickhouse {
    library: PathBuf,
}

impl Clickhouse {
    /// Finds the cached library, or fetches it.
    pub(super) fn install(cache: &Cache<'_>) -> Result<Self, ServiceError> {
        let installed = cache.get("clickhouse-26.7.3", fetch)?;
        Ok(Self {
            library: installed.join(LIBRARY),
        })
    }
}

fn fetch(stage: &Stage<'_>) -> Result<(), ServiceError> {
    let (package, checksum) = PACKAGE.ok_or(ServiceError::Unsupported)?;
    tools::find(
        "npm",
        "npm, which fetches ClickHouse once,",
        "npm",
        "RIDERFLOW_CLICKHOUSE",
    )?;
    let task = stage.progress().bytes(
        &format!("fetching ClickHouse {VERSION} with npm (178 MB, once)"),
        PACKED_BYTES,
    );
    // A cache of its own, inside the stage: npm's would keep 178 MB that nobody needs again,
    // and here its growth shows how far the download is.
    stage.run(
        "fetch ClickHouse",
        &[
            "npm",
            "pack",
            &format!("@chdb/{package}@{PACKAGE_VERSION}"),
            "--cache=npm",
            "--ignore-scripts",
            "--no-update-notifier",
            "--loglevel=error",
        ],
        Some((&task, &stage.folder().join("npm"))),
    )?;
    drop(task);

    let tarball = format!("chdb-{package}-{PACKAGE_VERSION}.tgz");
    let task = stage
        .progress()
        .bytes(&format!("unpacking ClickHouse {VERSION}"), UNPACKED_BYTES);
    if let Some(checksum) = checksum {
        files::write(
            &stage.folder().join("package.sha512"),
            &format!("{checksum}  {tarball}\n"),
        )?;
        stage.run(
            "verify ClickHouse's package",
            &["sha512sum", "--check", "--strict", "package.sha512"],
            None,
        )?;
    }
    stage.run(
        "unpack ClickHouse's package",
        &[
            "tar",
            "-xzf",
            &tarball,
            "--no-same-owner",
            "--strip-components=1",
            &format!("package/{LIBRARY}"),
        ],
        Some((&task, &stage.folder().join(LIBRARY))),
    )?;
    fs::remove_file(stage.folder().join(&tarball))
        .and_then(|()| fs::remove_dir_all(stage.folder().join("npm")))
        .map_err(|error| ServiceError::io("tidy what npm left", error))?;
    task.done(&format!("fetched ClickHouse {VERSION}"));
    Ok(())
}

fn configuration([http, native]: Ports) -> String {
    format!(
        "\
<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<!-- Written by riderflow at every start. There is no section for a system log, so none is kept. -->
<clickhouse>
  <path>data/</path>
  <listen_host>127.0.0.1</listen_host>
  <http_port>{http}</http_port>
  <tcp_port>{native}</tcp_port>
  <users_config>users.xml</users_config>
  <!-- Fewer threads than this flood the log with warnings. -->
  <background_schedule_pool_size>8</background_schedule_pool_size>
  <background_pool_size>4</background_pool_size>
  <mark_cache_size>268435456</mark_cache_size>
  <primary_index_cache_size>268435456</primary_index_cache_size>
</clickhouse>
"
    )
}

impl Software for Clickhouse {
    fn name(&self) -> &'static str {
        "ClickHouse"
    }

    fn folder_name(&self) -> &'static str {
        "clickhouse"
    }

    fn version(&self) -> &'static str {
        VERSION
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn prepare(&self, folder: &Path, ports: Ports) -> Result<(), ServiceError> {
        files::write(&folder.join("users.xml"), USERS)?;
        files::write(&folder.join("config.xml"), &configuration(ports))?;
        files::create_folder(&folder.join("data"))
    }

    fn library(&self) -> Option<&Path> {
        Some(&self.library)
    }

    fn command(&self) -> Vec<OsString> {
        [
            "clickhouse",
            "--config-file",
            "config.xml",
            "--logger.console",
            "--log-level",
            "warning",
            "--query",
            QUERY,
        ]
        .map(OsString::from)
        .into()
    }

    fn address(&self, [http, _]: Ports) -> String {
        format!("http://127.0.0.1:{http}")
    }

    fn is_ready(&self, [http, _]: Ports) -> bool {
        ping((Ipv4Addr::LOCALHOST, http).into())
    }
}

/// Whether ClickHouse answers `GET /ping` there.
pub(super) fn ping(address: SocketAddr) -> bool {
    let attempt = || {
        let limit = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(b"GET /ping HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    attempt().is_ok_and(|answer| {
        answer.starts_with(b"HTTP/1.") && answer.get(8..12) == Some(b" 200".as_slice())
    })
}
