//! The gateway's way in, over real sockets and the real Kafka.

#[path = "../common/mod.rs"]
mod common;
mod frames;
mod kills;
mod memory;
mod outages;
#[path = "../common/phone.rs"]
mod phone;
mod sessions;
mod stand;
