//! Forms of the language: types and nulls, relations, windows, subqueries. Expected rows were computed by hand from what
//! SQL and Druid say of them; each statement runs at once and as a task on two processes.

use serde_json::{Value, json};

use crate::functions::{foo, sorted};
use crate::harness::{Server, inline, worker};

/// Three edits.
async fn edits(server: &Server, table: &str) {
    let data = r#"{"t":"2024-01-01T00:00:00Z","ch":"en","n":1}
{"t":"2024-01-01T12:00:00Z","ch":"fr","n":2}
{"t":"2024-01-02T00:00:00Z","ch":"en","n":3}"#;
    let rows = inline(data, "t string, ch string, n long");
    let sql = format!(
        "REPLACE INTO {table} OVERWRITE ALL SELECT TIME_PARSE(t) AS __time, ch, n FROM {rows} PARTITIONED BY DAY"
    );
    server.run(&sql, json!({})).await;
}

async fn gives(server: &Server, cases: &[(&str, Value)]) {
    for (sql, expected) in cases {
        assert_eq!(sorted(&json!(server.rows(sql).await)), sorted(expected), "{sql}");
        let report = server.run(sql, json!({"maxNumTasks": 3})).await;
        let rows = &report["results"]["results"];
        assert_eq!(sorted(rows), sorted(expected), "{sql} as a task");
    }
}

async fn refuses(server: &Server, cases: &[(&str, Value, &str)]) {
    for (sql, context, words) in cases {
        let body = json!({"query": sql, "context": context});
        let (status, answer) = server.post("/druid/v2/sql/task", body).await;
        assert_eq!(status, 400, "{sql}: {answer}");
        assert!(answer.contains(words), "{sql}: {answer}");
        for leaked in ["DataFusion", "Utf8", "Int64", "ast node", "LogicalPlan"] {
            assert!(!answer.contains(leaked), "{sql}: {answer}");
        }
    }
}

#[tokio::test]
async fn types_and_nulls() {
    let server = Server::start(&["--worker-slots", "0"]);
    let _workers = (worker(&server, "w1"), worker(&server, "w2"));
    foo(&server).await;
    let most = i64::MAX;
    let cases = [
        (
            "SELECT 7/2, -7/2, 7.0/2, -7 % 3, 9223372036854775807 + 1, -9223372036854775807 - 2",
            json!([[3, -3, 3.5, -1, i64::MIN, most]]),
        ),
        (
            "SELECT NULL = NULL, '' IS NULL, NULL AND FALSE, NULL OR TRUE, CAST(NULL AS BIGINT) + 1",
            json!([[null, false, false, true, null]]),
        ),
        // dim2 is a, NULL, '', a, abc, NULL.
        (
            "SELECT COUNT(*), COUNT(dim2) FROM foo WHERE dim2 <> ''",
            json!([[3, 3]]),
        ),
        (
            "SELECT COUNT(*) FROM foo WHERE NOT (dim2 = '') OR dim2 IS NULL",
            json!([[5]]),
        ),
        // l1 is 7, 325323, 0 and three times NULL.
        ("SELECT COUNT(*) FROM foo WHERE l1 NOT IN (7, NULL)", json!([[0]])),
        ("SELECT COUNT(*) FROM foo WHERE l1 NOT IN (7)", json!([[2]])),
        (
            "SELECT COUNT(*) FILTER (WHERE (l1 > 5) IS TRUE), COUNT(*) FILTER (WHERE (l1 > 5) IS NOT TRUE), \
             COUNT(*) FILTER (WHERE (l1 > 5) IS UNKNOWN), COUNT(*) FILTER (WHERE l1 IS DISTINCT FROM 7) FROM foo",
            json!([[2, 4, 3, 5]]),
        ),
        // A text beside a number is read as one.
        (
            "SELECT dim1 + 1, 2 * dim1, dim1 / 2.0, 5 % dim1 FROM foo WHERE dim1 = '2'",
            json!([[3, 4, 1.0, 1]]),
        ),
        (
            "SELECT dim1 + 1 FROM foo WHERE dim1 IN ('10.1', 'abc')",
            json!([[11], [null]]),
        ),
        (
            "SELECT COUNT(*) FROM foo WHERE dim1 BETWEEN 1 AND 3",
            json!([[2]]),
        ),
        (
            "SELECT CAST(DATE '2000-01-31' AS VARCHAR), CAST(TIMESTAMP '2000-01-31 01:02:03' AS VARCHAR)",
            json!([["2000-01-31", "2000-01-31 01:02:03"]]),
        ),
        (
            "SELECT TIME_FORMAT(DATE '2000-01-31' + INTERVAL '1' MONTH), TIME_FORMAT(TIMESTAMP '2000-01-31 10:00:00' - INTERVAL '1' DAY)",
            json!([["2000-02-29T00:00:00.000Z", "2000-01-30T10:00:00.000Z"]]),
        ),
        (
            "SELECT 3 BETWEEN SYMMETRIC 5 AND 1, 3 NOT BETWEEN SYMMETRIC 5 AND 1, 3 BETWEEN ASYMMETRIC 5 AND 1",
            json!([[true, false, false]]),
        ),
        (
            "SELECT U&'\\00F6', 'it''s', (1, 2) IN ((1, 2), (3, 4))",
            json!([["ö", "it's", true]]),
        ),
        (
            "SELECT SUM(x) FROM (VALUES (9223372036854775807), (1)) AS t(x)",
            json!([[i64::MIN]]),
        ),
        // Results of a COALESCE have one type.
        (
            "SELECT COALESCE(dim2, 1), NVL(l1, 'x'), COALESCE(l1, m1, 0) FROM foo WHERE dim1 IN ('10.1', 'def')",
            json!([["1", "325323", 325323.0], ["abc", "x", 5.0]]),
        ),
        (
            "SELECT NULLIF(dim1, 2), NULLIF(l1, '7'), NULLIF(dim2, 'a') FROM foo WHERE dim1 IN ('', '2', 'def')",
            json!([["", null, null], [null, 0, ""], ["def", null, "abc"]]),
        ),
        (
            "SELECT SUM(cnt) AS cnt FROM foo GROUP BY dim2 ORDER BY SUM(cnt) DESC, dim2 LIMIT 2",
            json!([[2], [2]]),
        ),
        (
            "SELECT COUNT(*), SUM(l1), AVG(l1), MIN(m1) FROM foo WHERE dim1 = 'nope'",
            json!([[0, null, null, null]]),
        ),
    ];
    gives(&server, &cases).await;
}

#[tokio::test]
async fn comparisons_of_multi_value_strings_hold_for_any_value() {
    let server = Server::start(&["--worker-slots", "0"]);
    let _workers = (worker(&server, "w1"), worker(&server, "w2"));
    foo(&server).await;
    // dim3 is [a,b], [b,c], d, '' and twice NULL.
    let cases = [
        (
            "SELECT COUNT(*) FROM foo WHERE dim3 = 'a' AND dim3 = 'b'",
            json!([[1]]),
        ),
        (
            "SELECT COUNT(*) FROM foo WHERE dim3 BETWEEN 'b' AND 'b'",
            json!([[2]]),
        ),
        // [a,c] would have one value on each side.
        (
            "SELECT COUNT(*) FROM foo WHERE MV_FILTER_NONE(dim3, ARRAY['b']) BETWEEN 'aa' AND 'bz'",
            json!([[0]]),
        ),
        (
            "SELECT COUNT(*) FROM foo WHERE dim3 NOT BETWEEN 'b' AND 'b'",
            json!([[2]]),
        ),
        (
            "SELECT SUM(CASE WHEN dim3 = 'b' THEN cnt ELSE 0 END) FROM foo",
            json!([[2]]),
        ),
        (
            "SELECT SUM(CASE dim3 WHEN 'b' THEN 1 WHEN 'd' THEN 10 END) FROM foo",
            json!([[12]]),
        ),
        (
            "SELECT dim3 = 'b', COUNT(*) FROM foo WHERE dim3 <> '' GROUP BY 1",
            json!([[true, 2], [false, 1]]),
        ),
        (
            "SELECT COUNT(*) FROM foo WHERE UPPER(dim3) IN ('B', 'D')",
            json!([[3]]),
        ),
        (
            "SELECT dim3, COUNT(*) FROM foo GROUP BY ROLLUP(dim3)",
            json!([
                [null, 2],
                ["", 1],
                ["a", 1],
                ["b", 2],
                ["c", 1],
                ["d", 1],
                [null, 8]
            ]),
        ),
        (
            "SELECT dim3, dim1, COUNT(*) FROM foo WHERE dim1 IN ('', '2') GROUP BY 1, 2",
            json!([["a", "", 1], ["b", "", 1], ["d", "2", 1]]),
        ),
    ];
    gives(&server, &cases).await;
}

#[tokio::test]
async fn relations() {
    let server = Server::start(&["--worker-slots", "0"]);
    let _workers = (worker(&server, "w1"), worker(&server, "w2"));
    foo(&server).await;
    edits(&server, "a").await;
    let other = "REPLACE INTO b OVERWRITE ALL SELECT __time, ch, n AS m FROM a PARTITIONED BY DAY";
    server.run(other, json!({})).await;
    let cases = [
        (
            "SELECT n, x FROM a, UNNEST(ARRAY[n, n * 10]) AS t(x) WHERE n < 3",
            json!([[1, 1], [1, 10], [2, 2], [2, 20]]),
        ),
        (
            "SELECT n, x, y FROM a CROSS JOIN UNNEST(ARRAY[1, 2]) AS t(x) CROSS JOIN UNNEST(ARRAY['p', ch]) AS s(y) WHERE n = 2",
            json!([[2, 1, "p"], [2, 1, "fr"], [2, 2, "p"], [2, 2, "fr"]]),
        ),
        (
            "SELECT x, COUNT(*) FROM a CROSS JOIN UNNEST(ARRAY[ch, 'z']) AS t(x) GROUP BY 1",
            json!([["en", 2], ["fr", 1], ["z", 3]]),
        ),
        (
            "SELECT u, dim1 FROM foo, UNNEST(MV_TO_ARRAY(dim3)) AS t(u) WHERE u = 'b' OR u IS NULL",
            json!([["b", ""], ["b", "10.1"], [null, "def"], [null, "abc"]]),
        ),
        (
            "SELECT * FROM UNNEST(ARRAY['a', NULL]) AS t(x)",
            json!([["a"], [null]]),
        ),
        (
            "SELECT ch, n, m FROM TABLE(APPEND('a', 'b')) WHERE ch = 'fr'",
            json!([["fr", 2, null], ["fr", null, 2]]),
        ),
        (
            "SELECT t.ch, COUNT(*) FROM TABLE(APPEND('a', 'b', 'a')) AS t GROUP BY 1",
            json!([["en", 6], ["fr", 3]]),
        ),
        (
            "SELECT * FROM (SELECT ch, n FROM a) PIVOT (SUM(n) FOR ch IN ('en' AS e, 'fr' AS f))",
            json!([[4, 2]]),
        ),
        (
            "SELECT m, e_s, e_c, f_s FROM (SELECT ch, n, n > 1 AS m FROM a) PIVOT (SUM(n) AS s, COUNT(*) AS c FOR ch IN ('en' AS e, 'fr' AS f))",
            json!([[false, 1, 1, null], [true, 3, 1, 2]]),
        ),
        (
            "SELECT * FROM (SELECT ch, n AS x, NULLIF(n, 2) AS y FROM a) UNPIVOT (v FOR k IN (x AS 'X', y))",
            json!([
                ["en", "X", 1],
                ["en", "y", 1],
                ["fr", "X", 2],
                ["en", "X", 3],
                ["en", "y", 3]
            ]),
        ),
        (
            "SELECT v FROM (SELECT n AS x, NULLIF(n, 2) AS y FROM a) UNPIVOT INCLUDE NULLS (v FOR k IN (y))",
            json!([[1], [null], [3]]),
        ),
        (
            "SELECT n FROM a ORDER BY n OFFSET 1 ROWS FETCH NEXT 1 ROWS ONLY",
            json!([[2]]),
        ),
        (
            "SELECT ch, n, GROUPING(ch, n), COUNT(*) FROM a GROUP BY CUBE(ch, n)",
            json!([
                ["en", 1, 0, 1],
                ["en", 3, 0, 1],
                ["fr", 2, 0, 1],
                ["en", null, 1, 2],
                ["fr", null, 1, 1],
                [null, 1, 2, 1],
                [null, 2, 2, 1],
                [null, 3, 2, 1],
                [null, null, 3, 3]
            ]),
        ),
        (
            "SELECT n FROM a x WHERE EXISTS (SELECT 1 FROM a y WHERE y.ch = x.ch AND y.n > x.n)",
            json!([[1]]),
        ),
        (
            "SELECT n, (SELECT MAX(y.n) FROM a y WHERE y.ch = x.ch) FROM a x",
            json!([[1, 3], [2, 2], [3, 3]]),
        ),
        (
            "SELECT n FROM a WHERE n > (SELECT n FROM a WHERE ch = 'fr')",
            json!([[3]]),
        ),
        (
            "SELECT n, y FROM a FULL JOIN (VALUES ('en', 'E'), ('de', 'D')) v(x, y) ON ch = x",
            json!([[1, "E"], [3, "E"], [2, null], [null, "D"]]),
        ),
        (
            "SELECT x, LATEST(m1), EARLIEST(dim1, 10) FROM foo JOIN (VALUES ('a', '1'), ('abc', '2')) v(k, x) ON dim2 = k GROUP BY x",
            json!([["1", 4.0, ""], ["2", 5.0, "def"]]),
        ),
    ];
    gives(&server, &cases).await;
    let task = server.submit("SELECT (SELECT n FROM a)", json!({})).await;
    let status = server.wait(&task).await;
    assert!(status.to_string().contains("more than one row"), "{status}");
    let refused = [
        (
            "SELECT * FROM TABLE(APPEND('a', 'nope'))",
            json!({}),
            "Object 'nope' not found",
        ),
        (
            "SELECT * FROM TABLE(APPEND(1))",
            json!({}),
            "names of datasources",
        ),
        (
            "SELECT * FROM a PIVOT (SUM(n) FOR ch IN (SELECT ch FROM a))",
            json!({}),
            "list of literals",
        ),
        (
            "SELECT * FROM a UNPIVOT (v FOR k IN (nope))",
            json!({}),
            "Column 'nope' not found",
        ),
        (
            "SELECT n FROM a FETCH FIRST 1 ROWS WITH TIES",
            json!({}),
            "WITH TIES",
        ),
        (
            "SELECT date_part('year', __time) FROM a",
            json!({}),
            "No match found for function signature DATE_PART",
        ),
        (
            "SELECT MEDIAN(n) FROM a",
            json!({}),
            "No match found for function signature",
        ),
        (
            "SELECT ARRAY[n, ch] FROM a",
            json!({}),
            "must be of the same type",
        ),
        ("SELECT n FROM a TABLESAMPLE (10)", json!({}), "TABLESAMPLE"),
        (
            "SELECT COUNT(DISTINCT n, ch) FROM a",
            json!({}),
            "takes one column",
        ),
        ("SELECT __time - __time FROM a", json!({}), "TIMESTAMPDIFF"),
        (
            "INSERT INTO x VALUES (1) PARTITIONED BY ALL",
            json!({}),
            "requires columns to be named",
        ),
        (
            "SELECT BIG_SUM(n) FROM a",
            json!({}),
            "in an extension that this server does not have",
        ),
        (
            "SET maxNumTasks = 3",
            json!({}),
            "Statement list is missing a non-SET",
        ),
        (
            "SET maxNumTasks = 1 + 2; SELECT 1",
            json!({}),
            "must be a literal",
        ),
        ("SELECT LOOKUP(ch, 'l') FROM a", json!({}), "Lookup [l] not found"),
    ];
    refuses(&server, &refused).await;
    let settings = "SET x = ARRAY['a', 'b']; SET y = TIMESTAMP '2000-01-01 00:00:00'; SET z = -1.5; SELECT 1";
    assert_eq!(server.rows(settings).await, [[json!(1)]]);
}

#[tokio::test]
async fn windows() {
    let server = Server::start(&["--worker-slots", "0"]);
    let _workers = (worker(&server, "w1"), worker(&server, "w2"));
    foo(&server).await;
    let rows = "(1, 'a', 10), (2, 'a', 20), (3, 'a', 20), (4, 'b', 5), (5, 'b', NULL)";
    let data: String = [
        (1, "a", "10"),
        (2, "a", "20"),
        (3, "a", "20"),
        (4, "b", "5"),
        (5, "b", "null"),
    ]
    .map(|(i, k, x)| format!("{{\"i\":{i},\"k\":\"{k}\",\"x\":{x}}}\n"))
    .concat();
    let load = inline(&data, "i long, k string, x long");
    let load = format!("REPLACE INTO v OVERWRITE ALL SELECT i, k, x FROM {load} PARTITIONED BY ALL");
    server.run(&load, json!({})).await;
    let constant = format!(
        "SELECT i, AVG(x) OVER (PARTITION BY k ORDER BY i ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) FROM (VALUES {rows}) AS t(i, k, x) WHERE k = 'a'"
    );
    let cases = [
        (
            "SELECT i, ROW_NUMBER() OVER w, RANK() OVER y, DENSE_RANK() OVER y, PERCENT_RANK() OVER y, NTILE(2) OVER w FROM v \
             WINDOW w AS (PARTITION BY k ORDER BY i), y AS (PARTITION BY k ORDER BY x)",
            json!([
                [1, 1, 1, 1, 0.0, 1],
                [2, 2, 2, 2, 0.5, 1],
                [3, 3, 2, 2, 0.5, 2],
                [4, 1, 2, 2, 1.0, 1],
                [5, 2, 1, 1, 0.0, 2]
            ]),
        ),
        (
            "SELECT i, LAG(x) OVER w, LEAD(x, 2) OVER w, FIRST_VALUE(x) OVER w, LAST_VALUE(x) OVER w FROM v WINDOW w AS (PARTITION BY k ORDER BY i)",
            json!([
                [1, null, 20, 10, 10],
                [2, 10, null, 10, 20],
                [3, 20, null, 10, 20],
                [4, null, null, 5, 5],
                [5, 5, null, 5, null]
            ]),
        ),
        (
            "SELECT i, CUME_DIST() OVER (PARTITION BY k ORDER BY x), SUM(x) OVER (PARTITION BY k ORDER BY x), SUM(x) OVER (PARTITION BY k), \
             MAX(x) OVER (ORDER BY i ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) FROM v WHERE i <> 3",
            json!([
                [1, 0.5, 10, 30, 20],
                [2, 1.0, 30, 30, 20],
                [4, 1.0, 5, 5, 20],
                [5, 0.5, null, 5, 5]
            ]),
        ),
        (
            "SELECT k, SUM(x), RANK() OVER (ORDER BY SUM(x) DESC) FROM v GROUP BY k",
            json!([["a", 50, 1], ["b", 5, 2]]),
        ),
        // The planner knows that k is constant, and that the year follows from the time: the readers must not.
        (
            "SELECT i, RANK() OVER (PARTITION BY k ORDER BY x DESC) FROM v WHERE k = 'a'",
            json!([[1, 3], [2, 1], [3, 1]]),
        ),
        (constant.as_str(), json!([[1, 15.0], [2, 50.0 / 3.0], [3, 20.0]])),
        (
            "SELECT dim1, SUM(cnt) OVER (PARTITION BY FLOOR(__time TO YEAR) ORDER BY __time) FROM foo",
            json!([["", 1], ["10.1", 2], ["2", 3], ["1", 1], ["def", 2], ["abc", 3]]),
        ),
    ];
    gives(&server, &cases).await;
    let limit = |rows: u64| json!({"maxRowsMaterializedInWindow": rows, "maxNumTasks": 3});
    let bounded = "SELECT i, SUM(x) OVER (PARTITION BY UPPER(k) ORDER BY i) FROM v";
    let report = server.run(bounded, limit(3)).await;
    assert_eq!(report["results"]["results"].as_array().unwrap().len(), 5);
    let task = server.submit(bounded, limit(2)).await;
    server.wait(&task).await;
    let fault = server.report(&task).await["status"]["errorReport"]["error"].clone();
    assert_eq!(fault["errorCode"], "TooManyRowsInAWindow", "{fault}");
    assert_eq!((&fault["numRows"], &fault["maxRows"]), (&json!(3), &json!(2)));
    let refused = [
        (
            "SELECT NTILE(2) OVER (ORDER BY i ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM v",
            json!({}),
            "NTILE",
        ),
        (
            "SELECT COUNT(DISTINCT x) OVER (ORDER BY i) FROM v",
            json!({}),
            "DISTINCT is not supported",
        ),
        (
            "SELECT SUM(x) OVER (ORDER BY i RANGE BETWEEN 1 PRECEDING AND CURRENT ROW) FROM v",
            json!({}),
            "RANGE",
        ),
        (
            "SELECT SUM(x) OVER w FROM v WINDOW w AS (ORDER BY i RANGE BETWEEN 1 PRECEDING AND CURRENT ROW)",
            json!({}),
            "RANGE",
        ),
        (
            "SELECT SUM(x) OVER (ORDER BY i ROWS BETWEEN x PRECEDING AND CURRENT ROW) FROM v",
            json!({}),
            "literal numbers",
        ),
        (
            "SELECT i FROM v WHERE ROW_NUMBER() OVER (ORDER BY i) = 1",
            json!({}),
            "not allowed in WHERE",
        ),
        (
            "SELECT LAG(x, i) OVER (ORDER BY i) FROM v",
            json!({}),
            "needs a whole literal number",
        ),
        (
            "SELECT ROW_NUMBER() FROM v",
            json!({}),
            "OVER clause is necessary",
        ),
    ];
    refuses(&server, &refused).await;
}

#[tokio::test]
async fn parameters_of_all_types() {
    let server = Server::start(&["--worker-slots", "1"]);
    foo(&server).await;
    let of = |sql_type: &str, value: Value| json!({"type": sql_type, "value": value});
    let cases = [
        (
            "SELECT ?, ?, ?, ?, ?",
            json!([
                of("VARCHAR", json!("a")),
                of("INTEGER", json!(5)),
                of("DOUBLE", json!(1.5)),
                of("BOOLEAN", json!(true)),
                of("BIGINT", json!("9007199254740993"))
            ]),
            json!([["a", 5, 1.5, true, 9007199254740993_i64]]),
        ),
        (
            "SELECT ? + 1, ? IS NULL, COALESCE(?, 'x')",
            json!([
                of("BIGINT", Value::Null),
                of("VARCHAR", Value::Null),
                of("VARCHAR", Value::Null)
            ]),
            json!([[null, true, "x"]]),
        ),
        (
            "SELECT COUNT(*) FROM foo WHERE __time >= ? AND __time < ?",
            json!([
                of("TIMESTAMP", json!("2001-01-01 00:00:00")),
                of("DATE", json!("2001-01-03"))
            ]),
            json!([[2]]),
        ),
        (
            "SELECT COUNT(*) FROM foo WHERE SCALAR_IN_ARRAY(dim1, ?) OR l1 = ?",
            json!([of("ARRAY", json!(["1", "2"])), of("BIGINT", json!(7))]),
            json!([[3]]),
        ),
        (
            "SELECT dim1 FROM foo WHERE dim1 LIKE ? ORDER BY 1 LIMIT ?",
            json!([of("VARCHAR", json!("1%")), of("BIGINT", json!(1))]),
            json!([["1"]]),
        ),
    ];
    for (sql, parameters, expected) in cases {
        let body = json!({"query": sql, "parameters": parameters, "resultFormat": "array"});
        let (status, text) = server.post("/druid/v2/sql", body).await;
        assert_eq!(status, 200, "{sql}: {text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected, "{sql}");
    }
    let body = json!({"query": "SELECT ?", "parameters": [of("NOPE", json!(1))]});
    let (status, text) = server.post("/druid/v2/sql", body).await;
    assert_eq!(status, 400);
    assert!(text.contains("unknown type [NOPE]"), "{text}");
}

#[tokio::test]
async fn stored_arrays_types_and_order() {
    let server = Server::start(&["--worker-slots", "1"]);
    edits(&server, "a").await;
    let sql = "REPLACE INTO t OVERWRITE ALL SELECT ARRAY['b', 'a'] AS s, ARRAY[1, 2] AS l, ch, n FROM a PARTITIONED BY ALL";
    refuses(
        &server,
        &[
            (
                sql,
                json!({"arrayIngestMode": "mvd"}),
                "Column [l] is an ARRAY<LONG>",
            ),
            (
                sql,
                json!({"arrayIngestMode": "none"}),
                "Column [s] is an ARRAY<STRING>",
            ),
            (
                sql,
                json!({"segmentSortOrder": "n,__time"}),
                "must begin with [__time]",
            ),
            (sql, json!({"segmentSortOrder": "__time,nope"}), "column [nope]"),
        ],
    )
    .await;
    server.run(sql, json!({})).await;
    let types = "SELECT COLUMN_NAME, DATA_TYPE FROM INFORMATION_SCHEMA.COLUMNS WHERE TABLE_NAME = 't' AND COLUMN_NAME IN ('s', 'ch') ORDER BY 1";
    assert_eq!(
        server.rows(types).await,
        [[json!("ch"), json!("VARCHAR")], [json!("s"), json!("ARRAY")]]
    );
    refuses(
        &server,
        &[
            (
                "INSERT INTO t SELECT 'x' AS s PARTITIONED BY ALL",
                json!({}),
                "Cannot write into field[s]",
            ),
            (
                "INSERT INTO t SELECT ARRAY['x'] AS ch PARTITIONED BY ALL",
                json!({}),
                "Cannot write into field[ch]",
            ),
            (sql, json!({"skipTypeVerification": 5}), "skipTypeVerification"),
        ],
    )
    .await;
    let mvd = "REPLACE INTO t OVERWRITE ALL SELECT ARRAY['b', 'a'] AS s, n FROM a PARTITIONED BY ALL";
    server
        .run(
            mvd,
            json!({"arrayIngestMode": "mvd", "skipTypeVerification": "s"}),
        )
        .await;
    assert_eq!(
        server
            .rows("SELECT s, COUNT(*) FROM t GROUP BY 1 ORDER BY 1")
            .await,
        [[json!("a"), json!(3)], [json!("b"), json!(3)]]
    );
    // Rows come as the file has them.
    let ordered =
        "REPLACE INTO o OVERWRITE ALL SELECT __time, ch, n FROM a PARTITIONED BY ALL CLUSTERED BY ch, __time";
    for (context, expected) in [
        (json!({"forceSegmentSortByTime": false}), [1, 3, 2]),
        (
            json!({"forceSegmentSortByTime": false, "segmentSortOrder": "[\"ch\",\"n\"]"}),
            [1, 3, 2],
        ),
        (
            json!({"forceSegmentSortByTime": false, "segmentSortOrder": ["n"]}),
            [1, 2, 3],
        ),
    ] {
        server.run(ordered, context.clone()).await;
        let rows = server.rows("SELECT n FROM o").await;
        assert_eq!(rows, expected.map(|n| [json!(n)]), "{context}");
    }
    let cut = "REPLACE INTO o OVERWRITE ALL SELECT __time, n FROM a PARTITIONED BY DAY";
    let task = server
        .submit(cut, json!({"maxNumSegments": 1, "rowsPerSegment": 1}))
        .await;
    server.wait(&task).await;
    let fault = server.report(&task).await["status"]["errorReport"]["error"].clone();
    assert_eq!(fault["errorCode"], "TooManySegmentsInTimeChunk", "{fault}");
    assert_eq!(fault["timeChunk"], "2024-01-01T00:00:00.000Z");
    assert_eq!(
        (&fault["numSegments"], &fault["maxNumSegments"]),
        (&json!(2), &json!(1))
    );
    server
        .run(cut, json!({"maxNumSegments": 2, "rowsPerSegment": 1}))
        .await;
}

#[tokio::test]
async fn only_segments_that_can_have_rows_are_read() {
    let server = Server::start(&["--worker-slots", "1"]);
    edits(&server, "days").await;
    let clustered = "REPLACE INTO ranges OVERWRITE ALL SELECT * FROM days PARTITIONED BY ALL CLUSTERED BY ch";
    server.run(clustered, json!({"rowsPerSegment": 1})).await;
    let context = json!({});
    let off = json!({"secondaryPartitionPruning": false});
    // Segments of days: two days. Segments of ranges: en, en, fr.
    let cases = [
        (
            "SELECT n FROM days WHERE __time >= TIMESTAMP '2024-01-02'",
            &context,
            1,
            json!([[3]]),
        ),
        (
            "SELECT n FROM days WHERE FLOOR(__time TO DAY) = TIMESTAMP '2024-01-02'",
            &context,
            1,
            json!([[3]]),
        ),
        (
            "SELECT n FROM days WHERE TIME_IN_INTERVAL(__time, '2024-01-02/P1D')",
            &context,
            1,
            json!([[3]]),
        ),
        (
            "SELECT n FROM days WHERE __time < TIMESTAMP '2024-01-01 01:00:00' OR __time > TIMESTAMP '2030-01-01'",
            &context,
            1,
            json!([[1]]),
        ),
        (
            "SELECT n FROM days WHERE __time IN (TIMESTAMP '2024-01-02', TIMESTAMP '2025-01-02')",
            &context,
            1,
            json!([[3]]),
        ),
        (
            "SELECT n FROM days WHERE __time >= TIMESTAMP '2024-01-01' OR n = 7",
            &context,
            2,
            json!([[1], [2], [3]]),
        ),
        (
            "SELECT n FROM ranges WHERE ch = 'en'",
            &context,
            2,
            json!([[1], [3]]),
        ),
        (
            "SELECT n FROM ranges WHERE ch IN ('fr', 'zz')",
            &context,
            2,
            json!([[2]]),
        ),
        (
            "SELECT n FROM ranges WHERE ch LIKE 'fr%' AND n > 0",
            &context,
            2,
            json!([[2]]),
        ),
        ("SELECT n FROM ranges WHERE ch > 'g'", &context, 1, json!([])),
        (
            "SELECT n FROM ranges WHERE ch < 'e' OR ch IS NULL",
            &context,
            1,
            json!([]),
        ),
        ("SELECT n FROM ranges WHERE ch = 'en'", &off, 3, json!([[1], [3]])),
    ];
    for (sql, context, segments, expected) in cases {
        let report = server.run(sql, context.clone()).await;
        assert_eq!(sorted(&report["results"]["results"]), sorted(&expected), "{sql}");
        assert_eq!(
            report["counters"]["0"]["0"]["input0"]["totalFiles"],
            json!([segments]),
            "{sql} {context}"
        );
    }
}

/// Start, rows and shard spec of each segment that is there.
async fn layout(server: &Server, table: &str) -> Vec<Vec<Value>> {
    let sql = format!(
        "SELECT \"start\", num_rows, shard_spec FROM sys.segments WHERE datasource = '{table}' AND is_overshadowed = 0 ORDER BY 1, partition_num"
    );
    server.rows(&sql).await
}

#[tokio::test]
async fn delete_keeps_the_layout() {
    let server = Server::start(&["--worker-slots", "2"]);
    // Three days of 40 rows, four segments a day by k.
    let data: String = (0..120)
        .map(|n| {
            format!(
                "{{\"t\":\"2024-01-0{}T00:00:00Z\",\"k\":\"k{:02}\",\"n\":{n}}}\n",
                n / 40 + 1,
                n % 40
            )
        })
        .collect();
    let rows = inline(&data, "t string, k string, n long");
    let load = format!(
        "REPLACE INTO d OVERWRITE ALL SELECT TIME_PARSE(t) AS __time, n, k FROM {rows} PARTITIONED BY DAY CLUSTERED BY k"
    );
    let by_key = json!({"rowsPerSegment": 10, "forceSegmentSortByTime": false});
    server.run(&load, by_key).await;
    let before = layout(&server, "d").await;
    assert_eq!(before.len(), 12);
    let delete =
        "DELETE FROM d WHERE __time < TIMESTAMP '2024-01-03' AND k < 'k10' AND (n % 2 = 0 OR n = 41)";
    let explain = format!("EXPLAIN PLAN FOR {delete}");
    let (_, text) = server.post("/druid/v2/sql/task", json!({"query": explain})).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    let plan: Value = serde_json::from_str(answer[0]["PLAN"].as_str().unwrap()).unwrap();
    let replaces = &plan[0]["replaces"];
    // Two of the three days.
    assert_eq!(
        (
            &replaces["numSegments"],
            &replaces["minRows"],
            &replaces["maxRows"]
        ),
        (&json!(8), &json!(80), &json!(80)),
        "{replaces}"
    );
    server.run(delete, json!({})).await;
    let kept: Vec<Vec<Value>> = (0..120)
        .filter(|n| n / 40 == 2 || n % 40 >= 10 || n % 2 != 0 && *n != 41)
        .map(|n| vec![json!(n)])
        .collect();
    assert_eq!(server.rows("SELECT n FROM d ORDER BY 1").await, kept);
    let after = layout(&server, "d").await;
    // The third day was not touched.
    assert_eq!(after[after.len() - 4..], before[8..]);
    assert!(after.len() >= 9, "{after:?}");
    for segment in &after {
        let spec: Value = serde_json::from_str(segment[2].as_str().unwrap()).unwrap();
        assert_eq!(
            (&spec["type"], &spec["dimensions"]),
            (&json!("range"), &json!(["k"])),
            "{segment:?}"
        );
    }
    // Rows lie by k, not by time.
    let first = server
        .rows("SELECT k FROM d WHERE __time < TIMESTAMP '2024-01-02' LIMIT 3")
        .await;
    assert_eq!(first, [[json!("k01")], [json!("k03")], [json!("k05")]]);
    // Nothing to delete changes nothing; a whole day leaves a tombstone; all leave nothing.
    server
        .run("DELETE FROM d WHERE __time > TIMESTAMP '2030-01-01'", json!({}))
        .await;
    assert_eq!(layout(&server, "d").await, after);
    server
        .run("DELETE FROM d WHERE __time >= TIMESTAMP '2024-01-03'", json!({}))
        .await;
    let last = layout(&server, "d").await.pop().unwrap();
    assert_eq!(
        (&last[0], &last[1]),
        (&json!("2024-01-03T00:00:00.000Z"), &json!(0))
    );
    server.run("DELETE FROM d", json!({})).await;
    assert_eq!(server.count("d").await, 0);
    let refused = [
        (
            "DELETE FROM d, d x WHERE d.n = 1",
            json!({}),
            "DELETE takes one datasource",
        ),
        ("DELETE d", json!({}), "acceptable options: [FROM]"),
        ("DELETE FROM sys.segments", json!({}), "not a Druid datasource"),
        ("DELETE FROM nope", json!({}), "Object 'nope' not found"),
        (
            "DELETE FROM d WHERE nope = 1",
            json!({}),
            "Column 'nope' not found",
        ),
    ];
    refuses(&server, &refused).await;
}

#[tokio::test]
async fn delete_keeps_a_rollup_and_explain_counts_what_a_replace_drops() {
    let server = Server::start(&["--worker-slots", "1"]);
    edits(&server, "a").await;
    let rollup = "REPLACE INTO r OVERWRITE ALL SELECT FLOOR(__time TO DAY) AS __time, ch, COUNT(*) AS c, MAX(n) AS m FROM a GROUP BY 1, 2 PARTITIONED BY DAY";
    let context = json!({"finalizeAggregations": false, "groupByEnableMultiValueUnnesting": false});
    server.run(rollup, context).await;
    let metrics = "SELECT metrics, num_rows FROM sys.segments WHERE datasource = 'r' AND is_overshadowed = 0 AND num_rows > 0 ORDER BY \"start\"";
    let metric = json!("[\"c\",\"m\"]");
    assert_eq!(
        server.rows(metrics).await,
        [[metric.clone(), json!(2)], [metric.clone(), json!(1)]]
    );
    server
        .run("DELETE FROM r WHERE ch = 'fr' OR m = 7", json!({}))
        .await;
    assert_eq!(
        server.rows(metrics).await,
        [[metric.clone(), json!(1)], [metric, json!(1)]]
    );
    let explain = "EXPLAIN PLAN FOR REPLACE INTO a OVERWRITE WHERE __time >= TIMESTAMP '2024-01-02' AND __time < TIMESTAMP '2024-01-03' \
                   SELECT * FROM a WHERE FALSE PARTITIONED BY DAY";
    let (_, text) = server.post("/druid/v2/sql/task", json!({"query": explain})).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    let plan: Value = serde_json::from_str(answer[0]["PLAN"].as_str().unwrap()).unwrap();
    let replaces = &plan[0]["replaces"];
    assert_eq!(replaces["numSegments"], 1);
    assert_eq!(
        (&replaces["minRows"], &replaces["maxRows"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(
        replaces["segments"][0]["interval"],
        "2024-01-02T00:00:00.000Z/2024-01-03T00:00:00.000Z"
    );
    let id = replaces["segments"][0]["id"].as_str().unwrap();
    let known = server
        .rows("SELECT segment_id FROM sys.segments WHERE datasource = 'a'")
        .await;
    assert!(known.contains(&vec![json!(id)]), "{id} {known:?}");
}
