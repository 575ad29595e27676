-- One row for each refused input, once: (topic, kafka_partition, kafka_offset) is its identity.
-- It has no time of its own that can be trusted, so it is one partition.
CREATE TABLE IF NOT EXISTS rejected_updates
(
    reason          LowCardinality(String) COMMENT 'Why it was refused, such as out_of_range'    CODEC(ZSTD(1)),
    detail          String                 COMMENT 'The field and the offending value'           CODEC(ZSTD(1)),
    topic           LowCardinality(String) COMMENT 'Topic that it came from'                     CODEC(ZSTD(1)),
    kafka_partition Int32                  COMMENT 'Partition that it came from'                 CODEC(ZSTD(1)),
    kafka_offset    Int64                  COMMENT 'Offset within the partition'                 CODEC(Delta, ZSTD(1)),
    value           String                 COMMENT 'The input''s bytes, untouched; empty for null' CODEC(ZSTD(3))
)
ENGINE = MergeTree
ORDER BY (topic, kafka_partition, kafka_offset)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'One row for each refused input';
