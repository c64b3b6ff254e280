//! Names of output columns: aliases, plain columns, or `EXPR$<n>`.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Ident, Query, Select, SelectItem, SetExpr, TableFactor, TableWithJoins, Visit, visit_expressions,
    visit_relations,
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
    let all = select
        .projection
        .iter()
        .any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    if all {
        names.unnamed.extend(select.from.iter_mut().find_map(made_up));
    }
    let mut used: Vec<String> = Vec::new();
    for (index, item) in select.projection.iter_mut().enumerate() {
        let name = match item {
            SelectItem::ExprWithAlias { alias, .. } => alias.value.clone(),
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => name.value.clone(),
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
                parts.last().map(|name| name.value.clone()).unwrap_or_default()
            }
            SelectItem::UnnamedExpr(expr) => {
                let name = format!("EXPR${index}");
                names.unnamed.push(name.clone());
                let expr = expr.clone();
                *item = SelectItem::ExprWithAlias {
                    expr,
                    alias: Ident::with_quote('"', name.clone()),
                };
                name
            }
            _ => continue,
        };
        if !used.contains(&name) {
            used.push(name);
            continue;
        }
        names.duplicates.push(name.clone());
        if unique {
            continue;
        }
        let fresh = (0..)
            .map(|n| format!("{name}{n}"))
            .find(|fresh| !used.contains(fresh))
            .unwrap_or_default();
        used.push(fresh.clone());
        let expr = match item {
            SelectItem::ExprWithAlias { expr, .. } | SelectItem::UnnamedExpr(expr) => expr.clone(),
            _ => continue,
        };
        *item = SelectItem::ExprWithAlias {
            expr,
            alias: Ident::with_quote('"', fresh),
        };
    }
    names
}

/// Gives the unnamed columns of tables that are queries their names.
fn name_inner(query: &mut Query) {
    for table in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
        name_table(&mut table.query);
    }
    name_tables(&mut query.body);
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
                    if let TableFactor::Derived { subquery, .. } = factor {
                        name_table(subquery);
                    }
                }
            }
        }
        _ => {}
    }
}

fn name_table(query: &mut Query) {
    name_inner(query);
    let Some(select) = outer_select(&mut query.body) else {
        return;
    };
    for (index, item) in select.projection.iter_mut().enumerate() {
        let SelectItem::UnnamedExpr(expr) = item else {
            continue;
        };
        if !matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
            let alias = Ident::with_quote('"', format!("EXPR${index}"));
            *item = SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias,
            };
        }
    }
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
    let mut found = Vec::new();
    let _all: ControlFlow<()> = visit_relations(query, |relation| {
        let idents: Vec<&Ident> = relation.0.iter().filter_map(|part| part.as_ident()).collect();
        if let (Some(first), Some(last)) = (idents.first(), idents.last()) {
            let span = Span::new(first.span.start, last.span.end);
            found.push((idents.iter().map(|ident| ident.value.clone()).collect(), span));
        }
        ControlFlow::Continue(())
    });
    let mut with = Vec::new();
    collect_with(query, &mut with);
    found.retain(|(names, _): &(Vec<String>, Span)| match names.as_slice() {
        [one] => !with.contains(one),
        _ => true,
    });
    found
}

/// Names that WITH clauses define, at any depth that the outer query can see.
fn collect_with(query: &Query, names: &mut Vec<String>) {
    if let Some(with) = &query.with {
        for table in &with.cte_tables {
            names.push(table.alias.name.value.clone());
            collect_with(&table.query, names);
        }
    }
    if let SetExpr::Query(inner) = query.body.as_ref() {
        collect_with(inner, names);
    }
    if let SetExpr::Select(select) = query.body.as_ref() {
        for table in &select.from {
            if let sqlparser::ast::TableFactor::Derived { subquery, .. } = &table.relation {
                collect_with(subquery, names);
            }
        }
    }
}
