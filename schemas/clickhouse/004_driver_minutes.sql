-- Window: driver and minute. A later version of a window replaces the one before; read it
-- with FINAL.
CREATE TABLE IF NOT EXISTS driver_minutes
(
    driver_id  UInt64            COMMENT 'Driver'                                                            CODEC(Delta, ZSTD(1)),
    minute     DateTime          COMMENT 'Start of the minute, event time'                                   CODEC(Delta, ZSTD(1)),
    updates    UInt64            COMMENT 'Updates counted: flags ok and late'                                CODEC(T64, ZSTD(1)),
    distance_m Float64           COMMENT 'Metres over consecutive updates at most 60 s apart'                CODEC(ZSTD(1)),
    max_speed  Nullable(Float64) COMMENT 'Greatest speed, metres per second; null if unknown'                CODEC(ZSTD(1)),
    epoch      UInt64            COMMENT 'Epoch that wrote this version of the window; the greatest holds'   CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(epoch)
PARTITION BY toYYYYMM(minute, 'UTC')
ORDER BY (driver_id, minute)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Activity per driver and minute';
