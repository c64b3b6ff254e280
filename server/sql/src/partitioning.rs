//! PARTITIONED BY, CLUSTERED BY and OVERWRITE WHERE.

use std::ops::ControlFlow;

use serde_json::Value as Json;
use sqlparser::ast::{
    BinaryOperator, Expr, OrderByExpr, UnaryOperator, Value, ValueWithSpan, visit_expressions_mut,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan};
use trilith_proto::error::ApiError;
use trilith_proto::interval::{ETERNITY, Granularity, Interval, parse_instant};

use crate::error::{parse_error, validation};
use crate::ingest::not_positive;
use crate::plan::SqlParameter;
use crate::relations::null_order;
use crate::rewrite::timestamp_literal;
use crate::statement::{Tokens, misplaced};

/// Reads the clauses behind the query.
pub(crate) fn tail(
    tail: Vec<TokenWithSpan>,
    ingests: bool,
) -> Result<(Option<Granularity>, Vec<OrderByExpr>), ApiError> {
    if tail.is_empty() {
        return Ok((None, Vec::new()));
    }
    let mut tokens = Tokens::from(tail);
    if !ingests {
        return Err(tokens.expected("<EOF>"));
    }
    let granularity = if tokens.word("PARTITIONED") {
        tokens.word("BY");
        Some(granularity(&mut tokens)?)
    } else {
        None
    };
    if tokens.peek().is_none() {
        return Ok((granularity, Vec::new()));
    }
    if !(tokens.word("CLUSTERED") && tokens.word("BY")) {
        return Err(tokens.expected("CLUSTERED BY"));
    }
    if granularity.is_none() {
        return Err(validation(
            "CLUSTERED BY found before PARTITIONED BY, CLUSTERED BY must come after the PARTITIONED BY clause",
        ));
    }
    let rest = tokens.rest();
    let last = rest.last().cloned();
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(rest);
    let keys = parser
        .parse_comma_separated(Parser::parse_order_by_expr)
        .map_err(|error| parse_error(&error, last.as_ref()))?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        return Err(misplaced(&rest, "<EOF>"));
    }
    null_order(&keys)?;
    for key in &keys {
        if key.options.asc == Some(false) {
            return Err(validation(format!(
                "Invalid CLUSTERED BY clause [{} DESC]: cannot sort in descending order.",
                quoted(&key.expr)
            )));
        }
        if let Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } = &key.expr
            && matches!(expr.as_ref(), Expr::Value(_))
        {
            return Err(not_positive(&key.expr));
        }
    }
    Ok((granularity, keys))
}

/// A name in the quotes of Druid's messages.
fn quoted(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(name) => format!("`{}`", name.value),
        other => other.to_string(),
    }
}

/// An expression with all names in double quotes, as EXPLAIN shows it.
pub(crate) fn with_quotes(expr: &Expr) -> String {
    let mut expr = expr.clone();
    let _all: ControlFlow<()> = visit_expressions_mut(&mut expr, |expr| {
        match expr {
            Expr::Identifier(name) => name.quote_style = Some('"'),
            Expr::CompoundIdentifier(names) => names.iter_mut().for_each(|name| name.quote_style = Some('"')),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    expr.to_string()
}

fn invalid(text: &str) -> ApiError {
    validation(format!(
        "Invalid granularity[{text}] specified after PARTITIONED BY clause. Expected 'SECOND', 'MINUTE', 'FIVE_MINUTE', 'TEN_MINUTE', 'FIFTEEN_MINUTE', 'THIRTY_MINUTE', 'HOUR', 'SIX_HOUR', 'EIGHT_HOUR', 'DAY', 'MONTH', 'QUARTER', 'YEAR', 'ALL', ALL TIME, FLOOR() or TIME_FLOOR()"
    ))
}

/// By name ("DAY") or ISO period ("P1D").
fn named(text: &str) -> Result<Granularity, ApiError> {
    let upper = text.to_ascii_uppercase();
    Granularity::from_name(&upper)
        .or_else(|| Granularity::from_period(&upper))
        .ok_or_else(|| invalid(text))
}

fn granularity(tokens: &mut Tokens) -> Result<Granularity, ApiError> {
    if tokens.word("ALL") {
        tokens.word("TIME");
        return Ok(Granularity::All);
    }
    if tokens.word("FLOOR") {
        time_argument(tokens, "FLOOR")?;
        if !tokens.word("TO") {
            return Err(tokens.expected("TO"));
        }
        let unit = match tokens.next().map(|token| token.token) {
            Some(Token::Word(word)) => word.value,
            _ => return Err(tokens.expected("a time unit")),
        };
        return close(tokens, named(&unit)?);
    }
    if tokens.word("TIME_FLOOR") {
        time_argument(tokens, "TIME_FLOOR")?;
        if !tokens.token(&Token::Comma) {
            return Err(tokens.expected(","));
        }
        let period = match tokens.next().map(|token| token.token) {
            Some(Token::SingleQuotedString(period)) => period,
            _ => {
                return Err(validation(
                    "Second argument to TIME_FLOOR in PARTITIONED BY clause must be a period like 'PT1H'",
                ));
            }
        };
        let granularity = Granularity::from_period(&period).ok_or_else(|| invalid(&period))?;
        return close(tokens, granularity);
    }
    match tokens.next().map(|token| token.token) {
        Some(Token::Word(word)) => named(&word.value),
        Some(Token::SingleQuotedString(text)) => named(&text),
        Some(other) => Err(invalid(&other.to_string())),
        None => Err(tokens.expected("a granularity")),
    }
}

fn time_argument(tokens: &mut Tokens, function: &str) -> Result<(), ApiError> {
    if !tokens.token(&Token::LParen) {
        return Err(tokens.expected("("));
    }
    match tokens.next().map(|token| token.token) {
        Some(Token::Word(word)) if word.value == "__time" => Ok(()),
        _ => Err(validation(format!(
            "The first argument to {function} in PARTITIONED BY clause must be __time"
        ))),
    }
}

fn close(tokens: &mut Tokens, granularity: Granularity) -> Result<Granularity, ApiError> {
    if tokens.token(&Token::RParen) {
        Ok(granularity)
    } else {
        Err(tokens.expected(")"))
    }
}

/// Intervals of OVERWRITE WHERE, sorted and disjoint.
pub(crate) fn overwrite_intervals(
    condition: &Expr,
    granularity: Granularity,
    parameters: &[SqlParameter],
    zone: &str,
) -> Result<Vec<Interval>, ApiError> {
    let bounds = Bounds { parameters, zone };
    let intervals = intervals(condition, &bounds)?;
    if let Some(other) = beside_time(condition) {
        return Err(validation(format!(
            "OVERWRITE WHERE clause only supports filtering on the __time column, got [{}]",
            native(other, &bounds)
        )));
    }
    if intervals.is_empty() {
        return Err(validation(
            "The OVERWRITE WHERE clause [".to_owned()
                + &native(condition, &bounds)
                + "] produced no time intervals, are the bounds overly restrictive?",
        ));
    }
    let aligned = |interval: &Interval| match granularity {
        Granularity::All => *interval == ETERNITY,
        _ => {
            let at_start = |ms: i64| granularity.bucket_start(ms) == ms;
            (interval.start_ms == ETERNITY.start_ms || at_start(interval.start_ms))
                && (interval.end_ms == ETERNITY.end_ms || at_start(interval.end_ms))
        }
    };
    if let Some(bad) = intervals.iter().find(|interval| !aligned(interval)) {
        return Err(validation(format!(
            "OVERWRITE WHERE clause identified interval [{bad}] which is not aligned with PARTITIONED BY granularity [{}]",
            native_granularity(granularity)
        )));
    }
    Ok(intervals)
}

/// A granularity as Druid's messages have it.
fn native_granularity(granularity: Granularity) -> String {
    match granularity {
        Granularity::All => "AllGranularity".to_owned(),
        other => format!(
            "{{type=period, period={}, timeZone=UTC, origin=null}}",
            other.period()
        ),
    }
}

/// An error inside a condition, as Druid nests them.
fn inside(condition: &Expr, why: impl std::fmt::Display) -> ApiError {
    let condition = sql(condition);
    validation(format!("Invalid OVERWRITE WHERE clause [{condition}]: {why}"))
}

/// A condition of OVERWRITE WHERE as Druid's parser writes it.
fn sql(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(name) => format!("`{}`", name.value),
        Expr::Nested(inner) => sql(inner),
        Expr::Like {
            negated,
            expr,
            pattern,
            ..
        } => format!(
            "{} {}LIKE {}",
            sql(expr),
            if *negated { "NOT " } else { "" },
            sql(pattern)
        ),
        Expr::BinaryOp { left, op, right } => format!("{} {op} {}", sql(left), sql(right)),
        Expr::Value(value) if matches!(value.value, Value::Boolean(_)) => {
            value.to_string().to_ascii_uppercase()
        }
        other => other.to_string(),
    }
}

/// A condition of OVERWRITE WHERE as the filter that Druid makes of it.
fn native(condition: &Expr, bounds: &Bounds<'_>) -> String {
    let column = |expr: &Expr| match expr {
        Expr::Identifier(name) => format!("{} as numeric", name.value),
        other => sql(other),
    };
    let bound = |expr: &Expr| literal(expr, bounds).map_or_else(|_| sql(expr), |ms| ms.to_string());
    match condition {
        Expr::Nested(inner) => native(inner, bounds),
        Expr::UnaryOp { expr, .. } => format!("!{}", native(expr, bounds)),
        Expr::Between { expr, low, high, .. } => {
            format!("{} <= {} <= {}", bound(low), column(expr), bound(high))
        }
        Expr::BinaryOp { left, op, right } => match op {
            BinaryOperator::And => format!("({} && {})", native(left, bounds), native(right, bounds)),
            BinaryOperator::Or => format!("({} || {})", native(left, bounds), native(right, bounds)),
            BinaryOperator::Gt => format!("{} < {}", bound(right), column(left)),
            BinaryOperator::GtEq => format!("{} <= {}", bound(right), column(left)),
            op => format!("{} {op} {}", column(left), bound(right)),
        },
        other => sql(other),
    }
}

/// What the times of a condition depend on.
struct Bounds<'a> {
    parameters: &'a [SqlParameter],
    zone: &'a str,
}

impl Bounds<'_> {
    /// The time of a numbered `?`.
    fn parameter(&self, written: &str) -> Result<i64, ApiError> {
        let index: usize = written.trim_start_matches('?').parse().unwrap_or(0);
        let parameter = self.parameters.get(index).ok_or_else(|| {
            validation(format!(
                "No value bound for dynamic parameter position [{}]",
                index + 1
            ))
        })?;
        let time = match &parameter.value {
            Json::Number(ms) => ms.as_i64(),
            Json::String(text) => {
                parse_instant(text).or_else(|| trilith_functions::parse_timestamp(text, self.zone))
            }
            _ => None,
        };
        time.ok_or_else(|| {
            let value = &parameter.value;
            validation(format!(
                "Parameter [{index}] of OVERWRITE WHERE must be a TIMESTAMP, not [{value}]"
            ))
        })
    }
}

fn intervals(condition: &Expr, bounds: &Bounds<'_>) -> Result<Vec<Interval>, ApiError> {
    let part = |part: &Expr| intervals(part, bounds).map_err(|error| inside(condition, error.message));
    match condition {
        Expr::Nested(inner) => intervals(inner, bounds),
        Expr::UnaryOp {
            op: UnaryOperator::Not,
            expr,
        } => Ok(complement(part(expr)?)),
        Expr::Between {
            expr,
            negated,
            low,
            high,
        } => {
            let (low, high) = (bound(condition, low, bounds)?, bound(condition, high, bounds)?);
            check_column(condition, expr)?;
            let between: Vec<Interval> = Some(Interval::new(low, high + 1))
                .filter(|i| !i.is_empty())
                .into_iter()
                .collect();
            Ok(if *negated { complement(between) } else { between })
        }
        Expr::BinaryOp {
            left,
            op: BinaryOperator::And,
            right,
        } => Ok(intersection(&part(left)?, &part(right)?)),
        Expr::BinaryOp {
            left,
            op: BinaryOperator::Or,
            right,
        } => {
            let mut all = part(left)?;
            all.extend(part(right)?);
            Ok(union(all))
        }
        Expr::BinaryOp { left, op, right } => {
            let after = match op {
                BinaryOperator::Gt => |ms: i64| Interval::new(ms + 1, ETERNITY.end_ms),
                BinaryOperator::GtEq => |ms: i64| Interval::new(ms, ETERNITY.end_ms),
                BinaryOperator::Lt => |ms: i64| Interval::new(ETERNITY.start_ms, ms),
                BinaryOperator::LtEq => |ms: i64| Interval::new(ETERNITY.start_ms, ms + 1),
                other => return Err(unsupported(condition, &other.to_string())),
            };
            let ms = bound(condition, right, bounds)?;
            check_column(condition, left)?;
            Ok(vec![after(ms)])
        }
        Expr::Value(_) | Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::TypedString(_) => {
            Err(inside(
                condition,
                "expected clause including AND, OR, NOT, >, <, >=, <= OR BETWEEN operators",
            ))
        }
        Expr::Like { .. } => Err(unsupported(condition, "LIKE")),
        Expr::InList { .. } | Expr::InSubquery { .. } => Err(unsupported(condition, "IN")),
        Expr::IsNull(_) => Err(unsupported(condition, "IS NULL")),
        Expr::IsNotNull(_) => Err(unsupported(condition, "IS NOT NULL")),
        Expr::Function(function) => Err(unsupported(condition, &function.name.to_string())),
        other => Err(unsupported(condition, &sql(other))),
    }
}

fn unsupported(condition: &Expr, operation: &str) -> ApiError {
    inside(
        condition,
        format!("Unsupported operation [{operation}] in OVERWRITE WHERE clause."),
    )
}

fn check_column(condition: &Expr, expr: &Expr) -> Result<(), ApiError> {
    match expr {
        Expr::Identifier(_) => Ok(()),
        other => Err(inside(
            condition,
            format!("Cannot parse column name from SQL expression [{}]", sql(other)),
        )),
    }
}

/// The first comparison of a column that is not `__time`.
fn beside_time(condition: &Expr) -> Option<&Expr> {
    match condition {
        Expr::Nested(inner) | Expr::UnaryOp { expr: inner, .. } => beside_time(inner),
        Expr::BinaryOp {
            left,
            op: BinaryOperator::And | BinaryOperator::Or,
            right,
        } => beside_time(left).or_else(|| beside_time(right)),
        Expr::Between { expr, .. } | Expr::BinaryOp { left: expr, .. } => match expr.as_ref() {
            Expr::Identifier(name) if name.value != "__time" => Some(condition),
            _ => None,
        },
        _ => None,
    }
}

fn bound(condition: &Expr, expr: &Expr, bounds: &Bounds<'_>) -> Result<i64, ApiError> {
    literal(expr, bounds).map_err(|error| inside(condition, error.message))
}

fn literal(expr: &Expr, bounds: &Bounds<'_>) -> Result<i64, ApiError> {
    match expr {
        Expr::TypedString(literal) => timestamp_literal(literal, bounds.zone),
        Expr::Value(ValueWithSpan {
            value: Value::Placeholder(written),
            ..
        }) => bounds.parameter(written),
        other => Err(validation(format!(
            "Cannot get a timestamp from sql expression [{}]",
            sql(other)
        ))),
    }
}

fn union(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.sort();
    let mut merged: Vec<Interval> = Vec::new();
    for interval in intervals {
        match merged.last_mut() {
            Some(last) if interval.start_ms <= last.end_ms => last.end_ms = last.end_ms.max(interval.end_ms),
            _ => merged.push(interval),
        }
    }
    merged
}

fn intersection(left: &[Interval], right: &[Interval]) -> Vec<Interval> {
    union(
        left.iter()
            .flat_map(|a| right.iter().filter_map(|b| a.intersect(b)))
            .filter(|i| !i.is_empty())
            .collect(),
    )
}

fn complement(intervals: Vec<Interval>) -> Vec<Interval> {
    let mut rest = Vec::new();
    let mut start_ms = ETERNITY.start_ms;
    for interval in union(intervals) {
        if start_ms < interval.start_ms {
            rest.push(Interval::new(start_ms, interval.start_ms));
        }
        start_ms = interval.end_ms;
    }
    if start_ms < ETERNITY.end_ms {
        rest.push(Interval::new(start_ms, ETERNITY.end_ms));
    }
    rest
}
