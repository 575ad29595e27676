//! `riderflow state`: how far a pipeline has come, whether or not its job runs.

use std::fmt::{self, Write};

use anyhow::Context as _;

use super::Failure;
use super::init::topic_failure;
use crate::config;
use crate::runtime::{Phase, Readable, SnapshotState, Survey, SurveyError, survey};
use crate::wire::rfc3339;

/// Says how far a pipeline has come, what each sink has, and what a restart would do.
///
/// Works whether or not the job runs, and changes nothing.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The pipeline file
    pipeline: std::path::PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: Args) -> Result<(), Failure> {
    let pipeline = config::load(&args.pipeline)?;
    let survey = survey(&pipeline)?;
    let text = if args.json {
        let json = serde_json::to_string(&survey).context("could not print the state")?;
        format!("{json}\n")
    } else {
        text(&survey).context("could not print the state")?
    };
    super::print(&text)
}

impl From<SurveyError> for Failure {
    fn from(error: SurveyError) -> Self {
        match error {
            SurveyError::Kafka(error) => error.into(),
            SurveyError::Topics(error) => topic_failure(error),
        }
    }
}

fn text(survey: &Survey) -> Result<String, fmt::Error> {
    let mut out = String::new();
    let jobs: Vec<String> = survey.jobs.iter().map(ToString::to_string).collect();
    let runs = match &jobs[..] {
        [] => "no job runs".into(),
        jobs => format!("a job runs ({})", jobs.join(", ")),
    };
    writeln!(out, "pipeline {}: {runs}", survey.pipeline)?;
    match survey.phase {
        Phase::New => writeln!(out, "  it was never started")?,
        Phase::Reset => writeln!(out, "  it was reset, and not started since")?,
        Phase::Started => {
            let version = survey.version.as_deref().unwrap_or("(unknown)");
            writeln!(out, "  start {}, riderflow {version}", survey.generation)?;
        }
    }
    if let Some(committed) = &survey.committed {
        let (epoch, age) = (committed.epoch.0, span(committed.age_s));
        let time = rfc3339(committed.now_ms);
        writeln!(out, "  newest committed epoch {epoch} of {time}, {age} ago")?;
    }
    inputs(&mut out, survey)?;
    snapshots(&mut out, survey)?;
    sinks(&mut out, survey)?;
    restart(&mut out, survey)?;
    if !survey.problems.is_empty() {
        writeln!(out, "\nproblems")?;
        for problem in &survey.problems {
            writeln!(out, "  {problem}")?;
        }
    }
    Ok(out)
}

fn inputs(out: &mut String, survey: &Survey) -> fmt::Result {
    writeln!(
        out,
        "\n{:<20} {:>12} {:>12} {:>12} {:>10} {:>12}",
        "input", "next", "first held", "end", "lag", "group"
    )?;
    let number = |value: Option<i64>| value.map_or("-".into(), |value| value.to_string());
    for input in &survey.inputs {
        writeln!(
            out,
            "{:<20} {:>12} {:>12} {:>12} {:>10} {:>12}",
            format!("{}[{}]", input.topic, input.partition),
            number(input.next),
            input.first,
            input.end,
            input.lag,
            number(input.group_offset)
        )?;
    }
    Ok(())
}

fn snapshots(out: &mut String, survey: &Survey) -> fmt::Result {
    writeln!(out, "\nsnapshots at {}", survey.snapshots_url)?;
    let is_unused = |state: &&SnapshotState| state.readable == Readable::Unused;
    for state in survey.snapshots.iter().filter(|state| !is_unused(state)) {
        let readable = match state.readable {
            Readable::Good => "readable",
            Readable::Damaged => "damaged",
            Readable::Missing => "missing",
            Readable::NewerFormat => "of a newer format",
            Readable::Unreachable => "could not be read",
            Readable::Unused => "unused",
        };
        write!(out, "  epoch {}: {readable}", state.epoch.0)?;
        if let (Some(age_s), Some(bytes), Some(chain)) =
            (state.age_s, state.bytes, state.chain_bytes)
        {
            let (age, bytes, chain) = (span(age_s), size(bytes), size(chain));
            write!(out, ", {age} old, {bytes}, {chain} with those it builds on")?;
        }
        writeln!(out)?;
    }
    match survey.snapshots.iter().filter(is_unused).count() {
        0 if survey.snapshots.is_empty() => writeln!(out, "  none"),
        0 => Ok(()),
        unused => writeln!(out, "  and {unused} that the log does not name"),
    }
}

fn sinks(out: &mut String, survey: &Survey) -> fmt::Result {
    writeln!(out, "\nsinks")?;
    match &survey.committed {
        Some(committed) => writeln!(out, "  Kafka: epoch {}", committed.epoch.0)?,
        None => writeln!(out, "  Kafka: nothing yet")?,
    }
    let clickhouse = &survey.clickhouse;
    if !clickhouse.enabled {
        return writeln!(out, "  ClickHouse: not in use");
    }
    let answers = match clickhouse.answers {
        Some(false) => " (does not answer)",
        _ => "",
    };
    if survey.committed.is_none() {
        return writeln!(out, "  ClickHouse{answers}: nothing yet");
    }
    let stored = clickhouse.stored.0;
    write!(out, "  ClickHouse{answers}: all rows up to epoch {stored}")?;
    if clickhouse.epochs_behind > 0 {
        write!(
            out,
            ", {} epochs behind ({}, {} records)",
            clickhouse.epochs_behind,
            span(clickhouse.seconds_behind),
            clickhouse.records_behind
        )?;
    }
    writeln!(out)
}

fn restart(out: &mut String, survey: &Survey) -> fmt::Result {
    let restart = &survey.restart;
    if !restart.possible {
        writeln!(out, "\na restart would fail: see the problems")?;
    } else {
        writeln!(out, "\na restart would")?;
    }
    let Some(epoch) = restart.snapshot_epoch else {
        if restart.possible {
            writeln!(out, "  begin with the oldest records that Kafka holds")?;
        }
        return Ok(());
    };
    writeln!(
        out,
        "  go on from the snapshot of epoch {} ({})",
        epoch.0,
        size(restart.state_bytes)
    )?;
    writeln!(
        out,
        "  read {} committed epochs with {} records again",
        restart.epochs, restart.records
    )?;
    if let Some(epoch) = restart.rows_from_epoch {
        writeln!(
            out,
            "  compute rows that ClickHouse lacks again, from the snapshot of epoch {}",
            epoch.0
        )?;
    }
    for need in &restart.needs {
        let (topic, partition, from) = (need.topic, need.partition, need.from);
        write!(out, "  need {topic}[{partition}] from offset {from}: ")?;
        match need.margin {
            margin if margin < 0 => write!(out, "{} records of it are gone", -margin)?,
            margin => write!(out, "held, with {margin} records before it")?,
        }
        if let Some(kept_for_s) = need.kept_for_s {
            match kept_for_s {
                s if s < 0.0 => write!(out, "; Kafka may remove it any time")?,
                s => write!(out, "; kept for {} more at least", span(s))?,
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Seconds as people say them.
fn span(seconds: f64) -> String {
    let whole = seconds.abs().round() as u64;
    let text = match whole {
        0..120 => format!("{:.1} s", seconds.abs()),
        120..7_200 => format!("{} min", whole / 60),
        7_200..172_800 => format!("{} h {} min", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{} days", whole / 86_400),
    };
    if seconds <= -0.05 {
        format!("-{text}")
    } else {
        text
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_as_people_say_them() {
        let spans = [0.04, 1.25, 119.4, 120.0, 7_199.0, 7_260.0, 172_800.0, -3.0].map(span);
        let expected = [
            "0.0 s",
            "1.2 s",
            "119.4 s",
            "2 min",
            "119 min",
            "2 h 1 min",
            "2 days",
            "-3.0 s",
        ];
        assert_eq!(spans, expected);
        let sizes = [0, 999, 1_000, 1_250_000, 3_000_000_000].map(size);
        assert_eq!(
            sizes,
            ["0 bytes", "999 bytes", "1.0 kB", "1.2 MB", "3.0 GB"]
        );
    }
}
