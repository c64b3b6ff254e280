use futures::TryStreamExt;
use serde_json::{Value, json};
use trilith_client::Client;
use trilith_proto::pb::task as pb;

use crate::harness::{Server, inline};

async fn numbers(server: &Server) {
    let data: String = (0..100)
        .map(|n| format!("{{\"n\":{n},\"k\":\"k{}\"}}\n", n % 7))
        .collect();
    let sql = format!(
        "REPLACE INTO numbers OVERWRITE ALL SELECT MILLIS_TO_TIMESTAMP(n * 3600000) AS __time, n, k FROM {} PARTITIONED BY DAY",
        inline(&data, "n long, k string")
    );
    server.run(&sql, json!({})).await;
}

#[tokio::test]
async fn five_result_formats() {
    let server = Server::start(&["--worker-slots", "1"]);
    numbers(&server).await;
    let sql = "SELECT n, k FROM numbers WHERE __time >= TIMESTAMP '1970-01-05' AND n < 98 ORDER BY __time";
    let query = |format: &str| json!({"query": sql, "resultFormat": format, "header": true});
    let expected = [
        (
            "object",
            "[{\"n\":null,\"k\":null},{\"n\":96,\"k\":\"k5\"},{\"n\":97,\"k\":\"k6\"}]\n",
        ),
        (
            "objectLines",
            "{\"n\":null,\"k\":null}\n{\"n\":96,\"k\":\"k5\"}\n{\"n\":97,\"k\":\"k6\"}\n\n",
        ),
        ("array", "[[\"n\",\"k\"],[96,\"k5\"],[97,\"k6\"]]\n"),
        ("arrayLines", "[\"n\",\"k\"]\n[96,\"k5\"]\n[97,\"k6\"]\n\n"),
        ("csv", "n,k\n96,k5\n97,k6\n\n"),
    ];
    for (format, text) in expected {
        assert_eq!(
            server.post("/druid/v2/sql", query(format)).await,
            (200, text.to_owned()),
            "{format}"
        );
    }
}

#[tokio::test]
async fn joins_and_subqueries_give_the_same_rows_as_a_task_and_at_once() {
    let server = Server::start(&["--worker-slots", "2"]);
    numbers(&server).await;
    let statements = [
        "SELECT a.n, b.n AS m FROM numbers a JOIN numbers b ON a.n = b.n * 2 ORDER BY 1",
        "SELECT a.n, b.n AS m FROM numbers a LEFT JOIN (SELECT * FROM numbers WHERE n < 50) b ON a.n = b.n ORDER BY 1",
        "SELECT k, COUNT(*) AS c, MIN(n) AS m FROM numbers GROUP BY k HAVING COUNT(*) > 14 ORDER BY 3",
        "SELECT n FROM numbers WHERE n IN (SELECT MAX(n) FROM numbers GROUP BY k) ORDER BY n",
        "SELECT n FROM numbers WHERE n NOT IN (SELECT MAX(n) FROM numbers GROUP BY k) ORDER BY n",
        "SELECT n FROM numbers WHERE k NOT IN (SELECT CASE WHEN n > 3 THEN k END FROM numbers) ORDER BY n",
        "SELECT n FROM numbers WHERE n > (SELECT AVG(n) FROM numbers) ORDER BY n DESC LIMIT 3",
        "SELECT COUNT(*) AS c FROM (SELECT n FROM numbers UNION ALL SELECT n FROM numbers)",
        "SELECT COUNT(*) AS c, SUM(n) AS s FROM numbers WHERE n > 1000",
        "WITH x AS (SELECT k, SUM(n) AS s FROM numbers GROUP BY k) SELECT a.k, b.s FROM x a JOIN x b ON a.k = b.k ORDER BY 1",
    ];
    for sql in statements {
        let expected = server.rows(sql).await;
        for context in [
            json!({"maxNumTasks": 3}),
            json!({"maxNumTasks": 3, "sqlJoinAlgorithm": "sortMerge"}),
        ] {
            let report = server.run(sql, context.clone()).await;
            assert_eq!(report["results"]["results"], json!(expected), "{sql} {context}");
        }
    }
    // Independent of the planner: n = 2m has 50 solutions below 100.
    assert_eq!(server.rows(statements[0]).await.len(), 50);
}

#[tokio::test]
async fn grpc_submits_watches_reports_and_streams_rows() {
    let server = Server::start(&["--worker-slots", "1"]);
    numbers(&server).await;
    let client = Client::connect(&server.grpc()).unwrap();
    let request = pb::SubmitTaskRequest {
        sql: "SELECT n FROM numbers".to_owned(),
        ..Default::default()
    };
    let id = client.submit(request).await.unwrap().task_id;
    let mut updates = client.watch(&id, 1).await.unwrap();
    let mut last = None;
    while let Some(update) = updates.message().await.unwrap() {
        assert!(
            last.as_ref()
                .is_none_or(|last: &pb::WatchTaskResponse| last.sequence < update.sequence)
        );
        last = Some(update);
    }
    let last = last.unwrap();
    assert_eq!(last.task.unwrap().state(), pb::State::Success);
    let results = last.report.unwrap().results.unwrap();
    assert_eq!(results.row_count, 100);
    let batches: Vec<_> = client
        .rows(results.ticket.to_vec())
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    let rows: usize = batches.iter().map(arrow::array::RecordBatch::num_rows).sum();
    assert_eq!(rows, 100);
    let missing = client.task("query-unknown").await.unwrap_err().to_api();
    assert_eq!(missing.category.http_status(), 404);
    let first = client
        .list(pb::ListTasksRequest {
            page_size: 1,
            ..Default::default()
        })
        .await
        .unwrap();
    assert_eq!(first.tasks[0].task_id, id);
    assert!(!first.next_page_token.is_empty());
}

#[tokio::test]
async fn explain_shows_a_plan_and_runs_nothing() {
    let server = Server::start(&["--worker-slots", "1"]);
    let sql = "EXPLAIN PLAN FOR INSERT INTO t SELECT 1 AS x PARTITIONED BY ALL";
    let (status, text) = server.post("/druid/v2/sql/task", json!({"query": sql})).await;
    assert_eq!(status, 200);
    let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
    let attributes: Value = serde_json::from_str(rows[0]["ATTRIBUTES"].as_str().unwrap()).unwrap();
    assert_eq!(
        attributes,
        json!({"statementType": "INSERT", "targetDataSource": "t", "partitionedBy": {"type": "all"}})
    );
    let (_, tasks) = server.get("/druid/indexer/v1/tasks").await;
    assert_eq!(tasks, json!([]));
}

/// Whoever writes the sides of a sort-merge join sorts them; readers merge, also when they read several partitions.
#[tokio::test]
async fn a_sort_merge_join_merges_what_was_sorted_by_its_writers() {
    let lines = |step: i64| -> String {
        let numbers = (0..3_000).map(|n| n * 7919 % 6_007);
        numbers
            .map(|n| format!("{{\"n\":{n},\"k\":{}}}\n", n * step % 1_009))
            .collect()
    };
    let server = Server::start(&["--worker-slots", "2"]);
    let paths = [3, 5].map(|step| server.input(&format!("{step}.json"), lines(step).as_bytes()));
    let [a, b] = paths.map(|path| crate::harness::files(&[path], "n long, k long"));
    let sql =
        format!("SELECT COUNT(*), SUM(a.n * 2 - b.n) FROM {a} a JOIN {b} b ON a.k = b.k AND a.n >= b.n");
    let (mut count, mut sum) = (0, 0);
    for left in (0..3_000_i64).map(|n| n * 7919 % 6_007) {
        for right in (0..3_000_i64).map(|n| n * 7919 % 6_007) {
            if left * 3 % 1_009 == right * 5 % 1_009 && left >= right {
                count += 1;
                sum += left * 2 - right;
            }
        }
    }
    // More partitions than workers: each reads several.
    for tasks in [3, 6] {
        let context = serde_json::json!({"sqlJoinAlgorithm": "sortMerge", "maxNumTasks": tasks});
        let report = server.run(&sql, context).await;
        assert_eq!(report["results"]["results"], serde_json::json!([[count, sum]]));
        for side in 0..2 {
            let stage = &report["stages"][side];
            assert_eq!(stage["shuffle"], "hashLocalSort", "{stage}");
            assert_eq!(stage["sort"], true);
        }
        let join = report["stages"][2]["definition"]["processor"].to_string();
        assert!(
            join.contains("SortMergeJoin") && !join.contains("SortExec"),
            "{join}"
        );
    }
}
