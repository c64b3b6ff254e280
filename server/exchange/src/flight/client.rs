//! Reads outputs of other processes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, Ticket as FlightTicket};
use futures::stream::{self, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tracing::debug;

use super::TOKEN_METADATA;
use super::ticket::{End, PieceTicket, Ticket};
use crate::error::ExchangeError;
use crate::read::Batches;

/// Attempts without a single new row before a read fails.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that does not answer a ping for this long is dead.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes on their way in one stream.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Bytes on their way in all streams of a connection: no bound of their own. A merge reads what it needs next; if the
/// streams that it does not need yet could use up the connection, it would wait for ever.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// Largest message; a single row may be large.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// Connections to other processes.
pub struct FlightPool {
    channels: Mutex<HashMap<String, Channel>>,
    token: Mutex<Option<MetadataValue<Ascii>>>,
}

impl FlightPool {
    /// `token` goes along with every request; characters that no header may have make an error of each.
    pub fn new(token: Option<&str>) -> Result<FlightPool, ExchangeError> {
        let pool = FlightPool {
            channels: Mutex::new(HashMap::new()),
            token: Mutex::new(None),
        };
        pool.set_token(token)?;
        Ok(pool)
    }

    /// Another token from now on: each server process makes its own.
    pub fn set_token(&self, token: Option<&str>) -> Result<(), ExchangeError> {
        let token = match token {
            Some(token) => Some(MetadataValue::try_from(token).map_err(|_invalid| ExchangeError::BadToken)?),
            None => None,
        };
        *self.token.lock() = token;
        Ok(())
    }

    /// Forgets the connection to a process that has ended.
    pub fn forget(&self, address: &str) {
        self.channels.lock().remove(address);
    }

    /// The connection to "host:port", made when first used. Needs a Tokio runtime.
    pub fn channel(&self, address: &str) -> Result<Channel, ExchangeError> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let uri = if address.contains("://") {
            address.to_owned()
        } else {
            format!("http://{address}")
        };
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|source| ExchangeError::Address {
                address: address.to_owned(),
                source,
            })?
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let channel = endpoint.connect_lazy();
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// Schema of an output.
    pub(crate) async fn schema(
        &self,
        address: &str,
        ticket: &PieceTicket,
    ) -> Result<SchemaRef, ExchangeError> {
        let mut attempt = 0;
        loop {
            let error = match self.try_schema(address, ticket).await {
                Ok(schema) => return Ok(schema),
                Err(error) => error,
            };
            attempt += 1;
            if attempt >= ATTEMPTS || !is_temporary(&error) {
                return Err(error);
            }
            tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(attempt)).await;
        }
    }

    async fn try_schema(&self, address: &str, ticket: &PieceTicket) -> Result<SchemaRef, ExchangeError> {
        let mut messages = self.open(address, ticket).await?;
        while let Some(message) = messages.decoder.next().await {
            let message = message.map_err(|error| remote(address, ticket, to_status(error)))?;
            if let DecodedPayload::Schema(schema) = message.payload {
                return Ok(schema);
            }
        }
        Err(remote(
            address,
            ticket,
            Status::data_loss("the answer has no schema"),
        ))
    }

    /// Rows of a partition. A broken connection is made again, and the rows go on where they ended.
    pub(crate) fn read(self: &Arc<Self>, address: String, ticket: PieceTicket) -> Batches {
        let reader = Reader {
            pool: Arc::clone(self),
            address,
            ticket,
            messages: None,
            attempt: 0,
        };
        stream::try_unfold(reader, |mut reader| async move {
            let batch = reader.next().await?;
            Ok(batch.map(|batch| (batch, reader)))
        })
        .boxed()
    }

    async fn open(&self, address: &str, ticket: &PieceTicket) -> Result<Messages, ExchangeError> {
        let channel = self.channel(address)?;
        let mut client = FlightServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let mut request = Request::new(FlightTicket {
            ticket: Ticket::Piece(ticket.clone()).encode()?,
        });
        if let Some(token) = self.token.lock().clone() {
            request.metadata_mut().insert(TOKEN_METADATA, token);
        }
        let answer = client
            .do_get(request)
            .await
            .map_err(|status| remote(address, ticket, status))?;
        Ok(Messages::new(answer.into_inner()))
    }
}

/// One answer, with its last message kept apart.
struct Messages {
    decoder: FlightDataDecoder,
    end: Arc<Mutex<Option<End>>>,
    rows: u64,
}

impl Messages {
    fn new(messages: tonic::Streaming<FlightData>) -> Messages {
        let end = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&end);
        let messages = messages
            .map_err(|status| FlightError::Tonic(Box::new(status)))
            .try_filter(move |message| {
                let is_end = message.data_header.is_empty();
                if is_end {
                    *seen.lock() = serde_json::from_slice(&message.app_metadata).ok();
                }
                std::future::ready(!is_end)
            });
        Messages {
            decoder: FlightDataDecoder::new(messages),
            end,
            rows: 0,
        }
    }
}

struct Reader {
    pool: Arc<FlightPool>,
    address: String,
    ticket: PieceTicket,
    messages: Option<Messages>,
    attempt: u32,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<RecordBatch>, ExchangeError> {
        loop {
            match self.try_next().await {
                Ok(batch) => {
                    self.attempt = 0;
                    return Ok(batch);
                }
                Err(error) => {
                    self.messages = None;
                    self.attempt += 1;
                    if self.attempt >= ATTEMPTS || !is_temporary(&error) {
                        return Err(error);
                    }
                    debug!(%error, address = self.address, attempt = self.attempt, "reads again");
                    tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(self.attempt)).await;
                }
            }
        }
    }

    async fn try_next(&mut self) -> Result<Option<RecordBatch>, ExchangeError> {
        let mut messages = match self.messages.take() {
            Some(messages) => messages,
            None => self.pool.open(&self.address, &self.ticket).await?,
        };
        while let Some(message) = messages.decoder.next().await {
            let message = message.map_err(|error| remote(&self.address, &self.ticket, to_status(error)))?;
            if let DecodedPayload::RecordBatch(batch) = message.payload {
                let rows = batch.num_rows() as u64;
                messages.rows += rows;
                self.ticket.skip_rows += rows;
                self.messages = Some(messages);
                return Ok(Some(batch));
            }
        }
        let end = *messages.end.lock();
        match end {
            Some(end) if end.rows == messages.rows => Ok(None),
            Some(end) => Err(ExchangeError::Incomplete {
                address: self.address.clone(),
                id: self.ticket.id.clone(),
                partition: self.ticket.partition,
                received: messages.rows,
                sent: end.rows,
            }),
            None => Err(remote(
                &self.address,
                &self.ticket,
                Status::unavailable("the answer ended too early"),
            )),
        }
    }
}

fn remote(address: &str, ticket: &PieceTicket, status: Status) -> ExchangeError {
    ExchangeError::Remote {
        address: address.to_owned(),
        id: ticket.id.clone(),
        partition: ticket.partition,
        source: Box::new(status),
    }
}

fn to_status(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => Status::internal(other.to_string()),
    }
}

/// Whether the same request may succeed a moment later.
fn is_temporary(error: &ExchangeError) -> bool {
    match error {
        ExchangeError::Incomplete { .. } => true,
        // A connection that breaks in the middle of an answer is told as unknown or cancelled.
        ExchangeError::Remote { source, .. } => {
            matches!(
                source.code(),
                Code::Unavailable | Code::Unknown | Code::Cancelled | Code::ResourceExhausted
            )
        }
        _ => false,
    }
}
