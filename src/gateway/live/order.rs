//! `GET /v1/orders/{id}/live`: one order, for whoever waits for it.
//!
//! Owns what this stream says and in which order. Promises the whole first and whenever the
//! order changes, then only what is new; at most one position each [`POSITION_EVERY`]; nothing
//! of a driver that no longer carries the order; and an end as soon as the order has one.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::orders::Followed;
use super::shown::{Agent, End, Way};
use super::sse::{self, Step, Teller};
use super::told::Brief;
use super::view::View;
use crate::model::{DriverId, Leg, OrderId, TimeMs};

/// Two positions of one stream are at least so far apart.
pub(super) const POSITION_EVERY: Duration = Duration::from_millis(200);

/// Tells of one order.
pub(super) struct OrderTeller {
    id: OrderId,
    /// The last event that the reader has from an earlier stream; all up to it are left out.
    after: Option<Vec<u8>>,
    told: Option<Cursor>,
    /// The id of the last event told.
    last_id: Option<String>,
    positioned_ms: TimeMs,
}

/// How far a stream has told.
struct Cursor {
    version: u64,
    events: u64,
    fix: Option<(DriverId, TimeMs)>,
}

/// The whole: first, and whenever the order's status, driver or stops change.
#[derive(Serialize, ToSchema)]
#[schema(as = OrderSnapshot)]
pub(super) struct Snapshot<'a> {
    /// The gateway's clock, ms since 1970.
    #[schema(value_type = i64)]
    pub(super) now: TimeMs,
    /// The order.
    pub(super) order: Shown<'a>,
    /// Who carries it; null if nobody does, or nothing is known of where.
    #[schema(required = true)]
    pub(super) agent: Option<Agent>,
    /// Where the driver goes; null if nowhere.
    #[schema(schema_with = super::described::target, required = true)]
    pub(super) target: Option<Leg>,
    /// How far to the target.
    #[serde(flatten)]
    pub(super) way: Way,
    /// What the job told of it, oldest first, without those up to `Last-Event-ID`.
    pub(super) events: Vec<Brief<'a>>,
}

/// An order as whoever waits for it sees it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Order)]
pub(super) struct Shown<'a> {
    /// Its id.
    pub(super) id: &'a str,
    /// How it stands.
    #[schema(schema_with = super::described::open_status)]
    pub(super) status: &'static str,
    /// Where it comes from.
    pub(super) pickup: End<'a>,
    /// Where it goes.
    pub(super) dropoff: End<'a>,
    /// The version's time, ms since 1970.
    #[schema(value_type = i64)]
    pub(super) updated_at: TimeMs,
}

/// The driver has moved.
#[derive(Serialize, ToSchema)]
#[schema(as = OrderPosition)]
pub(super) struct Moved {
    /// The gateway's clock, ms since 1970.
    #[schema(value_type = i64)]
    pub(super) now: TimeMs,
    /// Who carries the order.
    pub(super) agent: Agent,
    /// Where the driver goes; null if nowhere.
    #[schema(schema_with = super::described::target, required = true)]
    pub(super) target: Option<Leg>,
    /// How far to the target.
    #[serde(flatten)]
    pub(super) way: Way,
}

/// The job told something of the order.
#[derive(Serialize, ToSchema)]
#[schema(as = OrderEvent)]
pub(super) struct Happened<'a> {
    /// The gateway's clock, ms since 1970.
    #[schema(value_type = i64)]
    pub(super) now: TimeMs,
    /// What.
    pub(super) event: Brief<'a>,
}

impl OrderTeller {
    pub(super) fn new(id: OrderId, after: Option<Vec<u8>>) -> Self {
        Self {
            id,
            after,
            told: None,
            last_id: None,
            positioned_ms: 0,
        }
    }

    /// Decides from the view.
    pub(super) fn decide(&mut self, view: &View, now_ms: TimeMs) -> Step {
        let Some(followed) = view.order(&self.id) else {
            return Step::End(sse::ended(now_ms, "removed"));
        };
        let status = followed.order.status;
        if status.is_ended() {
            return Step::End(sse::ended(now_ms, status.as_str()));
        }
        let driver = view.driver_of(followed);
        let fix = driver.map(|driver| (driver.id, driver.event_time_ms));
        let told = match &mut self.told {
            Some(told) if told.version == followed.version => told,
            _ => {
                self.told = Some(Cursor {
                    version: followed.version,
                    events: view.version(),
                    fix,
                });
                self.positioned_ms = now_ms;
                return Step::Say(self.snapshot(view, followed, now_ms));
            }
        };
        let since = told.events;
        told.events = view.version();
        let mut out = String::new();
        for (_, event) in followed.events().filter(|(version, _)| *version > since) {
            self.last_id = Some(event.id.clone());
            let happened = Happened {
                now: now_ms,
                event: event.brief(),
            };
            sse::event(&mut out, "event", self.last_id.as_deref(), &happened);
        }
        if let (Some(driver), true) = (driver, fix != told.fix) {
            let every_ms = POSITION_EVERY.as_millis() as u64;
            let gone_ms = now_ms.abs_diff(self.positioned_ms);
            if gone_ms < every_ms && out.is_empty() {
                return Step::Wait(Some(Duration::from_millis(every_ms - gone_ms)));
            }
            if gone_ms >= every_ms {
                told.fix = fix;
                self.positioned_ms = now_ms;
                let target = followed.target();
                let moved = Moved {
                    now: now_ms,
                    agent: Agent::of(driver, now_ms),
                    target: target.map(|(leg, _)| leg),
                    way: target
                        .map_or_else(Way::default, |(_, stop)| Way::to(driver, stop.position)),
                };
                sse::event(&mut out, "position", self.last_id.as_deref(), &moved);
            }
        }
        if out.is_empty() {
            Step::Wait(None)
        } else {
            Step::Say(out)
        }
    }

    /// The whole, with the events that the reader doesn't have from an earlier stream.
    fn snapshot(&mut self, view: &View, followed: &Followed, now_ms: TimeMs) -> String {
        let order = &followed.order;
        let driver = view.driver_of(followed);
        let target = followed.target();
        let way = match (driver, target) {
            (Some(driver), Some((_, stop))) => Way::to(driver, stop.position),
            _ => Way::default(),
        };
        let events: Vec<_> = followed.events().map(|(_, told)| told).collect();
        let known = self.after.as_ref().and_then(|after| {
            let is = |id: &str| id.as_bytes() == after.as_slice();
            events.iter().position(|told| is(&told.id))
        });
        if let Some(last) = events.last() {
            self.last_id = Some(last.id.clone());
        }
        let new = known.map_or(0, |at| at + 1);
        let snapshot = Snapshot {
            now: now_ms,
            order: Shown {
                id: &order.id.0,
                status: order.status.as_str(),
                pickup: End::of(&order.pickup),
                dropoff: End::of(&order.dropoff),
                updated_at: order.updated_at_ms,
            },
            agent: driver.map(|driver| Agent::of(driver, now_ms)),
            target: target.map(|(leg, _)| leg),
            way,
            events: events[new..].iter().map(|told| told.brief()).collect(),
        };
        let mut out = String::new();
        sse::event(&mut out, "snapshot", self.last_id.as_deref(), &snapshot);
        out
    }
}

impl Teller for OrderTeller {
    fn step(&mut self, shared: &Shared, now_ms: TimeMs) -> Step {
        self.decide(&shared.view(), now_ms)
    }
}
