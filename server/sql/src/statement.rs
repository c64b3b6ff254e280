//! Takes a statement apart: SET, EXPLAIN, INSERT or REPLACE, the query, PARTITIONED BY, CLUSTERED BY.

use serde_json::{Map, Value};
use sqlparser::ast::{Expr, OrderByExpr, Query, SetExpr};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};
use trilith_proto::error::ApiError;
use trilith_proto::interval::{Granularity, Interval};

use crate::error::{at, not_a_query, parse_error, position, unexpected, unexpected_end, validation};
use crate::extern_call::{self, RawExtern};
use crate::{partitioning, reserved, settings, syntax};

/// A statement in its parts.
pub(crate) struct Parts {
    pub settings: Map<String, Value>,
    pub explain: bool,
    /// It was a DELETE: `query` selects the rows that go.
    pub deletes: bool,
    pub target: Option<Target>,
    pub query: Box<Query>,
    pub externs: Vec<RawExtern>,
    pub partitioned_by: Option<Granularity>,
    pub clustered_by: Vec<OrderByExpr>,
}

/// Where rows go.
pub(crate) struct Target {
    pub datasource: String,
    /// None for INSERT.
    pub overwrite: Option<Overwrite>,
}

/// What a REPLACE removes.
pub(crate) enum Overwrite {
    All,
    Where {
        condition: Box<Expr>,
        /// How many `?` it has, numbered from 0.
        parameters: usize,
    },
    Intervals(Vec<Interval>),
}

/// Characters of a name.
const NAME_LENGTH_MAX: usize = 128;

/// Tokens that mean something, with a cursor.
pub(crate) struct Tokens {
    tokens: Vec<TokenWithSpan>,
    at: usize,
}

impl Tokens {
    fn new(sql: &str) -> Result<Tokens, ApiError> {
        let dialect = GenericDialect {};
        let tokens = Tokenizer::new(&dialect, sql)
            .tokenize_with_location()
            .map_err(|error| parse_error(&error.into(), None))?;
        let tokens = tokens
            .into_iter()
            .filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF))
            .map(|mut token| {
                // U&'…' is read already.
                if let Token::UnicodeStringLiteral(text) = token.token {
                    token.token = Token::SingleQuotedString(text);
                }
                token
            })
            .collect();
        let tokens = Tokens { tokens, at: 0 };
        tokens.refuse_own_names()?;
        tokens.refuse_long_names()?;
        Ok(tokens)
    }

    /// Functions of our own are no part of the language.
    fn refuse_own_names(&self) -> Result<(), ApiError> {
        for two in self.tokens.windows(2) {
            let [name, next] = two else { continue };
            if next.token == Token::LParen
                && let Token::Word(word) = &name.token
                && trilith_functions::is_own(&word.value.to_ascii_lowercase())
            {
                let shown = word.value.to_uppercase();
                return Err(at(
                    format!("No match found for function signature {shown}"),
                    name.span,
                ));
            }
        }
        Ok(())
    }

    fn refuse_long_names(&self) -> Result<(), ApiError> {
        for token in &self.tokens {
            if let Token::Word(word) = &token.token
                && word.value.chars().count() > NAME_LENGTH_MAX
            {
                return Err(at(
                    format!(
                        "Length of identifier '{}' must be less than or equal to {NAME_LENGTH_MAX} characters",
                        word.value
                    ),
                    token.span,
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn from(tokens: Vec<TokenWithSpan>) -> Tokens {
        Tokens { tokens, at: 0 }
    }

    pub(crate) fn peek(&self) -> Option<&TokenWithSpan> {
        self.tokens.get(self.at)
    }

    /// The token that many places after the next one.
    pub(crate) fn peek_at(&self, offset: usize) -> Option<&TokenWithSpan> {
        self.tokens.get(self.at + offset)
    }

    pub(crate) fn next(&mut self) -> Option<TokenWithSpan> {
        let token = self.tokens.get(self.at).cloned();
        self.at += usize::from(token.is_some());
        token
    }

    pub(crate) fn rest(&mut self) -> Vec<TokenWithSpan> {
        let rest = self.tokens.split_off(self.at.min(self.tokens.len()));
        self.at = self.tokens.len();
        rest
    }

    /// True, and past it, if the next token is this unquoted word.
    pub(crate) fn word(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|token| is_word(&token.token, word));
        self.at += usize::from(found);
        found
    }

    pub(crate) fn token(&mut self, wanted: &Token) -> bool {
        let found = self.peek().is_some_and(|token| token.token == *wanted);
        self.at += usize::from(found);
        found
    }

    /// Where the next token is, or the end of the last one.
    pub(crate) fn span(&self) -> Span {
        match self.peek().or(self.tokens.last()) {
            Some(token) => token.span,
            None => Span::new(Location { line: 1, column: 1 }, Location { line: 1, column: 1 }),
        }
    }

    pub(crate) fn expected(&self, what: &str) -> ApiError {
        match self.peek() {
            Some(token) => misplaced(token, what),
            None => unexpected_end(self.tokens.last(), what),
        }
    }
}

/// A token where something else belongs.
pub(crate) fn misplaced(token: &TokenWithSpan, expected: &str) -> ApiError {
    match position(token.span) {
        Some(place) => unexpected(&token.token.to_string(), expected, place),
        None => unexpected_end(None, expected),
    }
}

/// An unquoted word, in any case.
pub(crate) fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(found) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
}

/// Parses a statement.
pub(crate) fn parse(sql: &str) -> Result<Parts, ApiError> {
    let mut tokens = Tokens::new(sql)?;
    let settings = settings::read(&mut tokens)?;
    let explain = explain(&mut tokens)?;
    let span = tokens.span();
    let deletes = tokens.word("DELETE");
    if deletes && !tokens.peek().is_some_and(|next| is_word(&next.token, "FROM")) {
        return Err(tokens.expected("FROM"));
    }
    let target = target(&mut tokens)?;
    let first_parameter = match target.as_ref().and_then(|target| target.overwrite.as_ref()) {
        Some(Overwrite::Where { parameters, .. }) => *parameters,
        _ => 0,
    };
    let last = tokens.tokens.last().cloned();
    let mut body = tokens.rest();
    if deletes {
        let selected = [Token::make_keyword("SELECT"), Token::Mul];
        body.splice(0..0, selected.map(|token| TokenWithSpan { token, span }));
    }
    while body.last().is_some_and(|token| token.token == Token::SemiColon) {
        body.pop();
    }
    if let Some(end) = body.iter().position(|token| token.token == Token::SemiColon) {
        let first: Vec<String> = body[..end].iter().map(|token| token.token.to_string()).collect();
        return Err(at(
            format!(
                "Only SET statements can appear before the final statement in a statement list, but found non-SET statement[{}]",
                first.join(" ")
            ),
            body[end].span,
        ));
    }
    let (body, tail) = split_tail(body);
    let (partitioned_by, clustered_by) = partitioning::tail(tail, target.is_some())?;
    let starts = body.first().is_some_and(|token| {
        token.token == Token::LParen
            || ["SELECT", "WITH", "VALUES"]
                .iter()
                .any(|word| is_word(&token.token, word))
    });
    if !starts {
        return Err(match target {
            Some(_) if body.is_empty() => unexpected_end(last.as_ref(), "SELECT, WITH or VALUES"),
            Some(_) => Tokens::from(body).expected("SELECT, WITH or VALUES"),
            None => not_a_query(body.first()),
        });
    }
    let (body, externs) = extern_call::take(body, first_parameter)?;
    let body = syntax::distinct_from(syntax::betweens(syntax::calls(body)?));
    let query = query(body)?;
    Ok(Parts {
        settings,
        explain,
        deletes,
        target,
        query,
        externs,
        partitioned_by,
        clustered_by,
    })
}

fn query(body: Vec<TokenWithSpan>) -> Result<Box<Query>, ApiError> {
    reserved::check_commas(&body)?;
    let last = body.last().cloned();
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(body.clone());
    let query = parser
        .parse_query()
        .map_err(|error| parse_error(&error, last.as_ref()))?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        return Err(misplaced(&rest, "<EOF>"));
    }
    if let Some(span) = empty_select(&query.body) {
        let place = position(span).unwrap_or_default();
        return Err(unexpected("SELECT", "a column or expression after SELECT", place));
    }
    reserved::check(&query, &body)?;
    Ok(query)
}

/// Where a SELECT stands that selects nothing.
fn empty_select(body: &SetExpr) -> Option<Span> {
    match body {
        SetExpr::Select(select) => select.projection.is_empty().then_some(select.select_token.0.span),
        SetExpr::Query(query) => empty_select(&query.body),
        SetExpr::SetOperation { left, right, .. } => empty_select(left).or_else(|| empty_select(right)),
        _ => None,
    }
}

fn explain(tokens: &mut Tokens) -> Result<bool, ApiError> {
    if !tokens.word("EXPLAIN") {
        return Ok(false);
    }
    if !tokens.word("PLAN") {
        return Err(tokens.expected("PLAN"));
    }
    if tokens.word("AS") && !(tokens.word("JSON") || tokens.word("XML")) {
        return Err(tokens.expected("JSON"));
    }
    if !tokens.word("FOR") {
        return Err(tokens.expected("FOR"));
    }
    Ok(true)
}

fn target(tokens: &mut Tokens) -> Result<Option<Target>, ApiError> {
    let (name, replace) = if tokens.word("INSERT") {
        ("INSERT", false)
    } else if tokens.word("REPLACE") {
        ("REPLACE", true)
    } else if tokens.word("UPSERT") {
        return Err(validation("UPSERT is not supported."));
    } else {
        return Ok(None);
    };
    if !tokens.word("INTO") {
        return Err(tokens.expected("INTO"));
    }
    let span = tokens.span();
    let mut names = Vec::new();
    loop {
        match tokens.next().map(|token| token.token) {
            Some(Token::Word(word)) => names.push(word.value),
            Some(other) => {
                let place = position(span).unwrap_or_default();
                return Err(unexpected(&other.to_string(), "a table name", place));
            }
            None => return Err(tokens.expected("a table name")),
        }
        if !tokens.token(&Token::Period) {
            break;
        }
    }
    if tokens.peek().is_some_and(|token| token.token == Token::LParen) && !starts_query(tokens) {
        if matches!(names.as_slice(), [one] if one.eq_ignore_ascii_case("EXTERN")) {
            return Err(validation(
                "Exporting rows into an EXTERN destination is not supported; run the SELECT as a task, and fetch its rows",
            ));
        }
        return Err(validation(format!(
            "Operation [{name}] cannot be run with a target column list, given [{}]",
            names.join(".")
        )));
    }
    let datasource = match names.as_slice() {
        [table] => table.clone(),
        [schema, table] if schema == "druid" => table.clone(),
        [_, _] => {
            return Err(validation(format!(
                "Table [{}] does not support operation [{name}] because it is not a Druid datasource",
                names.join(".")
            )));
        }
        _ => {
            return Err(validation(format!(
                "Druid does not support 3+ part names: [{}]",
                names.join(".")
            )));
        }
    };
    check_name(&datasource)?;
    if !replace
        && tokens
            .peek()
            .is_some_and(|next| is_word(&next.token, "OVERWRITE"))
    {
        return Err(validation(
            "An OVERWRITE clause is not allowed with INSERT statements. Use REPLACE statements if overwriting existing segments is required or remove the OVERWRITE clause.",
        ));
    }
    let overwrite = if replace { Some(overwrite(tokens)?) } else { None };
    Ok(Some(Target {
        datasource,
        overwrite,
    }))
}

/// A parenthesis that opens the query itself.
fn starts_query(tokens: &Tokens) -> bool {
    tokens.tokens.get(tokens.at + 1).is_some_and(|token| {
        token.token == Token::LParen
            || ["SELECT", "WITH", "VALUES"]
                .iter()
                .any(|word| is_word(&token.token, word))
    })
}

fn check_name(name: &str) -> Result<(), ApiError> {
    let wrong = |why: &str| validation(format!("Invalid value for field [table]: Value [{name}] {why}"));
    if name.is_empty() {
        return Err(wrong("cannot be null or empty"));
    }
    if name.starts_with('.') {
        return Err(wrong("cannot start with '.'"));
    }
    if name.contains('/') {
        return Err(wrong("cannot contain '/'"));
    }
    if name
        .chars()
        .any(|c| (c.is_whitespace() && c != ' ') || c.is_control() || c as u32 > 0xffff)
    {
        return Err(wrong("contains illegal characters"));
    }
    Ok(())
}

fn overwrite(tokens: &mut Tokens) -> Result<Overwrite, ApiError> {
    let missing = || {
        validation(
            "Missing time chunk information in OVERWRITE clause for REPLACE. Use OVERWRITE WHERE <__time based condition> or OVERWRITE ALL to overwrite the entire table.",
        )
    };
    if !tokens.word("OVERWRITE") {
        return Err(missing());
    }
    if tokens.word("ALL") {
        return Ok(Overwrite::All);
    }
    if !tokens.word("WHERE") {
        return Err(missing());
    }
    let mut rest = tokens.tokens[tokens.at..].to_vec();
    let mut parameters = 0;
    for token in &mut rest {
        if let Token::Placeholder(written) = &mut token.token {
            *written = format!("?{parameters}");
            parameters += 1;
        }
    }
    let last = rest.last().cloned();
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(rest);
    let condition = parser
        .parse_expr()
        .map_err(|error| parse_error(&error, last.as_ref()))?;
    let read = parser.index();
    let placeholder = |token: &&TokenWithSpan| matches!(token.token, Token::Placeholder(_));
    let parameters = tokens.tokens[tokens.at..]
        .iter()
        .take(read)
        .filter(placeholder)
        .count();
    tokens.at += read;
    Ok(Overwrite::Where {
        condition: Box::new(condition),
        parameters,
    })
}

/// The clauses behind the query: from PARTITIONED BY or CLUSTERED BY outside parentheses.
fn split_tail(mut body: Vec<TokenWithSpan>) -> (Vec<TokenWithSpan>, Vec<TokenWithSpan>) {
    let mut depth = 0_i32;
    let mut cut = body.len();
    for (index, pair) in body.windows(2).enumerate() {
        match pair[0].token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        let starts = is_word(&pair[0].token, "PARTITIONED") || is_word(&pair[0].token, "CLUSTERED");
        if depth == 0 && starts && is_word(&pair[1].token, "BY") {
            cut = index;
            break;
        }
    }
    let tail = body.split_off(cut);
    (body, tail)
}
