//! Reads parts, from any process.

use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::ipc::reader::{StreamDecoder, StreamReader};
use bytes::Bytes;
use datafusion::common::runtime::SpawnedTask;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::{GetResultPayload, ObjectStoreExt};
use trilith_proto::id::WorkOrderId;

use super::{DurableArea, DurableStorage, part};
use crate::error::ExchangeError;
use crate::read::Batches;

/// Bytes that are read from a file at a time.
const READ_BYTES: usize = 256 * 1024;

impl DurableStorage {
    /// Rows of one part, in order; complete, or an error.
    pub fn read(self: &Arc<Self>, area: DurableArea, id: &WorkOrderId, number: u32) -> Batches {
        let (storage, id) = (Arc::clone(self), id.clone());
        stream::once(async move { storage.open_part(area, id, number).await })
            .try_flatten()
            .boxed()
    }

    async fn open_part(
        self: Arc<Self>,
        area: DurableArea,
        id: WorkOrderId,
        number: u32,
    ) -> Result<Batches, ExchangeError> {
        let list = self.parts(area, &id).await?;
        // A processor without rows made no partition.
        let expected = list.parts.get(number as usize).map_or(0, |part| part.rows);
        if expected == 0 {
            return Ok(stream::empty().boxed());
        }
        let found = match self.store.get(&part(area, &id, number)).await {
            Err(object_store::Error::NotFound { .. }) => return Err(ExchangeError::OutputMissing { id }),
            other => other.map_err(self.error("read from"))?,
        };
        let rows = match found.payload {
            GetResultPayload::File(file, _) => from_file(file),
            GetResultPayload::Stream(bytes) => from_bytes(bytes.map_err(self.error("read from")).boxed()),
        };
        let state = Some((rows, 0_u64));
        let address = self.location.clone();
        let complete = stream::try_unfold(state, move |state| {
            let (address, id) = (address.clone(), id.clone());
            async move {
                let Some((mut rows, seen)) = state else {
                    return Ok(None);
                };
                match rows.try_next().await? {
                    Some(batch) => {
                        let seen = seen + batch.num_rows() as u64;
                        Ok(Some((batch, Some((rows, seen)))))
                    }
                    None if seen == expected => Ok(None),
                    None => Err(ExchangeError::Incomplete {
                        address,
                        id,
                        partition: number,
                        received: seen,
                        sent: expected,
                    }),
                }
            }
        });
        Ok(complete.boxed())
    }
}

/// A file of this machine. Each batch is read on a thread for blocking work.
fn from_file(file: File) -> Batches {
    enum Reader {
        Closed(File),
        Open(Box<StreamReader<BufReader<File>>>),
    }
    stream::try_unfold(Reader::Closed(file), |reader| async move {
        let next = SpawnedTask::spawn_blocking(move || {
            let mut reader = match reader {
                Reader::Open(reader) => reader,
                Reader::Closed(file) => {
                    let file = BufReader::with_capacity(READ_BYTES, file);
                    Box::new(StreamReader::try_new(file, None)?)
                }
            };
            let batch = reader.next().transpose()?;
            Ok::<_, ExchangeError>(batch.map(|batch| (batch, Reader::Open(reader))))
        });
        next.join().await.map_err(|_stopped| ExchangeError::Stopped)?
    })
    .boxed()
}

struct Decoding {
    bytes: BoxStream<'static, Result<Bytes, ExchangeError>>,
    decoder: StreamDecoder,
    rest: Buffer,
}

fn from_bytes(bytes: BoxStream<'static, Result<Bytes, ExchangeError>>) -> Batches {
    let state = Decoding {
        bytes,
        decoder: StreamDecoder::new(),
        rest: Buffer::default(),
    };
    stream::try_unfold(state, |mut state| async move {
        let batch = state.next().await?;
        Ok(batch.map(|batch| (batch, state)))
    })
    .boxed()
}

impl Decoding {
    async fn next(&mut self) -> Result<Option<RecordBatch>, ExchangeError> {
        loop {
            if let Some(batch) = self.decoder.decode(&mut self.rest)? {
                return Ok(Some(batch));
            }
            match self.bytes.try_next().await? {
                Some(bytes) => self.rest = Buffer::from(bytes),
                None => {
                    self.decoder.finish()?;
                    return Ok(None);
                }
            }
        }
    }
}
