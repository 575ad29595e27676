//! A file as browsers get it.
//!
//! Owns its tag, how long it may be kept, and the headers of every answer that is a file.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use twox_hash::XxHash3_64;

/// What pages may do. Scripts and styles come from here only and nothing is inline; `data:` and
/// `blob:` images are made by the map library out of what it has.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self' data: blob:; worker-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

const PERMISSIONS_POLICY: &str =
    "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()";

/// The name carries the version: it never changes.
pub(super) const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// May be kept, but is asked for each time.
pub(super) const REVALIDATED: &str = "no-cache";

/// One file as it is sent.
#[derive(Clone)]
pub(super) struct File {
    pub(super) name: &'static str,
    kind: &'static str,
    kept: &'static str,
    body: Bytes,
    etag: HeaderValue,
}

impl File {
    pub(super) fn new(
        name: &'static str,
        kind: &'static str,
        kept: &'static str,
        body: Bytes,
    ) -> Self {
        let etag = format!("\"{:016x}\"", XxHash3_64::oneshot(&body));
        let etag = HeaderValue::from_str(&etag).expect("hexadecimal digits in quotes");
        Self {
            name,
            kind,
            kept,
            body,
            etag,
        }
    }

    /// Whether the bytes are a gzip stream, which a browser unpacks.
    fn is_gzip(&self) -> bool {
        self.body.starts_with(&[0x1f, 0x8b])
    }

    /// The whole file, or 304 when the request names its tag.
    pub(super) fn answer(&self, request: &HeaderMap) -> Response {
        let mut headers = HeaderMap::new();
        guard(&mut headers);
        headers.insert(header::ETAG, self.etag.clone());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(self.kept));
        let known = request
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|tags| tags.to_str().ok())
            .flat_map(|tags| tags.split(','))
            .map(|tag| tag.trim().trim_start_matches("W/"))
            .any(|tag| tag == "*" || tag.as_bytes() == self.etag.as_bytes());
        if known {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        if self.is_gzip() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        (StatusCode::OK, headers, self.body.clone()).into_response()
    }
}

/// The headers that every answer that is a file bears, and one that says there is none.
pub(super) fn guard(headers: &mut HeaderMap) {
    const GUARDS: [(HeaderName, &str); 6] = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("permissions-policy"),
            PERMISSIONS_POLICY,
        ),
    ];
    for (name, value) in GUARDS {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
