//! File descriptors: a connection needs one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What else the process has open: Kafka, logs, files, metrics.
const SPARE: u64 = 256;

/// Raises this process's limit as far as it may, and warns if it can't hold `connections`.
pub(super) fn make_room_for(connections: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: maximum,
        maximum,
    };
    let current = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!("could not raise the limit of open files: {error}");
            current
        }
    };
    // `None` is no limit.
    let needed = connections as u64 + SPARE;
    if let Some(limit) = current.filter(|limit| *limit < needed) {
        tracing::warn!(
            "gateway.connections is {connections}, but this process may have {limit} files open, \
             which is room for {}; raise it with `ulimit -Hn {needed}` or systemd's LimitNOFILE",
            limit.saturating_sub(SPARE)
        );
    }
}
