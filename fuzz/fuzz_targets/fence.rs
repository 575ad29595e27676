//! Any bytes as a GeoJSON fence: decoded or refused, never a panic; what is decoded can be
//! prepared and asked, and an area holds its own corners.

#![no_main]

use libfuzzer_sys::fuzz_target;
use riderflow::geo::Area;
use riderflow::model::{Geometry, Input, Place, Position, Source};
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
        match &fence.geometry {
            Geometry::Polygon(rings) => rings.iter().take(1).flatten().take(50).for_each(corner),
            Geometry::MultiPolygon(polygons) => {
                let rings = polygons.iter().filter_map(|rings| rings.first());
                rings.flatten().take(50).for_each(corner);
            }
            Geometry::Circle { center, .. } => corner(center),
        }
    }
});
