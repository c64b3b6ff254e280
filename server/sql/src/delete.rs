//! DELETE: a REPLACE of the time chunks that may hold such rows, by their other rows, laid out as they were.

use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::{Expr as Filter, LogicalPlan};
use serde_json::json;
use sqlparser::ast::{
    BinaryOperator, Expr, Ident, OrderByExpr, OrderByOptions, Query, Select, SetExpr, TableFactor,
    UnaryOperator, Value,
};
use trilith_proto::error::ApiError;
use trilith_proto::interval::{ETERNITY, Granularity, Interval};

use crate::ast::{call, text};
use crate::catalog::{Catalog, SegmentPlace};
use crate::error::validation;
use crate::names::outer_select;
use crate::plan::{Engine, Planned, Rollup, Statement, plan_parts};
use crate::statement::{self, Overwrite, Parts, Target};

/// Plans a DELETE, which was read as the SELECT of the rows that go.
pub(crate) fn plan(
    mut parts: Parts,
    mut statement: Statement,
    engine: Engine,
    catalog: Arc<dyn Catalog>,
    runtime: Arc<RuntimeEnv>,
) -> Result<Planned, ApiError> {
    if engine == Engine::Native {
        return Err(validation(
            "DELETE operations are not supported by requested SQL engine [native], consider using MSQ.",
        ));
    }
    let (datasource, condition) = read(&mut parts.query)?;
    let probe = Parts {
        explain: false,
        deletes: false,
        ..statement::parse(&statement.sql)?
    };
    let probe = plan_parts(
        probe,
        statement.clone(),
        engine,
        Arc::clone(&catalog),
        Arc::clone(&runtime),
    )?;
    let places = catalog.places(&datasource, &filters(&probe.plan, &datasource));
    let layout = Layout::of(&places)?;
    for (key, value) in layout.settings() {
        // What the statement says for itself wins.
        if !parts.settings.contains_key(key) {
            statement.context.entry(key).or_insert(value);
        }
    }
    let whole = layout.intervals.as_slice() == [ETERNITY];
    let mut kept = unless(condition);
    if places.is_empty() {
        kept = Expr::Value(Value::Boolean(false).into());
    } else if !whole {
        kept = both(kept, within(&layout.intervals));
    }
    if let Some(select) = outer_select(&mut parts.query.body) {
        select.selection = Some(kept);
    }
    parts.deletes = false;
    parts.target = Some(Target {
        datasource,
        // Nothing to replace: nothing is inserted.
        overwrite: (!places.is_empty()).then_some(Overwrite::Intervals(layout.intervals)),
    });
    parts.partitioned_by = Some(layout.granularity);
    parts.clustered_by = layout.clustered_by.iter().map(|name| ascending(name)).collect();
    let mut planned = plan_parts(parts, statement, engine, catalog, runtime)?;
    planned.deletes = true;
    if let Some(ingest) = &mut planned.ingest {
        // Rows that stay are written as they are.
        ingest.kept_order = (0..planned.columns.len()).collect();
        ingest.rollup = layout.rollup;
    }
    Ok(planned)
}

/// Datasource and condition.
fn read(query: &mut Query) -> Result<(String, Expr), ApiError> {
    let shape = || validation("DELETE takes one datasource and a condition: DELETE FROM t WHERE …");
    let bare = query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none()
        && query.with.is_none();
    let SetExpr::Select(select) = query.body.as_ref() else {
        return Err(shape());
    };
    let Select {
        from,
        group_by,
        having,
        ..
    } = select.as_ref();
    let grouped = *group_by != sqlparser::ast::GroupByExpr::Expressions(Vec::new(), Vec::new());
    let [table] = from.as_slice() else {
        return Err(shape());
    };
    let TableFactor::Table { name, .. } = &table.relation else {
        return Err(shape());
    };
    if !bare || grouped || having.is_some() || !table.joins.is_empty() {
        return Err(shape());
    }
    let names: Vec<String> = name
        .0
        .iter()
        .filter_map(|part| part.as_ident())
        .map(|name| name.value.clone())
        .collect();
    let datasource = match names.as_slice() {
        [table] if !table.starts_with(crate::extern_call::PLACEHOLDER) => table.clone(),
        [schema, table] if schema == "druid" => table.clone(),
        _ => {
            return Err(validation(format!(
                "Table [{}] does not support operation [DELETE] because it is not a Druid datasource",
                names.join(".")
            )));
        }
    };
    let all = Expr::Value(Value::Boolean(true).into());
    let condition = select.selection.clone().unwrap_or(all);
    Ok((datasource, condition))
}

/// What the scan of the datasource knows of the condition; nothing if there are several scans.
fn filters(plan: &LogicalPlan, datasource: &str) -> Vec<Filter> {
    let mut found: Vec<Vec<Filter>> = Vec::new();
    let _all = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && scan.table_name.table() == datasource
        {
            found.push(scan.filters.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    match found.len() {
        1 => found.pop().unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// True for rows of which the condition does not hold, or is unknown.
fn unless(condition: Expr) -> Expr {
    let holds = Expr::IsTrue(Box::new(Expr::Nested(Box::new(condition))));
    Expr::UnaryOp {
        op: UnaryOperator::Not,
        expr: Box::new(Expr::Nested(Box::new(holds))),
    }
}

fn both(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(left),
        op: BinaryOperator::And,
        right: Box::new(Expr::Nested(Box::new(right))),
    }
}

fn within(intervals: &[Interval]) -> Expr {
    let time = || Expr::Identifier(Ident::with_quote('"', "__time"));
    let each = intervals
        .iter()
        .map(|interval| call("time_in_interval", vec![time(), text(&interval.to_string())]));
    let any = each.reduce(|left, right| Expr::BinaryOp {
        left: Box::new(left),
        op: BinaryOperator::Or,
        right: Box::new(right),
    });
    any.unwrap_or_else(|| Expr::Value(Value::Boolean(false).into()))
}

fn ascending(name: &str) -> OrderByExpr {
    OrderByExpr {
        expr: Expr::Identifier(Ident::with_quote('"', name)),
        options: OrderByOptions {
            asc: None,
            nulls_first: None,
        },
        with_fill: None,
    }
}

/// How rewritten segments are laid out.
struct Layout {
    /// Sorted, neighbours joined.
    intervals: Vec<Interval>,
    granularity: Granularity,
    clustered_by: Vec<String>,
    sort_order: Vec<String>,
    rows_per_segment: u64,
    rollup: Option<Rollup>,
}

impl Layout {
    /// That of the segment with the most rows; the time chunks must have one granularity.
    fn of(places: &[SegmentPlace]) -> Result<Layout, ApiError> {
        let mut granularity: Option<(Granularity, Interval)> = None;
        let mut intervals: Vec<Interval> = Vec::new();
        for place in places {
            let own = Granularity::of(&place.interval).ok_or_else(|| {
                validation(format!(
                    "DELETE cannot rewrite the segments of [{}], which is no time chunk of a PARTITIONED BY; use REPLACE",
                    place.interval
                ))
            })?;
            match granularity {
                Some((known, other)) if known != own => {
                    return Err(validation(format!(
                        "DELETE would rewrite segments of the time chunks [{other}] and [{}], partitioned by {} and {}: delete from each of them with a condition on __time",
                        place.interval,
                        known.name(),
                        own.name()
                    )));
                }
                _ => granularity = Some((own, place.interval)),
            }
            intervals.push(place.interval);
        }
        intervals.sort();
        intervals.dedup();
        let mut joined: Vec<Interval> = Vec::new();
        for interval in intervals {
            match joined.last_mut() {
                Some(last) if last.end_ms == interval.start_ms => last.end_ms = interval.end_ms,
                _ => joined.push(interval),
            }
        }
        let largest = places.iter().max_by_key(|place| place.rows);
        Ok(Layout {
            intervals: joined,
            granularity: granularity.map_or(Granularity::All, |(granularity, _)| granularity),
            clustered_by: largest
                .map(|place| place.clustered_by.clone())
                .unwrap_or_default(),
            sort_order: largest.map(|place| place.sort_order.clone()).unwrap_or_default(),
            rows_per_segment: largest.map_or(0, |place| place.rows),
            rollup: largest.and_then(|place| place.rollup.clone()),
        })
    }

    /// Query context that makes the same layout.
    fn settings(&self) -> Vec<(&'static str, serde_json::Value)> {
        let mut settings = Vec::new();
        if self.rows_per_segment > 0 {
            settings.push(("rowsPerSegment", json!(self.rows_per_segment)));
        }
        if !self.sort_order.is_empty() {
            let by_time = self.sort_order.first().is_some_and(|name| name == "__time");
            settings.push(("segmentSortOrder", json!(self.sort_order)));
            settings.push(("forceSegmentSortByTime", json!(by_time)));
        }
        settings
    }
}
