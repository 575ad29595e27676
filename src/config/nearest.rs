//! The nearest right word.

use strsim::{damerau_levenshtein, jaro_winkler};

/// The candidate that `word` is most likely a slip of, if one is near enough: at most a third
/// of its letters differ.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = word.to_lowercase().replace(['-', ' '], "_");
    let mut best: Option<(usize, f64, &str)> = None;
    for candidate in candidates {
        let distance = damerau_levenshtein(&word, candidate);
        let longer = word.chars().count().max(candidate.chars().count());
        if distance > longer.div_ceil(3) {
            continue;
        }
        let likeness = jaro_winkler(&word, candidate);
        let better = best.is_none_or(|(best_distance, best_likeness, _)| {
            distance < best_distance || distance == best_distance && likeness > best_likeness
        });
        if better {
            best = Some((distance, likeness, candidate));
        }
    }
    best.map(|(_, _, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let words = ["near_m", "near_repeat", "rearm_m", "arrive_m", "arrive_s"];
        for (word, expected) in [
            ("naer_m", Some("near_m")),
            ("near-m", Some("near_m")),
            ("Near_M", Some("near_m")),
            ("near_repet", Some("near_repeat")),
            ("rearmm", Some("rearm_m")),
            ("arive_s", Some("arrive_s")),
            ("brokers", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, words), expected, "{word}");
        }
    }
}
