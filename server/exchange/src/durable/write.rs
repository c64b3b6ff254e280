//! Writes parts: block by block, so that memory stays flat whatever the size of a part.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use futures::stream::{self, StreamExt};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use trilith_proto::id::WorkOrderId;

use super::{DurableArea, DurableStorage, PARTS, PartList, PartSize, SUCCESS, attempt, part, worker};
use crate::error::ExchangeError;
use crate::memory::value_bytes;
use crate::output::{OutputOrder, StageOutput};
use crate::read::Batches;
use crate::spill::block_rows;

/// Small parts of one output that are written at a time: they wait for the network most of the time.
const PARTS_AT_ONCE: usize = 8;
/// A part of several pieces takes the place of this many, so that memory stays within some 50 MB.
const LARGE_PART: u32 = 4;
/// Bytes of one piece of a larger part; S3 takes no less than 5 MB, and 10,000 pieces at most.
const PIECE_BYTES: usize = 8 * 1024 * 1024;

impl DurableStorage {
    /// Writes a finished output, whose boundaries are set.
    pub(crate) async fn write_output(
        &self,
        output: &StageOutput,
        cancel: &CancellationToken,
    ) -> Result<PartList, ExchangeError> {
        let area = DurableArea::Intermediate;
        let id = output.id();
        // The first failure stops the others, each of which tidies up after itself.
        let stop = cancel.child_token();
        let places = Semaphore::new(PARTS_AT_ONCE);
        let written: Vec<Result<PartSize, ExchangeError>> =
            stream::iter(output.partitions().iter().enumerate())
                .map(|(number, size)| {
                    let (size, stop, places) = (*size, stop.clone(), &places);
                    async move {
                        if size.rows == 0 {
                            return Ok(PartSize::default());
                        }
                        let large = size.bytes > PIECE_BYTES as u64;
                        let place = places.acquire_many(if large { LARGE_PART } else { 1 }).await;
                        let _place = place.map_err(|_closed| ExchangeError::Stopped)?;
                        let stream = output.stream(number as u32, OutputOrder::Keys, 0)?;
                        let path = part(area, id, number as u32);
                        let written = self.write_part(path, output.schema(), stream, &stop).await;
                        if written.is_err() {
                            stop.cancel();
                        }
                        written
                    }
                })
                .buffered(PARTS_AT_ONCE)
                .collect()
                .await;
        // A part that was stopped is not the reason.
        let reason = written
            .iter()
            .position(|part| matches!(part, Err(error) if !matches!(error, ExchangeError::Stopped)));
        let mut parts = Vec::with_capacity(written.len());
        for (number, part) in written.into_iter().enumerate() {
            match (part, reason) {
                (Ok(part), _) => parts.push(part),
                (Err(error), reason) if reason.is_none_or(|reason| reason == number) => return Err(error),
                (Err(_stopped), _) => {}
            }
        }
        let list = PartList { parts };
        self.complete(area, id, &list).await?;
        Ok(list)
    }

    async fn write_part(
        &self,
        path: Path,
        schema: &SchemaRef,
        mut rows: Batches,
        cancel: &CancellationToken,
    ) -> Result<PartSize, ExchangeError> {
        let mut part = PartWriter::new(self, path, schema)?;
        let all = async {
            while let Some(batch) = rows.next().await {
                part.write(&batch?).await?;
            }
            Ok(())
        };
        let written = cancel.run_until_cancelled(all).await;
        match written.unwrap_or(Err(ExchangeError::Stopped)) {
            Ok(()) => part.finish().await,
            Err(error) => {
                part.abort().await;
                Err(error)
            }
        }
    }

    /// Makes an attempt readable.
    async fn complete(
        &self,
        area: DurableArea,
        id: &WorkOrderId,
        list: &PartList,
    ) -> Result<(), ExchangeError> {
        let text = serde_json::to_vec(list).map_err(|error| ExchangeError::BadTicket(Some(error)))?;
        self.put(&attempt(area, id).join(PARTS), text).await?;
        let success = worker(area, id).join(SUCCESS);
        self.put(&success, id.worker_task_id().into_bytes()).await
    }
}

/// One part that grows.
struct PartWriter {
    encoder: StreamWriter<Vec<u8>>,
    upload: BufWriter,
    size: PartSize,
    failed: Box<dyn Fn(object_store::Error) -> ExchangeError + Send + Sync>,
}

impl PartWriter {
    fn new(storage: &DurableStorage, path: Path, schema: &SchemaRef) -> Result<PartWriter, ExchangeError> {
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
        let upload =
            BufWriter::with_capacity(Arc::clone(&storage.store), path, PIECE_BYTES).with_max_concurrency(1);
        Ok(PartWriter {
            encoder: StreamWriter::try_new_with_options(Vec::new(), schema, options)?,
            upload,
            size: PartSize::default(),
            failed: Box::new(storage.error("write to")),
        })
    }

    async fn write(&mut self, batch: &RecordBatch) -> Result<(), ExchangeError> {
        let step = block_rows(batch.num_rows(), value_bytes(batch));
        let mut start = 0;
        while start < batch.num_rows() {
            let rows = step.min(batch.num_rows() - start);
            self.encoder.write(&batch.slice(start, rows))?;
            self.push().await?;
            start += rows;
        }
        self.size.rows += batch.num_rows() as u64;
        Ok(())
    }

    async fn push(&mut self) -> Result<(), ExchangeError> {
        let bytes = std::mem::take(self.encoder.get_mut());
        self.size.bytes += bytes.len() as u64;
        self.upload.put(bytes.into()).await.map_err(&self.failed)
    }

    async fn finish(mut self) -> Result<PartSize, ExchangeError> {
        self.encoder.finish()?;
        self.push().await?;
        let ended = self.upload.shutdown().await;
        ended.map_err(|error| {
            (self.failed)(object_store::Error::Generic {
                store: "durable storage",
                source: Box::new(error),
            })
        })?;
        Ok(self.size)
    }

    async fn abort(mut self) {
        if let Err(error) = self.upload.abort().await {
            tracing::warn!(%error, "an unfinished upload to durable storage could not be taken back");
        }
    }
}

/// Writes the rows of a SELECT as pages of about equal size.
pub struct PageWriter {
    storage: Arc<DurableStorage>,
    id: WorkOrderId,
    schema: SchemaRef,
    rows_per_page: u64,
    open: Option<PartWriter>,
    list: PartList,
}

impl PageWriter {
    /// Pages of `rows_per_page` rows; the last one of a worker may have fewer.
    pub fn new(
        storage: Arc<DurableStorage>,
        id: WorkOrderId,
        schema: SchemaRef,
        rows_per_page: u64,
    ) -> PageWriter {
        PageWriter {
            storage,
            id,
            schema,
            rows_per_page: rows_per_page.max(1),
            open: None,
            list: PartList::default(),
        }
    }

    /// Adds rows.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<(), ExchangeError> {
        let mut start = 0;
        while start < batch.num_rows() {
            let mut page = match self.open.take() {
                Some(page) => page,
                None => {
                    let number = self.list.parts.len() as u32;
                    let path = part(DurableArea::Results, &self.id, number);
                    PartWriter::new(&self.storage, path, &self.schema)?
                }
            };
            let room = self.rows_per_page.saturating_sub(page.size.rows);
            let rows = (batch.num_rows() - start).min(usize::try_from(room).unwrap_or(usize::MAX));
            let written = page.write(&batch.slice(start, rows)).await;
            start += rows;
            if page.size.rows >= self.rows_per_page {
                written?;
                self.list.parts.push(page.finish().await?);
            } else {
                self.open = Some(page);
                written?;
            }
        }
        Ok(())
    }

    /// Ends the last page and makes all of them readable.
    pub async fn finish(mut self) -> Result<PartList, ExchangeError> {
        if let Some(page) = self.open.take() {
            self.list.parts.push(page.finish().await?);
        }
        self.storage
            .complete(DurableArea::Results, &self.id, &self.list)
            .await?;
        Ok(self.list)
    }

    /// Takes back what was written.
    pub async fn abort(mut self) {
        if let Some(page) = self.open.take() {
            page.abort().await;
        }
        if let Err(error) = self.storage.remove_attempt(DurableArea::Results, &self.id).await {
            tracing::warn!(%error, "pages of a failed attempt remain until the next start");
        }
    }
}
