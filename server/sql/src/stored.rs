//! What output columns become when they are stored: arrays, types that must stay, the order of rows.

use arrow::datatypes::DataType;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use trilith_proto::column::{self, ColumnType};
use trilith_proto::error::ApiError;

use crate::context::{ArrayIngestMode, QueryContext};
use crate::error::validation;
use crate::plan::{OutputColumn, SegmentSort};

fn refused<T>(message: String) -> Result<T> {
    Err(DataFusionError::Plan(message))
}

/// Applies `arrayIngestMode` to the output columns of an INSERT or REPLACE.
pub(crate) fn arrays(
    plan: LogicalPlan,
    mode: ArrayIngestMode,
    functions: &dyn FunctionRegistry,
) -> Result<LogicalPlan> {
    let is_array = |data_type: &DataType| matches!(data_type, DataType::List(_) | DataType::LargeList(_));
    let fields = plan.schema().fields();
    if mode == ArrayIngestMode::Array || !fields.iter().any(|field| is_array(field.data_type())) {
        return Ok(plan);
    }
    let mut columns = Vec::with_capacity(fields.len());
    for (field, column) in fields.iter().zip(plan.schema().columns()) {
        let name = field.name();
        let item = match column::of_field(field) {
            ColumnType::Array(item) => *item,
            _ => {
                columns.push(Expr::Column(column));
                continue;
            }
        };
        match (mode, item) {
            (ArrayIngestMode::Mvd, ColumnType::String) => {
                let made = functions.udf("array_to_mv")?.call(vec![Expr::Column(column)]);
                columns.push(made.alias(name));
            }
            (ArrayIngestMode::Mvd, item) => {
                return refused(format!(
                    "Column [{name}] is an ARRAY<{item}>, and numeric arrays can only be ingested when arrayIngestMode is set to [array], not [mvd]"
                ));
            }
            (_, item) => {
                return refused(format!(
                    "Column [{name}] is an ARRAY<{item}>, and arrays cannot be ingested when arrayIngestMode is set to [none]; set it to [array], or make a multi-value string with ARRAY_TO_MV"
                ));
            }
        }
    }
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

/// Output columns that are arrays.
pub(crate) fn lists(plan: &LogicalPlan) -> Vec<usize> {
    let fields = plan.schema().fields().iter().enumerate();
    fields
        .filter(|(_, field)| matches!(field.data_type(), DataType::List(_) | DataType::LargeList(_)))
        .map(|(index, _)| index)
        .collect()
}

/// Refuses to put an array where there are texts, and the other way round, and COMPLEX values beside others of which no
/// type holds both, unless `skipTypeVerification` names the column. `replaced`: nothing stays of what there is.
pub(crate) fn check_types(
    columns: &[OutputColumn],
    replaced: bool,
    existing: Option<Vec<(String, ColumnType)>>,
    context: &QueryContext,
) -> std::result::Result<(), ApiError> {
    let skipped = context.skip_type_verification()?;
    for (name, before) in existing.into_iter().flatten() {
        let new = columns.iter().find(|column| column.name == name);
        let Some(new) = new.filter(|_| !skipped.contains(&name)) else {
            continue;
        };
        let is_array = |column_type: &ColumnType| matches!(column_type, ColumnType::Array(_));
        let advice = match (&before, &new.column_type) {
            (ColumnType::String, after) if is_array(after) => {
                "make it a VARCHAR, with ARRAY_TO_MV or arrayIngestMode[mvd]"
            }
            (before, ColumnType::String) if is_array(before) => {
                "make it an ARRAY, for instance with MV_TO_ARRAY"
            }
            (before, after) if !replaced && before.least_restrictive(after).is_none() => {
                "no type holds the values of both; replace the old rows as well, with OVERWRITE ALL"
            }
            _ => continue,
        };
        return Err(validation(format!(
            "Cannot write into field[{name}] using type[{}] and arrayIngestMode[{}], since the existing type is[{before}]: {advice}, or put it into skipTypeVerification",
            new.column_type,
            context.array_ingest_mode().name(),
        )));
    }
    Ok(())
}

/// `segmentSortOrder` as columns of the output.
pub(crate) fn sort_order(
    columns: &[OutputColumn],
    context: &QueryContext,
) -> std::result::Result<SegmentSort, ApiError> {
    let force_by_time = context.force_segment_sort_by_time();
    let names = context.segment_sort_order()?;
    let wrong =
        |what: String| ApiError::invalid_input(format!("Query context key [segmentSortOrder] {what}"));
    if force_by_time && names.first().is_some_and(|name| name != "__time") {
        return Err(wrong(
            "must begin with [__time], unless forceSegmentSortByTime is set to false".to_owned(),
        ));
    }
    let mut order = Vec::with_capacity(names.len());
    for name in &names {
        let column = columns.iter().position(|column| column.name == *name);
        match column {
            Some(column) if !order.contains(&column) => order.push(column),
            Some(_) => return Err(wrong(format!("has the column [{name}] twice"))),
            // Without a column of its own every row has the same time.
            None if name == "__time" => {}
            None => {
                return Err(wrong(format!(
                    "has the column [{name}], which the statement does not select"
                )));
            }
        }
    }
    Ok(SegmentSort {
        force_by_time: force_by_time && names.is_empty(),
        order,
    })
}
