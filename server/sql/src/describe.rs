//! What a client may know of a statement before it gives values for its `?`.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::LogicalPlan;
use serde_json::Value;
use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, LimitClause, Query, UnaryOperator,
    Value as SqlValue, ValueWithSpan, Visit, Visitor,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::tokenizer::{Token, Tokenizer};
use trilith_proto::column;
use trilith_proto::error::ApiError;

use crate::catalog::Catalog;
use crate::context::QueryContext;
use crate::parameters::Bound;
use crate::plan::{self, Engine, SqlParameter, Statement, StatementKind};
use crate::statement::{self, Parts};
use crate::{names, relations, rewrite};

/// A statement as it looks without values.
#[derive(Debug, Clone)]
pub struct Description {
    /// What it is.
    pub kind: StatementKind,
    /// EXPLAIN PLAN FOR.
    pub explain: bool,
    /// Columns of its rows. None when it returns none, or when they depend on the values.
    pub schema: Option<SchemaRef>,
    /// Types of its `?`, in order, as far as their places tell; VARCHAR otherwise.
    pub parameters: Vec<DataType>,
}

/// What kind of statement it is, and whether it is an EXPLAIN. Errors: text that is no statement.
pub fn kind(sql: &str) -> Result<(StatementKind, bool), ApiError> {
    let parts = statement::parse(sql)?;
    Ok((kind_of(&parts), parts.explain))
}

fn kind_of(parts: &Parts) -> StatementKind {
    match &parts.target {
        _ if parts.deletes => StatementKind::Replace,
        None => StatementKind::Select,
        Some(target) if target.overwrite.is_none() => StatementKind::Insert,
        Some(_) => StatementKind::Replace,
    }
}

/// Describes a statement; its parameters are not looked at. Reads no data.
///
/// A SELECT is checked as far as that is possible without values, an INSERT or REPLACE only parsed.
pub fn describe(
    statement: Statement,
    catalog: Arc<dyn Catalog>,
    runtime: Arc<RuntimeEnv>,
) -> Result<Description, ApiError> {
    let parts = statement::parse(&statement.sql)?;
    let (kind, explain) = (kind_of(&parts), parts.explain);
    let count = placeholders(&statement.sql);
    let mut parameters = vec![DataType::Utf8; count];
    if count > 0 {
        // Types are a help: without them values are taken as texts.
        let (written, plan) = open_plan(parts, &statement, &catalog, &runtime)?;
        for (index, parameter) in parameters.iter_mut().enumerate() {
            let planned = || type_at(plan.as_ref()?, index);
            let found = written.get(&index).cloned().or_else(planned);
            *parameter = found.unwrap_or(DataType::Utf8);
        }
    }
    let schema = match (kind, explain) {
        (_, true) => Some(explained()),
        (StatementKind::Select, false) => {
            let nulls = Statement {
                parameters: parameters.iter().map(null).collect(),
                ..statement
            };
            match plan::plan(nulls, Engine::Native, catalog, runtime) {
                Ok(planned) => Some(Arc::clone(planned.plan.schema().inner())),
                // Where a value must be written out, as the period of TIME_FLOOR, NULL does not do.
                Err(_) if count > 0 => None,
                Err(error) => return Err(error),
            }
        }
        _ => None,
    };
    Ok(Description {
        kind,
        explain,
        schema,
        parameters,
    })
}

/// Columns of EXPLAIN PLAN FOR.
fn explained() -> SchemaRef {
    let names = ["PLAN", "RESOURCES", "ATTRIBUTES"];
    let fields = names.map(|name| Field::new(name, DataType::Utf8, true));
    Arc::new(Schema::new(fields.to_vec()))
}

fn placeholders(sql: &str) -> usize {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize();
    let is_placeholder = |token: &&Token| matches!(token, Token::Placeholder(_));
    tokens.map_or(0, |tokens| tokens.iter().filter(is_placeholder).count())
}

fn null(data_type: &DataType) -> SqlParameter {
    let sql_type = match data_type {
        DataType::Int64 => "BIGINT",
        DataType::Float64 => "DOUBLE",
        DataType::Boolean => "BOOLEAN",
        DataType::Timestamp(..) => "TIMESTAMP",
        _ => "VARCHAR",
    };
    SqlParameter {
        sql_type: sql_type.to_owned(),
        value: Value::Null,
    }
}

/// The type of a parameter, widened to one that values come in.
fn type_at(plan: &LogicalPlan, index: usize) -> Option<DataType> {
    let types = plan.get_parameter_types().ok()?;
    let found = types.get(&format!("${}", index + 1))?.clone()?;
    Some(match found {
        found if found.is_integer() => DataType::Int64,
        found if found.is_floating() => DataType::Float64,
        DataType::Boolean => DataType::Boolean,
        found @ DataType::Timestamp(..) => found,
        _ => DataType::Utf8,
    })
}

/// Types of parameters as their places in the text tell, by index.
type Written = HashMap<usize, DataType>;

/// Finds them.
struct Places<'a>(&'a mut Written);

impl Places<'_> {
    fn note(&mut self, expr: &Expr, data_type: DataType) {
        if let Expr::Value(ValueWithSpan {
            value: SqlValue::Placeholder(written),
            ..
        }) = expr
            && let Some(number) = written
                .strip_prefix('$')
                .and_then(|number| number.parse::<usize>().ok())
        {
            self.0.insert(number.saturating_sub(1), data_type);
        }
    }
}

impl Visitor for Places<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &query.limit_clause {
            let counts = limit.iter().chain(offset.iter().map(|offset| &offset.value));
            counts.for_each(|count| self.note(count, DataType::Int64));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::UnaryOp {
                op: UnaryOperator::Not,
                expr,
            } => self.note(expr, DataType::Boolean),
            Expr::Case {
                operand: None,
                conditions,
                ..
            } => {
                for when in conditions {
                    self.note(&when.condition, DataType::Boolean);
                }
            }
            Expr::Function(function) => {
                let FunctionArguments::List(list) = &function.args else {
                    return ControlFlow::Continue(());
                };
                let first = match function.name.to_string().to_ascii_lowercase().as_str() {
                    "druid_cast_bigint" | "millis_to_timestamp" => DataType::Int64,
                    "druid_cast_double" | "druid_cast_float" => DataType::Float64,
                    "druid_cast_boolean" => DataType::Boolean,
                    "druid_cast_timestamp"
                    | "druid_cast_date"
                    | "time_format"
                    | "time_floor"
                    | "time_ceil"
                    | "time_shift"
                    | "time_extract"
                    | "timestamp_to_millis" => column::time_type(),
                    _ => return ControlFlow::Continue(()),
                };
                if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))) = list.args.first() {
                    self.note(arg, first);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// The query with `$1`, `$2`, … in the places of its `?`: what its text tells of them, and its plan, if it can be
/// planned without values.
///
/// Errors: tables that are not there.
fn open_plan(
    parts: Parts,
    statement: &Statement,
    catalog: &Arc<dyn Catalog>,
    runtime: &Arc<RuntimeEnv>,
) -> Result<(Written, Option<LogicalPlan>), ApiError> {
    let mut written = Written::new();
    let mut settings = statement.context.clone();
    settings.extend(parts.settings);
    let context = QueryContext::parse(settings)?;
    let engine = if parts.externs.is_empty() {
        Engine::Native
    } else {
        Engine::Task
    };
    let mut query = parts.query;
    let calls: Result<Vec<_>, _> = parts.externs.iter().map(|raw| raw.resolve(&[])).collect();
    // An argument of EXTERN is a parameter.
    let Ok(mut calls) = calls else {
        return Ok((written, None));
    };
    for call in &mut calls {
        if call.signature.is_none() {
            call.signature = catalog.inferred_signature(call);
        }
    }
    relations::rewrite(&mut query, catalog.as_ref(), &calls)?;
    let tables = plan::tables(&query, &calls, catalog.as_ref(), engine, &mut Vec::new())?;
    names::name_columns(&mut query, parts.target.is_some());
    if rewrite::rewrite(&mut query, &context, Bound::Open, plan::now_ms()).is_err() {
        return Ok((written, None));
    }
    let _all: ControlFlow<()> = query.visit(&mut Places(&mut written));
    let state = plan::session(&context, engine, Arc::clone(runtime))?;
    Ok((
        written,
        plan::logical_plan(*query, &|_| None, &state, tables).ok(),
    ))
}
