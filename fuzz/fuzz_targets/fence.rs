//! Any bytes as a GeoJSON fence: decoded or refused, never a panic; what is decoded can be
//! prepared and asked, and an area without holes
//! holds its own corners.

#![no_main]

use libfuzzer_sys::fuzz_target;
use riderflow::geo::Area;
use riderflow::model::{Geometry, Input, Place, Position, Ring, Source};
use riderflow::wire::decode_fence;

fuzz_target!(|bytes: &[u8]| {
    let source = Source { input: Input::Geofences, partition: 0, offset: 0 };
    let place = Place { at_ms: 1_790_000_000_000, source };
    if let Ok(change) = decode_fence(Some(b"f-1"), Some(bytes), place) {
        let fence = change.fence.expect("bytes are no removal");
        let area = Area::new(&fence.geometry).expect("what is decoded has been validated");
        let corner = |at: &Position| {
            assert!(area.contains(*at), "a corner is on the boundary, which is inside");
            assert_eq!(area.distance_m(*at), 0.0);
        };
        // A hole that reaches beyond its ring takes the ring's corners away with it.
        let outer_rings = |rings: &Vec<Ring>| match &rings[..] {
            [only] => only.clone(),
            _ => Vec::new(),
        };
        match &fence.geometry {
            Geometry::Polygon(rings) => outer_rings(rings).iter().take(50).for_each(corner),
            Geometry::MultiPolygon(polygons) => {
                polygons.iter().flat_map(outer_rings).take(50).for_each(|at| corner(&at));
            }
            Geometry::Circle { center, .. } => corner(center),
        }
        // Anywhere else it must only answer.
        for (longitude, latitude) in [(0.0, 0.0), (179.999, 0.0), (-180.0, 45.0), (10.0, 90.0)] {
            let at = Position { longitude, latitude };
            assert!(!area.contains(at) || area.distance_m(at) == 0.0, "{at:?}");
        }
    }
});
