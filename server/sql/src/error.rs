//! Errors of the parser and of DataFusion in Druid's words, with positions.

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use sqlparser::parser::ParserError;
use sqlparser::tokenizer::Span;
use trilith_proto::error::{ApiError, Category, Persona, Position};

/// Position of a span; the end is the last character.
pub(crate) fn position(span: Span) -> Option<Position> {
    if span.start.line == 0 {
        return None;
    }
    Some(Position {
        line: span.start.line,
        column: span.start.column,
        end_line: span.end.line,
        end_column: span.end.column.saturating_sub(1).max(1),
    })
}

/// An error at a span.
pub(crate) fn at(message: impl Into<String>, span: Span) -> ApiError {
    ApiError::sql(message, position(span))
}

/// An error without a position.
pub(crate) fn validation(message: impl Into<String>) -> ApiError {
    ApiError::sql(message, None)
}

/// What the parser says: "Expected: x, found: y at Line: 1, Column: 10".
pub(crate) fn parse_error(error: &ParserError, end: (u64, u64)) -> ApiError {
    let text = match error {
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => text.clone(),
        ParserError::RecursionLimitExceeded => {
            return validation("The statement is nested too deeply; split it with WITH");
        }
    };
    let (message, place) = match text.split_once(" at Line: ") {
        Some((message, place)) => (message.to_owned(), parse_place(place)),
        None => (text, None),
    };
    let (line, column) = place.unwrap_or(end);
    let place = Position {
        line,
        column,
        end_line: line,
        end_column: column,
    };
    let message = match message
        .strip_prefix("Expected: ")
        .and_then(|rest| rest.rsplit_once(", found: "))
    {
        Some((expected, found)) => {
            let found = if found == "EOF" { "<EOF>" } else { found };
            format!("Received an unexpected token [{found}], expected [{expected}]")
        }
        None => message,
    };
    ApiError::sql(message, Some(place))
}

fn parse_place(text: &str) -> Option<(u64, u64)> {
    let (line, column) = text.split_once(", Column: ")?;
    Some((line.trim().parse().ok()?, column.trim().parse().ok()?))
}

/// The statement is no query at all.
pub(crate) fn not_a_query() -> ApiError {
    ApiError::new(
        Category::Uncategorized,
        Persona::Developer,
        "general",
        "Unable to parse the SQL, unrecognized error from calcite: [Non-query expression encountered in illegal context]",
    )
}

/// An error of DataFusion. `find` knows where a name stands in the statement.
pub(crate) fn planning(error: &DataFusionError, find: impl Fn(&str) -> Option<Span>) -> ApiError {
    let located = |message: String, name: &str| match find(name) {
        Some(span) => at(message, span),
        None => validation(message),
    };
    match root(error) {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, .. } => {
                let name = field.name();
                located(format!("Column '{name}' not found in any table"), name)
            }
            SchemaError::AmbiguousReference { field } => {
                let name = field.name();
                located(format!("Column '{name}' is ambiguous"), name)
            }
            SchemaError::DuplicateUnqualifiedField { name } => {
                located(format!("Duplicate field in SELECT: [{name}]"), name)
            }
            SchemaError::DuplicateQualifiedField { name, .. } => {
                located(format!("Duplicate field in SELECT: [{name}]"), name)
            }
        },
        other => {
            let text = plain_message(other);
            if let Some(name) = not_grouped(&text) {
                return located(format!("Expression '{name}' is not being grouped"), &name);
            }
            if let Some(name) = between(&text, "Invalid function '", "'") {
                let hint = absent(&name);
                return located(
                    format!("No match found for function signature {name}{hint}"),
                    &name,
                );
            }
            validation(text)
        }
    }
}

/// What to say of a function that Druid has in an extension which is not here.
fn absent(name: &str) -> String {
    let instead = match name.to_ascii_lowercase().as_str() {
        "bloom_filter" | "bloom_filter_test" => "; use IN or EXISTS with a subquery",
        "approx_quantile" | "approx_quantile_fixed_buckets" | "tdigest_quantile" | "spectator_percentile" => {
            "; use APPROX_QUANTILE_DS"
        }
        "tdigest_generate_sketch" => "; use DS_QUANTILES_SKETCH",
        "bitmap64_exact_count" => "; use COUNT(DISTINCT …) with useApproximateCountDistinct set to false",
        "big_sum" | "big_min" | "big_max" | "spectator_count" => "; use SUM, MIN, MAX or COUNT",
        _ => return String::new(),
    };
    format!(", which Druid has in an extension that this server does not have{instead}")
}

fn root(error: &DataFusionError) -> &DataFusionError {
    match error {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => root(inner),
        DataFusionError::Collection(errors) => errors.first().map_or(error, root),
        DataFusionError::Shared(inner) => root(inner),
        other => other,
    }
}

/// `Column in SELECT must be in GROUP BY …: … "t.name" …`
fn not_grouped(text: &str) -> Option<String> {
    if !text.contains("must be in GROUP BY") && !text.contains("must appear in the GROUP BY") {
        return None;
    }
    let quoted = between(text, "column \"", "\"")?;
    let name = quoted.rsplit('.').next().unwrap_or(&quoted);
    Some(name.trim_matches('"').to_owned())
}

fn between(text: &str, before: &str, after: &str) -> Option<String> {
    let rest = &text[text.find(before)? + before.len()..];
    Some(rest[..rest.find(after)?].to_owned())
}

/// The text of an error without its origin.
pub fn plain_message(error: &DataFusionError) -> String {
    let text = match root(error) {
        DataFusionError::Plan(text)
        | DataFusionError::NotImplemented(text)
        | DataFusionError::Execution(text)
        | DataFusionError::Internal(text)
        | DataFusionError::Configuration(text) => text.clone(),
        DataFusionError::SQL(error, _) => error.to_string(),
        DataFusionError::ArrowError(error, _) => error.to_string(),
        other => other.to_string(),
    };
    let mut text = text.split("\n\nbacktrace:").next().unwrap_or_default().to_owned();
    for prefix in [
        "Error during planning: ",
        "This feature is not implemented: ",
        "Execution error: ",
    ] {
        while let Some(rest) = text.strip_prefix(prefix) {
            text = rest.to_owned();
        }
    }
    for (ours, theirs) in [
        ("BIGINT", "Int64"),
        ("VARCHAR", "Utf8"),
        ("DOUBLE", "Float64"),
        ("FLOAT", "Float32"),
        ("TIMESTAMP", "Timestamp(ms, \"UTC\")"),
        ("the planner", "DataFusion"),
    ] {
        text = text.replace(theirs, ours);
    }
    // Suggestions of internal signatures help nobody.
    match text.find("\n\tCandidate functions:") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
