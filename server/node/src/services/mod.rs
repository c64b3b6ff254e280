//! The gRPC services of the server.

mod datasource;
mod query;
mod task;
mod worker;

pub use datasource::Datasources;
pub use query::Queries;
pub use task::Tasks;
pub use worker::{WorkerTerms, Workers};

use serde_json::{Map, Value};
use tonic::Status;
use trilith_proto::error::ApiError;
use trilith_proto::pb::task::Parameter;
use trilith_sql::{SqlParameter, Statement};

/// The statement of a request.
pub(crate) fn statement(
    sql: String,
    context_json: &str,
    parameters: Vec<Parameter>,
) -> Result<Statement, Status> {
    let context: Map<String, Value> = match context_json.trim() {
        "" => Map::new(),
        text => serde_json::from_str(text).map_err(|error| {
            ApiError::invalid_input(format!("context_json is not a JSON object: {error}"))
        })?,
    };
    let parameters = parameters
        .into_iter()
        .enumerate()
        .map(|(index, parameter)| {
            let value = serde_json::from_str(&parameter.value_json).map_err(|error| {
                ApiError::invalid_input(format!(
                    "value_json of parameter [{}] is not JSON: {error}",
                    index + 1
                ))
            })?;
            Ok(SqlParameter {
                sql_type: parameter.r#type,
                value,
            })
        })
        .collect::<Result<Vec<_>, ApiError>>()?;
    Ok(Statement {
        sql,
        context,
        parameters,
        now_ms: None,
    })
}
