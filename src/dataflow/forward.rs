//! Rows of other processes, on their way to the first one, which stores them.
//!
//! Operators hand rows on where they are; in a process that doesn't store they wait in a
//! [`Tray`], and this operator sends them off before the frontier leaves their epoch.

use std::cell::RefCell;
use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::{Output, frontier_of};

/// What waits to be forwarded.
pub(super) type Tray = Rc<RefCell<Vec<Output>>>;

/// Sends off what is in `tray`. `after` is a stream of the operator that fills it: what it puts
/// there belongs to epochs that its frontier has not passed when it does.
pub(super) fn forward<'scope, D: Clone + 'static>(
    name: &str,
    after: StreamVec<'scope, u64, D>,
    tray: Tray,
) -> StreamVec<'scope, u64, Output> {
    let mut builder = OperatorBuilder::new(name.to_owned(), after.scope());
    let mut after = builder.new_input(after, Pipeline);
    let (output, forwarded) = builder.new_output();
    let mut output = OutputBuilder::<_, CapacityContainerBuilder<Vec<Output>>>::from(output);
    builder.build(move |capabilities| {
        let mut held: Option<Capability<u64>> = capabilities.into_iter().next();
        move |frontiers| {
            after.for_each(|_, _| {});
            if let Some(held) = &held
                && !tray.borrow().is_empty()
            {
                let mut rows = tray.take();
                output.activate().session(held).give_container(&mut rows);
            }
            match frontiers.iter().filter_map(frontier_of).min() {
                None => held = None,
                Some(frontier) => {
                    if let Some(held) = &mut held
                        && *held.time() < frontier
                    {
                        held.downgrade(&frontier);
                    }
                }
            }
        }
    });
    forwarded
}
