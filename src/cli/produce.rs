//! `riderflow produce`.

use std::io::{self, BufRead, IsTerminal, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;

use super::{Failure, target::Target};
use crate::kafka::producer::{Producer, ProducerError, Record, Settings};
use crate::kafka::routing::RouteTable;
use crate::model::{DriverId, Input, Position, TimeMs};
use crate::wire::{UpdateMessage, encode_update};

/// How long Kafka may take to acknowledge.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(30);

/// Reads lines and publishes each to its partition of rider-updates.
///
/// A line is `453 12.9716 77.5946 south` (driver, latitude, longitude, state), sent as a rider
/// update of this moment, or the two-word `tony south`, sent as
/// `{"name":"tony","location":"south"}`. The state's row in [routes] chooses the partition. A
/// line that is neither is reported and skipped; then the exit code is 1.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
}

pub(super) fn execute(args: Args) -> Result<(), Failure> {
    let pipeline = args.target.pipeline()?;
    let producer = Producer::connect(&Settings::new(&pipeline.kafka.brokers))?;
    let partitions = producer.partitions(Input::Updates.topic())?;
    let routes = RouteTable::new(&pipeline.routes, partitions)
        .map_err(|error| Failure::Failed(error.into()))?;

    let interactive = io::stdin().is_terminal();
    if interactive {
        eprintln!(
            "one message a line, as `453 12.9716 77.5946 south` (driver, latitude, longitude, \
             state) or `tony south`; Ctrl-D ends"
        );
    }
    let mut bad_lines = 0_u64;
    prompt(interactive);
    for (number, line) in io::stdin().lock().split(b'\n').enumerate() {
        let line = line.context("could not read standard input")?;
        match parse(&String::from_utf8_lossy(&line)) {
            Ok(None) => {}
            Ok(Some(message)) => {
                let partition = send(&producer, &routes, &message)?;
                if interactive {
                    producer.flush(ACKNOWLEDGED_WITHIN)?;
                    eprintln!("sent to {}[{partition}]", Input::Updates.topic());
                }
            }
            Err(fault) => {
                bad_lines += 1;
                eprintln!("line {}: {fault}", number + 1);
            }
        }
        prompt(interactive);
    }
    producer.flush(ACKNOWLEDGED_WITHIN)?;
    match bad_lines {
        0 => Ok(()),
        1 => Err(anyhow::anyhow!("1 line was not understood; the others were sent").into()),
        n => Err(anyhow::anyhow!("{n} lines were not understood; the others were sent").into()),
    }
}

fn prompt(interactive: bool) {
    if interactive {
        eprint!("> ");
        // A prompt that can't be shown is no reason to stop.
        let _ = io::stderr().flush();
    }
}

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
enum Message {
    /// `453 12.9716 77.5946 south`
    Update {
        driver: DriverId,
        position: Position,
        state: String,
    },
    /// `tony south`
    Named { name: String, location: String },
}

#[derive(Debug, PartialEq, thiserror::Error)]
enum Fault {
    #[error(
        "expected `driver latitude longitude state`, as in `453 12.9716 77.5946 south`, or \
         `name state`, as in `tony south`; found {} word{}", .0, if *.0 == 1 { "" } else { "s" }
    )]
    Words(usize),
    #[error("driver {0:?} is not an integer from 0 to 9223372036854775807")]
    Driver(String),
    #[error("{what} {text:?} is not a number from -{limit} to {limit}")]
    Degrees {
        what: &'static str,
        text: String,
        limit: u8,
    },
}

/// Understands a line; an empty one says nothing.
fn parse(line: &str) -> Result<Option<Message>, Fault> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        [] => Ok(None),
        [name, location] => Ok(Some(Message::Named {
            name: name.to_owned(),
            location: location.to_owned(),
        })),
        [driver, latitude, longitude, state] => Ok(Some(Message::Update {
            driver: parse_driver(driver)?,
            position: Position {
                latitude: parse_degrees("latitude", latitude, 90)?,
                longitude: parse_degrees("longitude", longitude, 180)?,
            },
            state: state.to_owned(),
        })),
        _ => Err(Fault::Words(words.len())),
    }
}

fn parse_driver(text: &str) -> Result<DriverId, Fault> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok().filter(|&id| id <= i64::MAX as u64))
        .flatten()
        .map(DriverId)
        .ok_or_else(|| Fault::Driver(text.to_owned()))
}

fn parse_degrees(what: &'static str, text: &str, limit: u8) -> Result<f64, Fault> {
    text.parse()
        .ok()
        .filter(|degrees: &f64| degrees.abs() <= f64::from(limit))
        .ok_or_else(|| Fault::Degrees {
            what,
            text: text.to_owned(),
            limit,
        })
}

impl Message {
    fn key(&self) -> String {
        match self {
            Self::Update { driver, .. } => driver.to_string(),
            Self::Named { name, .. } => name.clone(),
        }
    }

    fn state(&self) -> &str {
        match self {
            Self::Update { state, .. } => state,
            Self::Named { location, .. } => location,
        }
    }

    fn value(&self, now_ms: TimeMs) -> Vec<u8> {
        match self {
            Self::Update {
                driver,
                position,
                state,
            } => {
                let mut value = Vec::new();
                let message = UpdateMessage {
                    driver: *driver,
                    position: *position,
                    state: Some(state),
                    timestamp_ms: Some(now_ms),
                    accuracy_m: None,
                    speed_mps: None,
                    heading_deg: None,
                };
                encode_update(&message, &mut value);
                value
            }
            Self::Named { name, location } => {
                let text = |text: &str| serde_json::Value::from(text).to_string();
                format!(r#"{{"name":{},"location":{}}}"#, text(name), text(location)).into_bytes()
            }
        }
    }
}

fn send(producer: &Producer, routes: &RouteTable, message: &Message) -> Result<i32, ProducerError> {
    let key = message.key();
    let partition = routes.partition_for(Some(message.state()), key.as_bytes());
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as TimeMs);
    producer.send(Record {
        topic: Input::Updates.topic(),
        partition: Some(partition),
        timestamp_ms: Some(now_ms),
        key: Some(key.as_bytes()),
        value: Some(&message.value(now_ms)),
        tag: 0,
    })?;
    Ok(partition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_messages() {
        let now_ms = 1_790_000_000_123;
        for (line, key, state, value) in [
            (
                "453 12.9716 77.5946 south",
                "453",
                "south",
                r#"{"driverId":453,"longitude":77.5946,"latitude":12.9716,"state":"south","timestamp":1790000000123}"#,
            ),
            (
                "  0007\t-90 1.8e2  no\"rth\r",
                "7",
                "no\"rth",
                r#"{"driverId":7,"longitude":180.0,"latitude":-90.0,"state":"no\"rth","timestamp":1790000000123}"#,
            ),
            (
                "9223372036854775807 1 2 x",
                "9223372036854775807",
                "x",
                r#"{"driverId":9223372036854775807,"longitude":2.0,"latitude":1.0,"state":"x","timestamp":1790000000123}"#,
            ),
            (
                "tony south",
                "tony",
                "south",
                r#"{"name":"tony","location":"south"}"#,
            ),
            (
                "zoë\\ north",
                "zoë\\",
                "north",
                r#"{"name":"zoë\\","location":"north"}"#,
            ),
        ] {
            let message = parse(line).unwrap().unwrap();
            assert_eq!(message.key(), key);
            assert_eq!(message.state(), state);
            let bytes = message.value(now_ms);
            assert_eq!(String::from_utf8(bytes.clone()).unwrap(), value);
            serde_json::from_slice::<serde_json::Value>(&bytes).unwrap();
        }
        assert_eq!(parse("").unwrap(), None);
        assert_eq!(parse(" \t\r").unwrap(), None);
    }

    #[test]
    fn bad_lines_say_what_is_wrong() {
        for (line, fault) in [
            ("tony", "found 1 word"),
            ("453 12.9 77.5", "found 3 words"),
            ("453 12.9 77.5 south east", "found 5 words"),
            ("tony 12.9 77.5 south", "driver \"tony\" is not an integer"),
            ("-1 12.9 77.5 south", "driver \"-1\""),
            ("+1 12.9 77.5 south", "driver \"+1\""),
            (
                "9223372036854775808 1 2 x",
                "driver \"9223372036854775808\"",
            ),
            (
                "453 91 77.5 south",
                "latitude \"91\" is not a number from -90 to 90",
            ),
            (
                "453 12.9 181 south",
                "longitude \"181\" is not a number from -180 to 180",
            ),
            ("453 NaN 77.5 south", "latitude \"NaN\""),
            ("453 12,9 77.5 south", "latitude \"12,9\""),
            ("453 12.9 inf south", "longitude \"inf\""),
        ] {
            let told = parse(line).unwrap_err().to_string();
            assert!(told.contains(fault), "{line}: {told}");
        }
    }
}
