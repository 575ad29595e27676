//! The gateway: positions in by WebSocket, live positions out, and the pages that show them.
//!
//! ```text
//! phones ──WebSocket──▶ intake ──▶ rider-updates                     (Kafka)
//! pages  ◀────SSE────── live   ◀── rider-updates, orders, geofences, rider-notifications
//! ```
//!
//! Owns the two ends that people touch. Promises that a phone is told of an update only once
//! Kafka has it, and that nobody is shown what their token does not name. Never decides what an
//! event is; it shows what the job told. Any number of gateways run side by side: what they
//! share is in Kafka.
//!
//! | part | owns |
//! |---|---|
//! | [`access`] | who may: tokens and what they grant |
//! | `server` | the listening socket: TLS, caps, draining |
//! | `intake` | phones' WebSockets, acknowledgements, the way into Kafka |
//! | `live` | where everyone is now, and the streams that tell it |
//! | `pages` | the files that browsers load |

pub mod access;
mod pages;
