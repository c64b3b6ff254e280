//! Druid's forms that DataFusion does not know, as functions that it does.

use std::ops::ControlFlow;

use sqlparser::ast::Spanned;
use sqlparser::ast::{
    AccessExpr, ArrayElemTypeDef, BinaryOperator, CaseWhen, CastKind, CeilFloorKind, DataType,
    DuplicateTreatment, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Query,
    Subscript, TrimWhereField, TypedString, UnaryOperator, Value, ValueWithSpan, visit_expressions_mut,
};
use trilith_proto::error::ApiError;

use crate::arguments;
use crate::ast::{call, case, null, number, take, text};
use crate::context::QueryContext;
use crate::error::{at, validation};
use crate::forms::{check_distinct, distinct, first_value, is_zero, like, period, symmetric, time_beside};
use crate::intervals::{self, Step};
use crate::parameters;
use crate::parameters::Bound;
use crate::windows;

/// What the literal behind the sign of the least BIGINT has become.
const LEAST_LONG: &str = "9223372036854775808.0";

/// Rewrites every expression of a query.
pub(crate) fn rewrite(
    query: &mut Query,
    context: &QueryContext,
    parameters: Bound<'_>,
    now_ms: i64,
) -> Result<(), ApiError> {
    let rewriter = Rewriter {
        zone: context.sql_time_zone(),
        approximate: context.approximate_count_distinct(),
        parameters,
        now_ms,
    };
    let mut placeholders = 0;
    let flow = visit_expressions_mut(query, |expr| match rewriter.expr(expr, &mut placeholders) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    });
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Rewriter<'a> {
    zone: String,
    approximate: bool,
    parameters: Bound<'a>,
    now_ms: i64,
}

/// Milliseconds of TIMESTAMP '…' or DATE '…' in a zone.
pub(crate) fn timestamp_literal(literal: &TypedString, zone: &str) -> Result<i64, ApiError> {
    let Value::SingleQuotedString(value) = &literal.value.value else {
        return Err(validation(format!("[{literal}] needs a quoted text")));
    };
    trilith_functions::parse_timestamp(value, zone).ok_or_else(|| {
        let shape = match literal.data_type {
            DataType::Date => "'yyyy-MM-dd'",
            _ => "'yyyy-MM-dd HH:mm:ss'",
        };
        validation(format!(
            "Illegal TIMESTAMP literal '{value}': not in format {shape}"
        ))
    })
}

impl Rewriter<'_> {
    fn expr(&self, expr: &mut Expr, placeholders: &mut usize) -> Result<(), ApiError> {
        match expr {
            Expr::Floor {
                expr: inner,
                field: CeilFloorKind::DateTimeField(unit),
            } => {
                let unit = unit.to_string();
                // Without TO the parser still reports a field.
                if unit.is_empty() || unit.eq_ignore_ascii_case("NoDateTime") {
                    *expr = call("floor", vec![take(inner)]);
                    return Ok(());
                }
                *expr = self.bucket("time_floor", take(inner), &unit)?;
            }
            Expr::Ceil {
                expr: inner,
                field: CeilFloorKind::DateTimeField(unit),
            } => {
                let unit = unit.to_string();
                if unit.is_empty() || unit.eq_ignore_ascii_case("NoDateTime") {
                    *expr = call("ceil", vec![take(inner)]);
                    return Ok(());
                }
                *expr = self.bucket("time_ceil", take(inner), &unit)?;
            }
            Expr::Extract {
                field, expr: inner, ..
            } => {
                let unit = text(&field.to_string().to_ascii_uppercase());
                *expr = call("time_extract", vec![take(inner), unit, text(&self.zone)]);
            }
            Expr::Cast {
                kind: CastKind::DoubleColon,
                expr: inner,
                data_type,
                ..
            } => {
                return Err(at(
                    format!("A cast by two colons is not supported; write CAST({inner} AS {data_type})"),
                    inner.span(),
                ));
            }
            Expr::Struct { .. } => {
                return Err(validation(
                    "No match found for function signature STRUCT; use JSON_OBJECT for values with names",
                ));
            }
            Expr::Overlay { expr: inner, .. } => {
                return Err(at(
                    "No match found for function signature OVERLAY; use SUBSTRING and CONCAT",
                    inner.span(),
                ));
            }
            Expr::SimilarTo { expr: inner, .. } => {
                return Err(at(
                    "SIMILAR TO is not supported; use LIKE or REGEXP_LIKE",
                    inner.span(),
                ));
            }
            Expr::Cast {
                kind: CastKind::Cast,
                expr: inner,
                data_type,
                ..
            } => {
                if let Some(cast) = self.constant_cast(inner, data_type)? {
                    *expr = cast;
                } else if let Some(cast) = self.cast(inner, data_type) {
                    *expr = cast;
                }
            }
            Expr::TypedString(literal) => {
                let is_time = matches!(literal.data_type, DataType::Timestamp(..) | DataType::Date);
                if is_time {
                    let ms = timestamp_literal(literal, &self.zone)?;
                    let time = call("millis_to_timestamp", vec![number(ms)]);
                    *expr = match literal.data_type {
                        DataType::Date => call("druid_cast_date", vec![time, text(&self.zone)]),
                        _ => time,
                    };
                }
            }
            Expr::Identifier(name) if name.quote_style.is_none() => {
                match name.value.to_ascii_uppercase().as_str() {
                    "CURRENT_TIMESTAMP" | "LOCALTIMESTAMP" => *expr = self.now(),
                    "CURRENT_DATE" => *expr = self.today(),
                    "PI" => *expr = call("pi", Vec::new()),
                    _ => {}
                }
            }
            Expr::Substring {
                expr: inner,
                substring_from,
                substring_for,
                ..
            } => {
                if substring_from.is_none() && substring_for.is_none() {
                    return Err(validation(
                        "Invalid number of arguments to function 'SUBSTRING'. Was expecting 2 arguments",
                    ));
                }
                let start = substring_from
                    .as_mut()
                    .map_or_else(|| number(1), |start| take(start));
                let mut args = vec![take(inner), start];
                args.extend(substring_for.as_mut().map(|count| take(count)));
                *expr = call("substring", args);
            }
            Expr::Position { expr: part, r#in } => {
                *expr = call("position", vec![take(r#in), take(part)]);
            }
            Expr::Trim {
                expr: inner,
                trim_where,
                trim_what,
                trim_characters,
            } => {
                let name = match trim_where {
                    Some(TrimWhereField::Leading) => "ltrim",
                    Some(TrimWhereField::Trailing) => "rtrim",
                    _ => "btrim",
                };
                let mut args = vec![take(inner)];
                args.extend(trim_what.as_mut().map(|what| take(what)));
                args.extend(trim_characters.iter_mut().flatten().map(take));
                *expr = call(name, args);
            }
            Expr::CompoundFieldAccess { root, access_chain } => {
                let [AccessExpr::Subscript(Subscript::Index { index })] = access_chain.as_mut_slice() else {
                    return Ok(());
                };
                *expr = call("array_ordinal", vec![take(root), take(index)]);
            }
            Expr::Like {
                pattern, escape_char, ..
            } => like(pattern, escape_char)?,
            Expr::BinaryOp { left, op, right } => {
                if let Some(replaced) = self.operator(left, op, right)? {
                    *expr = replaced;
                }
            }
            Expr::Value(ValueWithSpan {
                value: Value::Placeholder(written),
                ..
            }) => {
                // Numbered where EXTERN took some of them out.
                let index = written.trim_start_matches('?').parse().unwrap_or(*placeholders);
                *placeholders += 1;
                *expr = parameters::expression(self.parameters, index, &self.zone)?;
            }
            // A whole number beyond 64 bits is a double; the least of 64 bits is written as the negative of one.
            Expr::Value(ValueWithSpan {
                value: Value::Number(written, _),
                ..
            }) if written.bytes().all(|digit| digit.is_ascii_digit()) && written.parse::<i64>().is_err() => {
                written.push_str(".0");
            }
            Expr::UnaryOp {
                op: UnaryOperator::Minus,
                expr: inner,
            } if inner.to_string() == LEAST_LONG => *expr = number(i64::MIN),
            // A decimal has no negative zero.
            Expr::UnaryOp {
                op: UnaryOperator::Minus,
                expr: inner,
            } if is_zero(inner) => *expr = take(inner),
            Expr::Array(array) => {
                *expr = call("make_array", array.elem.iter_mut().map(take).collect());
            }
            Expr::Between {
                expr: inner,
                negated,
                low,
                high,
            } => {
                if let Some(between) = symmetric(inner, *negated, low, high) {
                    *expr = between;
                }
            }
            Expr::Function(_) => self.function(expr)?,
            _ => {}
        }
        Ok(())
    }

    /// Operators that are functions here: `||`, and a time with an interval.
    fn operator(
        &self,
        left: &mut Expr,
        op: &BinaryOperator,
        right: &mut Expr,
    ) -> Result<Option<Expr>, ApiError> {
        let sign = match op {
            BinaryOperator::StringConcat => return Ok(Some(call("concat", vec![take(left), take(right)]))),
            BinaryOperator::Spaceship => return Ok(distinct(left, right)),
            BinaryOperator::Plus => 1,
            BinaryOperator::Minus => -1,
            _ => return Ok(None),
        };
        if sign > 0 && matches!(left, Expr::Interval(_)) {
            std::mem::swap(left, right);
        }
        let Expr::Interval(interval) = right else {
            return Ok(None);
        };
        let step = intervals::read(interval)?;
        let (period, zone, whole_days) = match step {
            Step::Months(months) => (format!("P{}M", months.abs()), self.zone.as_str(), true),
            Step::Millis(millis) => {
                let millis = millis.abs();
                let period = format!("PT{}.{:03}S", millis / 1_000, millis % 1_000);
                (period, "UTC", millis % 86_400_000 == 0)
            }
        };
        let steps = number(sign * step.signum());
        Ok(Some(call(
            // A DATE and days is a DATE.
            if whole_days {
                "druid_shift_date"
            } else {
                "time_shift"
            },
            vec![take(left), text(&period), steps, text(zone)],
        )))
    }

    fn today(&self) -> Expr {
        call("druid_cast_date", vec![self.now(), text(&self.zone)])
    }

    /// CURRENT_TIMESTAMP(0): whole seconds; (1), (2): tenths and hundredths.
    fn now_to(&self, args: &FunctionArguments) -> Expr {
        let FunctionArguments::List(list) = args else {
            return self.now();
        };
        let step = match list.args.first() {
            Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(digits)))) => {
                match digits.value.to_string().as_str() {
                    "0" => 1_000,
                    "1" => 100,
                    "2" => 10,
                    _ => 1,
                }
            }
            _ => 1,
        };
        call(
            "millis_to_timestamp",
            vec![number(self.now_ms.div_euclid(step) * step)],
        )
    }

    fn now(&self) -> Expr {
        call("millis_to_timestamp", vec![number(self.now_ms)])
    }

    fn bucket(&self, name: &str, inner: Expr, unit: &str) -> Result<Expr, ApiError> {
        let period = period(unit).ok_or_else(|| {
            validation(format!(
                "[{unit}] is no time unit of FLOOR and CEIL; use TIME_FLOOR with a period"
            ))
        })?;
        Ok(call(name, vec![inner, text(period), null(), text(&self.zone)]))
    }

    /// A text that is cast is a literal still, where literals are needed; a TIMESTAMP that it does not hold is an error.
    fn constant_cast(&self, inner: &mut Expr, data_type: &DataType) -> Result<Option<Expr>, ApiError> {
        let Expr::Value(ValueWithSpan {
            value: Value::SingleQuotedString(written),
            ..
        }) = inner
        else {
            return Ok(None);
        };
        match data_type {
            DataType::Varchar(_) => Ok(Some(take(inner))),
            DataType::Timestamp(..) if trilith_functions::parse_timestamp(written, &self.zone).is_none() => {
                Err(validation(trilith_functions::illegal_timestamp(written)))
            }
            _ => Ok(None),
        }
    }

    fn cast(&self, inner: &mut Expr, data_type: &DataType) -> Option<Expr> {
        let one = |name: &str, inner: &mut Expr| Some(call(name, vec![take(inner)]));
        match data_type {
            DataType::Varchar(_)
            | DataType::Char(_)
            | DataType::Character(_)
            | DataType::CharacterVarying(_)
            | DataType::CharVarying(_)
            | DataType::Text
            | DataType::String(_) => Some(call("druid_cast_varchar", vec![take(inner), text(&self.zone)])),
            DataType::BigInt(_)
            | DataType::Integer(_)
            | DataType::Int(_)
            | DataType::SmallInt(_)
            | DataType::TinyInt(_) => one("druid_cast_bigint", inner),
            DataType::Float(_) => one("druid_cast_float", inner),
            DataType::Boolean | DataType::Bool => one("druid_cast_boolean", inner),
            DataType::Array(ArrayElemTypeDef::SquareBracket(item, _)) => match item.as_ref() {
                DataType::Varchar(_) | DataType::Char(_) => one("druid_cast_varchar_array", inner),
                DataType::BigInt(_) | DataType::Integer(_) => one("druid_cast_bigint_array", inner),
                DataType::Double(_) | DataType::Float(_) => one("druid_cast_double_array", inner),
                _ => None,
            },
            DataType::Double(_)
            | DataType::DoublePrecision
            | DataType::Real
            | DataType::Decimal(_)
            | DataType::Dec(_)
            | DataType::Numeric(_) => one("druid_cast_double", inner),
            DataType::Timestamp(..) => {
                Some(call("druid_cast_timestamp", vec![take(inner), text(&self.zone)]))
            }
            DataType::Date => Some(call("druid_cast_date", vec![take(inner), text(&self.zone)])),
            _ => None,
        }
    }

    fn function(&self, expr: &mut Expr) -> Result<(), ApiError> {
        let Expr::Function(function) = expr else {
            return Ok(());
        };
        let name = function.name.to_string().to_ascii_uppercase();
        arguments::check(function, &name)?;
        if name == "CURRENT_TIMESTAMP" || name == "LOCALTIMESTAMP" {
            *expr = self.now_to(&function.args);
            return Ok(());
        }
        if name == "CURRENT_DATE" {
            *expr = self.today();
            return Ok(());
        }
        windows::check(function, &name)?;
        let FunctionArguments::List(list) = &mut function.args else {
            return Ok(());
        };
        if name == "COUNT"
            && self.approximate
            && function.over.is_none()
            && list.duplicate_treatment == Some(DuplicateTreatment::Distinct)
            && list.args.len() == 1
        {
            list.duplicate_treatment = None;
            function.name = ObjectName::from(vec![Ident::new("druid_count_distinct")]);
            return Ok(());
        }
        if name == "COUNT"
            && list.duplicate_treatment == Some(DuplicateTreatment::Distinct)
            && list.args.len() > 1
        {
            return Err(validation(
                "COUNT(DISTINCT …) takes one column; count the rows of a SELECT DISTINCT instead",
            ));
        }
        if list.duplicate_treatment == Some(DuplicateTreatment::Distinct) && function.over.is_none() {
            check_distinct(&name, self.approximate)?;
        }
        if matches!(name.as_str(), "COALESCE" | "NVL" | "IFNULL")
            && let Some(first) = first_value(&mut list.args)
        {
            *expr = first;
            return Ok(());
        }
        // As the comparison reads both, but with the type of the first.
        if name == "NULLIF"
            && list.args.len() == 2
            && let (
                Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(other))),
                Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(value))),
            ) = (list.args.pop(), list.args.pop())
        {
            let condition = Expr::BinaryOp {
                left: Box::new(value.clone()),
                op: BinaryOperator::Eq,
                right: Box::new(other),
            };
            *expr = case(
                vec![CaseWhen {
                    condition,
                    result: null(),
                }],
                Some(Box::new(value)),
            );
            return Ok(());
        }
        if name == "GROUPING" && function.over.is_none() {
            let grouping = Expr::Function(function.clone());
            *expr = call("druid_cast_bigint", vec![grouping]);
            return Ok(());
        }
        let collected = match name.as_str() {
            "ARRAY_AGG" => Some("druid_array_agg_distinct"),
            "ARRAY_CONCAT_AGG" => Some("druid_array_concat_agg_distinct"),
            "STRING_AGG" | "LISTAGG" => Some("druid_string_agg_distinct"),
            _ => None,
        };
        if let Some(collected) = collected
            && list.duplicate_treatment == Some(DuplicateTreatment::Distinct)
        {
            list.duplicate_treatment = None;
            function.name = ObjectName::from(vec![Ident::new(collected)]);
            return Ok(());
        }
        let fill = |args: &mut Vec<FunctionArg>, length: usize, zone: &str| {
            while args.len() + 1 < length {
                args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(null())));
            }
            if args.len() < length {
                args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(text(zone))));
            }
        };
        match name.as_str() {
            "EARLIEST" | "LATEST" if !list.args.is_empty() => {
                let time = FunctionArg::Unnamed(FunctionArgExpr::Expr(time_beside(&list.args)));
                list.args.insert(1, time);
                let by = format!("{}_by", name.to_ascii_lowercase());
                function.name = ObjectName::from(vec![Ident::new(by)]);
            }
            "TIME_FLOOR" | "TIME_CEIL" | "TIME_SHIFT" => fill(&mut list.args, 4, &self.zone),
            "DATE_TRUNC" => fill(&mut list.args, 3, &self.zone),
            "TIME_IN_INTERVAL" => fill(&mut list.args, 3, &self.zone),
            "TIME_PARSE" | "TIME_FORMAT" | "TIME_EXTRACT" => fill(&mut list.args, 3, &self.zone),
            "TIMESTAMPADD" => {
                self.unit(&mut list.args)?;
                fill(&mut list.args, 4, &self.zone);
            }
            "TIMESTAMPDIFF" => {
                self.unit(&mut list.args)?;
                fill(&mut list.args, 4, &self.zone);
            }
            "BIT_AND" | "BIT_OR" | "BIT_XOR" => {
                if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(bits))) = list.args.first_mut() {
                    *bits = call("druid_cast_bigint", vec![take(bits)]);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The unit of TIMESTAMPDIFF is written as a bare word.
    fn unit(&self, args: &mut [FunctionArg]) -> Result<(), ApiError> {
        match args.first_mut() {
            Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(unit))) => {
                if let Expr::Identifier(name) = unit {
                    let word = name.value.to_ascii_uppercase();
                    if !UNITS.contains(&word.trim_end_matches('S')) {
                        return Err(at(
                            format!("[{word}] is not a time unit; use one of {}", UNITS.join(", ")),
                            name.span,
                        ));
                    }
                    *unit = text(&word);
                }
                Ok(())
            }
            _ => Err(validation(
                "TIMESTAMPADD and TIMESTAMPDIFF need a time unit as their first argument",
            )),
        }
    }
}

/// Units of TIMESTAMPADD and TIMESTAMPDIFF; an S may follow.
const UNITS: [&str; 8] = [
    "SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "QUARTER", "YEAR",
];
