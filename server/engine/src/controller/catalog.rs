//! What the planner knows: datasources as they are now, system tables, EXTERN.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::logical_expr::Expr;
use tracing::error;
use trilith_input::ExternSpec;
use trilith_metadata::{SegmentView, SegmentViews};
use trilith_proto::column::ColumnType;
use trilith_proto::error::ApiError;
use trilith_proto::fault::{Fault, FaultCode};
use trilith_segment::{SegmentRecord, ShardSpec};
use trilith_sql::{Catalog, ExternCall, Rollup, SegmentPlace};

use super::infer::{InferredSignatures, refused_header};
use super::job::Job;
use super::{Controller, system};
use crate::stage::{ExternTable, Pruning, SegmentSlice, SegmentTable, table_columns};

/// One consistent view of the metadata, for one statement.
pub(crate) struct Snapshot {
    controller: Arc<Controller>,
    views: SegmentViews,
    /// Columns of external data that the statement does not name.
    inferred: InferredSignatures,
}

impl Snapshot {
    pub(crate) fn new(controller: &Arc<Controller>) -> Snapshot {
        Snapshot {
            controller: Arc::clone(controller),
            views: controller.store.all_segments(),
            inferred: InferredSignatures::default(),
        }
    }

    pub(crate) fn controller(&self) -> &Controller {
        &self.controller
    }

    /// For a statement that leaves columns of external data to a sample.
    pub(crate) fn with_inferred(mut self, inferred: InferredSignatures) -> Snapshot {
        self.inferred = inferred;
        self
    }

    /// Datasources that have rows, or had them before a REPLACE left tombstones.
    pub(crate) fn datasources(&self) -> Vec<String> {
        let shown = self.views.iter().filter(|(_, view)| !view.visible().is_empty());
        shown.map(|(name, _)| name.clone()).collect()
    }

    /// Visible segments of a datasource.
    pub(crate) fn slices(&self, datasource: &str) -> Vec<SegmentSlice> {
        let visible = self.views.get(datasource).map_or(&[][..], |view| view.visible());
        visible.iter().map(SegmentSlice::from).collect()
    }

    /// Every used segment, and whether any part of it is visible.
    pub(crate) fn all_segments(&self) -> Vec<(Arc<SegmentRecord>, bool)> {
        self.views.values().flat_map(|view| segments_of(view)).collect()
    }

    /// Used segments of a datasource, and whether any part of each is visible.
    pub(crate) fn segments(&self, datasource: &str) -> Vec<(Arc<SegmentRecord>, bool)> {
        self.views
            .get(datasource)
            .map(|view| segments_of(view))
            .unwrap_or_default()
    }

    /// Columns of a datasource.
    pub(crate) fn columns(&self, datasource: &str) -> Option<Vec<(String, ColumnType)>> {
        let slices = self.slices(datasource);
        (!slices.is_empty()).then(|| table_columns(&slices))
    }
}

fn segments_of(view: &SegmentView) -> Vec<(Arc<SegmentRecord>, bool)> {
    let visible: HashSet<*const SegmentRecord> = view
        .visible()
        .iter()
        .map(|segment| Arc::as_ptr(&segment.record))
        .collect();
    view.used()
        .iter()
        .map(|segment| {
            let record = Arc::clone(&segment.record);
            let shown = visible.contains(&Arc::as_ptr(&record));
            (record, shown)
        })
        .collect()
}

fn place(record: &SegmentRecord) -> SegmentPlace {
    let layout = &record.layout;
    let clustered_by = match &record.shard_spec {
        // Older records only know what the shards say.
        ShardSpec::Range { dimensions, .. } if layout.clustered_by.is_empty() => dimensions.clone(),
        _ => layout.clustered_by.clone(),
    };
    let metrics = record
        .metrics
        .iter()
        .cloned()
        .zip(layout.aggregators.iter().cloned());
    SegmentPlace {
        interval: record.interval,
        rows: record.row_count,
        clustered_by,
        sort_order: layout.sort_order.clone(),
        rollup: layout.query_granularity.clone().map(|query_granularity| Rollup {
            metrics: metrics.collect(),
            query_granularity,
        }),
    }
}

/// A DELETE writes back the columns that there were when it was planned. Others that came while it waited would be lost.
pub(super) fn same_columns(job: &Job) -> Result<(), Fault> {
    let Some(ingest) = job.ingest().filter(|_| job.planned.deletes) else {
        return Ok(());
    };
    let view = job.state.lock().tables.get(&ingest.datasource).cloned();
    let slices: Vec<SegmentSlice> = view
        .iter()
        .flat_map(|view| view.visible())
        .map(SegmentSlice::from)
        .collect();
    let columns = &job.planned.columns;
    let known = |(name, column_type): &(String, ColumnType)| {
        let mut columns = columns.iter();
        columns.any(|column| column.name == *name && column.column_type == *column_type)
    };
    match table_columns(&slices).iter().find(|column| !known(column)) {
        None => Ok(()),
        Some((name, column_type)) => Err(Fault::new(
            FaultCode::QueryRuntimeError,
            serde_json::json!({}),
            format!(
                "Column [{name}] of type [{column_type}] came into datasource [{}] while the DELETE waited for its locks. Submit it again.",
                ingest.datasource
            ),
        )),
    }
}

impl Catalog for Snapshot {
    fn table(&self, schema: &str, name: &str) -> Option<Arc<dyn TableProvider>> {
        let table = match schema {
            "druid" => {
                let slices = self.slices(name);
                return (!slices.is_empty())
                    .then(|| Arc::new(SegmentTable::new(name, slices)) as Arc<dyn TableProvider>);
            }
            "sys" => system::sys(self, &self.controller, name)?,
            "INFORMATION_SCHEMA" => system::information(self, name)?,
            _ => return None,
        };
        match table {
            Ok(table) => Some(table),
            Err(error) => {
                error!(%error, schema, name, "system table cannot be built");
                None
            }
        }
    }

    fn table_names(&self, schema: &str) -> Vec<String> {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        match schema {
            "druid" => self.datasources(),
            "sys" => names(system::SYS),
            "INFORMATION_SCHEMA" => names(system::INFORMATION),
            _ => Vec::new(),
        }
    }

    fn external(&self, call: &ExternCall) -> Result<Arc<dyn TableProvider>, ApiError> {
        let signature = call.signature.as_deref().unwrap_or_default();
        let spec = ExternSpec::parse(&call.input_source, &call.input_format, signature)
            .map_err(|error| ApiError::invalid_input(error.to_string()).at(call.position))?;
        refused_header(&spec, &self.controller.worker_config.policy.allow_http_headers)
            .map_err(|error| error.at(call.position))?;
        Ok(Arc::new(ExternTable::new(spec)))
    }

    fn inferred_signature(&self, call: &ExternCall) -> Option<Vec<(String, ColumnType)>> {
        self.inferred.find(&call.input_source, &call.input_format)
    }

    fn places(&self, datasource: &str, filters: &[Expr]) -> Vec<SegmentPlace> {
        let kept = Pruning::of(filters, true).keep(self.slices(datasource));
        let kept = kept.into_iter().filter(|slice| !slice.record.is_tombstone());
        kept.map(|slice| place(&slice.record)).collect()
    }

    fn datasource_columns(&self, name: &str) -> Option<Vec<(String, ColumnType)>> {
        self.columns(name)
    }
}
