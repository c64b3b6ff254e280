//! Answers `DoGet`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::FlightData;
use arrow_flight::encode::{FlightDataEncoder, FlightDataEncoderBuilder};
use arrow_flight::error::FlightError;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::TOKEN_METADATA;
use super::client::FlightPool;
use super::ticket::{End, PieceTicket, ResultTicket, Ticket};
use crate::error::ExchangeError;
use crate::output::OutputOrder;
use crate::read::Batches;
use crate::registry::{Exchange, Shared};

/// Bytes of a message, about.
const MESSAGE_BYTES: usize = 1024 * 1024;

/// Messages of a Flight answer. Nothing is read before the client asks for it.
pub type FlightDataStream = BoxStream<'static, Result<FlightData, Status>>;

/// Fails with `UNAUTHENTICATED` unless the request carries the secret. No secret: everybody may read.
pub fn check_token(metadata: &MetadataMap, secret: Option<&str>) -> Result<(), Status> {
    let Some(secret) = secret else { return Ok(()) };
    let given = metadata
        .get(TOKEN_METADATA)
        .map_or(&[][..], |value| value.as_bytes());
    let same_length = given.len() == secret.len();
    // Takes as long for any wrong secret.
    let difference = given
        .iter()
        .zip(secret.as_bytes())
        .fold(0, |sum, (left, right)| sum | (left ^ right));
    if same_length && difference == 0 {
        Ok(())
    } else {
        Err(Status::unauthenticated("missing or wrong token"))
    }
}

/// Answers a ticket of this crate: one partition for another stage, or the result of a statement. The schema comes
/// first, even when there are no rows. `NOT_FOUND` if an output is gone, `INVALID_ARGUMENT` if it is no ticket.
pub async fn do_get(
    exchange: &Arc<Exchange>,
    client: &Arc<FlightPool>,
    ticket: &[u8],
) -> Result<FlightDataStream, Status> {
    match Ticket::decode(ticket).map_err(to_status)? {
        Ticket::Piece(ticket) => piece(exchange, &ticket).map_err(to_status),
        Ticket::Result(ticket) => result(exchange, client, ticket).await.map_err(to_status),
    }
}

fn piece(exchange: &Exchange, ticket: &PieceTicket) -> Result<FlightDataStream, ExchangeError> {
    let output = exchange.get(&ticket.id)?;
    let rows = output.stream(ticket.partition, ticket.order(), ticket.skip_rows)?;
    let counted = Counted {
        end: End { rows: 0, batches: 0 },
        shared: Arc::clone(exchange.shared()),
    };
    let messages = encoder(output.schema(), rows);
    let answer = stream::try_unfold(Some((messages, counted)), |state| async move {
        let Some((mut messages, mut counted)) = state else {
            return Ok(None);
        };
        match messages.try_next().await.map_err(Status::from)? {
            Some(message) => {
                counted.note(&message);
                Ok(Some((message, Some((messages, counted)))))
            }
            None => Ok(Some((counted.last_message()?, None))),
        }
    });
    Ok(answer.boxed())
}

async fn result(
    exchange: &Arc<Exchange>,
    client: &Arc<FlightPool>,
    ticket: ResultTicket,
) -> Result<FlightDataStream, ExchangeError> {
    let mut schema: Option<SchemaRef> = None;
    let mut streams: Vec<Batches> = Vec::with_capacity(ticket.sources.len());
    for (source, partition) in ticket.sources {
        match source.address {
            None => {
                let output = exchange.get(&source.id)?;
                streams.push(output.stream(partition, OutputOrder::Keys, 0)?);
                schema.get_or_insert_with(|| Arc::clone(output.schema()));
            }
            Some(address) => {
                let piece = PieceTicket::new(&source.id, partition, OutputOrder::Keys);
                if schema.is_none() {
                    schema = Some(client.schema(&address, &piece).await?);
                }
                streams.push(client.read(address, piece));
            }
        }
    }
    let schema = schema.ok_or(ExchangeError::BadTicket(None))?;
    let counted = Counted {
        end: End { rows: 0, batches: 0 },
        shared: Arc::clone(exchange.shared()),
    };
    let messages = encoder(&schema, stream::iter(streams).flatten().boxed());
    let answer = messages.scan(counted, |counted, message| {
        if let Ok(message) = &message {
            counted.note(message);
        }
        std::future::ready(Some(message.map_err(Status::from)))
    });
    Ok(answer.boxed())
}

fn encoder(schema: &SchemaRef, rows: Batches) -> FlightDataEncoder {
    let rows = rows.map_err(|error| FlightError::Tonic(Box::new(to_status(error))));
    FlightDataEncoderBuilder::new()
        .with_schema(Arc::clone(schema))
        .with_max_flight_data_size(MESSAGE_BYTES)
        .build(rows.map(|batch: Result<RecordBatch, FlightError>| batch))
}

/// Counts what is sent.
struct Counted {
    end: End,
    shared: Arc<Shared>,
}

impl Counted {
    fn note(&mut self, message: &FlightData) {
        let header = arrow::ipc::root_as_message(&message.data_header);
        let Some(batch) = header.ok().and_then(|header| header.header_as_record_batch()) else {
            return;
        };
        let rows = u64::try_from(batch.length()).unwrap_or(0);
        self.end.rows += rows;
        self.end.batches += 1;
        let served = &self.shared.served;
        served.rows.fetch_add(rows, Ordering::Relaxed);
        served.batches.fetch_add(1, Ordering::Relaxed);
        let bytes = message.data_header.len() + message.data_body.len();
        served.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn last_message(&self) -> Result<FlightData, Status> {
        let end = serde_json::to_vec(&self.end).map_err(|error| Status::internal(error.to_string()))?;
        Ok(FlightData::new().with_app_metadata(end))
    }
}

/// What the reader sees; it decides by the code whether to try again.
pub(crate) fn to_status(error: ExchangeError) -> Status {
    let code = match &error {
        ExchangeError::OutputMissing { .. } | ExchangeError::NoPartition { .. } => Code::NotFound,
        ExchangeError::NoBoundaries { .. } => Code::FailedPrecondition,
        ExchangeError::BadTicket(_) => Code::InvalidArgument,
        ExchangeError::Remote { source, .. } => source.code(),
        ExchangeError::Incomplete { .. } | ExchangeError::Stopped => Code::Unavailable,
        _ => Code::Internal,
    };
    Status::new(code, error.to_string())
}
