//! Which record has no `__time`: looked for again, once the job fails for it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::filter_record_batch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use tokio::runtime::Handle;
use trilith_input::{ExternSpec, ReadCounters, ReadOptions, Split, WarningSink};
use trilith_proto::fault::Fault;

use crate::stage::{Source, SourceExec, WorkOrderServices};

/// Rows that are looked at together.
const BATCH_ROWS: usize = 1_024;

/// What rows go through between the files and the output: nothing that merges or reorders them.
pub(crate) struct RowPath {
    spec: Arc<ExternSpec>,
    projection: Vec<usize>,
    splits: Vec<Split>,
    /// From the files to the output.
    steps: Vec<Step>,
    time_column: usize,
}

enum Step {
    Filter(Arc<dyn PhysicalExpr>, Option<Vec<usize>>),
    Project(Arc<dyn ExecutionPlan>),
}

impl RowPath {
    /// The way of the rows of a plan; none if they do not come straight from files.
    pub(crate) fn of(plan: &Arc<dyn ExecutionPlan>, time_column: usize) -> Option<RowPath> {
        let mut steps = Vec::new();
        let mut node = Arc::clone(plan);
        loop {
            if let Some(leaf) = node.downcast_ref::<SourceExec>() {
                let Source::External {
                    spec,
                    projection,
                    splits,
                } = leaf.source()
                else {
                    return None;
                };
                steps.reverse();
                return Some(RowPath {
                    spec: Arc::clone(spec),
                    projection: projection.clone(),
                    splits: splits.clone(),
                    steps,
                    time_column,
                });
            }
            if let Some(filter) = node.downcast_ref::<FilterExec>() {
                let projection = filter.projection().as_ref().map(|columns| columns.to_vec());
                steps.push(Step::Filter(Arc::clone(filter.predicate()), projection));
            } else if node.is::<ProjectionExec>() {
                steps.push(Step::Project(Arc::clone(&node)));
            } else if !node.is::<CooperativeExec>() {
                return None;
            }
            let child = match node.children().as_slice() {
                [child] => Arc::clone(child),
                _ => return None,
            };
            node = child;
        }
    }

    /// Reads the files again, up to the first record without `__time`, and says where it is and what it has.
    /// Blocking. None if it cannot be found.
    pub(crate) fn find(&self, services: &WorkOrderServices, handle: &Handle) -> Option<String> {
        let options = ReadOptions {
            batch_rows: BATCH_ROWS,
            remove_null_bytes: services.remove_null_bytes,
            cancel: services.cancel.clone(),
            ..ReadOptions::default()
        };
        for split in &self.splits {
            let mut before = 0;
            let mut found = None;
            let mut look = |batch: RecordBatch| {
                if services.cancel.is_cancelled() {
                    return ControlFlow::Break(());
                }
                let rows = batch.num_rows();
                if let Some(row) = self.first_without_time(&batch) {
                    found = Some(self.describe(split, before + row as u64 + 1, &batch, row));
                    return ControlFlow::Break(());
                }
                before += rows as u64;
                ControlFlow::Continue(())
            };
            trilith_input::read_split(
                &self.spec,
                split,
                &self.projection,
                &services.policy,
                &options,
                &ReadCounters::default(),
                &Silent,
                handle,
                &mut look,
            )
            .ok()?;
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Number of the row in the batch.
    fn first_without_time(&self, batch: &RecordBatch) -> Option<usize> {
        let mut rows = UInt32Array::from_iter_values(0..batch.num_rows() as u32);
        let mut batch = batch.clone();
        for step in &self.steps {
            match step {
                Step::Filter(predicate, projection) => {
                    let kept = predicate
                        .evaluate(&batch)
                        .ok()?
                        .into_array(batch.num_rows())
                        .ok()?;
                    let kept = kept.as_boolean_opt()?;
                    rows = arrow::compute::filter(&rows, kept).ok()?.as_primitive().clone();
                    batch = filter_record_batch(&batch, kept).ok()?;
                    if let Some(projection) = projection {
                        batch = batch.project(projection).ok()?;
                    }
                }
                Step::Project(node) => {
                    let projection = node.downcast_ref::<ProjectionExec>()?;
                    let columns: Vec<ArrayRef> = projection
                        .expr()
                        .iter()
                        .map(|column| column.expr.evaluate(&batch)?.into_array(batch.num_rows()))
                        .collect::<Result<_, _>>()
                        .ok()?;
                    batch = RecordBatch::try_new(projection.schema(), columns).ok()?;
                }
            }
        }
        let time = batch.columns().get(self.time_column)?;
        let place = (0..time.len()).find(|row| time.is_null(*row))?;
        rows.values().get(place).map(|row| *row as usize)
    }

    fn describe(&self, split: &Split, record: u64, batch: &RecordBatch, row: usize) -> String {
        let place = match split.uri() {
            Some(uri) if split.begins_file() => format!("{uri}, record {record}"),
            // The records before this piece of the file were counted by nobody.
            Some(uri) => format!("{uri}, a record in its middle"),
            None => format!("inline data, record {record}"),
        };
        let options = FormatOptions::default().with_null("NULL");
        let values: Vec<String> = self
            .sources()
            .into_iter()
            .filter_map(|column| {
                let schema = batch.schema();
                let name = schema.fields().get(column)?.name().clone();
                let array = batch.columns().get(column)?;
                let value = ArrayFormatter::try_new(array, &options)
                    .ok()?
                    .value(row)
                    .to_string();
                let end = value.floor_char_boundary(VALUE_BYTES);
                let quoted = match array.is_null(row) {
                    true => "NULL".to_owned(),
                    false => format!("'{}'", &value[..end]),
                };
                Some(format!("\"{name}\" is {quoted}"))
            })
            .collect();
        match values.is_empty() {
            true => place,
            false => format!("{place}, where {}", values.join(", ")),
        }
    }

    /// Columns of the files that `__time` is made of.
    fn sources(&self) -> BTreeSet<usize> {
        let mut columns = BTreeSet::from([self.time_column]);
        for step in self.steps.iter().rev() {
            columns = match step {
                Step::Filter(_, None) => columns,
                Step::Filter(_, Some(projection)) => columns
                    .iter()
                    .filter_map(|column| projection.get(*column).copied())
                    .collect(),
                Step::Project(node) => {
                    let Some(projection) = node.downcast_ref::<ProjectionExec>() else {
                        continue;
                    };
                    columns
                        .iter()
                        .filter_map(|column| projection.expr().get(*column))
                        .flat_map(|column| collect_columns(&column.expr))
                        .map(|column| column.index())
                        .collect()
                }
            };
        }
        columns
    }
}

/// Bytes of a value that the message shows.
const VALUE_BYTES: usize = 100;

/// What is wrong with other records was reported when they were read first.
struct Silent;

impl WarningSink for Silent {
    fn parse_error(&self, _message: &dyn Fn() -> String) -> Result<(), Fault> {
        Ok(())
    }
}
