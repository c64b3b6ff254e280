//! What OVER may hold, and where it may stand.

use std::ops::ControlFlow;

use sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArguments, GroupByExpr, Ident, NamedWindowDefinition, NamedWindowExpr, Query, Select, SelectItem,
    Value, Visit, VisitMut, Visitor, VisitorMut, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowSpec,
    WindowType, visit_expressions,
};
use trilith_functions::{Routine, routines};
use trilith_proto::error::ApiError;

use crate::error::{at, validation};
use crate::relations::null_order;

/// Functions that need OVER, with the fewest and most of their arguments.
const WINDOW_ONLY: [(&str, usize, usize); 10] = [
    ("ROW_NUMBER", 0, 0),
    ("RANK", 0, 0),
    ("DENSE_RANK", 0, 0),
    ("PERCENT_RANK", 0, 0),
    ("CUME_DIST", 0, 0),
    ("NTILE", 1, 1),
    ("LAG", 1, 2),
    ("LEAD", 1, 2),
    ("FIRST_VALUE", 1, 1),
    ("LAST_VALUE", 1, 1),
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
    let only = WINDOW_ONLY.iter().find(|(known, ..)| *known == name);
    let Some(over) = &function.over else {
        if only.is_some() {
            return Err(wrong(format!(
                "OVER clause is necessary for window function [{name}]"
            )));
        }
        return Ok(());
    };
    match only {
        Some((_, least, most)) => {
            let count = match &function.args {
                FunctionArguments::List(list) => list.args.len(),
                _ => 0,
            };
            if count < *least || count > *most {
                let expected = if count < *least { least } else { most };
                return Err(wrong(format!(
                    "Invalid number of arguments to function '{name}'. Was expecting {expected} arguments"
                )));
            }
        }
        None => {
            let scalar = |routine: &Routine| routine.name == name && !routine.aggregate;
            if name == "GROUPING" || routines().iter().any(scalar) {
                return Err(wrong(format!(
                    "OVER must be applied to an aggregate or window function, not to [{name}]"
                )));
            }
        }
    }
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
            if is_count(&value.value, name == "NTILE") || matches!(value.value, Value::Placeholder(_)));
        if !literal {
            return Err(wrong(format!(
                "Window function [{name}] needs a whole literal number, not [{arg}]"
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

fn is_count(value: &Value, positive: bool) -> bool {
    match value {
        Value::Number(number, _) => number.parse::<u64>().is_ok_and(|count| count > 0 || !positive),
        _ => false,
    }
}

/// Writes out what windows take over from those that they name: `(w ORDER BY x)`, `w2 AS (w)`.
struct Named {
    windows: Vec<(Ident, WindowSpec)>,
    depth: usize,
}

impl Named {
    fn of(select: &mut Select) -> Result<(), ApiError> {
        let mut named = Named {
            windows: Vec::with_capacity(select.named_window.len()),
            depth: 0,
        };
        // A window may name those before it.
        for NamedWindowDefinition(name, window) in &mut select.named_window {
            let spec = match window {
                NamedWindowExpr::NamedWindow(other) => named.find(other)?.clone(),
                NamedWindowExpr::WindowSpec(spec) => {
                    named.complete(spec)?;
                    spec.clone()
                }
            };
            *window = NamedWindowExpr::WindowSpec(spec.clone());
            named.windows.push((name.clone(), spec));
        }
        match VisitMut::visit(select, &mut named) {
            ControlFlow::Break(error) => Err(error),
            ControlFlow::Continue(()) => Ok(()),
        }
    }

    fn find(&self, name: &Ident) -> Result<&WindowSpec, ApiError> {
        let known = self.windows.iter().find(|(known, _)| known.value == name.value);
        known
            .map(|(_, spec)| spec)
            .ok_or_else(|| at(format!("Window '{}' not found", name.value), name.span))
    }

    fn complete(&self, spec: &mut WindowSpec) -> Result<(), ApiError> {
        let Some(name) = spec.window_name.take() else {
            return Ok(());
        };
        let base = self.find(&name)?;
        let twice = match (&base.window_frame, &spec.window_frame) {
            _ if !spec.partition_by.is_empty() => Some("PARTITION BY"),
            _ if !spec.order_by.is_empty() && !base.order_by.is_empty() => Some("ORDER BY"),
            (Some(_), Some(_)) => Some("a frame"),
            _ => None,
        };
        if let Some(what) = twice {
            let name = name.value.clone();
            return Err(validation(format!(
                "A window that is based on [{name}] cannot have {what}: that is said by [{name}]"
            )));
        }
        spec.partition_by.clone_from(&base.partition_by);
        if spec.order_by.is_empty() {
            spec.order_by.clone_from(&base.order_by);
        }
        if spec.window_frame.is_none() {
            spec.window_frame.clone_from(&base.window_frame);
        }
        Ok(())
    }
}

impl VisitorMut for Named {
    type Break = ApiError;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<ApiError> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<ApiError> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<ApiError> {
        if self.depth == 0
            && let Expr::Function(function) = expr
            && let Some(WindowType::WindowSpec(spec)) = &mut function.over
            && let Err(error) = self.complete(spec)
        {
            return ControlFlow::Break(error);
        }
        ControlFlow::Continue(())
    }
}

/// Checks the conditions and keys of a SELECT and the frames of its WINDOW, and writes frames out.
pub(crate) fn check_select(select: &mut Select) -> Result<(), ApiError> {
    Named::of(select)?;
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
        let literal = matches!(distance.as_ref(), Expr::Value(value) if is_count(&value.value, false));
        if !literal {
            return Err(validation(format!(
                "Window frames need whole literal numbers as bounds, not [{distance}]"
            )));
        }
    }
    Ok(())
}
