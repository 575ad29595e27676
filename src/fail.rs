//! Fail points: named moments at which a test has the process die.
//!
//! `RIDERFLOW_FAIL=commit-sent:3` kills the process by SIGKILL the third time that it passes the
//! point `commit-sent`: nothing is flushed, told or cleaned up. Without a number it is the
//! first time. A third word says what happens instead: `pause=2000` holds the thread up for so
//! many milliseconds, `after=2` lets it go on and kills the process so many milliseconds later,
//! which is how a test dies between two points.
//!
//! Compiled into debug builds only; in a release build a point is nothing at all. Never
//! changes what the code between two points does.

/// Every point, in the order in which a start and an epoch pass them. A test holds this list
/// against the source.
pub const POINTS: &[&str] = &[
    "takeover",
    "log-read",
    "head-committed",
    "replay-begun",
    "replay-done",
    "commit-begun",
    "commit-some-sent",
    "commit-sent",
    "commit-drained",
    "commit-done",
    "rows-passed",
    "insert-begun",
    "insert-sent",
    "insert-done",
    "snapshot-parts",
    "snapshot-state-written",
    "snapshot-manifest-written",
    "snapshot-published",
];

/// Passes the point `name`, which is one of [`POINTS`].
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_name: &str) {}

/// Passes the point `name`, which is one of [`POINTS`].
///
/// # Panics
/// When `RIDERFLOW_FAIL` is not understood: a test that waits for a death that can't come
/// should hear of it.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    armed::pass(name);
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::POINTS;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Action {
        Kill,
        KillAfter(Duration),
        Pause(Duration),
    }

    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Trap {
        pub(super) name: &'static str,
        pub(super) nth: u64,
        pub(super) action: Action,
    }

    impl Trap {
        pub(super) fn parse(text: &str) -> Result<Self, String> {
            let mut words = text.split(':');
            let name = words.next().unwrap_or_default();
            let name = POINTS.iter().find(|point| **point == name);
            let mut trap = Self {
                name: name.ok_or("names no fail point")?,
                nth: 1,
                action: Action::Kill,
            };
            for word in words {
                let milliseconds = |text: &str| {
                    let number = text.parse().map_err(|_| "wants milliseconds after `=`");
                    number.map(Duration::from_millis)
                };
                if let Some(text) = word.strip_prefix("pause=") {
                    trap.action = Action::Pause(milliseconds(text)?);
                } else if let Some(text) = word.strip_prefix("after=") {
                    trap.action = Action::KillAfter(milliseconds(text)?);
                } else {
                    trap.nth = word.parse().map_err(|_| "wants name[:nth][:action]")?;
                }
            }
            Ok(trap)
        }
    }

    pub(super) fn pass(name: &str) {
        static TRAP: OnceLock<Option<Trap>> = OnceLock::new();
        static PASSED: AtomicU64 = AtomicU64::new(0);
        let trap = TRAP.get_or_init(|| {
            let text = std::env::var("RIDERFLOW_FAIL").ok()?;
            let trap = Trap::parse(&text);
            Some(trap.unwrap_or_else(|fault| panic!("RIDERFLOW_FAIL={text} {fault}")))
        });
        let Some(trap) = trap.as_ref().filter(|trap| trap.name == name) else {
            return;
        };
        if PASSED.fetch_add(1, Ordering::SeqCst) + 1 != trap.nth {
            return;
        }
        match trap.action {
            Action::Kill => die(),
            Action::Pause(time) => thread::sleep(time),
            Action::KillAfter(time) => {
                thread::spawn(move || {
                    thread::sleep(time);
                    die();
                });
            }
        }
    }

    fn die() {
        kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
        // The signal is on its way, and nothing more must happen.
        loop {
            thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::POINTS;
    #[cfg(debug_assertions)]
    use super::armed::{Action, Trap};

    #[cfg(debug_assertions)]
    #[test]
    fn a_trap_is_a_name_a_number_and_an_action() {
        let trap = |name, nth, action| Ok(Trap { name, nth, action });
        let ms = std::time::Duration::from_millis;
        assert_eq!(
            Trap::parse("commit-sent"),
            trap("commit-sent", 1, Action::Kill)
        );
        assert_eq!(
            Trap::parse("commit-sent:7"),
            trap("commit-sent", 7, Action::Kill)
        );
        assert_eq!(
            Trap::parse("insert-sent:3:pause=2000"),
            trap("insert-sent", 3, Action::Pause(ms(2000)))
        );
        assert_eq!(
            Trap::parse("insert-sent:after=2"),
            trap("insert-sent", 1, Action::KillAfter(ms(2)))
        );
    }

    #[cfg(debug_assertions)]
    #[test]
    fn a_trap_that_can_not_be_meant_is_refused() {
        for text in ["", "commit", "commit-sent:x", "commit-sent:1:pause=soon"] {
            assert!(Trap::parse(text).is_err(), "{text}");
        }
    }

    /// The names that the source passes, `fail::point("…")`.
    fn passed(folder: &Path, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("a source folder is readable") {
            let path = entry.expect("a source folder is readable").path();
            if path.is_dir() {
                passed(&path, names);
            } else if path.extension().is_some_and(|kind| kind == "rs")
                && !path.ends_with("fail.rs")
            {
                let text = fs::read_to_string(&path).expect("a source file is readable UTF-8");
                // The name may stand on a line of its own.
                let calls = text.split("fail::point(").skip(1);
                names.extend(calls.map(|call| {
                    let name = call.trim_start().strip_prefix('"');
                    let name = name.expect("a point is named by a literal");
                    name[..name.find('"').expect("a literal ends")].to_owned()
                }));
            }
        }
    }

    #[test]
    fn the_list_holds_the_points_of_the_source() {
        let mut found = BTreeSet::new();
        passed(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
            &mut found,
        );
        let listed: BTreeSet<String> = POINTS.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(found, listed);
        assert_eq!(listed.len(), POINTS.len(), "no name twice");
    }
}
