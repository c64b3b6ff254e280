//! What OVER may hold.

use std::ops::ControlFlow;

use sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, NamedWindowExpr,
    Query, Select, Value, Visit, Visitor, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowType,
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

/// Finds a call with OVER that belongs to a condition itself, not to a subquery in it.
#[derive(Default)]
struct InCondition {
    depth: usize,
}

impl Visitor for InCondition {
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

/// Checks the conditions of a SELECT and the frames of its WINDOW.
pub(crate) fn check_select(select: &Select) -> Result<(), ApiError> {
    for (clause, condition) in [("WHERE", &select.selection), ("HAVING", &select.having)] {
        let found = condition
            .as_ref()
            .map(|condition| condition.visit(&mut InCondition::default()));
        if let Some(ControlFlow::Break(name)) = found {
            return Err(validation(format!(
                "Window function [{name}] is not allowed in {clause}; compute it in a subquery, and filter outside"
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
