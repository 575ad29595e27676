//! The small world of the tests: its records, shapes and distances, all by hand.

use crate::model::{Cause, EventKind, OrderStatus, Position};

pub(super) type Xy = (f64, f64);

/// All times are whole ticks, ms.
pub(super) const TICK_MS: i64 = 250;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shape {
    /// South-west corner, width and height; a hole that leaves such a share of it as a frame.
    Box(Xy, f64, f64, Option<f64>),
    /// Centre, metres, exit margin in metres.
    Disc(Xy, f64, f64),
}

#[derive(Clone, Debug)]
pub(super) enum Record {
    /// Shape and dwell, s.
    Fence(u8, Option<(Shape, Option<f64>)>),
    /// Status, driver as given, pickup, drop-off.
    Order(u8, Option<(OrderStatus, Option<u64>, Xy, Xy)>),
    Update {
        driver: u64,
        xy: Xy,
        /// How far the event time is behind the record's, ms.
        age_ms: i64,
        speed: Option<f32>,
        accuracy: Option<f32>,
        partition: i32,
        /// Session and number.
        sequence: Option<(u64, u64)>,
    },
}

impl Record {
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Fence(..) => 0,
            Self::Order(..) => 1,
            Self::Update { .. } => 2,
        }
    }

    pub(super) fn partition(&self) -> i32 {
        match self {
            Self::Update { partition, .. } => *partition,
            _ => 0,
        }
    }
}

/// A record at its merge time; its offset is its number in the history.
pub(super) type Timed = (i64, Record);

/// Puts records of one time into the merged order.
pub(super) fn merge(history: &mut [Timed]) {
    history.sort_by_key(|(at_ms, record)| (*at_ms, record.rank(), record.partition()));
}

/// An event in short, with what is worth comparing.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Told {
    pub(super) driver: u64,
    pub(super) kind: EventKind,
    pub(super) object: String,
    pub(super) cause: Cause,
    /// When it stands in the merged order.
    pub(super) at_ms: i64,
    /// The record's number.
    pub(super) source: usize,
    pub(super) event_time_ms: i64,
    pub(super) initial: bool,
    pub(super) status: Option<OrderStatus>,
    /// Centimetres.
    pub(super) distance: Option<i64>,
    /// Hundredths of a second.
    pub(super) eta: Option<i64>,
    pub(super) dwell_ms: Option<i64>,
    pub(super) fix: Option<Position>,
}

/// Where the small world is: around the antimeridian, 60° north.
pub(super) fn position(xy: Xy) -> Position {
    let longitude = 179.99 + xy.0;
    Position {
        longitude: if longitude > 180.0 {
            longitude - 360.0
        } else {
            longitude
        },
        latitude: 60.0 + xy.1,
    }
}

/// By the law of cosines in vectors.
pub(super) fn metres(a: Xy, b: Xy) -> f64 {
    let vector = |p: Xy| {
        let (lon, lat) = (p.0.to_radians(), (60.0 + p.1).to_radians());
        [lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()]
    };
    let (a, b) = (vector(a), vector(b));
    let chord = (0..3).map(|i| (a[i] - b[i]).powi(2)).sum::<f64>().sqrt();
    2.0 * 6_371_008.8 * (chord / 2.0).asin()
}

impl Shape {
    pub(super) fn hole(sw: Xy, w: f64, h: f64, frame: f64) -> (Xy, Xy) {
        let (x, y) = (w * frame, h * frame);
        ((sw.0 + x, sw.1 + y), (sw.0 + w - x, sw.1 + h - y))
    }

    pub(super) fn is_inside(self, p: Xy) -> bool {
        match self {
            Self::Box(sw, w, h, frame) => {
                let inside = sw.0 <= p.0 && p.0 <= sw.0 + w && sw.1 <= p.1 && p.1 <= sw.1 + h;
                inside
                    && frame.is_none_or(|frame| {
                        let (a, b) = Self::hole(sw, w, h, frame);
                        !(a.0 < p.0 && p.0 < b.0 && a.1 < p.1 && p.1 < b.1)
                    })
            }
            Self::Disc(c, radius, _) => metres(c, p) <= radius,
        }
    }

    pub(super) fn is_beyond(self, p: Xy) -> bool {
        match self {
            Self::Box(..) => !self.is_inside(p),
            Self::Disc(c, radius, margin) => metres(c, p) > radius + margin,
        }
    }

    /// The part of the line through two points, as shares of the way, within a box.
    fn clip(a: Xy, b: Xy, sw: Xy, ne: Xy) -> (f64, f64) {
        let (mut first, mut last) = (f64::NEG_INFINITY, f64::INFINITY);
        for (p, q, low, high) in [(a.0, b.0, sw.0, ne.0), (a.1, b.1, sw.1, ne.1)] {
            let (u, v) = ((low - p) / (q - p), (high - p) / (q - p));
            first = first.max(u.min(v));
            last = last.min(u.max(v));
        }
        (first, last)
    }

    pub(super) fn is_on_the_way(self, a: Xy, b: Xy) -> bool {
        match self {
            Self::Box(sw, w, h, frame) => {
                let (first, last) = Self::clip(a, b, sw, (sw.0 + w, sw.1 + h));
                let (first, last) = (first.max(0.0), last.min(1.0));
                first <= last
                    && frame.is_none_or(|frame| {
                        let (sw, ne) = Self::hole(sw, w, h, frame);
                        let (begins, ends) = Self::clip(a, b, sw, ne);
                        begins > ends || first <= begins || last >= ends
                    })
            }
            Self::Disc(c, radius, _) => {
                let at = |t: f64| metres(c, (a.0 + t * (b.0 - a.0), a.1 + t * (b.1 - a.1)));
                let (mut low, mut high) = (0.0, 1.0);
                for _ in 0..100 {
                    let (u, v) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
                    if at(u) < at(v) {
                        high = v;
                    } else {
                        low = u;
                    }
                }
                at(low) <= radius
            }
        }
    }
}
