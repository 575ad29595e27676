//! Everything that speaks to Kafka, and the only module that uses rdkafka.
//!
//! Owns reading by hand assignment ([`Reader`]), the epoch's transaction ([`Committer`]),
//! reading the epoch log back, the gateway's records with receipts ([`Outlet`]), following live
//! what a gateway shows ([`Follower`]), telling lag tools how far the job is ([`Progress`]), and
//! whether one runs ([`Presence`]).
//! Never decides what an event is; the job never lets a consumer group assign its partitions.
//! For the tools there are [`producer`], [`group`] and [`routing`].

pub mod admin;
mod client;
mod committer;
mod epoch_log;
mod follower;
pub mod group;
mod header;
mod history;
mod outlet;
mod partition_queue;
mod presence;
pub mod producer;
mod progress;
mod reader;
pub mod ready;
pub mod routing;

pub use client::{KafkaError, Partitions, partitions_of};
pub use committer::{CommitError, Committed, Committer, EpochToCommit};
pub use epoch_log::{epoch_log_topic, greatest_generation, log_end, read_epoch_log};
pub use follower::{Followed, Follower, PAST_OFFSETS, Seen};
pub use history::{PastRecord, read_to_end};
pub use outlet::{Outgoing, Outlet, Receipt, SendError, Settings as OutletSettings};
pub use presence::{JobSeen, Presence, SEEN_AFTER_DEATH, jobs_seen};
pub use progress::{Progress, group_offsets};
pub use reader::{FETCHING, HeldOffsets, ReadError, Reader, held_offsets};

/// Where events go.
pub const NOTIFICATIONS: &str = "rider-notifications";
/// Where bad input goes.
pub const DEAD_LETTERS: &str = "rider-updates-dead-letter";
