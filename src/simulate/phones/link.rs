//! A phone's connection: opens it, talks, and opens it again for as long as the city lives.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Request, header};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::Tokens;
use super::answer::Answer;
use super::back_off::BackOff;
use super::phone::{Phone, Then};
use super::tally::Tally;
use super::url::GatewayUrl;

/// The subprotocol of the gateway's WebSockets.
const SUBPROTOCOL: &str = "riderflow.v1";
/// How long connecting may take, up to the gateway's `welcome`; also how long a write may.
const PATIENCE: Duration = Duration::from_secs(10);
/// The gateway pings every 20 s: who is not heard for so long is gone.
const SILENCE: Duration = Duration::from_secs(45);

/// Why a connection ended or never came about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No connection.
    #[error("it can't be reached: {0}")]
    Unreachable(String),
    /// It answered the handshake with something else.
    #[error("it answered with HTTP status {0}")]
    Http(u16),
    /// Connected, but nothing more within 10 s.
    #[error("it did not answer within {} s", PATIENCE.as_secs())]
    Slow,
    /// Nothing was heard, no ping either.
    #[error("it was not heard for {} s", SILENCE.as_secs())]
    Silent,
    /// The gateway closed it.
    #[error("it closed the connection with code {code}: {reason}")]
    Closed {
        /// The close code; 1005 if it gave none.
        code: u16,
        /// In its words.
        reason: String,
    },
    /// The connection broke, or the gateway broke the protocol.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// It asked for an update that the phone had to give up.
    #[error("it waits for an update that was given up")]
    Gone,
}

/// What all connections have in common.
pub(super) struct Common {
    pub(super) url: GatewayUrl,
    pub(super) session: String,
    pub(super) tokens: Box<Tokens>,
    pub(super) tally: Tally,
}

type Socket = WebSocketStream<TcpStream>;

/// Small buffers: there are thousands of phones, and what one says is small.
fn socket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(2 << 10)
        .write_buffer_size(0)
        .max_write_buffer_size(16 << 10)
        .max_message_size(Some(16 << 10))
        .max_frame_size(Some(16 << 10))
}

/// Keeps a phone connected from `begin` on, until `closing` says true.
pub(super) async fn keep_connected(
    phone: Arc<Phone>,
    common: Arc<Common>,
    begin: Instant,
    mut closing: watch::Receiver<bool>,
) {
    let mut back_off = BackOff::new(phone.driver.0);
    let mut next = begin;
    loop {
        tokio::select! {
            () = sleep_until(next) => {}
            () = said_true(&mut closing) => return,
        }
        let fault = match connect(&phone, &common).await {
            Ok(mut socket) => {
                common.tally.on_connected();
                let end = talk(&phone, &common, &mut socket, &mut back_off, &mut closing).await;
                common.tally.on_disconnected();
                match end {
                    Ok(()) => return,
                    Err(fault) => fault,
                }
            }
            Err(fault) => fault,
        };
        tracing::debug!(driver = phone.driver.0, %fault, "a phone's connection ended");
        common.tally.on_fault(fault);
        next = Instant::now() + back_off.next();
    }
}

/// Opens a connection and hears the gateway's `welcome`.
async fn connect(phone: &Phone, common: &Common) -> Result<Socket, Fault> {
    let open = async {
        let unreachable = |error: std::io::Error| Fault::Unreachable(error.to_string());
        let stream = TcpStream::connect(common.url.address())
            .await
            .map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let request = request(phone, common)?;
        let config = Some(socket_config());
        let (mut socket, _) = client_async_with_config(request, stream, config)
            .await
            .map_err(fault)?;
        loop {
            let Some(text) = next_text(&mut socket).await? else {
                continue;
            };
            let answer = Answer::read(&text).map_err(Fault::Broken)?;
            if matches!(answer, Answer::Welcome { .. }) {
                phone.hear(answer, &common.tally);
                return Ok(socket);
            }
        }
    };
    timeout(PATIENCE, open).await.unwrap_or(Err(Fault::Slow))
}

fn request(phone: &Phone, common: &Common) -> Result<Request<()>, Fault> {
    let url = common.url.for_session(&common.session);
    let mut request = url.into_client_request().map_err(fault)?;
    let bearer = format!("Bearer {}", (common.tokens)(phone.driver));
    let mut bearer =
        HeaderValue::from_str(&bearer).map_err(|error| Fault::Broken(error.to_string()))?;
    bearer.set_sensitive(true);
    let headers = request.headers_mut();
    headers.insert(header::AUTHORIZATION, bearer);
    headers.insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(SUBPROTOCOL),
    );
    Ok(request)
}

/// Sends and hears until the connection ends, or in order when `closing` says true.
async fn talk(
    phone: &Phone,
    common: &Common,
    socket: &mut Socket,
    back_off: &mut BackOff,
    closing: &mut watch::Receiver<bool>,
) -> Result<(), Fault> {
    let mut heard = Instant::now();
    let mut held_until: Option<Instant> = None;
    loop {
        if held_until.is_none() {
            while let Some(frame) = phone.next_frame().map_err(|_| Fault::Gone)? {
                write(socket, Message::text(frame)).await?;
            }
        }
        tokio::select! {
            () = phone.news.notified() => {}
            () = sleep_until(held_until.unwrap_or(heard)), if held_until.is_some() => {
                held_until = None;
            }
            () = sleep_until(heard + SILENCE) => return Err(Fault::Silent),
            () = said_true(closing) => {
                close(socket).await;
                return Ok(());
            }
            text = next_text(socket) => {
                heard = Instant::now();
                let Some(text) = text? else { continue };
                let answer = Answer::read(&text).map_err(Fault::Broken)?;
                if matches!(answer, Answer::Ack { .. }) {
                    back_off.reset();
                }
                if let Then::HoldBack(ms) = phone.hear(answer, &common.tally) {
                    held_until = Some(heard + Duration::from_millis(ms));
                }
            }
        }
    }
}

/// Waits until a flag says true, or nobody can set it any more.
async fn said_true(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|flag| *flag).await;
}

async fn write(socket: &mut Socket, message: Message) -> Result<(), Fault> {
    timeout(PATIENCE, socket.send(message))
        .await
        .map_err(|_| Fault::Slow)?
        .map_err(fault)
}

/// The next text; `None` for a ping and the like, which is answered.
async fn next_text(socket: &mut Socket) -> Result<Option<tungstenite::Utf8Bytes>, Fault> {
    match socket.next().await {
        Some(Ok(Message::Text(text))) => Ok(Some(text)),
        Some(Ok(Message::Close(frame))) => {
            // The answer to its closing goes out with the next read, if at all.
            let _ = timeout(Duration::from_millis(100), socket.next()).await;
            Err(closed(frame))
        }
        Some(Ok(Message::Binary(_))) => Err(Fault::Broken("it sent binary".to_owned())),
        Some(Ok(_)) => {
            // A pong is written with what comes next: here at once.
            let _ = timeout(PATIENCE, socket.flush()).await;
            Ok(None)
        }
        Some(Err(error)) => Err(fault(error)),
        None => Err(closed(None)),
    }
}

async fn close(socket: &mut Socket) {
    let frame = CloseFrame {
        code: CloseCode::Normal,
        reason: "the city has stopped".into(),
    };
    let farewell = async {
        if socket.close(Some(frame)).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    // A gateway that does not answer is left.
    tokio::select! {
        () = farewell => {}
        () = sleep(Duration::from_secs(1)) => {}
    }
}

fn closed(frame: Option<CloseFrame>) -> Fault {
    match frame {
        Some(frame) => Fault::Closed {
            code: frame.code.into(),
            reason: frame.reason.as_str().to_owned(),
        },
        None => Fault::Closed {
            code: 1005,
            reason: String::from("it said nothing"),
        },
    }
}

fn fault(error: tungstenite::Error) -> Fault {
    match error {
        tungstenite::Error::Http(response) => Fault::Http(response.status().as_u16()),
        error => Fault::Broken(error.to_string()),
    }
}
