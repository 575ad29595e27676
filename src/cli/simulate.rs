//! `riderflow simulate`.

use std::io::{self, IsTerminal, Write};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Failure, phones, signals, target::Target};
use crate::gateway::access_of;
use crate::kafka::producer::{self, Producer};
use crate::model::{Input, TimeMs};
use crate::simulate::phones::GatewayUrl;
use crate::simulate::{
    ByPhone, Counts, Limit, Pace, Plan, Progress, Road, RunError, Settings, Straight, Summary,
    What, run,
};

/// Moves a city of drivers along its streets, with orders and fences, into Kafka: straight, or
/// the positions of drivers with a phone through the gateway.
///
/// The same seed and numbers give the same city, to the byte; only the beginning is now. It
/// runs until its limit, SIGINT or SIGTERM, then removes the orders that are left. Every
/// second it tells how far it is, and when it can't keep the asked rate.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Drivers
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=50_000_000))]
    drivers: u32,
    /// Orders open at any time [default: three for ten drivers]
    #[arg(long, value_name = "N")]
    orders: Option<u32>,
    /// Fences that stand from the beginning
    #[arg(long, value_name = "N", default_value_t = 100)]
    fences: u32,
    /// Updates a second of all drivers together, or `max`: as fast as Kafka takes them, with
    /// the timestamps of a history that ends now [default: drivers / interval]
    #[arg(
        long,
        value_name = "N|max",
        conflicts_with = "interval_s",
        requires_if("max", "end")
    )]
    rate: Option<Rate>,
    /// Seconds between two updates of a driver [default: 1]
    #[arg(long, value_name = "S", value_parser = positive)]
    interval_s: Option<f64>,
    /// Stop after so many seconds; with `--rate max`, of the city's time
    #[arg(long, value_name = "S", value_parser = positive, group = "end")]
    duration: Option<f64>,
    /// Stop after so many updates
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), group = "end")]
    count: Option<u64>,
    /// The gateway, such as ws://127.0.0.1:8080: updates go through it, each driver's over a
    /// WebSocket of its own, orders and fences straight to Kafka. Tokens are made with
    /// RIDERFLOW_GATEWAY_KEY, which must be the gateway's
    #[arg(long, value_name = "URL")]
    gateway: Option<GatewayUrl>,
    /// With --gateway: only the first so many drivers have a phone, the others' updates go
    /// straight to Kafka [default: all]
    #[arg(long, value_name = "N", requires = "gateway", value_parser = clap::value_parser!(u32).range(1..))]
    phones: Option<u32>,
    /// Fixes every choice
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Leave the orders as they stand at the end
    #[arg(long)]
    keep_orders: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rate {
    PerSecond(f64),
    Max,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "max" => Ok(Self::Max),
            number => positive(number).map(Self::PerSecond),
        }
    }
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|n: &f64| n.is_finite() && *n > 0.0)
        .ok_or_else(|| "expected a number over 0".to_owned())
}

pub(super) fn execute(args: Args) -> Result<(), Failure> {
    let (plan, settings) = plan(&args, clock_ms())?;
    let pipeline = args.target.pipeline()?;
    let stop = signals::stop_requested()?;
    let producer = Producer::connect(&producer::Settings::new(&pipeline.kafka.brokers))?;
    let (drivers, orders, fences) = (plan.drivers, plan.orders, plan.fences);
    eprintln!(
        "simulating {drivers} drivers, {orders} orders and {fences} fences into {}",
        pipeline.kafka.brokers
    );
    let rewrite = io::stderr().is_terminal();
    let straight = Straight::new(&producer, &pipeline.routes, settings.pace)?;
    let stop = || stop.wait(Duration::ZERO);
    let road: Box<dyn Road + '_> = match args.gateway {
        None => Box::new(straight),
        Some(gateway) => {
            let access = access_of(&pipeline.gateway).map_err(anyhow::Error::from)?;
            let count = args.phones.unwrap_or(drivers).min(drivers);
            eprintln!("connecting {count} phones to {gateway}");
            let phones = phones::connect(gateway, count, access, &stop)?;
            eprintln!("{} of {count} phones are connected", phones.connected());
            Box::new(ByPhone::new(straight, phones))
        }
    };
    let summary = run(&*road, plan, &settings, &stop, |progress| {
        tell(progress, rewrite);
    });
    if rewrite {
        eprintln!();
    }
    let summary = summary?;
    if args.json {
        println!("{}", serde_json::json!(summary));
    } else {
        print!("{}", report(&summary));
    }
    Ok(())
}

/// The plan and pace that the options ask for.
fn plan(args: &Args, now_ms: TimeMs) -> Result<(Plan, Settings), Failure> {
    let orders = args
        .orders
        .unwrap_or(args.drivers / 10 * 3 + args.drivers % 10 * 3 / 10);
    let mut plan = Plan::new(args.drivers, orders, args.fences, args.seed, now_ms);
    match args.rate {
        Some(Rate::PerSecond(rate)) => plan = plan.with_rate(rate),
        _ => {
            let interval_s = args.interval_s.unwrap_or(1.0);
            plan.interval_us = ((interval_s * 1e6).round() as u64).max(1);
        }
    }
    let mut settings = Settings {
        limit: match (args.duration, args.count) {
            (Some(s), _) => Limit::CityTime(Duration::from_secs_f64(s)),
            (_, Some(count)) => Limit::Updates(count),
            _ => Limit::Never,
        },
        clear_up: !args.keep_orders,
        ..Settings::new()
    };
    if args.rate == Some(Rate::Max) {
        if args.gateway.is_some() {
            return Err(anyhow::anyhow!(
                "--rate max is a history, and the gateway takes only what happens now: leave \
                 out --gateway, or give a number"
            )
            .into());
        }
        settings.pace = Pace::Max;
        let length_s = match settings.limit {
            Limit::CityTime(time) => time.as_secs_f64(),
            // Silent phones make it take a little longer.
            Limit::Updates(count) => 1.03 * count as f64 / plan.rate_per_s(),
            Limit::Never => {
                return Err(anyhow::anyhow!(
                    "--rate max needs an end: add --count N or --duration S"
                )
                .into());
            }
        };
        // A history that ends now: its own timestamps are the past's.
        plan.start_ms -= (length_s * 1e3) as i64;
        plan.slice_ms = 100;
    }
    Ok((plan, settings))
}

fn clock_ms() -> TimeMs {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as TimeMs)
}

fn tell(progress: &Progress, rewrite: bool) {
    let mut line = format!(
        "{:.0} s: {} updates, {}/s",
        progress.elapsed_s,
        grouped(progress.updates),
        grouped(progress.rate_per_s.round() as u64),
    );
    if let Some(asked) = progress.asked_per_s {
        line += &format!(" of {}/s asked", grouped(asked.round() as u64));
    }
    if progress.is_behind() {
        line += &format!(
            "; warning: can't keep the asked rate: behind by {:.1} s",
            progress.behind_s
        );
    }
    if rewrite {
        eprint!("\r{line}\x1b[K");
        // A progress line that can't be shown is no reason to stop.
        let _ = io::stderr().flush();
    } else {
        eprintln!("{line}");
    }
}

fn report(summary: &Summary) -> String {
    let kinds = |counts: &Counts, input: Input| {
        let kinds: Vec<String> = What::ALL
            .into_iter()
            .filter(|what| what.input() == input && counts.of(*what) > 0)
            .map(|what| format!("{} {}", what.name(), grouped(counts.of(what))))
            .collect();
        kinds.join(", ")
    };
    let mut text = format!(
        "{} messages acknowledged in {:.1} s: {:.1} s of the city\n",
        grouped(summary.acked.total()),
        summary.elapsed_s,
        summary.city_s,
    );
    for input in [Input::Updates, Input::Orders, Input::Geofences] {
        text += &format!(
            "  {:<14}{:>12}  {}\n",
            input.topic(),
            grouped(summary.acked.input(input)),
            kinds(&summary.acked, input),
        );
    }
    if let Some(gateway) = &summary.gateway {
        text += &format!("  gateway: {}\n", phones::report(gateway));
    }
    let rate = grouped(summary.rate_per_s.round() as u64);
    text += &match summary.asked_per_s {
        None => format!("{rate} updates/s\n"),
        Some(asked) => {
            let asked = grouped(asked.round() as u64);
            let verdict = if summary.kept_rate {
                "kept"
            } else {
                "NOT kept"
            };
            format!(
                "{rate} updates/s of {asked}/s asked: {verdict}, at most {:.2} s behind\n",
                summary.most_behind_s
            )
        }
    };
    text
}

/// `1,234,567`
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Kafka(error) => error.into(),
            RunError::Producer(error) => error.into(),
            RunError::Phones(error) => error.into(),
            error => Self::Failed(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn planned(line: &str) -> Result<(Plan, Settings), String> {
        let words = std::iter::once("simulate").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        plan(&line.args, 1_790_000_000_000).map_err(|error| error.to_string())
    }

    #[test]
    fn options_make_a_plan() {
        let (plan, settings) = planned("").unwrap();
        assert_eq!((plan.drivers, plan.orders, plan.fences), (1_000, 300, 100));
        assert_eq!(plan.interval_us, 1_000_000);
        assert_eq!(
            (settings.pace, settings.limit),
            (Pace::RealTime, Limit::Never)
        );

        let (plan, _) = planned("--drivers 50 --rate 200").unwrap();
        assert_eq!((plan.orders, plan.interval_us), (15, 250_000));

        let (plan, settings) = planned("--drivers 10 --interval-s 5 --rate 2").map_or_else(
            |_| planned("--drivers 10 --interval-s 5 --duration 60").unwrap(),
            |_| panic!("two rates"),
        );
        assert_eq!(plan.interval_us, 5_000_000);
        assert_eq!(settings.limit, Limit::CityTime(Duration::from_secs(60)));
    }

    #[test]
    fn a_history_ends_now() {
        let (plan, settings) = planned("--rate max --count 60000").unwrap();
        assert_eq!(settings.pace, Pace::Max);
        assert_eq!(plan.start_ms, 1_790_000_000_000 - 61_800);
        let (plan, _) = planned("--rate max --duration 5").unwrap();
        assert_eq!(plan.start_ms, 1_790_000_000_000 - 5_000);
        assert!(planned("--rate max").unwrap_err().contains("--count <N>"));
    }

    #[test]
    fn senseless_options_are_refused() {
        for line in [
            "--drivers 0",
            "--rate 0",
            "--rate fast",
            "--interval-s -1",
            "--count 0",
            "--count 5 --duration 5",
            "--rate 5 --interval-s 1",
            "--phones 5",
            "--gateway http://localhost:8080",
            "--gateway wss://localhost:8080",
            "--gateway ws://localhost:8080 --phones 0",
            "--gateway ws://localhost:8080 --rate max --count 5",
        ] {
            assert!(planned(line).is_err(), "{line}");
        }
    }

    #[test]
    fn numbers_are_grouped() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345_678, "12,345,678"),
        ] {
            assert_eq!(grouped(n), text);
        }
    }
}
