//! What a gateway counts.

use std::ops::Deref;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::access::Refusal;
use super::intake::{End, RetryReason};
use crate::telemetry::{
    Counters, Exposition, Gauges, Histogram, Label, ProcessMemory, SECONDS, openmetrics,
};

/// Why a connection or a request was turned away at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// `gateway.connections` are open.
    Connections,
    /// `gateway.handshakes` have not sent a request yet.
    Handshakes,
    /// `gateway.address_connections` of its address are open.
    AddressConnections,
    /// More than `gateway.address_per_s` of its address.
    AddressRate,
    /// No TLS, or none that both sides speak.
    Tls,
    /// No whole request within `gateway.handshake_s`.
    Slow,
    /// More requests than one connection may make.
    Requests,
    /// An origin that is not allowed.
    Origin,
    /// A request with a body.
    Body,
    /// Its token.
    Token(Refusal),
}

impl Label for TurnedAway {
    const NAME: &'static str = "reason";
    const VALUES: &'static [Self] = &[
        Self::Connections,
        Self::Handshakes,
        Self::AddressConnections,
        Self::AddressRate,
        Self::Tls,
        Self::Slow,
        Self::Requests,
        Self::Origin,
        Self::Body,
        Self::Token(Refusal::Missing),
        Self::Token(Refusal::InQuery),
        Self::Token(Refusal::Ambiguous),
        Self::Token(Refusal::Malformed),
        Self::Token(Refusal::Algorithm),
        Self::Token(Refusal::UnknownKey),
        Self::Token(Refusal::Signature),
        Self::Token(Refusal::Expired),
        Self::Token(Refusal::NotYet),
        Self::Token(Refusal::Issuer),
        Self::Token(Refusal::Audience),
        Self::Token(Refusal::Claims),
        Self::Token(Refusal::Subject),
    ];
    fn text(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Handshakes => "handshakes",
            Self::AddressConnections => "address_connections",
            Self::AddressRate => "address_rate",
            Self::Tls => "tls",
            Self::Slow => "slow",
            Self::Requests => "requests",
            Self::Origin => "origin",
            Self::Body => "body",
            Self::Token(refusal) => refusal.as_str(),
        }
    }
}

/// What became of an update that a phone sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateOutcome {
    /// Taken, and on its way into Kafka.
    Accepted,
    /// Told to be bad.
    Refused,
    /// Told to come again later.
    Retried,
    /// Was there before, so it was only acknowledged.
    Resent,
    /// Came after one that was told to come again, and so comes again itself.
    OutOfTurn,
}

impl Label for UpdateOutcome {
    const NAME: &'static str = "outcome";
    const VALUES: &'static [Self] = &[
        Self::Accepted,
        Self::Refused,
        Self::Retried,
        Self::Resent,
        Self::OutOfTurn,
    ];
    fn text(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Retried => "retried",
            Self::Resent => "resent",
            Self::OutOfTurn => "out_of_turn",
        }
    }
}

/// Whom a live stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// A customer's.
    Order,
    /// A restaurant's.
    Place,
    /// Operations'.
    Fleet,
}

impl Label for StreamKind {
    const NAME: &'static str = "kind";
    const VALUES: &'static [Self] = &[Self::Order, Self::Place, Self::Fleet];
    fn text(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Place => "place",
            Self::Fleet => "fleet",
        }
    }
}

/// Every metric of a gateway, by field.
#[derive(Debug)]
pub struct GatewaySeries {
    /// `riderflow_gateway_connections`: open ones, of whatever kind.
    pub connections: Gauge,
    /// `riderflow_gateway_handshakes`: open ones whose first request has not come yet.
    pub handshakes: Gauge,
    /// `riderflow_gateway_sockets`: phones' WebSockets that are open.
    pub sockets: Gauge,
    /// `riderflow_gateway_streams{kind}`: live streams that are open.
    pub streams: Gauges<StreamKind>,
    /// `riderflow_gateway_turned_away_total{reason}`: connections and requests.
    pub turned_away: Counters<TurnedAway>,
    /// `riderflow_gateway_updates_total{outcome}`
    pub updates: Counters<UpdateOutcome>,
    /// `riderflow_gateway_retries_total{reason}`: times that a phone was told to come later.
    pub retries: Counters<RetryReason>,
    /// `riderflow_gateway_sockets_ended_total{end}`: phones' WebSockets, by why they ended.
    pub sockets_ended: Counters<End>,
    /// `riderflow_gateway_acks_total`: acknowledgements sent, each for any number of updates.
    pub acks: Counter,
    /// `riderflow_gateway_produced_total`: updates that Kafka has.
    pub produced: Counter,
    /// `riderflow_gateway_produce_seconds`: from taken to known to be in Kafka.
    pub produce_seconds: Histogram,
    /// `riderflow_gateway_buffered_updates`: those on their way into Kafka.
    pub buffered_updates: Gauge,
}

/// The metrics and their registry; a clone is another handle on the same ones.
#[derive(Clone, Debug)]
pub struct GatewayMetrics {
    series: Arc<GatewaySeries>,
    registry: Arc<Registry>,
}

impl Deref for GatewayMetrics {
    type Target = GatewaySeries;

    fn deref(&self) -> &GatewaySeries {
        &self.series
    }
}

impl Default for GatewayMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Exposition for GatewayMetrics {
    fn encode(&self) -> String {
        openmetrics(&self.registry)
    }
}

impl GatewayMetrics {
    /// All at 0.
    pub fn new() -> Self {
        let series = GatewaySeries {
            connections: Gauge::default(),
            handshakes: Gauge::default(),
            sockets: Gauge::default(),
            streams: Gauges::default(),
            turned_away: Counters::new(),
            updates: Counters::new(),
            retries: Counters::new(),
            sockets_ended: Counters::new(),
            acks: Counter::default(),
            produced: Counter::default(),
            produce_seconds: Histogram::new(SECONDS),
            buffered_updates: Gauge::default(),
        };
        Self {
            registry: Arc::new(register(&series)),
            series: Arc::new(series),
        }
    }
}

fn register(s: &GatewaySeries) -> Registry {
    let mut root = Registry::with_prefix("riderflow");
    let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    root.register("build", "The program's version", build);
    root.register_collector(Box::new(ProcessMemory));
    let registry = root.sub_registry_with_prefix("gateway");
    registry.register("connections", "Open connections", s.connections.clone());
    let help = "Open connections whose first request has not come yet";
    registry.register("handshakes", help, s.handshakes.clone());
    let help = "Phones' WebSockets that are open";
    registry.register("sockets", help, s.sockets.clone());
    registry.register("streams", "Live streams that are open", s.streams.clone());
    let help = "Connections and requests that were turned away";
    registry.register("turned_away", help, s.turned_away.clone());
    let help = "Updates that phones sent, by what became of them";
    registry.register("updates", help, s.updates.clone());
    let help = "Times that a phone was told to come again later";
    registry.register("retries", help, s.retries.clone());
    let help = "Phones' WebSockets, by why they ended";
    registry.register("sockets_ended", help, s.sockets_ended.clone());
    registry.register("acks", "Acknowledgements sent to phones", s.acks.clone());
    registry.register("produced", "Updates that Kafka has", s.produced.clone());
    let help = "From an update's arrival until it is known to be in Kafka";
    let seconds = s.produce_seconds.clone();
    registry.register_with_unit("produce", help, Unit::Seconds, seconds);
    let help = "Updates on their way into Kafka";
    let updates = Unit::Other("updates".into());
    let buffered = s.buffered_updates.clone();
    registry.register_with_unit("buffered", help, updates, buffered);
    root
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Held;

    /// The names are an interface: dashboards and alerts are written against them.
    #[test]
    fn every_metric_has_its_name_unit_and_labels() {
        let metrics = GatewayMetrics::new();
        let open = Held::of(metrics.connections.clone());
        let _socket = Held::of(metrics.sockets.clone());
        let _stream = metrics.streams.hold(StreamKind::Place);
        metrics
            .turned_away
            .add(TurnedAway::Token(Refusal::Expired), 2);
        metrics.updates.add(UpdateOutcome::Resent, 3);
        metrics.retries.add(RetryReason::KafkaBusy, 7);
        metrics.sockets_ended.add(End::TakenOver, 8);
        metrics.acks.inc_by(4);
        metrics.produced.inc_by(5);
        metrics.produce_seconds.observe(0.004);
        metrics.buffered_updates.set(6);
        drop(open);
        let text = metrics.encode();
        for line in [
            "riderflow_gateway_connections 0",
            "riderflow_gateway_handshakes 0",
            "riderflow_gateway_sockets 1",
            "riderflow_gateway_streams{kind=\"place\"} 1",
            "riderflow_gateway_streams{kind=\"fleet\"} 0",
            "riderflow_gateway_turned_away_total{reason=\"token_expired\"} 2",
            "riderflow_gateway_turned_away_total{reason=\"slow\"} 0",
            "riderflow_gateway_updates_total{outcome=\"resent\"} 3",
            "riderflow_gateway_retries_total{reason=\"kafka_busy\"} 7",
            "riderflow_gateway_sockets_ended_total{end=\"taken_over\"} 8",
            "riderflow_gateway_acks_total 4",
            "riderflow_gateway_produced_total 5",
            "riderflow_gateway_produce_seconds_count 1",
            "riderflow_gateway_buffered_updates 6",
        ] {
            assert!(text.contains(&format!("{line}\n")), "no {line} in\n{text}");
        }
        assert!(text.contains("riderflow_build_info{version="), "{text}");
        assert!(
            text.contains("riderflow_process_resident_memory_bytes "),
            "{text}"
        );
    }

    #[test]
    fn every_refusal_is_counted() {
        for refusal in Refusal::ALL {
            assert!(
                TurnedAway::VALUES.contains(&TurnedAway::Token(refusal)),
                "{refusal}"
            );
        }
    }
}
