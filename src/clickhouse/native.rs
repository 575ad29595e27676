//! ClickHouse's `Native` format: rows of a block, column by column.
//!
//! A block is the number of columns and of rows, and then for each column its name, its type and
//! its values: numbers little-endian, times as the milliseconds since 1970 of a `DateTime64(3)`,
//! texts each after its length in LEB128, nullable values after as many bytes that are 1 for
//! null. What is alike stands side by side, so it compresses well and fast, and the server has
//! little to parse.
//!
//! Blocks are written here and not by the `clickhouse` crate, because its typed insert can't
//! carry the condition that fences off an older run. Nothing is allocated per row.

use super::rows::Record;
use crate::geo::CellFinder;
use crate::model::Position;

/// A block has no more rows than this: most rows are small, and so many make some hundred
/// kilobytes.
const BLOCK_ROWS: usize = 8_192;
/// Nor more of what rows cost than this, but for its last row. Blocks are held beside the rows
/// that they are made of, by each insert that runs, and outside the bound on what waits. Small
/// rows reach [`BLOCK_ROWS`] before; 8,192 large dead letters would be 64 MiB and more.
const BLOCK_BYTES: usize = 2 << 20;
/// Rows whose columns are written in turn: they stay in the processor's nearest cache meanwhile.
const TILE_ROWS: usize = 256;

/// Fills `block` with the next rows: at least one, if there is one.
pub(super) fn next_block<'r, R: Record>(
    rows: &mut impl Iterator<Item = &'r R>,
    block: &mut Vec<&'r R>,
) {
    block.clear();
    let mut bytes = 0;
    while block.len() < BLOCK_ROWS
        && bytes < BLOCK_BYTES
        && let Some(row) = rows.next()
    {
        bytes += row.cost();
        block.push(row);
    }
}

/// Writes blocks of one table's rows, and keeps its buffers from one to the next.
pub(super) struct BlockWriter {
    columns: Vec<Column>,
}

#[derive(Default)]
struct Column {
    nulls: Vec<u8>,
    values: Vec<u8>,
}

impl BlockWriter {
    /// For any table.
    pub(super) fn new() -> Self {
        Self {
            columns: Vec::new(),
        }
    }

    /// The block of these rows.
    pub(super) fn block<R: Record>(&mut self, rows: &[&R], cells: &mut CellFinder) -> Vec<u8> {
        let structure = R::STRUCTURE;
        self.columns
            .resize_with(structure.split(", ").count(), Column::default);
        for tile in rows.chunks(TILE_ROWS) {
            R::encode(&mut Tile {
                rows: tile,
                columns: self.columns.iter_mut(),
                cells,
            });
        }
        let size = |column: &Column| column.nulls.len() + column.values.len();
        let sizes: usize = self.columns.iter().map(size).sum();
        let mut block = Vec::with_capacity(structure.len() + sizes + 64);
        put_length(&mut block, self.columns.len());
        put_length(&mut block, rows.len());
        for (column, named) in self.columns.iter_mut().zip(structure.split(", ")) {
            let (name, r#type) = named.split_once(' ').unwrap_or((named, ""));
            put_text(&mut block, name.as_bytes());
            put_text(&mut block, r#type.as_bytes());
            block.append(&mut column.nulls);
            block.append(&mut column.values);
        }
        block
    }
}

/// Some rows, and those of their columns that are not written yet.
pub(super) struct Tile<'a, R> {
    rows: &'a [&'a R],
    columns: std::slice::IterMut<'a, Column>,
    cells: &'a mut CellFinder,
}

impl<R> Tile<'_, R> {
    /// The next column: bytes of one length.
    #[inline]
    pub(super) fn numbers<const N: usize>(&mut self, of: impl Fn(&R) -> [u8; N]) {
        let rows = self.rows;
        fill(&mut self.next().values, rows, of);
    }

    /// The next column: the H3 cell of resolution 9 around a position.
    #[inline]
    pub(super) fn cells(&mut self, of: impl Fn(&R) -> Position) {
        let column = next(&mut self.columns);
        fill(&mut column.values, self.rows, |row| {
            self.cells.find(of(row)).to_le_bytes()
        });
    }

    /// The next column: bytes of one length, or null.
    #[inline]
    pub(super) fn nullables<const N: usize>(&mut self, of: impl Fn(&R) -> Option<[u8; N]>) {
        let rows = self.rows;
        let column = self.next();
        fill(&mut column.nulls, rows, |row| [u8::from(of(row).is_none())]);
        fill(&mut column.values, rows, |row| of(row).unwrap_or([0; N]));
    }

    /// The next column: texts.
    #[inline]
    pub(super) fn texts(&mut self, of: impl Fn(&R) -> &[u8]) {
        let rows = self.rows;
        let values = &mut self.next().values;
        for row in rows {
            put_text(values, of(row));
        }
    }

    fn next(&mut self) -> &mut Column {
        next(&mut self.columns)
    }
}

fn next<'c>(columns: &mut std::slice::IterMut<'c, Column>) -> &'c mut Column {
    columns
        .next()
        .expect("a record encodes as many columns as it names")
}

/// Appends a value of each row.
#[inline]
fn fill<R, const N: usize>(values: &mut Vec<u8>, rows: &[&R], mut of: impl FnMut(&R) -> [u8; N]) {
    let start = values.len();
    values.resize(start + rows.len() * N, 0);
    let (slots, _) = values[start..].as_chunks_mut();
    for (slot, row) in slots.iter_mut().zip(rows) {
        *slot = of(row);
    }
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_length(out, text.len());
    out.extend_from_slice(text);
}

/// LEB128.
fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clickhouse::rows::{ROW_COST, RejectedRow};
    use crate::model::{DeadLetter, Fault, Input, Place, Reason, Source};

    /// A dead letter of so many bytes.
    fn letter(bytes: usize) -> RejectedRow {
        let source = Source {
            input: Input::Orders,
            partition: 0,
            offset: 7,
        };
        RejectedRow::from(DeadLetter {
            place: Place { at_ms: 0, source },
            key: None,
            value: Some(vec![b'x'; bytes]),
            fault: Fault {
                reason: Reason::Empty,
                detail: String::new(),
            },
        })
    }

    /// Rows and bytes of each block.
    fn blocks<R: Record>(rows: &[R]) -> Vec<(usize, usize)> {
        let (mut left, mut block) = (rows.iter(), Vec::new());
        let mut writer = BlockWriter::new();
        let mut cells = CellFinder::new(h3o::Resolution::Nine);
        let mut blocks = Vec::new();
        let mut expected = rows.iter();
        loop {
            next_block(&mut left, &mut block);
            if block.is_empty() {
                break;
            }
            for row in &block {
                assert!(std::ptr::eq(*row, expected.next().unwrap()));
            }
            blocks.push((block.len(), writer.block(&block, &mut cells).len()));
        }
        assert!(expected.next().is_none());
        blocks
    }

    fn rows_of(blocks: &[(usize, usize)]) -> Vec<usize> {
        blocks.iter().map(|(rows, _)| *rows).collect()
    }

    #[test]
    fn a_block_is_bounded_in_rows_and_in_bytes() {
        let small: Vec<_> = (0..20_000).map(|_| letter(0)).collect();
        assert_eq!(
            rows_of(&blocks(&small)),
            [BLOCK_ROWS, BLOCK_ROWS, 20_000 - 2 * BLOCK_ROWS]
        );

        const LARGE: usize = 8 << 10;
        let large: Vec<_> = (0..BLOCK_ROWS).map(|_| letter(LARGE)).collect();
        let large = blocks(&large);
        let full = BLOCK_BYTES.div_ceil(LARGE + ROW_COST);
        let (last, others) = large.split_last().unwrap();
        assert!(others.iter().all(|(rows, _)| *rows == full), "{large:?}");
        assert_eq!(others.len() * full + last.0, BLOCK_ROWS);
        for (_, bytes) in &large {
            assert!(*bytes <= BLOCK_BYTES + LARGE, "{large:?}");
        }

        // One that is larger by itself, at either end and alone.
        let huge = BLOCK_BYTES + 1;
        assert_eq!(rows_of(&blocks(&[letter(huge)])), [1]);
        let mixed = [letter(huge), letter(1), letter(huge), letter(1)];
        assert_eq!(rows_of(&blocks(&mixed)), [1, 2, 1]);
        assert!(blocks::<RejectedRow>(&[]).is_empty());
    }

    #[test]
    fn lengths_are_leb128() {
        for (length, prefix) in [
            (0, vec![0]),
            (127, vec![127]),
            (128, vec![0x80, 1]),
            (16_384, vec![0x80, 0x80, 1]),
        ] {
            let mut out = Vec::new();
            put_text(&mut out, &vec![7; length]);
            assert_eq!(out[..prefix.len()], prefix);
            assert_eq!(out.len(), prefix.len() + length);
        }
    }
}
