//! Errors of the parser and of DataFusion in Druid's words, with positions.

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use sqlparser::parser::ParserError;
use sqlparser::tokenizer::{Span, TokenWithSpan};
use trilith_proto::error::{ApiError, Position};

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

/// A token that does not belong where it stands. `expected` says what does.
pub(crate) fn unexpected(found: &str, expected: &str, place: Position) -> ApiError {
    let expected = format!("[{expected}]");
    let message = format!(
        "Received an unexpected token [{found}] (line [{}], column [{}]), acceptable options: {expected}",
        place.line, place.column
    );
    ApiError::sql(message, None)
        .at(place)
        .with("token", found)
        .with("expected", expected)
}

/// The statement ends behind `last`, where more was expected.
pub(crate) fn unexpected_end(last: Option<&TokenWithSpan>, expected: &str) -> ApiError {
    let (found, place) = match last {
        Some(last) => (format!("{} <EOF>", last.token), position(last.span)),
        None => ("<EOF>".to_owned(), None),
    };
    unexpected(&found, expected, place.unwrap_or(START))
}

const START: Position = Position {
    line: 1,
    column: 1,
    end_line: 1,
    end_column: 1,
};

/// What the parser says: "Expected: x, found: y at Line: 1, Column: 10". `last` is the last token that it had.
pub(crate) fn parse_error(error: &ParserError, last: Option<&TokenWithSpan>) -> ApiError {
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
    let place = match place {
        Some((line, column)) => Position {
            line,
            column,
            end_line: line,
            end_column: column,
        },
        None => last.and_then(|last| position(last.span)).unwrap_or(START),
    };
    match message
        .strip_prefix("Expected: ")
        .and_then(|rest| rest.rsplit_once(", found: "))
    {
        Some((expected, "EOF")) => unexpected_end(last, expected),
        Some((expected, found)) => {
            let length = found.chars().count().max(1) as u64;
            let end_column = place.column + length - 1;
            unexpected(found, expected, Position { end_column, ..place })
        }
        None => match between(&message, "No infix parser for token Word(Word { value: \"", "\"") {
            Some(word) => {
                let end_column = place.column + word.chars().count().max(1) as u64 - 1;
                unexpected(
                    &word,
                    "an operator, AS, a comma or the end",
                    Position { end_column, ..place },
                )
            }
            None => ApiError::sql(message, Some(place)),
        },
    }
}

fn parse_place(text: &str) -> Option<(u64, u64)> {
    let (line, column) = text.split_once(", Column: ")?;
    Some((line.trim().parse().ok()?, column.trim().parse().ok()?))
}

/// The statement is no query at all; it begins at `first`.
pub(crate) fn not_a_query(first: Option<&TokenWithSpan>) -> ApiError {
    let message = "Non-query expression encountered in illegal context; a statement begins with SELECT, WITH, VALUES, \
                   INSERT, REPLACE, EXPLAIN PLAN FOR or SET";
    ApiError::sql(message, first.and_then(|first| position(first.span)))
}

/// An error of DataFusion. `find` knows where a name stands in the statement.
pub(crate) fn planning(error: &DataFusionError, find: impl Fn(&str) -> Option<Span>) -> ApiError {
    let located = |message: String, name: &str| match find(name) {
        Some(span) => at(message, span),
        None => validation(message),
    };
    match root(error) {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let name = field.name();
                // Nobody named it: it is what EARLIEST and LATEST go by.
                if name == "__time" && find(name).is_none() {
                    return validation(
                        "LATEST and EARLIEST aggregators implicitly depend on the __time column, but the table queried doesn't contain a __time column.  Please use LATEST_BY or EARLIEST_BY and specify the column explicitly.",
                    );
                }
                // A qualifier that no table of the query has.
                if let Some(table) = &field.relation
                    && !valid_fields
                        .iter()
                        .any(|valid| valid.relation.as_ref() == Some(table))
                {
                    return located(format!("Table '{}' not found", table.table()), name);
                }
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
            if let Some(name) = between(&text, "Argument to function '", "'")
                .or_else(|| between(&text, "Cannot apply '", "'"))
            {
                return located(text, &name);
            }
            if let Some(start) = text.find("Invalid number of arguments to function '") {
                // The planner adds what it would have said.
                let text = text[start..].split(". No function matches").next();
                let text = text.unwrap_or_default().to_owned();
                let name = between(&text, "'", "'").unwrap_or_default();
                return located(text, &name);
            }
            if let Some(name) = between(&text, "Invalid function '", "'") {
                let (shown, hint) = (name.to_uppercase(), absent(&name));
                return located(
                    format!("No match found for function signature {shown}{hint}"),
                    &name,
                );
            }
            validation(druids_words(text))
        }
    }
}

/// What to say of a function that Druid has in an extension which is not here.
fn absent(name: &str) -> String {
    let instead = match name.to_ascii_lowercase().as_str() {
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

/// What the planner says where Druid has words of its own, or where it shows its own insides.
fn druids_words(text: String) -> String {
    if let Some(message) = cannot_apply(&text).or_else(|| cannot_call(&text)) {
        return message;
    }
    for (sign, words) in [
        (
            "Aggregate functions are not allowed in the WHERE clause",
            "Aggregate expression is illegal in WHERE clause; use HAVING",
        ),
        (
            "Aggregate function calls cannot be nested",
            "Aggregate expressions cannot be nested",
        ),
        (
            "Cannot find column with position",
            "Ordinal out of range in GROUP BY",
        ),
        (
            "UNION queries have different number of columns",
            "Column count mismatch in UNION ALL",
        ),
        (
            "to common types in CASE WHEN expression",
            "Illegal mixing of types in CASE or COALESCE statement",
        ),
        (
            "Order by column out of bounds",
            "Ordinal out of range in ORDER BY",
        ),
        ("Ident {", "The statement has a form that is not supported here"),
        ("Span(", "The statement has a form that is not supported here"),
    ] {
        if text.contains(sign) {
            return words.to_owned();
        }
    }
    text
}

/// Operands whose types do not go together, in Calcite's words.
fn cannot_apply(text: &str) -> Option<String> {
    let operation = text
        .split_once("Cannot infer common argument type for comparison operation ")
        .or_else(|| text.split_once("Cannot coerce arithmetic expression "))
        .or_else(|| text.split_once("Cannot infer common argument type for logical boolean operation "))
        .or_else(|| text.split_once("Cannot get result type for temporal operation "))?
        .1;
    let operation = operation.split(" to valid types").next()?;
    let operation = operation.split(": ").next()?.trim();
    let words: Vec<&str> = operation.split(' ').collect();
    let [left, operator, right] = words[..] else {
        return None;
    };
    let name = |word: &str| match word {
        "Boolean" => "BOOLEAN".to_owned(),
        "Binary" => "OTHER".to_owned(),
        "Int32" => "INTEGER".to_owned(),
        word => word.to_owned(),
    };
    Some(format!(
        "Cannot apply '{operator}' to arguments of type '<{}> {operator} <{}>'; cast one of them to the type of the other",
        name(left),
        name(right)
    ))
}

/// A function that does not take what it is given: "… the given name and argument types 'sum(Binary)' …".
fn cannot_call(text: &str) -> Option<String> {
    let call = between(text, "the given name and argument types '", "'")?;
    let (name, types) = call.strip_suffix(')')?.split_once('(')?;
    let name = name.to_uppercase();
    let types = types.split(", ").map(|word| match word {
        "Boolean" => "<BOOLEAN>".to_owned(),
        "Binary" => "<OTHER>".to_owned(),
        word => format!("<{word}>"),
    });
    let types: Vec<String> = types.collect();
    Some(format!(
        "Cannot apply '{name}' to arguments of type '{name}({})'",
        types.join(", ")
    ))
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
        ("ARRAY(", "List("),
        ("ROW(", "Struct("),
        ("", "user-defined coercion failed with: Error during planning: "),
        ("", "Error during planning: "),
    ] {
        text = text.replace(theirs, ours);
    }
    // Suggestions of internal signatures help nobody.
    match text.find("\n\tCandidate functions:") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
