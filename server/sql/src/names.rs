//! Names of output columns: aliases, plain columns, or `EXPR$<n>`.

use std::ops::ControlFlow;

use datafusion::common::Column;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr as Expression, LogicalPlan, LogicalPlanBuilder};
use sqlparser::ast::{
    Expr, Ident, ObjectName, Query, Select, SelectItem, SetExpr, TableAlias, TableAliasColumnDef,
    TableFactor, TableWithJoins, Values, Visit, Visitor, visit_expressions,
};
use sqlparser::tokenizer::Span;

/// The select that names the columns of a query.
pub(crate) fn outer_select(body: &mut SetExpr) -> Option<&mut Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::Query(query) => outer_select(&mut query.body),
        SetExpr::SetOperation { left, .. } => outer_select(left),
        _ => None,
    }
}

/// Gives every unnamed expression its name. Returns the names that were made up, and names that two columns
/// have.
pub(crate) fn name_columns(query: &mut Query, unique: bool) -> Names {
    let mut names = Names::default();
    name_inner(query);
    let Some(select) = outer_select(&mut query.body) else {
        return names;
    };
    let all = has_wildcard(select);
    if all {
        names.unnamed.extend(select.from.iter_mut().find_map(made_up));
    }
    let mut used: Vec<String> = Vec::new();
    for (index, item) in select.projection.iter_mut().enumerate() {
        if all {
            mark(item, index);
        }
        let Some(name) = named(item, index, &mut names.unnamed) else {
            continue;
        };
        if !used.contains(&name) {
            used.push(name);
            continue;
        }
        names.duplicates.push(name.clone());
        if !unique {
            rename(item, &name, &mut used);
        }
    }
    names
}

/// The name of an item; one without gets its own. None for wildcards.
fn named(item: &mut SelectItem, index: usize, made_up: &mut Vec<String>) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name.value.clone()),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
            Some(parts.last().map(|name| name.value.clone()).unwrap_or_default())
        }
        SelectItem::UnnamedExpr(_) => {
            let name = format!("EXPR${index}");
            made_up.push(name.clone());
            alias(item, &name);
            Some(name)
        }
        _ => None,
    }
}

/// Gives an item a name that no other has.
fn rename(item: &mut SelectItem, name: &str, used: &mut Vec<String>) {
    let fresh = fresh(name, used);
    alias(item, &fresh);
    used.push(fresh);
}

fn fresh(name: &str, used: &[String]) -> String {
    (0..)
        .map(|n| format!("{name}{n}"))
        .find(|fresh| !used.contains(fresh))
        .unwrap_or_default()
}

fn alias(item: &mut SelectItem, name: &str) {
    if let SelectItem::ExprWithAlias { expr, .. } | SelectItem::UnnamedExpr(expr) = item {
        *item = SelectItem::ExprWithAlias {
            expr: expr.clone(),
            alias: Ident::with_quote('"', name),
        };
    }
}

/// What follows the name of a column that stands beside a wildcard, which may have one of the same name.
const MARK: char = '\u{1}';

fn mark(item: &mut SelectItem, index: usize) {
    let column = matches!(
        item,
        SelectItem::UnnamedExpr(Expr::Identifier(_) | Expr::CompoundIdentifier(_))
    );
    if column && let Some(name) = named(item, index, &mut Vec::new()) {
        alias(item, &format!("{name}{MARK}{index}"));
    }
}

/// Gives every output column a name of its own: of two of one name, from two tables for instance, the second gets a
/// number.
pub(crate) fn distinct(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut used: Vec<String> = Vec::new();
    let mut changed = false;
    let columns = plan.schema().iter().map(|(table, field)| {
        let given = field.name();
        let own = given.split(MARK).next().unwrap_or(given);
        let name = match used.iter().any(|other| other == own) {
            true => fresh(own, &used),
            false => own.to_owned(),
        };
        used.push(name.clone());
        let column = Expression::Column(Column::new(table.cloned(), given));
        if name == *given {
            return column;
        }
        changed = true;
        column.alias(name)
    });
    let columns: Vec<Expression> = columns.collect();
    if !changed {
        return Ok(plan);
    }
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

/// Gives the unnamed columns of tables that are queries their names.
fn name_inner(query: &mut Query) {
    for table in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
        match table.query.body.as_ref() {
            SetExpr::Values(values) => place_names(&mut table.alias, width(values)),
            _ => name_table(&mut table.query),
        }
    }
    name_tables(&mut query.body);
}

/// True for VALUES without a SELECT around it.
pub(crate) fn has_no_names(body: &SetExpr) -> bool {
    match body {
        SetExpr::Values(_) => true,
        SetExpr::Query(query) => has_no_names(&query.body),
        SetExpr::SetOperation { left, .. } => has_no_names(left),
        _ => false,
    }
}

/// Names the columns of VALUES by their places.
pub(crate) fn by_place(plan: LogicalPlan) -> Result<LogicalPlan> {
    let columns = plan.schema().columns().into_iter().enumerate();
    let columns = columns.map(|(index, column)| Expression::Column(column).alias(format!("EXPR${index}")));
    let columns: Vec<Expression> = columns.collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

fn width(values: &Values) -> usize {
    values.rows.first().map_or(0, |row| row.len())
}

fn name_tables(body: &mut SetExpr) {
    match body {
        SetExpr::Query(query) => name_inner(query),
        SetExpr::SetOperation { left, right, .. } => {
            name_tables(left);
            name_tables(right);
        }
        SetExpr::Select(select) => {
            for table in &mut select.from {
                let joined = table.joins.iter_mut().map(|join| &mut join.relation);
                for factor in std::iter::once(&mut table.relation).chain(joined) {
                    name_factor(factor);
                }
            }
        }
        _ => {}
    }
}

fn name_factor(factor: &mut TableFactor) {
    match factor {
        TableFactor::Derived { subquery, alias, .. } => match subquery.body.as_ref() {
            SetExpr::Values(values) => name_by_place(alias, width(values)),
            _ => name_table(subquery),
        },
        TableFactor::UNNEST {
            alias, array_exprs, ..
        } => name_by_place(alias, array_exprs.len()),
        TableFactor::NestedJoin { table_with_joins, .. } => {
            let joined = table_with_joins.joins.iter_mut().map(|join| &mut join.relation);
            for factor in std::iter::once(&mut table_with_joins.relation).chain(joined) {
                name_factor(factor);
            }
        }
        _ => {}
    }
}

/// Names the columns of a table by their places if nothing else does.
fn name_by_place(alias: &mut Option<TableAlias>, count: usize) {
    let alias = alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: Ident::with_quote('"', "$table"),
        columns: Vec::new(),
        at: None,
    });
    place_names(alias, count);
}

fn place_names(alias: &mut TableAlias, count: usize) {
    if alias.columns.is_empty() {
        let names = (0..count).map(|index| Ident::with_quote('"', format!("EXPR${index}")));
        let columns = names.map(|name| TableAliasColumnDef {
            name,
            data_type: None,
        });
        alias.columns = columns.collect();
    }
}

fn name_table(query: &mut Query) {
    name_inner(query);
    let Some(select) = outer_select(&mut query.body) else {
        return;
    };
    let all = has_wildcard(select);
    let mut used: Vec<String> = Vec::new();
    for (index, item) in select.projection.iter_mut().enumerate() {
        if all {
            mark(item, index);
        }
        match named(item, index, &mut Vec::new()) {
            Some(name) if used.contains(&name) => rename(item, &name, &mut used),
            Some(name) => used.push(name),
            None => {}
        }
    }
}

fn has_wildcard(select: &Select) -> bool {
    let mut items = select.projection.iter();
    items.any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)))
}

/// A name that was made up in a table that is a query.
fn made_up(table: &mut TableWithJoins) -> Option<String> {
    let joined = table.joins.iter_mut().map(|join| &mut join.relation);
    std::iter::once(&mut table.relation)
        .chain(joined)
        .find_map(|factor| match factor {
            TableFactor::Derived { subquery, alias, .. }
                if alias.as_ref().is_none_or(|alias| alias.columns.is_empty()) =>
            {
                let select = outer_select(&mut subquery.body)?;
                select.projection.iter().find_map(|item| match item {
                    SelectItem::ExprWithAlias { alias, .. } if alias.value.starts_with("EXPR$") => {
                        Some(alias.value.clone())
                    }
                    _ => None,
                })
            }
            _ => None,
        })
}

/// What [`name_columns`] found.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub unnamed: Vec<String>,
    pub duplicates: Vec<String>,
}

/// Where a column, table or function of this name first stands.
pub(crate) fn find(node: &impl Visit, name: &str) -> Option<Span> {
    let flow = visit_expressions(node, |expr| {
        let found = match expr {
            Expr::Identifier(ident) => (ident.value == name).then_some(ident.span),
            Expr::CompoundIdentifier(parts) => {
                let last = parts.last().filter(|ident| ident.value == name);
                last.map(|ident| Span::new(parts.first().unwrap_or(ident).span.start, ident.span.end))
            }
            Expr::Function(function) => function
                .name
                .0
                .last()
                .and_then(|part| part.as_ident())
                .filter(|ident| ident.value.eq_ignore_ascii_case(name))
                .map(|ident| ident.span),
            _ => None,
        };
        match found.filter(|span| span.start.line > 0) {
            Some(span) => ControlFlow::Break(span),
            None => ControlFlow::Continue(()),
        }
    });
    match flow {
        ControlFlow::Break(span) => Some(span),
        ControlFlow::Continue(()) => None,
    }
}

/// Tables that a query names, as schema and name, with their places. Names of WITH are left out.
pub(crate) fn relations(query: &Query) -> Vec<(Vec<String>, Span)> {
    let mut found = Relations::default();
    let _all: ControlFlow<()> = query.visit(&mut found);
    found.found
}

#[derive(Default)]
struct Relations {
    /// WITH clauses of the queries around.
    with: Vec<With>,
    found: Vec<(Vec<String>, Span)>,
}

/// A WITH clause. A table of it sees those before it, and not itself.
struct With {
    names: Vec<String>,
    queries: Vec<*const Query>,
    /// How many of its tables are defined already.
    seen: usize,
}

impl Visitor for Relations {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let tables = || query.with.iter().flat_map(|with| &with.cte_tables);
        self.with.push(With {
            names: tables().map(|table| table.alias.name.value.clone()).collect(),
            queries: tables()
                .map(|table| std::ptr::from_ref(table.query.as_ref()))
                .collect(),
            seen: 0,
        });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.with.pop();
        if let Some(around) = self.with.last_mut()
            && let Some(next) = around.queries.get(around.seen)
            && std::ptr::eq(*next, query)
        {
            around.seen += 1;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let idents: Vec<&Ident> = relation.0.iter().filter_map(|part| part.as_ident()).collect();
        if let (Some(first), Some(last)) = (idents.first(), idents.last()) {
            let span = Span::new(first.span.start, last.span.end);
            let names: Vec<String> = idents.iter().map(|ident| ident.value.clone()).collect();
            let defined = match names.as_slice() {
                [one] => self
                    .with
                    .iter()
                    .any(|with| with.names.iter().take(with.seen).any(|name| name == one)),
                _ => false,
            };
            if !defined {
                self.found.push((names, span));
            }
        }
        ControlFlow::Continue(())
    }
}
