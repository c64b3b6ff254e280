//! What OVER may hold, and where it may stand.

use std::ops::ControlFlow;

use sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArguments, GroupByExpr, NamedWindowExpr, Query, Select, SelectItem, Value, Visit, VisitMut,
    Visitor, VisitorMut, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowType, visit_expressions,
};
use trilith_proto::error::ApiError;

use crate::error::{at, validation};
use crate::relations::null_order;

/// Functions that need OVER.
const WINDOW_ONLY: [&str; 10] = [
    "ROW_NUMBER",
    "RANK",
    "DENSE_RANK",
    "PERCENT_RANK",
    "CUME_DIST",
    "NTILE",
    "LAG",
    "LEAD",
    "FIRST_VALUE",
    "LAST_VALUE",
];

/// Checks a call, with or without OVER. `name` is in upper case.
pub(crate) fn check(function: &Function, name: &str) -> Result<(), ApiError> {
    let span = function
        .name
        .0
        .first()
        .and_then(|part| part.as_ident())
        .map(|name| name.span);
    let wrong =
        |message: String| span.map_or_else(|| validation(message.clone()), |span| at(message.clone(), span));
    let ordered = matches!(&function.args, FunctionArguments::List(list)
        if list.clauses.iter().any(|clause| matches!(clause, FunctionArgumentClause::OrderBy(_))));
    if ordered || !function.within_group.is_empty() {
        return Err(wrong(format!(
            "ORDER BY inside [{name}] is not supported: an aggregate takes its values in any order"
        )));
    }
    let Some(over) = &function.over else {
        if WINDOW_ONLY.contains(&name) {
            return Err(wrong(format!(
                "OVER clause is necessary for window function [{name}]"
            )));
        }
        return Ok(());
    };
    if let FunctionArguments::List(list) = &function.args
        && list.duplicate_treatment == Some(DuplicateTreatment::Distinct)
    {
        return Err(wrong(format!(
            "DISTINCT is not supported for window functions, found in [{name}]; count in a subquery instead"
        )));
    }
    let place = match name {
        "NTILE" => Some(0),
        "LAG" | "LEAD" => Some(1),
        _ => None,
    };
    if let FunctionArguments::List(list) = &function.args
        && let Some(arg) = place.and_then(|place| list.args.get(place))
    {
        let literal = matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value)))
            if matches!(value.value, Value::Number(..) | Value::Placeholder(_)));
        if !literal {
            return Err(wrong(format!(
                "Window function [{name}] needs a literal number, not [{arg}]"
            )));
        }
    }
    if let WindowType::WindowSpec(spec) = over {
        null_order(&spec.order_by)?;
    }
    if let WindowType::WindowSpec(spec) = over
        && let Some(frame) = &spec.window_frame
    {
        if name == "NTILE" {
            return Err(wrong(
                "Framing of NTILE is not supported; leave out ROWS or RANGE".to_owned(),
            ));
        }
        check_frame(frame)?;
    }
    Ok(())
}

/// Finds a call with OVER that belongs to a clause itself, not to a subquery in it.
#[derive(Default)]
struct InClause {
    depth: usize,
}

impl Visitor for InClause {
    type Break = String;

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<String> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<String> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<String> {
        match expr {
            Expr::Function(function) if self.depth == 0 && function.over.is_some() => {
                ControlFlow::Break(function.name.to_string())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Writes out the frames of a SELECT: what begins behind the current row ends there if nothing else is said.
struct Complete;

impl VisitorMut for Complete {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && let Some(WindowType::WindowSpec(spec)) = &mut function.over
            && let Some(frame) = &mut spec.window_frame
        {
            complete(frame);
        }
        ControlFlow::Continue(())
    }
}

fn complete(frame: &mut WindowFrame) {
    if frame.end_bound.is_none() && matches!(frame.start_bound, WindowFrameBound::Following(_)) {
        let end = std::mem::replace(&mut frame.start_bound, WindowFrameBound::CurrentRow);
        frame.end_bound = Some(end);
    }
}

/// Names of output columns that a window function computes.
fn computed(select: &Select) -> Vec<&str> {
    let items = select.projection.iter();
    items
        .filter_map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } => {
                let windows = expr.visit(&mut InClause::default()).is_break();
                windows.then_some(alias.value.as_str())
            }
            _ => None,
        })
        .collect()
}

/// Checks the conditions and keys of a SELECT and the frames of its WINDOW, and writes frames out.
pub(crate) fn check_select(select: &mut Select) -> Result<(), ApiError> {
    let _all: ControlFlow<()> = VisitMut::visit(select, &mut Complete);
    for window in &mut select.named_window {
        if let NamedWindowExpr::WindowSpec(spec) = &mut window.1
            && let Some(frame) = &mut spec.window_frame
        {
            complete(frame);
        }
    }
    if let Some(having) = &select.having {
        let names = computed(select);
        let found = visit_expressions(having, |expr| match expr {
            Expr::Identifier(name) if names.contains(&name.value.as_str()) => {
                ControlFlow::Break(name.clone())
            }
            _ => ControlFlow::Continue(()),
        });
        if let ControlFlow::Break(name) = found {
            return Err(at(
                format!(
                    "Window functions are not permitted in the HAVING clause, but [{name}] is one; compute it in a subquery, and use its column outside"
                ),
                name.span,
            ));
        }
    }
    let grouped: &[Expr] = match &select.group_by {
        GroupByExpr::Expressions(exprs, _) => exprs,
        GroupByExpr::All(_) => &[],
    };
    let conditions = select.selection.iter().map(|condition| ("WHERE", condition));
    let conditions = conditions
        .chain(grouped.iter().map(|key| ("GROUP BY", key)))
        .chain(select.having.iter().map(|condition| ("HAVING", condition)));
    for (clause, condition) in conditions {
        if let ControlFlow::Break(name) = condition.visit(&mut InClause::default()) {
            return Err(validation(format!(
                "Window function [{name}] is not allowed in {clause}; compute it in a subquery, and use its column outside"
            )));
        }
    }

    for window in &select.named_window {
        if let NamedWindowExpr::WindowSpec(spec) = &window.1
            && let Some(frame) = &spec.window_frame
        {
            check_frame(frame)?;
        }
    }
    Ok(())
}

fn check_frame(frame: &WindowFrame) -> Result<(), ApiError> {
    if frame.units == WindowFrameUnits::Groups {
        return Err(validation(
            "Window frames by GROUPS are not supported; use ROWS or RANGE",
        ));
    }
    let reversed = match (&frame.start_bound, &frame.end_bound) {
        (WindowFrameBound::CurrentRow, Some(WindowFrameBound::Preceding(Some(_)))) => true,
        (WindowFrameBound::Following(Some(_)), Some(end)) => {
            matches!(
                end,
                WindowFrameBound::CurrentRow | WindowFrameBound::Preceding(Some(_))
            )
        }
        _ => false,
    };
    if reversed {
        return Err(validation(
            "The window frame ends before it starts; give the earlier bound first",
        ));
    }
    for bound in std::iter::once(&frame.start_bound).chain(&frame.end_bound) {
        let (WindowFrameBound::Preceding(Some(distance)) | WindowFrameBound::Following(Some(distance))) =
            bound
        else {
            continue;
        };
        if frame.units == WindowFrameUnits::Range {
            return Err(validation(format!(
                "Window frames with RANGE and the bound [{bound}] are not supported: RANGE takes UNBOUNDED and CURRENT ROW; use ROWS"
            )));
        }
        let literal =
            matches!(distance.as_ref(), Expr::Value(value) if matches!(value.value, Value::Number(..)));
        if !literal {
            return Err(validation(format!(
                "Window frames need literal numbers as bounds, not [{distance}]"
            )));
        }
    }
    Ok(())
}
