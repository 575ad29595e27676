//! H3 cells of many positions that lie near each other.
//!
//! Owns [`CellFinder`]. Promises the very cell that H3 gives. H3 projects a position onto one of
//! the icosahedron's faces and finds the hexagon there; that takes some 200 ns. Over a patch of a
//! mile, the way from degrees to the lattice of hexagons is nearly linear, so it is fitted once
//! per patch to the cells' own middles, and held against all of them. What is nearer to a
//! border than twice the greatest error is left to H3, and so is a patch where the fit is no
//! good: where faces of the icosahedron meet, and near the poles. So nothing here depends on how
//! H3 numbers, turns or scales its cells.

use hashbrown::HashMap;

use crate::model::Position;

/// A patch is so many degrees wide and high: 1.7 km.
const PATCH_DEG: f64 = 1.0 / 64.0;
/// So many positions of a patch are left to H3 before it is worth a fit, which takes as long.
const WORTH_A_FIT: u16 = 256;
/// Patches that are remembered, 16 bytes each; for one more all are forgotten.
const PATCHES: usize = 65_536;
/// Of them so many with a fit, some 2 kB each; all others are left to H3.
const FITS: usize = 16_384;
/// A border this broad of each cell is left to H3 at least, in distances between cells. A
/// rounding matters less by far.
const LEAST_MARGIN: f64 = 0.004;
/// A fit that needs a broader one is not used.
const GREATEST_MARGIN: f64 = 0.05;

/// The cell around a position; `None` for one without, which no valid update has.
pub fn h3_cell(position: Position, resolution: h3o::Resolution) -> Option<h3o::CellIndex> {
    let place = h3o::LatLng::new(position.latitude, position.longitude).ok()?;
    Some(place.to_cell(resolution))
}

/// Finds cells of one resolution, and remembers the lattice where many positions are.
#[derive(Debug)]
pub struct CellFinder {
    resolution: h3o::Resolution,
    patches: HashMap<u32, Patch>,
    fits: usize,
}

#[derive(Debug)]
enum Patch {
    /// So many positions have been left to H3.
    Seen(u16),
    Fit(Box<Lattice>),
    /// No fit is good enough.
    Crooked,
}

impl CellFinder {
    /// Remembers nothing yet. For the resolutions 8 to 10, whose cells suit a patch.
    pub fn new(resolution: h3o::Resolution) -> Self {
        Self {
            resolution,
            patches: HashMap::new(),
            fits: 0,
        }
    }

    /// The number of the cell around a position; 0 for a position without one.
    #[inline]
    pub fn find(&mut self, position: Position) -> u64 {
        let (south, west) = corner(position);
        // Longitudes are −11,520 to 11,520, so 16 bits are enough.
        let key = (south as u32) << 16 | west as u16 as u32;
        if let Some(Patch::Fit(lattice)) = self.patches.get(&key)
            && let Some(cell) = lattice.cell(position)
        {
            return cell;
        }
        self.ask(position, key)
    }

    #[cold]
    fn ask(&mut self, position: Position, key: u32) -> u64 {
        let Some(cell) = h3_cell(position, self.resolution) else {
            return 0;
        };
        if self.patches.len() >= PATCHES && !self.patches.contains_key(&key) {
            self.patches.clear();
            self.fits = 0;
        }
        let patch = self.patches.entry(key).or_insert(Patch::Seen(0));
        match patch {
            Patch::Seen(WORTH_A_FIT) if self.fits >= FITS => {}
            Patch::Seen(WORTH_A_FIT) => {
                *patch = match Lattice::fit(position, self.resolution) {
                    Some(lattice) => {
                        self.fits += 1;
                        Patch::Fit(Box::new(lattice))
                    }
                    None => Patch::Crooked,
                };
            }
            Patch::Seen(times) => *times += 1,
            Patch::Fit(_) | Patch::Crooked => {}
        }
        cell.into()
    }
}

/// The south-western corner of a position's patch, in patches from 0° N and 0° E.
fn corner(position: Position) -> (i32, i32) {
    (
        (position.latitude * (1.0 / PATCH_DEG)).floor() as i32,
        (position.longitude * (1.0 / PATCH_DEG)).floor() as i32,
    )
}

/// The cells of a patch. A cell has two coordinates, whose axes are 60° apart.
#[derive(Debug)]
struct Lattice {
    /// The middle of the patch.
    middle: Position,
    /// Coordinates of that middle; in each row then how they change by a degree east and north.
    first: [f64; 3],
    second: [f64; 3],
    /// How near to 1, where a cell ends, [`reach`] may be.
    limit: f64,
    /// Cells with the least coordinates.
    origin: [i32; 2],
    /// Cells in a row.
    width: usize,
    /// In rows of equal second coordinate; 0 is none.
    cells: Vec<u64>,
}

/// A cell's coordinates and its middle, in degrees east and north of the patch's middle.
struct Middle {
    at: [i32; 2],
    east: f64,
    north: f64,
    cell: u64,
}

impl Lattice {
    /// `None` where cells are not a lattice, or not nearly.
    fn fit(position: Position, resolution: h3o::Resolution) -> Option<Self> {
        let (south, west) = corner(position);
        let middle = Position {
            longitude: (f64::from(west) + 0.5) * PATCH_DEG,
            latitude: (f64::from(south) + 0.5) * PATCH_DEG,
        };
        let middles = middles_around(middle, resolution)?;
        let linear = fit_linear(&middles)?;
        let [first, second] = invert(linear)?;
        let error = middles
            .iter()
            .flat_map(|cell| {
                let [u, v] = [first, second].map(|row| at(row, cell.east, cell.north));
                let [i, j] = cell.at.map(f64::from);
                [(u - i).abs(), (v - j).abs(), (u + v - i - j).abs()]
            })
            .fold(0.0, f64::max);
        // An error of two coordinates counts up to three times in `reach`; twice that, for
        // what lies between middles.
        let margin = LEAST_MARGIN + 6.0 * error;
        if margin >= GREATEST_MARGIN {
            return None;
        }
        let least = |axis: usize| middles.iter().map(|cell| cell.at[axis]).min();
        let most = |axis: usize| middles.iter().map(|cell| cell.at[axis]).max();
        let origin = [least(0)?, least(1)?];
        let [width, height] = [most(0)? - origin[0] + 1, most(1)? - origin[1] + 1];
        let mut cells = vec![0; (width * height) as usize];
        for cell in &middles {
            let [i, j] = [cell.at[0] - origin[0], cell.at[1] - origin[1]];
            cells[(j * width + i) as usize] = cell.cell;
        }
        Some(Self {
            middle,
            first,
            second,
            limit: 1.0 - margin,
            origin,
            width: width as usize,
            cells,
        })
    }

    /// The cell, unless the position is too near to a border.
    #[inline]
    fn cell(&self, position: Position) -> Option<u64> {
        let east = position.longitude - self.middle.longitude;
        let north = position.latitude - self.middle.latitude;
        let (u, v) = (at(self.first, east, north), at(self.second, east, north));
        let w = -u - v;
        let (mut i, mut j, k) = (round(u), round(v), round(w));
        let [off_u, off_v, off_w] = [u - f64::from(i), v - f64::from(j), w - f64::from(k)];
        // Three roundings need not add up to nothing: then the worst gives way.
        let [far_u, far_v, far_w] = [off_u, off_v, off_w].map(f64::abs);
        if far_u > far_v && far_u > far_w {
            i = 0_i32.wrapping_sub(j).wrapping_sub(k);
        } else if far_v > far_w {
            j = 0_i32.wrapping_sub(i).wrapping_sub(k);
        }
        if reach(u - f64::from(i), v - f64::from(j)) > self.limit {
            return None;
        }
        let (column, row) = (i - self.origin[0], j - self.origin[1]);
        let column = usize::try_from(column).ok().filter(|at| *at < self.width)?;
        let row = usize::try_from(row).ok()?;
        let cell = *self.cells.get(row * self.width + column)?;
        (cell != 0).then_some(cell)
    }
}

/// How far off a cell's middle a position is, as a share of the way to the border.
#[inline]
fn reach(u: f64, v: f64) -> f64 {
    let w = -u - v;
    (u - v).abs().max((v - w).abs()).max((w - u).abs())
}

#[inline]
fn at(row: [f64; 3], east: f64, north: f64) -> f64 {
    row[0] + row[1] * east + row[2] * north
}

/// Without `f64::round`, which is a call where the processor may be an old one.
#[inline]
fn round(x: f64) -> i32 {
    const SHIFT: i32 = 1 << 20;
    (x + (f64::from(SHIFT) + 0.5)) as i32 - SHIFT
}

/// The cells on and around a patch, at least two beyond its corners.
fn middles_around(middle: Position, resolution: h3o::Resolution) -> Option<Vec<Middle>> {
    let origin = h3_cell(middle, resolution)?;
    let corner = Position {
        longitude: middle.longitude + PATCH_DEG / 2.0,
        latitude: middle.latitude + PATCH_DEG / 2.0,
    };
    // The narrower ring's inner radius; cells are up to a third smaller than the mean.
    let mean_m = (origin.area_m2() * 2.0 / 3.0_f64.sqrt()).sqrt();
    let rings = super::distance_m(middle, corner) / (mean_m * 0.75) + 2.5;
    let cells: Vec<_> = origin.grid_disk(rings.ceil() as u32);
    let of = |cell: h3o::CellIndex| {
        let place = cell.to_local_ij(origin).ok()?;
        let center = h3o::LatLng::from(cell);
        Some(Middle {
            // H3's axes are 120° apart.
            at: [place.coord.i, -place.coord.j],
            east: center.lng() - middle.longitude,
            north: center.lat() - middle.latitude,
            cell: cell.into(),
        })
    };
    cells.into_iter().map(of).collect()
}

/// Degrees east and north as linear functions of the coordinates, by least squares: of each
/// the constant, and what the first and the second coordinate add.
fn fit_linear(middles: &[Middle]) -> Option<[[f64; 3]; 2]> {
    let count = middles.len() as f64;
    let mean = |of: &dyn Fn(&Middle) -> f64| middles.iter().map(of).sum::<f64>() / count;
    let (i_mean, j_mean) = (
        mean(&|cell| f64::from(cell.at[0])),
        mean(&|cell| f64::from(cell.at[1])),
    );
    let i = |cell: &Middle| f64::from(cell.at[0]) - i_mean;
    let j = |cell: &Middle| f64::from(cell.at[1]) - j_mean;
    let (ii, ij, jj) = (
        mean(&|cell| i(cell) * i(cell)),
        mean(&|cell| i(cell) * j(cell)),
        mean(&|cell| j(cell) * j(cell)),
    );
    let determinant = ii * jj - ij * ij;
    if determinant <= 0.0 {
        return None;
    }
    let line = |of: &dyn Fn(&Middle) -> f64| {
        let (iy, jy) = (
            mean(&|cell| i(cell) * of(cell)),
            mean(&|cell| j(cell) * of(cell)),
        );
        let by_i = (iy * jj - jy * ij) / determinant;
        let by_j = (jy * ii - iy * ij) / determinant;
        [mean(of) - by_i * i_mean - by_j * j_mean, by_i, by_j]
    };
    Some([line(&|cell| cell.east), line(&|cell| cell.north)])
}

/// The coordinates as functions of degrees.
fn invert([east, north]: [[f64; 3]; 2]) -> Option<[[f64; 3]; 2]> {
    let determinant = east[1] * north[2] - east[2] * north[1];
    let row = |by_east: f64, by_north: f64| {
        let (by_east, by_north) = (by_east / determinant, by_north / determinant);
        [
            -(by_east * east[0] + by_north * north[0]),
            by_east,
            by_north,
        ]
    };
    let rows = [row(north[2], -east[2]), row(-north[1], east[1])];
    rows.as_flattened()
        .iter()
        .all(|x| x.is_finite())
        .then_some(rows)
}

#[cfg(test)]
#[path = "cells_tests.rs"]
mod tests;
