//! What the server can do: SqlInfo, and the SQL types.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{
    SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{
    Nullable, Searchable, SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity,
    SqlSupportedGroupBy, SqlSupportedSubqueries, SqlSupportedTransaction, SqlSupportedUnions,
    SqlTransactionIsolationLevel, SupportedSqlGrammar, XdbcDataType,
};
use trilith_proto::error::ApiError;

/// Version of the Arrow columnar format.
const ARROW_FORMAT: &str = "1.5";
const KEYWORDS: &[&str] = &[
    "CLUSTERED",
    "EXTERN",
    "INSERT",
    "OVERWRITE",
    "PARTITIONED",
    "PIVOT",
    "REPLACE",
    "UNNEST",
    "UNPIVOT",
];
const NUMERIC: &[&str] = &[
    "ABS",
    "ACOS",
    "ASIN",
    "ATAN",
    "ATAN2",
    "CEIL",
    "COS",
    "COT",
    "DEGREES",
    "DIV",
    "EXP",
    "FLOOR",
    "GREATEST",
    "LEAST",
    "LN",
    "LOG10",
    "MOD",
    "PI",
    "POWER",
    "RADIANS",
    "ROUND",
    "SAFE_DIVIDE",
    "SIN",
    "SQRT",
    "TAN",
    "TRUNCATE",
];
const STRING: &[&str] = &[
    "BTRIM",
    "CHAR_LENGTH",
    "CONCAT",
    "CONTAINS_STRING",
    "DECODE_BASE64_UTF8",
    "ICONTAINS_STRING",
    "LEFT",
    "LENGTH",
    "LOWER",
    "LPAD",
    "LTRIM",
    "PARSE_LONG",
    "POSITION",
    "REGEXP_EXTRACT",
    "REGEXP_LIKE",
    "REGEXP_REPLACE",
    "REPEAT",
    "REPLACE",
    "REVERSE",
    "RIGHT",
    "RPAD",
    "RTRIM",
    "STRING_FORMAT",
    "STRPOS",
    "SUBSTRING",
    "TEXTCAT",
    "TRIM",
    "UPPER",
];
const SYSTEM: &[&str] = &["COALESCE", "NULLIF", "NVL"];
const DATETIME: &[&str] = &[
    "CURRENT_DATE",
    "CURRENT_TIMESTAMP",
    "EXTRACT",
    "MILLIS_TO_TIMESTAMP",
    "TIMESTAMPADD",
    "TIMESTAMPDIFF",
    "TIMESTAMP_TO_MILLIS",
    "TIME_CEIL",
    "TIME_EXTRACT",
    "TIME_FLOOR",
    "TIME_FORMAT",
    "TIME_IN_INTERVAL",
    "TIME_PARSE",
    "TIME_SHIFT",
];

static INFO: LazyLock<Result<SqlInfoData, FlightError>> = LazyLock::new(sql_info_data);
static TYPES: LazyLock<Result<XdbcTypeInfoData, FlightError>> = LazyLock::new(type_info_data);

/// Values of SqlInfo.
pub(super) fn sql_info() -> Result<&'static SqlInfoData, ApiError> {
    INFO.as_ref()
        .map_err(|error| ApiError::internal(error.to_string()))
}

/// Types that columns may have.
pub(super) fn type_info() -> Result<&'static XdbcTypeInfoData, ApiError> {
    TYPES
        .as_ref()
        .map_err(|error| ApiError::internal(error.to_string()))
}

/// Options as a bit mask.
fn mask(options: &[i32]) -> i32 {
    options.iter().fold(0, |mask, option| mask | (1 << option))
}

fn sql_info_data() -> Result<SqlInfoData, FlightError> {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "Trilith");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, ARROW_FORMAT);
    for (name, value) in [
        (SqlInfo::FlightSqlServerReadOnly, false),
        (SqlInfo::FlightSqlServerSql, true),
        (SqlInfo::FlightSqlServerSubstrait, false),
        (SqlInfo::FlightSqlServerCancel, true),
        (SqlInfo::FlightSqlServerBulkIngestion, false),
        (SqlInfo::SqlDdlCatalog, false),
        (SqlInfo::SqlDdlSchema, false),
        (SqlInfo::SqlDdlTable, false),
        (SqlInfo::SqlAllTablesAreSelectable, true),
        (SqlInfo::SqlSupportsColumnAliasing, true),
        (SqlInfo::SqlNullPlusNullIsNull, true),
        (SqlInfo::SqlSupportsTableCorrelationNames, true),
        (SqlInfo::SqlSupportsDifferentTableCorrelationNames, false),
        (SqlInfo::SqlSupportsExpressionsInOrderBy, true),
        (SqlInfo::SqlSupportsOrderByUnrelated, true),
        (SqlInfo::SqlSupportsLikeEscapeClause, true),
        (SqlInfo::SqlSupportsNonNullableColumns, true),
        (SqlInfo::SqlSupportsIntegrityEnhancementFacility, false),
        (SqlInfo::SqlCatalogAtStart, true),
        (SqlInfo::SqlSelectForUpdateSupported, false),
        (SqlInfo::SqlStoredProceduresSupported, false),
        (SqlInfo::SqlCorrelatedSubqueriesSupported, false),
        (SqlInfo::SqlTransactionsSupported, false),
        (SqlInfo::SqlBatchUpdatesSupported, true),
        (SqlInfo::SqlSavepointsSupported, false),
        (SqlInfo::SqlNamedParametersSupported, false),
        (SqlInfo::SqlLocatorsUpdateCopy, false),
        (SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported, false),
    ] {
        info.append(name, value);
    }
    for (name, value) in [
        (
            SqlInfo::FlightSqlServerTransaction,
            SqlSupportedTransaction::None as i32,
        ),
        (
            SqlInfo::SqlIdentifierCase,
            SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32,
        ),
        (
            SqlInfo::SqlQuotedIdentifierCase,
            SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32,
        ),
        (
            SqlInfo::SqlNullOrdering,
            SqlNullOrdering::SqlNullsSortedLow as i32,
        ),
        (
            SqlInfo::SqlSupportedGroupBy,
            mask(&[
                SqlSupportedGroupBy::SqlGroupByUnrelated as i32,
                SqlSupportedGroupBy::SqlGroupByBeyondSelect as i32,
            ]),
        ),
        (
            SqlInfo::SqlSupportedGrammar,
            mask(&[
                SupportedSqlGrammar::SqlMinimumGrammar as i32,
                SupportedSqlGrammar::SqlCoreGrammar as i32,
            ]),
        ),
        (
            SqlInfo::SqlOuterJoinsSupportLevel,
            mask(&[
                SqlOuterJoinsSupportLevel::SqlLimitedOuterJoins as i32,
                SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32,
            ]),
        ),
        (
            SqlInfo::SqlSupportedSubqueries,
            mask(&[
                SqlSupportedSubqueries::SqlSubqueriesInComparisons as i32,
                SqlSupportedSubqueries::SqlSubqueriesInExists as i32,
                SqlSupportedSubqueries::SqlSubqueriesInIns as i32,
            ]),
        ),
        (
            SqlInfo::SqlSupportedUnions,
            mask(&[
                SqlSupportedUnions::SqlUnion as i32,
                SqlSupportedUnions::SqlUnionAll as i32,
            ]),
        ),
        (
            SqlInfo::SqlSupportedTransactionsIsolationLevels,
            mask(&[SqlTransactionIsolationLevel::SqlTransactionNone as i32]),
        ),
        // Forward only.
        (SqlInfo::SqlSupportedResultSetTypes, mask(&[1])),
    ] {
        info.append(name, value);
    }
    info.append(SqlInfo::FlightSqlServerStatementTimeout, 0_i32);
    // 0: no limit, or none that is known.
    for name in [
        SqlInfo::SqlDbSchemaNameLength,
        SqlInfo::SqlMaxBinaryLiteralLength,
        SqlInfo::SqlMaxCatalogNameLength,
        SqlInfo::SqlMaxCharLiteralLength,
        SqlInfo::SqlMaxColumnNameLength,
        SqlInfo::SqlMaxColumnsInGroupBy,
        SqlInfo::SqlMaxColumnsInIndex,
        SqlInfo::SqlMaxColumnsInOrderBy,
        SqlInfo::SqlMaxColumnsInSelect,
        SqlInfo::SqlMaxColumnsInTable,
        SqlInfo::SqlMaxConnections,
        SqlInfo::SqlMaxCursorNameLength,
        SqlInfo::SqlMaxIndexLength,
        SqlInfo::SqlMaxProcedureNameLength,
        SqlInfo::SqlMaxRowSize,
        SqlInfo::SqlMaxStatementLength,
        SqlInfo::SqlMaxStatements,
        SqlInfo::SqlMaxTableNameLength,
        SqlInfo::SqlMaxTablesInSelect,
        SqlInfo::SqlMaxUsernameLength,
    ] {
        info.append(name, 0_i64);
    }
    for name in [
        SqlInfo::SqlMaxRowSizeIncludesBlobs,
        SqlInfo::SqlDataDefinitionCausesTransactionCommit,
        SqlInfo::SqlDataDefinitionsInTransactionsIgnored,
    ] {
        info.append(name, false);
    }
    // Nothing of these.
    for name in [
        SqlInfo::SqlSchemasSupportedActions,
        SqlInfo::SqlCatalogsSupportedActions,
        SqlInfo::SqlSupportedPositionedCommands,
    ] {
        info.append(name, 0_i32);
    }
    // Entry level.
    info.append(SqlInfo::SqlAnsi92SupportedLevel, mask(&[0]));
    info.append(SqlInfo::SqlSupportsConvert, BTreeMap::<i32, Vec<i32>>::new());
    info.append(SqlInfo::SqlDefaultTransactionIsolation, 0_i64);
    for (name, value) in [
        (SqlInfo::SqlIdentifierQuoteChar, "\""),
        (SqlInfo::SqlSearchStringEscape, "\\"),
        (SqlInfo::SqlExtraNameCharacters, ""),
        (SqlInfo::SqlSchemaTerm, "schema"),
        (SqlInfo::SqlProcedureTerm, "procedure"),
        (SqlInfo::SqlCatalogTerm, "catalog"),
    ] {
        info.append(name, value);
    }
    for (name, values) in [
        (SqlInfo::SqlKeywords, KEYWORDS),
        (SqlInfo::SqlNumericFunctions, NUMERIC),
        (SqlInfo::SqlStringFunctions, STRING),
        (SqlInfo::SqlSystemFunctions, SYSTEM),
        (SqlInfo::SqlDatetimeFunctions, DATETIME),
    ] {
        info.append(name, values);
    }
    info.build()
}

fn type_info_data() -> Result<XdbcTypeInfoData, FlightError> {
    let mut types = XdbcTypeInfoDataBuilder::new();
    let quoted = Some("'".to_owned());
    for (name, data_type, size, radix, prefix) in [
        ("BIGINT", XdbcDataType::XdbcBigint, 19, Some(10), None),
        ("BOOLEAN", XdbcDataType::XdbcBit, 1, None, None),
        ("DATE", XdbcDataType::XdbcDate, 10, None, Some("DATE '")),
        ("DOUBLE", XdbcDataType::XdbcDouble, 53, Some(2), None),
        ("FLOAT", XdbcDataType::XdbcFloat, 24, Some(2), None),
        (
            "TIMESTAMP",
            XdbcDataType::XdbcTimestamp,
            23,
            None,
            Some("TIMESTAMP '"),
        ),
        ("VARCHAR", XdbcDataType::XdbcVarchar, i32::MAX, None, Some("'")),
    ] {
        types.append(XdbcTypeInfo {
            type_name: name.to_owned(),
            data_type,
            column_size: Some(size),
            literal_prefix: prefix.map(str::to_owned),
            literal_suffix: prefix.and(quoted.clone()),
            nullable: Nullable::NullabilityNullable,
            case_sensitive: name == "VARCHAR",
            searchable: Searchable::Full,
            unsigned_attribute: radix.map(|_| false),
            auto_increment: Some(false),
            local_type_name: Some(name.to_owned()),
            sql_data_type: data_type,
            num_prec_radix: radix,
            ..XdbcTypeInfo::default()
        });
    }
    types.build()
}
