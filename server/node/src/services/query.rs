//! `trilith.query.v1.QueryService`.

use std::sync::Arc;

use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
use tonic::{Request, Response, Status};
use trilith_engine::controller::Controller;
use trilith_proto::error::ApiError;
use trilith_proto::pb::query as pb;
use trilith_proto::pb::query::query_service_server::QueryService;
use trilith_proto::pb::task::{Column, ResultColumn};

use super::statement;

/// Serves statements that run at once.
pub struct Queries {
    controller: Arc<Controller>,
}

impl Queries {
    /// The service of a controller.
    pub fn new(controller: Arc<Controller>) -> Queries {
        Queries { controller }
    }
}

/// A schema as an IPC message.
fn schema_bytes(schema: &arrow::datatypes::Schema) -> Vec<u8> {
    let mut dictionaries = DictionaryTracker::new(false);
    let options = IpcWriteOptions::default();
    IpcDataGenerator::default()
        .schema_to_bytes_with_dictionary_tracker(schema, &mut dictionaries, &options)
        .ipc_message
}

#[tonic::async_trait]
impl QueryService for Queries {
    async fn run_query(
        &self,
        request: Request<pb::RunQueryRequest>,
    ) -> Result<Response<pb::RunQueryResponse>, Status> {
        let request = request.into_inner();
        let statement = statement(request.sql, &request.context_json, request.parameters)?;
        let query = self.controller.run_query(statement).await?;
        let columns = query
            .columns
            .into_iter()
            .map(|column| ResultColumn {
                name: column.name,
                r#type: column.column_type.to_string(),
                sql_type: column.sql_type,
            })
            .collect();
        Ok(Response::new(pb::RunQueryResponse {
            query_id: query.query_id,
            columns,
            arrow_schema: schema_bytes(&query.schema),
            ticket: query.ticket.encode(),
            explain: query.explain,
        }))
    }

    async fn infer_signature(
        &self,
        request: Request<pb::InferSignatureRequest>,
    ) -> Result<Response<pb::InferSignatureResponse>, Status> {
        let request = request.into_inner();
        let json = |text: &str, name: &str| {
            serde_json::from_str(text)
                .map_err(|error| ApiError::invalid_input(format!("{name} is not JSON: {error}")))
        };
        let source = json(&request.input_source_json, "input_source_json")?;
        let format = json(&request.input_format_json, "input_format_json")?;
        let found = self.controller.infer_signature(source, format).await?;
        let columns = found.columns.into_iter().map(|(name, column_type)| Column {
            name,
            r#type: column_type.to_string(),
        });
        Ok(Response::new(pb::InferSignatureResponse {
            columns: columns.collect(),
            sampled_record_count: found.records,
        }))
    }

    async fn cancel_query(
        &self,
        request: Request<pb::CancelQueryRequest>,
    ) -> Result<Response<pb::CancelQueryResponse>, Status> {
        let id = request.into_inner().query_id;
        if !self.controller.cancel_query(&id) {
            return Err(Status::from(ApiError::not_found(format!(
                "no query runs under the id [{id}]"
            ))));
        }
        Ok(Response::new(pb::CancelQueryResponse {}))
    }
}
