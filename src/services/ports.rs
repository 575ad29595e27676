//! Loopback ports for the services.
//!
//! A port is proven free by binding it. Ports come from below the kernel's range for outgoing
//! connections: a client that keeps calling a service that is down would otherwise, now and
//! then, be given that very port as its own end, connect to itself, and keep the service from
//! coming back.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use super::{ServiceError, files};

/// How many ports are tried before giving up.
const TRIES: u64 = 1000;
/// The lowest port that is used.
const LOWEST: u16 = 12_000;

/// A service's two ports: the one clients use, and its second.
pub(super) type Ports = [u16; 2];

/// The ports of the last start on `folder` if they are still free, or two new ones; remembered
/// for the next start.
pub(super) fn choose(folder: &Path) -> Result<Ports, ServiceError> {
    let path = folder.join("ports.json");
    let ports = match files::read_json::<Ports>(&path) {
        Some(last) if last.iter().all(|&port| is_free(port)) => return Ok(last),
        _ => pick()?,
    };
    files::write_json(&path, &ports)?;
    Ok(ports)
}

/// Forgets the remembered ports, so that the next start gets new ones.
pub(super) fn forget(folder: &Path) {
    // If it is missing there is nothing to forget.
    let _ = std::fs::remove_file(folder.join("ports.json"));
}

fn pick() -> Result<Ports, ServiceError> {
    let highest = lowest_outgoing().max(LOWEST + 1000);
    let spread = u64::from(highest - LOWEST);
    // Every `RandomState` has keys of its own, and every process starts elsewhere.
    let start = RandomState::new().hash_one(std::process::id());
    let mut found = (0..TRIES)
        .map(|step| start.wrapping_add(step * 7) % spread)
        .filter_map(|offset| u16::try_from(offset).ok())
        .map(|offset| LOWEST + offset)
        .filter(|&port| is_free(port));
    match (found.next(), found.next()) {
        (Some(first), Some(second)) => Ok([first, second]),
        _ => Err(ServiceError::io(
            "find two free loopback ports",
            std::io::Error::other(format!("none of {TRIES} was free")),
        )),
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// The first port the kernel gives to outgoing connections.
fn lowest_outgoing() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .unwrap_or(32_768)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_start_gets_the_same_ports_unless_they_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let first = choose(folder.path()).unwrap();
        assert_ne!(first[0], first[1]);
        assert!(first.iter().all(|&port| port < lowest_outgoing()));
        assert_eq!(choose(folder.path()).unwrap(), first);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first[1])).unwrap();
        let second = choose(folder.path()).unwrap();
        assert!(!second.contains(&first[1]));
        assert_eq!(choose(folder.path()).unwrap(), second);
    }
}
