//! Words that Druid's parser keeps for itself: a name that is one of them must be quoted.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::OnceLock;

use sqlparser::ast::{Expr, Ident, Query, SelectItem, SetExpr, TableFactor, visit_expressions};
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};
use trilith_proto::error::{ApiError, Position};

use crate::error::{position, unexpected};
use crate::statement::is_word;

/// Of Calcite's grammar, without those that it got only lately, and without ONE and NONE, which hurt nobody as names.
const WORDS: &str = "\
    ABS ALL ALLOCATE ALLOW ALTER AND ANY ARE ARRAY ARRAY_MAX_CARDINALITY AS ASENSITIVE ASYMMETRIC AT ATOMIC \
    AUTHORIZATION AVG BEGIN BEGIN_FRAME BEGIN_PARTITION BETWEEN BIGINT BINARY BIT BLOB BOOLEAN BOTH BY CALL \
    CALLED CARDINALITY CASCADED CASE CAST CEIL CEILING CHAR CHARACTER CHARACTER_LENGTH CHAR_LENGTH CHECK \
    CLASSIFIER CLOB CLOSE CLUSTERED COALESCE COLLATE COLLECT COLUMN COMMIT CONDITION CONNECT CONSTRAINT CONTAINS \
    CONVERT CORR CORRESPONDING COUNT COVAR_POP COVAR_SAMP CREATE CROSS CUBE CUME_DIST CURRENT CURRENT_CATALOG \
    CURRENT_DATE CURRENT_DEFAULT_TRANSFORM_GROUP CURRENT_PATH CURRENT_ROLE CURRENT_ROW CURRENT_SCHEMA \
    CURRENT_TIME CURRENT_TIMESTAMP CURRENT_TRANSFORM_GROUP_FOR_TYPE CURRENT_USER CURSOR CYCLE DATE DAY \
    DEALLOCATE DEC DECIMAL DECLARE DEFAULT DEFINE DELETE DENSE_RANK DEREF DESCRIBE DETERMINISTIC DISALLOW \
    DISCONNECT DISTINCT DOUBLE DROP DYNAMIC EACH ELEMENT ELSE EMPTY END END_FRAME END_PARTITION EQUALS ESCAPE \
    EVERY EXCEPT EXEC EXECUTE EXISTS EXP EXPLAIN EXTEND EXTERNAL EXTRACT FALSE FETCH FILTER FIRST_VALUE FLOAT \
    FLOOR FOR FOREIGN FRAME_ROW FREE FROM FULL FUNCTION FUSION GET GLOBAL GRANT GROUP GROUPING GROUPS HAVING \
    HOLD HOUR IDENTITY IMPORT IN INDICATOR INITIAL INNER INOUT INSENSITIVE INSERT INT INTEGER INTERSECT \
    INTERSECTION INTERVAL INTO IS JOIN JSON_ARRAY JSON_ARRAYAGG JSON_EXISTS JSON_OBJECT JSON_OBJECTAGG \
    JSON_QUERY JSON_SCOPE JSON_VALUE LAG LANGUAGE LARGE LAST_VALUE LATERAL LEAD LEADING LEFT LIKE LIKE_REGEX \
    LIMIT LN LOCAL LOCALTIME LOCALTIMESTAMP LOWER MATCH MATCHES MATCH_NUMBER MATCH_RECOGNIZE MAX MEASURES MEMBER \
    MERGE METHOD MIN MINUS MINUTE MOD MODIFIES MODULE MONTH MULTISET NATIONAL NATURAL NCHAR NCLOB NEW NEXT NO \
    NORMALIZE NOT NTH_VALUE NTILE NULL NULLIF NUMERIC OCCURRENCES_REGEX OCTET_LENGTH OF OFFSET OLD OMIT ON ONLY \
    OPEN OR ORDER OUT OUTER OVER OVERLAPS OVERLAY PARAMETER PARTITION PARTITIONED PATTERN PER PERCENT \
    PERCENT_RANK PERIOD PERMUTE PORTION POSITION POSITION_REGEX POWER PRECEDES PRECISION PREPARE PREV PRIMARY \
    PROCEDURE RANGE RANK READS REAL RECURSIVE REF REFERENCES REFERENCING REGR_AVGX REGR_AVGY REGR_COUNT \
    REGR_INTERCEPT REGR_R2 REGR_SLOPE REGR_SXX REGR_SXY REGR_SYY RELEASE RESET RESULT RETURN RETURNS REVOKE \
    RIGHT ROLLBACK ROLLUP ROW ROWS ROW_NUMBER RUNNING SAVEPOINT SCOPE SCROLL SEARCH SECOND SEEK SELECT SENSITIVE \
    SESSION_USER SET SHOW SIMILAR SKIP SMALLINT SOME SPECIFIC SPECIFICTYPE SQL SQLEXCEPTION SQLSTATE SQLWARNING \
    SQRT START STATIC STDDEV_POP STDDEV_SAMP STREAM SUBMULTISET SUBSET SUBSTRING SUBSTRING_REGEX SUCCEEDS SUM \
    SYMMETRIC SYSTEM SYSTEM_TIME SYSTEM_USER TABLE TABLESAMPLE THEN TIME TIMESTAMP TIMEZONE_HOUR TIMEZONE_MINUTE \
    TINYINT TO TRAILING TRANSLATE TRANSLATE_REGEX TRANSLATION TREAT TRIGGER TRIM TRIM_ARRAY TRUE TRUNCATE \
    UESCAPE UNION UNIQUE UNKNOWN UNNEST UPDATE UPPER UPSERT USER USING VALUE VALUES VALUE_OF VARBINARY VARCHAR \
    VARYING VAR_POP VAR_SAMP VERSIONING WHEN WHENEVER WHERE WIDTH_BUCKET WINDOW WITH WITHIN WITHOUT YEAR";

/// Words that stand for a value, or for a unit of time.
const VALUES: [&str; 17] = [
    "CURRENT_CATALOG",
    "CURRENT_DATE",
    "CURRENT_PATH",
    "CURRENT_ROLE",
    "CURRENT_SCHEMA",
    "CURRENT_TIME",
    "CURRENT_TIMESTAMP",
    "CURRENT_USER",
    "DAY",
    "HOUR",
    "LOCALTIME",
    "LOCALTIMESTAMP",
    "MINUTE",
    "MONTH",
    "SECOND",
    "USER",
    "YEAR",
];

fn is_reserved(name: &Ident) -> bool {
    static RESERVED: OnceLock<HashSet<&str>> = OnceLock::new();
    let reserved = RESERVED.get_or_init(|| WORDS.split_whitespace().collect());
    name.quote_style.is_none() && reserved.contains(name.value.to_ascii_uppercase().as_str())
}

/// Refuses reserved words as aliases and as names of columns. `tokens` are those of the query.
pub(crate) fn check(query: &Query, tokens: &[TokenWithSpan]) -> Result<(), ApiError> {
    let flow = visit_expressions(query, |expr| match expr {
        Expr::Identifier(name) if is_reserved(name) && !stands_for_value(name) => {
            ControlFlow::Break(refused(&name.value, name.span, &name.value))
        }
        Expr::Subquery(query)
        | Expr::Exists { subquery: query, .. }
        | Expr::InSubquery { subquery: query, .. } => match queries(query, tokens) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        },
        _ => ControlFlow::Continue(()),
    });
    if let ControlFlow::Break(error) = flow {
        return Err(error);
    }
    queries(query, tokens)
}

fn stands_for_value(name: &Ident) -> bool {
    VALUES.contains(&name.value.to_ascii_uppercase().as_str())
}

fn queries(query: &Query, tokens: &[TokenWithSpan]) -> Result<(), ApiError> {
    for table in query.with.iter().flat_map(|with| &with.cte_tables) {
        queries(&table.query, tokens)?;
    }
    aliases(&query.body, tokens)
}

/// Aliases of columns, here and in the tables that are queries.
fn aliases(body: &SetExpr, tokens: &[TokenWithSpan]) -> Result<(), ApiError> {
    match body {
        SetExpr::Query(query) => queries(query, tokens),
        SetExpr::SetOperation { left, right, .. } => {
            aliases(left, tokens)?;
            aliases(right, tokens)
        }
        SetExpr::Select(select) => {
            for item in &select.projection {
                if let SelectItem::ExprWithAlias { alias, .. } = item
                    && is_reserved(alias)
                {
                    return Err(refused_alias(alias, tokens));
                }
            }
            for table in &select.from {
                let joined = table.joins.iter().map(|join| &join.relation);
                for factor in std::iter::once(&table.relation).chain(joined) {
                    if let TableFactor::Derived { subquery, .. } = factor {
                        queries(subquery, tokens)?;
                    }
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The parser stops at AS.
fn refused_alias(alias: &Ident, tokens: &[TokenWithSpan]) -> ApiError {
    let before = tokens
        .iter()
        .position(|token| token.span.start == alias.span.start)
        .and_then(|at| tokens.get(at.checked_sub(1)?))
        .filter(|before| is_word(&before.token, "AS"));
    match before {
        Some(before) => refused(
            &format!("{} {}", before.token, alias.value),
            before.span,
            &alias.value,
        ),
        None => refused(&alias.value, alias.span, &alias.value),
    }
}

fn refused(found: &str, span: Span, word: &str) -> ApiError {
    let place = position(span).unwrap_or_default();
    let expected = format!(
        "a name, but [{word}] is a reserved keyword. To use it as an identifier, quote it as [\"{word}\"]"
    );
    unexpected(found, &expected, place)
}

/// Refuses a comma behind the last column of a SELECT, which the parser takes.
pub(crate) fn check_commas(tokens: &[TokenWithSpan]) -> Result<(), ApiError> {
    for pair in tokens.windows(2) {
        if let [comma, from] = pair
            && comma.token == Token::Comma
            && is_word(&from.token, "FROM")
        {
            let place: Position = position(from.span).unwrap_or_default();
            return Err(unexpected(
                &from.token.to_string(),
                "a column or expression after the comma",
                place,
            ));
        }
    }
    Ok(())
}
