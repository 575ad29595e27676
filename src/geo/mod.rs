//! (to come)

use crate::model::Geometry;

/// Why a geometry encloses nothing in a well-defined way.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidGeometry(String);

/// Checks what the contract asks of rings.
///
/// # Errors
/// Names the ring and the vertex.
pub fn validate(_geometry: &Geometry) -> Result<(), InvalidGeometry> {
    Ok(())
}
