use std::collections::HashMap;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use trilith_proto::pb::task as pb;
use trilith_proto::pb::task::task_service_client::TaskServiceClient;

use crate::harness::{PATIENCE, Server, edits_file, files, worker_with};

/// Calls a method as a browser does: gRPC-web over HTTP/1.1. Returns (grpc-status, message bytes).
async fn grpc_web(server: &Server, method: &str, message: Vec<u8>) -> (String, Vec<u8>) {
    grpc_web_until(server, method, message, "60S").await
}

/// With a deadline.
async fn grpc_web_until(server: &Server, method: &str, message: Vec<u8>, timeout: &str) -> (String, Vec<u8>) {
    let mut body = vec![0];
    body.extend((message.len() as u32).to_be_bytes());
    body.extend(message);
    let response = reqwest::Client::builder()
        .http1_only()
        .build()
        .unwrap()
        .post(format!("http://{}/{method}", server.grpc()))
        .header("content-type", "application/grpc-web+proto")
        .header("x-grpc-web", "1")
        .header("grpc-timeout", timeout)
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc-web+proto");
    let early = response
        .headers()
        .get("grpc-status")
        .map(|status| status.to_str().unwrap().to_owned());
    let body = response.bytes().await.unwrap();
    let (mut status, mut message, mut rest) = (early, Vec::new(), &body[..]);
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        let frame = &rest[5..5 + length];
        if rest[0] & 0x80 == 0 {
            message.extend(frame);
        } else {
            let trailers = String::from_utf8(frame.to_vec()).unwrap();
            let line = trailers.lines().find(|line| line.starts_with("grpc-status:"));
            status = Some(line.unwrap()["grpc-status:".len()..].trim().to_owned());
        }
        rest = &rest[5 + length..];
    }
    (status.unwrap(), message)
}

#[tokio::test]
async fn a_browser_reaches_the_services_by_grpc_web() {
    let server = Server::start(&[]);
    let submit = pb::SubmitTaskRequest {
        sql: "SELECT 1 AS x".to_owned(),
        ..Default::default()
    };
    let method = "trilith.task.v1.TaskService/SubmitTask";
    let (status, bytes) = grpc_web(&server, method, submit.encode_to_vec()).await;
    assert_eq!(status, "0");
    let task_id = pb::SubmitTaskResponse::decode(&bytes[..]).unwrap().task_id;
    server.wait(&task_id).await;
    let get = |task_id: &str| {
        let task_id = task_id.to_owned();
        pb::GetTaskRequest { task_id }.encode_to_vec()
    };
    let method = "trilith.task.v1.TaskService/GetTask";
    let (status, bytes) = grpc_web(&server, method, get(&task_id)).await;
    assert_eq!(status, "0");
    let task = pb::GetTaskResponse::decode(&bytes[..]).unwrap().task.unwrap();
    assert_eq!(task.state(), pb::State::Success);
    let (status, _) = grpc_web(&server, method, get("query-unknown")).await;
    assert_eq!(status, "5", "NOT_FOUND");
}

/// A collector that hands on what it receives: (service name, span).
struct Collector(mpsc::Sender<(String, Span)>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource_spans in request.into_inner().resource_spans {
            let attributes = resource_spans.resource.unwrap().attributes;
            let name = attributes
                .iter()
                .find(|attribute| attribute.key == "service.name")
                .unwrap();
            let Some(AnyValue::StringValue(service)) = name.value.clone().unwrap().value else {
                panic!("{name:?}")
            };
            for span in resource_spans
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans)
            {
                self.0.try_send((service.clone(), span)).unwrap();
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test]
async fn spans_of_server_and_worker_make_one_trace() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, mut received) = mpsc::channel(1024);
    let mut collector = tokio::task::JoinSet::new();
    collector.spawn(
        tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(Collector(sender)))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
    let server = Server::start_with(&["--worker-slots", "0"], &environment);
    let worker = worker_with(&server, "w1", &environment);
    let edits = server.input("edits.json.gz", edits_file());
    let sql = format!(
        "REPLACE INTO wiki OVERWRITE ALL SELECT TIME_PARSE(\"time\") AS __time, channel FROM {} \
         PARTITIONED BY DAY CLUSTERED BY channel",
        files(&[edits], "time string, channel string")
    );
    // The caller's own trace goes on in the task.
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let endpoint = tonic::transport::Endpoint::new(format!("http://{}", server.grpc())).unwrap();
    let mut client = TaskServiceClient::new(endpoint.connect().await.unwrap());
    let mut request = Request::new(pb::SubmitTaskRequest {
        sql,
        context_json: json!({"maxNumTasks": 2}).to_string(),
        ..Default::default()
    });
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    request
        .metadata_mut()
        .insert("traceparent", parent.parse().unwrap());
    let task_id = client.submit_task(request).await.unwrap().into_inner().task_id;
    assert_eq!(server.wait(&task_id).await["statusCode"], "SUCCESS");
    // Both send what they have when they stop.
    let stopped = tokio::task::spawn_blocking(move || {
        worker.stop();
        server.process.stop();
    });
    tokio::time::timeout(PATIENCE, stopped).await.unwrap().unwrap();
    drop(collector);
    let mut names: HashMap<(String, String), Vec<Span>> = HashMap::new();
    while let Ok((service, span)) = received.try_recv() {
        let id: String = span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(id, trace, "{}", span.name);
        names.entry((service, span.name.clone())).or_default().push(span);
    }
    let spans = |service: &str, name: &str| {
        let key = (service.to_owned(), name.to_owned());
        names.get(&key).cloned().unwrap_or_default()
    };
    assert_eq!(
        spans("trilith-server", "SubmitTask").len(),
        1,
        "{:?}",
        names.keys()
    );
    assert_eq!(spans("trilith-server", "plan").len(), 1);
    assert_eq!(spans("trilith-server", "publish").len(), 1);
    let [task] = &spans("trilith-server", "task")[..] else {
        panic!("{:?}", names.keys())
    };
    // One worker ran both stages.
    let orders = spans("trilith-worker", "work_order");
    assert_eq!(orders.len(), 2);
    for order in orders {
        assert_eq!(order.parent_span_id, task.span_id);
        assert!(order.start_time_unix_nano >= task.start_time_unix_nano);
        assert!(order.end_time_unix_nano > order.start_time_unix_nano);
    }
}

#[tokio::test]
async fn a_statement_may_be_large() {
    let server = Server::start(&[]);
    let mut client = TaskServiceClient::new(server.channel());
    // Eight megabytes.
    let line = format!("{{\"x\":1,\"y\":\"{}\"}}\n", "y".repeat(1 << 16));
    let table = crate::harness::inline(&line.repeat(128), "x long, y string");
    let sql = format!(
        "INSERT INTO wide SELECT TIMESTAMP '2024-01-01' AS __time, x, CHAR_LENGTH(y) AS y FROM {table} PARTITIONED BY ALL"
    );
    let request = pb::SubmitTaskRequest {
        sql,
        ..Default::default()
    };
    let task = client.submit_task(request).await.unwrap().into_inner().task_id;
    assert_eq!(server.wait(&task).await["statusCode"], "SUCCESS");
    let rows = server.rows("SELECT SUM(x), SUM(y) FROM wide").await;
    assert_eq!(rows, [[json!(128), json!(128 << 16)]]);
}

#[tokio::test]
async fn a_deadline_that_passes_is_named() {
    let server = Server::start(&["--allow-http", "127.0.0.1"]);
    let source = crate::harness::HeldSource::new("{\"n\":1}\n");
    let request = trilith_proto::pb::query::InferSignatureRequest {
        input_source_json: json!({"type": "http", "uris": [source.url]}).to_string(),
        input_format_json: json!({"type": "json"}).to_string(),
    };
    let method = "trilith.query.v1.QueryService/InferSignature";
    let (status, _) = grpc_web_until(&server, method, request.encode_to_vec(), "300m").await;
    let deadline_exceeded = "4";
    assert_eq!(status, deadline_exceeded);
    let client = trilith_client::ConnectOptions::new(server.grpc())
        .deadline(std::time::Duration::from_millis(300))
        .connect()
        .unwrap();
    let error = client.infer_signature(request).await.unwrap_err().to_api();
    source.release();
    assert_eq!(error.category, trilith_proto::error::Category::Timeout, "{error}");
}
