//! What a map shows beneath the drivers: the city's streets, its river and its parks.
//!
//! Owns the GeoJSON of [`base_map`]. It promises that every street is where drivers drive, that
//! the same number of drivers and seed give the same bytes, and that water and parks lie
//! between streets, away from every place that drivers stop at. It decides nothing that the
//! simulation sends: parks have dice of their own, and nobody drives on a river.

use super::Plan;
use super::city::{City, Point, Street};
use super::dice::Dice;

/// The river takes this much of the way from one street to the next; the rest is its banks.
const RIVER: (f32, f32) = (0.24, 0.76);
/// How far the river runs on past the last streets, m.
const RIVER_BEYOND_M: f32 = 300.0;
/// A park ends this far from the middle of the streets around it, m.
const PARK_EDGE_M: f32 = 16.0;
/// One block of so many has a park.
const BLOCKS_PER_PARK: u32 = 22;

/// The map of the plan's city: a GeoJSON FeatureCollection.
///
/// Streets are `LineString`s with `properties.class` `street` or `avenue`, one per street from
/// end to end; the river is a `Polygon` of class `water`, parks are `Polygon`s of class `park`.
/// Areas come first, so that they may be drawn in this order. A city for 1,000 drivers takes
/// about 75 KB.
pub fn base_map(plan: &Plan) -> Vec<u8> {
    let city = City::of(plan);
    let mut map = Map {
        city: &city,
        text: String::from(r#"{"type":"FeatureCollection","features":["#),
        features: 0,
    };
    let river = river_row(&city);
    let mut dice = Dice::new(plan.seed, 4);
    for row in 0..city.side() - 1 {
        for column in 0..city.side() - 1 {
            // One roll per block, whatever the river does.
            let here = dice.below(BLOCKS_PER_PARK) == 0;
            if here && row != river && !city.is_cut_by_a_diagonal(column, row) {
                map.area("park", &park(&city, column, row));
            }
        }
    }
    map.area("water", &river_banks(&city, river));
    for street in city.streets() {
        map.line(&street);
    }
    map.text.push_str("\n]}\n");
    map.text.into_bytes()
}

struct Map<'a> {
    city: &'a City,
    text: String,
    features: usize,
}

impl Map<'_> {
    fn line(&mut self, street: &Street) {
        let class = if street.is_avenue { "avenue" } else { "street" };
        self.begin(class, "LineString");
        let points = street.corners.iter().map(|&corner| self.city.at(corner));
        self.positions(points.collect());
        self.text.push_str("}}");
    }

    /// `outline` is counter-clockwise and open.
    fn area(&mut self, class: &str, outline: &[Point]) {
        self.begin(class, "Polygon");
        self.text.push('[');
        self.positions(outline.iter().chain(outline.first()).copied().collect());
        self.text.push_str("]}}");
    }

    fn begin(&mut self, class: &str, geometry: &str) {
        let comma = if self.features > 0 { "," } else { "" };
        self.features += 1;
        self.text += &format!(
            "{comma}\n{{\"type\":\"Feature\",\"properties\":{{\"class\":\"{class}\"}},\
             \"geometry\":{{\"type\":\"{geometry}\",\"coordinates\":"
        );
    }

    fn positions(&mut self, points: Vec<Point>) {
        self.text.push('[');
        for (i, point) in points.into_iter().enumerate() {
            let at = self.city.position(point);
            let comma = if i > 0 { "," } else { "" };
            // Six decimals are a decimetre.
            self.text += &format!("{comma}[{:.6},{:.6}]", at.longitude, at.latitude);
        }
        self.text.push(']');
    }
}

/// The row of blocks that the river flows through: the one with the most room, not at an edge.
fn river_row(city: &City) -> i32 {
    let rows = city.side() - 1;
    let column = city.side() / 2;
    let width = |row: i32| {
        let (a, b) = (city.corner(column, row), city.corner(column, row + 1));
        let (a, b) = (city.at(a), city.at(b));
        (b[0] - a[0]).hypot(b[1] - a[1])
    };
    (rows / 4..(rows * 3 / 4).max(rows / 4 + 1))
        .max_by(|&a, &b| width(a).total_cmp(&width(b)))
        .unwrap_or(0)
}

fn river_banks(city: &City, row: i32) -> Vec<Point> {
    let bank = |part: f32| -> Vec<Point> {
        let mut bank: Vec<Point> = (0..city.side())
            .map(|column| {
                let below = city.at(city.corner(column, row));
                let above = city.at(city.corner(column, row + 1));
                // Neither bank is straight, nor as the other.
                let sway = 0.05 * (column as f32 * (0.9 + part)).sin();
                between(below, above, part + sway)
            })
            .collect();
        if let [first, second, .., before, last] = bank[..] {
            bank.insert(0, beyond(second, first));
            bank.push(beyond(before, last));
        }
        bank
    };
    let (south, mut north) = (bank(RIVER.0), bank(RIVER.1));
    north.reverse();
    [south, north].concat()
}

/// Further on from `from` past `to`.
fn beyond(from: Point, to: Point) -> Point {
    let (dx, dy) = (to[0] - from[0], to[1] - from[1]);
    let length = dx.hypot(dy);
    [
        to[0] + dx / length * RIVER_BEYOND_M,
        to[1] + dy / length * RIVER_BEYOND_M,
    ]
}

/// The block right and above of a corner, less a pavement.
fn park(city: &City, column: i32, row: i32) -> [Point; 4] {
    let corners = [(0, 0), (1, 0), (1, 1), (0, 1)]
        .map(|(right, up)| city.at(city.corner(column + right, row + up)));
    let middle = [0, 1].map(|axis| corners.iter().map(|corner| corner[axis]).sum::<f32>() / 4.0);
    corners.map(|corner| {
        let reach = (middle[0] - corner[0]).hypot(middle[1] - corner[1]);
        // At a right angle, so far from both streets.
        let inset = PARK_EDGE_M * std::f32::consts::SQRT_2;
        between(corner, middle, inset / reach)
    })
}

fn between(a: Point, b: Point, part: f32) -> Point {
    [0, 1].map(|axis| a[axis] + (b[axis] - a[axis]) * part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::{Batch, CENTER, Simulation};

    const SHIPPED: &str = "src/gateway/pages/assets/base-map.geojson";

    fn plan(drivers: u32, seed: u64) -> Plan {
        Plan::new(drivers, 300, 100, seed, 1_790_000_000_000)
    }

    fn features(plan: &Plan) -> Vec<(String, Vec<[f64; 2]>)> {
        let map: serde_json::Value = serde_json::from_slice(&base_map(plan)).expect("it is JSON");
        map["features"]
            .as_array()
            .expect("features")
            .iter()
            .map(|feature| {
                let geometry = &feature["geometry"];
                let coordinates = match geometry["type"].as_str() {
                    Some("Polygon") => &geometry["coordinates"][0],
                    Some("LineString") => &geometry["coordinates"],
                    other => panic!("{other:?}"),
                };
                let class = feature["properties"]["class"].as_str().expect("a class");
                let points = serde_json::from_value(coordinates.clone()).expect("positions");
                (class.to_owned(), points)
            })
            .collect()
    }

    #[test]
    fn the_shipped_map_is_the_default_citys() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(SHIPPED);
        let map = base_map(&plan(1_000, 1));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &map).expect("the file is writable");
        }
        let shipped = std::fs::read(&path).unwrap_or_default();
        assert!(
            shipped == map,
            "{SHIPPED} is not what the code makes; if that is meant, write it anew with \
             `UPDATE_GOLDEN=1 cargo test --lib base_map`"
        );
        assert!(map.len() < 100_000, "{} bytes", map.len());
    }

    #[test]
    fn a_map_depends_on_the_number_of_drivers_and_the_seed_alone() {
        let map = base_map(&plan(50, 7));
        let other = Plan {
            interval_us: 5,
            orders: 1,
            fences: 0,
            ..plan(50, 7)
        };
        assert!(map == base_map(&other));
        assert!(map != base_map(&plan(50, 8)));
        assert!(map != base_map(&plan(2_000, 7)));
    }

    /// Distance from a point to the nearest street, m; flat, which is enough within a city.
    fn off_street_m(at: [f64; 2], streets: &[(String, Vec<[f64; 2]>)]) -> f64 {
        let metres = |p: [f64; 2]| {
            let per_degree = crate::geo::EARTH_RADIUS_M.to_radians();
            [
                (p[0] - CENTER.longitude) * per_degree * CENTER.latitude.to_radians().cos(),
                (p[1] - CENTER.latitude) * per_degree,
            ]
        };
        let p = metres(at);
        streets
            .iter()
            .flat_map(|(_, line)| line.windows(2))
            .map(|ends| {
                let (a, b) = (metres(ends[0]), metres(ends[1]));
                let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
                let along = ((p[0] - a[0]) * dx + (p[1] - a[1]) * dy) / (dx * dx + dy * dy);
                let along = along.clamp(0.0, 1.0);
                (p[0] - a[0] - along * dx).hypot(p[1] - a[1] - along * dy)
            })
            .fold(f64::INFINITY, f64::min)
    }

    /// Also on diagonal avenues, and in a city of another size.
    #[test]
    fn drivers_drive_on_the_maps_streets() {
        let mut plan = plan(300, 3);
        plan.oddities = crate::simulate::Oddities::NONE;
        let streets: Vec<_> = features(&plan)
            .into_iter()
            .filter(|(class, _)| class == "street" || class == "avenue")
            .collect();
        let mut simulation = Simulation::new(plan);
        let mut batch = Batch::new();
        let mut fixes = 0;
        while simulation.now_ms() < 60_000 {
            simulation.next_step(&mut batch);
            for message in batch.messages() {
                if message.what.input() != crate::model::Input::Updates || fixes % 7 != 0 {
                    fixes += 1;
                    continue;
                }
                fixes += 1;
                let value = batch.value(message).expect("an update has a value");
                let value: serde_json::Value = serde_json::from_slice(value).expect("JSON");
                let at = ["longitude", "latitude"]
                    .map(|axis| value[axis].as_f64().expect("a coordinate"));
                let off_m = off_street_m(at, &streets);
                // The phone's error is at most 3.5 deviations of 2.5 m on each axis.
                assert!(off_m < 15.0, "{value} is {off_m} m off every street");
            }
        }
        assert!(fixes > 10_000, "{fixes}");
    }

    #[test]
    fn parks_and_water_lie_between_streets() {
        for seed in 1..6 {
            let features = features(&plan(1_000, seed));
            let of = |classes: &[&str]| -> Vec<_> {
                let is_one = |class: &str| classes.contains(&class);
                (features.iter().filter(|(class, _)| is_one(class)))
                    .cloned()
                    .collect()
            };
            let streets = of(&["street", "avenue"]);
            let parks = of(&["park"]);
            assert!(parks.len() > 20, "{} parks", parks.len());
            for (_, park) in &parks {
                assert_eq!(park.first(), park.last());
                for &corner in park {
                    let off_m = off_street_m(corner, &streets);
                    assert!(off_m > 8.0, "a park is {off_m} m off a street");
                }
            }
            // Streets cross the river on bridges, but none runs along its banks.
            let water = of(&["water"]);
            assert_eq!(water.len(), 1);
            let area = crate::geo::Area::new(&crate::model::Geometry::Polygon(vec![
                (water[0].1.iter())
                    .map(|&[longitude, latitude]| crate::model::Position {
                        longitude,
                        latitude,
                    })
                    .collect(),
            ]))
            .expect("the river is a good polygon");
            for (_, line) in &streets {
                for &[longitude, latitude] in line {
                    let corner = crate::model::Position {
                        longitude,
                        latitude,
                    };
                    assert!(!area.contains(corner), "a corner lies in the river");
                }
            }
        }
    }
}
