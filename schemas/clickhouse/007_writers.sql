-- One row for each start of a pipeline's writer. Every insert names its generation and is
-- refused once a later one is here: a run that was frozen and wakes up after its successor
-- took over can't store rows that the successor has stored again.
CREATE TABLE IF NOT EXISTS writers
(
    pipeline      LowCardinality(String) COMMENT 'Name of the pipeline'                       CODEC(ZSTD(1)),
    generation    UInt64                 COMMENT 'Run of the pipeline; the greatest may write' CODEC(Delta, ZSTD(1)),
    registered_at DateTime64(3) DEFAULT now64(3) COMMENT 'When the run took over'              CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
ORDER BY (pipeline, generation, registered_at)
COMMENT 'One row for each start of a pipeline''s writer';
