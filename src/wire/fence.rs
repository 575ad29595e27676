//! Geofences: GeoJSON Features to [`FenceChange`] and, for the simulator, back.
//!
//! Owns the reading of `geofences` up to arrays of positions; whether rings enclose
//! anything is [`geo::validate`]'s to say. Promises that a fence's id is its message key.
//! Never keeps a position's altitude, nor a Feature's own `id`.

use std::fmt::{self, Display};

use compact_str::CompactString;
use serde_json::value::RawValue;

use crate::geo;
use crate::model::{Fault, Fence, FenceChange, FenceId, Geometry, Place, Position, Reason, Ring};

use super::encode;
use super::json::{self, Field, Object};

/// The known fields of the Feature.
const FIELDS: [&str; 3] = ["type", "geometry", "properties"];

/// The known fields of its geometry.
const GEOMETRY_FIELDS: [&str; 2] = ["type", "coordinates"];

/// The known fields of its properties, in the order in which they are checked.
const PROPERTIES: [&str; 5] = ["name", "kind", "radius", "dwell", "exitMargin"];

/// Decodes a record of `geofences`; a null value removes the fence that the key names.
///
/// # Errors
/// The first fault in the contract's order, an invalid geometry after all fields and before
/// the key.
pub fn decode_fence(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    place: Place,
) -> Result<FenceChange, Fault> {
    let fence = match value {
        None => None,
        Some([]) => return Err(json::empty("no bytes; null removes a fence")),
        Some(value) => Some(decode_version(key, value)?),
    };
    let id = match &fence {
        Some(fence) => fence.id.clone(),
        None => FenceId(json::key(key)?.into()),
    };
    Ok(FenceChange { place, id, fence })
}

fn decode_version(key: Option<&[u8]>, value: &[u8]) -> Result<Fence, Fault> {
    let object = Object::read(json::document(value)?, "", &FIELDS)?;
    let [feature, geometry, properties] = std::array::from_fn(|index| object.field(index));
    let geometry = geometry.nested("geometry.", &GEOMETRY_FIELDS)?;
    let properties = properties.nested("properties.", &PROPERTIES)?;

    let feature = feature.required()?;
    if feature.text()? != "Feature" {
        return Err(feature.fault(Reason::OutOfRange, "not Feature"));
    }
    let geometry = geometry.required()?;
    let shape = decode_shape(geometry.field(0), geometry.field(1))?;
    let absent = Object::absent("properties.", &PROPERTIES);
    let properties = properties.optional()?.unwrap_or(&absent);
    let [name, kind, radius, dwell, exit_margin] =
        std::array::from_fn(|index| properties.field(index));
    let name = text(name)?;
    let kind = text(kind)?;
    let geometry = match shape {
        Shape::Polygon(rings) => Geometry::Polygon(rings),
        Shape::MultiPolygon(polygons) => Geometry::MultiPolygon(polygons),
        Shape::Point(center) => {
            let radius = radius.required()?;
            let radius_m = radius.number(f64::MAX)?;
            if radius_m <= 0.0 {
                return Err(radius.fault(Reason::OutOfRange, "not over 0"));
            }
            Geometry::Circle { center, radius_m }
        }
    };
    let dwell_s = amount(dwell)?;
    let exit_margin_m = amount(exit_margin)?.unwrap_or(0.0);
    geo::validate(&geometry).map_err(|error| Fault {
        reason: Reason::InvalidGeometry,
        detail: format!("geometry: {error}"),
    })?;
    Ok(Fence {
        id: FenceId(json::key(key)?.into()),
        name,
        kind,
        geometry,
        dwell_s,
        exit_margin_m,
    })
}

fn text(field: Field<'_>) -> Result<Option<CompactString>, Fault> {
    match field.optional() {
        Some(value) => Ok(Some(value.text()?.into())),
        None => Ok(None),
    }
}

/// A number of at least 0.
fn amount(field: Field<'_>) -> Result<Option<f64>, Fault> {
    let Some(value) = field.optional() else {
        return Ok(None);
    };
    let amount = value.number(f64::MAX)?;
    if amount < 0.0 {
        return Err(value.fault(Reason::OutOfRange, "below 0"));
    }
    Ok(Some(amount))
}

/// A geometry's coordinates, before a point has its radius.
enum Shape {
    Polygon(Vec<Ring>),
    MultiPolygon(Vec<Vec<Ring>>),
    Point(Position),
}

fn decode_shape(kind: Field<'_>, coordinates: Field<'_>) -> Result<Shape, Fault> {
    let kind = kind.required()?;
    let decode: fn(&mut Coordinates, &str) -> Result<Shape, Fault> = match &*kind.text()? {
        "Polygon" => |all, raw| Ok(Shape::Polygon(all.polygon(raw, At::default())?)),
        "MultiPolygon" => |all, raw| {
            let polygons = all.list(raw, At::default(), Coordinates::polygon)?;
            Ok(Shape::MultiPolygon(polygons))
        },
        "Point" => |all, raw| Ok(Shape::Point(all.position(raw, At::default())?)),
        _ => {
            return Err(kind.fault(Reason::OutOfRange, "not Polygon, MultiPolygon or Point"));
        }
    };
    let mut all = Coordinates::default();
    let shape = decode(&mut all, coordinates.required()?.raw())?;
    match all.out_of_range {
        Some(fault) => Err(fault),
        None => Ok(shape),
    }
}

/// Reads arrays of positions. Types are judged before ranges, so the first position out of
/// range is kept until all are read.
#[derive(Default)]
struct Coordinates {
    out_of_range: Option<Fault>,
}

impl Coordinates {
    fn polygon(&mut self, raw: &str, at: At) -> Result<Vec<Ring>, Fault> {
        self.list(raw, at, Self::ring)
    }

    fn ring(&mut self, raw: &str, at: At) -> Result<Ring, Fault> {
        self.list(raw, at, Self::position)
    }

    fn list<T>(
        &mut self,
        raw: &str,
        at: At,
        decode: fn(&mut Self, &str, At) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let elements = elements(raw, at, "not an array of positions")?;
        elements
            .iter()
            .enumerate()
            .map(|(index, element)| decode(self, element.get(), at.element(index)))
            .collect()
    }

    fn position(&mut self, raw: &str, at: At) -> Result<Position, Fault> {
        let why = "not a position: two numbers or more";
        let elements = elements(raw, at, why)?;
        let [longitude, latitude, ..] = elements[..] else {
            return Err(at.fault(Reason::WrongType, raw, why));
        };
        if !elements
            .iter()
            .all(|element| json::is_number(element.get()))
        {
            return Err(at.fault(Reason::WrongType, raw, why));
        }
        let position = Position {
            longitude: json::number(longitude.get()).unwrap_or(f64::INFINITY),
            latitude: json::number(latitude.get()).unwrap_or(f64::INFINITY),
        };
        if position.longitude.abs() > 180.0 || position.latitude.abs() > 90.0 {
            self.out_of_range
                .get_or_insert_with(|| at.fault(Reason::OutOfRange, raw, "beyond ±180, ±90"));
        }
        Ok(position)
    }
}

fn elements<'a>(raw: &'a str, at: At, why: &str) -> Result<Vec<&'a RawValue>, Fault> {
    serde_json::from_str(raw).map_err(|_| at.fault(Reason::WrongType, raw, why))
}

/// Where in a geometry's coordinates.
#[derive(Clone, Copy, Default)]
struct At {
    indices: [usize; 3],
    depth: usize,
}

impl At {
    /// The element at `index` of this one; no geometry is deeper than three.
    fn element(mut self, index: usize) -> Self {
        self.indices[self.depth] = index;
        self.depth += 1;
        self
    }

    fn fault(self, reason: Reason, raw: &str, why: &str) -> Fault {
        json::fault(reason, &self.to_string(), raw, why)
    }
}

impl Display for At {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("geometry.coordinates")?;
        for index in &self.indices[..self.depth] {
            write!(formatter, "[{index}]")?;
        }
        Ok(())
    }
}

/// A fence's GeoJSON Feature; coordinates have at most 7 decimals. Its id is the message's
/// key, and not in here.
pub fn encode_fence(fence: &Fence) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"{\"type\":\"Feature\",\"geometry\":{\"type\":");
    let radius_m = match &fence.geometry {
        Geometry::Polygon(rings) => {
            out.extend_from_slice(b"\"Polygon\",\"coordinates\":");
            encode_rings(&mut out, rings);
            None
        }
        Geometry::MultiPolygon(polygons) => {
            out.extend_from_slice(b"\"MultiPolygon\",\"coordinates\":");
            encode_list(&mut out, polygons, |out, rings| encode_rings(out, rings));
            None
        }
        Geometry::Circle { center, radius_m } => {
            out.extend_from_slice(b"\"Point\",\"coordinates\":");
            encode_position(&mut out, center);
            Some(*radius_m)
        }
    };
    out.extend_from_slice(b"},\"properties\":{");
    let mut properties = Properties {
        out: &mut out,
        before: "",
    };
    if let Some(name) = &fence.name {
        encode::text(properties.name("name"), name);
    }
    if let Some(kind) = &fence.kind {
        encode::text(properties.name("kind"), kind);
    }
    if let Some(radius_m) = radius_m {
        encode::number(properties.name("radius"), radius_m);
    }
    if let Some(dwell_s) = fence.dwell_s {
        encode::number(properties.name("dwell"), dwell_s);
    }
    if fence.exit_margin_m != 0.0 {
        encode::number(properties.name("exitMargin"), fence.exit_margin_m);
    }
    out.extend_from_slice(b"}}");
    out
}

/// Fields being written, parted by commas.
struct Properties<'a> {
    out: &'a mut Vec<u8>,
    before: &'static str,
}

impl Properties<'_> {
    /// Writes a field's name; its value comes next.
    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        encode::write(self.out, format_args!("{}\"{name}\":", self.before));
        self.before = ",";
        self.out
    }
}

fn encode_rings(out: &mut Vec<u8>, rings: &[Ring]) {
    encode_list(out, rings, |out, ring| {
        encode_list(out, ring, encode_position);
    });
}

fn encode_position(out: &mut Vec<u8>, position: &Position) {
    out.push(b'[');
    encode::degrees(out, position.longitude);
    out.push(b',');
    encode::degrees(out, position.latitude);
    out.push(b']');
}

fn encode_list<T>(out: &mut Vec<u8>, list: &[T], encode: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (index, element) in list.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        encode(out, element);
    }
    out.push(b']');
}

#[cfg(test)]
#[path = "fence_tests.rs"]
mod tests;
