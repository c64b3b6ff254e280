//! `POST /trilith/v1/infer`: the columns of external data, from a sample.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use trilith_proto::error::ApiError;
use trilith_proto::pb::query::InferSignatureRequest;

use crate::Gateway;
use crate::error::HttpError;

/// Body: `{"inputSource": {…}, "inputFormat": {…}}`. Answer: `{"signature": [{"name", "type"}], "sampledRecords": n}`.
pub(crate) async fn signature(State(gateway): State<Gateway>, body: Bytes) -> Response {
    let wrong = |message: String| HttpError::from(ApiError::invalid_input(message)).into_response();
    let body: Value = match serde_json::from_slice(&body) {
        Ok(body) => body,
        Err(error) => return wrong(format!("the body is not JSON: {error}")),
    };
    let part = |name: &str| {
        body.get(name)
            .filter(|part| part.is_object())
            .map(Value::to_string)
    };
    let (Some(input_source_json), Some(input_format_json)) = (part("inputSource"), part("inputFormat"))
    else {
        return wrong("the body must have the objects [inputSource] and [inputFormat]".to_owned());
    };
    let request = InferSignatureRequest {
        input_source_json,
        input_format_json,
    };
    match gateway.client.infer_signature(request).await {
        Ok(found) => {
            let columns = found.columns.iter();
            let columns = columns.map(|column| json!({"name": column.name, "type": column.r#type}));
            Json(json!({
                "signature": columns.collect::<Vec<_>>(),
                "sampledRecords": found.sampled_record_count,
            }))
            .into_response()
        }
        Err(error) => HttpError::from(error).into_response(),
    }
}
