//! How a phone's connection ends, and what the phone is told of it.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Error as SocketError;
use tokio_tungstenite::tungstenite::error::ProtocolError;

use crate::telemetry::Label;

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The phone closed it, or its network did.
    Left,
    /// The phone said nothing for too long.
    Silent,
    /// The phone did not read for too long.
    Unread,
    /// A binary message.
    Binary,
    /// Text that is not UTF-8.
    NotUtf8,
    /// A message over 4 KiB.
    TooLarge,
    /// Not the WebSocket protocol.
    Protocol,
    /// The phone went on sending what it was told not to.
    Flood,
    /// The token has expired.
    Expired,
    /// The phone came back by another connection.
    TakenOver,
    /// The gateway is ending.
    Draining,
    /// The gateway can't take anything any more.
    Broken,
}

impl Label for End {
    const NAME: &'static str = "end";
    const VALUES: &'static [Self] = &[
        Self::Left,
        Self::Silent,
        Self::Unread,
        Self::Binary,
        Self::NotUtf8,
        Self::TooLarge,
        Self::Protocol,
        Self::Flood,
        Self::Expired,
        Self::TakenOver,
        Self::Draining,
        Self::Broken,
    ];
    fn text(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Silent => "silent",
            Self::Unread => "unread",
            Self::Binary => "binary",
            Self::NotUtf8 => "not_utf8",
            Self::TooLarge => "too_large",
            Self::Protocol => "protocol",
            Self::Flood => "flood",
            Self::Expired => "expired",
            Self::TakenOver => "taken_over",
            Self::Draining => "draining",
            Self::Broken => "broken",
        }
    }
}

impl End {
    /// What the phone is told, if it can be told anything.
    pub(super) fn close_frame(self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            // It said goodbye itself, or hears nothing.
            Self::Left | Self::Unread => return None,
            Self::Silent => (1008, "nothing was heard for too long"),
            Self::Binary => (1003, "messages are text"),
            Self::NotUtf8 => (1007, "text is UTF-8"),
            Self::TooLarge => (1009, "a message is at most 4 KiB"),
            Self::Protocol => (1002, "not the WebSocket protocol"),
            Self::Flood => (1008, "too many messages"),
            Self::Expired => (1008, "the token has expired"),
            Self::TakenOver => (1008, "another connection has this session"),
            Self::Draining => (1001, "the gateway is ending"),
            Self::Broken => (1013, "try again later"),
        };
        let reason = Utf8Bytes::from_static(reason);
        Some(CloseFrame { code, reason })
    }

    /// What a failed read comes from.
    pub(super) fn of(error: axum::Error) -> Self {
        match error.into_inner().downcast::<SocketError>().as_deref() {
            Ok(SocketError::Utf8(_)) => Self::NotUtf8,
            Ok(SocketError::Capacity(_)) => Self::TooLarge,
            // Among those is a phone that is gone without a goodbye.
            Ok(SocketError::Protocol(fault)) if !is_hang_up(fault) => Self::Protocol,
            _ => Self::Left,
        }
    }
}

fn is_hang_up(fault: &ProtocolError) -> bool {
    matches!(
        fault,
        ProtocolError::ResetWithoutClosingHandshake | ProtocolError::ReceivedAfterClosing
    )
}

/// Tells a phone that there is no room for its session.
pub(super) async fn turn_away(socket: WebSocket) {
    close(socket, End::Broken, Duration::from_secs(2)).await;
}

/// Says goodbye, and waits a moment for the phone to hear it: a socket that is closed with
/// something unread in it takes back what was sent.
pub(super) async fn close(mut socket: WebSocket, end: End, within: Duration) {
    if end == End::Unread {
        return;
    }
    let goodbye = async {
        if let Some(frame) = end.close_frame()
            && socket.send(Message::Close(Some(frame))).await.is_err()
        {
            return;
        }
        while let Some(Ok(_)) = socket.recv().await {}
        if matches!(end, End::NotUtf8 | End::TooLarge | End::Protocol) {
            // After such a fault nothing can be read.
            sleep(within / 4).await;
        }
    };
    let _ = timeout(within, goodbye).await;
}
