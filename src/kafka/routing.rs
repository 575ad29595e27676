//! Which partition of `rider-updates` a record goes to.
//!
//! Owns the route table of the pipeline file and Kafka's murmur2. Pure; the job never relies on
//! it, only those who publish do.

use crate::config::Routes;

/// The row that serves every state without a row of its own.
const DEFAULT_ROW: &str = "default";

/// A route that no record could take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "route {state} = {partition} has no partition: rider-updates has {partitions} (0 to {}); \
     change [routes] or topics.partitions",
    partitions - 1
)]
pub struct RouteError {
    /// The row.
    pub state: String,
    /// Where it leads.
    pub partition: i32,
    /// How many partitions there are.
    pub partitions: i32,
}

/// State to partition, checked against the number of partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTable {
    /// Sorted by state.
    rows: Vec<(String, i32)>,
    default: Option<i32>,
    partitions: i32,
}

impl RouteTable {
    /// Takes the pipeline's routes for a topic of `partitions` partitions.
    ///
    /// # Errors
    /// The first row that leads to a partition below 0 or not below `partitions`.
    pub fn new(routes: &Routes, partitions: i32) -> Result<Self, RouteError> {
        for (state, &partition) in &routes.0 {
            if !(0..partitions).contains(&partition) {
                return Err(RouteError {
                    state: state.clone(),
                    partition,
                    partitions,
                });
            }
        }
        Ok(Self {
            rows: routes
                .0
                .iter()
                .filter(|(state, _)| *state != DEFAULT_ROW)
                .map(|(state, &partition)| (state.clone(), partition))
                .collect(),
            default: routes.0.get(DEFAULT_ROW).copied(),
            partitions,
        })
    }

    /// The partition for a record: the state's row, else the default row, else murmur2 of the
    /// key as the Java client has it.
    pub fn partition_for(&self, state: Option<&str>, key: &[u8]) -> i32 {
        state
            .and_then(|state| {
                let row = self
                    .rows
                    .binary_search_by(|(name, _)| name.as_str().cmp(state))
                    .ok()?;
                Some(self.rows[row].1)
            })
            .or(self.default)
            .unwrap_or_else(|| key_partition(key, self.partitions))
    }

    /// How many partitions the table was made for.
    pub fn partitions(&self) -> i32 {
        self.partitions
    }
}

/// The partition that Kafka's own clients give a key: `toPositive(murmur2(key)) % partitions`.
/// `partitions` is over 0.
pub fn key_partition(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// Kafka's murmur2 (`org.apache.kafka.common.utils.Utils.murmur2`), seed 0x9747b28c.
pub fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut hash: u32 = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> R;
        k = k.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        for (i, &byte) in tail.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^= hash >> 15;
    hash as i32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn table(rows: &[(&str, i32)], partitions: i32) -> Result<RouteTable, RouteError> {
        let rows: BTreeMap<_, _> = rows.iter().map(|&(s, p)| (s.to_owned(), p)).collect();
        RouteTable::new(&Routes(rows), partitions)
    }

    #[test]
    fn murmur2_gives_the_java_clients_hashes() {
        // org.apache.kafka.common.utils.UtilsTest.testMurmur2
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
            // asked of kafka-clients 4.3.1
            ("453", -1_865_704_685),
            ("tony", 28_761_798),
        ] {
            assert_eq!(murmur2(text.as_bytes()), hash, "{text}");
        }
    }

    #[test]
    fn a_state_goes_by_its_row_then_the_default_then_the_key() {
        let shipped = RouteTable::new(&Routes::default(), 2).unwrap();
        assert_eq!(shipped.partition_for(Some("south"), b"453"), 0);
        assert_eq!(shipped.partition_for(Some("north"), b"453"), 1);
        assert_eq!(shipped.partition_for(None, b"453"), 1);
        assert_eq!(shipped.partition_for(Some("default"), b"453"), 1);
        let keyed = table(&[("east", 4), ("south", 3), ("west", 0)], 7).unwrap();
        assert_eq!(keyed.partition_for(Some("east"), b"453"), 4);
        assert_eq!(keyed.partition_for(Some("south"), b"453"), 3);
        assert_eq!(keyed.partition_for(Some("west"), b"453"), 0);
        for key in [&b"21"[..], b"foobar"] {
            let expected = (murmur2(key) & 0x7fff_ffff) % 7;
            assert_eq!(keyed.partition_for(Some("north"), key), expected);
            assert_eq!(keyed.partition_for(None, key), expected);
        }
    }

    #[test]
    fn a_route_past_the_last_partition_is_refused() {
        let error = table(&[("north", 2)], 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            "route north = 2 has no partition: rider-updates has 2 (0 to 1); change [routes] or \
             topics.partitions"
        );
        assert!(table(&[("north", -1)], 2).is_err());
        assert!(table(&[("default", 1)], 1).is_err());
    }
}
