//! The state machines: who came into which fence, near which stop, and what became of orders.
//!
//! Owns each rule of the contract's section 3 as a pure function from (state, input) to
//! (state, outputs), one file a rule; [`OrderBook`] and [`Detector`] only keep the states and
//! bring them together with the inputs. Promises that events are a function of the inputs in
//! their merged order and of their epochs' `now`, whatever the number of workers. Never looks
//! at a clock, never does I/O, never allocates for an update that changes nothing. The
//! [`judge()`] of fixes is open to whoever shows drivers as the job sees them.
//!
//! ```text
//! OrderChange ──by order──> OrderBook ──OrderStep, by driver──┐
//! Update ───────by driver─────────────────────────────────────┼──> Detector ──> Event
//! FenceChange ──to every worker───────────────────────────────┘      ▲  └─────> Location
//!                                                                    │          with Flag
//!                                         Agenda: deadlines, releases ┘
//! ```
//!
//! Where the contract leaves a choice: a timer that a fix shows to be due by event time is
//! told at that fix, before what the fix sets off; only an `ok` fix shows that. A visit of 0 s
//! and an arrival of 0 s are told with their beginning, of the same cause. When a fence's new
//! version has a dwell that a visit has reached already, that is told at once, and the cause
//! is the fence. An order that begins a stay, the driver being at the target already, is what
//! the arrival is counted from and named after. Once some order of a driver is open, silence
//! is counted from there as long as any is.
//!
//! | file | rule |
//! |---|---|
//! | `sessions` | which updates are resent |
//! | `flags` | what an update is to its driver's history |
//! | `visits` | entering, dwelling in and leaving a fence |
//! | `legs` | which legs of an order a driver has, and had |
//! | `near` | coming near a leg's target |
//! | `stay` | arriving at a leg's target, and departing |
//! | `tiles` | where a driver need not be judged, since nothing can change there |
//! | `silence` | a driver that is no longer heard |
//! | `orders` | versions of an order, and what its drivers must know of them |
//! | `timers` | when a driver must be looked at though nothing comes |
//! | `judging` | an update or an order against a driver's visits and legs |
//! | `versions` | a fence's version against all drivers |
//! | `state` | drivers and orders as a snapshot has them |
//! | `ahead` | what updates that come soon will need |
//! | `detector` | one worker's drivers; records, releases and deadlines in one order |

mod ahead;
mod detector;
mod drivers;
mod fences;
mod flags;
mod judging;
mod legs;
mod near;
mod orders;
mod rules;
mod sessions;
mod silence;
mod state;
mod stay;
mod telling;
mod tiles;
mod timers;
mod versions;
mod visits;

#[cfg(test)]
mod ahead_tests;
#[cfg(test)]
mod detector_tests;
#[cfg(test)]
mod fences_tests;
#[cfg(test)]
mod flags_tests;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod oracle_tests;
#[cfg(test)]
mod oracle_world;
#[cfg(test)]
mod orders_tests;
#[cfg(test)]
mod state_tests;
#[cfg(test)]
mod stay_tests;
#[cfg(test)]
mod tiles_tests;

pub use detector::{Detector, Outputs};
pub use flags::{Spot, Verdict, judge};
pub use orders::{OrderBook, OrderStep};
pub use rules::Rules;
pub use state::{DriverState, OrderState, SessionsState};
