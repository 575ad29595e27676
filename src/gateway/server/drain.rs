//! The wish that everybody leaves.

use tokio::sync::watch;

/// Says when to leave. Dropping it says so too.
pub(crate) struct Drain(watch::Sender<bool>);

impl Drain {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(crate) fn begin(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn draining(&self) -> Draining {
        Draining(self.0.subscribe())
    }
}

/// Tells sockets and streams that it is time to leave: a socket settles what it owes and closes
/// with 1001, a stream ends, and the client comes back to another gateway.
#[derive(Clone, Debug)]
pub(crate) struct Draining(watch::Receiver<bool>);

impl Draining {
    /// Whether it is time.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for the parts that have sockets")
    )]
    pub(crate) fn has_begun(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits until it is time.
    pub(crate) async fn begun(&self) {
        // An error means that whoever would say so is gone: time to leave as well.
        let _ = self.0.clone().wait_for(|begun| *begun).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_told_to_those_that_wait_and_those_that_ask() {
        let drain = Drain::new();
        let draining = drain.draining();
        let waiting = {
            let draining = draining.clone();
            tokio::spawn(async move { draining.begun().await })
        };
        assert!(!draining.has_begun());
        drain.begin();
        assert!(draining.has_begun() && drain.draining().has_begun());
        waiting.await.unwrap();
        let orphan = Drain::new().draining();
        orphan.begun().await;
        assert!(orphan.has_begun());
    }
}
