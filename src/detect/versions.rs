//! A fence's new version, or its removal, against each driver's last fix.

use super::detector::Detector;
use super::telling::Telling;
use super::timers::seconds;
use super::visits::{self, Stand, Visit};
use crate::geo::{Area, FenceIndex, LonLatBox, Tile};
use crate::model::{Event, EventKind, Position, Subject};

impl Detector {
    /// Judges all last fixes by the version in force at a slot, or by its removal.
    pub(super) fn judge_fence(
        &mut self,
        slot: u32,
        in_force: bool,
        telling: &Telling,
        out: &mut Vec<Event>,
    ) {
        let Some(fence) = self.fences.get_mut(slot) else {
            return;
        };
        let extent = in_force.then(|| Extent::of(&fence.area));
        let had_visitors = fence.visitors > 0;
        for (number, &position) in self.drivers.positions.iter().enumerate() {
            let near = (extent.as_ref()).is_some_and(|extent| extent.tiles.holds(position));
            if !near && !had_visitors {
                continue;
            }
            let around = (extent.as_ref()).is_some_and(|extent| extent.hull.holds(position));
            let driver = &mut self.drivers.records[number];
            let known = driver
                .visits
                .binary_search_by_key(&slot, |visit| visit.slot);
            if near || known.is_ok() {
                driver.ground.even = false;
            }
            let stand = match known {
                Ok(_) => Stand::Visiting,
                Err(_) => Stand::Outside,
            };
            let inside = around
                && (extent.as_ref()).is_some_and(|extent| extent.contains(&fence.area, position));
            let (stand, kind) =
                visits::judge(stand, inside, || !in_force || fence.is_left_at(position));
            let event = |kind| {
                let subject = Subject::Fence(fence.id.clone());
                telling.event(kind, driver.id, subject, Some(position))
            };
            let mut dwelled_s = None;
            let mut begun = None;
            match known {
                Ok(at) if stand == Stand::Outside => {
                    let visit = driver.visits.remove(at);
                    driver.changed = true;
                    fence.visitors -= 1;
                    out.extend(kind.map(|kind| Event {
                        dwell_s: Some(visit.begun.seconds_to(telling.event_time_ms)),
                        ..event(kind)
                    }));
                }
                Ok(at) => {
                    let visit = &mut driver.visits[at];
                    let at_ms = telling.place.at_ms;
                    if visit.change_dwell(fence.dwell_ms, at_ms) {
                        dwelled_s = Some(seconds(at_ms - visit.begun.place.at_ms));
                        driver.changed = true;
                    }
                    begun = visit.dwells_after_ms().map(|after| (visit.begun, after));
                }
                Err(at) if stand == Stand::Visiting => {
                    let (visit, dwells) = Visit::begin(slot, telling.begun(), fence.dwell_ms);
                    driver.visits.reserve_exact(1);
                    driver.visits.insert(at, visit);
                    driver.changed = true;
                    fence.visitors += 1;
                    out.extend(kind.map(event));
                    dwelled_s = dwells.then_some(0.0);
                    begun = visit.dwells_after_ms().map(|after| (visit.begun, after));
                }
                Err(_) => {}
            }
            if dwelled_s.is_some() {
                out.push(Event {
                    dwell_s: dwelled_s,
                    ..event(EventKind::GeofenceDwelled)
                });
            }
            if let Some((begun, after_ms)) = begun {
                driver.expect(number, &begun, after_ms, &mut self.agenda);
            }
        }
    }
}

/// Where a version of a fence may contain something: a box around it all for most drivers,
/// an index of its parts for the rest.
struct Extent {
    hull: LonLatBox,
    /// Around all positions whose tiles the hull has part in.
    tiles: LonLatBox,
    parts: FenceIndex,
}

impl Extent {
    fn of(area: &Area) -> Self {
        let boxes = area.boxes();
        let hull = LonLatBox::hull(&boxes);
        let mut parts = FenceIndex::new();
        parts.insert(0, boxes);
        let tiles = Tile::around(&hull);
        Self { hull, tiles, parts }
    }

    fn contains(&self, area: &Area, position: Position) -> bool {
        let mut inside = false;
        self.parts.visit(position, |_, part| {
            inside = inside || area.part_contains(part, position);
        });
        inside
    }
}
