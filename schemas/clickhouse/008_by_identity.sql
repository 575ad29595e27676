-- Asking for rows by their identity must not cost a scan: after a restart or a lost answer the
-- writer asks which offsets, or which ids, of a batch are here. The tables are sorted by driver,
-- so a granule of a large part holds offsets of its whole time, and one late row makes a
-- batch's time range wide: neither the old skip index nor times narrowed that question. The
-- projections hold the identities once more, in their own order: 1 byte for an update, some 9
-- for an event. They have no codec of their own, hence the default one.
ALTER TABLE driver_locations MODIFY SETTING default_compression_codec = 'ZSTD(1)', lightweight_mutation_projection_mode = 'rebuild';
ALTER TABLE driver_locations ADD PROJECTION IF NOT EXISTS by_source (SELECT kafka_partition, kafka_offset ORDER BY kafka_partition, kafka_offset);
ALTER TABLE driver_locations MATERIALIZE PROJECTION by_source;
ALTER TABLE driver_locations DROP INDEX IF EXISTS kafka_offset_range;
ALTER TABLE events MODIFY SETTING default_compression_codec = 'ZSTD(1)', lightweight_mutation_projection_mode = 'rebuild';
ALTER TABLE events ADD PROJECTION IF NOT EXISTS by_id (SELECT id ORDER BY id);
ALTER TABLE events MATERIALIZE PROJECTION by_id;
