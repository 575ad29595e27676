-- Window: a driver's session, ended by a gap without updates. A late update may join two
-- sessions, or make one begin earlier: the start at which none begins any more is then written
-- again as deleted, and FINAL leaves it out. A later version of a session replaces the one
-- before, so read it with FINAL.
CREATE TABLE IF NOT EXISTS driver_sessions
(
    driver_id  UInt64        COMMENT 'Driver'                                                            CODEC(Delta, ZSTD(1)),
    start      DateTime64(3) COMMENT 'Event time of the first update'                                    CODEC(Delta, ZSTD(1)),
    end        DateTime64(3) COMMENT 'Event time of the last update so far'                              CODEC(Delta, ZSTD(1)),
    distance_m Float64       COMMENT 'Metres over consecutive updates at most 60 s apart'                CODEC(ZSTD(1)),
    updates    UInt64        COMMENT 'Updates counted: flags ok and late'                                 CODEC(T64, ZSTD(1)),
    epoch      UInt64        COMMENT 'Epoch that wrote this version of the session; the greatest holds'  CODEC(Delta, ZSTD(1)),
    is_deleted UInt8         COMMENT '1 if no session begins at this time any more'                          CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(epoch, is_deleted)
PARTITION BY toYYYYMM(start, 'UTC')
ORDER BY (driver_id, start)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Sessions of drivers';
