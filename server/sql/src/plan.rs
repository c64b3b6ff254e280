//! From SQL text to a checked, optimised logical plan.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::TreeNode;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::SessionConfig;
use datafusion::sql::planner::{NullOrdering, ParserOptions, SqlToRel};
use serde_json::{Map, Value, json};
use sqlparser::ast::{Query, Statement as Ast};
use sqlparser::tokenizer::Span;
use trilith_proto::column::{self, ColumnType};
use trilith_proto::error::ApiError;
use trilith_proto::interval::{ETERNITY, Granularity, Interval};

use crate::any_value;
use crate::arguments;
use crate::arithmetic::TextArithmetic;
use crate::catalog::{Catalog, ExternCall};
use crate::complex;
use crate::constants;
use crate::context::QueryContext;
use crate::delete;
use crate::error::{at, planning, validation};
use crate::extern_call::PLACEHOLDER;
use crate::ingest;
use crate::inner;
use crate::lateral;
use crate::literals;
use crate::masking::masked;
use crate::multi_value;
use crate::names;
use crate::order;
use crate::parameters::Bound;
use crate::provider::{Provider, qualified};
use crate::relations;
use crate::rewrite;
use crate::rollup;
use crate::statement::{self, Parts};
use crate::stored;

/// A statement as it is submitted.
#[derive(Debug, Clone, Default)]
pub struct Statement {
    /// Text.
    pub sql: String,
    /// Query context.
    pub context: Map<String, Value>,
    /// Values of `?`, in order.
    pub parameters: Vec<SqlParameter>,
    /// CURRENT_TIMESTAMP, in milliseconds since the epoch; none is the time of planning.
    pub now_ms: Option<i64>,
}

/// The value of a `?`.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlParameter {
    /// "VARCHAR", "BIGINT", …
    pub sql_type: String,
    /// As JSON.
    pub value: Value,
}

/// Who will run the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// As a task, in stages. No system tables.
    Task,
    /// At once, in one process. No INSERT or REPLACE.
    Native,
}

/// What kind of statement it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// Returns rows.
    Select,
    /// Appends rows.
    Insert,
    /// Replaces rows.
    Replace,
}

/// An output column.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputColumn {
    /// Name.
    pub name: String,
    /// Druid's native type.
    pub column_type: ColumnType,
    /// "VARCHAR", "BIGINT", "TIMESTAMP", …
    pub sql_type: String,
}

/// A key of CLUSTERED BY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterKey {
    /// Column of the plan's output; hidden ones come last.
    pub column: usize,
    /// Stored name; none if hidden.
    pub output_name: Option<String>,
    /// As the statement has it, ordinals by their names.
    pub written: String,
}

/// Aggregates that later rollups can combine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollup {
    /// Column and Druid's combining aggregator ("longSum").
    pub metrics: Vec<(String, String)>,
    /// "HOUR", or "NONE".
    pub query_granularity: String,
}

/// How rows are ordered inside a segment: by these columns, then by CLUSTERED BY, then by `__time`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSort {
    /// `__time` comes first.
    pub force_by_time: bool,
    /// `segmentSortOrder`, as columns of the output.
    pub order: Vec<usize>,
}

/// What INSERT and REPLACE write.
#[derive(Debug, Clone, PartialEq)]
pub struct Ingest {
    /// Its locks let INSERT and REPLACE of the same chunks run at the same time.
    pub concurrent: bool,
    /// Target.
    pub datasource: String,
    /// PARTITIONED BY.
    pub granularity: Granularity,
    /// None appends; eternity replaces everything.
    pub overwrite: Option<Vec<Interval>>,
    /// Column of the plan's output that becomes `__time`; none means the epoch.
    pub time_column: Option<usize>,
    /// CLUSTERED BY.
    pub clustered_by: Vec<ClusterKey>,
    /// Trailing output columns that only carry CLUSTERED BY expressions.
    pub hidden_columns: usize,
    /// Columns whose multi-value strings keep the order of their values; others are stored sorted.
    pub kept_order: Vec<usize>,
    /// Aggregates are kept combinable.
    pub rollup: Option<Rollup>,
    /// `rowsPerSegment`.
    pub rows_per_segment: u64,
    /// Order inside a segment.
    pub segment_sort: SegmentSort,
}

/// A planned statement.
pub struct Planned {
    /// What it is.
    pub kind: StatementKind,
    /// EXPLAIN PLAN FOR.
    pub explain: bool,
    /// Optimised plan.
    pub plan: LogicalPlan,
    /// Functions and settings for physical planning.
    pub state: SessionState,
    /// Output columns, hidden ones excluded.
    pub columns: Vec<OutputColumn>,
    /// INSERT and REPLACE only.
    pub ingest: Option<Ingest>,
    /// It is a DELETE: it writes the rows that stay, with all columns of the datasource as it is planned.
    pub deletes: bool,
    /// Query context, SET included.
    pub context: QueryContext,
    /// Tables read and written: name and kind, by name.
    pub resources: Vec<(String, &'static str)>,
    /// SQL, each password replaced by `MASK`.
    pub sql: String,
    /// Values of `?`, in order.
    pub parameters: Vec<SqlParameter>,
    /// `sqlQueryId`, or a new one.
    pub query_id: String,
    /// CURRENT_TIMESTAMP, in milliseconds since the epoch.
    pub now_ms: i64,
}

impl Planned {
    /// RESOURCES of EXPLAIN.
    pub fn resources_json(&self) -> Value {
        self.resources
            .iter()
            .map(|(name, kind)| json!({"name": name, "type": kind}))
            .collect()
    }

    /// ATTRIBUTES of EXPLAIN.
    pub fn attributes_json(&self) -> Value {
        let mut attributes = Map::new();
        let kind = match self.kind {
            StatementKind::Select => "SELECT",
            StatementKind::Insert => "INSERT",
            StatementKind::Replace => "REPLACE",
        };
        attributes.insert("statementType".to_owned(), json!(kind));
        if let Some(ingest) = &self.ingest {
            attributes.insert("targetDataSource".to_owned(), json!(ingest.datasource));
            attributes.insert("partitionedBy".to_owned(), ingest.granularity.to_json());
            if !ingest.clustered_by.is_empty() {
                let names: Vec<_> = ingest.clustered_by.iter().map(|key| &key.written).collect();
                attributes.insert("clusteredBy".to_owned(), json!(names));
            }
            if let Some(intervals) = &ingest.overwrite {
                let chunks = if intervals.as_slice() == [ETERNITY] {
                    "all".to_owned()
                } else {
                    intervals
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(",")
                };
                attributes.insert("replaceTimeChunks".to_owned(), json!(chunks));
            }
        }
        Value::Object(attributes)
    }
}

/// Calls of EXTERN that leave their columns to a sample of the data, in the order of the statement.
pub fn externs_without_signature(statement: &Statement) -> Result<Vec<ExternCall>, ApiError> {
    let externs = statement::parse(&statement.sql)?.externs;
    let values: Vec<Value> = statement
        .parameters
        .iter()
        .map(|parameter| parameter.value.clone())
        .collect();
    let calls = externs.iter().map(|raw| raw.resolve(&values));
    calls
        .filter(|call| !matches!(call, Ok(call) if call.signature.is_some()))
        .collect()
}

/// Parses, checks and plans a statement. Reads no data.
pub fn plan(
    statement: Statement,
    engine: Engine,
    catalog: Arc<dyn Catalog>,
    runtime: Arc<RuntimeEnv>,
) -> Result<Planned, ApiError> {
    let parts = statement::parse(&statement.sql)?;
    match parts.deletes {
        true => delete::plan(parts, statement, engine, catalog, runtime),
        false => plan_parts(parts, statement, engine, catalog, runtime),
    }
}

/// Checks and plans a statement that was taken apart.
pub(crate) fn plan_parts(
    parts: Parts,
    statement: Statement,
    engine: Engine,
    catalog: Arc<dyn Catalog>,
    runtime: Arc<RuntimeEnv>,
) -> Result<Planned, ApiError> {
    let Parts {
        settings,
        explain,
        deletes: _,
        target,
        mut query,
        externs,
        partitioned_by,
        clustered_by,
    } = parts;
    let mut context = statement.context;
    context.extend(settings);
    let context = QueryContext::parse(context)?;
    let query_id = context.query_id();
    let kind = match &target {
        None => StatementKind::Select,
        Some(target) if target.overwrite.is_none() => StatementKind::Insert,
        Some(_) => StatementKind::Replace,
    };
    if engine == Engine::Native && kind != StatementKind::Select {
        let name = if kind == StatementKind::Insert {
            "INSERT"
        } else {
            "REPLACE"
        };
        return Err(validation(format!(
            "{name} operations are not supported by requested SQL engine [native], consider using MSQ."
        )));
    }
    let values: Vec<Value> = statement
        .parameters
        .iter()
        .map(|parameter| parameter.value.clone())
        .collect();
    let mut calls = externs
        .iter()
        .map(|raw| raw.resolve(&values))
        .collect::<Result<Vec<_>, _>>()?;
    for call in &mut calls {
        if call.signature.is_none() {
            call.signature = catalog.inferred_signature(call);
        }
    }
    let mut resources: Vec<(String, &'static str)> = Vec::new();
    relations::rewrite(&mut query, catalog.as_ref(), &calls)?;
    let tables = tables(&query, &calls, catalog.as_ref(), engine, &mut resources)?;
    resources.sort();
    resources.dedup();
    if let Some(target) = &target {
        // Also when it is read as well.
        resources.push((target.datasource.clone(), "DATASOURCE"));
        resources.sort();
    }
    let names = names::name_columns(&mut query, target.is_some());
    let original = (query.clone(), clustered_by.clone());
    let place = |name: &str| names::find(&original.0, name).or_else(|| names::find(&original.1, name));
    let started_ms = statement.now_ms.unwrap_or_else(now_ms);
    let now_ms = context.current_timestamp_ms().unwrap_or(started_ms);
    let bound = Bound::Values(&statement.parameters);
    rewrite::rewrite(&mut query, &context, bound, now_ms)?;
    if target.is_none() {
        // Tasks can be asked for intermediate forms.
        if context.finalize_aggregations() || engine == Engine::Native {
            arguments::finalize_sketches(&mut query, context.finalize_outer_sketches());
        } else if let Some(select) = names::outer_select(&mut query.body) {
            rollup::keep_combinable(select);
        }
    }
    let draft = match target {
        Some(target) => {
            let mut keys = clustered_by;
            rewrite_keys(&mut keys, &context, now_ms)?;
            let mut draft = ingest::draft(
                target,
                &mut query,
                &names,
                partitioned_by,
                &keys,
                &statement.parameters,
                &context,
            )?;
            draft.keys_as_written(&original.1);
            Some(draft)
        }
        None => None,
    };
    let state = session(&context, engine, runtime)?;
    let nameless = names::has_no_names(&query.body);
    let mut plan = logical_plan(*query, &place, &state, tables)?;
    if nameless {
        plan = names::by_place(plan).map_err(|error| planning(&error, place))?;
    }
    let plan = names::distinct(plan).map_err(|error| planning(&error, place))?;
    let plan = match context.sql_outer_limit() {
        Some(limit) => LogicalPlanBuilder::from(plan)
            .limit(0, Some(limit as usize))
            .and_then(LogicalPlanBuilder::build)
            .map_err(|error| planning(&error, |_| None))?,
        None => plan,
    };
    let lists: Vec<usize> = stored::lists(&plan);
    let plan = match &draft {
        Some(_) => stored::arrays(plan, context.array_ingest_mode(), &state)
            .map_err(|error| planning(&error, |_| None))?,
        None => plan,
    };
    if !reads_system_tables(&plan) {
        multi_value::refuse_text_extremes(&plan).map_err(|error| planning(&error, place))?;
    }
    multi_value::refuse_mixed_arrays(&plan).map_err(|error| planning(&error, place))?;
    complex::refuse_misuse(&plan).map_err(|error| planning(&error, place))?;
    let unnest = context.unnest_multi_values();
    let plan = lateral::unnest(plan, &state)
        .and_then(inner::beside)
        .and_then(|plan| order::by_keys(plan, engine == Engine::Native))
        .and_then(|plan| lateral::single_rows(plan, &state))
        .and_then(|plan| literals::conform(plan, &state, &context.sql_time_zone()))
        .map_err(|error| planning(&error, place))?;
    let plan = state
        .analyzer()
        .execute_and_check(plan, state.config_options(), |_, _| {})
        .and_then(|plan| multi_value::lenient_casts(plan, &state, &context.sql_time_zone()))
        .and_then(|plan| constants::refuse_unsupported(&plan, &state).map(|()| plan))
        .and_then(|plan| any_value::with_constants(plan, &state))
        .and_then(|plan| multi_value::group(plan, &state, unnest))
        .and_then(|plan| state.optimize(&plan))
        .and_then(|plan| multi_value::compare(plan, &state, unnest))
        .and_then(|plan| constants::check_aggregates(&plan, &state).map(|()| plan))
        .map_err(|error| planning(&error, place))?;
    let hidden = draft.as_ref().map_or(0, ingest::Draft::hidden);
    let fields = plan.schema().fields();
    let visible = fields.len().saturating_sub(hidden);
    let columns: Vec<OutputColumn> = fields
        .iter()
        .take(visible)
        .map(|field| OutputColumn {
            name: field.name().clone(),
            column_type: column::of_field(field),
            sql_type: column::sql_type(field),
        })
        .collect();
    let types: Vec<_> = fields
        .iter()
        .take(visible)
        .map(|field| field.data_type().clone())
        .collect();
    let ingest = draft
        .map(|draft| draft.finish(&columns, &types, &lists, &context))
        .transpose()?;
    if let Some(ingest) = &ingest {
        let existing = catalog.datasource_columns(&ingest.datasource);
        let replaced = ingest.overwrite.as_deref() == Some(&[ETERNITY]);
        stored::check_types(&columns, replaced, existing, &context)?;
    }
    let sql = masked(&statement.sql);
    Ok(Planned {
        kind,
        explain,
        plan,
        state,
        columns,
        ingest,
        deletes: false,
        context,
        resources,
        sql,
        parameters: statement.parameters,
        query_id,
        now_ms: started_ms,
    })
}

pub(crate) fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

/// CLUSTERED BY expressions get the same rewrites as the query, so that equal ones stay equal.
fn rewrite_keys(
    keys: &mut [sqlparser::ast::OrderByExpr],
    context: &QueryContext,
    now_ms: i64,
) -> Result<(), ApiError> {
    for key in keys {
        let mut query = statement::parse("SELECT 1")?.query;
        if let Some(select) = names::outer_select(&mut query.body) {
            select.projection = vec![sqlparser::ast::SelectItem::UnnamedExpr(key.expr.clone())];
        }
        rewrite::rewrite(&mut query, context, Bound::Values(&[]), now_ms)?;
        if let Some(select) = names::outer_select(&mut query.body)
            && let Some(sqlparser::ast::SelectItem::UnnamedExpr(expr)) = select.projection.pop()
        {
            key.expr = expr;
        }
    }
    Ok(())
}

/// System tables hold texts whose extremes make sense.
fn reads_system_tables(plan: &LogicalPlan) -> bool {
    plan.exists(|node| {
        Ok(matches!(node, LogicalPlan::TableScan(scan)
            if matches!(scan.table_name.schema(), Some("sys" | "INFORMATION_SCHEMA"))))
    })
    .unwrap_or(false)
}

pub(crate) type Tables = HashMap<(String, String), Arc<dyn TableProvider>>;

/// Every table that the query names.
pub(crate) fn tables(
    query: &Query,
    calls: &[ExternCall],
    catalog: &dyn Catalog,
    engine: Engine,
    resources: &mut Vec<(String, &'static str)>,
) -> Result<Tables, ApiError> {
    let mut tables = Tables::new();
    for (names, span) in names::relations(query) {
        let written = names.join(".");
        let (schema, name) =
            qualified(&names).ok_or_else(|| at(format!("Object '{written}' not found"), span))?;
        if let Some(call) = extern_number(&name).and_then(|number| calls.get(number)) {
            if engine == Engine::Native {
                return Err(at(
                    "Cannot use [EXTERN] with SQL engine [native]; submit the statement as a task, at /druid/v2/sql/task",
                    span,
                ));
            }
            tables.insert((schema, name), catalog.external(call)?);
            resources.push(("EXTERNAL".to_owned(), "EXTERNAL"));
            continue;
        }
        if engine == Engine::Task && matches!(schema.as_str(), "sys" | "INFORMATION_SCHEMA") {
            return Err(validation(format!(
                "Cannot query table(s) [{schema}.{name}] with SQL engine [msq-task]"
            )));
        }
        let missing = names.last().cloned().unwrap_or_default();
        let table = catalog.table(&schema, &name).ok_or_else(|| {
            let message = match names.len() {
                1 => format!("Object '{missing}' not found"),
                _ => format!("Object '{missing}' not found within '{}'", names[names.len() - 2]),
            };
            at(message, span)
        })?;
        if schema == "druid" {
            resources.push((name.clone(), "DATASOURCE"));
        }
        tables.insert((schema, name), table);
    }
    Ok(tables)
}

fn extern_number(name: &str) -> Option<usize> {
    name.strip_prefix(PLACEHOLDER)?.parse().ok()
}

/// What scans of datasources need to know of the statement; an extension of the planning session.
#[derive(Debug, Clone, Copy)]
pub struct ScanSettings {
    /// Segments outside the ranges of a filter are left out.
    pub range_pruning: bool,
}

/// Two planned partitions make DataFusion plan exchanges, which become stages; one keeps it in one piece.
pub(crate) fn session(
    context: &QueryContext,
    engine: Engine,
    runtime: Arc<RuntimeEnv>,
) -> Result<SessionState, ApiError> {
    let partitions = if engine == Engine::Task { 2 } else { 1 };
    let mut config = SessionConfig::new()
        .with_batch_size(8_192)
        .with_target_partitions(partitions)
        .with_round_robin_repartition(false)
        .with_extension(Arc::new(ScanSettings {
            range_pruning: context.range_pruning(),
        }));
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.map_string_types_to_utf8view = false;
    "nulls_min".clone_into(&mut options.sql_parser.default_null_ordering);
    options.optimizer.prefer_hash_join = !context.sort_merge_join();
    options.optimizer.prefer_existing_union = true;
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    options.optimizer.repartition_file_scans = false;
    // One slot is one thread: rows are spread by stages, not inside a join.
    let mut state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .build();
    trilith_functions::register(&mut state)
        .map_err(|error| ApiError::internal(format!("functions cannot be registered: {error}")))?;
    // Names that are equal except for case are the same function.
    debug_assert!(state.udfs().contains("time_floor"));
    Ok(state)
}

pub(crate) fn logical_plan(
    query: Query,
    place: &dyn Fn(&str) -> Option<Span>,
    state: &SessionState,
    tables: Tables,
) -> Result<LogicalPlan, ApiError> {
    let arithmetic = TextArithmetic::new(state).map_err(|error| planning(&error, place))?;
    let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(arithmetic)];
    planners.extend(state.expr_planners().iter().cloned());
    let provider = Provider {
        state,
        tables,
        planners,
    };
    let options = ParserOptions {
        parse_float_as_decimal: false,
        enable_ident_normalization: false,
        support_varchar_with_length: true,
        enable_options_value_normalization: false,
        collect_spans: true,
        map_string_types_to_utf8view: false,
        default_null_ordering: NullOrdering::NullsMin,
    };
    let planner = SqlToRel::new_with_options(&provider, options);
    planner
        .sql_statement_to_plan(Ast::Query(Box::new(query)))
        .map_err(|error| planning(&error, place))
}
