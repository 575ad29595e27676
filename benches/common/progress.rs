//! How far a process is: what its consumer group has not committed of what is in Kafka.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::Running;

/// So long Kafka may take to answer.
pub const ANSWER: Duration = Duration::from_secs(30);
/// A process that makes no progress for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until nothing is left for a process to do, with a look, 20 times a second, at it and at
/// how much is left; or says why that will not be.
pub fn until_none_left(
    process: &mut Running,
    mut left: impl FnMut() -> u64,
    mut look: impl FnMut(&Running, u64),
) -> Result<(), String> {
    let (mut least, mut moved) = (u64::MAX, Instant::now());
    loop {
        let left = left();
        if left == 0 {
            return Ok(());
        }
        if left < least {
            (least, moved) = (left, Instant::now());
        }
        if moved.elapsed() > PATIENCE {
            return Err(format!("it is stuck: {left} left"));
        }
        if !process.is_running() {
            return Err(format!("it has ended: {left} left"));
        }
        look(process, left);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// All partitions of a topic, with the offset after the last.
pub fn ends_of<'t>(client: &BaseConsumer, topic: &'t str) -> Vec<(&'t str, i32, i64)> {
    let ends = partitions(client, topic).into_iter().map(|partition| {
        let held = client.fetch_watermarks(topic, partition, ANSWER);
        (topic, partition, held.expect("watermarks").1)
    });
    ends.collect()
}

/// Records that a group has not committed; `u64::MAX` if that can't be told now.
pub fn left_for(client: &BaseConsumer, ends: &[(&str, i32, i64)]) -> u64 {
    let mut list = TopicPartitionList::new();
    for &(topic, partition, _) in ends {
        list.add_partition(topic, partition);
    }
    // A group's coordinator may not know yet that it is one.
    let Ok(committed) = client.committed_offsets(list, ANSWER) else {
        return u64::MAX;
    };
    let left = ends.iter().map(|&(topic, partition, end)| {
        let found = committed.find_partition(topic, partition);
        match found.map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => (end - offset).max(0) as u64,
            _ => end as u64,
        }
    });
    left.sum()
}

/// Lets a consumer read a topic from its beginning; returns how many partitions it has.
pub fn assign_all(consumer: &BaseConsumer, topic: &str) -> usize {
    let mut list = TopicPartitionList::new();
    for partition in partitions(consumer, topic) {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .expect("an offset");
    }
    consumer.assign(&list).expect("assigned");
    list.count()
}

/// The partitions of a topic.
pub fn partitions(client: &BaseConsumer, topic: &str) -> Vec<i32> {
    let metadata = client
        .fetch_metadata(Some(topic), ANSWER)
        .expect("metadata");
    let partitions = metadata.topics()[0].partitions().iter();
    partitions.map(|partition| partition.id()).collect()
}
