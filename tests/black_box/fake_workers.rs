//! Worker processes that misbehave: the protocol of workers, spoken by a test.

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use trilith_proto::pb::task::{ErrorReport, Fault};
use trilith_proto::pb::worker as pb;
use trilith_proto::pb::worker::work_order_status::Status;
use trilith_proto::pb::worker::work_request::Message;
use trilith_proto::pb::worker::work_response::Message as Command;
use trilith_proto::pb::worker::worker_service_client::WorkerServiceClient;

use crate::harness::{PATIENCE, Server, files};

struct FakeWorker {
    id: String,
    requests: mpsc::Sender<pb::WorkRequest>,
    commands: Streaming<pb::WorkResponse>,
    beat: tokio::time::Interval,
    /// What it says it has.
    held: Vec<pb::WorkOrderId>,
}

impl FakeWorker {
    async fn join(server: &Server, slots: u32) -> FakeWorker {
        let mut client = WorkerServiceClient::new(server.channel());
        let register = pb::RegisterRequest {
            // Nobody reads anything there.
            flight_address: "127.0.0.1:1".to_owned(),
            slot_count: slots,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let terms = client.register(register).await.unwrap().into_inner();
        let (requests, stream) = mpsc::channel(1_024);
        let period = std::time::Duration::from_millis(terms.heartbeat_interval_ms.into());
        let beat = tokio::time::interval(period);
        let first = pb::WorkRequest {
            worker_id: terms.worker_id.clone(),
            message: Some(Message::Heartbeat(pb::Heartbeat::default())),
        };
        requests.send(first).await.unwrap();
        let commands = client
            .work(ReceiverStream::new(stream))
            .await
            .unwrap()
            .into_inner();
        FakeWorker {
            id: terms.worker_id,
            requests,
            commands,
            beat,
            held: Vec::new(),
        }
    }

    async fn send(&self, message: Message) {
        let request = pb::WorkRequest {
            worker_id: self.id.clone(),
            message: Some(message),
        };
        self.requests.send(request).await.unwrap();
    }

    /// The next work order; heartbeats go on meanwhile.
    async fn order(&mut self) -> pb::WorkOrderId {
        loop {
            tokio::select! {
                _ = self.beat.tick() => {
                    let orders = self.held.iter().map(|id| pb::HeldOrder {
                        id: Some(id.clone()),
                        step: pb::held_order::Step::Running.into(),
                    });
                    let heartbeat = pb::Heartbeat { busy_slot_count: 0, orders: orders.collect() };
                    self.send(Message::Heartbeat(heartbeat)).await;
                }
                command = self.commands.message() => {
                    if let Some(Command::Start(order)) = command.unwrap().unwrap().message {
                        return order.id.unwrap();
                    }
                }
            }
        }
    }

    async fn fail(&mut self, id: pb::WorkOrderId, fault: Fault) {
        self.held.retain(|held| *held != id);
        let report = ErrorReport {
            fault: Some(fault),
            ..ErrorReport::default()
        };
        let status = pb::WorkOrderStatus {
            id: Some(id),
            status: Some(Status::Failed(report)),
        };
        self.send(Message::Status(status)).await;
    }
}

/// The error of a task that failed, without its message.
async fn error(server: &Server, task: &str) -> (Value, String) {
    let status = server.wait(task).await;
    assert_eq!(status["statusCode"], "FAILED", "{status}");
    let report = server.report(task).await;
    let mut error = report["status"]["errorReport"]["error"].clone();
    let message = error.as_object_mut().unwrap().remove("errorMessage").unwrap();
    (error, message.as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_worker_that_takes_an_order_and_keeps_silent_about_it_fails_the_task() {
    let server = Server::start(&["--worker-slots", "0"]);
    let mut worker = FakeWorker::join(&server, 1).await;
    let task = server.submit("SELECT 1 AS x", json!({})).await;
    worker.order().await;
    // Its process lives, but says nothing of the order.
    let (error, message) = tokio::select! {
        again = worker.order() => panic!("a second order: {again:?}"),
        error = error(&server, &task) => error,
    };
    let silent = json!({
        "errorCode": "WorkerRpcFailed",
        "workerTaskId": format!("{task}-worker0_0"),
        "errorMsg": "no sign of its work for 10000 ms",
    });
    assert_eq!(error, silent, "{message}");
    assert!(message.contains("no sign of its work"), "{message}");
}

/// Each of 60 workers may be tried again twice, but all together only 100 times.
#[tokio::test]
async fn a_job_is_given_up_after_a_hundred_relaunches() {
    const WORKERS: usize = 60;
    let server = Server::start(&["--worker-slots", "0"]);
    let paths: Vec<_> = (0..WORKERS)
        .map(|n| server.input(&format!("{n}.json"), b"{\"x\":1}\n"))
        .collect();
    let mut worker = FakeWorker::join(&server, WORKERS as u32).await;
    let sql = format!("SELECT x FROM {}", files(&paths, "x long"));
    let context = json!({"maxNumTasks": WORKERS + 1, "faultTolerance": true, "durableShuffleStorage": false});
    let task = server.submit(&sql, context).await;
    let failing = async {
        // All of one attempt are there before the first of them fails.
        loop {
            let mut attempt = Vec::new();
            while attempt.len() < WORKERS {
                let id = worker.order().await;
                worker.held.push(id.clone());
                attempt.push(id);
            }
            for id in attempt {
                let fault = Fault {
                    error_code: "UnknownError".to_owned(),
                    error_message: "out of order".to_owned(),
                    fields_json: "{}".to_owned(),
                };
                worker.fail(id, fault).await;
            }
        }
    };
    let (error, message) = tokio::select! {
        () = async { tokio::time::timeout(PATIENCE, failing).await.unwrap() } => unreachable!("it fails for ever"),
        error = error(&server, &task) => error,
    };
    assert_eq!(error["errorCode"], "TooManyAttemptsForJob", "{error} {message}");
    assert_eq!(error["maxRelaunchCount"], 100, "{error}");
    assert_eq!(error["currentRelaunchCount"], 101, "{error}");
    assert!(
        error["taskId"]
            .as_str()
            .unwrap()
            .starts_with(&format!("{task}-worker")),
        "{error}"
    );
    assert!(
        error["rootErrorMessage"]
            .as_str()
            .unwrap()
            .contains("out of order"),
        "{error}"
    );
}
