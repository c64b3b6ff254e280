//! Errors as Druid's HTTP API has them.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use trilith_client::ClientError;
use trilith_proto::error::{ApiError, Category, Persona};

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

/// An error of a SQL endpoint: older clients want to find two more keys there.
#[derive(Debug)]
pub(crate) struct SqlError(pub ApiError);

impl From<ApiError> for SqlError {
    fn from(error: ApiError) -> SqlError {
        SqlError(error)
    }
}

impl From<ClientError> for SqlError {
    fn from(error: ClientError) -> SqlError {
        SqlError(error.to_api())
    }
}

impl SqlError {
    pub(crate) fn to_json(&self) -> Value {
        let mut body = self.0.to_json();
        let context = &self.0.context;
        // What older versions called the error.
        if let Some(code) = context.get("legacyErrorCode") {
            body["error"] = code.clone();
        }
        body["errorClass"] = match context.get("errorClass") {
            Some(class) => class.clone(),
            None => json!(ERROR_CLASS),
        };
        body["host"] = Value::Null;
        body
    }

    pub(crate) fn status(&self) -> StatusCode {
        status(&self.0)
    }

    /// The error of a statement that runs at once: when it was stopped, Druid has an older shape than for tasks.
    pub(crate) fn of_query(error: ClientError) -> SqlError {
        let error = error.to_api();
        if error.error_code != "Canceled" {
            return SqlError(error);
        }
        let timed_out = error
            .context
            .get("reason")
            .is_some_and(|reason| reason == "QUERY_TIMEOUT");
        let (category, class, legacy, message) = if timed_out {
            (
                Category::Timeout,
                "org.apache.druid.query.QueryTimeoutException",
                "Query timeout",
                "Query did not complete within its timeout. Raise [timeout] in the query context, or ask for less."
                    .to_owned(),
            )
        } else {
            (
                Category::Canceled,
                "java.util.concurrent.CancellationException",
                "Query cancelled",
                error.message,
            )
        };
        let error = ApiError::new(category, Persona::Operator, "legacyQueryException", message);
        SqlError(error.with("errorClass", class).with("legacyErrorCode", legacy))
    }
}

impl IntoResponse for SqlError {
    fn into_response(self) -> Response {
        (self.status(), Json(self.to_json())).into_response()
    }
}

/// The class that Druid names for errors of this shape.
pub(crate) const ERROR_CLASS: &str = "org.apache.druid.error.DruidException";

/// The oldest shape, for requests that cannot be read.
pub(crate) fn unreadable(message: &str) -> Response {
    let body: Value = json!({
        "error": "Unknown exception",
        "errorMessage": message,
        "errorClass": "com.fasterxml.jackson.databind.exc.ValueInstantiationException",
        "host": null,
    });
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}

/// The small shape of headers and of older resources.
pub(crate) fn plain(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"error": message}))).into_response()
}
