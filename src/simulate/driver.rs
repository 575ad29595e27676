//! How one driver moves: along streets, braking for corners, with a phone whose fix wanders.

use super::city::{City, Node, Point};
use super::dice::Dice;

/// No corner, no order.
pub(super) const NONE: u32 = u32::MAX;

/// Speeding up, m/s².
const ACCELERATION: f32 = 1.8;
/// Slowing down as planned, m/s².
const BRAKING: f32 = 2.5;
/// Slower than this nobody drives, m/s.
const CRAWL_MPS: f32 = 0.6;
/// Faster than this nobody drives, m/s.
pub(super) const TOP_SPEED_MPS: f32 = 17.0;
/// Motion is computed in slices of at most this, s.
const SLICE_S: f32 = 1.0;
/// Deviation of a fix from the truth, m on each axis.
const NOISE_M: f32 = 2.5;
/// How fast that error is forgotten, s.
const NOISE_MEMORY_S: f32 = 20.0;

/// What a driver is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Cruising without an order.
    Cruising,
    /// Parked without an order.
    Resting,
    /// On the way to the pickup.
    ToPickup,
    /// At the pickup.
    AtPickup,
    /// On the way to the drop-off.
    ToDropoff,
    /// At the drop-off.
    AtDropoff,
}

/// One driver.
#[derive(Clone, Debug)]
pub(super) struct Driver {
    /// The corner behind; equal to `to` while standing at it.
    from: Node,
    /// The corner ahead.
    to: Node,
    /// The corner after that, or [`NONE`] if `to` is the target.
    next: Node,
    /// Where the trip ends.
    target: Node,
    along_m: f32,
    length_m: f32,
    speed_mps: f32,
    /// What this street allows and this driver likes.
    limit_mps: f32,
    /// The speed to have at `to`.
    corner_mps: f32,
    liked_mps: f32,
    heading_deg: f32,
    noise: Point,
    /// What it is about.
    pub(super) phase: Phase,
    /// Its order's slot, or [`NONE`].
    pub(super) order: u32,
    /// Whether the phone tells accuracy, speed and heading.
    pub(super) detailed: bool,
    /// When parking or waiting ends, ms of city time.
    pub(super) until_ms: i64,
    /// The phone says nothing from here…
    pub(super) dark_from_ms: i64,
    /// …to here, ms of city time.
    pub(super) dark_until_ms: i64,
}

impl Driver {
    /// Standing at a corner, free.
    pub(super) fn new(at: Node, detailed: bool, dice: &mut Dice) -> Self {
        Self {
            from: at,
            to: at,
            next: NONE,
            target: at,
            along_m: 0.0,
            length_m: 0.0,
            speed_mps: 0.0,
            limit_mps: 0.0,
            corner_mps: 0.0,
            liked_mps: dice.between(7.0, 12.5) as f32,
            heading_deg: 0.0,
            noise: [dice.bell() * NOISE_M, dice.bell() * NOISE_M],
            phase: Phase::Cruising,
            order: NONE,
            detailed,
            until_ms: 0,
            dark_from_ms: 0,
            dark_until_ms: 0,
        }
    }

    /// Puts the driver at a corner, standing.
    pub(super) fn place_at(&mut self, node: Node) {
        (self.from, self.to, self.target, self.next) = (node, node, node, NONE);
        (self.along_m, self.length_m, self.speed_mps) = (0.0, 0.0, 0.0);
    }

    /// Sets the end of the trip; the street under way is driven to its end first.
    pub(super) fn head_for(&mut self, target: Node, city: &City, dice: &mut Dice) {
        self.target = target;
        if self.from != self.to {
            self.look_ahead(city, dice);
        }
    }

    /// The corner that the driver is at or coming to.
    pub(super) fn corner(&self) -> Node {
        self.to
    }

    /// Whether the phone says nothing at this time.
    pub(super) fn is_dark(&self, now_ms: i64) -> bool {
        (self.dark_from_ms..self.dark_until_ms).contains(&now_ms)
    }

    /// Drives for `time_s`; true once it stands at its target.
    pub(super) fn drive(&mut self, time_s: f32, city: &City, dice: &mut Dice) -> bool {
        let mut left_s = time_s;
        while left_s > 0.0 {
            if self.from == self.to {
                if self.to == self.target {
                    return true;
                }
                let first = city.next_corner(self.to, self.to, self.target, dice);
                self.enter(self.to, first, city, dice);
            }
            let slice_s = left_s.min(SLICE_S);
            left_s -= slice_s;
            let room_m = self.length_m - self.along_m;
            let braking = (self.corner_mps * self.corner_mps + 2.0 * BRAKING * room_m).sqrt();
            let wanted = self.limit_mps.min(braking).max(CRAWL_MPS);
            self.speed_mps = wanted.min(self.speed_mps + ACCELERATION * slice_s);
            self.along_m += self.speed_mps * slice_s;
            while self.along_m >= self.length_m {
                if self.next == NONE {
                    self.place_at(self.to);
                    return true;
                }
                let over_m = self.along_m - self.length_m;
                self.enter(self.to, self.next, city, dice);
                self.along_m = over_m;
            }
        }
        self.from == self.to && self.to == self.target
    }

    /// Where the driver really is.
    pub(super) fn place(&self, city: &City) -> Point {
        let from = city.at(self.from);
        if self.from == self.to {
            return from;
        }
        let to = city.at(self.to);
        let part = self.along_m / self.length_m;
        [
            from[0] + (to[0] - from[0]) * part,
            from[1] + (to[1] - from[1]) * part,
        ]
    }

    /// Where the phone thinks it is, `time_s` after its last fix.
    pub(super) fn fix(&mut self, time_s: f32, city: &City, dice: &mut Dice) -> Point {
        let kept = 1.0 / (1.0 + time_s / NOISE_MEMORY_S);
        let fresh = (1.0 - kept * kept).sqrt() * NOISE_M;
        let place = self.place(city);
        for axis in 0..2 {
            self.noise[axis] = self.noise[axis] * kept + dice.bell() * fresh;
        }
        [place[0] + self.noise[0], place[1] + self.noise[1]]
    }

    /// How far the wandering fix is off, m.
    pub(super) fn error_m(&self) -> f32 {
        self.noise[0].abs().max(self.noise[1].abs())
    }

    /// Speed over ground, m/s.
    pub(super) fn speed_mps(&self) -> f32 {
        self.speed_mps
    }

    /// Degrees clockwise from north, 0..360.
    pub(super) fn heading_deg(&self) -> f32 {
        self.heading_deg
    }

    fn enter(&mut self, from: Node, to: Node, city: &City, dice: &mut Dice) {
        (self.from, self.to, self.along_m) = (from, to, 0.0);
        let (a, b) = (city.at(from), city.at(to));
        let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
        self.length_m = (dx * dx + dy * dy).sqrt();
        let heading = dx.atan2(dy).to_degrees();
        self.heading_deg = if heading < 0.0 {
            heading + 360.0
        } else {
            heading
        };
        let street = if city.is_avenue(from, to) { 1.35 } else { 1.0 };
        self.limit_mps = (self.liked_mps * street).min(TOP_SPEED_MPS);
        self.look_ahead(city, dice);
    }

    /// Chooses the corner after next, and how fast to take the next one.
    fn look_ahead(&mut self, city: &City, dice: &mut Dice) {
        if self.to == self.target {
            (self.next, self.corner_mps) = (NONE, 0.0);
            return;
        }
        self.next = city.next_corner(self.from, self.to, self.target, dice);
        let (a, b, c) = (city.at(self.from), city.at(self.to), city.at(self.next));
        let (u, v) = ([b[0] - a[0], b[1] - a[1]], [c[0] - b[0], c[1] - b[1]]);
        let lengths = ((u[0] * u[0] + u[1] * u[1]) * (v[0] * v[0] + v[1] * v[1])).sqrt();
        let straight = (u[0] * v[0] + u[1] * v[1]) / lengths;
        self.corner_mps = match straight {
            s if s > 0.9 => TOP_SPEED_MPS,
            s if s > 0.5 => 7.0,
            s if s > -0.3 => 3.5,
            _ => 1.0,
        };
    }
}
