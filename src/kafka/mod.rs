//! Everything that speaks to Kafka, and the only module that uses rdkafka.

mod client;
pub mod group;
pub mod producer;
pub mod ready;
pub mod routing;

pub use client::{KafkaError, Partitions, partitions_of};
