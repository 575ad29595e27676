//! Geofences, read and written.

use proptest::prelude::*;

use super::*;
use crate::model::{Input, Source};

const PLACE: Place = Place {
    at_ms: 1_790_000_000_000,
    source: Source {
        input: Input::Geofences,
        partition: 0,
        offset: 3,
    },
};

fn decode(value: &str) -> Result<Fence, Fault> {
    let change = decode_fence(Some(b"f-7"), Some(value.as_bytes()), PLACE)?;
    assert_eq!(change.place, PLACE);
    let fence = change.fence.expect("a version, not a removal");
    assert_eq!(change.id, fence.id);
    Ok(fence)
}

fn position(longitude: f64, latitude: f64) -> Position {
    Position {
        longitude,
        latitude,
    }
}

/// A triangle at this corner.
fn triangle(longitude: f64, latitude: f64) -> Ring {
    vec![
        position(longitude, latitude),
        position(longitude + 0.5, latitude),
        position(longitude + 0.5, latitude + 0.25),
        position(longitude, latitude),
    ]
}

fn fence(geometry: Geometry) -> Fence {
    Fence {
        id: FenceId("f-7".into()),
        name: None,
        kind: None,
        geometry,
        dwell_s: None,
        exit_margin_m: 0.0,
    }
}

#[test]
fn a_circle_is_read_and_written_alike() {
    let value = r#"{"type":"Feature","geometry":{"type":"Point","coordinates":[77.61,12.93]},"properties":{"name":"Toit \"Pub\"","kind":"restaurant","radius":150.5,"dwell":300.0,"exitMargin":20.0}}"#;
    let circle = Fence {
        name: Some("Toit \"Pub\"".into()),
        kind: Some("restaurant".into()),
        dwell_s: Some(300.0),
        exit_margin_m: 20.0,
        ..fence(Geometry::Circle {
            center: position(77.61, 12.93),
            radius_m: 150.5,
        })
    };
    assert_eq!(decode(value), Ok(circle.clone()));
    assert_eq!(String::from_utf8_lossy(&encode_fence(&circle)), value);
}

#[test]
fn polygons_are_read_and_written_alike() {
    let ring = "[[70.0,12.0],[70.5,12.0],[70.5,12.25],[70.0,12.0]]";
    let other = "[[-72.0,-12.0],[-71.5,-12.0],[-71.5,-11.75],[-72.0,-12.0]]";
    for (kind, coordinates, geometry) in [
        (
            "Polygon",
            format!("[{ring}]"),
            Geometry::Polygon(vec![triangle(70.0, 12.0)]),
        ),
        (
            "MultiPolygon",
            format!("[[{ring}],[{other}]]"),
            Geometry::MultiPolygon(vec![
                vec![triangle(70.0, 12.0)],
                vec![triangle(-72.0, -12.0)],
            ]),
        ),
    ] {
        let value = format!(
            r#"{{"type":"Feature","geometry":{{"type":"{kind}","coordinates":{coordinates}}},"properties":{{}}}}"#
        );
        assert_eq!(decode(&value), Ok(fence(geometry.clone())));
        let written = encode_fence(&fence(geometry));
        assert_eq!(String::from_utf8_lossy(&written), value);
    }
}

#[test]
fn holes_and_altitudes() {
    let value = r#"{"type":"Feature","geometry":{"type":"Polygon","coordinates":[
        [[70,12,900],[70.5,12,900],[70.5,12.25],[70,12,900]],
        [[70.3,12.05],[70.4,12.05],[70.4,12.1],[70.3,12.05]]
    ]}}"#;
    let hole = vec![
        position(70.3, 12.05),
        position(70.4, 12.05),
        position(70.4, 12.1),
        position(70.3, 12.05),
    ];
    let polygon = Geometry::Polygon(vec![triangle(70.0, 12.0), hole]);
    assert_eq!(decode(value), Ok(fence(polygon)));
}

#[test]
fn null_removes_the_fence_that_the_key_names() {
    assert_eq!(
        decode_fence(Some(b"f-7"), None, PLACE),
        Ok(FenceChange {
            place: PLACE,
            id: FenceId("f-7".into()),
            fence: None,
        })
    );
}

#[test]
fn a_radius_counts_for_points_alone() {
    for radius in ["0", "-5", "\"wide\"", "[]", "1e999"] {
        let value = format!(
            r#"{{"type":"Feature","geometry":{{"type":"Polygon","coordinates":[[[70,12],[70.5,12],[70.5,12.25],[70,12]]]}},"properties":{{"radius":{radius}}}}}"#
        );
        assert_eq!(
            decode(&value),
            Ok(fence(Geometry::Polygon(vec![triangle(70.0, 12.0)]))),
            "{radius}"
        );
    }
}

#[test]
fn the_geometry_is_judged_after_the_properties_and_before_the_key() {
    let judged = |properties: &str, key: Option<&[u8]>| {
        let value = format!(
            r#"{{"type":"Feature","geometry":{{"type":"Polygon","coordinates":[[[70,12],[70.5,12],[70.5,12.25]]]}},"properties":{properties}}}"#
        );
        decode_fence(key, Some(value.as_bytes()), PLACE).map_err(|fault| fault.reason)
    };
    assert_eq!(judged(r#"{"dwell":-1}"#, None), Err(Reason::OutOfRange));
    let open = Geometry::Polygon(vec![triangle(70.0, 12.0)[..3].to_vec()]);
    let error = geo::validate(&open).expect_err("an open ring");
    assert_eq!(judged("{}", None), Err(Reason::InvalidGeometry));
    let value = encode_fence(&fence(open));
    let fault = decode_fence(Some(b"f-7"), Some(&value), PLACE).expect_err("an open ring");
    assert_eq!(fault.detail, format!("geometry: {error}"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_again(
        corner in (-358..358_i32, -178..178_i32),
        shape in 0..3_u8,
        name in prop::option::of(".{0,8}"),
        kind in prop::option::of("[a-z]{0,8}"),
        radius_m in 0.1..1e5_f64,
        dwell_s in prop::option::of(0.0..1e6_f64),
        exit_margin_m in prop_oneof![Just(0.0), 0.0..1e3_f64],
    ) {
        let (longitude, latitude) = (f64::from(corner.0) / 2.0, f64::from(corner.1) / 2.0);
        let geometry = match shape {
            0 => Geometry::Polygon(vec![triangle(longitude, latitude)]),
            1 => Geometry::MultiPolygon(vec![vec![triangle(longitude, latitude)]]),
            _ => Geometry::Circle { center: position(longitude, latitude), radius_m },
        };
        let fence = Fence {
            name: name.as_deref().map(CompactString::from),
            kind: kind.as_deref().map(CompactString::from),
            dwell_s,
            exit_margin_m,
            ..fence(geometry)
        };
        let written = String::from_utf8(encode_fence(&fence)).expect("UTF-8");
        prop_assert_eq!(decode(&written), Ok(fence));
    }
}
