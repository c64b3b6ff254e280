//! Forms of Calcite that the parser does not read, as calls that it does, token by token.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Word};
use trilith_proto::error::ApiError;

use crate::error::{at, validation};
use crate::statement::is_word;

/// Rewrites POSITION … FROM, TRIM … FROM, JSON_OBJECT, JSON_VALUE … RETURNING and CAST … AS … ARRAY.
pub(crate) fn calls(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>, ApiError> {
    let mut out = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let opens = tokens.get(at + 1).is_some_and(|next| next.token == Token::LParen);
        let name = ["POSITION", "TRIM", "JSON_OBJECT", "JSON_VALUE", "CAST"]
            .into_iter()
            .find(|name| opens && is_word(&tokens[at].token, name));
        let Some(name) = name else {
            let mut token = tokens[at].clone();
            // A column, not the function that the parser takes it for.
            if is_word(&token.token, "USER")
                && !opens
                && let Token::Word(user) = &mut token.token
            {
                user.keyword = Keyword::NoKeyword;
            }
            out.push(token);
            at += 1;
            continue;
        };
        let Some(end) = closing(&tokens, at + 1) else {
            out.extend_from_slice(&tokens[at..]);
            break;
        };
        let head = &tokens[at];
        let body = calls(tokens[at + 2..end].to_vec())?;
        let body = match name {
            "POSITION" => position(head, body),
            "TRIM" => trim(body),
            "JSON_OBJECT" => object(body)?,
            "JSON_VALUE" => {
                let (function, body) = value(head, body)?;
                out.push(function);
                out.push(tokens[at + 1].clone());
                out.extend(body);
                out.push(tokens[end].clone());
                at = end + 1;
                continue;
            }
            _ => array_type(body),
        };
        out.push(head.clone());
        out.push(tokens[at + 1].clone());
        out.extend(body);
        out.push(tokens[end].clone());
        at = end + 1;
    }
    Ok(out)
}

/// Marks what stands for IS DISTINCT FROM and IS NOT DISTINCT FROM until the query is read.
pub(crate) const DISTINCT: &str = "druid_distinct";
pub(crate) const NOT_DISTINCT: &str = "druid_not_distinct";

/// x IS DISTINCT FROM y AND z → x <=> druid_distinct(y) AND z: the parser would take all that follows for y.
pub(crate) fn distinct_from(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut rest = tokens.as_slice();
    while let Some((token, after)) = rest.split_first() {
        out.push(token.clone());
        rest = after;
        let before = |places: usize, name: &str| {
            let place = out.len().checked_sub(places + 1).and_then(|place| out.get(place));
            place.is_some_and(|token| is_word(&token.token, name))
        };
        let compares = before(0, "FROM")
            && before(1, "DISTINCT")
            && (before(2, "IS") || before(2, "NOT") && before(3, "IS"));
        if !compares {
            continue;
        }
        let end = operand(after);
        if end == 0 {
            continue;
        }
        let mark = match before(2, "NOT") {
            true => NOT_DISTINCT,
            false => DISTINCT,
        };
        let words = if mark == NOT_DISTINCT { 4 } else { 3 };
        out.truncate(out.len() - words);
        out.push(token_at(token, Token::Spaceship));
        out.push(token_at(token, word(mark)));
        out.push(token_at(token, Token::LParen));
        out.extend(distinct_from(after[..end].to_vec()));
        out.push(token_at(&after[end - 1], Token::RParen));
        rest = &after[end..];
    }
    out
}

/// How many tokens an operand of a comparison has.
fn operand(tokens: &[TokenWithSpan]) -> usize {
    const ENDS: [&str; 36] = [
        "AND",
        "OR",
        "IS",
        "NOT",
        "IN",
        "LIKE",
        "BETWEEN",
        "THEN",
        "ELSE",
        "WHEN",
        "END",
        "AS",
        "FROM",
        "WHERE",
        "GROUP",
        "HAVING",
        "ORDER",
        "LIMIT",
        "OFFSET",
        "FETCH",
        "UNION",
        "EXCEPT",
        "INTERSECT",
        "WINDOW",
        "PARTITIONED",
        "CLUSTERED",
        "JOIN",
        "INNER",
        "FULL",
        "CROSS",
        "ASC",
        "DESC",
        "NULLS",
        "ROWS",
        "RANGE",
        "NATURAL",
    ];
    let mut depth = 0_usize;
    let mut cases = 0_usize;
    for (index, token) in tokens.iter().enumerate() {
        let opens = tokens
            .get(index + 1)
            .is_some_and(|next| next.token == Token::LParen);
        match &token.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket if depth == 0 => return index,
            Token::RParen | Token::RBracket => depth -= 1,
            _ if depth > 0 => {}
            word if is_word(word, "CASE") => cases += 1,
            word if cases > 0 => cases -= usize::from(is_word(word, "END")),
            Token::Comma
            | Token::SemiColon
            | Token::Eq
            | Token::Neq
            | Token::Lt
            | Token::Gt
            | Token::LtEq
            | Token::GtEq => return index,
            word @ Token::Word(_) => {
                // LEFT and RIGHT are functions as well.
                let joins = !opens && (is_word(word, "LEFT") || is_word(word, "RIGHT"));
                if joins || ENDS.iter().any(|end| is_word(word, end)) {
                    return index;
                }
                // A name behind a finished operand is an alias.
                let finished = index
                    .checked_sub(1)
                    .and_then(|before| tokens.get(before))
                    .is_some_and(|before| match &before.token {
                        Token::RParen | Token::RBracket => true,
                        Token::Word(word) => {
                            word.quote_style.is_some()
                                || matches!(
                                    word.keyword,
                                    Keyword::NoKeyword | Keyword::NULL | Keyword::TRUE | Keyword::FALSE
                                )
                        }
                        _ => false,
                    });
                if finished {
                    return index;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// Marks the function that stands for BETWEEN SYMMETRIC until the query is read.
pub(crate) const SYMMETRIC: &str = "druid_symmetric";

/// x BETWEEN SYMMETRIC a AND b → x BETWEEN druid_symmetric(a) AND b; ASYMMETRIC says nothing.
pub(crate) fn betweens(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out = Vec::with_capacity(tokens.len());
    let mut rest = tokens.as_slice();
    while let Some((token, after)) = rest.split_first() {
        out.push(token.clone());
        rest = after;
        if !is_word(&token.token, "BETWEEN") {
            continue;
        }
        match after.first() {
            Some(next) if is_word(&next.token, "ASYMMETRIC") => rest = &after[1..],
            Some(next) if is_word(&next.token, "SYMMETRIC") => {
                rest = &after[1..];
                let Some(end) = find(rest, |token| is_word(token, "AND")) else {
                    continue;
                };
                out.push(token_at(next, word(SYMMETRIC)));
                out.push(token_at(next, Token::LParen));
                out.extend(betweens(rest[..end].to_vec()));
                out.push(token_at(next, Token::RParen));
                rest = &rest[end..];
            }
            _ => {}
        }
    }
    out
}

fn word(name: &str) -> Token {
    Token::Word(Word {
        value: name.to_owned(),
        quote_style: None,
        keyword: Keyword::NoKeyword,
    })
}

/// The parenthesis that closes the one at `open`.
fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => {
                depth -= 1;
                if depth == 0 {
                    return Some(index);
                }
            }
            _ => {}
        }
    }
    None
}

/// First token outside brackets that fits.
fn find(tokens: &[TokenWithSpan], fits: impl Fn(&Token) -> bool) -> Option<usize> {
    let mut depth = 0;
    // CASE … END may hold words of its own.
    for (index, token) in tokens.iter().enumerate() {
        match &token.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => depth -= 1,
            word if is_word(word, "CASE") => depth += 1,
            word if is_word(word, "END") => depth -= 1,
            other if depth == 0 && fits(other) => return Some(index),
            _ => {}
        }
    }
    None
}

fn token_at(like: &TokenWithSpan, token: Token) -> TokenWithSpan {
    TokenWithSpan {
        token,
        span: like.span,
    }
}

/// POSITION(sub IN s FROM i) → POSITION(s, sub, i)
fn position(head: &TokenWithSpan, body: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let Some(inside) = find(&body, |token| is_word(token, "IN")) else {
        return body;
    };
    let comma = token_at(head, Token::Comma);
    let (part, rest) = (&body[..inside], &body[inside + 1..]);
    let (text, start) = match find(rest, |token| is_word(token, "FROM")) {
        Some(from) => (&rest[..from], Some(&rest[from + 1..])),
        None => (rest, None),
    };
    let mut out = text.to_vec();
    out.push(comma.clone());
    out.extend_from_slice(part);
    if let Some(start) = start {
        out.push(comma);
        out.extend_from_slice(start);
    }
    out
}

/// TRIM(BOTH FROM s) → TRIM(BOTH s)
fn trim(mut body: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    if let [side, from, _, ..] = body.as_slice()
        && ["BOTH", "LEADING", "TRAILING"]
            .iter()
            .any(|name| is_word(&side.token, name))
        && is_word(&from.token, "FROM")
    {
        body.remove(1);
    }
    body
}

/// JSON_OBJECT(KEY k VALUE v, k : v) → JSON_OBJECT(k, v, k, v)
fn object(body: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>, ApiError> {
    let mut out = Vec::with_capacity(body.len());
    let mut rest = &body[..];
    while !rest.is_empty() {
        let end = find(rest, |token| *token == Token::Comma).unwrap_or(rest.len());
        let mut pair = &rest[..end];
        // A column may have the name KEY.
        let keyed = pair.len() > 1
            && is_word(&pair[0].token, "KEY")
            && pair[1].token != Token::Colon
            && !is_word(&pair[1].token, "VALUE");
        if keyed {
            pair = &pair[1..];
        }
        let between = find(pair, |token| *token == Token::Colon || is_word(token, "VALUE"));
        match between {
            Some(middle) if middle > 0 => {
                out.extend_from_slice(&pair[..middle]);
                out.push(token_at(&pair[middle], Token::Comma));
                out.extend_from_slice(&pair[middle + 1..]);
            }
            // Keys and values by turns, as the native function has them.
            _ if !keyed => out.extend_from_slice(pair),
            _ => {
                return Err(at(
                    "Received an unexpected token, expected [KEY name VALUE expression] in JSON_OBJECT",
                    rest[0].span,
                ));
            }
        }
        if let Some(comma) = rest.get(end) {
            out.push(comma.clone());
        }
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    Ok(out)
}

/// JSON_VALUE(j, path RETURNING type) → the function of that type.
fn value(
    head: &TokenWithSpan,
    body: Vec<TokenWithSpan>,
) -> Result<(TokenWithSpan, Vec<TokenWithSpan>), ApiError> {
    let body = without_behaviour(body)?;
    let Some(returning) = find(&body, |token| is_word(token, "RETURNING")) else {
        return Ok((head.clone(), body));
    };
    let words: Vec<String> = body[returning + 1..]
        .iter()
        .map(|token| token.token.to_string().to_ascii_uppercase())
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let name = match words.as_slice() {
        ["VARCHAR" | "CHAR", ..] if words.last() != Some(&"ARRAY") => "druid_json_value_varchar",
        ["BIGINT" | "INTEGER" | "INT" | "SMALLINT" | "TINYINT"] => "druid_json_value_bigint",
        ["DOUBLE" | "FLOAT" | "REAL" | "DECIMAL" | "NUMERIC", ..] if words.last() != Some(&"ARRAY") => {
            "druid_json_value_double"
        }
        ["BOOLEAN"] => "druid_json_value_boolean",
        ["VARCHAR", "ARRAY"] => "druid_json_value_varchar_array",
        ["BIGINT" | "INTEGER", "ARRAY"] => "druid_json_value_bigint_array",
        ["DOUBLE", "ARRAY"] => "druid_json_value_double_array",
        _ => {
            return Err(at(
                format!("JSON_VALUE cannot return the type [{}]", words.join(" ")),
                body[returning].span,
            ));
        }
    };
    Ok((token_at(head, word(name)), body[..returning].to_vec()))
}

/// Takes NULL ON EMPTY and NULL ON ERROR, which say nothing, from the end of JSON_VALUE; other forms are refused.
fn without_behaviour(mut body: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>, ApiError> {
    let cases = ["EMPTY", "ERROR"];
    for three in body.windows(3) {
        let [what, on, when] = three else { continue };
        if let Some(case) = cases.into_iter().find(|case| is_word(&when.token, case))
            && is_word(&on.token, "ON")
            && !is_word(&what.token, "NULL")
        {
            return Err(validation(format!(
                "Unsupported JSON_VALUE parameter 'ON {case}' defined - please re-issue this query without this argument"
            )));
        }
    }
    for case in cases.into_iter().rev() {
        if let [.., on, when] = body.as_slice()
            && is_word(&on.token, "ON")
            && is_word(&when.token, case)
        {
            body.truncate(body.len().saturating_sub(3));
        }
    }
    Ok(body)
}

/// CAST(x AS VARCHAR ARRAY) → CAST(x AS VARCHAR[])
fn array_type(mut body: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    if body.len() > 3
        && let Some(last) = body.last().cloned()
        && is_word(&last.token, "ARRAY")
    {
        body.pop();
        body.push(token_at(&last, Token::LBracket));
        body.push(token_at(&last, Token::RBracket));
    }
    body
}
