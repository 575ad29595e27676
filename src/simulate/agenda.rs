//! What the city has planned: deadlines in city time, earliest first, ties as planned.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::Fix;
use super::message::Oddity;

/// What falls due.
#[derive(Clone, Debug)]
pub(super) enum Task {
    /// Tell an order that is under way when the city begins.
    Announce(u32),
    /// Open a new order in this slot.
    Open(u32),
    /// Find the slot's order, of this serial, a driver.
    Assign(u32, u64),
    /// Call it off.
    Cancel(u32, u64),
    /// Give it to another driver.
    Reassign(u32, u64),
    /// Tell the pickup that went unrecorded.
    RecordPickup(u32, u64),
    /// Remove the ended order of this serial.
    Remove(u64),
    /// Send a fix that was held back.
    Send(Box<Held>),
    /// Change the surges.
    Surge,
}

/// A fix held back.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// Whose.
    pub(super) driver: u64,
    /// The fix.
    pub(super) fix: Fix,
    /// When it was taken, ms of city time.
    pub(super) taken_ms: i64,
    /// What it is.
    pub(super) oddity: Oddity,
}

struct Entry {
    due_ms: i64,
    planned: u64,
    task: Task,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due_ms, other.planned).cmp(&(self.due_ms, self.planned))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

/// The plan.
#[derive(Default)]
pub(super) struct Agenda {
    entries: BinaryHeap<Entry>,
    planned: u64,
}

impl Agenda {
    /// Plans a task for a time, ms of city time.
    pub(super) fn plan(&mut self, due_ms: i64, task: Task) {
        self.planned += 1;
        self.entries.push(Entry {
            due_ms,
            planned: self.planned,
            task,
        });
    }

    /// The next task that is due by `now_ms`, with its time.
    pub(super) fn due(&mut self, now_ms: i64) -> Option<(i64, Task)> {
        if self.entries.peek()?.due_ms > now_ms {
            return None;
        }
        self.entries.pop().map(|entry| (entry.due_ms, entry.task))
    }
}
