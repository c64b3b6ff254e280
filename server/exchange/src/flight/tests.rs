//! Reads through real sockets: cut connections, slow readers, wrong tokens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest,
    HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket as FlightTicket,
};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::UnboundedMemoryPool;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use trilith_proto::id::{AttemptNumber, StageNumber, TaskId, WorkOrderId, WorkerNumber};

use super::client::FlightPool;
use super::serve::{check_token, do_get};
use super::ticket::{PieceTicket, Ticket};
use crate::output::OutputOrder;
use crate::*;

const TOKEN: &str = "token";

struct Service {
    exchange: Arc<Exchange>,
    client: Arc<FlightPool>,
}

type Answer<T> = BoxStream<'static, Result<T, Status>>;

fn no<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not in this test"))
}

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = Answer<HandshakeResponse>;
    type ListFlightsStream = Answer<FlightInfo>;
    type DoGetStream = Answer<FlightData>;
    type DoPutStream = Answer<PutResult>;
    type DoActionStream = Answer<arrow_flight::Result>;
    type ListActionsStream = Answer<ActionType>;
    type DoExchangeStream = Answer<FlightData>;

    async fn do_get(&self, request: Request<FlightTicket>) -> Result<Response<Self::DoGetStream>, Status> {
        check_token(request.metadata(), Some(TOKEN))?;
        let rows = do_get(&self.exchange, &self.client, &request.get_ref().ticket).await?;
        Ok(Response::new(rows))
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        no()
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        no()
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        no()
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        no()
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        no()
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        no()
    }

    async fn do_action(&self, _: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        no()
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        no()
    }

    async fn do_exchange(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        no()
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("text", DataType::Utf8, false),
    ]))
}

fn id() -> WorkOrderId {
    WorkOrderId {
        task: TaskId::from("t"),
        stage: StageNumber(0),
        worker: WorkerNumber(0),
        attempt: AttemptNumber(0),
        run: 0,
    }
}

/// 2,000 rows of about 200 bytes.
fn batch(first: i64) -> RecordBatch {
    let numbers: Int64Array = (first..first + 2_000).map(|n| n * 7919 % 1_000_003).collect();
    let texts: StringArray = (first..first + 2_000)
        .map(|n| Some(format!("{n:0200}")))
        .collect();
    RecordBatch::try_new(schema(), vec![Arc::new(numbers), Arc::new(texts)]).unwrap()
}

struct Process {
    exchange: Arc<Exchange>,
    address: SocketAddr,
    tasks: JoinSet<()>,
    _directory: tempfile::TempDir,
}

async fn process(memory_limit_bytes: u64, shuffle: Shuffle, batches: i64) -> Process {
    let directory = tempfile::tempdir().unwrap();
    let exchange = Exchange::new(ExchangeConfig {
        spill_directory: directory.path().to_owned(),
        memory_limit_bytes,
        pool: Arc::new(UnboundedMemoryPool::default()),
        task_disk_limit_bytes: None,
        durable: None,
    });
    let exchange = Arc::new(exchange.unwrap());
    let mut writer = exchange.create(id(), schema(), shuffle, u64::MAX).unwrap();
    for number in 0..batches {
        writer.write(0, batch(number * 2_000)).unwrap();
    }
    writer.finish().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = Service {
        exchange: Arc::clone(&exchange),
        client: Arc::new(FlightPool::new(Some(TOKEN)).unwrap()),
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let server = Server::builder().add_service(FlightServiceServer::new(service));
        server
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    });
    Process {
        exchange,
        address,
        tasks,
        _directory: directory,
    }
}

/// Passes connections on, and cuts each after a number of bytes that the seed decides.
async fn cutting_proxy(process: &mut Process, mut seed: u64, cuts: Arc<AtomicU64>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let target = process.address;
    process.tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((near, _)) = listener.accept().await {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let limit = 600_000 + (seed >> 33) % 1_500_000;
            let cuts = Arc::clone(&cuts);
            connections.spawn(async move {
                let far = TcpStream::connect(target).await.unwrap();
                let (mut near_read, mut near_write) = near.into_split();
                let (far_read, mut far_write) = far.into_split();
                let up = async { tokio::io::copy(&mut near_read, &mut far_write).await };
                let down = async {
                    let copied = tokio::io::copy(&mut far_read.take(limit), &mut near_write).await;
                    if copied.is_ok_and(|bytes| bytes == limit) {
                        cuts.fetch_add(1, Ordering::Relaxed);
                    }
                    near_write.shutdown().await
                };
                // The end of either direction ends both.
                tokio::select! {
                    _ = up => {}
                    _ = down => {}
                }
            });
        }
    });
    address
}

async fn read_from(address: SocketAddr, order: ReadOrder, exchange: &Arc<Exchange>) -> Vec<i64> {
    let request = ReadRequest {
        schema: schema(),
        sources: vec![StageSource {
            address: Some(address.to_string()),
            id: id(),
            durable: false,
        }],
        partition: 0,
        order,
        keys: vec![SortKey::ascending(0)],
        counters: Arc::default(),
    };
    let client = Arc::new(FlightPool::new(Some(TOKEN)).unwrap());
    let rows = read(exchange, &client, &Arc::new(TaskContext::default()), request).unwrap();
    let batches: Vec<RecordBatch> = rows.try_collect().await.unwrap();
    batches
        .iter()
        .flat_map(|batch| {
            let column = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
            column.values().to_vec()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_goes_on_where_it_ended() {
    let sorted = Shuffle::Sort {
        keys: vec![SortKey::ascending(0)],
        bucket: None,
        statistics: false,
        limit: None,
    };
    let cases = [
        (u64::MAX, Shuffle::Mix, ReadOrder::Any),
        (2_000_000, Shuffle::Mix, ReadOrder::Any),
        (u64::MAX, sorted.clone(), ReadOrder::Keys),
        (2_000_000, sorted, ReadOrder::Keys),
    ];
    for (seed, (limit, shuffle, order)) in cases.into_iter().enumerate() {
        let mut process = process(limit, shuffle, 40).await;
        let cuts = Arc::new(AtomicU64::new(0));
        let proxy = cutting_proxy(&mut process, seed as u64, Arc::clone(&cuts)).await;
        let found = read_from(proxy, order.clone(), &process.exchange).await;
        let mut expected: Vec<i64> = (0..80_000).map(|n| n * 7919 % 1_000_003).collect();
        if order == ReadOrder::Keys {
            expected.sort_unstable();
        }
        assert!(found == expected, "case {seed}: {} rows", found.len());
        assert!(cuts.load(Ordering::Relaxed) >= 3, "case {seed}: too few cuts");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_is_not_sent_more_than_a_window() {
    const BOUND: u64 = 24 * 1024 * 1024;
    let process = process(u64::MAX, Shuffle::Mix, 300).await;
    let pool = FlightPool::new(Some(TOKEN)).unwrap();
    let channel = pool.channel(&process.address.to_string()).unwrap();
    let mut client = FlightServiceClient::new(channel).max_decoding_message_size(1 << 30);
    let ticket = Ticket::Piece(PieceTicket::new(&id(), 0, OutputOrder::Kept));
    let mut request = Request::new(FlightTicket {
        ticket: ticket.encode().unwrap(),
    });
    request
        .metadata_mut()
        .insert(super::TOKEN_METADATA, TOKEN.parse().unwrap());
    let mut answer = client.do_get(request).await.unwrap().into_inner();
    answer.message().await.unwrap().unwrap();
    let served = || process.exchange.stats().flight_bytes_served;
    let too_much = async {
        while served() <= BOUND {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_millis(500), too_much).await;
    assert!(waited.is_err(), "{} bytes for nobody", served());
    assert!(served() > 0);
    while answer.message().await.unwrap().is_some() {}
    assert_eq!(process.exchange.stats().flight_rows_served, 600_000);
    assert!(served() > 2 * BOUND, "{}", served());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_wait_do_not_keep_others_waiting() {
    let process = process(u64::MAX, Shuffle::Mix, 100).await;
    let pool = Arc::new(FlightPool::new(Some(TOKEN)).unwrap());
    let ticket = PieceTicket::new(&id(), 0, OutputOrder::Kept);
    let open = || pool.read(process.address.to_string(), ticket.clone());
    let count = |rows: crate::read::Batches| async move {
        let count = rows.try_fold(0, |count, batch| std::future::ready(Ok(count + batch.num_rows())));
        tokio::time::timeout(Duration::from_secs(60), count)
            .await
            .expect("the rows do not come")
            .unwrap()
    };
    // As a merge does: the first batch of each, then only what comes next.
    let mut waiting: Vec<_> = (0..12).map(|_| open()).collect();
    for rows in &mut waiting {
        assert_eq!(rows.try_next().await.unwrap().unwrap().num_rows(), 2_000);
    }
    assert_eq!(count(open()).await, 200_000);
    for rows in waiting {
        assert_eq!(count(rows).await, 198_000);
    }
}

#[tokio::test]
async fn the_wrong_token_reads_nothing() {
    let process = process(u64::MAX, Shuffle::Mix, 1).await;
    for token in [None, Some("tokem")] {
        let client = Arc::new(FlightPool::new(token).unwrap());
        let ticket = PieceTicket::new(&id(), 0, OutputOrder::Kept);
        let read = client.read(process.address.to_string(), ticket);
        let error = read.try_collect::<Vec<_>>().await.unwrap_err();
        let ExchangeError::Remote { source, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(source.code(), tonic::Code::Unauthenticated);
    }
    assert_eq!(process.exchange.stats().flight_rows_served, 0);
}
