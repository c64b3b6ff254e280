//! The controller's decisions as a pure state machine: no clock, no I/O, no async.

mod events;
mod progress;
mod publishing;
mod retry;
mod silence;
#[cfg(test)]
mod simulation;
mod state;
#[cfg(test)]
mod tests;

pub use events::{Action, Attempt, Event, FinishedStage, Held, HeldStep, Outcome, Phase, Shape, StageShape};
pub use progress::StageProgress;
pub use state::Kernel;
