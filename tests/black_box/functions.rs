//! Functions as a statement calls them: forms of the language, multi-value strings, aggregates across processes.

use serde_json::{Value, json};

use crate::harness::{Server, inline, worker};

/// The first six rows of Druid's own tests: dim3 has two values, one, or none.
pub async fn foo(server: &Server) {
    let data = [
        r#"{"t":"2000-01-01","cnt":1,"dim1":"","dim2":"a","dim3":["a","b"],"m1":1.0,"l1":7}"#,
        r#"{"t":"2000-01-02","cnt":1,"dim1":"10.1","dim2":null,"dim3":["b","c"],"m1":2.0,"l1":325323}"#,
        r#"{"t":"2000-01-03","cnt":1,"dim1":"2","dim2":"","dim3":"d","m1":3.0,"l1":0}"#,
        r#"{"t":"2001-01-01","cnt":1,"dim1":"1","dim2":"a","dim3":"","m1":4.0,"l1":null}"#,
        r#"{"t":"2001-01-02","cnt":1,"dim1":"def","dim2":"abc","dim3":null,"m1":5.0,"l1":null}"#,
        r#"{"t":"2001-01-03","cnt":1,"dim1":"abc","dim2":null,"dim3":null,"m1":6.0,"l1":null}"#,
    ]
    .join("\n");
    let columns = "t string, cnt long, dim1 string, dim2 string, dim3 string, m1 float, l1 long";
    let sql = format!(
        "REPLACE INTO foo OVERWRITE ALL SELECT TIME_PARSE(t) AS __time, cnt, dim1, dim2, dim3, m1, l1 FROM {} PARTITIONED BY DAY",
        inline(&data, columns)
    );
    server.run(&sql, json!({})).await;
}

/// Rows as sorted JSON texts, which have an order of their own.
pub fn sorted(rows: &Value) -> Vec<String> {
    let mut rows: Vec<String> = rows.as_array().unwrap().iter().map(Value::to_string).collect();
    rows.sort();
    rows
}

#[tokio::test]
async fn statements_give_druids_rows_as_tasks_on_two_processes_and_at_once() {
    let server = Server::start(&["--worker-slots", "0"]);
    let _workers = (worker(&server, "w1"), worker(&server, "w2"));
    foo(&server).await;
    let two = json!(["a", "b"]).to_string();
    let cases = [
        (
            "SELECT dim3, COUNT(*) FROM foo GROUP BY 1",
            json!([[null, 2], ["", 1], ["a", 1], ["b", 2], ["c", 1], ["d", 1]]),
        ),
        (
            "SELECT dim3, dim1 FROM foo WHERE dim3 = 'b' AND dim3 <> 'z'",
            json!([[two, ""], [json!(["b", "c"]).to_string(), "10.1"]]),
        ),
        (
            "SELECT * FROM (SELECT dim3, COUNT(*) AS c FROM foo GROUP BY dim3) WHERE dim3 = 'b'",
            json!([["b", 2]]),
        ),
        (
            "SELECT SUM(dim1), COUNT(*) FILTER (WHERE dim1 > 1) FROM foo",
            json!([[13.1, 2]]),
        ),
        (
            "SELECT CAST(CAST(__time AS DATE) AS VARCHAR), CAST(__time AS VARCHAR) FROM foo WHERE dim1 = '2'",
            json!([["2000-01-03", "2000-01-03 00:00:00"]]),
        ),
        ("SELECT COUNT(*) FROM foo WHERE dim3 IN ('a', 'd')", json!([[2]])),
        ("SELECT COUNT(*) FROM foo WHERE dim3 LIKE 'c%'", json!([[1]])),
        ("SELECT COUNT(*) FILTER (WHERE dim3 = 'b') FROM foo", json!([[2]])),
        ("SELECT COUNT(DISTINCT dim3) FROM foo", json!([[5]])),
        (
            "SELECT MV_FILTER_ONLY(dim3, ARRAY['b']), SUM(cnt) FROM foo GROUP BY 1",
            json!([[null, 4], ["b", 2]]),
        ),
        (
            "SELECT CONCAT(dim3, 'foo'), SUM(cnt) FROM foo WHERE dim3 || 'foo' = 'bfoo' GROUP BY 1",
            json!([["afoo", 1], ["bfoo", 2], ["cfoo", 1]]),
        ),
        (
            "SELECT MV_TO_ARRAY(dim3), COUNT(*) FROM foo WHERE ARRAY_OVERLAP(dim3, ARRAY['a', 'd']) GROUP BY 1",
            json!([[two, 1], ["[\"d\"]", 1]]),
        ),
        (
            "SELECT EARLIEST(m1), LATEST(m1), EARLIEST(dim1, 10), LATEST(dim1, 10), EARLIEST(m1 + 1), LATEST(cnt + 1) FROM foo",
            json!([[1.0, 6.0, "", "abc", 2.0, 2]]),
        ),
        (
            "SELECT ARRAY_AGG(DISTINCT dim2), STRING_AGG(DISTINCT dim2, '|') FROM foo",
            json!([[json!([null, "", "a", "abc"]).to_string(), "|a|abc"]]),
        ),
        (
            "SELECT APPROX_COUNT_DISTINCT_DS_THETA(dim1), THETA_SKETCH_ESTIMATE(DS_THETA(cnt)), APPROX_QUANTILE_DS(m1, 0.5) FROM foo",
            json!([[5, 1.0, 3.0]]),
        ),
        (
            "SELECT POSITION('b' IN dim1), POSITION('e' IN 'here' FROM 3), TRIM(BOTH 'a' FROM 'aba'), TRIM('  x'), SUBSTRING('abc' FROM 2 FOR 1) FROM foo WHERE dim1 = 'abc'",
            json!([[2, 4, "b", "x", "b"]]),
        ),
        (
            "SELECT JSON_VALUE(PARSE_JSON('{\"a\":\"5\"}'), '$.a' RETURNING BIGINT), TO_JSON_STRING(JSON_OBJECT(KEY 'k' VALUE cnt, 'n':JSON_OBJECT('x' VALUE dim2))) FROM foo WHERE dim1 = ''",
            json!([[5, "{\"k\":1,\"n\":{\"x\":\"a\"}}"]]),
        ),
        (
            "SELECT ARRAY['x', 'y'][2], CAST(ARRAY['1', 'z'] AS BIGINT ARRAY), CAST('1.7' AS BIGINT), CAST(l1 AS VARCHAR) || '!' FROM foo WHERE dim1 = ''",
            json!([["y", "[1,null]", 1, "7!"]]),
        ),
        (
            "SELECT CAST(__time + INTERVAL '1' MONTH AS VARCHAR), CAST(__time - INTERVAL '1 02:00:00' DAY TO SECOND AS VARCHAR), TIME_FORMAT(TIMESTAMPADD(DAY, 1, __time)) FROM foo WHERE dim1 = ''",
            json!([[
                "2000-02-01 00:00:00",
                "1999-12-30 22:00:00",
                "2000-01-02T00:00:00.000Z"
            ]]),
        ),
        (
            "SELECT COUNT(*) FROM foo WHERE 'a%b' LIKE 'a!%_' ESCAPE '!' AND 'a\\b' LIKE 'a\\_'",
            json!([[6]]),
        ),
    ];
    for (sql, expected) in cases {
        assert_eq!(sorted(&json!(server.rows(sql).await)), sorted(&expected), "{sql}");
        let report = server.run(sql, json!({"maxNumTasks": 3})).await;
        assert_eq!(
            sorted(&report["results"]["results"]),
            sorted(&expected),
            "{sql} as a task"
        );
    }
}

#[tokio::test]
async fn wrong_calls_are_refused_with_druids_words() {
    let server = Server::start(&["--worker-slots", "1"]);
    foo(&server).await;
    for (sql, expected) in [
        (
            "SELECT MIN(dim1) FROM foo",
            "Aggregation [MIN] does not support type [STRING]",
        ),
        (
            "SELECT REGEXP_LIKE(dim1, '(') FROM foo",
            "An invalid pattern [(] was provided for the [regexp_like] function",
        ),
        (
            "SELECT TIME_FLOOR(__time, 'P') FROM foo",
            "Invalid period['P'] specified for expression[time_floor]",
        ),
        ("SELECT LOOKUP(dim1, 'x') FROM foo", "Lookup [x] not found"),
        ("SELECT JSON_VALUE(dim1, 'x') FROM foo", "JSONPath [x] is invalid"),
    ] {
        let (status, answer) = server.post("/druid/v2/sql/task", json!({"query": sql})).await;
        assert_eq!(status, 400, "{sql}: {answer}");
        assert!(answer.contains(expected), "{sql}: {answer}");
    }
    // Without taking values apart a key of several is an error at run time.
    let context = json!({"groupByEnableMultiValueUnnesting": false});
    let task = server
        .submit("SELECT dim3, COUNT(*) FROM foo GROUP BY 1", context)
        .await;
    let status = server.wait(&task).await;
    assert!(
        status
            .to_string()
            .contains("DruidException: Column [dim3] is a multi-value string"),
        "{status}"
    );
    assert!(status.to_string().contains("MV_TO_ARRAY()"), "{status}");
}

#[tokio::test]
async fn sketches_are_stored_and_combined() {
    let server = Server::start(&["--worker-slots", "2"]);
    let data: String = (0..2_000)
        .map(|n| format!("{{\"n\":{},\"k\":\"k{}\"}}\n", n % 500, n % 2))
        .collect();
    let sql = format!(
        "REPLACE INTO sketches OVERWRITE ALL SELECT TIMESTAMP '2000-01-01' AS __time, k, DS_THETA(n) AS theta, DS_HLL(n) AS hll, \
         DS_QUANTILES_SKETCH(n, 1024) AS quantiles FROM {} GROUP BY 1, 2 PARTITIONED BY ALL",
        inline(&data, "n long, k string")
    );
    server
        .run(&sql, json!({"finalizeAggregations": false, "maxNumTasks": 3}))
        .await;
    // 500 numbers, the even ones with k0 and the odd ones with k1.
    let rows = server
        .rows(
            "SELECT APPROX_COUNT_DISTINCT_DS_THETA(theta), THETA_SKETCH_ESTIMATE(THETA_SKETCH_INTERSECT(DS_THETA(theta) FILTER (WHERE k = 'k0'), \
             DS_THETA(theta) FILTER (WHERE k = 'k1'))), APPROX_COUNT_DISTINCT_DS_HLL(hll), APPROX_QUANTILE_DS(quantiles, 1) FROM sketches",
        )
        .await;
    assert_eq!(rows[0][0], 500);
    assert_eq!(rows[0][1], 0.0);
    let hll = rows[0][2].as_i64().unwrap();
    assert!((485..=515).contains(&hll), "{hll}");
    assert_eq!(rows[0][3], 499.0);
    let types = server
        .rows("SELECT COLUMN_NAME, DATA_TYPE FROM INFORMATION_SCHEMA.COLUMNS WHERE TABLE_NAME = 'sketches' AND COLUMN_NAME <> '__time' ORDER BY 1")
        .await;
    let types: Vec<&str> = types.iter().map(|row| row[1].as_str().unwrap()).collect();
    assert_eq!(types.len(), 4);
    assert!(
        types.contains(&"VARCHAR") && types.contains(&"COMPLEX<quantilesDoublesSketch>"),
        "{types:?}"
    );
    let routines = server
        .rows("SELECT ROUTINE_NAME, IS_AGGREGATOR FROM INFORMATION_SCHEMA.ROUTINES WHERE ROUTINE_NAME IN ('STRPOS', 'DS_THETA', 'NOPE') ORDER BY 1")
        .await;
    assert_eq!(
        routines,
        [[json!("DS_THETA"), json!("YES")], [json!("STRPOS"), json!("NO")]]
    );
}
