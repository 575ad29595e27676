//! The issuer's public keys: a JWKS file (RFC 7517) that is read again when it changes.
//!
//! Owns which keys of the file count: those of the pinned algorithm that are meant for
//! signatures; others are skipped, as the RFC has it. Promises that a file that turns bad leaves
//! the former keys in force and is told of once. Never fetches a key over the network.

use std::path::{Path, PathBuf};

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use serde::Deserialize;

use super::Algorithm;
use crate::gateway::watched::{self, Watched};

/// The shortest RSA modulus, bytes of base64url: 2,048 bits.
const MODULUS_TEXT_MIN: usize = 342;

/// Why a JWKS file can't be used.
#[derive(Debug, thiserror::Error)]
#[error("could not use the keys of {}: {fault}", file.display())]
pub struct KeysError {
    file: PathBuf,
    fault: String,
}

/// The keys that count, by the `kid` that tokens name.
#[derive(Debug)]
pub(super) struct KeySet(Vec<(Option<String>, DecodingKey)>);

impl KeySet {
    /// The key of this name; of no name, for a token that names none.
    pub(super) fn find(&self, kid: Option<&str>) -> Option<&DecodingKey> {
        let found = self.0.iter().find(|(name, _)| name.as_deref() == kid);
        found.map(|(_, key)| key)
    }

    fn read(path: &Path, algorithm: Algorithm) -> Result<Self, String> {
        let bytes = watched::read(path)?;
        Self::parse(&bytes, algorithm)
    }

    fn parse(bytes: &[u8], algorithm: Algorithm) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct File {
            keys: Vec<serde_json::Value>,
        }
        let file: File =
            serde_json::from_slice(bytes).map_err(|error| format!("it is no JWKS: {error}"))?;
        let mut keys: Vec<(Option<String>, DecodingKey)> = Vec::new();
        for value in file.keys {
            let Ok(jwk) = serde_json::from_value::<Jwk>(value) else {
                continue;
            };
            if !counts(&jwk, algorithm) {
                continue;
            }
            let kid = jwk.common.key_id.clone();
            let shown = kid.as_deref().unwrap_or("without kid").to_owned();
            let key = DecodingKey::from_jwk(&jwk)
                .ok()
                // Only a check tells whether a point is on the curve.
                .filter(|key| {
                    jsonwebtoken::crypto::verify("", b"", key, algorithm.theirs()).is_ok()
                })
                .ok_or_else(|| format!("its key {shown} is damaged"))?;
            if keys.iter().any(|(known, _)| *known == kid) {
                return Err(format!("it has two {} keys {shown}", algorithm.as_str()));
            }
            keys.push((kid, key));
        }
        if keys.is_empty() {
            return Err(format!(
                "it has no key for {}: one of kty {}",
                algorithm.as_str(),
                if algorithm == Algorithm::Es256 {
                    "EC and crv P-256"
                } else {
                    "RSA, of at least 2048 bits"
                }
            ));
        }
        Ok(Self(keys))
    }
}

/// Whether this key checks signatures of this algorithm.
fn counts(jwk: &Jwk, algorithm: Algorithm) -> bool {
    let fits = match (&jwk.algorithm, algorithm) {
        (AlgorithmParameters::RSA(rsa), Algorithm::Rs256) => rsa.n.len() >= MODULUS_TEXT_MIN,
        (AlgorithmParameters::EllipticCurve(ec), Algorithm::Es256) => {
            ec.curve == EllipticCurve::P256
        }
        _ => false,
    };
    let common = &jwk.common;
    let signs = common
        .public_key_use
        .as_ref()
        .is_none_or(|usage| *usage == PublicKeyUse::Signature);
    let verifies = common
        .key_operations
        .as_ref()
        .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let named = common
        .key_algorithm
        .is_none_or(|named| named == algorithm.theirs().into());
    fits && signs && verifies && named
}

/// The keys of a JWKS file, which is read again when it changes.
pub(super) fn watch(path: PathBuf, algorithm: Algorithm) -> Result<Watched<KeySet>, KeysError> {
    let file = path.clone();
    Watched::open(vec![path.clone()], move || KeySet::read(&path, algorithm))
        .map_err(|fault| KeysError { file, fault })
}
