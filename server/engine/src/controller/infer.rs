//! EXTERN without a signature: its columns are what a sample of the data has.

use std::sync::Arc;

use serde_json::Value;
use trilith_input::{ExternSpec, InferError, Inferred};
use trilith_proto::column::ColumnType;
use trilith_proto::error::ApiError;
use trilith_sql::Statement;

use super::Controller;

/// Columns of the external data of a statement that does not name them.
#[derive(Default)]
pub(crate) struct InferredSignatures(Vec<InferredSignature>);

struct InferredSignature {
    source: Value,
    format: Value,
    columns: Vec<(String, ColumnType)>,
}

impl InferredSignatures {
    /// Columns of a source in a format; none if nobody asked for them.
    pub(crate) fn find(&self, source: &Value, format: &Value) -> Option<Vec<(String, ColumnType)>> {
        let mut known = self.0.iter();
        let found = known.find(|known| known.source == *source && known.format == *format);
        found.map(|known| known.columns.clone())
    }
}

impl Controller {
    /// Reads the beginning of external data and says which columns it has.
    pub async fn infer_signature(&self, source: Value, format: Value) -> Result<Inferred, ApiError> {
        let policy = Arc::clone(&self.worker_config.policy);
        let compute = self.worker_config.compute.clone();
        let found = self.worker_config.compute.spawn_blocking(move || {
            refuse_headers(&source, &format, &policy.allow_http_headers)?;
            trilith_input::infer(&source, &format, &policy, &compute).map_err(|error| match error {
                InferError::Spec(error) => ApiError::invalid_input(error.to_string()),
                InferError::Data(fault) => ApiError::from(&fault),
            })
        });
        found
            .await
            .map_err(|error| ApiError::from(&trilith_proto::fault::Fault::unknown(error.to_string())))?
    }

    /// Columns of every EXTERN of a statement that does not name them.
    pub(crate) async fn inferred_signatures(
        &self,
        statement: &Statement,
    ) -> Result<InferredSignatures, ApiError> {
        let mut signatures = InferredSignatures::default();
        for call in trilith_sql::externs_without_signature(statement)? {
            let found = self
                .infer_signature(call.input_source.clone(), call.input_format.clone())
                .await
                .map_err(|error| error.at(call.position))?;
            signatures.0.push(InferredSignature {
                source: call.input_source,
                format: call.input_format,
                columns: found.columns,
            });
        }
        Ok(signatures)
    }
}

/// Fails if an http source has a header that the server does not send.
pub(crate) fn refused_header(spec: &ExternSpec, allowed: &[String]) -> Result<(), ApiError> {
    match spec.refused_header(allowed) {
        None => Ok(()),
        Some(header) => Err(ApiError::invalid_input(format!(
            "Got forbidden header [{header}] in requestHeaders; start the server with --allow-http-header {header}"
        ))),
    }
}

fn refuse_headers(source: &Value, format: &Value, allowed: &[String]) -> Result<(), ApiError> {
    let any = [("line".to_owned(), ColumnType::String)];
    let spec = ExternSpec::parse(source, format, &any)
        .map_err(|error| ApiError::invalid_input(error.to_string()))?;
    refused_header(&spec, allowed)
}
