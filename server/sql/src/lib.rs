//! Druid SQL in front of DataFusion: statements, validation, errors with positions, logical plans.

mod catalog;
mod context;
mod error;
mod extern_call;
mod ingest;
mod intervals;
mod multi_value;
mod names;
mod partitioning;
mod plan;
mod provider;
mod rewrite;
mod statement;
mod syntax;

pub use catalog::{Catalog, ExternCall};
pub use context::QueryContext;
pub use error::plain_message;
pub use plan::{
    ClusterKey, Engine, Ingest, MASK, OutputColumn, Planned, Rollup, SegmentSort, SqlParameter, Statement,
    StatementKind, plan,
};

#[cfg(test)]
mod tests;
