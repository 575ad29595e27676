//! `GET /v1/places/{place}/live`: the orders of a restaurant, or of whoever gets them.
//!
//! Owns what this stream says. Promises the whole first, then each order whose row changed and
//! each driver that moved, all that is new at most once each [`TELL_EVERY`]. Shows where a
//! driver is only while it is on its way to this place for that order, or at it. Per stream
//! it keeps one small row for each order of the place.

use std::collections::BTreeMap;
use std::time::Duration;

use compact_str::CompactString;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::drivers::Driver;
use super::orders::{Followed, State};
use super::shown::{Agent, Way, rounded};
use super::sse::{self, Step, Teller};
use super::view::View;
use crate::model::{DriverId, Leg, OrderId, OrderStatus, Position, TimeMs};

/// A stream tells what is new at most so often.
pub(super) const TELL_EVERY: Duration = Duration::from_millis(200);

/// Tells of one place.
pub(super) struct PlaceTeller {
    place: CompactString,
    told: Option<BTreeMap<OrderId, Cursor>>,
    told_ms: TimeMs,
}

/// What was told of one order.
#[derive(Debug, PartialEq)]
struct Cursor {
    row: Key,
    fix: Option<TimeMs>,
}

/// What makes a row another.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Key {
    status: OrderStatus,
    leg: Leg,
    state: State,
    since: TimeMs,
    /// Whose place is shown, if it is.
    driver: Option<DriverId>,
}

/// The whole, once.
#[derive(Serialize, ToSchema)]
#[schema(as = PlaceSnapshot)]
pub(super) struct Snapshot<'a> {
    /// The gateway's clock, ms since 1970.
    #[schema(value_type = i64)]
    pub(super) now: TimeMs,
    /// The place's name.
    pub(super) place: &'a str,
    /// Degrees east, WGS 84; absent without orders.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) longitude: Option<f64>,
    /// Degrees north, WGS 84; absent without orders.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) latitude: Option<f64>,
    /// All orders that come from here or go here.
    pub(super) orders: Vec<Row<'a>>,
}

/// An order as one of its places sees it.
#[derive(Serialize, ToSchema)]
#[schema(as = PlaceRow)]
pub(super) struct Row<'a> {
    /// The order's id.
    pub(super) id: &'a str,
    /// The order's status.
    #[schema(schema_with = super::described::status)]
    pub(super) status: &'static str,
    /// Which end of the order the place is.
    #[schema(schema_with = super::described::leg)]
    pub(super) leg: Leg,
    /// How the order stands here.
    pub(super) state: State,
    /// Since when it stands so, ms since 1970.
    #[schema(value_type = i64)]
    pub(super) since: TimeMs,
    /// The driver, while on its way here for this order or here; else null.
    #[schema(required = true)]
    pub(super) agent: Option<Agent>,
    /// How far to here.
    #[serde(flatten)]
    pub(super) way: Way,
}

/// An order is new here, or its row has changed.
#[derive(Serialize, ToSchema)]
#[schema(as = PlaceOrder)]
pub(super) struct Changed<'a> {
    /// The gateway's clock, ms since 1970.
    #[schema(value_type = i64)]
    pub(super) now: TimeMs,
    /// Its row.
    pub(super) order: Row<'a>,
}

/// The driver of an order has moved.
#[derive(Serialize, ToSchema)]
#[schema(as = PlacePosition)]
pub(super) struct Moved<'a> {
    /// The gateway's clock, ms since 1970.
    #[schema(value_type = i64)]
    pub(super) now: TimeMs,
    /// The order's id.
    pub(super) id: &'a str,
    /// The driver.
    pub(super) agent: Agent,
    /// How far to here.
    #[serde(flatten)]
    pub(super) way: Way,
}

/// An order is none of this place's any more.
#[derive(Serialize, ToSchema)]
#[schema(as = PlaceRemoved)]
pub(super) struct Removed<'a> {
    /// The gateway's clock, ms since 1970.
    #[schema(value_type = i64)]
    pub(super) now: TimeMs,
    /// The order's id.
    pub(super) id: &'a str,
}

/// One order as the place sees it now.
struct Seen<'a> {
    followed: &'a Followed,
    key: Key,
    driver: Option<&'a Driver>,
    end: Position,
}

impl<'a> Seen<'a> {
    fn of(view: &'a View, followed: &'a Followed, place: &str) -> Option<Self> {
        let leg = followed.leg_at(place)?;
        let (state, since) = followed.state(leg);
        let here = matches!(state, State::Coming | State::Near | State::Arrived);
        let driver = view.driver_of(followed).filter(|_| here);
        Some(Self {
            followed,
            key: Key {
                status: followed.order.status,
                leg,
                state,
                since,
                driver: driver.map(|driver| driver.id),
            },
            driver,
            end: followed.stop(leg),
        })
    }

    fn cursor(&self) -> Cursor {
        Cursor {
            row: self.key,
            fix: self.driver.map(|driver| driver.event_time_ms),
        }
    }

    fn id(&self) -> &'a OrderId {
        &self.followed.order.id
    }

    fn way(&self) -> Way {
        self.driver
            .map_or_else(Way::default, |driver| Way::to(driver, self.end))
    }

    fn row(&self, now_ms: TimeMs) -> Row<'a> {
        Row {
            id: &self.followed.order.id.0,
            status: self.key.status.as_str(),
            leg: self.key.leg,
            state: self.key.state,
            since: self.key.since,
            agent: self.driver.map(|driver| Agent::of(driver, now_ms)),
            way: self.way(),
        }
    }
}

impl PlaceTeller {
    pub(super) fn new(place: CompactString) -> Self {
        Self {
            place,
            told: None,
            told_ms: 0,
        }
    }

    /// Decides from the view.
    pub(super) fn decide(&mut self, view: &View, now_ms: TimeMs) -> Step {
        let every_ms = TELL_EVERY.as_millis() as u64;
        let gone_ms = now_ms.abs_diff(self.told_ms);
        if self.told.is_some() && gone_ms < every_ms {
            // Whether anything is new is looked at then: it costs more than to wait.
            return match self.has_news(view) {
                true => Step::Wait(Some(Duration::from_millis(every_ms - gone_ms))),
                false => Step::Wait(None),
            };
        }
        let orders = view.orders_at(&self.place);
        let seen = orders.filter_map(|followed| Seen::of(view, followed, &self.place));
        let Some(told) = &mut self.told else {
            let seen: Vec<_> = seen.collect();
            self.told = Some(
                seen.iter()
                    .map(|it| (it.id().clone(), it.cursor()))
                    .collect(),
            );
            self.told_ms = now_ms;
            return Step::Say(self.snapshot(&seen, now_ms));
        };
        let mut out = String::new();
        let mut gone = std::mem::take(told);
        for it in seen {
            let cursor = it.cursor();
            let before = gone.remove(it.id());
            if before
                .as_ref()
                .is_none_or(|before| before.row != cursor.row)
            {
                let order = it.row(now_ms);
                sse::event(&mut out, "order", None, &Changed { now: now_ms, order });
            } else if let (Some(driver), true) = (it.driver, before.as_ref() != Some(&cursor)) {
                let moved = Moved {
                    now: now_ms,
                    id: &it.id().0,
                    agent: Agent::of(driver, now_ms),
                    way: it.way(),
                };
                sse::event(&mut out, "position", None, &moved);
            }
            told.insert(it.id().clone(), cursor);
        }
        for id in gone.keys() {
            let removed = Removed {
                now: now_ms,
                id: &id.0,
            };
            sse::event(&mut out, "removed", None, &removed);
        }
        if out.is_empty() {
            return Step::Wait(None);
        }
        self.told_ms = now_ms;
        Step::Say(out)
    }

    fn has_news(&self, view: &View) -> bool {
        let told = self.told.as_ref();
        let mut count = 0;
        let new = view.orders_at(&self.place).any(|followed| {
            count += 1;
            let Some(it) = Seen::of(view, followed, &self.place) else {
                return false;
            };
            told.and_then(|told| told.get(it.id())) != Some(&it.cursor())
        });
        new || told.is_some_and(|told| told.len() != count)
    }

    fn snapshot(&self, seen: &[Seen<'_>], now_ms: TimeMs) -> String {
        let end = seen.first().map(|it| it.end);
        let snapshot = Snapshot {
            now: now_ms,
            place: &self.place,
            longitude: end.map(|end| rounded(end.longitude)),
            latitude: end.map(|end| rounded(end.latitude)),
            orders: seen.iter().map(|it| it.row(now_ms)).collect(),
        };
        let mut out = String::new();
        sse::event(&mut out, "snapshot", None, &snapshot);
        out
    }
}

impl Teller for PlaceTeller {
    fn step(&mut self, shared: &Shared, now_ms: TimeMs) -> Step {
        self.decide(&shared.view(), now_ms)
    }
}
