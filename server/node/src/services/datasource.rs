//! `trilith.datasource.v1.DatasourceService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use trilith_engine::controller::{Controller, DatasourceView};
use trilith_metadata::Selection;
use trilith_proto::error::ApiError;
use trilith_proto::interval::{ETERNITY, Interval};
use trilith_proto::pb::datasource as pb;
use trilith_proto::pb::datasource::datasource_service_server::DatasourceService;
use trilith_proto::pb::task::Column;
use trilith_segment::SegmentRecord;

const PAGE_SIZE_DEFAULT: usize = 1_000;
const PAGE_SIZE_MAX: usize = 10_000;

/// Serves what has been published.
pub struct Datasources {
    controller: Arc<Controller>,
}

impl Datasources {
    /// The service of a controller.
    pub fn new(controller: Arc<Controller>) -> Datasources {
        Datasources { controller }
    }

    async fn view(&self) -> Result<DatasourceView, Status> {
        let controller = Arc::clone(&self.controller);
        tokio::task::spawn_blocking(move || DatasourceView::new(&controller))
            .await
            .map_err(|error| Status::internal(error.to_string()))
    }
}

fn segment(record: &SegmentRecord, visible: bool) -> pb::Segment {
    pb::Segment {
        segment_id: record.segment_id(),
        interval: record.interval.to_string(),
        partition_number: record.partition_number(),
        shard_spec_json: serde_json::to_string(&record.shard_spec).unwrap_or_default(),
        tombstone: record.is_tombstone(),
        datasource: record.datasource.clone(),
        version: record.version.clone(),
        size_bytes: record.size_bytes,
        row_count: record.row_count,
        path: record.path.clone().unwrap_or_default(),
        dimensions: record.dimensions.clone(),
        metrics: record.metrics.clone(),
        overshadowed: !visible,
    }
}

#[tonic::async_trait]
impl DatasourceService for Datasources {
    async fn list_datasources(
        &self,
        _: Request<pb::ListDatasourcesRequest>,
    ) -> Result<Response<pb::ListDatasourcesResponse>, Status> {
        let view = self.view().await?;
        let mut datasources = Vec::new();
        for name in view.datasources() {
            let shown: Vec<Arc<SegmentRecord>> = view
                .segments(&name)
                .into_iter()
                .filter(|(record, visible)| *visible && !record.is_tombstone())
                .map(|(record, _)| record)
                .collect();
            datasources.push(pb::Datasource {
                segment_count: shown.len() as u64,
                row_count: shown.iter().map(|record| record.row_count).sum(),
                size_bytes: shown.iter().map(|record| record.size_bytes).sum(),
                min_time_ms: shown
                    .iter()
                    .map(|record| record.interval.start_ms)
                    .min()
                    .unwrap_or(0),
                max_time_ms: shown
                    .iter()
                    .map(|record| record.interval.end_ms)
                    .max()
                    .unwrap_or(0),
                name,
            });
        }
        Ok(Response::new(pb::ListDatasourcesResponse { datasources }))
    }

    async fn list_segments(
        &self,
        request: Request<pb::ListSegmentsRequest>,
    ) -> Result<Response<pb::ListSegmentsResponse>, Status> {
        let request = request.into_inner();
        let mut segments: Vec<pb::Segment> = if request.unused {
            let datasource = Some(request.datasource).filter(|name| !name.is_empty());
            let unused = self.controller.unused_segments(datasource).await?;
            unused.iter().map(|record| segment(record, true)).collect()
        } else {
            let view = self.view().await?;
            let names = match request.datasource.as_str() {
                "" => view.datasources(),
                name => vec![name.to_owned()],
            };
            names
                .iter()
                .flat_map(|name| view.segments(name))
                .filter(|(_, visible)| *visible || request.include_overshadowed)
                .map(|(record, visible)| segment(&record, visible))
                .collect()
        };
        segments.retain(|segment| segment.segment_id > request.page_token);
        segments.sort_by(|a, b| a.segment_id.cmp(&b.segment_id));
        let size = match request.page_size as usize {
            0 => PAGE_SIZE_DEFAULT,
            size => size.min(PAGE_SIZE_MAX),
        };
        let mut next_page_token = String::new();
        if segments.len() > size {
            segments.truncate(size);
            next_page_token = segments
                .last()
                .map(|segment| segment.segment_id.clone())
                .unwrap_or_default();
        }
        Ok(Response::new(pb::ListSegmentsResponse {
            segments,
            next_page_token,
        }))
    }

    async fn get_schema(
        &self,
        request: Request<pb::GetSchemaRequest>,
    ) -> Result<Response<pb::GetSchemaResponse>, Status> {
        let name = request.into_inner().datasource;
        let columns = self
            .view()
            .await?
            .columns(&name)
            .ok_or_else(|| ApiError::not_found(format!("datasource [{name}] does not exist")))?;
        let columns = columns
            .into_iter()
            .map(|(name, column_type)| Column {
                name,
                r#type: column_type.to_string(),
            })
            .collect();
        Ok(Response::new(pb::GetSchemaResponse { columns }))
    }

    async fn mark_segments(
        &self,
        request: Request<pb::MarkSegmentsRequest>,
    ) -> Result<Response<pb::MarkSegmentsResponse>, Status> {
        let request = request.into_inner();
        let selection = selection(&request)?;
        let changed = self
            .controller
            .mark_segments(request.datasource, selection, request.used)
            .await?;
        Ok(Response::new(pb::MarkSegmentsResponse {
            changed_count: changed as u64,
        }))
    }

    async fn delete_unused_segments(
        &self,
        request: Request<pb::DeleteUnusedSegmentsRequest>,
    ) -> Result<Response<pb::DeleteUnusedSegmentsResponse>, Status> {
        let request = request.into_inner();
        let interval = interval(&request.interval)?;
        let deleted = self
            .controller
            .delete_unused(request.datasource, interval)
            .await?;
        Ok(Response::new(pb::DeleteUnusedSegmentsResponse {
            deleted_count: deleted as u64,
        }))
    }
}

fn interval(text: &str) -> Result<Interval, ApiError> {
    Interval::parse(text)
        .ok_or_else(|| ApiError::invalid_input(format!("[{text}] is no interval; use start/end in ISO 8601")))
}

fn selection(request: &pb::MarkSegmentsRequest) -> Result<Selection, ApiError> {
    let by_time = !request.interval.is_empty() || !request.versions.is_empty();
    if !request.segment_ids.is_empty() {
        if by_time {
            return Err(ApiError::invalid_input(
                "name segment_ids, or an interval and versions, not both",
            ));
        }
        return Ok(Selection::Ids(request.segment_ids.clone()));
    }
    if !by_time {
        return Ok(Selection::All);
    }
    Ok(Selection::Interval {
        interval: match request.interval.as_str() {
            "" => ETERNITY,
            text => interval(text)?,
        },
        versions: Some(request.versions.clone()).filter(|versions| !versions.is_empty()),
    })
}
