//! Stages: DataFusion's physical plan cut at its exchanges, and what runs at each stage's leaves.

mod adaptive;
mod assign;
mod codec;
mod counters;
mod cut;
mod describe;
mod graph;
mod group_by;
mod joins;
mod paced;
mod prune;
mod read;
mod services;
mod source;
mod tables;
mod values;
mod windows;

pub use assign::{
    AUTO_BYTES_PER_WORKER, Assignment, AssignmentMode, StageOutputs, assign, assign_all, list_external,
    list_segments,
};
pub use codec::{decode_plan, encode_plan};
pub(crate) use codec::{decode_schema, encode_schema};
pub use counters::{ChannelProgress, StageCounters};
pub use cut::{CutOptions, Destination, cut};
pub use describe::{native_query_json, stages_json};
pub(crate) use graph::widest;
pub use graph::{OutputMode, OutputShuffle, StageGraph, StageSpec};
pub(crate) use prune::Pruning;
pub use services::{WorkOrderServices, fault_error, make_cooperative, task_context};
pub use source::{SegmentSlice, Source, SourceExec};
pub(crate) use tables::columns as table_columns;
pub use tables::{ExternTable, SegmentTable};
pub(crate) use values::by_reference;
