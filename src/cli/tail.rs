//! `riderflow tail`.

use std::io::{self, Write};
use std::time::Duration;

use super::{Failure, signals, target::Target};
use crate::kafka::group::{Member, Seen, Settings};
use crate::model::Input;

/// Joins a consumer group and prints what it receives, one line a message, until SIGINT or
/// SIGTERM.
///
/// `GROUP: [rider-updates]: PART:0: {…}`. Several in one group share the partitions; who has
/// which is told on standard error.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The consumer group
    group: String,
    #[command(flatten)]
    target: Target,
    /// The topic
    #[arg(long, default_value = Input::Updates.topic())]
    topic: String,
    /// Begin at the first message if the group has read nothing yet, instead of at the next
    #[arg(long)]
    from_beginning: bool,
}

pub(super) fn execute(args: Args) -> Result<(), Failure> {
    let stop = signals::stop_requested()?;
    let member = Member::join(&Settings {
        brokers: args.target.pipeline()?.kafka.brokers,
        group: args.group.clone(),
        topic: args.topic.clone(),
        from_beginning: args.from_beginning,
    })?;
    let mut out = io::stdout().lock();
    let mut line = Vec::new();
    while !stop.wait(Duration::ZERO) {
        let mut wrote = Ok(());
        member.poll(Duration::from_millis(100), |seen| match seen {
            Seen::Record {
                topic,
                partition,
                value,
            } => {
                line.clear();
                write_line(&args.group, topic, partition, value, &mut line);
                wrote = out.write_all(&line).and_then(|()| out.flush());
            }
            Seen::Rebalanced { given, partitions } => {
                eprintln!("{}", describe(&args.group, &args.topic, given, &partitions));
            }
        })?;
        match wrote {
            Ok(()) => {}
            // `riderflow tail … | head`
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => {
                let context = "could not write to standard output";
                return Err(anyhow::Error::new(error).context(context).into());
            }
        }
    }
    // Leaving the group commits what has been printed.
    drop(member);
    Ok(())
}

/// Writes `GROUP: [TOPIC]: PART:N: VALUE` and a line's end; line breaks within the value, which
/// JSON allows between tokens, become spaces.
fn write_line(group: &str, topic: &str, partition: i32, value: Option<&[u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{group}: [{topic}]: PART:{partition}: ").as_bytes());
    match value {
        None => out.extend_from_slice(b"null"),
        Some(value) => out.extend(value.iter().map(|&byte| match byte {
            b'\n' | b'\r' => b' ',
            byte => byte,
        })),
    }
    out.push(b'\n');
}

fn describe(group: &str, topic: &str, given: bool, partitions: &[i32]) -> String {
    let list: Vec<String> = partitions.iter().map(i32::to_string).collect();
    match (given, partitions) {
        (true, []) => format!("{group}: others in the group read all of {topic}; waiting"),
        (true, _) => format!("{group}: reading {topic} {}", list.join(", ")),
        (false, _) => format!("{group}: gave up {topic} {}", list.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_of_the_classic_form() {
        for (value, line) in [
            (
                Some(&br#"{"name":"tony","location":"south"}"#[..]),
                "g: [rider-updates]: PART:0: {\"name\":\"tony\",\"location\":\"south\"}\n",
            ),
            (Some(b"{\r\n}"), "g: [rider-updates]: PART:0: {  }\n"),
            (Some(b""), "g: [rider-updates]: PART:0: \n"),
            (None, "g: [rider-updates]: PART:0: null\n"),
        ] {
            let mut out = Vec::new();
            write_line("g", "rider-updates", 0, value, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), line);
        }
    }

    #[test]
    fn a_rebalance_is_told() {
        assert_eq!(describe("g", "t", true, &[0, 1]), "g: reading t 0, 1");
        assert_eq!(describe("g", "t", false, &[1]), "g: gave up t 1");
        assert!(describe("g", "t", true, &[]).contains("waiting"));
    }
}
