-- One row for each event, once: id is the event's identity, equal to the ce_id in Kafka.
--
-- The order serves "what happened to driver 453 today"; the bloom filter finds an event by id.
CREATE TABLE IF NOT EXISTS events
(
    id          String                 COMMENT 'The event''s identity, equal to ce_id in rider-notifications' CODEC(ZSTD(1)),
    type        LowCardinality(String) COMMENT 'Type such as geofence.entered or agent.near'                  CODEC(ZSTD(1)),
    driver_id   UInt64                 COMMENT 'Driver that the event is told to'                             CODEC(Delta, ZSTD(1)),
    order_id    String                 COMMENT 'Order that it is about; empty if none'                        CODEC(ZSTD(1)),
    fence_id    String                 COMMENT 'Geofence that it is about; empty if none'                     CODEC(ZSTD(1)),
    event_time  DateTime64(3)          COMMENT 'Event time of the cause; for a timer its deadline'            CODEC(Delta, ZSTD(1)),
    detected_at DateTime64(3)          COMMENT 'Clock of the job when it was detected'                        CODEC(Delta, ZSTD(1)),
    data        String                 COMMENT 'The event''s data as in Kafka, JSON'                          CODEC(ZSTD(3)),

    INDEX id_bloom id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(event_time, 'UTC')
ORDER BY (driver_id, event_time, id)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'One row for each event';
