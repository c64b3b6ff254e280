//! What the planner asks of its surroundings.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::logical_expr::Expr;
use serde_json::Value;
use trilith_proto::column::ColumnType;
use trilith_proto::error::{ApiError, Position};
use trilith_proto::interval::Interval;

use crate::plan::Rollup;

/// Tables that a statement may name.
pub trait Catalog: Send + Sync {
    /// A table of a schema ("druid", "sys", "INFORMATION_SCHEMA").
    fn table(&self, schema: &str, name: &str) -> Option<Arc<dyn TableProvider>>;
    /// Tables of a schema.
    fn table_names(&self, schema: &str) -> Vec<String>;
    /// EXTERN as a table.
    fn external(&self, call: &ExternCall) -> Result<Arc<dyn TableProvider>, ApiError>;
    /// Visible segments that may have rows which pass all filters, tombstones left out.
    fn places(&self, datasource: &str, filters: &[Expr]) -> Vec<SegmentPlace>;
    /// Columns of EXTERN without a signature, if the data were looked at before.
    fn inferred_signature(&self, _call: &ExternCall) -> Option<Vec<(String, ColumnType)>> {
        None
    }
    /// Columns of a datasource, `__time` first.
    fn datasource_columns(&self, name: &str) -> Option<Vec<(String, ColumnType)>>;
}

/// A segment, as far as it matters to whoever rewrites it.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentPlace {
    /// Its time chunk.
    pub interval: Interval,
    /// How many rows it has.
    pub rows: u64,
    /// Stored columns of CLUSTERED BY.
    pub clustered_by: Vec<String>,
    /// Columns that order the rows.
    pub sort_order: Vec<String>,
    /// It was rolled up.
    pub rollup: Option<Rollup>,
}

/// A call of EXTERN.
#[derive(Debug, Clone, PartialEq)]
pub struct ExternCall {
    /// First argument.
    pub input_source: Value,
    /// Second argument.
    pub input_format: Value,
    /// Third argument, or EXTEND. None: the columns are what a sample of the data has.
    pub signature: Option<Vec<(String, ColumnType)>>,
    /// Where the call stands.
    pub position: Position,
}
