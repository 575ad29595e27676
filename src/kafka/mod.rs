//! (to come)

pub mod admin;
pub mod ready;
