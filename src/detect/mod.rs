//! The state machines: who came into which fence, near which stop, and what became of orders.
//!
//! Owns each rule of the contract's section 3 as a pure function from (state, input) to
//! (state, outputs), one file a rule; [`OrderBook`] and [`Detector`] only keep the states and
//! bring them together with the inputs. Promises that events are a function of the inputs in
//! their merged order and of their epochs' `now`, whatever the number of workers. Never looks
//! at a clock, never does I/O, never allocates for an update that changes nothing.
//!
//! ```text
//! OrderChange ──by order──> OrderBook ──OrderStep, by driver──┐
//! Update ───────by driver─────────────────────────────────────┼──> Detector ──> Event
//! FenceChange ──to every worker───────────────────────────────┘        └──────> Flag
//! ```
//!
//! | file | rule |
//! |---|---|
//! | `flags` | what an update is to its driver's history |
//! | `visits` | entering and leaving a fence |
//! | `legs` | which legs of an order a driver has, and had |
//! | `near` | coming near a leg's target |
//! | `orders` | versions of an order, and what its drivers must know of them |
//! | `detector` | one worker's drivers, and the order of events |

mod detector;
mod drivers;
mod fences;
mod flags;
mod judging;
mod legs;
mod near;
mod orders;
mod rules;
mod silence;
mod stay;
mod telling;
mod timers;
mod visits;

#[cfg(test)]
mod detector_tests;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod oracle_tests;
#[cfg(test)]
mod orders_tests;

pub use detector::{Detector, Outputs};
pub use orders::{OrderBook, OrderStep};
pub use rules::Rules;
