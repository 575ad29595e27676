//! `riderflow token`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use super::Failure;
use crate::config;
use crate::gateway::{Subject, access_of};

/// The longest that a token may be good for.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3_600);

/// Prints a token for a gateway of this pipeline, signed with RIDERFLOW_GATEWAY_KEY.
///
/// It is for development: in production whoever knows the drivers and customers issues them.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The pipeline file
    pub(super) pipeline: PathBuf,
    /// What it opens: `driver/453` (sends this driver's positions), `order/o-1` (follows this
    /// order), `place/restaurant-9` (sees its orders) or `fleet` (sees everybody)
    subject: Subject,
    /// For how long it is good: a number and s, m, h or d
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = duration)]
    lifetime: Duration,
}

pub(super) fn execute(args: Args) -> Result<(), Failure> {
    let pipeline = config::load(&args.pipeline)?;
    let access = access_of(&pipeline.gateway).map_err(Failure::Access)?;
    let token = access.mint(&args.subject, args.lifetime);
    let token = token.with_context(|| format!("no token for {}", args.subject))?;
    super::print(&format!("{token}\n"))
}

/// `90s`, `15m`, `1h`, `30d`.
fn duration(text: &str) -> Result<Duration, String> {
    let help = "write a whole number and s, m, h or d, such as 90s, 15m, 1h or 30d";
    let (number, unit_s) = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)]
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))
        .ok_or(help)?;
    let number: u64 = number.parse().map_err(|_| help)?;
    let lifetime = number.checked_mul(unit_s).map(Duration::from_secs);
    lifetime
        .filter(|lifetime| !lifetime.is_zero() && *lifetime <= LONGEST)
        .ok_or_else(|| "it must be 1s to 366d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_has_a_unit() {
        for (text, seconds) in [
            ("90s", 90),
            ("15m", 900),
            ("1h", 3_600),
            ("366d", 31_622_400),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "1",
            "h",
            "-1h",
            "1.5h",
            "1 h",
            "1w",
            "0s",
            "367d",
            "99999999999999999999d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
