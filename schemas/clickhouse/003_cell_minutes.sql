-- Window: H3 cell and minute. A later version of a window replaces the one before, so
-- writing a window again is harmless; read it with FINAL.
CREATE TABLE IF NOT EXISTS cell_minutes
(
    cell       UInt64            COMMENT 'H3 cell of resolution 8'                                           CODEC(Delta, ZSTD(1)),
    minute     DateTime          COMMENT 'Start of the minute, event time'                                   CODEC(Delta, ZSTD(1)),
    drivers    UInt64            COMMENT 'Distinct drivers seen'                                             CODEC(T64, ZSTD(1)),
    updates    UInt64            COMMENT 'Updates counted: flags ok and late'                                CODEC(T64, ZSTD(1)),
    mean_speed Nullable(Float64) COMMENT 'Mean speed of the updates, metres per second; null if unknown'     CODEC(ZSTD(1)),
    epoch      UInt64            COMMENT 'Epoch that wrote this version of the window; the greatest holds'   CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(epoch)
PARTITION BY toYYYYMM(minute, 'UTC')
ORDER BY (cell, minute)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Traffic per H3 cell and minute';
