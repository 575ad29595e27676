//! The city's phones: each driver's updates over a WebSocket of its own to the gateway.
//!
//! ```text
//! run ─► Phone (numbers updates, keeps them until settled) ─► link (connects, sends, hears) ─► gateway
//! ```
//!
//! Owns what a good phone app does: it sends each update with a number, keeps it until the
//! gateway acknowledges it, holds back for as long as a `retry` says, and when the connection
//! ends connects again, after a random wait that doubles, and resends what is not settled.
//! Promises that [`Phones::acked`] counts exactly the updates that the gateway has
//! acknowledged. A phone keeps at most 600 updates; one more, and it drops the oldest and
//! counts that. Thousands are cheap: two threads, a task a phone, 2 KiB to read into.

mod answer;
mod back_off;
mod link;
#[cfg(test)]
mod link_tests;
mod phone;
mod tally;
mod url;

pub use link::Fault;
pub use url::{GatewayUrl, UrlError};

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use self::link::Common;
use self::phone::Phone;
use self::tally::Tally;
use super::{What, base36};
use crate::model::DriverId;

/// Threads that all phones share.
const THREADS: usize = 2;
/// Open files of this process besides the phones' connections.
const OTHER_FILES: u64 = 256;
/// How long all phones together may take to connect at first, beyond their turns.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);

/// Makes a driver's token; called at each connecting.
pub type Tokens = dyn Fn(DriverId) -> String + Send + Sync;

/// How phones connect.
pub struct Settings {
    /// Where the gateway is.
    pub gateway: GatewayUrl,
    /// Drivers 0 to this − 1 have a phone.
    pub phones: u32,
    /// Connections opened a second at first.
    pub connects_per_s: u32,
    /// Their tokens.
    pub tokens: Box<Tokens>,
}

/// What went wrong with all phones.
#[derive(Debug, thiserror::Error)]
pub enum PhonesError {
    /// No phone could connect.
    #[error("could not reach the gateway at {url}: {fault}; check that `riderflow gateway` runs")]
    Unreachable {
        /// Where.
        url: String,
        /// Why the first phone could not.
        fault: Fault,
    },
    /// The gateway lets no phone in.
    #[error(
        "the gateway at {url} refuses the phones' tokens (HTTP status {status}): give this \
         command the gateway's own pipeline file and RIDERFLOW_GATEWAY_KEY"
    )]
    Forbidden {
        /// Where.
        url: String,
        /// 401 or 403.
        status: u16,
    },
    /// Acknowledgements are still out after the time allowed.
    #[error(
        "the gateway at {url} has not acknowledged {waiting} updates after {after_s:.0} s{last}"
    )]
    Unacknowledged {
        /// Where.
        url: String,
        /// How many.
        waiting: u64,
        /// The time allowed, s.
        after_s: f64,
        /// Why a connection was lost last, or nothing.
        last: String,
    },
    /// The system allows too few connections.
    #[error(
        "{needed} files can't be open at once, the limit is {limit}: raise it (`ulimit -Hn`) or \
         give fewer --phones"
    )]
    OpenFiles {
        /// How many are needed.
        needed: u64,
        /// How many are allowed.
        limit: u64,
    },
    /// No threads.
    #[error("could not start the phones' threads: {0}")]
    Threads(std::io::Error),
}

/// What went through the gateway.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GatewaySummary {
    /// Drivers with a phone.
    pub phones: u64,
    /// Connections opened, reconnects among them.
    pub connections: u64,
    /// Connections that were lost or never came about.
    pub faults: u64,
    /// Why the last of these was.
    pub last_fault: Option<String>,
    /// Updates that the gateway acknowledged.
    pub acked: u64,
    /// Updates that it refused.
    pub refused: u64,
    /// Why the last of these was.
    pub last_refusal: Option<String>,
    /// Updates that phones gave up because they had no room.
    pub dropped: u64,
    /// How often it asked to try later.
    pub retries: u64,
    /// From an update on the phone to its acknowledgement, ms: the median.
    pub ack_p50_ms: Option<f64>,
    /// The same, of which 1 in 100 took longer.
    pub ack_p99_ms: Option<f64>,
}

/// The phones of drivers 0 to N − 1. Dropped, they hang up.
pub struct Phones {
    phones: Vec<Arc<Phone>>,
    common: Arc<Common>,
    closing: watch::Sender<bool>,
    connected_by: Instant,
    runtime: Option<Runtime>,
}

impl Phones {
    /// Starts them; they connect one after the other.
    ///
    /// # Errors
    /// [`PhonesError::OpenFiles`] and [`PhonesError::Threads`].
    pub fn start(settings: Settings) -> Result<Self, PhonesError> {
        allow_open_files(u64::from(settings.phones) + OTHER_FILES)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("phones")
            .enable_all()
            .build()
            .map_err(PhonesError::Threads)?;
        let common = Arc::new(Common {
            url: settings.gateway,
            session: new_session(),
            tokens: settings.tokens,
            tally: Tally::new(),
        });
        let (closing, is_closing) = watch::channel(false);
        let between = Duration::from_secs(1) / settings.connects_per_s.max(1);
        let begin = tokio::time::Instant::now();
        let phones: Vec<Arc<Phone>> = (0..settings.phones)
            .map(|driver| {
                let phone = Arc::new(Phone::new(DriverId(u64::from(driver))));
                runtime.spawn(link::keep_connected(
                    Arc::clone(&phone),
                    Arc::clone(&common),
                    begin + between * driver,
                    is_closing.clone(),
                ));
                phone
            })
            .collect();
        Ok(Self {
            phones,
            common,
            closing,
            connected_by: begin.into_std() + between * settings.phones + CONNECTED_WITHIN,
            runtime: Some(runtime),
        })
    }

    /// Waits until all are connected, or 10 s more than that should take: those that are not go
    /// on trying. Also until `stop` says true.
    ///
    /// # Errors
    /// [`PhonesError::Forbidden`] and [`PhonesError::Unreachable`], when none is and one has
    /// failed.
    pub fn wait_until_connected(&self, stop: &dyn Fn() -> bool) -> Result<(), PhonesError> {
        while self.connected() < self.count() && Instant::now() < self.connected_by && !stop() {
            if self.tally().connections() == 0
                && let Some(fault) = self.tally().last_fault()
            {
                let url = self.common.url.to_string();
                return Err(match fault {
                    Fault::Http(status @ (401 | 403)) => PhonesError::Forbidden { url, status },
                    fault => PhonesError::Unreachable { url, fault },
                });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.phones.len() as u64
    }

    /// How many are connected now.
    pub fn connected(&self) -> u64 {
        self.tally().connected()
    }

    /// Updates that are neither acknowledged, nor refused, nor dropped.
    pub fn waiting(&self) -> u64 {
        self.tally().waiting()
    }

    /// Acknowledged updates of a kind.
    pub fn acked(&self, what: What) -> u64 {
        self.tally().acked(what)
    }

    /// Gives a driver's phone an update, a JSON object; false if the driver has none.
    pub(super) fn give(&self, driver: u64, what: What, json: &str) -> bool {
        let phone = usize::try_from(driver).map_or(None, |driver| self.phones.get(driver));
        let Some(phone) = phone else { return false };
        phone.give(what, json, self.tally());
        true
    }

    /// Waits until every update is settled.
    ///
    /// # Errors
    /// [`PhonesError::Unacknowledged`] after `timeout`.
    pub fn flush(&self, timeout: Duration) -> Result<(), PhonesError> {
        let start = Instant::now();
        while self.waiting() > 0 {
            if start.elapsed() > timeout {
                let last = self.tally().last_fault();
                return Err(PhonesError::Unacknowledged {
                    url: self.common.url.to_string(),
                    waiting: self.waiting(),
                    after_s: timeout.as_secs_f64(),
                    last: last.map_or(String::new(), |fault| format!("; the last fault: {fault}")),
                });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// What went through the gateway so far.
    pub fn summary(&self) -> GatewaySummary {
        let tally = self.tally();
        let ms = |q| tally.ack_latency_s(q).map(|s| s * 1e3);
        GatewaySummary {
            phones: self.count(),
            connections: tally.connections(),
            faults: tally.faults(),
            last_fault: tally.last_fault().map(|fault| fault.to_string()),
            acked: tally.acked_total(),
            refused: tally.refused(),
            last_refusal: tally.last_refusal(),
            dropped: tally.dropped(),
            retries: tally.retries(),
            ack_p50_ms: ms(0.5),
            ack_p99_ms: ms(0.99),
        }
    }

    fn tally(&self) -> &Tally {
        &self.common.tally
    }
}

impl Drop for Phones {
    fn drop(&mut self) {
        self.closing.send_replace(true);
        let start = Instant::now();
        while self.connected() > 0 && start.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Lets this process have so many files open at once, if the system's hard limit does.
///
/// # Errors
/// [`PhonesError::OpenFiles`].
pub fn allow_open_files(needed: u64) -> Result<(), PhonesError> {
    let limits = getrlimit(Resource::Nofile);
    let (Some(current), maximum) = (limits.current, limits.maximum) else {
        return Ok(());
    };
    if current >= needed {
        return Ok(());
    }
    let limit = maximum.unwrap_or(u64::MAX);
    let raised = Rlimit {
        current: Some(needed),
        maximum,
    };
    if limit < needed || setrlimit(Resource::Nofile, raised).is_err() {
        return Err(PhonesError::OpenFiles { needed, limit });
    }
    Ok(())
}

/// A name for this run of all phones: no other run has it.
fn new_session() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since.map_or(0, |since| since.as_micros() as u64);
    format!(
        "{}-{}",
        base36(micros),
        base36(u64::from(std::process::id()))
    )
}
