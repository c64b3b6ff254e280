//! `TABLE(EXTERN(…)) [EXTEND (…)]`, and table functions: taken out of the tokens, a placeholder table stays.

use serde_json::{Map, Value};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan, Word};
use trilith_proto::column::ColumnType;
use trilith_proto::error::{ApiError, Position};

use crate::catalog::ExternCall;
use crate::error::{at, position, validation};
use crate::statement::{Tokens, is_word};
use crate::table_function::TableFunction;

/// Names of placeholder tables begin with this.
pub(crate) const PLACEHOLDER: &str = "__extern_";

/// An argument: a literal, a `?`, or an `ARRAY[…]` of them.
pub(crate) enum Argument {
    Value(Value),
    /// Number of the parameter, from 0, over the whole statement.
    Parameter(usize),
    List(Vec<Argument>),
}

impl Argument {
    /// `parameters` are the values of `?`.
    fn value(&self, parameters: &[Value]) -> Result<Value, ApiError> {
        match self {
            Argument::Value(value) => Ok(value.clone()),
            Argument::Parameter(index) => parameters.get(*index).cloned().ok_or_else(|| {
                validation(format!(
                    "No value bound for dynamic parameter position [{}]",
                    index + 1
                ))
            }),
            Argument::List(items) => items.iter().map(|item| item.value(parameters)).collect(),
        }
    }
}

/// What was called.
enum Called {
    Extern {
        source: Argument,
        format: Argument,
        signature: Option<Argument>,
    },
    Function {
        function: TableFunction,
        arguments: Vec<(&'static str, Argument)>,
    },
}

/// A call as it was written.
pub(crate) struct RawExtern {
    called: Called,
    extend: Option<Vec<(String, ColumnType)>>,
    span: Span,
}

/// Replaces every call by a placeholder. `first_parameter` is the number of the first `?`.
pub(crate) fn take(
    body: Vec<TokenWithSpan>,
    first_parameter: usize,
) -> Result<(Vec<TokenWithSpan>, Vec<RawExtern>), ApiError> {
    let mut out = Vec::with_capacity(body.len());
    let mut externs = Vec::new();
    let mut tokens = Tokens::from(body);
    let mut parameters = first_parameter;
    while let Some(mut token) = tokens.next() {
        if let Token::Placeholder(written) = &mut token.token {
            // Those inside of calls are gone when the rest is counted.
            *written = format!("?{parameters}");
            parameters += 1;
        }
        if !is_word(&token.token, "TABLE") || tokens.peek().is_none_or(|next| next.token != Token::LParen) {
            out.push(token);
            continue;
        }
        let open = tokens.next();
        let called = if tokens.word("EXTERN") {
            extern_arguments(&mut tokens, token.span, &mut parameters)?
        } else if let Some(function) = table_function(&tokens) {
            tokens.next();
            function_arguments(function, &mut tokens, &mut parameters)?
        } else {
            out.push(token);
            out.extend(open);
            continue;
        };
        let call = call(called, &mut tokens, token.span)?;
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

/// The table function whose call begins here.
fn table_function(tokens: &Tokens) -> Option<TableFunction> {
    let opens = tokens
        .peek_at(1)
        .is_some_and(|token| token.token == Token::LParen);
    match tokens.peek().map(|token| &token.token) {
        Some(Token::Word(word)) if opens => TableFunction::of(&word.value),
        _ => None,
    }
}

/// Both closing parentheses, and the columns.
fn call(called: Called, tokens: &mut Tokens, span: Span) -> Result<RawExtern, ApiError> {
    expect(tokens, &Token::RParen, ")")?;
    let extends = tokens.word("EXTEND");
    let list = extends || opens_columns(tokens);
    let extend = if list { Some(columns(tokens)?) } else { None };
    if let Called::Extern {
        signature: Some(_), ..
    } = &called
        && extend.is_some()
    {
        return Err(at(
            "EXTERN requires either a [signature] value or an EXTEND clause, but not both",
            span,
        ));
    }
    Ok(RawExtern { called, extend, span })
}

fn extern_arguments(tokens: &mut Tokens, span: Span, parameters: &mut usize) -> Result<Called, ApiError> {
    const TOO_MANY: &str = "EXTERN takes at most 3 arguments: input source, input format, signature";
    expect(tokens, &Token::LParen, "(")?;
    let mut arguments: [Option<Argument>; 3] = [None, None, None];
    let mut next = 0;
    while !tokens.token(&Token::RParen) {
        let place = match name(tokens)? {
            Some(name) => ["inputSource", "inputFormat", "signature"]
                .iter()
                .position(|known| known.eq_ignore_ascii_case(&name))
                .ok_or_else(|| {
                    let message = format!(
                        "EXTERN has no argument [{name}]; use inputSource, inputFormat and signature"
                    );
                    at(message, span)
                })?,
            None => next,
        };
        let argument = match argument(tokens, parameters)? {
            Argument::Value(Value::String(text)) => Argument::Value(Value::String(text)),
            Argument::Parameter(index) => Argument::Parameter(index),
            _ => {
                return Err(at(
                    "EXTERN takes JSON text as arguments: input source, input format, signature",
                    span,
                ));
            }
        };
        match arguments.get_mut(place) {
            Some(slot @ None) => *slot = Some(argument),
            Some(Some(_)) => return Err(at("EXTERN has the same argument twice", span)),
            None => return Err(at(TOO_MANY, span)),
        }
        next = place + 1;
        separator(tokens)?;
    }
    let [source, format, signature] = arguments;
    let missing = |what: &str| at(format!("EXTERN lacks its argument [{what}]"), span);
    Ok(Called::Extern {
        source: source.ok_or_else(|| missing("inputSource"))?,
        format: format.ok_or_else(|| missing("inputFormat"))?,
        signature,
    })
}

fn function_arguments(
    function: TableFunction,
    tokens: &mut Tokens,
    parameters: &mut usize,
) -> Result<Called, ApiError> {
    expect(tokens, &Token::LParen, "(")?;
    let mut arguments: Vec<(&'static str, Argument)> = Vec::new();
    while !tokens.token(&Token::RParen) {
        let span = tokens.span();
        let name = name(tokens)?.ok_or_else(|| {
            at(
                format!(
                    "Arguments of table function [{}] need names: <name> => <value>",
                    function.name()
                ),
                span,
            )
        })?;
        let name = function.argument(&name).map_err(|message| at(message, span))?;
        if arguments.iter().any(|(other, _)| *other == name) {
            let message = format!(
                "Table function [{}] has the argument [{name}] twice",
                function.name()
            );
            return Err(at(message, span));
        }
        arguments.push((name, argument(tokens, parameters)?));
        separator(tokens)?;
    }
    Ok(Called::Function { function, arguments })
}

fn separator(tokens: &mut Tokens) -> Result<(), ApiError> {
    if tokens.token(&Token::Comma) || tokens.peek().is_some_and(|token| token.token == Token::RParen) {
        Ok(())
    } else {
        Err(tokens.expected(", or )"))
    }
}

/// A literal, a `?`, or an array of them.
fn argument(tokens: &mut Tokens, parameters: &mut usize) -> Result<Argument, ApiError> {
    let span = tokens.span();
    let wrong = || at("Expected a literal, ? or ARRAY['...'] as an argument", span);
    Ok(match tokens.next().map(|token| token.token) {
        Some(Token::SingleQuotedString(text) | Token::UnicodeStringLiteral(text)) => {
            Argument::Value(Value::String(text))
        }
        Some(Token::Placeholder(_)) => {
            *parameters += 1;
            Argument::Parameter(*parameters - 1)
        }
        Some(Token::Number(text, _)) => {
            Argument::Value(serde_json::from_str::<Value>(&text).map_err(|_| wrong())?)
        }
        Some(token) if is_word(&token, "TRUE") => Argument::Value(Value::Bool(true)),
        Some(token) if is_word(&token, "FALSE") => Argument::Value(Value::Bool(false)),
        Some(token) if is_word(&token, "NULL") => Argument::Value(Value::Null),
        Some(token) if is_word(&token, "ARRAY") => {
            expect(tokens, &Token::LBracket, "[")?;
            let mut items = Vec::new();
            while !tokens.token(&Token::RBracket) {
                items.push(argument(tokens, parameters)?);
                if !tokens.token(&Token::Comma)
                    && tokens.peek().is_none_or(|token| token.token != Token::RBracket)
                {
                    return Err(tokens.expected(", or ]"));
                }
            }
            Argument::List(items)
        }
        _ => return Err(wrong()),
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
fn name(tokens: &mut Tokens) -> Result<Option<String>, ApiError> {
    let named = tokens
        .peek_at(1)
        .is_some_and(|token| token.token == Token::RArrow);
    match tokens.peek().map(|token| token.token.clone()) {
        Some(Token::Word(word)) if named => {
            tokens.next();
            tokens.next();
            Ok(Some(word.value))
        }
        _ => Ok(None),
    }
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
        if tokens.peek().is_some_and(|token| token.token == Token::Period) {
            return Err(at(
                format!("Column [{name}] must have a simple name"),
                tokens.span(),
            ));
        }
        let column_type = column_type(tokens, &name)?;
        // Columns of files are nullable, whatever is said of them.
        if tokens.word("NOT") && !tokens.word("NULL") {
            return Err(tokens.expected("NULL"));
        }
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
        "DOUBLE" => {
            tokens.word("PRECISION");
            ColumnType::Double
        }
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
        let (input_source, input_format, signature) = match &self.called {
            Called::Extern {
                source,
                format,
                signature,
            } => {
                let signature = match (&self.extend, signature) {
                    (Some(columns), _) => Some(columns.clone()),
                    (None, Some(argument)) => {
                        Some(self.signature(&self.json(argument, "signature", parameters)?)?)
                    }
                    (None, None) => None,
                };
                let source = self.json(source, "inputSource", parameters)?;
                (source, self.json(format, "inputFormat", parameters)?, signature)
            }
            Called::Function { function, arguments } => {
                let values = arguments
                    .iter()
                    .map(|(name, argument)| Ok(((*name).to_owned(), argument.value(parameters)?)))
                    .collect::<Result<Map<_, _>, ApiError>>()?;
                let (source, format) = function
                    .source_and_format(&values, self.extend.as_deref())
                    .map_err(|message| at(message, self.span))?;
                (source, format, self.extend.clone())
            }
        };
        Ok(ExternCall {
            input_source,
            input_format,
            signature,
            position: place,
        })
    }

    /// An argument of EXTERN, which is JSON text.
    fn json(&self, argument: &Argument, what: &str, parameters: &[Value]) -> Result<Value, ApiError> {
        let text = match argument.value(parameters)? {
            Value::String(text) => text,
            other => other.to_string(),
        };
        serde_json::from_str(&text).map_err(|error| {
            at(
                format!("The argument [{what}] of EXTERN is not valid JSON: {error}"),
                self.span,
            )
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
