//! What was sent, told and stored, by the account of those who have it: the producer's
//! acknowledgements, the broker's committed records, the database's rows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context, anyhow};
use serde_json::Value;

use super::super::phones;
use super::{Failure, server};
use crate::clickhouse::ask;
use crate::config::Pipeline;
use crate::kafka::{self, PastRecord, read_to_end};
use crate::model::Input;
use crate::simulate::{self, GatewaySummary};

/// Two questions that an analyst would ask.
const QUERIES: [(&str, &str); 2] = [
    (
        "How long after the driver came near was an order delivered?",
        "WITH deliveries AS (\n\
        \x20 SELECT order_id,\n\
        \x20   minIf(event_time, type = 'agent.near' AND JSONExtractString(data, 'leg') = 'dropoff') AS near,\n\
        \x20   minIf(event_time, type = 'order.delivered') AS delivered\n\
        \x20 FROM riderflow.events WHERE order_id != ''\n\
        \x20 GROUP BY order_id HAVING countIf(type = 'order.delivered') > 0 AND\n\
        \x20   countIf(type = 'agent.near' AND JSONExtractString(data, 'leg') = 'dropoff') > 0)\n\
         SELECT count() AS orders,\n\
        \x20 round(quantile(0.5)(dateDiff('millisecond', near, delivered)) / 1000, 1) AS median_s,\n\
        \x20 round(quantile(0.9)(dateDiff('millisecond', near, delivered)) / 1000, 1) AS p90_s\n\
         FROM deliveries",
    ),
    (
        "Where is the city busiest, and how fast does it move there?",
        "SELECT h3ToString(h3ToParent(h3, 7)) AS cell, uniq(driver_id) AS drivers,\n\
        \x20 count() AS updates, round(avg(speed), 1) AS mean_speed_mps\n\
         FROM riderflow.driver_locations WHERE flag IN ('ok', 'late')\n\
         GROUP BY cell ORDER BY updates DESC, cell LIMIT 5",
    ),
];

pub(super) struct Summary {
    checks: Vec<Check>,
    sent: Vec<(&'static str, u64)>,
    events: BTreeMap<String, u64>,
    dead_letters: u64,
    examples: Vec<Value>,
    answers: Vec<(&'static str, &'static str, String)>,
    p99_s: Option<f64>,
    kept_rate: bool,
    gateway: Option<GatewaySummary>,
}

/// Counts that must be equal, each with who says so.
struct Check {
    what: &'static str,
    counts: Vec<(&'static str, u64)>,
}

impl Check {
    fn agrees(&self) -> bool {
        self.counts
            .iter()
            .all(|(_, count)| *count == self.counts[0].1)
    }
}

impl Summary {
    pub(super) fn gather(
        pipeline: &Pipeline,
        sent: &simulate::Summary,
        p99_s: Option<f64>,
    ) -> Result<Self, Failure> {
        let count = |sql: &str| -> Result<u64, Failure> {
            let text = ask(&server(pipeline), sql, "TSV").map_err(anyhow::Error::from)?;
            Ok(text
                .trim()
                .parse()
                .with_context(|| format!("{sql} answered {text:?}"))?)
        };
        let in_kafka =
            |topic: &str, visit: &mut dyn FnMut(PastRecord<'_>)| -> Result<u64, Failure> {
                let mut records = 0;
                read_to_end(&pipeline.kafka.brokers, topic, None, &mut |record| {
                    records += 1;
                    visit(record);
                })
                .map_err(anyhow::Error::from)?;
                Ok(records)
            };

        let mut kinds = BTreeSet::new();
        let mut examples = Vec::new();
        let events = in_kafka(kafka::NOTIFICATIONS, &mut |record| {
            let bytes = record.value.unwrap_or_default();
            let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
            let shape: Vec<&str> = value
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, _)| key.as_str())
                .collect();
            // One of each shape, which is one of each family of types.
            if examples.len() < 4 && kinds.insert(shape.join(",")) {
                examples.push(value);
            }
        })?;
        let mut by_gateway = 0;
        let updates = in_kafka(Input::Updates.topic(), &mut |record| {
            by_gateway += u64::from(record.is_numbered());
        })?;
        let letters = in_kafka(kafka::DEAD_LETTERS, &mut |_| {})?;

        let rows = count("SELECT count() FROM riderflow.driver_locations")?;
        let distinct_rows = count(
            "SELECT uniqExact(kafka_partition, kafka_offset) FROM riderflow.driver_locations",
        )?;
        let refused =
            count("SELECT count() FROM riderflow.rejected_updates WHERE topic = 'rider-updates'")?;
        let mut checks = vec![
            Check {
                what: "updates",
                counts: vec![
                    ("acknowledged to the city", sent.acked.input(Input::Updates)),
                    ("records in rider-updates", updates),
                    ("rows stored or refused", rows + refused),
                    ("distinct rows stored or refused", distinct_rows + refused),
                ],
            },
            Check {
                what: "events",
                counts: vec![
                    ("committed in rider-notifications", events),
                    (
                        "rows in events",
                        count("SELECT count() FROM riderflow.events")?,
                    ),
                    (
                        "distinct ids",
                        count("SELECT uniqExact(id) FROM riderflow.events")?,
                    ),
                ],
            },
            Check {
                what: "dead letters",
                counts: vec![
                    ("committed in rider-updates-dead-letter", letters),
                    (
                        "rows stored",
                        count("SELECT count() FROM riderflow.rejected_updates")?,
                    ),
                ],
            },
        ];

        if let Some(gateway) = &sent.gateway {
            checks.push(Check {
                what: "updates through the gateway",
                counts: vec![
                    ("acknowledged to the phones", gateway.acked),
                    ("records in rider-updates with a number", by_gateway),
                ],
            });
        }

        let by_type = ask(
            &server(pipeline),
            "SELECT type, count() FROM riderflow.events GROUP BY type",
            "TSV",
        )
        .map_err(anyhow::Error::from)?;
        let events = by_type
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(kind, count)| (kind.to_owned(), count.parse().unwrap_or(0)))
            .collect();
        let mut answers = Vec::new();
        for (question, sql) in QUERIES {
            let answer = ask(&server(pipeline), sql, "PrettyCompactNoEscapes")
                .map_err(anyhow::Error::from)?;
            answers.push((question, sql, answer));
        }
        Ok(Self {
            checks,
            sent: Input::ALL
                .iter()
                .map(|&i| (i.topic(), sent.acked.input(i)))
                .collect(),
            events,
            dead_letters: letters,
            examples,
            answers,
            p99_s,
            kept_rate: sent.kept_rate,
            gateway: sent.gateway.clone(),
        })
    }

    /// Whether all counts agree.
    pub(super) fn verdict(&self) -> anyhow::Result<()> {
        let wrong: Vec<&str> = self
            .checks
            .iter()
            .filter(|check| !check.agrees())
            .map(|check| check.what)
            .collect();
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(anyhow!("the counts of {} disagree", wrong.join(" and ")))
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sent")?;
        for (topic, count) in &self.sent {
            writeln!(f, "  {topic:<24} {count:>10}")?;
        }
        if let Some(gateway) = &self.gateway {
            writeln!(f, "  gateway: {}", phones::report(gateway))?;
        }
        if !self.kept_rate {
            writeln!(f, "  (the city could not keep its rate on this machine)")?;
        }
        writeln!(f, "told")?;
        for (kind, count) in &self.events {
            writeln!(f, "  {kind:<24} {count:>10}")?;
        }
        writeln!(f, "  {:<24} {:>10}", "dead letters", self.dead_letters)?;
        if let Some(p99_s) = self.p99_s {
            writeln!(
                f,
                "  p99 from Kafka timestamp to commit: {:.0} ms",
                p99_s * 1000.0
            )?;
        }
        writeln!(f, "counts")?;
        for check in &self.checks {
            let agree = if check.agrees() { "agree" } else { "DISAGREE" };
            writeln!(f, "  {}: {agree}", check.what)?;
            for (who, count) in &check.counts {
                writeln!(f, "    {who:<40} {count:>10}")?;
            }
        }
        writeln!(f, "some events")?;
        for example in &self.examples {
            writeln!(f, "  {example}")?;
        }
        for (question, sql, answer) in &self.answers {
            writeln!(f, "\n{question}\n")?;
            for line in sql.lines() {
                writeln!(f, "  {line}")?;
            }
            writeln!(f, "\n{}", answer.trim_end())?;
        }
        Ok(())
    }
}
