//! What a bench must hold.

/// Says of each bar whether it held, and remembers if one did not.
#[derive(Default)]
pub struct Bars {
    missed: usize,
}

impl Bars {
    /// `value` must lie within `bar`, both in the unit that `what` names.
    pub fn hold(&mut self, what: &str, value: f64, bar: impl std::ops::RangeBounds<f64>) {
        let (verdict, missed) = if bar.contains(&value) {
            ("held", 0)
        } else {
            ("MISSED", 1)
        };
        self.missed += missed;
        let bound = |bound| match bound {
            std::ops::Bound::Included(&number) | std::ops::Bound::Excluded(&number) => number,
            std::ops::Bound::Unbounded => f64::NAN,
        };
        let (least, most) = (bound(bar.start_bound()), bound(bar.end_bound()));
        let range = match (least.is_nan(), most.is_nan()) {
            (true, _) => format!("at most {most}"),
            (false, true) => format!("at least {least}"),
            (false, false) => format!("{least} to {most}"),
        };
        println!("  {verdict}: {what}: {value:.2}, {range}");
    }

    /// The exit code: failure if a bar was missed, unless it is `only_print`.
    pub fn finish(self, only_print: bool) -> std::process::ExitCode {
        if self.missed == 0 || only_print {
            std::process::ExitCode::SUCCESS
        } else {
            println!("{} bars were missed", self.missed);
            std::process::ExitCode::FAILURE
        }
    }
}
