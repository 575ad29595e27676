//! Where windows begin and end, and which of them still hear of updates.
//!
//! Event time is cut into panes of one hop. A tumbling window is one pane; a hopping one is
//! several, and each pane belongs to as many windows.

use super::Settings;
use crate::model::{Epoch, TimeMs};

/// The number of a pane: its start divided by its length.
pub(super) type Pane = i64;

/// Windows that overlap by whole panes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pane_ms: TimeMs,
    /// Panes in a window.
    panes: i64,
    horizon_ms: TimeMs,
    known_from_ms: TimeMs,
    pub(super) gap_ms: TimeMs,
    pub(super) interval_ms: u64,
}

impl Grid {
    pub(super) fn new(settings: &Settings, interval_ms: u64) -> Self {
        let pane_ms = settings.hop_ms.max(1);
        Self {
            pane_ms,
            panes: (settings.size_ms / pane_ms).max(1),
            horizon_ms: settings.horizon_ms,
            known_from_ms: settings.known_from_ms,
            gap_ms: settings.session_gap_ms,
            interval_ms,
        }
    }

    pub(super) fn now_ms(&self, epoch: Epoch) -> TimeMs {
        epoch.now_ms(self.interval_ms)
    }

    /// The pane of an event time.
    pub(super) fn pane(&self, at_ms: TimeMs) -> Pane {
        at_ms.div_euclid(self.pane_ms)
    }

    /// When a pane, or the window that begins with it, starts.
    pub(super) fn start_ms(&self, pane: Pane) -> TimeMs {
        pane * self.pane_ms
    }

    /// The first panes of the windows that a pane belongs to.
    pub(super) fn windows(&self, pane: Pane) -> std::ops::RangeInclusive<Pane> {
        pane - self.panes + 1..=pane
    }

    /// The panes of the window that begins with this one.
    pub(super) fn panes(&self, window: Pane) -> std::ops::Range<Pane> {
        window..window + self.panes
    }

    /// The first pane that updates still count for: the one in which the horizon lies.
    pub(super) fn first_open(&self, now_ms: TimeMs) -> Pane {
        let known = self.known_from_ms.saturating_add(self.pane_ms - 1);
        self.pane(now_ms - self.horizon_ms).max(self.pane(known))
    }

    /// Whether all of a window can be known.
    pub(super) fn is_known(&self, window: Pane) -> bool {
        self.start_ms(window) >= self.known_from_ms
    }

    /// Whether a session that begins at this time can't have begun earlier, unknown to us.
    pub(super) fn is_session_known(&self, start_ms: TimeMs) -> bool {
        start_ms >= self.known_from_ms.saturating_add(self.gap_ms)
    }

    /// Panes before this one can't be reached by an update that counts.
    pub(super) fn first_needed(&self, now_ms: TimeMs) -> Pane {
        let open_ms = self.start_ms(self.first_open(now_ms));
        self.pane(open_ms - super::fix::LEG_MS) - self.panes + 1
    }

    /// Windows that begin before this time have passed the horizon.
    pub(super) fn expired_before_ms(&self, now_ms: TimeMs) -> TimeMs {
        let first_open = self.first_open(now_ms);
        self.start_ms(first_open - self.panes + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(size_s: i64, hop_s: i64) -> Grid {
        let settings = Settings {
            size_ms: size_s * 1000,
            hop_ms: hop_s * 1000,
            session_gap_ms: 600_000,
            horizon_ms: 3_600_000,
            known_from_ms: TimeMs::MIN,
        };
        Grid::new(&settings, 100)
    }

    #[test]
    fn a_tumbling_window_is_its_pane() {
        let grid = grid(60, 60);
        assert_eq!(grid.windows(7), 7..=7);
        assert_eq!(grid.panes(7), 7..8);
        assert_eq!(grid.pane(-1), -1);
    }

    #[test]
    fn a_hopping_window_has_the_panes_that_it_is_one_of_the_windows_of() {
        let grid = grid(60, 20);
        assert_eq!(grid.windows(7), 5..=7);
        for window in grid.windows(7) {
            assert!(grid.panes(window).contains(&7));
        }
    }

    #[test]
    fn the_pane_in_which_the_horizon_lies_is_open_and_the_one_before_has_expired() {
        let grid = grid(60, 60);
        let now = 3_600_000 + 90_000;
        assert_eq!(grid.first_open(now), 1);
        assert_eq!(grid.expired_before_ms(now), 60_000);
        assert_eq!(grid.first_needed(now), 0);
    }

    #[test]
    fn what_began_before_anything_is_known_is_closed() {
        let mut grid = grid(60, 60);
        grid.known_from_ms = 7_260_001;
        assert_eq!(grid.first_open(7_300_000), 122);
        assert!(!grid.is_known(121));
        assert!(grid.is_known(122));
    }
}
