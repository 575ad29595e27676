//! Where everyone is now, and the streams that tell it.
//!
//! ```text
//! Kafka ── follower ──▶ feed ── batches ──▶ view ◀── what is new? ── streams ──▶ sockets
//!                         └── touched ──▶ hub ──── wake ────────────────┘
//! ```
//!
//! Owns one view of orders, drivers, places and fences, and all Server-Sent Events. Promises
//! that a stream tells what its grant names and nothing else: an order that is unknown, has
//! ended or is another's answers alike; that the whole comes first and then what is new, made
//! from the view when the socket takes it, so that the latest wins and a reader that never
//! reads costs no more than one piece; that an idle stream costs nothing but its heartbeat.
//! Never writes to Kafka, and never decides what an event is.
//!
//! | file | owns |
//! |---|---|
//! | `feed` | the thread between Kafka and the view |
//! | `view`, `drivers`, `orders`, `fences`, `told` | what is known |
//! | `hub` | who waits for what |
//! | `order`, `place`, `fleet` | what the three streams say |
//! | `shown`, `bbox`, `sse` | how they say it |
//! | `denied` | what is answered instead of a stream |
//! | `described` | an example of all that, for the gateway's description of itself |

mod bbox;
mod denied;
pub(super) mod described;
mod drivers;
mod feed;
mod fences;
mod fleet;
mod hub;
mod order;
mod orders;
mod place;
mod shown;
mod sse;
#[cfg(test)]
mod streams_tests;
#[cfg(test)]
mod testing;
mod told;
mod view;
#[cfg(test)]
mod view_tests;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use compact_str::CompactString;
use tokio::sync::watch;
use utoipa::OpenApi;

use self::bbox::Bbox;
use self::denied::Denied;
use self::feed::Feed;
use self::fleet::FleetTeller;
use self::hub::{Hub, Watched};
use self::order::OrderTeller;
use self::place::PlaceTeller;
use self::view::View;
use super::access::{Access, Grant, Subject};
use super::problem::{ErrorCode, Problem};
use super::shared::limits_of;
use crate::config::Pipeline;
use crate::detect::Rules;
use crate::model::{DriverId, OrderId, TimeMs};

/// Told of each update that came through a gateway: driver, session, partition, number in the
/// session. It is called by the thread that feeds the view, so it must not wait.
pub type SeqHook = Box<dyn FnMut(DriverId, &str, i32, u64) + Send>;

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The system has no thread left.
    #[error("could not start the thread that follows Kafka: {0}; raise the limit on threads")]
    Thread(std::io::Error),
}

/// Streams of the fleet that a gateway takes: each looks at every driver once a second.
const FLEET_STREAMS: usize = 64;

/// What streams and the feed share.
struct Shared {
    view: Mutex<View>,
    hub: Arc<Hub>,
    access: Arc<Access>,
    ending: watch::Receiver<bool>,
    ready: AtomicBool,
    streams: Arc<AtomicUsize>,
    fleet_streams: Arc<AtomicUsize>,
}

impl Shared {
    /// Held for as short a time as can be. A panic of one holder leaves it whole enough: each
    /// record is taken by itself.
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One more, until it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    /// One more, unless there are `most`.
    fn one_of(most: usize, count: &Arc<AtomicUsize>) -> Option<Self> {
        let counted = Self::one_more(count);
        (count.load(Ordering::Relaxed) <= most).then_some(counted)
    }

    fn one_more(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The live view of one gateway, fed by a thread that ends when this is dropped.
pub struct Live {
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("is_ready", &self.is_ready())
            .field("streams", &self.streams())
            .finish_non_exhaustive()
    }
}

impl Live {
    /// Begins to follow the pipeline's Kafka, which need not be there yet. All streams end
    /// when `ending` turns true. `seen_seq` hears of each update that a gateway numbered.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn start(
        pipeline: &Pipeline,
        access: Arc<Access>,
        ending: watch::Receiver<bool>,
        seen_seq: SeqHook,
    ) -> Result<Self, LiveError> {
        let rules = Rules {
            max_speed_mps: pipeline.updates.max_speed_mps,
            max_accuracy_m: pipeline.updates.max_accuracy_m,
            ..Rules::default()
        };
        let shared = Arc::new(Shared {
            view: Mutex::new(View::new(rules)),
            hub: Arc::default(),
            access,
            ending,
            ready: AtomicBool::new(false),
            streams: Arc::default(),
            fleet_streams: Arc::default(),
        });
        let stop = Arc::new(AtomicBool::new(false));
        let feed = Feed {
            shared: Arc::clone(&shared),
            brokers: pipeline.kafka.brokers.clone(),
            limits: limits_of(pipeline),
            seen_seq,
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new()
            .name("live-feed".into())
            .spawn(move || feed.run())
            .map_err(LiveError::Thread)?;
        Ok(Self {
            shared,
            stop,
            thread: Some(thread),
        })
    }

    /// Whether the view has caught up with Kafka as it was at the start, and is kept up. Until
    /// then streams are refused with 503.
    pub fn is_ready(&self) -> bool {
        let is_fed = self.thread.as_ref().is_some_and(|it| !it.is_finished());
        is_fed && self.shared.ready.load(Ordering::Acquire)
    }

    /// Whether the thread that follows Kafka has ended by itself: what is shown is not kept up any
    /// more.
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// How many streams are open.
    pub fn streams(&self) -> usize {
        self.shared.streams.load(Ordering::Relaxed)
    }

    /// How many drivers and orders the view knows.
    pub fn known(&self) -> (usize, usize) {
        self.shared.view().counts()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of it has been told by the hook.
            let _ = thread.join();
        }
    }
}

/// The three streams.
pub fn routes(live: Arc<Live>) -> Router {
    Router::new()
        .route("/v1/orders/{id}/live", get(order_live))
        .route("/v1/places/{place}/live", get(place_live))
        .route("/v1/fleet/live", get(fleet_live))
        .with_state(live)
}

/// One order, for whoever waits for it.
///
/// The token's `sub` is `order/` and the id.
#[utoipa::path(
    get, path = "/v1/orders/{id}/live", operation_id = "followOrder", tag = "live",
    params(
        ("id" = String, Path, description = "The order's id."),
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event that was read: the snapshot leaves out the events up to it. Unknown: it has all."),
    ),
    responses(
        (status = 200, description = "Server-Sent Events, until the token expires or the gateway ends; then come again, unless `ended` was told. After 15 s without anything else a comment comes.",
            body = String, content_type = "text/event-stream"),
        (status = 401, description = "No good token.",
            headers(("www-authenticate" = String, description = "`Bearer realm=\"riderflow\"`")),
            body = Problem<'static>, example = json!(Problem::of(ErrorCode::Unauthorized))),
        (status = 404, description = "The order is unknown, has ended, or is not the token's.", body = Problem<'static>,
            example = json!(Problem::of(ErrorCode::NotFound))),
        (status = 503, description = "The gateway is still reading what Kafka has: come again.",
            headers(("retry-after" = u32, description = "Seconds.")), body = Problem<'static>,
            example = json!(Problem::of(ErrorCode::Starting).because(denied::STARTING))),
    ),
    security(("token" = []))
)]
async fn order_live(
    State(live): State<Arc<Live>>,
    path: Result<Path<CompactString>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Denied> {
    let id = path.ok().map(|Path(id)| OrderId(id));
    let grant = admit(&live, &headers, id.clone().map(Subject::Order))?;
    let id = id.ok_or(Denied::NotFound)?;
    // Watched before it is looked at: what comes in between wakes the stream.
    let watcher = live.shared.hub.watch(Watched::Order(id.clone()));
    let is_open =
        (live.shared.view().order(&id)).is_some_and(|followed| !followed.order.status.is_ended());
    if !is_open {
        return Err(Denied::NotFound);
    }
    let after = headers.get("last-event-id");
    let teller = OrderTeller::new(id, after.map(|id| id.as_bytes().to_vec()));
    let expires_at_ms = grant.expires_at_ms;
    Ok(sse::stream(
        &live.shared,
        Some(watcher),
        expires_at_ms,
        teller,
    ))
}

/// The orders of a restaurant, or of whoever gets them.
///
/// The token's `sub` is `place/` and the name.
#[utoipa::path(
    get, path = "/v1/places/{place}/live", operation_id = "followPlace", tag = "live",
    params(
        ("place" = String, Path, description = "The place's name, as orders give it."),
    ),
    responses(
        (status = 200, description = "Server-Sent Events, until the token expires or the gateway ends; then come again, unless `ended` was told. After 15 s without anything else a comment comes.",
            body = String, content_type = "text/event-stream"),
        (status = 401, description = "No good token.",
            headers(("www-authenticate" = String, description = "`Bearer realm=\"riderflow\"`")),
            body = Problem<'static>, example = json!(Problem::of(ErrorCode::Unauthorized))),
        (status = 404, description = "The place is not the token's.", body = Problem<'static>,
            example = json!(Problem::of(ErrorCode::NotFound))),
        (status = 503, description = "The gateway is still reading what Kafka has: come again.",
            headers(("retry-after" = u32, description = "Seconds.")), body = Problem<'static>,
            example = json!(Problem::of(ErrorCode::Starting).because(denied::STARTING))),
    ),
    security(("token" = []))
)]
async fn place_live(
    State(live): State<Arc<Live>>,
    path: Result<Path<CompactString>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Denied> {
    let place = path.ok().map(|Path(place)| place);
    let grant = admit(&live, &headers, place.clone().map(Subject::Place))?;
    // A place without orders is a place that waits for some.
    let place = place.ok_or(Denied::NotFound)?;
    let watcher = live.shared.hub.watch(Watched::Place(place.clone()));
    let teller = PlaceTeller::new(place);
    let expires_at_ms = grant.expires_at_ms;
    Ok(sse::stream(
        &live.shared,
        Some(watcher),
        expires_at_ms,
        teller,
    ))
}

/// The drivers in a box, for operations.
///
/// The token's `sub` is `fleet`. At most 5,000 drivers are shown.
#[utoipa::path(
    get, path = "/v1/fleet/live", operation_id = "followFleet", tag = "live",
    params(
        ("bbox" = String, Query, description = "west,south,east,north in degrees; over the antimeridian where west is above east.",
            example = "77.4,12.8,77.8,13.1"),
    ),
    responses(
        (status = 200, description = "Server-Sent Events, until the token expires or the gateway ends; then come again, unless `ended` was told. After 15 s without anything else a comment comes.",
            body = String, content_type = "text/event-stream"),
        (status = 400, description = "The box can't be read.", body = Problem<'static>,
            example = json!(Problem {
                error: ErrorCode::BadParameter,
                parameter: Some("bbox"),
                detail: Some("north is missing: write west,south,east,north"),
            })),
        (status = 401, description = "No good token.",
            headers(("www-authenticate" = String, description = "`Bearer realm=\"riderflow\"`")),
            body = Problem<'static>, example = json!(Problem::of(ErrorCode::Unauthorized))),
        (status = 404, description = "The token is not the fleet's.", body = Problem<'static>,
            example = json!(Problem::of(ErrorCode::NotFound))),
        (status = 503, description = "The gateway is still reading what Kafka has (`starting`), or as many watch as it takes (`crowded`): come again.",
            headers(("retry-after" = u32, description = "Seconds.")), body = Problem<'static>,
            example = json!(Problem::of(ErrorCode::Starting).because(denied::STARTING))),
    ),
    security(("token" = []))
)]
async fn fleet_live(
    State(live): State<Arc<Live>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Denied> {
    let grant = admit(&live, &headers, Some(Subject::Fleet))?;
    let query = query.unwrap_or_default();
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let bbox = match pairs.find(|(name, _)| name == "bbox") {
        Some((_, text)) => Bbox::parse(&text),
        None => Err("it is missing: write bbox=west,south,east,north".into()),
    };
    let bbox = bbox.map_err(Denied::Bbox)?;
    let turn = Counted::one_of(FLEET_STREAMS, &live.shared.fleet_streams);
    let teller = FleetTeller::new(bbox, turn.ok_or(Denied::Crowded)?);
    Ok(sse::stream(&live.shared, None, grant.expires_at_ms, teller))
}

/// What the three streams are.
#[derive(OpenApi)]
#[openapi(paths(order_live, place_live, fleet_live))]
struct Described;

/// Lets a request in whose token names what it wants. With another's, the answer is the same
/// as for what is not there.
fn admit(live: &Live, headers: &HeaderMap, wanted: Option<Subject>) -> Result<Grant, Denied> {
    let grant = live.shared.access.grant(headers).map_err(Denied::Token)?;
    if wanted.as_ref() != Some(&grant.subject) {
        Err(Denied::NotFound)
    } else if live.is_ready() {
        Ok(grant)
    } else {
        Err(Denied::Starting)
    }
}

fn wall_clock_ms() -> TimeMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as TimeMs)
}
