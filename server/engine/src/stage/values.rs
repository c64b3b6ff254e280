//! Takes multi-value strings apart for GROUP BY. Rows of one value, the usual case, pass through by reference.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, AsArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::plan_datafusion_err;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{UnnestOptions, internal_err};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::unnest::{ListUnnest, UnnestExec};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;

/// The function whose lists are never empty.
const VALUES: &str = "druid_mv_values";

/// Takes the lists of one column apart; no list is NULL or empty.
#[derive(Debug)]
pub(crate) struct ValuesExec {
    /// Knows schema and properties; its own way of work copies every column of every row.
    plan: Arc<UnnestExec>,
    column: usize,
}

impl ValuesExec {
    /// Takes apart the lists of a column; `schema` is that of the result.
    pub(crate) fn try_new(
        input: Arc<dyn ExecutionPlan>,
        column: usize,
        schema: SchemaRef,
    ) -> Result<ValuesExec> {
        let list = ListUnnest {
            index_in_input_schema: column,
            depth: 1,
        };
        let options = UnnestOptions::new().with_preserve_nulls(true);
        let plan = UnnestExec::new(input, vec![list], Vec::new(), schema, options)?;
        Ok(ValuesExec {
            plan: Arc::new(plan),
            column,
        })
    }

    /// Column of the lists.
    pub(crate) fn column(&self) -> usize {
        self.column
    }
}

/// Lets every plan that takes multi-value strings apart do it in this way.
pub(crate) fn by_reference(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = plan.transform_up(|node| {
        let Some(unnest) = node.downcast_ref::<UnnestExec>() else {
            return Ok(Transformed::no(node));
        };
        let [list] = unnest.list_column_indices() else {
            return Ok(Transformed::no(node));
        };
        let column = list.index_in_input_schema;
        if !unnest.struct_column_indices().is_empty() || !makes_values(unnest.input(), column) {
            return Ok(Transformed::no(node));
        }
        let values = ValuesExec::try_new(Arc::clone(unnest.input()), column, unnest.schema())?;
        Ok(Transformed::yes(Arc::new(values) as Arc<dyn ExecutionPlan>))
    })?;
    Ok(plan.data)
}

/// True if a column of a projection has the lists of [`VALUES`].
fn makes_values(plan: &Arc<dyn ExecutionPlan>, column: usize) -> bool {
    let Some(projection) = plan.downcast_ref::<ProjectionExec>() else {
        return false;
    };
    let expr = projection.expr().get(column).map(|item| &item.expr);
    expr.and_then(|expr| expr.downcast_ref::<ScalarFunctionExpr>())
        .is_some_and(|call| call.fun().name() == VALUES)
}

/// The rows of a batch, each once for each item of its list.
fn take_apart(batch: &RecordBatch, column: usize, schema: &SchemaRef) -> Result<RecordBatch> {
    let lists = batch
        .column(column)
        .as_list_opt::<i32>()
        .ok_or_else(|| plan_datafusion_err!("column {column} has no lists"))?;
    let offsets = lists.value_offsets();
    let (first, last) = (offsets[0], offsets[lists.len()]);
    let values = lists.values().slice(first as usize, (last - first) as usize);
    // No list is empty: as many values as rows means one in each.
    let single = values.len() == lists.len();
    let rows = (!single).then(|| {
        let rows = offsets
            .windows(2)
            .enumerate()
            .flat_map(|(row, pair)| std::iter::repeat_n(row as u32, (pair[1] - pair[0]) as usize));
        UInt32Array::from_iter_values(rows)
    });
    let columns = batch
        .columns()
        .iter()
        .enumerate()
        .map(|(index, array)| {
            if index == column {
                return Ok(Arc::clone(&values));
            }
            Ok(match &rows {
                Some(rows) => take(array, rows, None)?,
                None => Arc::clone(array),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(values.len()));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &options,
    )?)
}

impl DisplayAs for ValuesExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValuesExec: column={}", self.column)
    }
}

impl ExecutionPlan for ValuesExec {
    fn name(&self) -> &str {
        "ValuesExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.plan.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![self.plan.input()]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) if children.is_empty() => Ok(Arc::new(ValuesExec::try_new(
                input,
                self.column,
                self.plan.schema(),
            )?)),
            _ => internal_err!("multi-value strings are taken apart from one input"),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = self.plan.input().execute(partition, context)?;
        let (schema, column) = (self.plan.schema(), self.column);
        let out = Arc::clone(&schema);
        let apart = rows.map(move |batch| take_apart(&batch?, column, &out));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, apart)))
    }
}
