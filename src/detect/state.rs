//! Drivers and orders as a snapshot has them.
//!
//! Owns the format of their state, and how it leaves a [`Detector`] and an [`OrderBook`] and
//! comes back. Promises that whoever was given all that was exported tells, from there on,
//! exactly what the exporter tells. Never has what follows from the rest: where a fence is
//! kept, how many visit it and how long a visit of it dwells, where all drivers are, when to
//! look at one. That is made anew.
//!
//! The types here, and those that they are made of, are the format: if one changes, the
//! version of the snapshots must be raised. `state_tests` has examples as bytes.
//!
//! An export borrows what it shows, for it shows every driver that moves, every few seconds.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::detector::Detector;
use super::drivers::{Aside, Fix, Held, NOWHERE};
use super::flags::Spot;
use super::legs::OrderLegs;
use super::orders::{Kept, OrderBook, State};
use super::sessions::Session;
use super::silence::Silence;
use super::tiles::Ground;
use super::timers::{Begun, NEVER};
use super::visits::{Dwell, Visit};
use crate::model::{DriverId, FenceId, OrderId};

/// All that a [`Detector`] must know of a driver to go on with it, the fences aside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DriverState<'a> {
    pub(super) driver: DriverId,
    pub(super) last: Option<Fix>,
    pub(super) previous: Option<Spot>,
    pub(super) teleport: Option<Spot>,
    pub(super) silence: Cow<'a, Silence>,
    pub(super) visits: Cow<'a, [VisitState<'a>]>,
    pub(super) orders: Cow<'a, [OrderLegs]>,
    pub(super) held: Cow<'a, VecDeque<Held>>,
}

/// A visit of a fence, after whatever time it dwells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct VisitState<'a> {
    pub(super) fence: Cow<'a, FenceId>,
    pub(super) begun: Begun,
    /// Whether it was told that it dwells.
    pub(super) dwelled: bool,
}

/// The sessions of a driver whose updates bear numbers; not part of [`DriverState`], which
/// snapshots of format 1 have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionsState<'a> {
    pub(super) driver: DriverId,
    /// By use, the last used one at the end.
    pub(super) sessions: Cow<'a, [Session]>,
}

/// All that an [`OrderBook`] must know of an order to go on with it, or that it was removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderState<'a> {
    pub(super) order: Cow<'a, OrderId>,
    pub(super) state: Option<Cow<'a, State>>,
}

impl DriverState<'_> {
    /// Whose state it is.
    pub fn driver(&self) -> DriverId {
        self.driver
    }
}

impl SessionsState<'_> {
    /// Whose sessions they are.
    pub fn driver(&self) -> DriverId {
        self.driver
    }
}

impl OrderState<'_> {
    /// Whose state it is.
    pub fn order(&self) -> &OrderId {
        &self.order
    }
}

impl Detector {
    /// Shows each driver that has changed since the export before, and each that `whole` is
    /// true of, with its sessions if it has any. Asks `whole` of each driver that has not changed.
    ///
    /// To be called between epochs. No driver is ever forgotten, so none is removed.
    pub fn export(
        &mut self,
        whole: impl Fn(DriverId) -> bool,
        mut visit: impl FnMut(&DriverState, Option<&SessionsState>),
    ) {
        let fences = &self.fences;
        let mut visits = Vec::new();
        for driver in &mut self.drivers.records {
            if !driver.changed && !whole(driver.id) {
                continue;
            }
            driver.changed = false;
            visits.clear();
            visits.extend(driver.visits.iter().filter_map(|visit| {
                Some(VisitState {
                    fence: Cow::Borrowed(&fences.get(visit.slot)?.id),
                    begun: visit.begun,
                    dwelled: visit.dwell == Dwell::Told,
                })
            }));
            let aside = driver.aside.as_deref();
            let held = aside.map(|aside| Cow::Borrowed(&aside.held));
            let state = DriverState {
                driver: driver.id,
                last: driver.last,
                previous: driver.previous,
                teleport: aside.and_then(|aside| aside.teleport),
                silence: Cow::Borrowed(&driver.silence),
                visits: Cow::Borrowed(&visits),
                orders: Cow::Borrowed(&driver.orders),
                held: held.unwrap_or_default(),
            };
            let sessions = aside.map(|aside| &aside.sessions[..]).unwrap_or_default();
            let sessions = (!sessions.is_empty()).then_some(SessionsState {
                driver: driver.id,
                sessions: Cow::Borrowed(sessions),
            });
            visit(&state, sessions.as_ref());
        }
    }

    /// Puts a driver in as it was exported, in place of what was known of it but its sessions:
    /// those are [`Detector::import_sessions`]'s. That counts as exported: a driver that nothing comes to is not shown by the next export.
    ///
    /// The fences of the same moment must be in force. A visit of one that is not is dropped.
    pub fn import(&mut self, state: DriverState) {
        let number = self.drivers.number(state.driver);
        let driver = &mut self.drivers.records[number];
        for visit in driver.visits.drain(..) {
            if let Some(fence) = self.fences.get_mut(visit.slot) {
                fence.visitors -= 1;
            }
        }
        // Room for no more than there are, as when they begin.
        driver.visits.reserve_exact(state.visits.len());
        for visit in state.visits.iter() {
            let Some(slot) = self.fences.slot(&visit.fence) else {
                continue;
            };
            let Some(fence) = self.fences.get_mut(slot) else {
                continue;
            };
            fence.visitors += 1;
            let dwell = if visit.dwelled {
                Dwell::Told
            } else {
                Dwell::After(fence.dwell_ms)
            };
            let begun = visit.begun;
            driver.visits.push(Visit { slot, begun, dwell });
        }
        driver.visits.sort_unstable_by_key(|visit| visit.slot);
        driver.last = state.last;
        driver.previous = state.previous;
        driver.silence = state.silence.into_owned();
        driver.orders = state.orders.into_owned();
        let (teleport, held) = (state.teleport, state.held.into_owned());
        let sessions = driver.aside.take().map(|aside| aside.sessions);
        let sessions = sessions.unwrap_or_default();
        let is_aside = teleport.is_some() || !held.is_empty() || !sessions.is_empty();
        driver.aside = is_aside.then(|| {
            Box::new(Aside {
                teleport,
                held,
                sessions,
            })
        });
        driver.changed = false;
        driver.ground = Ground::default();
        self.drivers.positions[number] = driver.last.map_or(NOWHERE, |fix| fix.position);
        let release_ms = driver.next_release().map_or(NEVER, |place| place.at_ms);
        let wake_ms = driver.first_deadline(&self.spans).min(release_ms);
        self.agenda.set(number, driver.wake_ms, wake_ms);
        driver.wake_ms = wake_ms;
        driver.wake_event_ms = driver.first_event_deadline(&self.spans);
    }

    /// Puts a driver's sessions in as they were exported, in place of those that were known.
    pub fn import_sessions(&mut self, state: SessionsState) {
        let number = self.drivers.number(state.driver);
        let aside = self.drivers.records[number].aside.get_or_insert_default();
        aside.sessions = state.sessions.into_owned();
    }
}

impl OrderBook {
    /// Shows each order that has changed since the export before, and each that `whole` is
    /// true of; before them, as removed, each order that was exported or imported before and
    /// has been removed since. Asks `whole` of each order that has not changed.
    pub fn export(&mut self, whole: impl Fn(&OrderId) -> bool, mut visit: impl FnMut(&OrderState)) {
        for order in self.removed.drain(..) {
            visit(&OrderState {
                order: Cow::Owned(order),
                state: None,
            });
        }
        for (order, kept) in &mut self.orders {
            if !kept.changed && !whole(order) {
                continue;
            }
            kept.changed = false;
            kept.exported = true;
            visit(&OrderState {
                order: Cow::Borrowed(order),
                state: Some(Cow::Borrowed(&kept.state)),
            });
        }
    }

    /// Puts an order in as it was exported, or takes it out if it was removed, in place of
    /// what was known of it. That counts as exported.
    pub fn import(&mut self, state: OrderState) {
        let order = state.order.into_owned();
        match state.state {
            None => {
                self.orders.remove(&order);
            }
            Some(state) => {
                let kept = Kept {
                    state: state.into_owned(),
                    exported: true,
                    changed: false,
                };
                self.orders.insert(order, kept);
            }
        }
    }
}
