//! Great-circle distances on the contract's sphere.
//!
//! Works on the haversine `h = sin²(d/2)`, which grows with the distance `d` and is exact
//! to the last bits where `d` is small; metres come last.

use super::bounds::{LonLatBox, Point};
use crate::model::Position;

/// The sphere's radius, metres.
pub const EARTH_RADIUS_M: f64 = 6_371_008.8;

/// Metres of a degree of latitude.
const METRES_PER_DEGREE: f64 = std::f64::consts::PI * EARTH_RADIUS_M / 180.0;

/// More than a distance is off, which is worst at the far side of the earth, metres.
pub(super) const ROUNDING_M: f64 = 1.0;

/// Pieces of an edge up to this many degrees turn so little that the distance to them has
/// at most one minimum between their ends.
const PIECE_DEG: f64 = 1.0;

/// Great-circle distance between two positions, metres.
pub fn distance_m(a: Position, b: Position) -> f64 {
    metres(Here::new(a).haversine(b.longitude, b.latitude))
}

/// Whether two positions are no farther apart than so many metres: as [`distance_m`] says,
/// without any trigonometry where they are much nearer.
pub fn is_within_m(a: Position, b: Position, limit_m: f64) -> bool {
    // On the plane the way is never shorter than on the sphere.
    let (x, y) = (a.longitude - b.longitude, a.latitude - b.latitude);
    let way_m2 = (x * x + y * y) * (METRES_PER_DEGREE * METRES_PER_DEGREE);
    way_m2 <= limit_m * limit_m * 0.999_999 || distance_m(a, b) <= limit_m
}

/// Whether two positions are farther apart than so many metres, as far as their latitudes
/// show: without any trigonometry, and no for those that are near the limit.
pub fn is_clearly_beyond_m(a: Position, b: Position, limit_m: f64) -> bool {
    let gap_deg = (a.latitude - b.latitude).abs();
    gap_deg * METRES_PER_DEGREE > limit_m + ROUNDING_M
}

/// Metres of a haversine.
pub(super) fn metres(h: f64) -> f64 {
    2.0 * EARTH_RADIUS_M * h.clamp(0.0, 1.0).sqrt().asin()
}

/// Where distances are measured from.
#[derive(Clone, Copy)]
pub(super) struct Here {
    lon: f64,
    lat: f64,
    cos_lat: f64,
}

impl Here {
    pub(super) fn new(position: Position) -> Self {
        Self {
            lon: position.longitude,
            lat: position.latitude,
            cos_lat: position.latitude.to_radians().cos(),
        }
    }

    /// The haversine of the distance to a place, degrees; any multiple of 360 may be added
    /// to its longitude.
    pub(super) fn haversine(&self, lon: f64, lat: f64) -> f64 {
        let half_lat = (0.5 * (lat - self.lat)).to_radians().sin();
        let half_lon = (0.5 * (lon - self.lon)).to_radians().sin();
        half_lat * half_lat + self.cos_lat * lat.to_radians().cos() * (half_lon * half_lon)
    }

    /// The haversine of the distance to the nearest point of a box.
    pub(super) fn haversine_to_box(&self, b: &LonLatBox) -> f64 {
        let gap = lon_gap(self.lon, b.west, b.east);
        let lat = self.lat.clamp(b.south, b.north);
        if gap == 0.0 {
            return self.haversine(self.lon, lat);
        }
        // For each latitude the nearest point has the least difference of longitude. Along
        // that meridian the cosine of the distance is a cosine of the latitude, highest at
        // `best`, so the nearest point is there or at an end.
        let (sin_lat, cos_gap) = (self.lat.to_radians().sin(), gap.to_radians().cos());
        let best = sin_lat.atan2(self.cos_lat * cos_gap).to_degrees();
        [best.clamp(b.south, b.north), b.south, b.north]
            .into_iter()
            .map(|lat| self.haversine(self.lon + gap, lat))
            .fold(f64::INFINITY, f64::min)
    }

    /// The haversine of the distance to the nearest point of an edge that is straight in
    /// longitude–latitude, or `best` if that is less.
    pub(super) fn haversine_to_edge(&self, a: Point, b: Point, best: f64) -> f64 {
        if (b.x - a.x).abs().max((b.y - a.y).abs()) <= PIECE_DEG {
            return self.haversine_to_piece(a, b).min(best);
        }
        if self.haversine_to_box(&LonLatBox::around(&[a, b])) >= best {
            return best;
        }
        let middle = Point {
            x: 0.5 * (a.x + b.x),
            y: 0.5 * (a.y + b.y),
        };
        let best = self.haversine_to_edge(a, middle, best);
        self.haversine_to_edge(middle, b, best)
    }

    fn haversine_to_piece(&self, a: Point, b: Point) -> f64 {
        let at = |t: f64| (a.x + t * (b.x - a.x), a.y + t * (b.y - a.y));
        let value = |t: f64| {
            let (lon, lat) = at(t);
            self.haversine(lon, lat)
        };
        let ends = self.haversine(a.x, a.y).min(self.haversine(b.x, b.y));
        let slope = |t: f64| {
            let (lon, lat) = at(t);
            let (sin_lat, cos_lat) = lat.to_radians().sin_cos();
            let d_lat = (lat - self.lat).to_radians();
            let d_lon = (lon - self.lon).to_radians();
            let half_lon = (0.5 * d_lon).sin();
            (b.y - a.y) * (0.5 * d_lat.sin() - self.cos_lat * sin_lat * half_lon * half_lon)
                + (b.x - a.x) * (0.5 * self.cos_lat * cos_lat * d_lon.sin())
        };
        // The minimum inside, if there is one, is where the slope turns from falling to
        // rising: regula falsi (Illinois), which never leaves the bracket.
        let (mut low, mut high) = (0.0, 1.0);
        let (mut falling, mut rising) = (slope(low), slope(high));
        if falling >= 0.0 || rising <= 0.0 {
            return ends;
        }
        let mut t = 0.5;
        let mut side = 0;
        for _ in 0..60 {
            t = (low * rising - high * falling) / (rising - falling);
            let here = slope(t);
            if here == 0.0 || high - low < 1e-12 {
                break;
            }
            if here < 0.0 {
                (low, falling) = (t, here);
                if side == -1 {
                    rising *= 0.5;
                }
                side = -1;
            } else {
                (high, rising) = (t, here);
                if side == 1 {
                    falling *= 0.5;
                }
                side = 1;
            }
        }
        ends.min(value(t))
    }
}

/// Degrees from a longitude to the nearest of an interval's, modulo 360; 0 inside.
fn lon_gap(lon: f64, west: f64, east: f64) -> f64 {
    let width = east - west;
    let offset = (lon - west).rem_euclid(360.0);
    if offset <= width {
        0.0
    } else {
        (offset - width).min(360.0 - offset)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(longitude: f64, latitude: f64) -> Position {
        Position {
            longitude,
            latitude,
        }
    }

    #[test]
    fn known_distances() {
        let degree = EARTH_RADIUS_M.to_radians();
        for (a, b, expected) in [
            (at(0.0, 0.0), at(0.0, 0.0), 0.0),
            (at(0.0, 0.0), at(0.0, 1.0), degree),
            (at(0.0, 0.0), at(1.0, 0.0), degree),
            (at(179.5, 0.0), at(-179.5, 0.0), degree),
            (at(10.0, 89.5), at(-170.0, 89.5), degree),
            (at(180.0, 7.0), at(-180.0, 7.0), 0.0),
            (at(0.0, 90.0), at(77.0, -90.0), 180.0 * degree),
            (at(77.0, 12.0), at(77.0, 12.000_000_1), 1e-7 * degree),
        ] {
            let got = distance_m(a, b);
            assert!((got - expected).abs() < 1e-6, "{a:?} {b:?}: {got}");
            assert_eq!(got, distance_m(b, a));
        }
    }

    /// The sphere's chord, which shares nothing with the haversine.
    fn by_vectors(a: Position, b: Position) -> f64 {
        let v = |p: Position| {
            let (sin_lat, cos_lat) = p.latitude.to_radians().sin_cos();
            let (sin_lon, cos_lon) = p.longitude.to_radians().sin_cos();
            [cos_lat * cos_lon, cos_lat * sin_lon, sin_lat]
        };
        let (a, b) = (v(a), v(b));
        let cross = [
            a[1] * b[2] - a[2] * b[1],
            a[2] * b[0] - a[0] * b[2],
            a[0] * b[1] - a[1] * b[0],
        ];
        let dot: f64 = (0..3).map(|i| a[i] * b[i]).sum();
        let cross = cross.iter().map(|c| c * c).sum::<f64>().sqrt();
        EARTH_RADIUS_M * cross.atan2(dot)
    }

    fn anywhere() -> impl Strategy<Value = Position> {
        (-180.0..=180.0, -90.0..=90.0).prop_map(|(lon, lat)| at(lon, lat))
    }

    proptest! {
        #[test]
        fn agrees_with_vectors(a in anywhere(), b in anywhere()) {
            prop_assert!((distance_m(a, b) - by_vectors(a, b)).abs() < 0.2);
        }

        #[test]
        fn an_edge_is_as_near_as_its_nearest_sample(
            p in anywhere(), a in anywhere(), dx in -180.0..180.0f64, north in -90.0..=90.0f64,
            shrink in 0..6,
        ) {
            let scale = 0.1f64.powi(shrink);
            let a = Point::new(a, 0.0);
            let b = Point { x: a.x + dx * scale, y: a.y + (north - a.y) * scale };
            let got = metres(Here::new(p).haversine_to_edge(a, b, 1.0));
            let samples = 4000;
            let sampled = (0..=samples).map(|i| {
                let t = f64::from(i) / f64::from(samples);
                by_vectors(p, at(a.x + t * (b.x - a.x), a.y + t * (b.y - a.y)))
            }).fold(f64::INFINITY, f64::min);
            let step = EARTH_RADIUS_M.to_radians() * (dx.abs() + (north - a.y).abs())
                * scale / f64::from(samples);
            prop_assert!(got <= sampled + 0.2, "{got} {sampled}");
            prop_assert!(got >= sampled - step - 0.2, "{got} {sampled} {step}");
        }

        #[test]
        fn a_box_is_no_farther_than_any_point_of_it(
            p in anywhere(), west in -400.0..400.0f64, width in 0.0..400.0f64,
            south in -90.0..=90.0f64, height in 0.0..180.0f64, u in 0.0..=1.0, v in 0.0..=1.0,
        ) {
            let b = LonLatBox { west, east: west + width, south, north: (south + height).min(90.0) };
            let inside = at(b.west + u * width, b.south + v * (b.north - b.south));
            let got = metres(Here::new(p).haversine_to_box(&b));
            prop_assert!(got <= by_vectors(p, inside) + 0.2);
            // And it is reached: on the boundary, unless p is inside.
            let samples = 400;
            let edge = |t: f64| [
                at(b.west + t * width, b.south), at(b.west + t * width, b.north),
                at(b.west, b.south + t * (b.north - b.south)),
                at(b.east, b.south + t * (b.north - b.south)),
            ];
            let reached = (0..=samples).flat_map(|i| edge(f64::from(i) / f64::from(samples)))
                .map(|q| by_vectors(p, q)).fold(f64::INFINITY, f64::min);
            prop_assert!(got == 0.0 || got >= reached - 1e5, "{got} {reached}");
        }
    }
}
