//! Tables that the planner sees: EXTERN and datasources.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::Partitioning;
use datafusion::physical_plan::ExecutionPlan;
use trilith_input::ExternSpec;
use trilith_proto::column;
use trilith_sql::ScanSettings;

use super::prune::Pruning;
use super::source::{SegmentSlice, Source, SourceExec};

/// EXTERN as a table.
#[derive(Debug)]
pub struct ExternTable {
    spec: Arc<ExternSpec>,
    schema: SchemaRef,
}

impl ExternTable {
    /// A table with the signature's columns.
    pub fn new(spec: ExternSpec) -> ExternTable {
        let schema = spec.schema();
        ExternTable {
            spec: Arc::new(spec),
            schema,
        }
    }
}

fn planned_partitions(session: &dyn Session) -> Partitioning {
    Partitioning::UnknownPartitioning(session.config().target_partitions())
}

#[async_trait]
impl TableProvider for ExternTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all = (0..self.schema.fields().len()).collect();
        let projection = projection.cloned().unwrap_or(all);
        let schema = Arc::new(self.schema.project(&projection)?);
        let source = Source::External {
            spec: Arc::clone(&self.spec),
            projection,
            splits: Vec::new(),
        };
        Ok(Arc::new(SourceExec::new(
            source,
            schema,
            Vec::new(),
            planned_partitions(session),
        )))
    }
}

/// The visible segments of a datasource, as they were when the statement was planned.
#[derive(Debug)]
pub struct SegmentTable {
    datasource: String,
    segments: Vec<SegmentSlice>,
    schema: SchemaRef,
}

impl SegmentTable {
    /// A table whose columns are those of all its segments, `__time` first.
    pub fn new(datasource: &str, segments: Vec<SegmentSlice>) -> SegmentTable {
        let fields: Vec<_> = columns(&segments)
            .iter()
            .map(|(name, column_type)| column::to_field(name, column_type, name == "__time"))
            .collect();
        SegmentTable {
            datasource: datasource.to_owned(),
            segments,
            schema: Arc::new(Schema::new(fields)),
        }
    }
}

/// `__time`, then every column in the order of its first appearance, from the newest segment on. A column has the type
/// that can hold its values in all segments; where there is none, that of the newest.
pub(crate) fn columns(segments: &[SegmentSlice]) -> Vec<(String, column::ColumnType)> {
    let mut columns = vec![("__time".to_owned(), column::ColumnType::Long)];
    let mut places = HashMap::from([("__time", 0)]);
    let mut ordered: Vec<&SegmentSlice> = segments.iter().collect();
    ordered.sort_by(|a, b| b.record.version.cmp(&a.record.version));
    for (name, column_type) in ordered.iter().flat_map(|slice| &slice.record.columns) {
        match places.entry(name) {
            Entry::Vacant(place) => {
                place.insert(columns.len());
                columns.push((name.clone(), column_type.clone()));
            }
            Entry::Occupied(place) => {
                let (_, known) = &mut columns[*place.get()];
                if let Some(both) = known.least_restrictive(column_type) {
                    *known = both;
                }
            }
        }
    }
    columns
}

#[async_trait]
impl TableProvider for SegmentTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn statistics(&self) -> Option<Statistics> {
        let rows: u64 = self.segments.iter().map(|slice| slice.record.row_count).sum();
        let bytes: u64 = self.segments.iter().map(|slice| slice.record.size_bytes).sum();
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.num_rows = Precision::Inexact(rows as usize);
        statistics.total_byte_size = Precision::Inexact(bytes as usize);
        Some(statistics)
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(filters
            .iter()
            .map(|filter| match Pruning::helps(filter) {
                true => TableProviderFilterPushDown::Inexact,
                false => TableProviderFilterPushDown::Unsupported,
            })
            .collect())
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(projection) => Arc::new(self.schema.project(projection)?),
            None => Arc::clone(&self.schema),
        };
        let settings = session.config().get_extension::<ScanSettings>();
        let by_range = settings.is_none_or(|settings| settings.range_pruning);
        let pruning = Pruning::of(filters, by_range);
        let source = Source::Segments {
            datasource: self.datasource.clone(),
            segments: pruning.keep(self.segments.iter().cloned()),
            pruning,
        };
        Ok(Arc::new(SourceExec::new(
            source,
            schema,
            Vec::new(),
            planned_partitions(session),
        )))
    }
}
