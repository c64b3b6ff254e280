use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{Server, files};

const LIMIT_MB: u64 = 64;
const JOIN_LIMIT_MB: u64 = 96;
/// What a process may use beyond its limit: code, threads, buffers of fixed size.
const MARGIN_MB: u64 = 300;
const ROWS: u64 = 200_000;
const SIGNATURE: &str = "t long, id long, k string, comment string";

fn comment(id: u64) -> String {
    format!(
        "{}{id}",
        "a comment as long as people write them below an edit; ".repeat(6)
    )
}

/// About 80 MB in four files; nine of ten rows have the key "hot".
fn wide(server: &Server) -> String {
    let paths: Vec<_> = (0..4)
        .map(|file| {
            let ids = file * ROWS / 4..(file + 1) * ROWS / 4;
            let lines: String = ids
                .map(|id| {
                    let key = if id % 10 == 0 {
                        format!("k{id}")
                    } else {
                        "hot".to_owned()
                    };
                    format!(
                        "{{\"t\":{},\"id\":{id},\"k\":\"{key}\",\"comment\":\"{}\"}}\n",
                        id % 7 * 86_400_000,
                        comment(id)
                    )
                })
                .collect();
            server.input(&format!("wide{file}.json"), lines.as_bytes())
        })
        .collect();
    files(&paths, SIGNATURE)
}

fn bytes_below(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    // Files come and go while they are counted.
    entries
        .flatten()
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, metadata)| match metadata.is_dir() {
            true => bytes_below(&path),
            false => metadata.len(),
        })
        .sum()
}

/// Runs a task that must succeed. Returns its report, and the most bytes seen in the spill directory.
async fn run_spilling(server: &Server, sql: &str, context: Value) -> (Value, u64) {
    let task = server.submit(sql, context).await;
    let spill = server.directory.join("data").join("spill");
    let mut most = 0;
    loop {
        let (_, body) = server.get(&format!("/druid/indexer/v1/task/{task}/status")).await;
        if body["status"]["statusCode"] != "RUNNING" {
            break;
        }
        most = most.max(bytes_below(&spill));
    }
    let status = server.wait(&task).await;
    assert_eq!(status["statusCode"], "SUCCESS", "{sql}\n{status}");
    assert_eq!(bytes_below(&spill), 0, "files stay behind after {sql}");
    (server.report(&task).await, most)
}

fn small_server() -> Server {
    let limit = format!("{LIMIT_MB}MB");
    Server::start(&["--worker-slots", "2", "--memory-limit", &limit])
}

fn assert_peak(server: &Server) {
    assert_peak_of(server, LIMIT_MB);
}

fn assert_peak_of(server: &Server, limit_mb: u64) {
    let peak = server.process.peak_mb();
    assert!(peak <= limit_mb + MARGIN_MB, "peak of {peak} MB");
}

async fn ingest_wide(server: &Server) -> u64 {
    let sql = format!(
        "REPLACE INTO wide OVERWRITE ALL SELECT MILLIS_TO_TIMESTAMP(t) AS __time, id, k, comment FROM {} \
         PARTITIONED BY DAY CLUSTERED BY k",
        wide(server)
    );
    run_spilling(server, &sql, json!({"maxNumTasks": 3})).await.1
}

#[tokio::test]
async fn rows_that_do_not_fit_into_memory_are_ingested_grouped_and_joined() {
    let server = small_server();
    let spilled = ingest_wide(&server).await;
    assert!(spilled > 1 << 20, "only {spilled} bytes were spilled");
    let sum = ROWS * (ROWS - 1) / 2;
    let hot = ROWS - ROWS / 10;
    assert_eq!(
        server
            .rows("SELECT COUNT(*), SUM(id), SUM(CASE WHEN k = 'hot' THEN 1 ELSE 0 END) FROM wide")
            .await,
        [[json!(ROWS), json!(sum), json!(hot)]]
    );

    let context = json!({"maxNumTasks": 3, "sqlJoinAlgorithm": "sortMerge"});
    let sql = format!(
        "REPLACE INTO joined OVERWRITE ALL SELECT a.id, b.id AS other, a.comment FROM wide a \
         JOIN (SELECT id, id - {half} AS p FROM wide WHERE id >= {half}) b ON a.id = b.p PARTITIONED BY ALL",
        half = ROWS / 2
    );
    run_spilling(&server, &sql, context.clone()).await;
    let half = ROWS / 2;
    assert_eq!(
        server
            .rows("SELECT COUNT(*), SUM(id), SUM(other - id) FROM joined")
            .await,
        [[json!(half), json!(half * (half - 1) / 2), json!(half * half)]]
    );

    let sql = "REPLACE INTO groups OVERWRITE ALL SELECT comment, COUNT(*) AS c, MAX(id) AS m FROM wide GROUP BY comment \
               PARTITIONED BY ALL CLUSTERED BY comment";
    run_spilling(&server, sql, json!({"maxNumTasks": 3})).await;
    assert_eq!(
        server.rows("SELECT COUNT(*), SUM(c), SUM(m) FROM groups").await,
        [[json!(ROWS), json!(ROWS), json!(sum)]]
    );

    // One key on one side, nine tenths of the rows on the other.
    let sql = "REPLACE INTO hot OVERWRITE ALL SELECT a.id, b.c FROM wide a \
               JOIN (SELECT k, COUNT(*) AS c FROM wide GROUP BY k) b ON a.k = b.k PARTITIONED BY ALL";
    run_spilling(&server, sql, context).await;
    assert_eq!(
        server.rows("SELECT COUNT(*), SUM(id), MAX(c) FROM hot").await,
        [[json!(ROWS), json!(sum), json!(hot)]]
    );
    assert_peak(&server);
}

#[tokio::test]
async fn a_join_whose_kept_side_is_too_large_is_sorted_and_says_so() {
    // A side has 33 MB, of which a slot may keep 10: both slots sort, with room enough for their merges.
    let server = Server::start(&[
        "--worker-slots",
        "2",
        "--memory-limit",
        &format!("{JOIN_LIMIT_MB}MB"),
    ]);
    ingest_wide(&server).await;
    let half = ROWS / 2;
    let left = format!("(SELECT id, comment FROM wide WHERE id < {half}) a");
    // Partners of the even numbers, and as many rows without partner.
    let right = format!(
        "(SELECT CASE WHEN MOD(id, 2) = 0 THEN id ELSE -id END AS p, comment FROM wide WHERE id < {half}) b"
    );
    let length = |ids: &mut dyn Iterator<Item = u64>| ids.map(|id| comment(id).len() as u64).sum::<u64>();
    let all = length(&mut (0..half));
    let even = length(&mut (0..half).step_by(2));
    let (quarter, odd) = (half / 2, half - half / 2);
    let columns = "COUNT(*) AS n, COUNT(a.id) AS l, COUNT(b.p) AS r, SUM(LENGTH(a.comment)) AS s, SUM(LENGTH(b.comment)) AS t";
    let on = "ON a.id = b.p";
    let cases = [
        ("JOIN", [quarter, quarter, quarter, even, even]),
        ("LEFT JOIN", [half, half, quarter, all, even]),
        ("RIGHT JOIN", [half, quarter, half, even, all]),
        ("FULL JOIN", [half + odd, half, half, all, all]),
    ];
    let context = json!({"maxNumTasks": 3});
    for (join, expected) in cases {
        let sql = format!("SELECT {columns} FROM {left} {join} {right} {on}");
        let report = server.run(&sql, context.clone()).await;
        assert_eq!(report["results"]["results"], json!([expected]), "{sql}");
        assert_sorted(&report, &sql);
    }
    // The comparison cannot be a key, and only the join itself can decide it.
    let sql = format!(
        "SELECT COUNT(*) AS n FROM {left} JOIN {right} {on} AND a.comment || 'x' > b.comment AND LENGTH(b.comment) > 0"
    );
    let report = server.run(&sql, context.clone()).await;
    assert_eq!(report["results"]["results"], json!([[quarter]]), "{sql}");
    assert_sorted(&report, &sql);

    let third = ROWS.div_ceil(3);
    let sql =
        "SELECT COUNT(*) AS n FROM wide WHERE comment IN (SELECT comment FROM wide WHERE MOD(id, 3) = 0)";
    let report = server.run(sql, context.clone()).await;
    assert_eq!(report["results"]["results"], json!([[third]]), "{sql}");
    assert_sorted(&report, sql);
    let sql = "SELECT COUNT(*) AS n FROM wide a WHERE NOT EXISTS \
               (SELECT 1 FROM wide b WHERE b.comment = a.comment AND MOD(b.id, 3) = 0)";
    let report = server.run(sql, context.clone()).await;
    assert_eq!(report["results"]["results"], json!([[ROWS - third]]), "{sql}");
    assert_sorted(&report, sql);

    // Small enough: nothing is said.
    let sql = "SELECT COUNT(*) AS n FROM wide a JOIN (SELECT id FROM wide WHERE id < 10) b ON a.id = b.id";
    let report = server.run(sql, context.clone()).await;
    assert_eq!(report["results"]["results"], json!([[10]]), "{sql}");
    assert!(report["status"]["warnings"].is_null(), "{report}");

    let sql = "SELECT SUM(LENGTH(a.comment) + LENGTH(b.comment)) AS s FROM wide a, wide b";
    let task = server.submit(sql, context).await;
    assert_eq!(server.wait(&task).await["statusCode"], "FAILED");
    let error = &server.report(&task).await["status"]["errorReport"]["error"];
    assert_eq!(error["errorCode"], "BroadcastTablesTooLarge", "{error}");
    // 20 % of the limit, for two slots.
    assert_eq!(
        error["maxBroadcastTablesSize"],
        (JOIN_LIMIT_MB << 20) / 100 * 20 / 2
    );
    assert!(
        error["errorMessage"].as_str().unwrap().contains("--memory-limit"),
        "{error}"
    );
    assert_peak_of(&server, JOIN_LIMIT_MB);
}

/// The report tells of a join that was sorted instead.
fn assert_sorted(report: &Value, sql: &str) {
    let warnings = report["status"]["warnings"].as_array().unwrap();
    let told = |warning: &Value| {
        warning["error"]["errorCode"] == "BroadcastTablesTooLarge"
            && warning["error"]["errorMessage"]
                .as_str()
                .unwrap()
                .contains("sort-merge join")
            && warning["stageNumber"].is_u64()
    };
    assert!(
        !warnings.is_empty() && warnings.iter().all(told),
        "{sql}\n{warnings:?}"
    );
}

#[tokio::test]
async fn a_row_of_50_mb_is_refused_with_its_place() {
    let server = small_server();
    let mut data = b"{\"t\":1,\"text\":\"a\"}\n{\"t\":2,\"text\":\"".to_vec();
    data.resize(data.len() + 50_000_000, b'x');
    data.extend(b"\"}\n{\"t\":3,\"text\":\"b\"}\n");
    let path = server.input("huge.json", &data);
    let sql = format!(
        "REPLACE INTO huge OVERWRITE ALL SELECT MILLIS_TO_TIMESTAMP(t) AS __time, text FROM {} PARTITIONED BY DAY",
        files(std::slice::from_ref(&path), "t long, text string")
    );
    let task = server.submit(&sql, json!({})).await;
    assert_eq!(server.wait(&task).await["statusCode"], "FAILED");
    let error = &server.report(&task).await["status"]["errorReport"]["error"];
    assert_eq!(error["errorCode"], "RowTooLarge", "{error}");
    assert_eq!(error["maxFrameSize"], 1_000_000);
    let message = error["errorMessage"].as_str().unwrap();
    for part in ["maxFrameSize", "huge.json", "Record: 2", "Line: 2"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(message.len() < 1_000, "{message}");
    // What is not kept may be as long as it likes.
    let sql = format!(
        "SELECT t, LENGTH(text) AS n FROM {} ORDER BY t",
        files(&[path], "t long, text string")
    );
    let report = server.run(&sql, json!({})).await;
    assert_eq!(
        report["results"]["results"],
        json!([[1, 1], [2, 50_000_000], [3, 1]])
    );
    assert_peak(&server);
}

#[tokio::test]
async fn rows_of_1990_columns_fit_and_2001_are_too_many() {
    let server = small_server();
    let columns = |count: usize| (0..count).map(|column| format!("c{column}")).collect::<Vec<_>>();
    let rows = 3_000_u64;
    let data: String = (0..rows)
        .map(|row| {
            let cells: Vec<_> = (0..1990)
                .map(|column| format!("\"c{column}\":{}", row + column))
                .collect();
            format!("{{{}}}\n", cells.join(","))
        })
        .collect();
    let path = server.input("columns.json", data.as_bytes());
    let statement = |count: usize| {
        let signature: Vec<_> = columns(count).iter().map(|name| format!("{name} long")).collect();
        format!(
            "REPLACE INTO columns OVERWRITE ALL SELECT MILLIS_TO_TIMESTAMP(c0) AS __time, {} FROM {} PARTITIONED BY ALL \
             CLUSTERED BY c1989",
            columns(count).join(", "),
            files(std::slice::from_ref(&path), &signature.join(", "))
        )
    };
    let context = json!({"forceSegmentSortByTime": false});
    server.run(&statement(1990), context.clone()).await;
    assert_eq!(
        server
            .rows("SELECT COUNT(*), SUM(c1989) - SUM(c0) FROM columns")
            .await,
        [[json!(rows), json!(rows * 1989)]]
    );
    assert_peak(&server);
    let task = server.submit(&statement(2001), context).await;
    assert_eq!(server.wait(&task).await["statusCode"], "FAILED");
    let report = server.report(&task).await;
    let error = &report["status"]["errorReport"]["error"];
    assert_eq!(error["errorCode"], "TooManyColumns", "{error}");
}

#[tokio::test]
async fn segments_of_5000_time_chunks_are_written_and_one_more_is_too_many() {
    let server = small_server();
    // No file has too many by itself.
    let paths: Vec<_> = [0..2_500, 2_500..5_000, 5_000..5_001]
        .into_iter()
        .enumerate()
        .map(|(file, hours)| {
            let lines: String = hours
                .map(|hour| format!("{{\"t\":{}}}\n", hour * 3_600_000_i64))
                .collect();
            server.input(&format!("hours{file}.json"), lines.as_bytes())
        })
        .collect();
    let sql = |paths: &[PathBuf]| {
        format!(
            "REPLACE INTO hours OVERWRITE ALL SELECT MILLIS_TO_TIMESTAMP(t) AS __time, t FROM {} PARTITIONED BY HOUR",
            files(paths, "t long")
        )
    };
    let task = server.submit(&sql(&paths), json!({"maxNumTasks": 3})).await;
    assert_eq!(server.wait(&task).await["statusCode"], "FAILED");
    let error = &server.report(&task).await["status"]["errorReport"]["error"];
    assert_eq!(error["errorCode"], "TooManyBuckets", "{error}");
    assert_eq!(error["maxBuckets"], 5_000);
    server.run(&sql(&paths[..2]), json!({"maxNumTasks": 3})).await;
    let sum = 3_600_000_u64 * 5_000 * 4_999 / 2;
    assert_eq!(
        server.rows("SELECT COUNT(*), SUM(t) FROM hours").await,
        [[json!(5_000), json!(sum)]]
    );
    let (_, segments) = server
        .get("/druid/coordinator/v1/metadata/datasources/hours/segments")
        .await;
    assert_eq!(segments.as_array().unwrap().len(), 5_000);
    assert_peak(&server);
}

#[tokio::test]
async fn too_little_memory_for_any_stage_is_named_with_numbers() {
    let server = Server::start(&["--worker-slots", "3", "--memory-limit", "20MB"]);
    let task = server.submit("SELECT 1 AS x", json!({})).await;
    assert_eq!(server.wait(&task).await["statusCode"], "FAILED");
    let error = &server.report(&task).await["status"]["errorReport"]["error"];
    assert_eq!(error["errorCode"], "NotEnoughMemory", "{error}");
    assert_eq!(error["usableMemory"], 20 << 20);
    assert_eq!(error["serverWorkers"], 3);
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(error["serverThreads"], cores);
    let machine = error["serverMemory"].as_u64().unwrap();
    assert!(machine > 20 << 20, "{error}");
    assert!(
        error["suggestedServerMemory"].as_u64().unwrap() >= machine,
        "{error}"
    );
    let message = error["errorMessage"].as_str().unwrap();
    for part in ["--memory-limit", "25165824", "--worker-slots of at most 2"] {
        assert!(message.contains(part), "{message}");
    }
}
