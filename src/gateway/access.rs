//! Who may: what a token grants.
//!
//! Owns JSON Web Tokens: where one stands in a request, what makes it good, what it opens, and
//! minting them for development. Promises that exactly one algorithm is ever heard, that issuer,
//! audience and expiry are always checked, and that every refusal looks the same from outside:
//! the reason is for the log and the counters. Never reads a token out of a URL, and never
//! prints one.

mod keys;
mod refusal;
mod subject;

pub use keys::KeysError;
pub(crate) use refusal::IN_QUERY;
pub use refusal::Refusal;
pub use subject::{SUBJECT_BYTES_MAX, Subject, SubjectError};

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use self::keys::KeySet;
use super::watched::Watched;
use crate::config::Secret;
use crate::model::TimeMs;

/// The WebSocket subprotocol that the gateway speaks, and answers.
pub const SUBPROTOCOL: &str = "riderflow.v1";
/// In `Sec-WebSocket-Protocol`, the offer that carries the token begins so.
pub const BEARER_OFFER: &str = "bearer.";
/// How far the issuer's clock and ours may be apart, s: a token is good this much longer than
/// its `exp` says, and this much sooner than its `nbf` does.
pub const LEEWAY_S: u64 = 5;
/// The longest token that is looked at, bytes.
pub const TOKEN_BYTES_MAX: usize = 4_096;
/// The shortest shared key, bytes: HS256 is no stronger than its key.
pub const KEY_BYTES_MIN: usize = 32;
/// The environment variable with the shared key of HS256.
pub const KEY_VARIABLE: &str = "RIDERFLOW_GATEWAY_KEY";

/// What a good token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What it opens.
    pub subject: Subject,
    /// When it stops to, ms since 1970: the token's `exp` and the leeway.
    pub expires_at_ms: TimeMs,
}

/// The one algorithm that tokens are signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with a shared key.
    Hs256,
    /// RSA PKCS #1 v1.5, with public keys from a JWKS file.
    Rs256,
    /// ECDSA on P-256, with public keys from a JWKS file.
    Es256,
}

impl Algorithm {
    /// The name in a token's header and in the pipeline file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }

    /// The algorithm of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Hs256, Self::Rs256, Self::Es256]
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
    }

    fn theirs(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
        }
    }
}

/// What tokens must be.
#[derive(Clone, Debug)]
pub struct AccessRules {
    /// The one algorithm.
    pub algorithm: Algorithm,
    /// The `iss` of every token.
    pub issuer: String,
    /// What `aud` is or holds.
    pub audience: String,
    /// The shared key; HS256 needs it, the others ignore it.
    pub key: Option<Secret>,
    /// The JWKS file; RS256 and ES256 need it, HS256 ignores it.
    pub jwks: Option<PathBuf>,
}

/// Why no token could ever be checked: the gateway doesn't start.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// No shared key.
    #[error(
        "no key to check tokens with: set {KEY_VARIABLE} to at least {KEY_BYTES_MIN} random \
         bytes, such as `openssl rand -hex 32` prints, the same for every gateway and for \
         whoever issues the tokens"
    )]
    NoKey,
    /// A shared key that can be guessed.
    #[error(
        "{KEY_VARIABLE} holds {0} bytes; it must be at least {KEY_BYTES_MIN}, such as \
         `openssl rand -hex 32` prints"
    )]
    ShortKey(usize),
    /// No JWKS file.
    #[error(
        "no keys to check tokens with: gateway.algorithm is {0}, so set gateway.jwks to the \
         issuer's JWKS file"
    )]
    NoKeyFile(&'static str),
    /// A JWKS file that is of no use.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// Why no token was minted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// There is only the issuer's public key.
    #[error(
        "could not sign a token: gateway.algorithm is {0}, and the gateway has only the public \
         keys; ask the issuer for one, or set `algorithm = \"HS256\"` for development"
    )]
    PublicKeysOnly(&'static str),
    /// The signature could not be computed.
    #[error("could not sign a token with {KEY_VARIABLE}")]
    Unsigned,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    /// One text: the library takes a list too, which no issuer has cause to send.
    #[serde(rename = "iss")]
    _iss: String,
}

#[derive(Serialize)]
struct Minted<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: String,
    iat: u64,
    exp: u64,
}

enum Keys {
    Shared {
        verifying: jsonwebtoken::DecodingKey,
        signing: EncodingKey,
    },
    File(Watched<KeySet>),
}

/// Checks tokens, and mints them where it has the key to.
pub struct Access {
    rules: AccessRules,
    validation: Validation,
    keys: Keys,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

impl Access {
    /// Ready to check tokens by these rules.
    ///
    /// # Errors
    /// No key, a short one, or a JWKS file that can't be used.
    pub fn open(rules: AccessRules) -> Result<Self, AccessError> {
        let algorithm = rules.algorithm;
        let keys = match algorithm {
            Algorithm::Hs256 => {
                let key = rules.key.as_ref().ok_or(AccessError::NoKey)?;
                let key = key.expose().as_bytes();
                if key.len() < KEY_BYTES_MIN {
                    return Err(AccessError::ShortKey(key.len()));
                }
                Keys::Shared {
                    verifying: jsonwebtoken::DecodingKey::from_secret(key),
                    signing: EncodingKey::from_secret(key),
                }
            }
            Algorithm::Rs256 | Algorithm::Es256 => {
                let path = rules.jwks.clone();
                let path = path.ok_or(AccessError::NoKeyFile(algorithm.as_str()))?;
                Keys::File(keys::watch(path, algorithm)?)
            }
        };
        let mut validation = Validation::new(algorithm.theirs());
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_issuer(&[&rules.issuer]);
        validation.set_audience(&[&rules.audience]);
        validation.set_required_spec_claims(&["iss", "aud", "exp", "sub"]);
        Ok(Self {
            rules,
            validation,
            keys,
        })
    }

    /// What the token in these headers grants: `Authorization: Bearer …`, or the offer
    /// `bearer.…` in `Sec-WebSocket-Protocol`, for browsers, which can't set the former on a
    /// WebSocket.
    ///
    /// # Errors
    /// There is no token, or not a good one.
    pub fn grant(&self, headers: &HeaderMap) -> Result<Grant, Refusal> {
        self.check(token_in(headers)?)
    }

    /// What this token grants.
    ///
    /// # Errors
    /// It is not a good one.
    pub fn check(&self, token: &str) -> Result<Grant, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refusal::Malformed)?;
        if header.alg != self.rules.algorithm.theirs() {
            return Err(Refusal::Algorithm);
        }
        // RFC 7515: what is marked critical must be understood, and nothing is here.
        if header.crit.is_some() {
            return Err(Refusal::Malformed);
        }
        let claims = match &self.keys {
            Keys::Shared { verifying, .. } => self.claims(token, verifying),
            Keys::File(file) => {
                let keys = file.current();
                let key = keys.find(header.kid.as_deref());
                self.claims(token, key.ok_or(Refusal::UnknownKey)?)
            }
        }?;
        let subject = claims.sub.parse().map_err(|_| Refusal::Subject)?;
        // A float's cast keeps to the bounds: a far future is the last time there is.
        let expires_at_ms = ((claims.exp + LEEWAY_S as f64) * 1_000.0) as TimeMs;
        Ok(Grant {
            subject,
            expires_at_ms,
        })
    }

    fn claims(&self, token: &str, key: &jsonwebtoken::DecodingKey) -> Result<Claims, Refusal> {
        jsonwebtoken::decode::<Claims>(token, key, &self.validation)
            .map(|data| data.claims)
            .map_err(|error| match error.kind() {
                ErrorKind::InvalidSignature => Refusal::Signature,
                ErrorKind::InvalidAlgorithm | ErrorKind::InvalidKeyFormat => Refusal::Algorithm,
                ErrorKind::ExpiredSignature => Refusal::Expired,
                ErrorKind::ImmatureSignature => Refusal::NotYet,
                ErrorKind::InvalidIssuer => Refusal::Issuer,
                ErrorKind::InvalidAudience => Refusal::Audience,
                ErrorKind::MissingRequiredClaim(_)
                | ErrorKind::InvalidClaimFormat(_)
                | ErrorKind::Json(_) => Refusal::Claims,
                _ => Refusal::Malformed,
            })
    }

    /// A token for `subject` that is good for `ttl`, rounded up to seconds, at least one.
    ///
    /// # Errors
    /// There are only public keys.
    pub fn mint(&self, subject: &Subject, ttl: Duration) -> Result<String, MintError> {
        let Keys::Shared { signing, .. } = &self.keys else {
            return Err(MintError::PublicKeysOnly(self.rules.algorithm.as_str()));
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let iat = now.unwrap_or_default().as_secs();
        let whole = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let claims = Minted {
            iss: &self.rules.issuer,
            aud: &self.rules.audience,
            sub: subject.to_string(),
            iat,
            exp: iat.saturating_add(whole.max(1)),
        };
        let header = Header::new(self.rules.algorithm.theirs());
        jsonwebtoken::encode(&header, &claims, signing).map_err(|_| MintError::Unsigned)
    }
}

/// The one token in these headers.
fn token_in(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut found = None;
    let mut keep = |token| match found.replace(token) {
        None => Ok(()),
        Some(_) => Err(Refusal::Ambiguous),
    };
    for value in headers.get_all(AUTHORIZATION) {
        let value = value.to_str().map_err(|_| Refusal::Malformed)?;
        let (scheme, token) = value.split_once(' ').ok_or(Refusal::Malformed)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Refusal::Malformed);
        }
        keep(token.trim())?;
    }
    for value in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
        let value = value.to_str().map_err(|_| Refusal::Malformed)?;
        for offer in value.split(',') {
            if let Some(token) = offer.trim().strip_prefix(BEARER_OFFER) {
                keep(token)?;
            }
        }
    }
    found.ok_or(Refusal::Missing)
}

#[cfg(test)]
#[path = "access/tests.rs"]
mod tests;
