//! The city in motion: a pure function of its plan.

use std::collections::BTreeSet;

use compact_str::format_compact;

use crate::model::{DriverId, Fence, FenceId, TimeMs};
use crate::wire::{UpdateMessage, encode_fence, encode_update};

use super::agenda::{Agenda, Held, Task};
use super::city::{City, Point, STATES};
use super::dice::Dice;
use super::driver::{Driver, Phase};
use super::message::{Batch, Counts, Oddity, What};
use super::orders::Slot;
use super::{Fix, Plan, write_number, zones};

/// Surges at a time, at most.
const SURGES: usize = 3;
/// A surge begins, moves or ends this often, ms.
const SURGE_EVERY_MS: i64 = 6_000;
/// Metres from a corner within which a tired driver finds its next target, in blocks.
const CRUISE_BLOCKS: i32 = 8;

/// A city that moves step by step. Two of the same [`Plan`] send the same bytes.
pub struct Simulation {
    pub(super) plan: Plan,
    pub(super) city: City,
    pub(super) dice: Dice,
    pub(super) drivers: Vec<Driver>,
    pub(super) slots: Vec<Slot>,
    pub(super) agenda: Agenda,
    pub(super) last_serial: u64,
    pub(super) unremoved: BTreeSet<u64>,
    fences: Vec<Fence>,
    surges: Vec<FenceId>,
    last_surge: u32,
    /// The next update is this driver's, in this round of all drivers.
    next_driver: u32,
    round: u64,
    /// Where the next step begins, ms of city time.
    now_ms: i64,
}

impl Simulation {
    /// Builds the city, its fences, its drivers and the orders that it begins with.
    pub fn new(plan: Plan) -> Self {
        let plan = Plan {
            drivers: plan.drivers.max(1),
            interval_us: plan.interval_us.max(1),
            slice_ms: plan.slice_ms.max(1),
            ..plan
        };
        let city = City::of(&plan);
        // Fences have dice of their own too.
        let fences = zones::fences(&city, plan.fences, &mut Dice::new(plan.seed, 2));
        let mut dice = Dice::new(plan.seed, 3);
        let drivers = (0..plan.drivers)
            .map(|_| {
                let at = city.any_corner(&mut dice);
                let detailed = dice.chance(plan.detailed);
                let mut driver = Driver::new(at, detailed, &mut dice);
                let target = city.corner_near(at, CRUISE_BLOCKS, &mut dice);
                driver.head_for(target, &city, &mut dice);
                driver
            })
            .collect();
        let mut simulation = Self {
            plan,
            city,
            dice,
            drivers,
            slots: Vec::new(),
            agenda: Agenda::default(),
            last_serial: 0,
            unremoved: BTreeSet::new(),
            fences,
            surges: Vec::new(),
            last_surge: 0,
            next_driver: 0,
            round: 0,
            now_ms: 0,
        };
        simulation.open_first_orders();
        if simulation.plan.fences > 0 {
            simulation.agenda.plan(SURGE_EVERY_MS / 2, Task::Surge);
        }
        simulation
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Moves the beginning; only before the first step.
    pub(super) fn set_start_ms(&mut self, start_ms: TimeMs) {
        self.plan.start_ms = start_ms;
    }

    /// Where the next step begins, ms since the beginning.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// The fences that stand from the beginning.
    pub fn initial_fences(&self) -> &[Fence] {
        &self.fences
    }

    /// Adds the fences that stand from the beginning to `out`; to be sent first.
    pub fn fences(&self, out: &mut Batch) {
        for fence in &self.fences {
            push_fence(fence, self.plan.start_ms, out);
        }
    }

    /// Moves the city on by `slice_ms` and fills `out` with what was sent meanwhile, in order
    /// of time.
    pub fn next_step(&mut self, out: &mut Batch) {
        out.clear();
        let end_ms = self.now_ms + i64::from(self.plan.slice_ms);
        let end_us = end_ms as u64 * 1_000;
        loop {
            let drivers = u64::from(self.plan.drivers);
            let phase_us = u64::from(self.next_driver) * self.plan.interval_us / drivers;
            let at_us = self.round * self.plan.interval_us + phase_us;
            let at_ms = (at_us / 1_000) as i64;
            self.do_tasks(at_ms.min(end_ms - 1), out);
            if at_us >= end_us {
                break;
            }
            let driver = self.next_driver;
            let since_us = if self.round == 0 {
                0
            } else {
                self.plan.interval_us
            };
            self.move_driver(driver, since_us as f32 * 1e-6, at_ms, out);
            self.next_driver += 1;
            if self.next_driver == self.plan.drivers {
                self.next_driver = 0;
                self.round += 1;
            }
        }
        self.now_ms = end_ms;
    }

    /// Fills `out` with what clears the stage: removals of all orders and surges that are
    /// left. The fences of the beginning stay.
    pub fn closing(&mut self, out: &mut Batch) {
        out.clear();
        for serial in std::mem::take(&mut self.unremoved) {
            self.do_order_task(self.now_ms, Task::Remove(serial), out);
        }
        for id in std::mem::take(&mut self.surges) {
            push_fence_removal(&id, self.plan.start_ms + self.now_ms, out);
        }
    }

    /// Counts a batch.
    pub fn count(batch: &Batch) -> Counts {
        let mut counts = Counts::default();
        for message in batch.messages() {
            counts.add(message.what);
        }
        counts
    }

    fn do_tasks(&mut self, until_ms: i64, out: &mut Batch) {
        while let Some((due_ms, task)) = self.agenda.due(until_ms) {
            match task {
                Task::Send(held) => {
                    let sent_ms = self.plan.start_ms + due_ms;
                    self.push_update(*held, sent_ms, out);
                }
                Task::Surge => self.surge(due_ms, out),
                order => self.do_order_task(due_ms, order, out),
            }
        }
    }

    fn move_driver(&mut self, driver: u32, since_s: f32, now_ms: i64, out: &mut Batch) {
        let this = &mut self.drivers[driver as usize];
        match this.phase {
            Phase::Cruising => {
                if this.drive(since_s, &self.city, &mut self.dice) {
                    this.phase = Phase::Resting;
                    this.until_ms = now_ms + self.dice.within(1_000, 40_000);
                }
            }
            Phase::Resting => {
                if now_ms >= this.until_ms {
                    this.phase = Phase::Cruising;
                    // Now and then downtown, so that not all drift to the edge.
                    let target = if self.dice.chance(0.1) {
                        self.city.any_corner(&mut self.dice)
                    } else {
                        self.city
                            .corner_near(this.corner(), CRUISE_BLOCKS, &mut self.dice)
                    };
                    this.head_for(target, &self.city, &mut self.dice);
                }
            }
            Phase::ToPickup | Phase::ToDropoff => {
                if this.drive(since_s, &self.city, &mut self.dice) {
                    self.driver_is_at_target(driver, now_ms, out);
                }
            }
            Phase::AtPickup | Phase::AtDropoff => self.driver_is_at_target(driver, now_ms, out),
        }
        self.report(driver, since_s, now_ms, out);
    }

    /// What the driver's phone makes of where it is.
    fn report(&mut self, driver: u32, since_s: f32, now_ms: i64, out: &mut Batch) {
        let this = &mut self.drivers[driver as usize];
        let at = this.fix(since_s, &self.city, &mut self.dice);
        if this.is_dark(now_ms) {
            return;
        }
        let detailed = this.detailed;
        let (error_m, speed_mps, heading_deg) =
            (this.error_m(), this.speed_mps(), this.heading_deg());
        let mut held = Held {
            driver: u64::from(driver),
            fix: Fix {
                position: self.city.position(at),
                state: STATES[self.city.state(at)],
                accuracy_m: detailed.then_some(tenths(3.0 + 2.0 * error_m)),
                motion: detailed.then_some((tenths(speed_mps), tenths(heading_deg))),
            },
            taken_ms: now_ms,
            oddity: Oddity::None,
        };
        let sent_ms = self.plan.start_ms + now_ms;
        let oddity = self.oddity();
        match oddity {
            Oddity::None => self.push_update(held, sent_ms, out),
            Oddity::Duplicate => {
                self.push_update(held, sent_ms, out);
                out.push_again(What::Update(Oddity::Duplicate));
            }
            Oddity::Late => {
                held.oddity = oddity;
                let interval_ms = self.plan.interval_us as f64 / 1_000.0;
                let delay_ms = interval_ms * self.dice.between(1.1, 3.5);
                let due_ms = now_ms + (delay_ms as i64).max(1);
                self.agenda.plan(due_ms, Task::Send(Box::new(held)));
            }
            Oddity::Inaccurate => {
                held.oddity = oddity;
                let accuracy_m = self.dice.between(120.0, 600.0) as f32;
                let [dx, dy] = self.somewhere();
                let at = [at[0] + dx * accuracy_m, at[1] + dy * accuracy_m];
                held.fix.accuracy_m = Some(tenths(accuracy_m));
                held.fix.position = self.city.position(at);
                self.push_update(held, sent_ms, out);
            }
            Oddity::Teleport => {
                held.oddity = oddity;
                let jump_m = 2_000.0 + 200.0 * since_s;
                let [dx, dy] = self.somewhere();
                let (dx, dy) = if dx.abs() > dy.abs() {
                    (jump_m.copysign(dx), 0.0)
                } else {
                    (0.0, jump_m.copysign(dy))
                };
                held.fix.position = self.city.position([at[0] + dx, at[1] + dy]);
                self.push_update(held, sent_ms, out);
            }
        }
    }

    fn oddity(&mut self) -> Oddity {
        let odds = self.plan.oddities;
        let mut left = self.dice.unit();
        for (oddity, share) in [
            (Oddity::Late, odds.late),
            (Oddity::Duplicate, odds.duplicate),
            (Oddity::Inaccurate, odds.inaccurate),
            (Oddity::Teleport, odds.teleport),
        ] {
            if left < share {
                return oddity;
            }
            left -= share;
        }
        Oddity::None
    }

    /// In the unit disc.
    fn somewhere(&mut self) -> Point {
        loop {
            let at = [0, 1].map(|_| self.dice.between(-1.0, 1.0) as f32);
            if at[0] * at[0] + at[1] * at[1] <= 1.0 {
                return at;
            }
        }
    }

    fn push_update(&self, held: Held, sent_ms: i64, out: &mut Batch) {
        let taken_ms = self.plan.start_ms + held.taken_ms;
        out.push(
            What::Update(held.oddity),
            sent_ms,
            Some(held.fix.state),
            |key| write_number(held.driver, key),
            Some(|value: &mut Vec<u8>| {
                let Fix {
                    position,
                    state,
                    accuracy_m,
                    motion,
                } = held.fix;
                let message = UpdateMessage {
                    driver: DriverId(held.driver),
                    position,
                    state: Some(state),
                    timestamp_ms: Some(taken_ms),
                    accuracy_m,
                    speed_mps: motion.map(|(speed_mps, _)| speed_mps),
                    heading_deg: motion.map(|(_, heading_deg)| heading_deg),
                };
                encode_update(&message, value);
            }),
        );
    }

    /// Begins, moves or ends a surge, where a driver is.
    fn surge(&mut self, now_ms: i64, out: &mut Batch) {
        self.agenda.plan(now_ms + SURGE_EVERY_MS, Task::Surge);
        let at_ms = self.plan.start_ms + now_ms;
        let running = self.surges.len();
        let which = self.dice.below(running.max(1) as u32) as usize;
        if running == SURGES && self.dice.chance(0.5) {
            push_fence_removal(&self.surges.swap_remove(which), at_ms, out);
            return;
        }
        let id = if running < SURGES {
            self.last_surge += 1;
            let id = FenceId(format_compact!("surge-{}", self.last_surge));
            self.surges.push(id.clone());
            id
        } else {
            self.surges[which].clone()
        };
        let driver = self.dice.below(self.plan.drivers) as usize;
        let center = self.drivers[driver].place(&self.city);
        let fence = zones::surge(&self.city, id, center, &mut self.dice);
        push_fence(&fence, at_ms, out);
    }
}

/// As exact as phones pretend to be.
fn tenths(x: f32) -> f32 {
    (x * 10.0).round() / 10.0
}

fn push_fence(fence: &Fence, at_ms: i64, out: &mut Batch) {
    out.push(
        What::Fence,
        at_ms,
        None,
        |key| key.extend_from_slice(fence.id.0.as_bytes()),
        Some(|value: &mut Vec<u8>| value.extend(encode_fence(fence))),
    );
}

fn push_fence_removal(id: &FenceId, at_ms: i64, out: &mut Batch) {
    out.push(
        What::FenceRemoved,
        at_ms,
        None,
        |key| key.extend_from_slice(id.0.as_bytes()),
        None::<fn(&mut Vec<u8>)>,
    );
}
