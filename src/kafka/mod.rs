//! (to come)

pub mod ready;
