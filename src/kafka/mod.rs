//! Kafka: the only module that imports rdkafka.

pub mod group;
pub mod producer;
pub mod routing;
