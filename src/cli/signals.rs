//! SIGTERM and SIGINT, as a wish to stop that commands look at.

use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;

/// Set by the first SIGTERM or SIGINT; the second ends the process at once.
pub(super) struct StopRequested(Receiver<()>);

impl StopRequested {
    /// Waits at most `timeout`; whether a stop was requested meanwhile.
    pub(super) fn wait(&self, timeout: Duration) -> bool {
        !matches!(self.0.recv_timeout(timeout), Err(RecvTimeoutError::Timeout))
    }
}

/// Listens from now on, on a thread of its own.
pub(super) fn stop_requested() -> Result<StopRequested, Failure> {
    let (sender, receiver) = sync_channel::<()>(1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("could not listen for signals")?;
    let (mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        (
            signal(SignalKind::terminate()).context("could not listen for SIGTERM")?,
            signal(SignalKind::interrupt()).context("could not listen for SIGINT")?,
        )
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let mut next = || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                });
            };
            next();
            // The command hears that nobody will send any more.
            drop(sender);
            next();
            eprintln!("asked again: ending at once");
            std::process::exit(130);
        })
        .context("could not listen for signals")?;
    Ok(StopRequested(receiver))
}
