//! Where the tools that speak to Kafka find it, and the pipeline that they serve.

use std::path::{Path, PathBuf};

use super::Failure;
use crate::config::{self, Pipeline, Secret};
use crate::gateway::access::KEY_VARIABLE;
use crate::kafka::KafkaError;
use crate::kafka::producer::ProducerError;

/// What a tool reads when nothing is named and it is there.
const SHIPPED: &str = "pipelines/rider-alerts.toml";

/// The options that these tools share.
#[derive(clap::Args)]
pub(super) struct Target {
    /// The pipeline file, for routes and brokers [default: pipelines/rider-alerts.toml if there
    /// is one, else the built-in defaults]
    #[arg(long, value_name = "FILE")]
    pipeline: Option<PathBuf>,
    /// Kafka's bootstrap servers [default: the pipeline file's]
    #[arg(long, value_name = "HOST:PORT", env = "RIDERFLOW_KAFKA")]
    brokers: Option<String>,
}

impl Target {
    /// The pipeline, its brokers as the options and the environment have them.
    pub(super) fn pipeline(&self) -> Result<Pipeline, Failure> {
        let shipped = Path::new(SHIPPED);
        let mut pipeline = match &self.pipeline {
            Some(named) => config::load(named)?,
            None if shipped.exists() => config::load(shipped)?,
            None => Pipeline::defaults("rider-alerts"),
        };
        if pipeline.gateway.key.is_none()
            && let Ok(key) = std::env::var(KEY_VARIABLE)
            && !key.trim().is_empty()
        {
            pipeline.gateway.key = Some(Secret::new(key));
        }
        if let Some(brokers) = self.brokers.as_deref().map(str::trim)
            && !brokers.is_empty()
        {
            pipeline.kafka.brokers = brokers.to_owned();
        }
        Ok(pipeline)
    }
}

impl From<KafkaError> for Failure {
    fn from(error: KafkaError) -> Self {
        match error {
            KafkaError::Unreachable { .. } => Self::Unreachable(error.to_string()),
            error => Self::Failed(error.into()),
        }
    }
}

impl From<ProducerError> for Failure {
    fn from(error: ProducerError) -> Self {
        match error {
            ProducerError::Kafka(error) => error.into(),
            error => Self::Failed(error.into()),
        }
    }
}
