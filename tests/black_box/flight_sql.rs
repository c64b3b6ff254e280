//! Flight SQL, as ADBC and JDBC speak it.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int64Type, Schema, TimeUnit};
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{CommandGetDbSchemas, CommandGetTables, CommandGetXdbcTypeInfo, SqlInfo};
use arrow_flight::{Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo};
use futures::TryStreamExt;
use prost::Message;
use serde_json::json;
use tonic::transport::{Channel, Endpoint};

use crate::harness::{HeldSource, Server, edits, edits_file, files};

type Client = FlightSqlServiceClient<Channel>;

async fn connect(server: &Server) -> Client {
    let endpoint =
        Endpoint::from_shared(format!("http://{}", server.grpc().trim_start_matches("http://"))).unwrap();
    FlightSqlServiceClient::new(endpoint.connect().await.unwrap())
}

async fn rows(client: &mut Client, info: FlightInfo) -> RecordBatch {
    let schema = info.clone().try_decode_schema().unwrap();
    let mut batches = Vec::new();
    for endpoint in info.endpoint {
        let stream = client.do_get(endpoint.ticket.unwrap()).await.unwrap();
        batches.extend(stream.try_collect::<Vec<_>>().await.unwrap());
    }
    let batch = arrow::compute::concat_batches(&Arc::new(schema.clone()), &batches).unwrap();
    assert_eq!(*batch.schema(), schema, "the FlightInfo says what comes");
    batch
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<String> {
    let column = batch.column_by_name(column).unwrap().as_string::<i32>();
    column.iter().map(|text| text.unwrap().to_owned()).collect()
}

fn longs(batch: &RecordBatch, column: &str) -> Vec<i64> {
    let column = batch.column_by_name(column).unwrap().as_primitive::<Int64Type>();
    column.values().to_vec()
}

async fn wikipedia(server: &Server, client: &mut Client) -> i64 {
    let path = server.input("edits.json.gz", edits_file());
    let table = files(&[path], "time string, channel string, page string, added long");
    let sql = format!(
        "REPLACE INTO wikipedia OVERWRITE ALL SELECT TIME_PARSE(\"time\") AS __time, channel, page, added FROM {table} \
         PARTITIONED BY DAY CLUSTERED BY channel"
    );
    client.execute_update(sql, None).await.unwrap()
}

#[tokio::test]
async fn statements_return_rows_and_count_what_they_write() {
    let server = Server::start(&["--worker-slots", "2"]);
    let mut client = connect(&server).await;
    let edits = edits();
    assert_eq!(wikipedia(&server, &mut client).await, edits.len() as i64);
    let english: Vec<i64> = edits
        .iter()
        .filter(|edit| edit["channel"] == "#en.wikipedia")
        .map(|edit| edit["added"].as_i64().unwrap_or(0))
        .collect();
    let sql = "SELECT COUNT(*) AS edits, SUM(added) AS added FROM wikipedia WHERE channel = '#en.wikipedia'";
    let info = client.execute(sql.to_owned(), None).await.unwrap();
    let batch = rows(&mut client, info).await;
    assert_eq!(longs(&batch, "edits"), [english.len() as i64]);
    assert_eq!(longs(&batch, "added"), [english.iter().sum::<i64>()]);

    // A driver that does not know a statement for one that writes executes it as a query.
    let insert = "INSERT INTO other SELECT __time, channel FROM wikipedia WHERE channel = '#en.wikipedia' PARTITIONED BY ALL";
    let info = client.execute(insert.to_owned(), None).await.unwrap();
    let batch = rows(&mut client, info).await;
    assert_eq!(longs(&batch, "rows_written"), [english.len() as i64]);
    assert_eq!(server.count("other").await, english.len() as i64);
    let status = server.wait(&texts(&batch, "task_id")[0]).await;
    assert_eq!(status["status"], "SUCCESS", "{status}");

    let explain = format!("EXPLAIN PLAN FOR {insert}");
    let info = client.execute(explain, None).await.unwrap();
    let batch = rows(&mut client, info).await;
    let attributes: serde_json::Value = serde_json::from_str(&texts(&batch, "ATTRIBUTES")[0]).unwrap();
    assert_eq!(attributes["targetDataSource"], "other");
    let error = client
        .execute_update("SELECT 1".to_owned(), None)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("execute it as a query"), "{error}");
}

#[tokio::test]
async fn prepared_statements_know_their_parameters() {
    let server = Server::start(&["--worker-slots", "2"]);
    let mut client = connect(&server).await;
    wikipedia(&server, &mut client).await;
    let sql = "SELECT COUNT(*) AS edits FROM wikipedia WHERE added > ? AND channel = ? AND __time >= ? AND ? IS NOT NULL";
    let mut prepared = client.prepare(sql.to_owned(), None).await.unwrap();
    let types = |schema: &Schema| -> Vec<DataType> {
        schema
            .fields()
            .iter()
            .map(|field| field.data_type().clone())
            .collect()
    };
    assert_eq!(
        types(prepared.parameter_schema().unwrap()),
        [
            DataType::Int64,
            DataType::Utf8,
            DataType::Timestamp(TimeUnit::Millisecond, None),
            DataType::Utf8
        ]
    );
    assert_eq!(types(prepared.dataset_schema().unwrap()), [DataType::Int64]);
    let values: Vec<(&str, ArrayRef)> = vec![
        ("1", Arc::new(Int64Array::from(vec![100]))),
        ("2", Arc::new(StringArray::from(vec!["#en.wikipedia"]))),
        ("3", Arc::new(StringArray::from(vec!["2015-09-12T12:00:00Z"]))),
        ("4", Arc::new(Int64Array::from(vec![1]))),
    ];
    prepared
        .set_parameters(RecordBatch::try_from_iter(values).unwrap())
        .unwrap();
    let info = prepared.execute().await.unwrap();
    let edits = edits();
    let expected = edits.iter().filter(|edit| {
        edit["added"].as_i64() > Some(100)
            && edit["channel"] == "#en.wikipedia"
            && edit["time"].as_str() >= Some("2015-09-12T12")
    });
    assert_eq!(
        longs(&rows(&mut client, info).await, "edits"),
        [expected.count() as i64]
    );
    prepared.close().await.unwrap();

    let insert =
        "INSERT INTO pairs SELECT TIME_PARSE(?) AS __time, CAST(? AS BIGINT) AS v PARTITIONED BY DAY";
    let mut prepared = client.prepare(insert.to_owned(), None).await.unwrap();
    assert!(prepared.dataset_schema().unwrap().fields().is_empty());
    let values: Vec<(&str, ArrayRef)> = vec![
        ("1", Arc::new(StringArray::from(vec!["2024-01-01", "2024-01-02"]))),
        ("2", Arc::new(Int64Array::from(vec![1, 2]))),
    ];
    prepared
        .set_parameters(RecordBatch::try_from_iter(values).unwrap())
        .unwrap();
    assert_eq!(prepared.execute_update().await.unwrap(), 2);
    assert_eq!(
        server.rows("SELECT __time, v FROM pairs ORDER BY v").await,
        [
            [json!("2024-01-01T00:00:00.000Z"), json!(1)],
            [json!("2024-01-02T00:00:00.000Z"), json!(2)]
        ]
    );
}

#[tokio::test]
async fn metadata_names_every_table_and_column() {
    let server = Server::start(&["--worker-slots", "2"]);
    let mut client = connect(&server).await;
    wikipedia(&server, &mut client).await;
    let info = client.get_catalogs().await.unwrap();
    assert_eq!(texts(&rows(&mut client, info).await, "catalog_name"), ["druid"]);
    let info = client
        .get_db_schemas(CommandGetDbSchemas::default())
        .await
        .unwrap();
    let schemas = texts(&rows(&mut client, info).await, "db_schema_name");
    assert!(
        ["INFORMATION_SCHEMA", "druid", "sys"]
            .iter()
            .all(|name| schemas.contains(&(*name).to_owned()))
    );
    let info = client.get_table_types().await.unwrap();
    assert_eq!(
        texts(&rows(&mut client, info).await, "table_type"),
        ["SYSTEM_TABLE", "TABLE"]
    );
    let tables = CommandGetTables {
        db_schema_filter_pattern: Some("dru_d".to_owned()),
        table_name_filter_pattern: Some("wiki%".to_owned()),
        table_types: vec!["TABLE".to_owned()],
        include_schema: true,
        ..CommandGetTables::default()
    };
    let info = client.get_tables(tables.clone()).await.unwrap();
    let batch = rows(&mut client, info).await;
    assert_eq!(texts(&batch, "table_name"), ["wikipedia"]);
    let schema = batch
        .column_by_name("table_schema")
        .unwrap()
        .as_binary::<i32>()
        .value(0)
        .to_vec();
    let schema = Schema::try_from(arrow_flight::IpcMessage(schema.into())).unwrap();
    let columns: Vec<(&str, &str)> = schema
        .fields()
        .iter()
        .map(|field| {
            (
                field.name().as_str(),
                field.metadata()["ARROW:FLIGHT:SQL:TYPE_NAME"].as_str(),
            )
        })
        .collect();
    let expected = [
        ("__time", "TIMESTAMP"),
        ("channel", "VARCHAR"),
        ("page", "VARCHAR"),
        ("added", "BIGINT"),
    ];
    assert_eq!(columns, expected);
    for none in [
        CommandGetTables {
            table_types: vec!["VIEW".to_owned()],
            ..tables.clone()
        },
        CommandGetTables {
            catalog: Some("other".to_owned()),
            ..tables.clone()
        },
        CommandGetTables {
            table_name_filter_pattern: Some("wiki\\_%".to_owned()),
            ..tables
        },
    ] {
        let info = client.get_tables(none.clone()).await.unwrap();
        assert_eq!(rows(&mut client, info).await.num_rows(), 0, "{none:?}");
    }
    let info = client
        .get_xdbc_type_info(CommandGetXdbcTypeInfo::default())
        .await
        .unwrap();
    assert!(texts(&rows(&mut client, info).await, "type_name").contains(&"TIMESTAMP".to_owned()));
}

#[tokio::test]
async fn named_functions_exist() {
    let server = Server::start(&["--worker-slots", "1"]);
    let mut client = connect(&server).await;
    let known: Vec<String> = server
        .rows("SELECT ROUTINE_NAME FROM INFORMATION_SCHEMA.ROUTINES")
        .await
        .iter()
        .map(|row| row[0].as_str().unwrap().to_ascii_uppercase())
        .collect();
    // Syntax of its own, not a routine.
    let syntax = [
        "COALESCE",
        "NULLIF",
        "EXTRACT",
        "CURRENT_DATE",
        "CURRENT_TIMESTAMP",
        "POSITION",
        "TRIM",
        "FLOOR",
        "CEIL",
    ];
    let wanted = vec![
        SqlInfo::SqlNumericFunctions,
        SqlInfo::SqlStringFunctions,
        SqlInfo::SqlSystemFunctions,
        SqlInfo::SqlDatetimeFunctions,
    ];
    let info = client.get_sql_info(wanted).await.unwrap();
    let batch = rows(&mut client, info).await;
    assert_eq!(batch.num_rows(), 4);
    let values = batch.column_by_name("value").unwrap().as_union();
    let mut named = 0;
    for row in 0..batch.num_rows() {
        let value = values.value(row);
        let list = value.as_list::<i32>().value(0);
        for name in list.as_string::<i32>().iter().flatten() {
            named += 1;
            assert!(
                syntax.contains(&name) || known.contains(&name.to_owned()),
                "{name}"
            );
        }
    }
    assert!(named > 50, "{named}");
}

#[tokio::test]
async fn who_goes_away_takes_the_statement_along() {
    let server = Server::start(&["--worker-slots", "2", "--allow-http", "127.0.0.1"]);
    let source = HeldSource::new("{\"n\":1}\n");
    let sql = format!(
        "SET sqlQueryId = 'left'; INSERT INTO held SELECT TIMESTAMP '2024-01-01' AS __time, n FROM {} PARTITIONED BY DAY",
        source.table("n long")
    );
    let mut client = connect(&server).await;
    let update = client.execute_update(sql, None);
    tokio::select! {
        ended = update => panic!("{ended:?}"),
        () = source.is_read() => {}
    }
    drop(client);
    let status = server.wait("query-left").await;
    assert_eq!(status["status"], "FAILED", "{status}");
    source.release();
    let (_, text) = server
        .post("/druid/v2/sql", json!({"query": "SELECT * FROM held"}))
        .await;
    assert!(text.contains("Object 'held' not found"), "{text}");
}

#[tokio::test]
async fn queries_are_cancelled_transactions_and_mistakes_refused() {
    let server = Server::start(&["--worker-slots", "1"]);
    let mut client = connect(&server).await;
    let info = client.execute("SELECT 1 AS one".to_owned(), None).await.unwrap();
    let request = CancelFlightInfoRequest::new(info.clone());
    let action = Action::new("CancelFlightInfo", request.encode_to_vec());
    let answer = client.inner_mut().do_action(action).await.unwrap().into_inner();
    let answers: Vec<_> = answer.try_collect().await.unwrap();
    let result = CancelFlightInfoResult::decode(answers[0].body.clone()).unwrap();
    assert_eq!(result.status(), CancelStatus::Cancelled);
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let rows = client.do_get(ticket).await.unwrap();
    let error = rows.try_collect::<Vec<_>>().await.unwrap_err();
    assert!(error.to_string().contains("Query canceled"), "{error}");

    let error = client.begin_transaction().await.unwrap_err();
    assert!(
        error.to_string().contains("transactions are not supported"),
        "{error}"
    );
    let error = client
        .execute("SELECT\n  nope".to_owned(), None)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("line [2], column [3]"), "{error}");
    client.set_header("trilith-context", "{\"sqlTimeZone\":\"Asia/Kolkata\"}");
    let sql = "SELECT TIME_FORMAT(MILLIS_TO_TIMESTAMP(0), 'HH:mm') AS t";
    let info = client.execute(sql.to_owned(), None).await.unwrap();
    assert_eq!(texts(&self::rows(&mut client, info).await, "t"), ["05:30"]);
    client.set_header("trilith-context", "[]");
    let error = client.execute("SELECT 1".to_owned(), None).await.unwrap_err();
    assert!(error.to_string().contains("trilith-context"), "{error}");
    client.handshake("anyone", "secret").await.unwrap();
    assert_eq!(client.token().map(String::as_str), Some("anonymous"));
}
