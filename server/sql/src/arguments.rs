//! Arguments of calls, before and after they are rewritten.

use sqlparser::ast::{Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Query, SelectItem};
use sqlparser::tokenizer::Span;
use trilith_proto::error::ApiError;

use crate::ast::{call, null};
use crate::error::at;
use crate::names;

/// Refuses a call that would look complete once its other arguments are filled in.
pub(crate) fn check(function: &Function, name: &str) -> Result<(), ApiError> {
    let FunctionArguments::List(list) = &function.args else {
        return Ok(());
    };
    let span = match function.name.0.last().and_then(|part| part.as_ident()) {
        Some(name) => name.span,
        None => Span::empty(),
    };
    if matches!(name, "CURRENT_TIMESTAMP" | "LOCALTIMESTAMP")
        && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(precision))] = list.args.as_slice()
        && !matches!(precision.to_string().as_str(), "0" | "1" | "2" | "3")
    {
        return Err(at(
            format!("Argument to function '{name}' must be a valid precision between '0' and '3'"),
            span,
        ));
    }
    let least = match name {
        "TIME_SHIFT" | "TIMESTAMPADD" | "TIMESTAMPDIFF" => 3,
        "TIME_FLOOR" | "TIME_CEIL" | "DATE_TRUNC" | "TIME_IN_INTERVAL" | "TIME_EXTRACT" | "NVL"
        | "IFNULL" | "NULLIF" => 2,
        "TIME_PARSE" | "TIME_FORMAT" | "EARLIEST" | "LATEST" | "COUNT" | "COALESCE" | "BIT_AND"
        | "BIT_OR" | "BIT_XOR" => 1,
        _ => 0,
    };
    let most = match name {
        "NVL" | "IFNULL" | "NULLIF" => 2,
        _ => usize::MAX,
    };
    if list.args.len() > most {
        return Err(at(
            format!("Invalid number of arguments to function '{name}'. Was expecting {most} arguments"),
            span,
        ));
    }
    let everything = |arg: &FunctionArg| matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Wildcard));
    if list.args.len() > 1 && list.args.iter().any(everything) {
        return Err(at(format!("[{name}] takes either * or values, not both"), span));
    }
    if list.duplicate_treatment.is_some() && list.args.iter().any(everything) {
        return Err(at(
            format!("[{name}] of DISTINCT * is not supported; count the rows of a SELECT DISTINCT"),
            span,
        ));
    }
    if list.args.len() < least {
        return Err(at(
            format!("Invalid number of arguments to function '{name}'. Was expecting {least} arguments"),
            span,
        ));
    }
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))]
            if name == "MV_TO_ARRAY" && !matches!(arg, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) =>
        {
            Err(at(
                format!(
                    "Function[mv_to_array] argument {arg} should be an identifier expression. Use array() instead"
                ),
                span,
            ))
        }
        _ => Ok(()),
    }
}

/// Makes the sketches that a query selects show their estimates: those of tuples, and for `sqlFinalizeOuterSketches` all.
pub(crate) fn finalize_sketches(query: &mut Query, all: bool) {
    let Some(select) = names::outer_select(&mut query.body) else {
        return;
    };
    for item in &mut select.projection {
        let SelectItem::ExprWithAlias { expr, .. } = item else {
            continue;
        };
        let Expr::Function(function) = expr else { continue };
        let shown = match function.name.to_string().to_ascii_uppercase().as_str() {
            "DS_TUPLE_DOUBLES" => "druid_final_tuple",
            "DS_HLL" if all => "druid_final_hll",
            "DS_THETA" if all => "druid_final_theta",
            "DS_QUANTILES_SKETCH" if all => "druid_final_quantiles",
            _ => continue,
        };
        *expr = call(shown, vec![std::mem::replace(expr, null())]);
    }
}
