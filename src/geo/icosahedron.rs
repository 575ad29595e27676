//! The icosahedron that H3 projects onto, for tests: along its edges cells are least regular.

use rand::RngExt;
use rand_pcg::Pcg64Mcg;

/// On the unit sphere.
pub(crate) type Vector = [f64; 3];

/// Pentagons are the icosahedron's vertices.
pub(crate) fn vertices() -> Vec<Vector> {
    let pentagons = h3o::CellIndex::base_cells().filter(|cell| cell.is_pentagon());
    let vector = |cell| {
        let place = h3o::LatLng::from(cell);
        let (sin_lat, cos_lat) = place.lat_radians().sin_cos();
        let (sin_lng, cos_lng) = place.lng_radians().sin_cos();
        [cos_lat * cos_lng, cos_lat * sin_lng, sin_lat]
    };
    let vertices: Vec<Vector> = pentagons.map(vector).collect();
    assert_eq!(vertices.len(), 12);
    vertices
}

/// Somewhere on the edges, where lattices meet: degrees of latitude and longitude.
pub(crate) fn on_edge(vertices: &[Vector], dice: &mut Pcg64Mcg) -> (f64, f64) {
    loop {
        let (one, other) = (dice.random_range(0..12), dice.random_range(0..12));
        let (one, other) = (vertices[one], vertices[other]);
        let cos: f64 = (0..3).map(|i| one[i] * other[i]).sum();
        // Neighbours are 63.4° apart.
        if (cos - 0.447).abs() < 0.01 {
            let part = dice.random_range(0.0..1.0);
            let [x, y, z] = [0, 1, 2].map(|i| one[i] * part + other[i] * (1.0 - part));
            let latitude = z.atan2(x.hypot(y)).to_degrees();
            return (latitude, y.atan2(x).to_degrees());
        }
    }
}
