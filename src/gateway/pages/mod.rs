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
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;

use super::file::{FOR_EVER, File, REVALIDATED, guard};

#[cfg(test)]
mod tests;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const GEOJSON: &str = "application/geo+json";

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
