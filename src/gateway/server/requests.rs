//! What holds for every request and answer, whoever serves it.
//!
//! A request has no body and no token in its URL, and if a browser sent it, it comes from an
//! origin that is allowed. An answer says what a browser may do with it.

use std::sync::Arc;

use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, CONNECTION, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY,
    VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::gateway::access::Refusal;
use crate::gateway::metrics::{GatewayMetrics, TurnedAway};
use crate::gateway::problem::{ErrorCode, Problem};

/// What pages may load: what this gateway serves, and nothing else from anywhere.
pub(crate) const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self' data: blob:; font-src 'self'; worker-src 'self' blob:; \
     manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What requests are held to.
pub(super) struct Rules {
    /// Allowed beside the gateway's own.
    pub(super) origins: Vec<String>,
    pub(super) metrics: GatewayMetrics,
}

/// Where a request comes from.
#[derive(Debug, PartialEq, Eq)]
enum From {
    /// No browser, or this gateway's own page.
    Here,
    /// An allowed page of another host, which must be told that it is.
    Allowed(HeaderValue),
    Elsewhere,
}

/// Turns away what may not come in, passes on the rest, and completes the answer.
pub(super) async fn guard(
    State(rules): State<Arc<Rules>>,
    request: Request,
    next: Next,
) -> Response {
    let from = rules.origin(request.headers());
    let mut response = match rules.fault(&request, &from) {
        Some(response) => response,
        None if *request.method() == Method::OPTIONS => preflight(),
        None => next.run(request).await,
    };
    if let Some(refusal) = response.extensions().get::<Refusal>() {
        rules
            .metrics
            .turned_away
            .add(TurnedAway::Token(*refusal), 1);
        tracing::debug!("turned a request away: {refusal}");
    }
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers
        .entry(CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(PAGE_POLICY));
    if let From::Allowed(origin) = from {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
    response
}

impl Rules {
    fn origin(&self, headers: &HeaderMap) -> From {
        let mut origins = headers.get_all(ORIGIN).iter();
        let origin = match (origins.next(), origins.next()) {
            (None, _) => return From::Here,
            (Some(origin), None) => origin,
            (Some(_), Some(_)) => return From::Elsewhere,
        };
        let Ok(text) = origin.to_str() else {
            return From::Elsewhere;
        };
        let own = headers.get(HOST).and_then(|host| host.to_str().ok());
        // The scheme isn't compared: behind a proxy that speaks TLS ours is another.
        let host = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"));
        if let (Some(host), Some(own)) = (host, own)
            && host.eq_ignore_ascii_case(own)
        {
            return From::Here;
        }
        if self.origins.iter().any(|allowed| allowed == text) {
            return From::Allowed(origin.clone());
        }
        From::Elsewhere
    }

    /// The answer to a request that may not come in.
    fn fault(&self, request: &Request, from: &From) -> Option<Response> {
        if *from == From::Elsewhere {
            self.metrics.turned_away.add(TurnedAway::Origin, 1);
            return Some(Problem::of(ErrorCode::Origin).answer(StatusCode::FORBIDDEN));
        }
        if has_token(request.uri().query().unwrap_or("")) {
            return Some(Refusal::InQuery.into_response());
        }
        if !request.body().is_end_stream() {
            self.metrics.turned_away.add(TurnedAway::Body, 1);
            let mut response = Problem::of(ErrorCode::Body).answer(StatusCode::PAYLOAD_TOO_LARGE);
            // What would have come is not read.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
            return Some(response);
        }
        None
    }
}

/// Whether a query holds what is taken for a token elsewhere.
fn has_token(query: &str) -> bool {
    url::form_urlencoded::parse(query.as_bytes()).any(|(name, _)| {
        ["token", "access_token"]
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
    })
}

/// What a browser asks before a page of another host may send a token.
fn preflight() -> Response {
    (
        StatusCode::NO_CONTENT,
        [
            (ACCESS_CONTROL_ALLOW_METHODS, "GET"),
            (
                ACCESS_CONTROL_ALLOW_HEADERS,
                "authorization, last-event-id, cache-control",
            ),
            (ACCESS_CONTROL_MAX_AGE, "600"),
        ],
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_told_apart() {
        let rules = Rules {
            origins: vec!["https://map.example".into()],
            metrics: GatewayMetrics::new(),
        };
        let own = || From::Here;
        let allowed = || From::Allowed(HeaderValue::from_static("https://map.example"));
        for (host, origin, expected) in [
            (Some("gw.example"), vec![], own()),
            (None, vec![], own()),
            (Some("gw.example"), vec!["https://gw.example"], own()),
            (
                Some("gw.example:8080"),
                vec!["http://GW.example:8080"],
                own(),
            ),
            (
                Some("gw.example:8080"),
                vec!["http://gw.example"],
                From::Elsewhere,
            ),
            (
                Some("gw.example"),
                vec!["https://gw.example.evil"],
                From::Elsewhere,
            ),
            (Some("gw.example"), vec!["https://map.example"], allowed()),
            (
                Some("gw.example"),
                vec!["http://map.example"],
                From::Elsewhere,
            ),
            (
                Some("gw.example"),
                vec!["https://map.example:8443"],
                From::Elsewhere,
            ),
            (Some("gw.example"), vec!["null"], From::Elsewhere),
            (Some("null"), vec!["null"], From::Elsewhere),
            (None, vec!["https://gw.example"], From::Elsewhere),
            (
                Some("gw.example"),
                vec!["https://gw.example", "https://evil.example"],
                From::Elsewhere,
            ),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(host) = host {
                headers.insert(HOST, HeaderValue::from_static(host));
            }
            for value in &origin {
                headers.append(ORIGIN, HeaderValue::from_static(value));
            }
            assert_eq!(rules.origin(&headers), expected, "{host:?} {origin:?}");
        }
    }

    #[test]
    fn a_token_in_the_query_is_seen_through_escapes() {
        for query in [
            "token=x",
            "a=1&access_token=x",
            "ACCESS_TOKEN",
            "%74oken=x",
            "acc%65ss_token=",
        ] {
            assert!(has_token(query), "{query}");
        }
        for query in ["", "session=token", "tokens=1", "bbox=1,2,3,4"] {
            assert!(!has_token(query), "{query}");
        }
    }
}
