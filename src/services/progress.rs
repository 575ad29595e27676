//! What a person waiting sees: spinners and bars on standard error, or plain lines where that
//! is no terminal, or nothing.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where progress goes.
#[derive(Clone)]
pub(super) struct Progress {
    bars: MultiProgress,
    mode: Mode,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Bars,
    Lines,
    Nothing,
}

impl Progress {
    /// Bars on a terminal, lines elsewhere, nothing if `quiet`.
    pub(super) fn new(quiet: bool) -> Self {
        let mode = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Mode::Nothing,
            (false, true) => Mode::Bars,
            (false, false) => Mode::Lines,
        };
        let bars = MultiProgress::with_draw_target(match mode {
            Mode::Bars => ProgressDrawTarget::stderr(),
            Mode::Lines | Mode::Nothing => ProgressDrawTarget::hidden(),
        });
        Self { bars, mode }
    }

    /// A task of unknown length.
    pub(super) fn task(&self, message: &str) -> Task<'_> {
        self.begin(
            message,
            ProgressBar::new_spinner(),
            "{spinner} {msg} ({elapsed})",
        )
    }

    /// A task of about `bytes` bytes.
    pub(super) fn bytes(&self, message: &str, bytes: u64) -> Task<'_> {
        let template = "{spinner} {msg} {bar:16} {decimal_bytes} of {decimal_total_bytes}";
        self.begin(message, ProgressBar::new(bytes), template)
    }

    fn begin(&self, message: &str, bar: ProgressBar, template: &str) -> Task<'_> {
        let bar = self.bars.add(bar);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(message.to_owned());
        if self.mode == Mode::Bars {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        if self.mode == Mode::Lines {
            eprintln!("{message}");
        }
        Task {
            progress: self,
            bar,
        }
    }
}

/// One line that moves until it is dropped or done.
pub(super) struct Task<'a> {
    progress: &'a Progress,
    bar: ProgressBar,
}

impl Task<'_> {
    /// How far a task of known length is.
    pub(super) fn at(&self, bytes: u64) {
        self.bar
            .set_position(bytes.min(self.bar.length().unwrap_or(bytes)));
    }

    /// Leaves `message` behind.
    pub(super) fn done(self, message: &str) {
        self.bar.finish_and_clear();
        match self.progress.mode {
            // If the terminal is gone there is nobody to tell.
            Mode::Bars => drop(self.progress.bars.println(message)),
            Mode::Lines => eprintln!("{message}"),
            Mode::Nothing => {}
        }
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
