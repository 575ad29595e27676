//! Who waits for what: from a touched subject to the streams that tell of it.
//!
//! Owns one notice per watched subject. Promises that a stream which waits for its subject
//! costs nothing until that is touched, and that however often it is touched meanwhile, the
//! stream is told once. Holds nothing of a subject that nobody watches.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use compact_str::CompactString;
use hashbrown::HashMap;
use tokio::sync::watch;

use super::view::Touched;
use crate::model::OrderId;

/// What a stream waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Watched {
    Order(OrderId),
    Place(CompactString),
}

/// All that is watched.
#[derive(Debug, Default)]
pub(super) struct Hub(Mutex<HashMap<Watched, watch::Sender<()>>>);

impl Hub {
    fn all(&self) -> MutexGuard<'_, HashMap<Watched, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to watch a subject.
    pub(super) fn watch(self: &Arc<Self>, subject: Watched) -> Watcher {
        let mut all = self.all();
        let notice = all
            .entry(subject.clone())
            .or_insert_with(|| watch::Sender::new(()));
        Watcher {
            notice: Some(notice.subscribe()),
            subject,
            hub: Arc::clone(self),
        }
    }

    /// Wakes those who watch what was touched.
    pub(super) fn wake(&self, touched: &mut Touched) {
        let all = self.all();
        let orders = touched.orders.drain().map(Watched::Order);
        for subject in orders.chain(touched.places.drain().map(Watched::Place)) {
            if let Some(notice) = all.get(&subject) {
                notice.send_replace(());
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all().len()
    }
}

/// One stream's watch of one subject.
#[derive(Debug)]
pub(super) struct Watcher {
    /// Taken out only when the watch ends.
    notice: Option<watch::Receiver<()>>,
    subject: Watched,
    hub: Arc<Hub>,
}

impl Watcher {
    /// To be called before the view is read: what is touched from then on is news.
    pub(super) fn look(&mut self) {
        if let Some(notice) = &mut self.notice {
            notice.mark_unchanged();
        }
    }

    /// Waits until the subject is touched, or has been since the last look.
    pub(super) async fn touched(&mut self) {
        match &mut self.notice {
            // The hub keeps the other end as long as there is a watcher.
            Some(notice) => drop(notice.changed().await),
            None => std::future::pending().await,
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut all = self.hub.all();
        self.notice = None;
        if all
            .get(&self.subject)
            .is_some_and(|notice| notice.receiver_count() == 0)
        {
            all.remove(&self.subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn only_what_is_touched_wakes_and_once() {
        let hub = Arc::new(Hub::default());
        let order = |id: &str| Watched::Order(OrderId(id.into()));
        let (mut a, mut b) = (hub.watch(order("a")), hub.watch(order("b")));
        let mut place = hub.watch(Watched::Place("a".into()));
        let mut touched = Touched::default();
        for _ in 0..3 {
            touched.orders.insert(OrderId("a".into()));
            touched.orders.insert(OrderId("unwatched".into()));
            hub.wake(&mut touched);
        }
        assert!(a.touched().now_or_never().is_some());
        assert!(a.touched().now_or_never().is_none());
        assert!(b.touched().now_or_never().is_none());
        assert!(place.touched().now_or_never().is_none());
        touched.places.insert("a".into());
        hub.wake(&mut touched);
        place.look();
        assert!(place.touched().now_or_never().is_none());
    }

    #[test]
    fn nothing_is_kept_of_what_nobody_watches() {
        let hub = Arc::new(Hub::default());
        let subject = Watched::Place("p".into());
        let first = hub.watch(subject.clone());
        let second = hub.watch(subject);
        drop(first);
        assert_eq!(hub.len(), 1);
        drop(second);
        assert_eq!(hub.len(), 0);
    }
}
