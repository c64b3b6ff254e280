//! The controller's decisions as a pure state machine: no clock, no I/O, no async.

mod state;
#[cfg(test)]
mod tests;

pub use state::{Action, Event, Kernel, Outcome, Phase, Shape, StageProgress, StageShape};
