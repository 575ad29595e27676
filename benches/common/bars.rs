//! What a bench must hold.

use std::ops::{Bound, RangeBounds};
use std::process::ExitCode;

/// Says of each bar whether it held, and remembers if one did not.
#[derive(Default)]
pub struct Bars {
    missed: usize,
}

impl Bars {
    /// `value` must lie within `bar`, both in the unit that `what` names.
    pub fn hold(&mut self, what: &str, value: f64, bar: impl RangeBounds<f64>) {
        let (verdict, missed) = if bar.contains(&value) {
            ("held", 0)
        } else {
            ("MISSED", 1)
        };
        self.missed += missed;
        let number = |bound: Bound<&f64>| match bound {
            Bound::Included(&number) | Bound::Excluded(&number) => Some(number),
            Bound::Unbounded => None,
        };
        let range = match (number(bar.start_bound()), number(bar.end_bound())) {
            (Some(least), Some(most)) => format!("{least} to {most}"),
            (Some(least), None) => format!("at least {least}"),
            (None, most) => format!("at most {}", most.unwrap_or(f64::INFINITY)),
        };
        println!("  {verdict}: {what}: {value:.2}, {range}");
    }

    /// The exit code: failure if a bar was missed, unless it is `only_print`.
    pub fn finish(self, only_print: bool) -> ExitCode {
        if self.missed == 0 || only_print {
            ExitCode::SUCCESS
        } else {
            println!("{} bars were missed", self.missed);
            ExitCode::FAILURE
        }
    }
}
