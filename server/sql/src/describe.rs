//! What a client may know of a statement before it gives values for its `?`.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::LogicalPlan;
use serde_json::Value;
use sqlparser::dialect::GenericDialect;
use sqlparser::tokenizer::{Token, Tokenizer};
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
        if let Ok(plan) = open_plan(parts, &statement, &catalog, &runtime) {
            for (index, parameter) in parameters.iter_mut().enumerate() {
                *parameter = type_at(&plan, index).unwrap_or(DataType::Utf8);
            }
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

/// The query with `$1`, `$2`, … in the places of its `?`.
fn open_plan(
    parts: Parts,
    statement: &Statement,
    catalog: &Arc<dyn Catalog>,
    runtime: &Arc<RuntimeEnv>,
) -> Result<LogicalPlan, ApiError> {
    let mut settings = statement.context.clone();
    settings.extend(parts.settings);
    let context = QueryContext::parse(settings)?;
    let engine = if parts.externs.is_empty() {
        Engine::Native
    } else {
        Engine::Task
    };
    let mut query = parts.query;
    let mut calls = parts
        .externs
        .iter()
        .map(|raw| raw.resolve(&[]))
        .collect::<Result<Vec<_>, _>>()?;
    for call in &mut calls {
        if call.signature.is_none() {
            call.signature = catalog.inferred_signature(call);
        }
    }
    relations::rewrite(&mut query, catalog.as_ref(), &calls)?;
    let tables = plan::tables(&query, &calls, catalog.as_ref(), engine, &mut Vec::new())?;
    names::name_columns(&mut query, parts.target.is_some());
    rewrite::rewrite(&mut query, &context, Bound::Open, plan::now_ms())?;
    let state = plan::session(&context, engine, Arc::clone(runtime))?;
    plan::logical_plan(*query, &|_| None, &state, tables)
}
