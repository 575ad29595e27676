//! What a browser is given: over the router, without a socket.

use std::collections::BTreeSet;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use bytes::Bytes;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

use super::routes;

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("a readable header"))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }
}

fn get_with(base_map: Option<Bytes>, path: &str, tag: Option<&str>) -> Answer {
    let mut request = Request::get(path);
    if let Some(tag) = tag {
        request = request.header(header::IF_NONE_MATCH, tag);
    }
    let request = request.body(Body::empty()).expect("a valid request");
    let service = TowerToHyperService::new(routes(base_map));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let answer = service.call(request).await.expect("infallible");
        let (head, body) = answer.into_parts();
        Answer {
            status: head.status,
            headers: head.headers,
            body: to_bytes(body, usize::MAX).await.expect("a whole body"),
        }
    })
}

fn fetch(path: &str) -> Answer {
    get_with(None, path, None)
}

const PAGES: [&str; 3] = ["/track/o-1", "/place/restaurant-9", "/map"];

/// Addresses in quotes that begin with `/assets/`.
fn asset_paths(text: &str) -> BTreeSet<String> {
    text.split(['"', '\'', '`'])
        .filter(|part| part.starts_with("/assets/"))
        .map(|part| part.replace("${VERSION}", "6.17.0"))
        .collect()
}

/// Modules that a script imports: `from "./name.js"`.
fn imports(text: &str) -> BTreeSet<String> {
    text.split('"')
        .filter_map(|part| part.strip_prefix("./"))
        .map(|name| format!("/assets/{name}"))
        .collect()
}

#[test]
fn pages_and_all_that_they_name_are_served_and_guarded() {
    let mut seen = BTreeSet::new();
    let mut open: Vec<String> = PAGES.iter().map(|path| (*path).to_owned()).collect();
    while let Some(path) = open.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let answer = fetch(&path);
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; "), "{path}");
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
        assert_ne!(answer.header("content-type"), "", "{path}");
        if answer.header("content-encoding").is_empty() {
            open.extend(asset_paths(answer.text()));
            open.extend(imports(answer.text()));
        }
    }
    assert!(
        seen.contains("/assets/maplibre-gl-worker-6.17.0.mjs"),
        "{seen:?}"
    );
    assert!(seen.contains("/assets/base-map.geojson"), "{seen:?}");
    // Nothing lies in the binary that no page asks for.
    for file in super::assets(None) {
        let path = format!("/assets/{}", file.name);
        assert!(seen.contains(&path), "{path} is used by no page");
    }
}

#[test]
fn nothing_of_a_page_is_inline_or_elsewhere() {
    for path in PAGES {
        let answer = fetch(path);
        let text = answer.text();
        for forbidden in ["style=", "onclick=", "<style", "http:", "https:", "//"] {
            assert!(!text.contains(forbidden), "{path} has {forbidden}");
        }
        assert_eq!(
            text.matches("<script").count(),
            text.matches("<script type=\"module\" src=\"/assets/")
                .count(),
            "{path}"
        );
    }
}

#[test]
fn a_page_says_nothing_of_the_request() {
    let answer = fetch("/track/%3Cscript%3Eo-1");
    assert_eq!(answer.body, fetch("/track/o-2").body);
}

#[test]
fn what_the_browser_has_is_not_sent_again() {
    let first = fetch("/assets/track.js");
    let tag = first.header("etag").to_owned();
    assert_eq!(first.header("cache-control"), "no-cache");
    for named in [
        tag.clone(),
        format!("W/{tag}"),
        format!("\"other\", {tag}"),
        "*".to_owned(),
    ] {
        let again = get_with(None, "/assets/track.js", Some(&named));
        assert_eq!(again.status, StatusCode::NOT_MODIFIED, "{named}");
        assert!(again.body.is_empty());
        assert_eq!(again.header("etag"), tag);
    }
    let other = get_with(None, "/assets/track.js", Some("\"0123456789abcdef\""));
    assert_eq!(other.status, StatusCode::OK);
    let named_by_version = fetch("/assets/maplibre-gl-6.17.0.mjs");
    assert_eq!(named_by_version.header("content-encoding"), "gzip");
    assert!(
        named_by_version
            .header("cache-control")
            .contains("immutable")
    );
}

#[test]
fn the_base_map_is_the_one_given() {
    let own = fetch("/assets/base-map.geojson");
    let value: serde_json::Value = serde_json::from_slice(&own.body).expect("JSON");
    assert_eq!(value["type"], "FeatureCollection");
    for feature in value["features"].as_array().expect("features") {
        let class = feature["properties"]["class"].as_str();
        let shape = match class {
            Some("street" | "avenue") => "LineString",
            Some("park" | "water") => "Polygon",
            _ => panic!("{feature}"),
        };
        assert_eq!(feature["geometry"]["type"], shape);
    }
    let given = Bytes::from_static(br#"{"type":"FeatureCollection","features":[]}"#);
    let answer = get_with(Some(given.clone()), "/assets/base-map.geojson", None);
    assert_eq!(answer.body, given);
    assert_eq!(answer.header("content-type"), "application/geo+json");
    assert_ne!(answer.header("etag"), own.header("etag"));
    let packed = Bytes::from_static(&[0x1f, 0x8b, 8, 0]);
    let answer = get_with(Some(packed), "/assets/base-map.geojson", None);
    assert_eq!(answer.header("content-encoding"), "gzip");
}

#[test]
fn other_names_are_not_found() {
    for path in ["/assets/mod.rs", "/assets/..%2fmod.rs", "/assets/"] {
        let answer = fetch(path);
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(
        fetch("/favicon.ico").header("content-type"),
        "image/svg+xml"
    );
}
