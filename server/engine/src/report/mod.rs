//! The task report, live and final, from what was measured.

mod build;

pub use build::{ReportParts, build};
