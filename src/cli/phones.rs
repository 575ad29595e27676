//! What `simulate` and `demo` share: phones with tokens of the pipeline's own making.

use std::time::Duration;

use super::Failure;
use crate::gateway::access::{Access, Subject};
use crate::simulate::GatewaySummary;
use crate::simulate::phones::{GatewayUrl, Phones, PhonesError, Settings};

/// Connections opened a second, at first.
const CONNECTS_PER_S: u32 = 500;
/// How long a driver's token is good for; a phone that connects again gets a new one.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3_600);

/// Starts the phones of drivers 0 to `count` − 1, and waits until they are connected or `stop`
/// says true.
pub(super) fn connect(
    gateway: GatewayUrl,
    count: u32,
    access: Access,
    stop: &dyn Fn() -> bool,
) -> Result<Phones, Failure> {
    let mint = move |driver| access.mint(&Subject::Driver(driver), TOKEN_TTL);
    // Tried once here, where it can be told.
    mint(crate::model::DriverId(0)).map_err(anyhow::Error::from)?;
    let phones = Phones::start(Settings {
        gateway,
        phones: count,
        connects_per_s: CONNECTS_PER_S,
        // Without a token the gateway refuses the phone, which counts that.
        tokens: Box::new(move |driver| mint(driver).unwrap_or_default()),
    })?;
    phones.wait_until_connected(stop)?;
    Ok(phones)
}

/// What went through the gateway, in a few words.
pub(super) fn report(gateway: &GatewaySummary) -> String {
    let mut text = format!(
        "{} updates of {} phones over {} connections",
        gateway.acked, gateway.phones, gateway.connections
    );
    if let (Some(p50), Some(p99)) = (gateway.ack_p50_ms, gateway.ack_p99_ms) {
        text += &format!(", acknowledged within {p50:.0} ms (p50), {p99:.0} ms (p99)");
    }
    for (count, what, why) in [
        (gateway.faults, "lost connections", &gateway.last_fault),
        (gateway.refused, "refused", &gateway.last_refusal),
        (gateway.dropped, "dropped by full phones", &None),
        (gateway.retries, "times asked to try later", &None),
    ] {
        if count > 0 {
            text += &format!(", {count} {what}");
            if let Some(why) = why {
                text += &format!(" (last: {why})");
            }
        }
    }
    text
}

impl From<PhonesError> for Failure {
    fn from(error: PhonesError) -> Self {
        match error {
            PhonesError::Unreachable { .. } => Self::Unreachable(error.to_string()),
            error => Self::Failed(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_went_wrong_is_told() {
        let mut summary = GatewaySummary {
            phones: 2,
            connections: 2,
            faults: 0,
            last_fault: None,
            acked: 120,
            refused: 0,
            last_refusal: None,
            dropped: 0,
            retries: 0,
            ack_p50_ms: Some(4.2),
            ack_p99_ms: Some(19.9),
        };
        assert_eq!(
            report(&summary),
            "120 updates of 2 phones over 2 connections, acknowledged within 4 ms (p50), 20 ms (p99)"
        );
        summary.ack_p50_ms = None;
        summary.refused = 3;
        summary.last_refusal = Some("out_of_range of latitude".into());
        assert_eq!(
            report(&summary),
            "120 updates of 2 phones over 2 connections, 3 refused (last: out_of_range of latitude)"
        );
    }
}
