//! Errors as Druid's HTTP API has them.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use trilith_client::ClientError;
use trilith_proto::error::{ApiError, Category};

/// An error on its way out.
#[derive(Debug)]
pub(crate) struct HttpError(pub ApiError);

impl From<ApiError> for HttpError {
    fn from(error: ApiError) -> HttpError {
        HttpError(error)
    }
}

impl From<ClientError> for HttpError {
    fn from(error: ClientError) -> HttpError {
        HttpError(error.to_api())
    }
}

/// Status of an error.
pub(crate) fn status(error: &ApiError) -> StatusCode {
    StatusCode::from_u16(error.category.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        (status(&self.0), Json(self.0.to_json())).into_response()
    }
}

impl HttpError {
    pub(crate) fn is_not_found(&self) -> bool {
        self.0.category == Category::NotFound
    }
}

/// The older shape, for requests that cannot be read.
pub(crate) fn unreadable(message: &str) -> Response {
    let body: Value = json!({
        "error": "Unknown exception",
        "errorMessage": message,
        "errorClass": "com.fasterxml.jackson.databind.exc.ValueInstantiationException",
        "host": null,
    });
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}
