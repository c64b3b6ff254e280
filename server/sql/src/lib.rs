//! Druid SQL in front of DataFusion: statements, validation, errors with positions, logical plans.

mod any_value;
mod arguments;
mod arithmetic;
mod ast;
mod catalog;
mod complex;
mod constants;
mod context;
mod delete;
mod describe;
mod error;
mod extern_call;
mod forms;
mod index_spec;
mod ingest;
mod inner;
mod intervals;
mod lateral;
mod literals;
mod masking;
mod multi_value;
mod names;
mod order;
mod parameters;
mod partitioning;
mod plan;
mod provider;
mod relations;
mod reserved;
mod rewrite;
mod rollup;
mod settings;
mod statement;
mod stored;
mod subqueries;
mod syntax;
mod table_function;
mod windows;

pub use catalog::{Catalog, ExternCall, SegmentPlace};
pub use context::{ArrayIngestMode, QueryContext};
pub use describe::{Description, describe, kind};
pub use error::plain_message;
pub use masking::MASK;
pub use plan::{
    ClusterKey, Engine, Ingest, OutputColumn, Planned, Rollup, ScanSettings, SegmentSort, SqlParameter,
    Statement, StatementKind, externs_without_signature, plan,
};

#[cfg(test)]
mod tests;
