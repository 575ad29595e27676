-- A row of writers may also be a seal: after an answer was lost, the writer refuses all inserts
-- that it began before, wherever on the way they still are, and only then asks what is stored.
ALTER TABLE writers ADD COLUMN IF NOT EXISTS writer UInt64 COMMENT 'Random number of the writer within the run' CODEC(ZSTD(1)) AFTER generation;
ALTER TABLE writers ADD COLUMN IF NOT EXISTS seal UInt64 COMMENT 'Inserts of this writer that name a smaller seal are refused' CODEC(Delta, ZSTD(1)) AFTER writer;
