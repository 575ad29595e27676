//! Brings the traffic of cells back from a snapshot.

use std::rc::Rc;

use hashbrown::HashMap;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::vec::Broadcast;
use timely::dataflow::{Scope, StreamVec};

use super::Refresh;
use super::cell_minutes::{CellKey, Change, Traffic};
use super::grid::Grid;
use super::tell_cells::{SavedCell, forgotten_before_ms};
use crate::dataflow::Context;
use crate::model::Epoch;
use crate::snapshot::Part;

/// What a snapshot has of cells.
pub(super) struct RestoredCells<'scope> {
    /// The epoch that it is of.
    pub(super) epoch: Epoch,
    /// The traffic, as differences at that epoch.
    pub(super) traffic: StreamVec<'scope, u64, Change>,
    /// Keys whose traffic had not been told by then. They come to all workers: only the trace
    /// knows which of them has a key.
    pub(super) untold: StreamVec<'scope, u64, CellKey>,
}

/// Reads this worker's share of the parts, in the order in which they were saved.
pub(super) fn restore_cells<'scope>(
    scope: Scope<'scope, u64>,
    epoch: Epoch,
    parts: Vec<Part>,
    grid: Grid,
    refresh: Refresh,
    context: Rc<Context>,
) -> RestoredCells<'scope> {
    let mut builder = OperatorBuilder::new("restore_cells".to_owned(), scope);
    let (output, traffic) = builder.new_output();
    let mut output = OutputBuilder::<_, CapacityContainerBuilder<Vec<Change>>>::from(output);
    let (untold_out, untold) = builder.new_output();
    let mut untold_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<_>>>::from(untold_out);
    builder.build(move |capabilities| {
        let mut to_do = Some((capabilities, parts));
        move |_frontiers| {
            let Some((capabilities, parts)) = to_do.take() else {
                return;
            };
            let mut cells = match read(&parts) {
                Ok(cells) => cells,
                Err(message) => {
                    (context.fail)(message);
                    // What is incomplete must not look complete: the capabilities stay.
                    to_do = Some((capabilities, Vec::new()));
                    return;
                }
            };
            let kept_from_ms = forgotten_before_ms(epoch, &grid, refresh);
            cells.retain(|key, _| key.0 >= kept_from_ms);
            let [traffic_cap, untold_cap] = &capabilities[..] else {
                unreachable!("a capability for each of the two outputs")
            };
            let untold = cells.iter().filter(|(_, (_, untold))| *untold);
            untold_out
                .activate()
                .session(&untold_cap.delayed(&epoch.0))
                .give_iterator(untold.map(|(key, _)| *key));
            let traffic = cells.into_iter();
            output
                .activate()
                .session(&traffic_cap.delayed(&epoch.0))
                .give_iterator(traffic.map(|(key, (traffic, _))| (key, epoch.0, traffic)));
        }
    });
    RestoredCells {
        epoch,
        traffic,
        untold: untold.broadcast(),
    }
}

/// Each key's traffic, and whether it is still to be told.
fn read(parts: &[Part]) -> Result<HashMap<CellKey, (Traffic, bool)>, String> {
    let mut cells = HashMap::new();
    for part in parts {
        part.entries(|saved: SavedCell| {
            cells.insert(saved.key, (saved.traffic, saved.untold));
        })
        .map_err(|error| format!("could not decode cells of group {}: {error}", part.group))?;
    }
    Ok(cells)
}
