//! Catalogs, schemas, tables and columns, as INFORMATION_SCHEMA has them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow_flight::sql::{CommandGetCatalogs, CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables};
use futures::stream::TryStreamExt;
use serde_json::{Map, Value};
use trilith_engine::controller::{Controller, ResultTicket};
use trilith_proto::column;
use trilith_proto::error::{ApiError, Category};
use trilith_sql::SqlParameter;

use super::statements::statement;

const CATALOG: &str = "druid";
const TABLE_TYPES: [&str; 2] = ["SYSTEM_TABLE", "TABLE"];
const SCHEMAS_SQL: &str =
    "SELECT SCHEMA_NAME FROM INFORMATION_SCHEMA.SCHEMATA WHERE SCHEMA_NAME LIKE ? ESCAPE '\\' ORDER BY 1";
const TABLES_SQL: &str = "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE FROM INFORMATION_SCHEMA.TABLES \
     WHERE TABLE_SCHEMA LIKE ? ESCAPE '\\' AND TABLE_NAME LIKE ? ESCAPE '\\' ORDER BY 1, 2";

fn internal(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::internal(error.to_string())
}

/// A filter by name; none takes all, the empty one those without.
fn is_catalog(filter: Option<&str>) -> bool {
    filter.is_none_or(|catalog| catalog == CATALOG)
}

fn pattern(filter: Option<&str>) -> SqlParameter {
    SqlParameter {
        sql_type: "VARCHAR".to_owned(),
        value: Value::String(filter.unwrap_or("%").to_owned()),
    }
}

/// Rows of texts of a statement over INFORMATION_SCHEMA.
async fn texts(
    controller: &Arc<Controller>,
    sql: &str,
    parameters: Vec<SqlParameter>,
) -> Result<Vec<Vec<String>>, ApiError> {
    let query = controller
        .run_query(statement(sql, Map::new(), parameters))
        .await?;
    let ResultTicket::Query(id) = &query.ticket else {
        return Err(ApiError::internal("a query has a ticket of its own"));
    };
    let batches: Vec<RecordBatch> = controller
        .query_results(id)?
        .try_collect()
        .await
        .map_err(|error| internal(&error))?;
    let mut rows = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let cells = batch
                .columns()
                .iter()
                .map(|column| match column.as_string_opt::<i32>() {
                    Some(texts) if texts.is_valid(row) => texts.value(row).to_owned(),
                    _ => String::new(),
                });
            rows.push(cells.collect());
        }
    }
    Ok(rows)
}

pub(super) fn catalogs(command: CommandGetCatalogs) -> Result<RecordBatch, ApiError> {
    let mut builder = command.into_builder();
    builder.append(CATALOG);
    builder.build().map_err(|error| internal(&error))
}

pub(super) fn table_types(command: CommandGetTableTypes) -> Result<RecordBatch, ApiError> {
    let mut builder = command.into_builder();
    for name in TABLE_TYPES {
        builder.append(name);
    }
    builder.build().map_err(|error| internal(&error))
}

pub(super) async fn schemas(
    controller: &Arc<Controller>,
    command: CommandGetDbSchemas,
) -> Result<RecordBatch, ApiError> {
    let filter = pattern(command.db_schema_filter_pattern.as_deref());
    let wanted = is_catalog(command.catalog.as_deref());
    let mut builder = CommandGetDbSchemas::default().into_builder();
    if wanted {
        for row in texts(controller, SCHEMAS_SQL, vec![filter]).await? {
            builder.append(CATALOG, &row[0]);
        }
    }
    builder.build().map_err(|error| internal(&error))
}

pub(super) async fn tables(
    controller: &Arc<Controller>,
    command: CommandGetTables,
) -> Result<RecordBatch, ApiError> {
    let filters = vec![
        pattern(command.db_schema_filter_pattern.as_deref()),
        pattern(command.table_name_filter_pattern.as_deref()),
    ];
    let mut builder = CommandGetTables {
        include_schema: command.include_schema,
        ..CommandGetTables::default()
    }
    .into_builder();
    let rows = match is_catalog(command.catalog.as_deref()) {
        true => texts(controller, TABLES_SQL, filters).await?,
        false => Vec::new(),
    };
    for row in rows {
        let [schema, name, kind] = row.as_slice() else {
            continue;
        };
        if !command.table_types.is_empty() && !command.table_types.contains(kind) {
            continue;
        }
        let columns = match command.include_schema {
            true => columns(controller, schema, name).await?,
            false => Some(Arc::new(Schema::empty())),
        };
        if let Some(columns) = columns {
            builder
                .append(CATALOG, schema, name, kind, &columns)
                .map_err(|error| internal(&error))?;
        }
    }
    builder.build().map_err(|error| internal(&error))
}

/// Columns of a table; none when it went away meanwhile.
async fn columns(
    controller: &Arc<Controller>,
    schema: &str,
    name: &str,
) -> Result<Option<SchemaRef>, ApiError> {
    let quoted = |name: &str| name.replace('"', "\"\"");
    let sql = format!("SELECT * FROM \"{}\".\"{}\"", quoted(schema), quoted(name));
    let described = match controller.describe(statement(&sql, Map::new(), Vec::new())).await {
        Ok(described) => described,
        Err(error) if error.category == Category::InvalidInput => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(columns) = described.schema else {
        return Ok(None);
    };
    let fields = columns.fields().iter().map(|field| named(field, schema, name));
    Ok(Some(Arc::new(Schema::new(fields.collect::<Vec<_>>()))))
}

/// A column with what Flight SQL tells of it.
fn named(field: &Field, schema: &str, table: &str) -> Field {
    let metadata = [
        ("ARROW:FLIGHT:SQL:CATALOG_NAME", CATALOG.to_owned()),
        ("ARROW:FLIGHT:SQL:SCHEMA_NAME", schema.to_owned()),
        ("ARROW:FLIGHT:SQL:TABLE_NAME", table.to_owned()),
        ("ARROW:FLIGHT:SQL:TYPE_NAME", column::sql_type(field)),
    ];
    let metadata: HashMap<String, String> = metadata
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    Field::new(field.name(), field.data_type().clone(), field.is_nullable()).with_metadata(metadata)
}

/// Tables have no keys: the schema that says so.
pub(super) fn primary_keys() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

/// Keys that refer to others.
pub(super) fn foreign_keys() -> SchemaRef {
    let side = |side: &str| {
        [
            ("catalog_name", true),
            ("db_schema_name", true),
            ("table_name", false),
            ("column_name", false),
        ]
        .map(|(name, nullable)| Field::new(format!("{side}_{name}"), DataType::Utf8, nullable))
    };
    let mut fields: Vec<Field> = side("pk").into_iter().chain(side("fk")).collect();
    fields.extend([
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]);
    Arc::new(Schema::new(fields))
}
