//! SET in front of a statement.

use serde_json::{Map, Value};
use sqlparser::tokenizer::{Span, Token};
use trilith_proto::error::ApiError;

use crate::error::{at, validation};
use crate::statement::Tokens;

/// Reads every SET. The last value of a key wins; a DATE or TIMESTAMP is its text.
pub(crate) fn read(tokens: &mut Tokens) -> Result<Map<String, Value>, ApiError> {
    let mut settings = Map::new();
    while tokens.word("SET") {
        let name = match tokens.next().map(|token| token.token) {
            Some(Token::Word(word)) => word.value,
            _ => return Err(tokens.expected("a context key")),
        };
        if !tokens.token(&Token::Eq) {
            return Err(tokens.expected("="));
        }
        let span = tokens.span();
        let value = literal(tokens, &name, span)?;
        let ends = tokens.token(&Token::SemiColon);
        if tokens.peek().is_none() {
            return Err(validation(
                "Statement list is missing a non-SET statement to execute: put one behind SET, after a semicolon",
            ));
        }
        if !ends {
            // An expression goes on where a literal ends.
            return Err(at(
                format!(
                    "Assigned value must be a literal for SET statement[SET \"{name}\"], and a semicolon must follow"
                ),
                span,
            ));
        }
        settings.insert(name, value);
    }
    Ok(settings)
}

fn literal(tokens: &mut Tokens, name: &str, span: Span) -> Result<Value, ApiError> {
    let wrong = |found: &str| {
        let message = format!("Assigned value must be a literal for SET statement[SET \"{name}\" = {found}]");
        at(message, span)
    };
    let negative = tokens.token(&Token::Minus);
    let token = tokens.next().map(|token| token.token);
    match token {
        Some(Token::Number(text, _)) => {
            let text = if negative { format!("-{text}") } else { text };
            serde_json::from_str(&text).map_err(|_| wrong(&text))
        }
        Some(Token::SingleQuotedString(text)) if !negative => Ok(Value::String(text)),
        Some(Token::Word(word)) if word.quote_style.is_none() && !negative => {
            match word.value.to_ascii_uppercase().as_str() {
                "TRUE" => Ok(Value::Bool(true)),
                "FALSE" => Ok(Value::Bool(false)),
                "NULL" => Ok(Value::Null),
                "DATE" | "TIMESTAMP" => match tokens.next().map(|token| token.token) {
                    Some(Token::SingleQuotedString(text)) => Ok(Value::String(text)),
                    _ => Err(wrong(&word.value)),
                },
                "ARRAY" if tokens.token(&Token::LBracket) => {
                    let mut items = Vec::new();
                    while !tokens.token(&Token::RBracket) {
                        items.push(literal(tokens, name, span)?);
                        let more = tokens.token(&Token::Comma);
                        let ends = tokens.peek().is_some_and(|next| next.token == Token::RBracket);
                        if more == ends {
                            return Err(tokens.expected("]"));
                        }
                    }
                    Ok(Value::Array(items))
                }
                _ => Err(wrong(&format!("\"{}\"", word.value))),
            }
        }
        Some(other) => Err(wrong(&other.to_string())),
        None => Err(wrong("<EOF>")),
    }
}
