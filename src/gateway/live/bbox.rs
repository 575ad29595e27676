//! The box that an operations map shows.

use crate::geo::LonLatBox;
use crate::model::Position;

/// West, south, east and north in degrees; over the antimeridian where west is above east.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bbox {
    west: f64,
    south: f64,
    east: f64,
    north: f64,
}

impl Bbox {
    /// Reads `west,south,east,north`.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut values = [0.0; 4];
        let mut parts = text.split(',');
        for (value, (name, limit)) in values.iter_mut().zip([
            ("west", 180.0),
            ("south", 90.0),
            ("east", 180.0),
            ("north", 90.0),
        ]) {
            let Some(part) = parts.next() else {
                return Err(format!("{name} is missing: write west,south,east,north"));
            };
            *value = (part.trim().parse::<f64>())
                .ok()
                .filter(|value| value.is_finite())
                .ok_or_else(|| format!("{name} is not a number"))?;
            if value.abs() > limit {
                return Err(format!("{name} is beyond ±{limit}"));
            }
        }
        if parts.next().is_some() {
            return Err("more than four numbers: write west,south,east,north".into());
        }
        let [west, south, east, north] = values;
        if south > north {
            return Err("south is above north".into());
        }
        Ok(Self {
            west,
            south,
            east,
            north,
        })
    }

    pub(super) fn contains(&self, position: Position) -> bool {
        let (x, y) = (position.longitude, position.latitude);
        let across = if self.west <= self.east {
            self.west <= x && x <= self.east
        } else {
            self.west <= x || x <= self.east
        };
        across && self.south <= y && y <= self.north
    }

    /// Whether it has a point in common with a box that is meant modulo 360.
    pub(super) fn overlaps(&self, other: &LonLatBox) -> bool {
        let width = if self.west <= self.east {
            self.east - self.west
        } else {
            self.east - self.west + 360.0
        };
        // From our west to its west, eastwards: within our width, or it reaches round to us.
        let gap = (other.west - self.west).rem_euclid(360.0);
        let across = gap <= width || gap + (other.east - other.west) >= 360.0;
        across && self.south <= other.north && other.south <= self.north
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_read_or_refused_by_name() {
        for (text, expected) in [
            ("77.4,12.8,77.8,13.1", Ok(())),
            (" 77.4 , 12.8 , 77.8 , 13.1 ", Ok(())),
            ("179,-10,-179,10", Ok(())),
            ("-180,-90,180,90", Ok(())),
            ("", Err("west is not a number")),
            (
                "1,2,3",
                Err("north is missing: write west,south,east,north"),
            ),
            (
                "1,2,3,4,5",
                Err("more than four numbers: write west,south,east,north"),
            ),
            ("1,two,3,4", Err("south is not a number")),
            ("1,2,NaN,4", Err("east is not a number")),
            ("1,2,inf,4", Err("east is not a number")),
            ("181,2,3,4", Err("west is beyond ±180")),
            ("1,-91,3,4", Err("south is beyond ±90")),
            ("1,4,3,2", Err("south is above north")),
        ] {
            let got = Bbox::parse(text).map(|_| ());
            assert_eq!(got, expected.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn over_the_antimeridian() {
        let bbox = Bbox::parse("170,-10,-170,10").expect("a box");
        for (longitude, latitude, inside) in [
            (175.0, 0.0, true),
            (-175.0, 0.0, true),
            (180.0, 10.0, true),
            (-180.0, -10.0, true),
            (169.9, 0.0, false),
            (-169.9, 0.0, false),
            (0.0, 0.0, false),
            (175.0, 10.1, false),
        ] {
            let at = Position {
                longitude,
                latitude,
            };
            assert_eq!(bbox.contains(at), inside, "{at:?}");
        }
        for (west, east, meets) in [
            (160.0, 169.0, false),
            (160.0, 170.0, true),
            (160.0, 171.0, true),
            (-172.0, -160.0, true),
            (-169.0, -160.0, false),
            (179.0, 181.0, true),
            (-181.0, -179.0, true),
            (-360.0, 360.0, true),
            (0.0, 169.0, false),
        ] {
            let other = LonLatBox {
                west,
                east,
                south: 9.0,
                north: 20.0,
            };
            assert_eq!(bbox.overlaps(&other), meets, "{west} {east}");
        }
    }
}
