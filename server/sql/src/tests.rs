#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::datasource::empty::EmptyTable;
use datafusion::execution::runtime_env::RuntimeEnv;
use serde_json::{Map, Value, json};
use trilith_proto::column::{self, ColumnType};
use trilith_proto::error::ApiError;
use trilith_proto::interval::{ETERNITY, Granularity, Interval};

use crate::*;

struct Tables;

impl Catalog for Tables {
    fn table(&self, schema: &str, name: &str) -> Option<Arc<dyn TableProvider>> {
        if (schema, name) != ("druid", "wiki") && (schema, name) != ("sys", "segments") {
            return None;
        }
        let schema = Schema::new(vec![
            Field::new(
                "__time",
                DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
                true,
            ),
            Field::new("channel", DataType::Utf8, true),
            Field::new("added", DataType::Int64, true),
        ]);
        Some(Arc::new(EmptyTable::new(Arc::new(schema))))
    }

    fn table_names(&self, _: &str) -> Vec<String> {
        vec!["wiki".to_owned()]
    }

    fn external(&self, call: &ExternCall) -> Result<Arc<dyn TableProvider>, ApiError> {
        let fields: Vec<Field> = call
            .signature
            .iter()
            .flatten()
            .map(|(name, kind)| column::to_field(name, kind, false))
            .collect();
        Ok(Arc::new(EmptyTable::new(Arc::new(Schema::new(fields)))))
    }

    fn places(&self, _: &str, _: &[datafusion::logical_expr::Expr]) -> Vec<crate::SegmentPlace> {
        Vec::new()
    }

    fn datasource_columns(&self, _: &str) -> Option<Vec<(String, ColumnType)>> {
        None
    }
}

fn planned(sql: &str, context: Value, engine: Engine) -> Result<Planned, ApiError> {
    let context: Map<String, Value> = context.as_object().unwrap().clone();
    let statement = Statement {
        sql: sql.to_owned(),
        context,
        parameters: Vec::new(),
        now_ms: None,
    };
    plan(
        statement,
        engine,
        Arc::new(Tables),
        Arc::new(RuntimeEnv::default()),
    )
}

fn error(sql: &str) -> ApiError {
    match planned(sql, json!({}), Engine::Task) {
        Ok(_) => panic!("{sql} was accepted"),
        Err(error) => error,
    }
}

#[test]
fn rejects_with_druids_words_and_positions() {
    let cases = [
        (
            "SELECT * FROM no_such_table",
            "Object 'no_such_table' not found (line [1], column [15])",
        ),
        (
            "SELECT nope FROM \"wiki\"",
            "Column 'nope' not found in any table (line [1], column [8])",
        ),
        (
            "SELECT \"channel\", COUNT(*) FROM \"wiki\"",
            "Expression 'channel' is not being grouped (line [1], column [8])",
        ),
        (
            "INSERT INTO \"x\" SELECT * FROM \"wiki\"",
            "Operation [INSERT] requires a PARTITIONED BY to be explicitly defined, but none was found.",
        ),
        (
            "SELECT * FROM sys.segments",
            "Cannot query table(s) [sys.segments] with SQL engine [msq-task]",
        ),
        (
            "INSERT INTO x (a) SELECT 1 AS a PARTITIONED BY ALL",
            "Operation [INSERT] cannot be run with a target column list",
        ),
        (
            "INSERT INTO x SELECT COUNT(*) FROM wiki PARTITIONED BY ALL",
            "generated column name[EXPR$0]",
        ),
        (
            "INSERT INTO x SELECT channel, channel FROM wiki PARTITIONED BY ALL",
            "Duplicate field in SELECT: [channel]",
        ),
        (
            "INSERT INTO x SELECT channel FROM wiki PARTITIONED BY DAY",
            "must select a column named __time",
        ),
        (
            "INSERT INTO x SELECT added AS __time FROM wiki PARTITIONED BY DAY",
            "Field[__time] was the wrong type[BIGINT], expected TIMESTAMP",
        ),
        (
            "INSERT INTO x SELECT * FROM wiki ORDER BY 1 PARTITIONED BY ALL",
            "ORDER BY",
        ),
        (
            "INSERT INTO x SELECT * FROM wiki PARTITIONED BY FORTNIGHT",
            "Invalid granularity[FORTNIGHT]",
        ),
        (
            "INSERT INTO x SELECT * FROM wiki PARTITIONED BY ALL CLUSTERED BY channel DESC",
            "cannot sort in descending order",
        ),
        (
            "INSERT INTO x SELECT channel FROM wiki PARTITIONED BY ALL CLUSTERED BY nope",
            "Column 'nope' not found in any table (line [1], column [72])",
        ),
        (
            "INSERT INTO x SELECT * FROM wiki PARTITIONED BY ALL CLUSTERED BY nope",
            "Column 'nope' not found in any table (line [1], column [66])",
        ),
        (
            "REPLACE INTO x SELECT * FROM wiki PARTITIONED BY ALL",
            "Missing time chunk information in OVERWRITE clause",
        ),
        (
            "REPLACE INTO x OVERWRITE WHERE __time > TIMESTAMP '2000-01-01 01:00:00' SELECT * FROM wiki PARTITIONED BY DAY",
            "not aligned",
        ),
        (
            "REPLACE INTO x OVERWRITE WHERE channel > TIMESTAMP '2000-01-01' SELECT * FROM wiki PARTITIONED BY DAY",
            "only supports filtering on the __time column",
        ),
        (
            "SELECT FROM wiki",
            "unexpected token [SELECT] (line [1], column [1]), acceptable options: [a column or expression after SELECT]",
        ),
        (
            "SELECT 1 +",
            "Received an unexpected token [+ <EOF>] (line [1], column [10])",
        ),
        (
            "SELECT MAX(channel) FROM wiki",
            "Aggregation [MAX] does not support type [STRING]",
        ),
        (
            "SELECT JSON_VALUE(channel, '$.a' RETURNING TIME) FROM wiki",
            "JSON_VALUE cannot return the type [TIME]",
        ),
        (
            "SELECT JSON_OBJECT(KEY 'a') FROM wiki",
            "expected [KEY name VALUE expression] in JSON_OBJECT",
        ),
        (
            "SELECT DATE_TRUNC('eon', __time) FROM wiki",
            "Operator[DATE_TRUNC] cannot truncate to[eon]",
        ),
        (
            "SELECT LEFT(channel) FROM wiki",
            "Invalid number of arguments to function 'LEFT'. Was expecting 2 arguments (line [1], column [8])",
        ),
        (
            "SELECT channel LIKE 'a' ESCAPE 'xx' FROM wiki",
            "ESCAPE needs one character",
        ),
        (
            "SELECT __time + INTERVAL 'x' DAY FROM wiki",
            "Illegal interval literal",
        ),
        (
            "INSERT INTO sys.segments SELECT 1 AS a PARTITIONED BY ALL",
            "is not a Druid datasource",
        ),
    ];
    for (sql, expected) in cases {
        let error = error(sql);
        assert!(error.message.contains(expected), "{sql}: {}", error.message);
        for word in ["DataFusion", "Utf8", "Int64"] {
            assert!(!error.message.contains(word), "{sql}: {}", error.message);
        }
    }
    assert!(error("SELEC 1").message.contains("Non-query expression"));
    let few = planned("SELECT 1", json!({"maxNumTasks": 1}), Engine::Task)
        .err()
        .unwrap();
    assert!(few.message.contains("maxNumTasks [1] cannot be less than 2"));
    let wrong = planned("SELECT 1", json!({"rowsPerSegment": [1]}), Engine::Task)
        .err()
        .unwrap();
    assert!(wrong.message.contains("rowsPerSegment"));
}

#[test]
fn understands_ingestion() {
    let sql = "REPLACE INTO t OVERWRITE WHERE __time >= TIMESTAMP '2000-01-01' AND __time < TIMESTAMP '2000-01-03'\n\
        SELECT TIME_PARSE(\"time\") AS __time, channel, UPPER(channel) AS big FROM TABLE(EXTERN(\n\
        '{\"type\":\"inline\",\"data\":\"\"}', '{\"type\":\"json\"}', '[{\"name\":\"time\",\"type\":\"string\"},{\"name\":\"channel\",\"type\":\"string\"}]'))\n\
        PARTITIONED BY FLOOR(__time TO DAY) CLUSTERED BY 2, UPPER(channel), LOWER(channel)";
    let planned = planned(
        sql,
        json!({"maxNumTasks": "3", "unknown": {"x": 1}}),
        Engine::Task,
    )
    .unwrap();
    assert_eq!(planned.kind, StatementKind::Replace);
    assert_eq!(planned.context.max_num_tasks(), 3);
    assert_eq!(planned.context.map()["unknown"]["x"], 1);
    let ingest = planned.ingest.unwrap();
    let day = 86_400_000;
    let start = 946_684_800_000;
    assert_eq!(
        ingest.overwrite,
        Some(vec![Interval::new(start, start + 2 * day)])
    );
    assert_eq!(ingest.granularity, Granularity::Day);
    assert_eq!(ingest.time_column, Some(0));
    assert_eq!(ingest.hidden_columns, 1);
    let keys: Vec<(usize, Option<&str>)> = ingest
        .clustered_by
        .iter()
        .map(|key| (key.column, key.output_name.as_deref()))
        .collect();
    assert_eq!(keys, [(1, Some("channel")), (2, Some("big")), (3, None)]);
    assert_eq!(planned.columns.len(), 3);
    assert_eq!(
        planned.resources,
        [
            ("EXTERNAL".to_owned(), "EXTERNAL"),
            ("t".to_owned(), "DATASOURCE")
        ]
    );
}

#[test]
fn plans_what_druid_users_write() {
    let statements = [
        "SELECT channel, COUNT(*) AS c, SUM(added) FROM wiki GROUP BY 1 ORDER BY 2 DESC LIMIT 10",
        "SELECT FLOOR(__time TO HOUR) AS h, COUNT(DISTINCT channel) FROM wiki WHERE __time >= TIMESTAMP '2000-01-01' GROUP BY 1",
        "SELECT TIMESTAMPDIFF(DAY, __time, __time + INTERVAL '1' MONTH), EXTRACT(HOUR FROM __time) FROM wiki",
        "WITH x AS (SELECT * FROM wiki) SELECT a.channel FROM x a JOIN x b ON a.channel = b.channel",
        "SELECT channel FROM wiki UNION ALL SELECT CAST(added AS VARCHAR) FROM wiki",
        "SELECT MV_TO_ARRAY(channel), CAST('1' AS BIGINT) FROM wiki WHERE channel IN (SELECT channel FROM wiki)",
        "SET sqlTimeZone = 'America/Los_Angeles'; SELECT TIME_FLOOR(__time, 'P1D') FROM wiki;",
        "SELECT * FROM TABLE(EXTERN(inputSource => '{\"type\":\"inline\",\"data\":\"\"}', inputFormat => '{\"type\":\"json\"}')) EXTEND (a VARCHAR, \"b\" BIGINT ARRAY)",
        "SELECT a FROM TABLE(EXTERN('{\"type\":\"inline\",\"data\":\"\"}', '{\"type\":\"json\"}')) (a VARCHAR)",
        "SELECT * FROM TABLE(INLINE(data => ARRAY['a,1'], format => 'csv', skipHeaderRows => false)) EXTEND (ch VARCHAR, n DOUBLE PRECISION)",
        "SELECT l.a, h.\"b\" FROM TABLE(LOCALFILES(baseDir => '/d', format => 'json', keepNulls => TRUE)) (a VARCHAR NOT NULL) AS l JOIN TABLE(HTTP(uris => 'http://h/1, http://h/2', userName => 'u', format => 'tsv')) (\"b\" VARCHAR) AS h ON l.a = h.\"b\"",
        "(SELECT 1 AS a)",
        "VALUES (1, 'x'), (2, 'y')",
        "SELECT APPROX_COUNT_DISTINCT_DS_HLL(channel) FILTER (WHERE added > 3) FROM wiki",
        "SELECT POSITION('a' IN channel FROM CASE WHEN added > 1 THEN 2 ELSE 1 END) FROM wiki",
        "SELECT JSON_OBJECT('a':1, KEY channel VALUE CASE WHEN added > 1 THEN 'x' END, 'c' VALUE JSON_OBJECT()) FROM wiki",
        "SELECT JSON_VALUE(channel, '$.a' RETURNING VARCHAR ARRAY), JSON_VALUE(channel, '$.b' RETURNING DECIMAL(9, 2)) FROM wiki",
        "SELECT CAST(STRING_TO_ARRAY(channel, ',') AS BIGINT ARRAY), PI, PI() FROM wiki",
        "SELECT TRIM(LEADING 'x' FROM channel), TRIM(channel), SUBSTRING(channel, 2), FLOOR(added), CEIL(added / 2.0) FROM wiki",
        "SELECT EARLIEST(w.channel, 10), LATEST(added), ANY_VALUE(channel) FROM wiki w",
        "SELECT CURRENT_DATE, INTERVAL '1' DAY + __time, __time - INTERVAL '1-2' YEAR TO MONTH FROM wiki",
        "SELECT channel, GROUPING(channel) FROM wiki GROUP BY ROLLUP (channel)",
        "SELECT DISTINCT channel, COUNT(*) FILTER (WHERE channel LIKE 'a!_%' ESCAPE '!') FROM wiki GROUP BY channel",
    ];
    for sql in statements {
        if let Err(error) = planned(sql, json!({}), Engine::Task) {
            panic!("{sql}: {}", error.message);
        }
    }
    let planned = planned(
        "SELECT COUNT(*), channel AS c, channel AS c FROM wiki GROUP BY channel",
        json!({}),
        Engine::Task,
    )
    .unwrap();
    let names: Vec<&str> = planned
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    assert_eq!(names, ["EXPR$0", "c", "c0"]);
}

#[test]
fn explains_and_replaces_all() {
    let planned = planned("EXPLAIN PLAN FOR REPLACE INTO x OVERWRITE ALL SELECT * FROM wiki PARTITIONED BY 'PT1H' CLUSTERED BY channel", json!({}), Engine::Task).unwrap();
    assert!(planned.explain);
    let expected = json!({"statementType": "REPLACE", "targetDataSource": "x", "partitionedBy": "HOUR", "clusteredBy": ["channel"], "replaceTimeChunks": "all"});
    assert_eq!(planned.attributes_json(), expected);
    assert_eq!(planned.ingest.unwrap().overwrite, Some(vec![ETERNITY]));
}

#[test]
fn passwords_are_masked_wherever_they_stand() {
    let sql = "SELECT a AS password FROM TABLE(HTTP(uris => 'http://h/x', \"PASSWORD\" => 'it''s \"secret', userName => 'password', format => 'json')) (a VARCHAR) WHERE a <> 'x'";
    let planned = planned(sql, json!({}), Engine::Task).unwrap();
    let expected = sql.replace("=> 'it''s \"secret'", "=> '<masked>'");
    assert_eq!(planned.sql, expected);
}

#[test]
fn items_of_json_arrays_are_json() {
    let planned = planned(
        "SELECT o FROM (SELECT JSON_QUERY_ARRAY(PARSE_JSON(channel), '$.a') AS a FROM wiki) AS q, UNNEST(q.a) AS u(o)",
        json!({}),
        Engine::Task,
    )
    .unwrap();
    assert_eq!(
        planned.columns[0].column_type,
        ColumnType::Complex("json".to_owned())
    );
}
