//! Flight SQL: statements, prepared statements and metadata for ADBC and JDBC.

mod info;
mod metadata;
mod parameters;
mod prepared;
mod statements;

use std::pin::Pin;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::ipc::writer::IpcWriteOptions;
use arrow::record_batch::RecordBatch;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionBeginTransactionRequest,
    ActionBeginTransactionResult, ActionCancelQueryRequest, ActionCancelQueryResult,
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult, ActionEndTransactionRequest, Any, Command, CommandGetCatalogs,
    CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementQuery,
    CommandStatementUpdate, DoPutPreparedStatementResult, ProstMessageExt, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightDescriptor,
    FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, IpcMessage, SchemaAsIpc, SchemaResult,
    Ticket,
};
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use prost::Message;
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};
use trilith_engine::controller::{Controller, ResultTicket};
use trilith_proto::error::ApiError;
use trilith_sql::StatementKind;

use prepared::PreparedStatements;
use statements::{Answer, Statements, context, statement};

/// What every caller gets for its password: the server knows no users.
const ANONYMOUS_TOKEN: &str = "anonymous";
const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";

type DoGetStream = <FlightSql as FlightService>::DoGetStream;

/// The Flight SQL service of a server.
pub(super) struct FlightSql {
    statements: Statements,
    prepared: PreparedStatements,
}

fn arrow_error(error: arrow::error::ArrowError) -> Status {
    ApiError::internal(error.to_string()).into()
}

fn malformed(what: &str, error: &dyn std::fmt::Display) -> Status {
    ApiError::invalid_input(format!("{what} cannot be read: {error}")).into()
}

/// A schema as it stands inside of other messages; nothing for none.
fn schema_bytes(schema: Option<&Schema>) -> Result<Bytes, Status> {
    let Some(schema) = schema else {
        return Ok(Bytes::new());
    };
    let options = IpcWriteOptions::default();
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &options)
        .try_into()
        .map_err(arrow_error)?;
    Ok(bytes)
}

/// One batch as the answer of `DoGet`.
fn one_batch(batch: Result<RecordBatch, ApiError>) -> Result<Response<DoGetStream>, Status> {
    let batch = batch?;
    let messages = FlightDataEncoderBuilder::new()
        .with_schema(batch.schema())
        .build(stream::iter([Ok(batch)]))
        .map_err(Status::from);
    Ok(Response::new(messages.boxed()))
}

/// Answers a metadata command: the command itself is the ticket.
fn metadata_info(
    schema: &Schema,
    command: &impl ProstMessageExt,
    request: Request<FlightDescriptor>,
) -> Result<Response<FlightInfo>, Status> {
    let ticket = Ticket::new(command.as_any().encode_to_vec());
    let info = FlightInfo::new()
        .try_with_schema(schema)
        .map_err(arrow_error)?
        .with_descriptor(request.into_inner())
        .with_endpoint(FlightEndpoint::new().with_ticket(ticket))
        .with_total_records(-1)
        .with_total_bytes(-1);
    Ok(Response::new(info))
}

/// There are no transactions: each statement publishes what it wrote, or nothing.
fn no_transaction(id: Option<&Bytes>) -> Result<(), ApiError> {
    match id {
        Some(id) if !id.is_empty() => Err(transactions()),
        _ => Ok(()),
    }
}

fn transactions() -> ApiError {
    ApiError::unsupported(
        "transactions are not supported: every statement publishes its rows by itself; use autocommit",
    )
}

impl FlightSql {
    /// Tasks that outlive their client are stopped by tasks of `tracker`.
    pub(super) fn new(controller: Arc<Controller>, tracker: TaskTracker) -> FlightSql {
        FlightSql {
            statements: Statements { controller, tracker },
            prepared: PreparedStatements::default(),
        }
    }

    fn controller(&self) -> &Arc<Controller> {
        &self.statements.controller
    }

    /// True for tickets that this service gave out and `do_get` of it reads.
    pub(super) fn knows(ticket: &[u8]) -> bool {
        matches!(
            Any::decode(ticket).map(Command::try_from),
            Ok(Ok(command)) if !matches!(command, Command::Unknown(_))
        )
    }

    /// Schema of what a command yields, without running it.
    pub(super) async fn schema(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        let context = context(request.metadata())?;
        let command =
            Any::decode(&*request.get_ref().cmd).map_err(|error| malformed("the command", &error))?;
        let describe = async |sql: &str| -> Result<SchemaRef, Status> {
            let described = self
                .controller()
                .describe(statement(sql, context.clone(), Vec::new()))
                .await?;
            Ok(described.schema.unwrap_or_else(|| Arc::new(Schema::empty())))
        };
        let schema = match Command::try_from(command).map_err(arrow_error)? {
            Command::CommandStatementQuery(query) => describe(&query.query).await?,
            Command::CommandPreparedStatementQuery(query) => {
                describe(&self.prepared.get(&query.prepared_statement_handle)?.sql).await?
            }
            Command::CommandGetCatalogs(command) => command.into_builder().schema(),
            Command::CommandGetDbSchemas(command) => command.into_builder().schema(),
            Command::CommandGetTables(command) => command.into_builder().schema(),
            Command::CommandGetTableTypes(command) => command.into_builder().schema(),
            Command::CommandGetSqlInfo(_) => info::sql_info()?.schema(),
            Command::CommandGetXdbcTypeInfo(_) => info::type_info()?.schema(),
            Command::CommandGetPrimaryKeys(_) => metadata::primary_keys(),
            Command::CommandGetExportedKeys(_)
            | Command::CommandGetImportedKeys(_)
            | Command::CommandGetCrossReference(_) => metadata::foreign_keys(),
            other => return Err(ApiError::unsupported(format!("{} has no schema", other.type_url())).into()),
        };
        let options = IpcWriteOptions::default();
        let result = SchemaAsIpc::new(&schema, &options)
            .try_into()
            .map_err(arrow_error)?;
        Ok(Response::new(result))
    }

    /// Actions that `do_action` knows.
    pub(super) fn actions() -> Vec<ActionType> {
        [
            (
                "CreatePreparedStatement",
                "Prepares a statement: ActionCreatePreparedStatementRequest",
            ),
            (
                "ClosePreparedStatement",
                "Closes a prepared statement: ActionClosePreparedStatementRequest",
            ),
            (CANCEL_FLIGHT_INFO, "Stops a query: CancelFlightInfoRequest"),
            (
                "CancelQuery",
                "Stops a query, as older clients do: ActionCancelQueryRequest",
            ),
        ]
        .map(|(name, description)| ActionType {
            r#type: name.to_owned(),
            description: description.to_owned(),
        })
        .to_vec()
    }

    /// Stops the queries whose tickets are in there.
    fn stop(&self, info: &FlightInfo) -> CancelStatus {
        let tickets = info
            .endpoint
            .iter()
            .filter_map(|endpoint| endpoint.ticket.as_ref());
        let mut stopped = false;
        for ticket in tickets {
            if let Some(ResultTicket::Query(id)) = ResultTicket::decode(&ticket.ticket) {
                stopped |= self.controller().cancel_query(&id);
            }
        }
        match stopped {
            true => CancelStatus::Cancelled,
            false => CancelStatus::NotCancellable,
        }
    }
}

#[tonic::async_trait]
impl FlightSqlService for FlightSql {
    type FlightService = FlightSql;

    async fn do_handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>>, Status> {
        let answer = HandshakeResponse {
            protocol_version: 0,
            payload: Bytes::from_static(ANONYMOUS_TOKEN.as_bytes()),
        };
        let mut response =
            Response::new(stream::iter([Ok(answer)]).boxed() as Pin<Box<dyn Stream<Item = _> + Send>>);
        let bearer = format!("Bearer {ANONYMOUS_TOKEN}");
        let bearer = MetadataValue::try_from(bearer).map_err(|error| Status::internal(error.to_string()))?;
        response.metadata_mut().insert("authorization", bearer);
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        no_transaction(query.transaction_id.as_ref())?;
        let statement = statement(&query.query, context(request.metadata())?, Vec::new());
        let info = self.statements.execute(statement, request.into_inner()).await?;
        Ok(Response::new(info))
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let mut prepared = self.prepared.get(&query.prepared_statement_handle)?;
        if prepared.rows.len() > 1 {
            let message = "a query takes one row of parameters; execute it once for each row";
            return Err(ApiError::invalid_input(message).into());
        }
        let values = prepared.rows.pop().unwrap_or_default();
        let statement = statement(&prepared.sql, context(request.metadata())?, values);
        let info = self.statements.execute(statement, request.into_inner()).await?;
        Ok(Response::new(info))
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(&query.into_builder().schema(), &query, request)
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(&query.clone().into_builder().schema(), &query, request)
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(&query.clone().into_builder().schema(), &query, request)
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(&query.into_builder().schema(), &query, request)
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(&info::sql_info()?.schema(), &query, request)
    }

    async fn get_flight_info_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(&metadata::primary_keys(), &query, request)
    }

    async fn get_flight_info_exported_keys(
        &self,
        query: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(&metadata::foreign_keys(), &query, request)
    }

    async fn get_flight_info_imported_keys(
        &self,
        query: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(&metadata::foreign_keys(), &query, request)
    }

    async fn get_flight_info_cross_reference(
        &self,
        query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(&metadata::foreign_keys(), &query, request)
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(&info::type_info()?.schema(), &query, request)
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        _: Request<Ticket>,
    ) -> Result<Response<DoGetStream>, Status> {
        one_batch(Answer::decode(&ticket.statement_handle).and_then(|answer| answer.batch()))
    }

    async fn do_get_catalogs(
        &self,
        query: CommandGetCatalogs,
        _: Request<Ticket>,
    ) -> Result<Response<DoGetStream>, Status> {
        one_batch(metadata::catalogs(query))
    }

    async fn do_get_schemas(
        &self,
        query: CommandGetDbSchemas,
        _: Request<Ticket>,
    ) -> Result<Response<DoGetStream>, Status> {
        one_batch(metadata::schemas(self.controller(), query).await)
    }

    async fn do_get_tables(
        &self,
        query: CommandGetTables,
        _: Request<Ticket>,
    ) -> Result<Response<DoGetStream>, Status> {
        one_batch(metadata::tables(self.controller(), query).await)
    }

    async fn do_get_table_types(
        &self,
        query: CommandGetTableTypes,
        _: Request<Ticket>,
    ) -> Result<Response<DoGetStream>, Status> {
        one_batch(metadata::table_types(query))
    }

    async fn do_get_sql_info(
        &self,
        query: CommandGetSqlInfo,
        _: Request<Ticket>,
    ) -> Result<Response<DoGetStream>, Status> {
        let batch = query.into_builder(info::sql_info()?).build();
        one_batch(batch.map_err(|error| ApiError::internal(error.to_string())))
    }

    async fn do_get_primary_keys(
        &self,
        _: CommandGetPrimaryKeys,
        _: Request<Ticket>,
    ) -> Result<Response<DoGetStream>, Status> {
        one_batch(Ok(RecordBatch::new_empty(metadata::primary_keys())))
    }

    async fn do_get_exported_keys(
        &self,
        _: CommandGetExportedKeys,
        _: Request<Ticket>,
    ) -> Result<Response<DoGetStream>, Status> {
        one_batch(Ok(RecordBatch::new_empty(metadata::foreign_keys())))
    }

    async fn do_get_imported_keys(
        &self,
        _: CommandGetImportedKeys,
        _: Request<Ticket>,
    ) -> Result<Response<DoGetStream>, Status> {
        one_batch(Ok(RecordBatch::new_empty(metadata::foreign_keys())))
    }

    async fn do_get_cross_reference(
        &self,
        _: CommandGetCrossReference,
        _: Request<Ticket>,
    ) -> Result<Response<DoGetStream>, Status> {
        one_batch(Ok(RecordBatch::new_empty(metadata::foreign_keys())))
    }

    async fn do_get_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        _: Request<Ticket>,
    ) -> Result<Response<DoGetStream>, Status> {
        let batch = query.into_builder(info::type_info()?).build();
        one_batch(batch.map_err(|error| ApiError::internal(error.to_string())))
    }

    async fn do_put_statement_update(
        &self,
        command: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        no_transaction(command.transaction_id.as_ref())?;
        let statement = statement(&command.query, context(request.metadata())?, Vec::new());
        Ok(self.statements.update(statement).await?)
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let rows = parameters::read(request.into_inner()).await?;
        self.prepared.bind(&query.prepared_statement_handle, rows)?;
        Ok(DoPutPreparedStatementResult {
            prepared_statement_handle: Some(query.prepared_statement_handle),
        })
    }

    /// One task for each row of values, one after the other; the first that fails ends it.
    async fn do_put_prepared_statement_update(
        &self,
        query: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let prepared = self.prepared.get(&query.prepared_statement_handle)?;
        let context = context(request.metadata())?;
        let mut rows = parameters::read(request.into_inner()).await?;
        if rows.is_empty() {
            rows = prepared.rows;
        }
        if rows.is_empty() {
            rows.push(Vec::new());
        }
        let mut written = 0;
        for values in rows {
            let statement = statement(&prepared.sql, context.clone(), values);
            written += self.statements.update(statement).await?;
        }
        Ok(written)
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        no_transaction(query.transaction_id.as_ref())?;
        let context = context(request.metadata())?;
        let described = self
            .controller()
            .describe(statement(&query.query, context, Vec::new()))
            .await?;
        let fields = described.parameters.iter().enumerate();
        let fields = fields
            .map(|(index, found)| Field::new((index + 1).to_string(), parameters::wire_type(found), true));
        let wanted = Schema::new(fields.collect::<Vec<_>>());
        let returns_rows = described.kind == StatementKind::Select || described.explain;
        let columns = described.schema.filter(|_| returns_rows);
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: self.prepared.add(query.query)?,
            dataset_schema: schema_bytes(columns.as_deref())?,
            parameter_schema: schema_bytes(Some(&wanted).filter(|schema| !schema.fields().is_empty()))?,
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        query: ActionClosePreparedStatementRequest,
        _: Request<Action>,
    ) -> Result<(), Status> {
        self.prepared.close(&query.prepared_statement_handle);
        Ok(())
    }

    async fn do_action_begin_transaction(
        &self,
        _: ActionBeginTransactionRequest,
        _: Request<Action>,
    ) -> Result<ActionBeginTransactionResult, Status> {
        Err(transactions().into())
    }

    async fn do_action_end_transaction(
        &self,
        _: ActionEndTransactionRequest,
        _: Request<Action>,
    ) -> Result<(), Status> {
        Err(transactions().into())
    }

    async fn do_action_begin_savepoint(
        &self,
        _: ActionBeginSavepointRequest,
        _: Request<Action>,
    ) -> Result<ActionBeginSavepointResult, Status> {
        Err(transactions().into())
    }

    async fn do_action_cancel_query(
        &self,
        query: ActionCancelQueryRequest,
        _: Request<Action>,
    ) -> Result<ActionCancelQueryResult, Status> {
        let info = FlightInfo::decode(query.info).map_err(|error| malformed("the FlightInfo", &error))?;
        // The numbers of both enumerations are the same.
        let result = self.stop(&info) as i32;
        Ok(ActionCancelQueryResult { result })
    }

    async fn do_action_fallback(
        &self,
        request: Request<Action>,
    ) -> Result<Response<<Self as FlightService>::DoActionStream>, Status> {
        let action = request.into_inner();
        if action.r#type != CANCEL_FLIGHT_INFO {
            let message = format!("the action [{}] is not offered", action.r#type);
            return Err(ApiError::unsupported(message).into());
        }
        let request = CancelFlightInfoRequest::decode(action.body)
            .map_err(|error| malformed("the CancelFlightInfoRequest", &error))?;
        let status = self.stop(&request.info.unwrap_or_default());
        let body = CancelFlightInfoResult::new(status).encode_to_vec();
        let answer = arrow_flight::Result::new(body);
        Ok(Response::new(stream::iter([Ok(answer)]).boxed()))
    }

    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}
