//! The pages' addresses, with tokens that open them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::board::Board;
use crate::gateway::access::{Access, Subject};
use crate::model::OrderId;

/// How long a link opens its page.
const OPEN_FOR: Duration = Duration::from_secs(24 * 3_600);
/// After the first order: a city tells those that it begins with within a second.
const FIRST_AFTER: Duration = Duration::from_millis(1_500);
/// Another order is offered no sooner than this after the last.
const ORDER_EVERY: Duration = Duration::from_secs(30);

/// Tells where to look, as soon as there is something to see, and of another order when the one
/// that was offered has ended.
pub(super) struct Links<'a> {
    gateway: SocketAddr,
    access: &'a Access,
    board: &'a Board,
    phones: u64,
    /// When there was an order for the first time.
    begun: Option<Instant>,
    offered: Option<(String, Instant)>,
}

impl<'a> Links<'a> {
    pub(super) fn new(
        gateway: SocketAddr,
        access: &'a Access,
        board: &'a Board,
        phones: u64,
    ) -> Self {
        Self {
            gateway,
            access,
            board,
            phones,
            begun: None,
            offered: None,
        }
    }

    /// Lines to print now, if any.
    pub(super) fn news(&mut self, now: Instant) -> Option<String> {
        if let Some((order, at)) = &self.offered
            && (now < *at + ORDER_EVERY || self.board.is_open(order))
        {
            return None;
        }
        let order = self.board.under_way(self.phones)?;
        if now < *self.begun.get_or_insert(now) + FIRST_AFTER {
            return None;
        }
        let subject = Subject::Order(OrderId(order.as_str().into()));
        let track = self.page(&format!("track/{order}"), &subject);
        let is_first = self.offered.is_none();
        self.offered = Some((order, now));
        if !is_first {
            return Some(format!("that order has ended; another one:\n  {track}\n"));
        }
        let mut text = format!(
            "open in a browser:\n  all drivers    {}\n",
            self.page("map", &Subject::Fleet)
        );
        if let Some(place) = self.board.busiest_place() {
            let page = format!("place/{place}");
            let subject = Subject::Place(place.into());
            text += &format!("  a restaurant   {}\n", self.page(&page, &subject));
        }
        Some(format!("{text}  an order       {track}\n"))
    }

    /// The token stands behind the #, which browsers keep to themselves.
    fn page(&self, path: &str, subject: &Subject) -> String {
        // The demo's key is shared, so that it signs; and a page without a token says so.
        let token = self.access.mint(subject, OPEN_FOR).unwrap_or_default();
        format!("http://{}/{path}#token={token}", self.gateway)
    }
}
