//! `TABLE(EXTERN(…)) [EXTEND (…)]`: taken out of the tokens, a placeholder table stays.

use serde_json::Value;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan, Word};
use trilith_proto::column::ColumnType;
use trilith_proto::error::{ApiError, Position};

use crate::catalog::ExternCall;
use crate::error::{at, position, validation};
use crate::statement::{Tokens, is_word};

/// Names of placeholder tables begin with this.
pub(crate) const PLACEHOLDER: &str = "__extern_";

/// An argument: text, or a `?`.
pub(crate) enum Argument {
    Text(String),
    /// Number of the parameter, from 0, over the whole statement.
    Parameter(usize),
}

/// A call as it was written.
pub(crate) struct RawExtern {
    source: Argument,
    format: Argument,
    signature: Option<Argument>,
    extend: Option<Vec<(String, ColumnType)>>,
    span: Span,
}

/// Replaces every call by a placeholder.
pub(crate) fn take(body: Vec<TokenWithSpan>) -> Result<(Vec<TokenWithSpan>, Vec<RawExtern>), ApiError> {
    let mut out = Vec::with_capacity(body.len());
    let mut externs = Vec::new();
    let mut tokens = Tokens::from(body);
    let mut parameters = 0;
    while let Some(token) = tokens.next() {
        if matches!(token.token, Token::Placeholder(_)) {
            parameters += 1;
        }
        if !is_word(&token.token, "TABLE") || tokens.peek().is_none_or(|next| next.token != Token::LParen) {
            out.push(token);
            continue;
        }
        let open = tokens.next();
        if !tokens.word("EXTERN") {
            out.push(token);
            out.extend(open);
            continue;
        }
        let call = call(&mut tokens, token.span, &mut parameters)?;
        let name = format!("{PLACEHOLDER}{}", externs.len());
        externs.push(call);
        let word = Word {
            value: name,
            quote_style: Some('"'),
            keyword: Keyword::NoKeyword,
        };
        out.push(TokenWithSpan {
            token: Token::Word(word),
            span: token.span,
        });
    }
    Ok((out, externs))
}

fn call(tokens: &mut Tokens, span: Span, parameters: &mut usize) -> Result<RawExtern, ApiError> {
    expect(tokens, &Token::LParen, "(")?;
    let mut arguments: [Option<Argument>; 3] = [None, None, None];
    let mut next = 0;
    while !tokens.token(&Token::RParen) {
        let place = name(tokens)?.unwrap_or(next);
        let argument = match tokens.next().map(|token| token.token) {
            Some(Token::SingleQuotedString(text) | Token::UnicodeStringLiteral(text)) => Argument::Text(text),
            Some(Token::Placeholder(_)) => {
                *parameters += 1;
                Argument::Parameter(*parameters - 1)
            }
            _ => {
                return Err(at(
                    "EXTERN takes JSON text as arguments: input source, input format, signature",
                    span,
                ));
            }
        };
        match arguments.get_mut(place) {
            Some(slot) => *slot = Some(argument),
            None => {
                return Err(at(
                    "EXTERN takes at most 3 arguments: input source, input format, signature",
                    span,
                ));
            }
        }
        next = place + 1;
        if !tokens.token(&Token::Comma) && tokens.peek().is_none_or(|token| token.token != Token::RParen) {
            return Err(tokens.expected(", or )"));
        }
    }
    expect(tokens, &Token::RParen, ")")?;
    let extends = tokens.word("EXTEND");
    let list = extends || opens_columns(tokens);
    let extend = if list { Some(columns(tokens)?) } else { None };
    let [source, format, signature] = arguments;
    let missing = |what: &str| at(format!("EXTERN lacks its argument [{what}]"), span);
    let source = source.ok_or_else(|| missing("inputSource"))?;
    let format = format.ok_or_else(|| missing("inputFormat"))?;
    match (&signature, &extend) {
        (None, None) => {
            return Err(at(
                "EXTERN requires either a [signature] value or an EXTEND clause",
                span,
            ));
        }
        (Some(_), Some(_)) => {
            return Err(at(
                "EXTERN requires either a [signature] value or an EXTEND clause, but not both",
                span,
            ));
        }
        _ => {}
    }
    Ok(RawExtern {
        source,
        format,
        signature,
        extend,
        span,
    })
}

fn expect(tokens: &mut Tokens, token: &Token, text: &str) -> Result<(), ApiError> {
    if tokens.token(token) {
        Ok(())
    } else {
        Err(tokens.expected(text))
    }
}

/// `name =>` in front of an argument.
fn name(tokens: &mut Tokens) -> Result<Option<usize>, ApiError> {
    let Some(Token::Word(word)) = tokens.peek().map(|token| token.token.clone()) else {
        return Ok(None);
    };
    let place = ["inputSource", "inputFormat", "signature"]
        .iter()
        .position(|known| known.eq_ignore_ascii_case(&word.value))
        .ok_or_else(|| tokens.expected("inputSource, inputFormat or signature"))?;
    tokens.next();
    expect(tokens, &Token::RArrow, "=>")?;
    Ok(Some(place))
}

/// `(name TYPE` without the word EXTEND.
fn opens_columns(tokens: &Tokens) -> bool {
    tokens.peek().is_some_and(|token| token.token == Token::LParen)
}

fn columns(tokens: &mut Tokens) -> Result<Vec<(String, ColumnType)>, ApiError> {
    expect(tokens, &Token::LParen, "(")?;
    let mut columns = Vec::new();
    loop {
        let name = match tokens.next().map(|token| token.token) {
            Some(Token::Word(word)) => word.value,
            _ => return Err(tokens.expected("a column name")),
        };
        let column_type = column_type(tokens, &name)?;
        columns.push((name, column_type));
        if !tokens.token(&Token::Comma) {
            break;
        }
    }
    expect(tokens, &Token::RParen, ")")?;
    Ok(columns)
}

fn column_type(tokens: &mut Tokens, column: &str) -> Result<ColumnType, ApiError> {
    let word = match tokens.next().map(|token| token.token) {
        Some(Token::Word(word)) => word.value.to_ascii_uppercase(),
        _ => return Err(tokens.expected("a column type")),
    };
    let scalar = match word.as_str() {
        "CHAR" | "VARCHAR" => ColumnType::String,
        "TINYINT" | "SMALLINT" | "INTEGER" | "INT" | "BIGINT" => ColumnType::Long,
        "DOUBLE" => ColumnType::Double,
        "FLOAT" | "REAL" => ColumnType::Float,
        "TYPE" => {
            expect(tokens, &Token::LParen, "(")?;
            let text = match tokens.next().map(|token| token.token) {
                Some(Token::SingleQuotedString(text)) => text,
                _ => return Err(tokens.expected("a native type in quotes")),
            };
            expect(tokens, &Token::RParen, ")")?;
            return ColumnType::parse(&text)
                .ok_or_else(|| validation(format!("Column [{column}] has an unsupported type: [{text}]")));
        }
        other => {
            return Err(validation(format!(
                "Column [{column}] has an unsupported type: [{other}]"
            )));
        }
    };
    if tokens.token(&Token::LParen) {
        // VARCHAR(20): the length means nothing.
        tokens.next();
        expect(tokens, &Token::RParen, ")")?;
    }
    Ok(if tokens.word("ARRAY") {
        ColumnType::Array(Box::new(scalar))
    } else {
        scalar
    })
}

impl RawExtern {
    /// Reads the JSON of the arguments. `parameters` are the values of `?`.
    pub(crate) fn resolve(&self, parameters: &[Value]) -> Result<ExternCall, ApiError> {
        let place = position(self.span).unwrap_or(Position {
            line: 1,
            column: 1,
            end_line: 1,
            end_column: 1,
        });
        let json = |argument: &Argument, what: &str| -> Result<Value, ApiError> {
            let text = match argument {
                Argument::Text(text) => text.clone(),
                Argument::Parameter(index) => match parameters.get(*index) {
                    Some(Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                    None => {
                        return Err(validation(format!(
                            "No value bound for dynamic parameter position [{index}]"
                        )));
                    }
                },
            };
            serde_json::from_str(&text).map_err(|error| {
                at(
                    format!("The argument [{what}] of EXTERN is not valid JSON: {error}"),
                    self.span,
                )
            })
        };
        let signature = match (&self.extend, &self.signature) {
            (Some(columns), _) => columns.clone(),
            (None, Some(argument)) => self.signature(&json(argument, "signature")?)?,
            (None, None) => Vec::new(),
        };
        Ok(ExternCall {
            input_source: json(&self.source, "inputSource")?,
            input_format: json(&self.format, "inputFormat")?,
            signature,
            position: place,
        })
    }

    fn signature(&self, value: &Value) -> Result<Vec<(String, ColumnType)>, ApiError> {
        let wrong = |why: &str| at(format!("The argument [signature] of EXTERN {why}"), self.span);
        let items = value
            .as_array()
            .ok_or_else(|| wrong("must be a JSON list of {\"name\", \"type\"}"))?;
        items
            .iter()
            .map(|item| {
                let name = item["name"]
                    .as_str()
                    .ok_or_else(|| wrong("has a column without a name"))?;
                let text = item["type"]
                    .as_str()
                    .ok_or_else(|| wrong(&format!("has no type for column [{name}]")))?;
                let column_type = ColumnType::parse(text)
                    .ok_or_else(|| wrong(&format!("has the unknown type [{text}] for column [{name}]")))?;
                Ok((name.to_owned(), column_type))
            })
            .collect()
    }
}
