//! Relations and clauses that the planner does not know, as queries that it does: APPEND, PIVOT, UNPIVOT, FETCH.

use std::collections::HashMap;
use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, Expr, ExprWithAlias, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, LimitClause,
    NullInclusion, ObjectName, OrderByExpr, OrderByKind, PivotValueSource, Query, Select, SelectItem,
    SetExpr, Spanned, TableAlias, TableFactor, Value, VisitMut, VisitorMut,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;
use trilith_proto::error::ApiError;

use crate::catalog::{Catalog, ExternCall};
use crate::error::{at, validation};
use crate::extern_call::PLACEHOLDER;
use crate::provider::qualified;
use crate::subqueries;
use crate::windows;

/// Rewrites every query, the inner ones first.
pub(crate) fn rewrite(
    query: &mut Query,
    catalog: &dyn Catalog,
    calls: &[ExternCall],
) -> Result<(), ApiError> {
    subqueries::rewrite(query)?;
    let mut with = HashMap::new();
    let _all: ControlFlow<()> = sqlparser::ast::Visit::visit(query, &mut With(&mut with));
    let mut rewriter = Rewriter {
        columns: Columns { catalog, calls, with },
    };
    match VisitMut::visit(query, &mut rewriter) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Collects what WITH defines, at any depth.
struct With<'a>(&'a mut HashMap<String, (Query, TableAlias)>);

impl sqlparser::ast::Visitor for With<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for table in query.with.iter().flat_map(|with| &with.cte_tables) {
            let name = table.alias.name.value.clone();
            self.0.insert(name, (*table.query.clone(), table.alias.clone()));
        }
        ControlFlow::Continue(())
    }
}

struct Rewriter<'a> {
    columns: Columns<'a>,
}

impl VisitorMut for Rewriter<'_> {
    type Break = ApiError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<ApiError> {
        if let Some(order_by) = &query.order_by
            && let OrderByKind::Expressions(keys) = &order_by.kind
        {
            step(null_order(keys))?;
        }
        order_by_place(query);
        step(fetch(query))
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<ApiError> {
        subqueries::group_by_nothing(select);
        step(windows::check_select(select))
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<ApiError> {
        let replaced = match factor {
            TableFactor::TableFunction { expr, alias } => self.columns.append(expr, alias.take()),
            TableFactor::Table {
                sample: Some(_),
                name,
                ..
            } => Err(validation(format!(
                "TABLESAMPLE of [{name}] is not supported; filter rows, for instance with MOD of a column"
            ))),
            TableFactor::Pivot { .. } => self.columns.pivot(factor).map(Some),
            TableFactor::Unpivot { .. } => self.columns.unpivot(factor).map(Some),
            _ => Ok(None),
        };
        match replaced {
            Ok(Some(new)) => *factor = new,
            Ok(None) => {}
            Err(error) => return ControlFlow::Break(error),
        }
        ControlFlow::Continue(())
    }
}

fn step(result: Result<(), ApiError>) -> ControlFlow<ApiError> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

/// NULL comes first in ascending and last in descending order.
pub(crate) fn null_order(keys: &[OrderByExpr]) -> Result<(), ApiError> {
    for key in keys {
        let descending = key.options.asc == Some(false);
        let message = match (descending, key.options.nulls_first) {
            (true, Some(true)) => "DESCENDING ordering with NULLS FIRST is not supported!",
            (false, Some(false)) => "ASCENDING ordering with NULLS LAST is not supported!",
            _ => continue,
        };
        return Err(at(message, key.expr.span()));
    }
    Ok(())
}

/// FETCH FIRST n ROWS ONLY → LIMIT n
fn fetch(query: &mut Query) -> Result<(), ApiError> {
    let Some(fetch) = query.fetch.take() else {
        return Ok(());
    };
    if fetch.with_ties || fetch.percent {
        return Err(validation(
            "FETCH knows neither PERCENT nor WITH TIES; use RANK()",
        ));
    }
    let count = fetch
        .quantity
        .unwrap_or_else(|| Expr::Value(Value::Number("1".to_owned(), false).into()));
    match &mut query.limit_clause {
        Some(LimitClause::LimitOffset { limit, .. }) if limit.is_none() => *limit = Some(count),
        Some(_) => return Err(validation("a query has LIMIT or FETCH, not both")),
        None => {
            query.limit_clause = Some(LimitClause::LimitOffset {
                limit: Some(count),
                offset: None,
                limit_by: Vec::new(),
            });
        }
    }
    Ok(())
}

/// An expression of ORDER BY that is selected as well becomes its place: an alias may hide the columns in it
/// (SELECT SUM(n) AS n … ORDER BY SUM(n)).
fn order_by_place(query: &mut Query) {
    let (Some(order_by), SetExpr::Select(select)) = (&mut query.order_by, query.body.as_ref()) else {
        return;
    };
    let OrderByKind::Expressions(keys) = &mut order_by.kind else {
        return;
    };
    let selected: Option<Vec<&Expr>> = select
        .projection
        .iter()
        .map(|item| match item {
            SelectItem::ExprWithAlias { expr, .. } | SelectItem::UnnamedExpr(expr) => Some(expr),
            _ => None,
        })
        .collect();
    for key in keys {
        let plain = matches!(
            key.expr,
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Value(_)
        );
        let place = selected
            .as_ref()
            .and_then(|selected| selected.iter().position(|expr| **expr == key.expr));
        if let Some(place) = place
            && !plain
            && !key.expr.to_string().contains('?')
        {
            key.expr = Expr::Value(Value::Number((place + 1).to_string(), false).into());
        }
    }
}

fn is_append(name: &ObjectName) -> bool {
    name.to_string().eq_ignore_ascii_case("APPEND")
}

fn quoted(name: &str) -> String {
    Ident::with_quote('"', name).to_string()
}

fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// A query that is made here, with relations put into the places of its placeholders.
fn derived(sql: &str, tables: Vec<TableFactor>, alias: Option<TableAlias>) -> Result<TableFactor, ApiError> {
    struct Fill(std::vec::IntoIter<TableFactor>);
    impl VisitorMut for Fill {
        type Break = ();
        fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            if let TableFactor::Table { name, alias, .. } = factor
                && name.to_string() == HOLE
                && let Some(mut table) = self.0.next()
            {
                rename(&mut table, alias.take());
                *factor = table;
            }
            ControlFlow::Continue(())
        }
    }
    let broken = |error: sqlparser::parser::ParserError| {
        ApiError::internal(format!("a rewritten relation cannot be read: {error}"))
    };
    let dialect = GenericDialect {};
    let mut subquery = Parser::new(&dialect)
        .try_with_sql(sql)
        .and_then(|mut parser| parser.parse_query())
        .map_err(broken)?;
    let _all: ControlFlow<()> = VisitMut::visit(&mut subquery, &mut Fill(tables.into_iter()));
    Ok(TableFactor::Derived {
        lateral: false,
        subquery,
        alias,
        sample: None,
    })
}

const HOLE: &str = "__hole";

/// Gives a relation another name, unless it has one that its columns may be written with.
fn rename(table: &mut TableFactor, new: Option<TableAlias>) {
    let alias = match table {
        TableFactor::Table { alias, .. }
        | TableFactor::Derived { alias, .. }
        | TableFactor::NestedJoin { alias, .. } => alias,
        _ => return,
    };
    if alias.is_none() {
        *alias = new;
    }
}

/// Knows the names of columns.
struct Columns<'a> {
    catalog: &'a dyn Catalog,
    calls: &'a [ExternCall],
    with: HashMap<String, (Query, TableAlias)>,
}

impl Columns<'_> {
    fn append(&self, expr: &Expr, alias: Option<TableAlias>) -> Result<Option<TableFactor>, ApiError> {
        let Expr::Function(function) = expr else {
            return Ok(None);
        };
        if !is_append(&function.name) {
            let name = &function.name;
            return Err(validation(format!("No match found for table function [{name}]")));
        }
        let FunctionArguments::List(list) = &function.args else {
            return Err(append_takes());
        };
        self.append_args(&list.args, &function.name, alias).map(Some)
    }

    /// Rows of every table; a column that a table lacks is NULL.
    fn append_args(
        &self,
        args: &[FunctionArg],
        name: &ObjectName,
        alias: Option<TableAlias>,
    ) -> Result<TableFactor, ApiError> {
        let span = name
            .0
            .first()
            .and_then(|part| part.as_ident())
            .map(|name| name.span);
        let mut tables = Vec::new();
        for arg in args {
            let FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) = arg else {
                return Err(append_takes());
            };
            let Value::SingleQuotedString(table) = &value.value else {
                return Err(append_takes());
            };
            let columns = self.catalog.datasource_columns(table).ok_or_else(|| {
                let message = format!("Object '{table}' not found");
                span.map_or_else(|| validation(message.clone()), |span| at(message.clone(), span))
            })?;
            let columns: Vec<String> = columns.into_iter().map(|(name, _)| name).collect();
            tables.push((table.clone(), columns));
        }
        let mut all: Vec<&String> = Vec::new();
        for column in tables.iter().flat_map(|(_, columns)| columns) {
            if !all.contains(&column) {
                all.push(column);
            }
        }
        if all.is_empty() {
            return Err(append_takes());
        }
        let branches: Vec<String> = tables
            .iter()
            .map(|(table, columns)| {
                let selected: Vec<String> = all
                    .iter()
                    .map(|column| match columns.contains(column) {
                        true => quoted(column),
                        false => format!("NULL AS {}", quoted(column)),
                    })
                    .collect();
                format!("SELECT {} FROM {}", selected.join(", "), quoted(table))
            })
            .collect();
        derived(&branches.join(" UNION ALL "), Vec::new(), alias)
    }

    /// PIVOT (agg(x) AS a FOR c IN (v AS n)) → one aggregate with a FILTER for each value, grouped by the rest.
    fn pivot(&self, factor: &mut TableFactor) -> Result<TableFactor, ApiError> {
        let TableFactor::Pivot {
            table,
            aggregate_functions,
            value_column,
            value_source,
            alias,
            ..
        } = factor
        else {
            return Err(unnamed("PIVOT"));
        };
        let PivotValueSource::List(values) = value_source else {
            return Err(validation("PIVOT needs a list of literals after IN"));
        };
        let columns = self.of(table).ok_or_else(|| unnamed("PIVOT"))?;
        let mut used: Vec<String> = Vec::new();
        for expr in aggregate_functions
            .iter()
            .map(|call| &call.expr)
            .chain(value_column.iter())
        {
            let _all: ControlFlow<()> = sqlparser::ast::visit_expressions(expr, |expr| {
                match expr {
                    Expr::Identifier(name) => used.push(name.value.clone()),
                    Expr::CompoundIdentifier(parts) => {
                        used.extend(parts.last().map(|name| name.value.clone()))
                    }
                    _ => {}
                }
                ControlFlow::Continue(())
            });
        }
        let groups: Vec<String> = columns
            .iter()
            .filter(|column| !used.contains(column))
            .map(|column| quoted(column))
            .collect();
        let mut selected = groups.clone();
        for value in values.iter() {
            let condition = matches(value_column, &value.expr)?;
            for call in aggregate_functions.iter() {
                let Expr::Function(function) = &call.expr else {
                    return Err(validation("PIVOT needs aggregate functions before FOR"));
                };
                let mut function = function.clone();
                let both = match function.filter.take() {
                    Some(filter) => both(*filter, condition.clone()),
                    None => condition.clone(),
                };
                function.filter = Some(Box::new(both));
                selected.push(format!("{function} AS {}", quoted(&pivoted_name(value, call))));
            }
        }
        let by = match groups.is_empty() {
            true => String::new(),
            false => format!(" GROUP BY {}", groups.join(", ")),
        };
        let sql = format!("SELECT {} FROM {HOLE} AS __pivot{by}", selected.join(", "));
        derived(&sql, vec![table.as_ref().clone()], alias.take())
    }

    /// UNPIVOT (v FOR k IN (a AS 'A', b)) → each row once for each column, its name and value behind the rest.
    fn unpivot(&self, factor: &mut TableFactor) -> Result<TableFactor, ApiError> {
        let TableFactor::Unpivot {
            table,
            value,
            name,
            columns: taken,
            null_inclusion,
            alias,
        } = factor
        else {
            return Err(unnamed("UNPIVOT"));
        };
        let columns = self.of(table).ok_or_else(|| unnamed("UNPIVOT"))?;
        let measure = match value {
            Expr::Identifier(measure) => measure.value.clone(),
            other => {
                return Err(validation(format!(
                    "UNPIVOT needs one column for the values, not [{other}]"
                )));
            }
        };
        let mut sources = Vec::new();
        for item in taken.iter() {
            let Expr::Identifier(source) = &item.expr else {
                return Err(validation(format!(
                    "UNPIVOT takes plain columns, not [{}]",
                    item.expr
                )));
            };
            if !columns.contains(&source.value) {
                let message = format!("Column '{}' not found in any table", source.value);
                return Err(at(message, source.span));
            }
            let label = item.alias.as_ref().unwrap_or(source).value.clone();
            sources.push((source.value.clone(), label));
        }
        let rest: Vec<String> = columns
            .iter()
            .filter(|column| !sources.iter().any(|(source, _)| source == *column))
            .map(|column| quoted(column))
            .collect();
        let number = |index: usize| index.to_string();
        let (mut names, mut values, mut rows) = (String::new(), String::new(), Vec::new());
        for (index, (source, label)) in sources.iter().enumerate() {
            let number = number(index);
            names.push_str(&format!(" WHEN {number} THEN {}", text(label)));
            values.push_str(&format!(" WHEN {number} THEN {}", quoted(source)));
            rows.push(format!("({number})"));
        }
        let mut selected = rest;
        selected.push(format!("CASE __turn{names} END AS {}", quoted(&name.value)));
        selected.push(format!("CASE __turn{values} END AS {}", quoted(&measure)));
        let mut sql = format!(
            "SELECT {} FROM {HOLE} AS __unpivot CROSS JOIN (VALUES {}) AS __turns(__turn)",
            selected.join(", "),
            rows.join(", ")
        );
        if !matches!(null_inclusion, Some(NullInclusion::IncludeNulls)) {
            sql = format!("SELECT * FROM ({sql}) WHERE {} IS NOT NULL", quoted(&measure));
        }
        derived(&sql, vec![table.as_ref().clone()], alias.take())
    }

    /// Columns of a relation; none if they are not known before planning.
    fn of(&self, factor: &TableFactor) -> Option<Vec<String>> {
        let (columns, alias) = match factor {
            TableFactor::Table { name, alias, .. } => (self.of_name(name)?, alias),
            TableFactor::Derived { subquery, alias, .. } => (self.of_query(subquery)?, alias),
            _ => return None,
        };
        Some(renamed(columns, alias.as_ref()))
    }

    fn of_name(&self, name: &ObjectName) -> Option<Vec<String>> {
        let idents: Vec<String> = name
            .0
            .iter()
            .filter_map(|part| part.as_ident())
            .map(|ident| ident.value.clone())
            .collect();
        if let [one] = idents.as_slice() {
            if let Some((query, alias)) = self.with.get(one) {
                return Some(renamed(self.of_query(query)?, Some(alias)));
            }
            let number = one
                .strip_prefix(PLACEHOLDER)
                .and_then(|number| number.parse::<usize>().ok());
            if let Some(call) = number.and_then(|number| self.calls.get(number)) {
                let columns = call.signature.as_ref()?;
                return Some(columns.iter().map(|(name, _)| name.clone()).collect());
            }
        }
        let (schema, table) = qualified(&idents)?;
        let table = self.catalog.table(&schema, &table)?;
        Some(
            table
                .schema()
                .fields()
                .iter()
                .map(|field| field.name().clone())
                .collect(),
        )
    }

    fn of_query(&self, query: &Query) -> Option<Vec<String>> {
        self.of_body(&query.body)
    }

    fn of_body(&self, body: &SetExpr) -> Option<Vec<String>> {
        match body {
            SetExpr::Select(select) => self.of_select(select),
            SetExpr::Query(query) => self.of_query(query),
            SetExpr::SetOperation { left, .. } => self.of_body(left),
            SetExpr::Values(values) => {
                let width = values.rows.first()?.len();
                Some((1..=width).map(|number| format!("column{number}")).collect())
            }
            _ => None,
        }
    }

    fn of_select(&self, select: &Select) -> Option<Vec<String>> {
        let mut columns = Vec::new();
        for item in &select.projection {
            match item {
                SelectItem::ExprWithAlias { alias, .. } => columns.push(alias.value.clone()),
                SelectItem::UnnamedExpr(Expr::Identifier(name)) => columns.push(name.value.clone()),
                SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
                    columns.push(parts.last()?.value.clone());
                }
                SelectItem::Wildcard(_) => {
                    for from in &select.from {
                        columns.extend(self.of(&from.relation)?);
                        for join in &from.joins {
                            columns.extend(self.of(&join.relation)?);
                        }
                    }
                }
                _ => return None,
            }
        }
        Some(columns)
    }
}

fn renamed(columns: Vec<String>, alias: Option<&TableAlias>) -> Vec<String> {
    match alias {
        Some(alias) if !alias.columns.is_empty() => alias
            .columns
            .iter()
            .map(|column| column.name.value.clone())
            .collect(),
        _ => columns,
    }
}

fn append_takes() -> ApiError {
    validation("APPEND takes the names of datasources as literals: TABLE(APPEND('a', 'b'))")
}

fn unnamed(clause: &str) -> ApiError {
    validation(format!(
        "{clause} needs a table, or a subquery that names all of its columns"
    ))
}

fn both(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(Expr::Nested(Box::new(left))),
        op: BinaryOperator::And,
        right: Box::new(right),
    }
}

/// The condition of a value, or of as many values as there are columns.
fn matches(columns: &[Expr], value: &Expr) -> Result<Expr, ApiError> {
    let values: Vec<Expr> = match value {
        Expr::Tuple(values) => values.clone(),
        Expr::Nested(value) => vec![value.as_ref().clone()],
        value => vec![value.clone()],
    };
    if values.len() != columns.len() {
        return Err(validation(format!(
            "PIVOT has [{}] columns after FOR, but [{value}] has [{}] values",
            columns.len(),
            values.len()
        )));
    }
    let equal = columns.iter().zip(values).map(|(column, value)| Expr::BinaryOp {
        left: Box::new(column.clone()),
        op: BinaryOperator::Eq,
        right: Box::new(value),
    });
    equal
        .reduce(both)
        .ok_or_else(|| validation("PIVOT needs a column after FOR"))
}

/// The name of the value, and that of the aggregate behind it.
fn pivoted_name(value: &ExprWithAlias, call: &ExprWithAlias) -> String {
    let value = match (&value.alias, &value.expr) {
        (Some(alias), _) => alias.value.clone(),
        (None, Expr::Tuple(values)) => {
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            values.join("_")
        }
        (None, expr) => expr.to_string(),
    };
    match &call.alias {
        Some(alias) => format!("{value}_{}", alias.value),
        None => value,
    }
}
