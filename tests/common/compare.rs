//! Whether a job that was disturbed told what one tells that nothing disturbed.
//!
//! Pure: [`Outcome`]s come in, a [`Report`] goes out. What is compared, and what not:
//!
//! - Events by driver, in the order in which a reader of the topic gets them; dead letters by
//!   the partition that the input came from, in order. Between drivers, and between partitions,
//!   two runs may differ rightly: a record that reaches the job after its partition was known to
//!   have nothing unread stands at the beginning of the open epoch, so that which of two records
//!   of one moment comes first is a matter of the epoch log. That events of a later epoch stand
//!   behind those of an earlier one is checked against each run's own log.
//! - Rows by what they are and hold; tables have no order.
//! - `detectedAt` is left out, and so is whether a timer or a position said that something fell
//!   due (contract, section 6).
//! - The epoch log of each run by itself: epochs go up, ranges follow each other without gap or
//!   overlap from the first offset to the last, and their counts are those of what was written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use riderflow::epoch::EpochRecord;
use riderflow::model::Input;

/// Something that must be there once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Within this, order is promised.
    pub group: String,
    /// What it is; unique.
    pub id: String,
    /// What it says.
    pub content: String,
}

/// Where an event that no timer set off stands, and which record did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The partition of `rider-notifications`.
    pub partition: i32,
    /// The topic, partition and offset of its cause.
    pub cause: (Input, i32, i64),
}

/// All that a run has left behind.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// By driver, in reading order.
    pub events: Vec<Item>,
    /// Events with a record as their cause, in reading order.
    pub told: Vec<Told>,
    /// By source partition, in reading order.
    pub dead_letters: Vec<Item>,
    /// Rows, by table; in any order.
    pub tables: BTreeMap<&'static str, Vec<Item>>,
    /// The epoch log, in reading order.
    pub epochs: Vec<EpochRecord>,
    /// Where every input partition ends.
    pub ends: BTreeMap<(Input, i32), i64>,
}

/// What two sequences of one kind have in common, and what not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many there should be.
    pub wanted: usize,
    /// Not there.
    pub lost: usize,
    /// There more than once, counted by each further time.
    pub duplicated: usize,
    /// There, and unknown to the undisturbed run.
    pub invented: usize,
    /// There with another content.
    pub changed: usize,
    /// The fewest that must be moved to have all in order.
    pub misordered: usize,
}

impl Counts {
    fn faults(&self) -> usize {
        self.lost + self.duplicated + self.invented + self.changed + self.misordered
    }
}

/// What a comparison found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// By kind: `notifications`, `dead_letters`, or a table.
    pub kinds: BTreeMap<&'static str, Counts>,
    /// What is wrong with an epoch log.
    pub log: Vec<String>,
    /// Some of the differences.
    pub examples: Vec<String>,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.log.is_empty() && self.kinds.values().all(|counts| counts.faults() == 0)
    }

    /// Over all kinds.
    pub fn sum(&self, of: impl Fn(&Counts) -> usize) -> usize {
        self.kinds.values().map(of).sum()
    }

    fn example(&mut self, kind: &str, fault: &str, id: &str, found: &str, wanted: &str) {
        // A fault has many faces; some of each kind tell enough.
        let alike = format!("{kind} {fault}: ");
        let told = self
            .examples
            .iter()
            .filter(|text| text.starts_with(&alike))
            .count();
        if told < 4 {
            self.examples.push(format!(
                "{alike}{id}\n    is {found:.300}\n    not {wanted:.300}"
            ));
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, counts) in &self.kinds {
            writeln!(f, "{kind}: {counts:?}")?;
        }
        for fault in self.log.iter().take(10) {
            writeln!(f, "log: {fault}")?;
        }
        self.examples
            .iter()
            .try_for_each(|text| writeln!(f, "{text}"))
    }
}

/// Holds what a disturbed run left behind against what an undisturbed one did.
pub fn compare(disturbed: &Outcome, calm: &Outcome) -> Report {
    let mut report = Report::default();
    let kinds = [
        ("notifications", &disturbed.events, &calm.events),
        ("dead_letters", &disturbed.dead_letters, &calm.dead_letters),
    ];
    for (kind, found, wanted) in kinds {
        let counts = compare_items(kind, found, wanted, &mut report);
        report.kinds.insert(kind, counts);
    }
    let tables: BTreeSet<_> = disturbed.tables.keys().chain(calm.tables.keys()).collect();
    for &table in tables {
        let of = |outcome: &Outcome| {
            let mut rows = outcome.tables.get(table).cloned().unwrap_or_default();
            rows.sort_by(|a, b| a.id.cmp(&b.id));
            rows
        };
        let counts = compare_items(table, &of(disturbed), &of(calm), &mut report);
        report.kinds.insert(table, counts);
    }
    for (run, outcome) in [("disturbed", disturbed), ("undisturbed", calm)] {
        let faults = log_faults(outcome);
        report
            .log
            .extend(faults.into_iter().map(|fault| format!("{run}: {fault}")));
    }
    report
}

fn compare_items(kind: &str, found: &[Item], wanted: &[Item], report: &mut Report) -> Counts {
    let mut counts = Counts {
        wanted: wanted.len(),
        ..Counts::default()
    };
    let by_id: HashMap<&str, usize> = wanted
        .iter()
        .enumerate()
        .map(|(at, item)| (item.id.as_str(), at))
        .collect();
    let mut seen = vec![false; wanted.len()];
    // Where the undisturbed run has each, by group, in the order found.
    let mut places: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for item in found {
        let Some(&at) = by_id.get(item.id.as_str()) else {
            counts.invented += 1;
            report.example(kind, "invented", &item.id, &item.content, "there");
            continue;
        };
        if std::mem::replace(&mut seen[at], true) {
            counts.duplicated += 1;
            report.example(kind, "duplicated", &item.id, &item.content, "there twice");
            continue;
        }
        let other = &wanted[at];
        if (&item.group, &item.content) != (&other.group, &other.content) {
            counts.changed += 1;
            report.example(kind, "changed", &item.id, &item.content, &other.content);
        }
        places.entry(&other.group).or_default().push(at);
    }
    for (at, item) in wanted.iter().enumerate().filter(|(at, _)| !seen[*at]) {
        counts.lost += 1;
        // Its neighbours tell when it was.
        let before = at.checked_sub(1).map_or("", |at| wanted[at].id.as_str());
        report.example(
            kind,
            "lost",
            &item.id,
            &format!("missing, after {before}"),
            &item.content,
        );
    }
    for (group, places) in places {
        let moved = places.len() - longest_rise(&places);
        counts.misordered += moved;
        if moved > 0 {
            let fall = places.windows(2).find(|pair| pair[0] > pair[1]);
            let name = |at: usize| wanted[at].id.as_str();
            let [first, then] = fall
                .and_then(|pair| pair.try_into().ok())
                .expect("there is one");
            report.example(
                kind,
                "misordered",
                group,
                &format!("{} before {}", name(first), name(then)),
                "in this order",
            );
        }
    }
    counts
}

/// The length of the longest rising subsequence.
fn longest_rise(values: &[usize]) -> usize {
    // The smallest end of a rise of each length.
    let mut ends: Vec<usize> = Vec::new();
    for &value in values {
        let at = ends.partition_point(|end| *end < value);
        match ends.get_mut(at) {
            Some(end) => *end = value,
            None => ends.push(value),
        }
    }
    ends.len()
}

fn log_faults(outcome: &Outcome) -> Vec<String> {
    let mut faults = Vec::new();
    let mut last = None;
    let mut next: BTreeMap<(Input, i32), i64> = BTreeMap::new();
    // Which epoch an offset belongs to: the first whose end is beyond it.
    let mut ends: BTreeMap<(Input, i32), Vec<(i64, u64)>> = BTreeMap::new();
    for record in &outcome.epochs {
        let epoch = record.epoch.0;
        if last.is_some_and(|last| epoch <= last) {
            faults.push(format!("epoch {epoch} stands behind {last:?}"));
        }
        last = Some(epoch);
        let named: BTreeSet<_> = record
            .ranges
            .iter()
            .map(|r| (r.input, r.partition))
            .collect();
        if named.len() != record.ranges.len() || !outcome.ends.keys().all(|it| named.contains(it)) {
            faults.push(format!("epoch {epoch} does not name every partition once"));
        }
        for range in &record.ranges {
            let partition = (range.input, range.partition);
            let expected = next.insert(partition, range.next).unwrap_or(0);
            if range.first != expected || range.next < range.first {
                faults.push(format!(
                    "epoch {epoch}: {partition:?} {}..{} follows {expected}",
                    range.first, range.next
                ));
            }
            if range.first < range.next {
                ends.entry(partition).or_default().push((range.next, epoch));
            }
        }
    }
    for (partition, end) in &outcome.ends {
        let reached = next.get(partition).copied().unwrap_or(0);
        if reached != *end {
            faults.push(format!("{partition:?} ends at {reached}, not at {end}"));
        }
    }
    let events: u64 = outcome.epochs.iter().map(|record| record.events).sum();
    let letters: u64 = outcome.epochs.iter().map(|it| it.dead_letters).sum();
    let written = (outcome.events.len(), outcome.dead_letters.len());
    if (events, letters) != (written.0 as u64, written.1 as u64) {
        faults.push(format!(
            "{events} events and {letters} dead letters are recorded, {written:?} written"
        ));
    }
    let mut reached: BTreeMap<i32, u64> = BTreeMap::new();
    for told in &outcome.told {
        let (input, partition, offset) = told.cause;
        let ends = ends.get(&(input, partition)).map_or(&[][..], Vec::as_slice);
        let at = ends.partition_point(|(next, _)| *next <= offset);
        let Some((_, epoch)) = ends.get(at) else {
            faults.push(format!(
                "{:?} caused an event and is in no epoch",
                told.cause
            ));
            continue;
        };
        let reached = reached.entry(told.partition).or_default();
        if epoch < reached {
            faults.push(format!(
                "an event of epoch {epoch} ({:?}) stands behind one of {reached}",
                told.cause
            ));
        }
        *reached = (*reached).max(*epoch);
    }
    faults
}
