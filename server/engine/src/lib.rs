//! Stages, controller, worker: how a planned statement runs and what it leaves behind.
//!
//! `stage` cuts DataFusion's physical plan into stages, `kernel` decides, `controller` acts on what the
//! kernel decides, `worker` runs work orders in any process, `ingest` turns stage output into segments,
//! `report` shows all of it.

pub mod controller;
pub mod ingest;
pub mod kernel;
pub mod limits;
pub mod report;
pub mod stage;
pub mod trace;
pub mod worker;
