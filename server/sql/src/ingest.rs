//! Rules of INSERT and REPLACE, and what they mean for segments.

use arrow::datatypes::{DataType, TimeUnit};
use sqlparser::ast::{
    Expr, GroupByExpr, Ident, LimitClause, OrderBy, OrderByExpr, OrderByKind, Query, SelectItem, SetExpr,
    Value,
};
use trilith_proto::column;
use trilith_proto::error::ApiError;
use trilith_proto::interval::{ETERNITY, Granularity, Interval};
use trilith_proto::timed;

use crate::context::QueryContext;
use crate::error::{at, validation};
use crate::names::{Names, has_no_names, outer_select};
use crate::partitioning::{overwrite_intervals, with_quotes};
use crate::plan::{ClusterKey, Ingest, OutputColumn, Rollup, SqlParameter};
use crate::rollup::{Kept, keep_combinable};
use crate::statement::{Overwrite, Target};
use crate::stored;

/// Columns that only carry CLUSTERED BY expressions.
const HIDDEN: &str = "__cluster_";

/// An INSERT or REPLACE before its query is planned.
pub(crate) struct Draft {
    pub operation: &'static str,
    datasource: String,
    granularity: Granularity,
    concurrent: bool,
    overwrite: Option<Vec<Interval>>,
    keys: Vec<Key>,
    metrics: Vec<(String, &'static str)>,
    /// Columns of sketches and the aggregators that combine them.
    sketches: Vec<(String, &'static str)>,
    rolls_up: bool,
    query_granularity: Option<Granularity>,
    /// Columns that ARRAY_TO_MV makes.
    from_arrays: Vec<String>,
    hidden: usize,
    /// Keys that are expressions, as the statement has them.
    written: Vec<Option<String>>,
}

enum Key {
    Ordinal(usize),
    Name(Ident),
    Hidden(usize),
}

/// Checks the query and appends hidden columns to it.
pub(crate) fn draft(
    target: Target,
    query: &mut Query,
    names: &Names,
    partitioned_by: Option<Granularity>,
    clustered_by: &[OrderByExpr],
    parameters: &[SqlParameter],
    context: &QueryContext,
) -> Result<Draft, ApiError> {
    let operation = if target.overwrite.is_some() {
        "REPLACE"
    } else {
        "INSERT"
    };
    let granularity = partitioned_by.ok_or_else(|| {
        validation(format!(
            "Operation [{operation}] requires a PARTITIONED BY to be explicitly defined, but none was found."
        ))
    })?;
    check_query(operation, query, granularity, context)?;
    if has_no_names(&query.body) {
        return Err(validation(
            "Insertion requires columns to be named, but VALUES names none: SELECT * FROM (VALUES …) AS t(a, b)",
        ));
    }
    if let Some(name) = names.unnamed.first() {
        return Err(unnamed(name));
    }
    if let Some(name) = names.duplicates.first() {
        return Err(validation(format!("Duplicate field in SELECT: [{name}]")));
    }
    let overwrite = match &target.overwrite {
        None => None,
        Some(Overwrite::All) => Some(vec![ETERNITY]),
        Some(Overwrite::Intervals(intervals)) => Some(intervals.clone()),
        Some(Overwrite::Where { condition, .. }) => Some(overwrite_intervals(
            condition,
            granularity,
            parameters,
            &context.sql_time_zone(),
        )?),
    };
    let mut draft = Draft {
        operation,
        datasource: target.datasource,
        granularity,
        concurrent: context.concurrent_locks(operation)?,
        overwrite,
        keys: Vec::new(),
        metrics: Vec::new(),
        sketches: Vec::new(),
        rolls_up: false,
        query_granularity: None,
        from_arrays: from_arrays(query),
        hidden: 0,
        written: Vec::new(),
    };
    draft.rollup(query, context);
    draft.keys(query, clustered_by)?;
    if query.limit_clause.is_some() || query.fetch.is_some() {
        query.order_by = draft.order(clustered_by);
    }
    Ok(draft)
}

fn unnamed(name: &str) -> ApiError {
    validation(format!(
        "Insertion requires columns to be named, but generated column name[{name}] was found; use the AS keyword to \
         give the expression a name"
    ))
}

/// True for a name that the planner gives: EXPR$0.
fn is_generated(name: &str) -> bool {
    name.get(..5)
        .is_some_and(|start| start.eq_ignore_ascii_case("EXPR$"))
        && name.len() > 5
        && name[5..].bytes().all(|digit| digit.is_ascii_digit())
}

/// The error for an ordinal of CLUSTERED BY that is none.
pub(crate) fn not_positive(ordinal: impl std::fmt::Display) -> ApiError {
    validation(format!(
        "Ordinal [{ordinal}] specified in the CLUSTERED BY clause is invalid. It must be a positive integer."
    ))
}

fn check_query(
    operation: &str,
    query: &Query,
    granularity: Granularity,
    context: &QueryContext,
) -> Result<(), ApiError> {
    if query.order_by.is_some() {
        return Err(validation(format!(
            "Cannot use an ORDER BY clause on a Query of type [{operation}], use CLUSTERED BY instead"
        )));
    }
    let (limit, offset) = match &query.limit_clause {
        Some(LimitClause::LimitOffset { limit, offset, .. }) => (limit.is_some(), offset.is_some()),
        Some(LimitClause::OffsetCommaLimit { .. }) => (true, true),
        None => (false, false),
    };
    if offset {
        return Err(validation(format!(
            "Cannot use an OFFSET clause on a Query of type [{operation}]"
        )));
    }
    if (limit || query.fetch.is_some()) && granularity != Granularity::All {
        return Err(validation(format!(
            "{operation} queries with a LIMIT clause must use PARTITIONED BY ALL"
        )));
    }
    if context.sql_outer_limit().is_some() {
        return Err(validation(format!(
            "Context parameter [sqlOuterLimit] cannot be provided on operator [{operation}]"
        )));
    }
    Ok(())
}

impl Draft {
    /// A GROUP BY whose aggregates are kept in combinable form.
    fn rollup(&mut self, query: &mut Query, context: &QueryContext) {
        if context.finalize_aggregations() {
            return;
        }
        let SetExpr::Select(select) = query.body.as_mut() else {
            return;
        };
        let grouped = match &select.group_by {
            GroupByExpr::All(_) => true,
            GroupByExpr::Expressions(exprs, _) => !exprs.is_empty(),
        };
        if !grouped {
            return;
        }
        // Without the second setting the stored sketches are columns like others.
        self.rolls_up = !context.unnest_multi_values();
        for (column, kept) in keep_combinable(select) {
            match kept {
                Kept::Sketch(combine) => self.sketches.push((column, combine)),
                Kept::Value(combine) => self.metrics.push((column, combine)),
                Kept::Time(period) => self.query_granularity = period,
            }
        }
    }

    fn keys(&mut self, query: &mut Query, clustered_by: &[OrderByExpr]) -> Result<(), ApiError> {
        for key in clustered_by {
            let resolved = match &key.expr {
                Expr::Value(value) => match &value.value {
                    Value::Number(number, _) => match number.parse::<usize>() {
                        Ok(ordinal) if ordinal > 0 => Key::Ordinal(ordinal - 1),
                        _ => return Err(not_positive(number)),
                    },
                    other => {
                        return Err(validation(format!(
                            "CLUSTERED BY needs a column, not the literal [{other}]"
                        )));
                    }
                },
                Expr::Identifier(name) if selects(query, &name.value) => Key::Name(name.clone()),
                expr => {
                    let expr = expr.clone();
                    let Some(select) = plain_select(query) else {
                        return Err(validation(format!(
                            "CLUSTERED BY expression [{expr}] needs a plain SELECT; name the expression there and use its alias"
                        )));
                    };
                    let same = select.projection.iter().find_map(|item| match item {
                        SelectItem::ExprWithAlias {
                            expr: selected,
                            alias,
                        } if *selected == expr => Some(alias.clone()),
                        _ => None,
                    });
                    match same {
                        Some(name) => Key::Name(name),
                        None => {
                            let alias = Ident::with_quote('"', format!("{HIDDEN}{}", self.hidden));
                            select.projection.push(SelectItem::ExprWithAlias { expr, alias });
                            self.hidden += 1;
                            Key::Hidden(self.hidden - 1)
                        }
                    }
                }
            };
            self.keys.push(resolved);
        }
        Ok(())
    }

    /// The keys as an ORDER BY: with a LIMIT, CLUSTERED BY says which rows stay.
    fn order(&self, clustered_by: &[OrderByExpr]) -> Option<OrderBy> {
        let order = self.keys.iter().zip(clustered_by).map(|(key, given)| {
            let expr = match key {
                Key::Ordinal(_) => given.expr.clone(),
                Key::Name(name) => Expr::Identifier(name.clone()),
                Key::Hidden(index) => Expr::Identifier(Ident::with_quote('"', format!("{HIDDEN}{index}"))),
            };
            OrderByExpr {
                expr,
                ..given.clone()
            }
        });
        let order: Vec<_> = order.collect();
        (!order.is_empty()).then_some(OrderBy {
            kind: OrderByKind::Expressions(order),
            interpolate: None,
        })
    }

    /// Keeps how the keys that are expressions were written.
    pub(crate) fn keys_as_written(&mut self, clustered_by: &[OrderByExpr]) {
        let written = clustered_by.iter().map(|key| match &key.expr {
            Expr::Identifier(_) | Expr::Value(_) => None,
            expr => Some(with_quotes(expr)),
        });
        self.written = written.collect();
    }

    /// Columns of the query that are not stored.
    pub(crate) fn hidden(&self) -> usize {
        self.hidden
    }

    /// The finished ingestion, once the columns are known (hidden ones excluded).
    pub(crate) fn finish(
        self,
        columns: &[OutputColumn],
        types: &[DataType],
        lists: &[usize],
        context: &QueryContext,
    ) -> Result<Ingest, ApiError> {
        if let Some(column) = columns.iter().find(|column| is_generated(&column.name)) {
            return Err(unnamed(&column.name));
        }
        let time_column = columns.iter().position(|column| column.name == "__time");
        match time_column {
            Some(index) => {
                let is_time = matches!(
                    types.get(index),
                    Some(DataType::Timestamp(TimeUnit::Millisecond, _) | DataType::Timestamp(_, _))
                );
                let is_null = types.get(index) == Some(&DataType::Null);
                let sql_type = &columns[index].sql_type;
                if !is_time && !is_null || sql_type == "DATE" {
                    return Err(validation(format!(
                        "Field[__time] was the wrong type[{sql_type}], expected TIMESTAMP"
                    )));
                }
            }
            None if self.granularity != Granularity::All => {
                return Err(validation(format!(
                    "The granularity [{}] specified in the PARTITIONED BY clause of the {} query is different from ALL, so the query must select a column named __time",
                    self.granularity.name(),
                    self.operation
                )));
            }
            None => {}
        }
        let mut clustered_by = Vec::with_capacity(self.keys.len());
        for (place, key) in self.keys.iter().enumerate() {
            let column = match key {
                Key::Ordinal(index) => {
                    let known = (*index < columns.len()).then_some(*index);
                    known.ok_or_else(|| validation(format!(
                        "Ordinal [{}] specified in the CLUSTERED BY clause is invalid. It must be between 1 and {}",
                        index + 1,
                        columns.len()
                    )))?
                }
                Key::Name(name) => columns
                    .iter()
                    .position(|column| column.name == name.value)
                    .ok_or_else(|| {
                        at(
                            format!("Column '{}' not found in any table", name.value),
                            name.span,
                        )
                    })?,
                Key::Hidden(index) => columns.len() + index,
            };
            if Some(column) == time_column && place > 0 && context.force_segment_sort_by_time() {
                return Err(validation(
                    "Sort order (CLUSTERED BY) cannot include [__time] in position [".to_owned()
                        + &place.to_string()
                        + "] unless context parameter [forceSegmentSortByTime] is set to false",
                ));
            }
            let output_name = columns.get(column).map(|column| column.name.clone());
            let written = match (self.written.get(place), &output_name) {
                (Some(Some(written)), _) => written.clone(),
                (_, Some(name)) => name.clone(),
                _ => String::new(),
            };
            clustered_by.push(ClusterKey {
                column,
                output_name,
                written,
            });
        }
        let rollup = self.rolls_up.then(|| Rollup {
            metrics: self
                .metrics
                .iter()
                .filter_map(|(name, combine)| {
                    let column = columns.iter().find(|column| column.name == *name)?;
                    let kind = match timed::value_type(&column.column_type) {
                        Some(inside) => column::of_type(&inside),
                        None => column.column_type.clone(),
                    };
                    let kind = kind.to_string().to_ascii_lowercase();
                    Some((name.clone(), format!("{kind}{combine}")))
                })
                .chain(
                    self.sketches
                        .iter()
                        .map(|(name, combine)| (name.clone(), (*combine).to_owned())),
                )
                .collect(),
            query_granularity: self
                .query_granularity
                .map_or("NONE", Granularity::name)
                .to_owned(),
        });
        Ok(Ingest {
            datasource: self.datasource,
            granularity: self.granularity,
            concurrent: self.concurrent,
            overwrite: self.overwrite,
            time_column,
            clustered_by,
            hidden_columns: self.hidden,
            kept_order: columns
                .iter()
                .enumerate()
                .filter(|(index, column)| lists.contains(index) || self.from_arrays.contains(&column.name))
                .map(|(index, _)| index)
                .collect(),
            rollup,
            rows_per_segment: context.rows_per_segment(),
            segment_sort: stored::sort_order(columns, context)?,
        })
    }
}

/// True if the query has an output column of this name, or may have one behind a wildcard, or is no select.
fn selects(query: &mut Query, name: &str) -> bool {
    let Some(select) = plain_select(query) else {
        return true;
    };
    select.projection.iter().any(|item| match item {
        SelectItem::ExprWithAlias { alias, .. } => alias.value == name,
        SelectItem::UnnamedExpr(Expr::Identifier(column)) => column.value == name,
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
            parts.last().is_some_and(|column| column.value == name)
        }
        SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAliases { .. } => false,
        SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => true,
    })
}

/// Output columns that ARRAY_TO_MV makes: their values keep the order of the array.
fn from_arrays(query: &mut Query) -> Vec<String> {
    let Some(select) = outer_select(&mut query.body) else {
        return Vec::new();
    };
    let items = select.projection.iter();
    items
        .filter_map(|item| match item {
            SelectItem::ExprWithAlias {
                expr: Expr::Function(function),
                alias,
            } if function.name.to_string().eq_ignore_ascii_case("array_to_mv") => Some(alias.value.clone()),
            _ => None,
        })
        .collect()
}

/// The one select of a query without set operations.
fn plain_select(query: &mut Query) -> Option<&mut sqlparser::ast::Select> {
    match query.body.as_ref() {
        SetExpr::Select(select) if select.distinct.is_none() => outer_select(&mut query.body),
        _ => None,
    }
}
