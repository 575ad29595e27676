// The map below everything: MapLibre with the base map's streets, quiet in light and dark.
//
// Promises: no request but to this host's /assets; no tiles, glyphs or sprites. Where there is
// no WebGL, `openMap` gives null and the page goes on as text.

const VERSION = "6.17.0";
const BASE_MAP = "/assets/base-map.geojson";

const PALETTES = {
  light: { ground: "#e9ece8", park: "#d3e4cd", water: "#c3dae6", street: "#fbfcfb", streetEdge: "#dbe0db", avenue: "#ffffff", avenueEdge: "#c9d0ca" },
  dark: { ground: "#12171a", park: "#172620", water: "#12283a", street: "#222a2f", streetEdge: "#171d21", avenue: "#303b42", avenueEdge: "#1a2125" },
};

const darkScheme = matchMedia("(prefers-color-scheme: dark)");
const lessMotion = matchMedia("(prefers-reduced-motion: reduce)");

export function prefersDark() {
  return darkScheme.matches;
}

export function prefersLessMotion() {
  return lessMotion.matches;
}

/** Calls `then` now and whenever the reader changes between light and dark. */
export function onScheme(then) {
  darkScheme.addEventListener("change", () => then(darkScheme.matches));
  then(darkScheme.matches);
}

export function hasWebGl() {
  try {
    const context = document.createElement("canvas").getContext("webgl2");
    context?.getExtension("WEBGL_lose_context")?.loseContext();
    return Boolean(context);
  } catch {
    return false;
  }
}

let baseMap = null;

/** The base map's GeoJSON; an empty one when it can't be had. Fetched once. */
export function loadBaseMap() {
  baseMap ??= fetch(BASE_MAP, { credentials: "omit" })
    .then((response) => (response.ok ? response.json() : Promise.reject(new Error(String(response.status)))))
    .catch(() => ({ type: "FeatureCollection", features: [] }));
  return baseMap;
}

/** [west, south, east, north] of GeoJSON features, or null without a position. */
export function boundsOf(features) {
  let box = null;
  const visit = (coordinates) => {
    if (typeof coordinates[0] === "number") {
      const [x, y] = coordinates;
      box ??= [x, y, x, y];
      box = [Math.min(box[0], x), Math.min(box[1], y), Math.max(box[2], x), Math.max(box[3], y)];
    } else {
      for (const inner of coordinates) visit(inner);
    }
  };
  for (const feature of features) if (feature.geometry?.coordinates) visit(feature.geometry.coordinates);
  return box;
}

const width = (...stops) => ["interpolate", ["exponential", 1.6], ["zoom"], ...stops];

function styleOf(palette, data) {
  const line = (id, kind, color, lineWidth) => ({
    id, type: "line", source: "base",
    filter: ["==", ["get", "class"], kind],
    layout: { "line-cap": "round", "line-join": "round" },
    paint: { "line-color": palette[color], "line-width": lineWidth },
  });
  const area = (id) => ({
    id, type: "fill", source: "base",
    filter: ["==", ["get", "class"], id],
    paint: { "fill-color": palette[id] },
  });
  return {
    version: 8,
    sources: { base: { type: "geojson", data, tolerance: 0.3, maxzoom: 16 } },
    layers: [
      { id: "ground", type: "background", paint: { "background-color": palette.ground } },
      area("park"),
      area("water"),
      line("streetEdge", "street", "streetEdge", width(11, 0.4, 14, 3.4, 17, 17)),
      line("avenueEdge", "avenue", "avenueEdge", width(9, 0.8, 12, 3, 14, 7.5, 17, 30)),
      line("street", "street", "street", width(11, 0.3, 14, 2.2, 17, 14)),
      line("avenue", "avenue", "avenue", width(9, 0.5, 12, 2, 14, 5.6, 17, 26)),
    ],
  };
}

function repaint(map, palette) {
  if (!map.getLayer("ground")) return;
  map.setPaintProperty("ground", "background-color", palette.ground);
  for (const id of ["park", "water"]) map.setPaintProperty(id, "fill-color", palette[id]);
  for (const id of ["streetEdge", "avenueEdge", "street", "avenue"]) map.setPaintProperty(id, "line-color", palette[id]);
}

/**
 * Opens the map in `container`: `{map, maplibre}`, or null without WebGL or when the library
 * can't be loaded or started. North stays up, so that headings on the screen are true.
 */
export async function openMap(container, options = {}) {
  if (!hasWebGl()) return null;
  try {
    const [maplibre, data] = await Promise.all([import(`/assets/maplibre-gl-${VERSION}.mjs`), loadBaseMap()]);
    maplibre.setWorkerUrl(`/assets/maplibre-gl-worker-${VERSION}.mjs`);
    maplibre.setWorkerCount(1);
    const box = boundsOf(data.features);
    const map = new maplibre.Map({
      container,
      style: styleOf(prefersDark() ? PALETTES.dark : PALETTES.light, data),
      attributionControl: false,
      dragRotate: false,
      pitchWithRotate: false,
      touchPitch: false,
      maxPitch: 0,
      maxZoom: 18,
      minZoom: 2,
      fadeDuration: 0,
      renderWorldCopies: false,
      bounds: box ?? [-30, -40, 120, 60],
      ...options,
    });
    map.touchZoomRotate.disableRotation();
    map.keyboard.disableRotation();
    await new Promise((resolve, reject) => {
      map.once("load", resolve);
      map.once("error", ({ error }) => reject(error));
    });
    onScheme((dark) => repaint(map, dark ? PALETTES.dark : PALETTES.light));
    return { map, maplibre };
  } catch (error) {
    console.warn(`riderflow: the map could not be opened: ${error?.message ?? error}`);
    container.replaceChildren();
    return null;
  }
}
