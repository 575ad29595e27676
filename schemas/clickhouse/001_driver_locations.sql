-- One row for each valid rider update, once: (kafka_partition, kafka_offset) is its identity.
--
-- The order serves "where was driver 453 between ten and eleven"; neighbouring rows are of one
-- driver, so the differences that Delta stores are small. The skip index answers "which offsets
-- of this partition are here" after an insert whose answer was lost. The month is taken in UTC,
-- so that it does not depend on the server's time zone.
CREATE TABLE IF NOT EXISTS driver_locations
(
    driver_id       UInt64                 COMMENT 'Driver, 0 to 2^63-1'                                          CODEC(Delta, ZSTD(1)),
    timestamp       DateTime64(3)          COMMENT 'Event time: when the phone took the fix'                      CODEC(Delta, ZSTD(1)),
    latitude        Float64                COMMENT 'Degrees north, WGS 84'                                        CODEC(Delta, ZSTD(1)),
    longitude       Float64                COMMENT 'Degrees east, WGS 84'                                         CODEC(Delta, ZSTD(1)),
    state           LowCardinality(String) COMMENT 'Routing state such as south; empty if the update had none'    CODEC(ZSTD(1)),
    accuracy        Nullable(Float32)      COMMENT 'Radius of 68 % confidence, metres; null if unknown'           CODEC(ZSTD(1)),
    speed           Nullable(Float32)      COMMENT 'Speed over ground, metres per second; null if unknown'        CODEC(ZSTD(1)),
    heading         Nullable(Float32)      COMMENT 'Degrees clockwise from north; null if unknown'                CODEC(ZSTD(1)),
    h3              UInt64                 COMMENT 'H3 cell of resolution 9 around the fix'                       CODEC(ZSTD(1)),
    flag            Enum8('ok' = 0, 'late' = 1, 'duplicate' = 2, 'inaccurate' = 3, 'teleport' = 4)
                                           COMMENT 'What the update is to its driver''s history; only ok drives events' CODEC(ZSTD(1)),
    kafka_partition Int32                  COMMENT 'Partition of rider-updates that the update came from'         CODEC(ZSTD(1)),
    kafka_offset    Int64                  COMMENT 'Offset within the partition'                                  CODEC(Delta, ZSTD(1)),
    received_at     DateTime64(3)          COMMENT 'Timestamp of the Kafka record'                                CODEC(Delta, ZSTD(1)),

    INDEX kafka_offset_range kafka_offset TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp, 'UTC')
ORDER BY (driver_id, timestamp, kafka_partition, kafka_offset)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'One row for each valid rider update';
