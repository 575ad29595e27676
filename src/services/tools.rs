//! What must already be on the machine, and clear words when it isn't.

use std::env;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::ServiceError;

/// Finds `program` on the path. `what` names it in the error, `package` is Debian's for it,
/// and `instead` the variable that makes it unnecessary.
pub(super) fn find(
    program: &'static str,
    what: &'static str,
    package: &'static str,
    instead: &'static str,
) -> Result<PathBuf, ServiceError> {
    env::var_os("PATH")
        .iter()
        .flat_map(|path| env::split_paths(path).collect::<Vec<_>>())
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .ok_or(ServiceError::Missing {
            program,
            what,
            package,
            instead,
        })
}

/// `$JAVA_HOME/bin/java`, or the one on the path.
pub(super) fn java() -> Result<PathBuf, ServiceError> {
    if let Some(home) = env::var_os("JAVA_HOME") {
        let java = PathBuf::from(home).join("bin/java");
        if java.is_file() {
            return Ok(java);
        }
    }
    find(
        "java",
        "Java 17 or later, which runs Kafka,",
        "openjdk-17-jre-headless",
        "RIDERFLOW_KAFKA",
    )
}

/// Asks `java` for its version: Kafka needs 17.
pub(super) fn require_java_17(java: &Path) -> Result<(), ServiceError> {
    let output = Command::new(java)
        .arg("-version")
        .output()
        .map_err(|error| {
            ServiceError::io(format!("ask {} for its version", java.display()), error)
        })?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    match java_version(&text) {
        Some(version) if version < 17 => Err(ServiceError::OldJava {
            java: java.to_owned(),
            version,
        }),
        // A Java that words it otherwise gets its chance.
        _ => Ok(()),
    }
}

/// The feature version in what `java -version` prints: 17 of "17.0.15", 8 of "1.8.0_392".
fn java_version(text: &str) -> Option<u32> {
    let quoted = text.split('"').nth(1)?;
    let mut numbers = quoted
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|part| part.parse().ok());
    match numbers.next()? {
        1 => numbers.next(),
        version => Some(version),
    }
}

/// Whether something listens on this loopback port.
pub(super) fn connects(port: u16) -> bool {
    TcpStream::connect_timeout(
        &(Ipv4Addr::LOCALHOST, port).into(),
        Duration::from_millis(500),
    )
    .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_versions() {
        for (text, version) in [
            ("openjdk version \"17.0.15\" 2025-04-15", Some(17)),
            ("java version \"1.8.0_392\"", Some(8)),
            ("openjdk version \"25\" 2025-09-16", Some(25)),
            ("openjdk version \"26-ea\" 2026-03-17", Some(26)),
            ("bash: java: not found", None),
        ] {
            assert_eq!(java_version(text), version, "{text}");
        }
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let error = find("no-such-program", "it,", "its-package", "INSTEAD").unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("no-such-program") && text.contains("its-package"),
            "{text}"
        );
    }
}
