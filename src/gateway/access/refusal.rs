//! Why a request is not let in, and what it is answered.

use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::gateway::problem::{ErrorCode, Problem};

/// Where a token belongs.
pub(crate) const IN_QUERY: &str = "a token never goes into the URL: send it as `Authorization: \
     Bearer …`, or open the WebSocket with the subprotocols `riderflow.v1` and `bearer.…`";

/// Why a request is not let in. From outside all but [`Refusal::InQuery`] look the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No token at all.
    #[error("it has no token")]
    Missing,
    /// A token in the URL, where proxies log it and browsers keep it.
    #[error("its token is in the URL")]
    InQuery,
    /// More than one token.
    #[error("it has more than one token")]
    Ambiguous,
    /// Not a token.
    #[error("its token can't be read")]
    Malformed,
    /// Signed with another algorithm, or not at all.
    #[error("its token is not signed with the algorithm of this gateway")]
    Algorithm,
    /// Signed with a key that is not, or no longer, in the JWKS file.
    #[error("its token names a key that is not known")]
    UnknownKey,
    /// The signature is not that of the key.
    #[error("its token is forged, or damaged")]
    Signature,
    /// Too late.
    #[error("its token has expired")]
    Expired,
    /// Too soon.
    #[error("its token is not valid yet")]
    NotYet,
    /// Issued by somebody else.
    #[error("its token is of another issuer")]
    Issuer,
    /// Issued for somebody else.
    #[error("its token is for another audience")]
    Audience,
    /// A required claim is absent, or of another type.
    #[error("its token lacks a claim")]
    Claims,
    /// It grants nothing that is known here.
    #[error("its token is for no driver, order, place or fleet")]
    Subject,
}

impl Refusal {
    /// All reasons, in declaration order.
    pub const ALL: [Self; 13] = [
        Self::Missing,
        Self::InQuery,
        Self::Ambiguous,
        Self::Malformed,
        Self::Algorithm,
        Self::UnknownKey,
        Self::Signature,
        Self::Expired,
        Self::NotYet,
        Self::Issuer,
        Self::Audience,
        Self::Claims,
        Self::Subject,
    ];

    /// The code for counters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::InQuery => "token_in_query",
            Self::Ambiguous => "token_ambiguous",
            Self::Malformed => "token_malformed",
            Self::Algorithm => "token_algorithm",
            Self::UnknownKey => "token_unknown_key",
            Self::Signature => "token_signature",
            Self::Expired => "token_expired",
            Self::NotYet => "token_not_yet",
            Self::Issuer => "token_issuer",
            Self::Audience => "token_audience",
            Self::Claims => "token_claims",
            Self::Subject => "token_subject",
        }
    }
}

/// 401 `{"error":"unauthorized"}`, the same whatever was wrong; 400 for a token in the URL,
/// which tells a developer where it belongs.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.answer();
        // For the door, which counts them.
        response.extensions_mut().insert(self);
        response
    }
}

impl Refusal {
    fn answer(self) -> Response {
        if self == Self::InQuery {
            return Problem::of(ErrorCode::TokenInQuery)
                .because(IN_QUERY)
                .answer(StatusCode::BAD_REQUEST);
        }
        let mut response = Problem::of(ErrorCode::Unauthorized).answer(StatusCode::UNAUTHORIZED);
        let challenge = HeaderValue::from_static("Bearer realm=\"riderflow\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        response
    }
}
