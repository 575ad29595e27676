//! `GET /v1/fleet/live?bbox=west,south,east,north`: the drivers in a box, for operations.
//!
//! Owns what this stream says. Promises the whole first, then about every second only what is
//! new: drivers that moved or came, those that went or have sent no fix for [`STALE_MS`],
//! events and fences. At most [`SHOWN`] drivers are shown, the same ones to everyone who looks
//! at the same box, spread evenly; `total` says how many there are. A stream that was not
//! read for a minute begins anew. Memory per stream: the ids of the drivers shown, 40 kB.
//! All drivers are looked at each second, in parts, so that nobody waits long for the view.

use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::bbox::Bbox;
use super::described::Feature;
use super::drivers::Driver;
use super::fences::REMOVED_STAYS_MS;
use super::shown::{age_ms, rounded};
use super::sse::{self, Step, Teller};
use super::told::{Full, Told};
use super::view::View;
use super::{Counted, Shared};
use crate::model::{Position, TimeMs};

/// Drivers shown at most.
pub(super) const SHOWN: usize = 5_000;
/// A driver without a fix for this long is not shown.
pub(super) const STALE_MS: TimeMs = 5 * 60 * 1000;
/// Events in a snapshot at most.
const EVENTS: usize = 50;
/// Fences in a snapshot at most, the first by id.
const FENCES: usize = 5_000;
/// How often a stream tells.
const TELL_EVERY_MS: u64 = 1_000;
/// So many drivers are looked at while the view is held.
const PART: usize = 32_768;

/// Tells of the drivers in a box.
pub(super) struct FleetTeller {
    bbox: Bbox,
    told: Option<Cursor>,
    _turn: Counted,
}

struct Cursor {
    version: u64,
    total: usize,
    /// The ids of the drivers shown, ascending.
    shown: Vec<u64>,
    at_ms: TimeMs,
}

/// A driver in a box.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dot {
    pub(super) id: u64,
    pub(super) position: Position,
    pub(super) heading: Option<f32>,
    pub(super) speed: Option<f32>,
    pub(super) at: TimeMs,
    pub(super) age_ms: TimeMs,
    pub(super) open_orders: u32,
    pub(super) changed: u64,
}

impl Dot {
    fn of(driver: &Driver, now_ms: TimeMs) -> Self {
        Self {
            id: driver.id.0,
            position: driver.position,
            heading: driver.heading(),
            speed: driver.speed(),
            at: driver.event_time_ms,
            age_ms: age_ms(driver, now_ms),
            open_orders: driver.open_orders,
            changed: driver.changed,
        }
    }
}

impl Serialize for Dot {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Position {
            longitude,
            latitude,
        } = self.position;
        let (longitude, latitude) = (rounded(longitude), rounded(latitude));
        let (heading, speed) = (self.heading, self.speed);
        let rest = (self.at, self.age_ms, self.open_orders);
        (
            self.id, longitude, latitude, heading, speed, rest.0, rest.1, rest.2,
        )
            .serialize(to)
    }
}

/// By its lot, which is drawn once and for all: the drivers with the lowest are shown.
struct Drawn(u64, Dot);

impl PartialEq for Drawn {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Drawn {}

impl PartialOrd for Drawn {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Drawn {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1.id).cmp(&(other.0, other.1.id))
    }
}

/// A number that says nothing of where a driver is (the finalizer of splitmix64).
fn lot(id: u64) -> u64 {
    let mut z = id.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What is in a box now.
#[derive(Default)]
struct Survey {
    total: usize,
    lowest: BinaryHeap<Drawn>,
}

impl Survey {
    fn look(&mut self, driver: &Driver, bbox: &Bbox, now_ms: TimeMs) {
        if now_ms - driver.received_ms > STALE_MS || !bbox.contains(driver.position) {
            return;
        }
        self.total += 1;
        let drawn = Drawn(lot(driver.id.0), Dot::of(driver, now_ms));
        if self.lowest.len() < SHOWN {
            self.lowest.push(drawn);
        } else if let Some(mut highest) = self.lowest.peek_mut()
            && drawn < *highest
        {
            *highest = drawn;
        }
    }

    /// The drivers to show, by id.
    fn shown(self) -> Vec<Dot> {
        let mut dots: Vec<Dot> = self.lowest.into_iter().map(|drawn| drawn.1).collect();
        dots.sort_unstable_by_key(|dot| dot.id);
        dots
    }
}

/// What is done while the view is held.
type Look<'a> = dyn FnMut(&View) + 'a;

type Named = (CompactString, Option<Arc<RawValue>>);

/// The whole: first, and again if the stream was not read for a minute.
#[derive(Serialize, ToSchema)]
#[schema(as = FleetSnapshot)]
pub(super) struct Snapshot<'a> {
    /// The gateway's clock, ms since 1970.
    #[schema(value_type = i64)]
    pub(super) now: TimeMs,
    /// How many drivers are in the box.
    pub(super) total: usize,
    /// How many of them are shown.
    #[schema(maximum = 5000)]
    pub(super) shown: usize,
    /// Those, by id.
    #[schema(value_type = Vec<Dot>)]
    pub(super) drivers: &'a [Dot],
    /// The fences that the box touches, by id.
    #[schema(value_type = Vec<Feature>)]
    pub(super) fences: Vec<&'a RawValue>,
    /// The last events of the box, oldest first.
    #[schema(max_items = 50)]
    pub(super) events: Vec<Full<'a>>,
}

/// Drivers have moved, come or gone.
#[derive(Serialize, ToSchema)]
#[schema(as = FleetPositions)]
pub(super) struct Moved<'a> {
    /// The gateway's clock, ms since 1970.
    #[schema(value_type = i64)]
    pub(super) now: TimeMs,
    /// How many drivers are in the box.
    pub(super) total: usize,
    /// How many of them are shown.
    #[schema(maximum = 5000)]
    pub(super) shown: usize,
    /// Those that moved or came.
    #[schema(value_type = Vec<Dot>)]
    pub(super) drivers: Vec<&'a Dot>,
    /// The ids of those that are not shown any more.
    pub(super) gone: Vec<u64>,
}

/// The job told something.
#[derive(Serialize, ToSchema)]
#[schema(as = FleetEvent)]
pub(super) struct Happened<'a> {
    /// The gateway's clock, ms since 1970.
    #[schema(value_type = i64)]
    pub(super) now: TimeMs,
    /// What.
    pub(super) event: Full<'a>,
}

/// A fence is new, has changed, or is gone.
#[derive(Serialize, ToSchema)]
#[schema(as = FleetFence)]
pub(super) struct Fenced<'a> {
    /// The gateway's clock, ms since 1970.
    #[schema(value_type = i64)]
    pub(super) now: TimeMs,
    /// Its id.
    pub(super) id: &'a str,
    /// What it is now; null if it is gone.
    #[schema(value_type = Option<Feature>, required = true)]
    pub(super) feature: Option<&'a RawValue>,
}

impl FleetTeller {
    /// Tells of a box for as long as it has its turn among those that may.
    pub(super) fn new(bbox: Bbox, turn: Counted) -> Self {
        Self {
            bbox,
            told: None,
            _turn: turn,
        }
    }

    /// Decides from the view, which `with` gives access to for a short while at a time.
    pub(super) fn decide(&mut self, with: &mut dyn FnMut(&mut Look<'_>), now_ms: TimeMs) -> Step {
        if let Some(told) = &self.told {
            let gone_ms = now_ms.abs_diff(told.at_ms);
            if gone_ms < TELL_EVERY_MS {
                return Step::Wait(Some(Duration::from_millis(TELL_EVERY_MS - gone_ms)));
            }
            // What was removed meanwhile may be forgotten.
            if gone_ms > REMOVED_STAYS_MS as u64 / 2 {
                self.told = None;
            }
        }
        let since = self.told.as_ref().map_or(0, |told| told.version);
        let mut version = 0;
        let mut events: Vec<Told> = Vec::new();
        let mut fences: Vec<Named> = Vec::new();
        let mut survey = Survey::default();
        let mut next = None;
        with(&mut |view| {
            // What changes while the parts are looked at is told the next time, again.
            version = view.version();
            events = self.events_since(view, since);
            let changed = view.fences.since(since, &self.bbox);
            fences = changed
                .map(|(id, feature)| (id.clone(), feature.cloned()))
                .collect();
            next = Some(0);
        });
        while let Some(first) = next {
            with(&mut |view| {
                let (drivers, after) = view.drivers().part(first, PART);
                for driver in drivers {
                    survey.look(driver, &self.bbox, now_ms);
                }
                next = after;
            });
        }
        let total = survey.total;
        let dots = survey.shown();
        let out = match &self.told {
            None => snapshot(now_ms, total, &dots, &fences, &events),
            Some(told) => changes(told, now_ms, total, &dots, &fences, &events),
        };
        self.told = Some(Cursor {
            version,
            total,
            shown: dots.iter().map(|dot| dot.id).collect(),
            at_ms: now_ms,
        });
        if out.is_empty() {
            Step::Wait(Some(Duration::from_millis(TELL_EVERY_MS)))
        } else {
            Step::Say(out)
        }
    }

    /// The events of the box since a version, oldest first; those without a place as well.
    fn events_since(&self, view: &View, since: u64) -> Vec<Told> {
        let here = |told: &Told| told.position.is_none_or(|at| self.bbox.contains(at));
        let news = (view.events().rev())
            .take_while(|(version, _)| *version > since)
            .filter(|(_, told)| here(told));
        let most = if since == 0 { EVENTS } else { usize::MAX };
        let mut events: Vec<Told> = news.take(most).map(|(_, told)| told.clone()).collect();
        events.reverse();
        events
    }
}

fn snapshot(
    now_ms: TimeMs,
    total: usize,
    dots: &[Dot],
    fences: &[Named],
    events: &[Told],
) -> String {
    let snapshot = Snapshot {
        now: now_ms,
        total,
        shown: dots.len(),
        drivers: dots,
        fences: (fences.iter())
            .filter_map(|(_, feature)| feature.as_deref())
            .take(FENCES)
            .collect(),
        events: events.iter().map(Told::full).collect(),
    };
    let mut out = String::with_capacity(96 * dots.len());
    sse::event(&mut out, "snapshot", None, &snapshot);
    out
}

fn changes(
    told: &Cursor,
    now_ms: TimeMs,
    total: usize,
    dots: &[Dot],
    fences: &[Named],
    events: &[Told],
) -> String {
    let mut out = String::new();
    for (id, feature) in fences {
        let fenced = Fenced {
            now: now_ms,
            id,
            feature: feature.as_deref(),
        };
        sse::event(&mut out, "fence", None, &fenced);
    }
    for event in events {
        let happened = Happened {
            now: now_ms,
            event: event.full(),
        };
        sse::event(&mut out, "event", None, &happened);
    }
    let is_new =
        |dot: &&Dot| dot.changed > told.version || told.shown.binary_search(&dot.id).is_err();
    let drivers: Vec<&Dot> = dots.iter().filter(is_new).collect();
    let is_shown = |id: &u64| dots.binary_search_by_key(id, |dot| dot.id).is_ok();
    let gone: Vec<u64> = (told.shown.iter().copied())
        .filter(|id| !is_shown(id))
        .collect();
    if !drivers.is_empty() || !gone.is_empty() || total != told.total {
        let moved = Moved {
            now: now_ms,
            total,
            shown: dots.len(),
            drivers,
            gone,
        };
        sse::event(&mut out, "positions", None, &moved);
    }
    out
}

impl Teller for FleetTeller {
    fn step(&mut self, shared: &Shared, now_ms: TimeMs) -> Step {
        self.decide(&mut |look| look(&shared.view()), now_ms)
    }
}
