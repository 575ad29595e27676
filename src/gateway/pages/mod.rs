//! The files that browsers load: three pages, their scripts and styles, the map library.
//!
//! Owns what is served under `/track`, `/place`, `/map` and `/assets`. Everything is in the
//! binary, and no page asks any other host for anything: the content security policy forbids
//! it. Promises that a browser never shows an old script beside a new page: what is not named by
//! its version is revalidated by its `ETag` at each load. Never sees a token, which is in the
//! address's fragment and stays in the browser; never puts a word of a request into an answer.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use twox_hash::XxHash3_64;

#[cfg(test)]
mod tests;

/// What pages may do. Scripts and styles come from here only and nothing is inline; `data:` and
/// `blob:` images are made by the map library out of what it has.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self' data: blob:; worker-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

const PERMISSIONS_POLICY: &str =
    "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()";

/// The name carries the version: it never changes.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// May be kept, but is asked for each time.
const REVALIDATED: &str = "no-cache";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const GEOJSON: &str = "application/geo+json";

/// One file as it is sent.
#[derive(Clone)]
struct File {
    name: &'static str,
    kind: &'static str,
    kept: &'static str,
    body: Bytes,
    etag: HeaderValue,
}

impl File {
    fn new(name: &'static str, kind: &'static str, kept: &'static str, body: Bytes) -> Self {
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
    fn answer(&self, request: &HeaderMap) -> Response {
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

/// The headers that every answer of this module bears.
fn guard(headers: &mut HeaderMap) {
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

/// A file of this folder, by its name in the binary's source tree.
macro_rules! file {
    ($name:literal, $kind:expr, $kept:expr, $path:literal) => {
        File::new(
            $name,
            $kind,
            $kept,
            Bytes::from_static(include_bytes!($path)),
        )
    };
    ($name:literal, $kind:expr) => {
        File::new(
            $name,
            $kind,
            REVALIDATED,
            Bytes::from_static(include_bytes!($name)),
        )
    };
}

const FAVICON: &str = "favicon.svg";

/// All that lies under `/assets`.
fn assets(base_map: Option<Bytes>) -> Vec<File> {
    let base_map =
        base_map.unwrap_or_else(|| Bytes::from_static(include_bytes!("assets/base-map.geojson")));
    vec![
        file!("base.css", STYLE),
        file!("track.css", STYLE),
        file!("place.css", STYLE),
        file!("map.css", STYLE),
        file!("basemap.js", SCRIPT),
        file!("fleet.js", SCRIPT),
        file!("fleet_canvas.js", SCRIPT),
        file!("format.js", SCRIPT),
        file!("map.js", SCRIPT),
        file!("map_panel.js", SCRIPT),
        file!("motion.js", SCRIPT),
        file!("place.js", SCRIPT),
        file!("plain.js", SCRIPT),
        file!("sse.js", SCRIPT),
        file!("track.js", SCRIPT),
        file!("track_map.js", SCRIPT),
        file!("track_state.js", SCRIPT),
        file!("favicon.svg", SVG, REVALIDATED, "assets/favicon.svg"),
        File::new("base-map.geojson", GEOJSON, REVALIDATED, base_map),
        file!(
            "maplibre-gl-6.17.0.mjs",
            SCRIPT,
            FOR_EVER,
            "vendor/maplibre/maplibre-gl.mjs.gz"
        ),
        file!(
            "maplibre-gl-worker-6.17.0.mjs",
            SCRIPT,
            FOR_EVER,
            "vendor/maplibre/maplibre-gl-worker.mjs.gz"
        ),
        file!(
            "maplibre-gl-6.17.0.css",
            STYLE,
            FOR_EVER,
            "vendor/maplibre/maplibre-gl.css.gz"
        ),
    ]
}

/// `GET /track/{order}`, `/place/{place}`, `/map` and `/assets/…`. `base_map` is the GeoJSON of
/// the streets that the maps show, plain or compressed by gzip; without it those of the
/// simulated city.
pub(crate) fn routes(base_map: Option<Bytes>) -> Router {
    let page = |file: File| {
        let file = Arc::new(file);
        get(move |headers: HeaderMap| {
            let answer = file.answer(&headers);
            async move { answer }
        })
    };
    let assets: Arc<[File]> = assets(base_map).into();
    let favicon = assets
        .iter()
        .find(|file| file.name == FAVICON)
        .expect("the favicon is an asset")
        .clone();
    Router::new()
        .route("/track/{order}", page(file!("track.html", HTML)))
        .route("/place/{place}", page(file!("place.html", HTML)))
        .route("/map", page(file!("map.html", HTML)))
        .route("/favicon.ico", page(favicon))
        .route("/assets/{name}", get(asset))
        .with_state(assets)
}

async fn asset(
    State(assets): State<Arc<[File]>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    match assets.iter().find(|file| file.name == name) {
        Some(file) => file.answer(&headers),
        None => {
            let mut guards = HeaderMap::new();
            guard(&mut guards);
            (StatusCode::NOT_FOUND, guards).into_response()
        }
    }
}
