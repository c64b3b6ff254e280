use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::harness::{Server, edits, edits_file, files, inline};

const SIGNATURE: &str = "time string, channel string, page string, user string, added long";

fn replace(source: &str) -> String {
    format!(
        "REPLACE INTO wiki OVERWRITE ALL SELECT TIME_PARSE(\"time\") AS __time, channel, page, \"user\", added \
         FROM {source} PARTITIONED BY HOUR CLUSTERED BY channel, page"
    )
}

fn sum(counter: &Value) -> i64 {
    counter["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rows| rows.as_i64().unwrap())
        .sum()
}

#[tokio::test]
async fn every_edit_arrives_once_and_the_report_adds_up() {
    let server = Server::start(&["--worker-slots", "2"]);
    let file = server.input("edits.json.gz", edits_file());
    let report = server
        .run(
            &replace(&files(&[file], SIGNATURE)),
            json!({"rowsPerSegment": 1000}),
        )
        .await;

    let edits = edits();
    let mut expected: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    let mut hours: BTreeMap<String, i64> = BTreeMap::new();
    for edit in &edits {
        let entry = expected
            .entry(edit["channel"].as_str().unwrap().to_owned())
            .or_default();
        entry.0 += 1;
        entry.1 += edit["added"].as_i64().unwrap_or(0);
        *hours
            .entry(edit["time"].as_str().unwrap()[..13].to_owned())
            .or_default() += 1;
    }
    let rows = server
        .rows("SELECT channel, COUNT(*), SUM(added) FROM wiki GROUP BY 1")
        .await;
    let found: BTreeMap<String, (i64, i64)> = rows
        .into_iter()
        .map(|row| {
            (
                row[0].as_str().unwrap().to_owned(),
                (row[1].as_i64().unwrap(), row[2].as_i64().unwrap_or(0)),
            )
        })
        .collect();
    assert_eq!(found, expected);

    assert_eq!(report["status"]["status"], "SUCCESS");
    let counters = &report["counters"];
    assert_eq!(sum(&counters["0"]["0"]["input0"]), edits.len() as i64);
    assert_eq!(counters["0"]["0"]["input0"]["totalFiles"], json!([1]));
    assert_eq!(sum(&counters["0"]["0"]["output"]), edits.len() as i64);
    assert_eq!(sum(&counters["0"]["0"]["shuffle"]), edits.len() as i64);
    assert_eq!(
        counters["1"]["0"]["segmentGenerationProgress"]["rowsPushed"],
        json!(edits.len())
    );
    let shape: Vec<(&Value, &Value)> = report["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stage| (&stage["phase"], &stage["definition"]["processor"]["type"]))
        .collect();
    assert_eq!(
        shape,
        [
            (&json!("FINISHED"), &json!("scan")),
            (&json!("FINISHED"), &json!("segmentGenerator"))
        ]
    );

    // Segments hold about as many rows as asked for, never more than one hour, in ranges of the key.
    let segments = server
        .rows("SELECT \"start\", num_rows, shard_spec FROM sys.segments WHERE datasource = 'wiki'")
        .await;
    let mut by_hour: BTreeMap<String, i64> = BTreeMap::new();
    for segment in &segments {
        *by_hour
            .entry(segment[0].as_str().unwrap()[..13].to_owned())
            .or_default() += segment[1].as_i64().unwrap();
        assert!(segment[2].as_str().unwrap().contains("\"range\""), "{segment:?}");
    }
    assert_eq!(by_hour, hours);
    assert!(segments.len() > hours.len());
    assert_eq!(report["stages"][0]["partitionCount"], json!(segments.len()));
    let chunks: BTreeSet<&str> = segments
        .iter()
        .map(|segment| segment[0].as_str().unwrap())
        .collect();
    assert_eq!(chunks.len(), hours.len());
}

#[tokio::test]
async fn insert_appends_and_replace_replaces_only_its_chunks() {
    let server = Server::start(&["--worker-slots", "2"]);
    let rows = |days: &[&str]| {
        let data: String = days
            .iter()
            .map(|day| format!("{{\"t\":\"{day}\",\"v\":\"{day}\"}}\n"))
            .collect();
        inline(&data, "t string, v string")
    };
    let select = |days: &[&str]| format!("SELECT TIME_PARSE(t) AS __time, v FROM {}", rows(days));
    server
        .run(
            &format!(
                "INSERT INTO t {} PARTITIONED BY DAY",
                select(&["2000-01-01", "2000-01-02"])
            ),
            json!({}),
        )
        .await;
    server
        .run(
            &format!(
                "INSERT INTO t {} PARTITIONED BY DAY",
                select(&["2000-01-02", "2000-01-03"])
            ),
            json!({}),
        )
        .await;
    assert_eq!(server.count("t").await, 4);
    let clause = "OVERWRITE WHERE __time >= TIMESTAMP '2000-01-02' AND __time < TIMESTAMP '2000-01-04'";
    let sql = format!(
        "REPLACE INTO t {clause} {} PARTITIONED BY DAY",
        select(&["2000-01-02"])
    );
    server.run(&sql, json!({})).await;
    let left = server.rows("SELECT v, COUNT(*) FROM t GROUP BY 1").await;
    let expected = json!([["2000-01-01", 1], ["2000-01-02", 1]]);
    assert_eq!(json!(left), expected);
    // The third of January is a tombstone now; it must not swallow what is appended later.
    server
        .run(
            &format!("INSERT INTO t {} PARTITIONED BY DAY", select(&["2000-01-03"])),
            json!({}),
        )
        .await;
    assert_eq!(server.count("t").await, 3);
    let outside = format!(
        "REPLACE INTO t {clause} {} PARTITIONED BY DAY",
        select(&["2000-01-09"])
    );
    let task = server.submit(&outside, json!({})).await;
    server.wait(&task).await;
    let error = &server.report(&task).await["status"]["errorReport"]["error"];
    assert_eq!(error["errorCode"], "InsertTimeOutOfBounds");
    assert_eq!(server.count("t").await, 3);
}

#[tokio::test]
async fn group_by_is_rolled_up_in_three_stages() {
    let server = Server::start(&["--worker-slots", "2"]);
    let file = server.input("edits.json.gz", edits_file());
    let sql = format!(
        "REPLACE INTO hourly OVERWRITE ALL SELECT TIME_FLOOR(TIME_PARSE(\"time\"), 'PT1H') AS __time, channel, \
         COUNT(*) AS n, SUM(added) AS added FROM {} GROUP BY 1, 2 PARTITIONED BY DAY CLUSTERED BY channel",
        files(&[file], SIGNATURE)
    );
    let context =
        json!({"finalizeAggregations": false, "groupByEnableMultiValueUnnesting": false, "maxNumTasks": 3});
    let report = server.run(&sql, context).await;
    let kinds: Vec<&Value> = report["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stage| &stage["definition"]["processor"]["type"])
        .collect();
    assert_eq!(
        kinds,
        ["groupByPreShuffle", "groupByPostShuffle", "segmentGenerator"]
    );
    let keys: BTreeSet<(String, String)> = edits()
        .iter()
        .map(|edit| {
            (
                edit["time"].as_str().unwrap()[..13].to_owned(),
                edit["channel"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    assert_eq!(server.count("hourly").await, keys.len() as i64);
    assert_eq!(
        server.rows("SELECT SUM(n) FROM hourly").await,
        [[json!(edits().len())]]
    );
    let metrics = server
        .rows("SELECT DISTINCT metrics FROM sys.segments WHERE datasource = 'hourly'")
        .await;
    assert_eq!(metrics, [[json!("[\"n\",\"added\"]")]]);
}
