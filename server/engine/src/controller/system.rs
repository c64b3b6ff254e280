//! The schemas `sys` and `INFORMATION_SCHEMA` as tables.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::error::Result;
use trilith_metadata::{TaskRecord, TaskState};
use trilith_proto::column::{self, ColumnType};
use trilith_proto::interval::iso;

use super::Controller;
use super::catalog::Snapshot;

/// Tables of `sys`.
pub(crate) const SYS: &[&str] = &[
    "segments",
    "server_properties",
    "server_segments",
    "servers",
    "supervisors",
    "tasks",
];
/// Druid's release whose tables these are.
const DRUID_VERSION: &str = "36.0.0";
/// Tables of `INFORMATION_SCHEMA`.
pub(crate) const INFORMATION: &[&str] = &["COLUMNS", "ROUTINES", "SCHEMATA", "TABLES"];

/// A table under construction, column by column.
#[derive(Default)]
struct Rows {
    fields: Vec<Field>,
    columns: Vec<ArrayRef>,
}

impl Rows {
    fn text<T: Into<String>>(mut self, name: &str, values: impl IntoIterator<Item = Option<T>>) -> Rows {
        let values: StringArray = values
            .into_iter()
            .map(|value| value.map(Into::into))
            .collect::<Vec<Option<String>>>()
            .into();
        self.fields.push(Field::new(name, DataType::Utf8, true));
        self.columns.push(Arc::new(values));
        self
    }

    fn long(mut self, name: &str, values: impl IntoIterator<Item = Option<i64>>) -> Rows {
        let values: Int64Array = values.into_iter().collect();
        self.fields.push(Field::new(name, DataType::Int64, true));
        self.columns.push(Arc::new(values));
        self
    }

    fn table(self) -> Result<Arc<dyn TableProvider>> {
        let schema = Arc::new(Schema::new(self.fields));
        let batch = RecordBatch::try_new(Arc::clone(&schema), self.columns)?;
        Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))
    }
}

/// A table of `sys`; none if there is no such table.
pub(crate) fn sys(
    snapshot: &Snapshot,
    controller: &Controller,
    name: &str,
) -> Option<Result<Arc<dyn TableProvider>>> {
    Some(match name {
        "segments" => segments(snapshot),
        "server_segments" => server_segments(snapshot, controller),
        "server_properties" => server_properties(controller),
        "servers" => servers(snapshot, controller),
        "tasks" => tasks(controller),
        "supervisors" => Rows::default()
            .text::<String>("supervisor_id", [])
            .text::<String>("datasource", [])
            .text::<String>("state", [])
            .text::<String>("detailed_state", [])
            .long("healthy", [])
            .text::<String>("type", [])
            .text::<String>("source", [])
            .long("suspended", [])
            .text::<String>("spec", [])
            .table(),
        _ => return None,
    })
}

fn segments(snapshot: &Snapshot) -> Result<Arc<dyn TableProvider>> {
    let all = snapshot.all_segments();
    let flag = |value: bool| Some(i64::from(value));
    let json_list = |values: &[String]| serde_json::to_string(values).ok();
    Rows::default()
        .text(
            "segment_id",
            all.iter().map(|(record, _)| Some(record.segment_id())),
        )
        .text(
            "datasource",
            all.iter().map(|(record, _)| Some(record.datasource.clone())),
        )
        .text(
            "start",
            all.iter()
                .map(|(record, _)| Some(interval_end(&record.interval.to_string(), true))),
        )
        .text(
            "end",
            all.iter()
                .map(|(record, _)| Some(interval_end(&record.interval.to_string(), false))),
        )
        .long(
            "size",
            all.iter().map(|(record, _)| Some(record.size_bytes as i64)),
        )
        .text(
            "version",
            all.iter().map(|(record, _)| Some(record.version.clone())),
        )
        .long(
            "partition_num",
            all.iter()
                .map(|(record, _)| Some(i64::from(record.partition_number()))),
        )
        .long("num_replicas", all.iter().map(|_| Some(1)))
        .long(
            "num_rows",
            all.iter().map(|(record, _)| Some(record.row_count as i64)),
        )
        .long("is_active", all.iter().map(|(_, visible)| flag(*visible)))
        .long("is_published", all.iter().map(|_| Some(1)))
        .long("is_available", all.iter().map(|(_, visible)| flag(*visible)))
        .long("is_realtime", all.iter().map(|_| Some(0)))
        .long("is_overshadowed", all.iter().map(|(_, visible)| flag(!*visible)))
        .text(
            "shard_spec",
            all.iter()
                .map(|(record, _)| serde_json::to_string(&record.shard_spec).ok()),
        )
        .text(
            "dimensions",
            all.iter().map(|(record, _)| json_list(&record.dimensions)),
        )
        .text(
            "metrics",
            all.iter().map(|(record, _)| json_list(&record.metrics)),
        )
        .text::<String>("projections", all.iter().map(|_| None))
        .text(
            "last_compaction_state",
            all.iter()
                .map(|(record, _)| record.layout.compaction_state.clone()),
        )
        .long("replication_factor", all.iter().map(|_| Some(1)))
        .table()
}

/// "start/end" split at the slash; the years of eternity contain none.
fn interval_end(text: &str, start: bool) -> String {
    match text.split_once('/') {
        Some((from, to)) => if start { from } else { to }.to_owned(),
        None => text.to_owned(),
    }
}

fn server_segments(snapshot: &Snapshot, controller: &Controller) -> Result<Arc<dyn TableProvider>> {
    let all = snapshot.all_segments();
    let active: Vec<_> = all.iter().filter(|(_, visible)| *visible).collect();
    Rows::default()
        .text("server", active.iter().map(|_| Some(controller.location())))
        .text(
            "segment_id",
            active.iter().map(|(record, _)| Some(record.segment_id())),
        )
        .table()
}

/// One process plays every role.
const ROLES: [&str; 6] = [
    "coordinator",
    "historical",
    "broker",
    "overlord",
    "router",
    "indexer",
];

/// Settings of the server that others can see.
fn server_properties(controller: &Controller) -> Result<Arc<dyn TableProvider>> {
    let (host, port) = controller.host_and_port();
    let properties = [
        ("druid.host", host),
        ("druid.plaintextPort", port.to_string()),
        ("druid.worker.capacity", controller.capacity().slots.to_string()),
        (
            "trilith.taskStartTimeoutMs",
            controller.task_start_timeout.as_millis().to_string(),
        ),
        (
            "trilith.workerLeaseMs",
            controller.worker_lease().as_millis().to_string(),
        ),
    ];
    let roles = format!("[{}]", ROLES.join(","));
    Rows::default()
        .text("server", properties.iter().map(|_| Some(controller.location())))
        .text("service_name", properties.iter().map(|_| Some("trilith")))
        .text("node_roles", properties.iter().map(|_| Some(roles.clone())))
        .text("property", properties.iter().map(|(name, _)| Some(*name)))
        .text("value", properties.iter().map(|(_, value)| Some(value.clone())))
        .text::<String>("error_message", properties.iter().map(|_| None))
        .table()
}

fn servers(snapshot: &Snapshot, controller: &Controller) -> Result<Arc<dyn TableProvider>> {
    let roles = ROLES;
    let machine = controller.worker_config().memory;
    let size: u64 = snapshot
        .all_segments()
        .iter()
        .filter(|(_, visible)| *visible)
        .map(|(record, _)| record.size_bytes)
        .sum();
    // Clients divide by it.
    let disk = fs2::total_space(&controller.worker_config().segment_directory);
    let capacity = i64::try_from(disk.unwrap_or(size).max(1)).unwrap_or(i64::MAX);
    let data = |role: &str| matches!(role, "historical" | "indexer");
    let leads = |role: &str| matches!(role, "coordinator" | "overlord");
    let (host, port) = controller.host_and_port();
    Rows::default()
        .text("server", roles.iter().map(|_| Some(controller.location())))
        .text("host", roles.iter().map(|_| Some(host.clone())))
        .long("plaintext_port", roles.iter().map(|_| Some(i64::from(port))))
        .long("tls_port", roles.iter().map(|_| Some(-1)))
        .text("server_type", roles.iter().map(|role| Some(*role)))
        .text(
            "tier",
            roles.iter().map(|role| data(role).then_some("_default_tier")),
        )
        .long(
            "curr_size",
            roles
                .iter()
                .map(|role| Some(if *role == "historical" { size as i64 } else { 0 })),
        )
        .long(
            "max_size",
            roles
                .iter()
                .map(|role| Some(if *role == "historical" { capacity } else { 0 })),
        )
        .long(
            "storage_size",
            roles
                .iter()
                .map(|role| Some(if *role == "historical" { size as i64 } else { 0 })),
        )
        .long("is_leader", roles.iter().map(|role| leads(role).then_some(1)))
        .text(
            "start_time",
            roles.iter().map(|_| Some(iso(controller.started_ms))),
        )
        .text("version", roles.iter().map(|_| Some(DRUID_VERSION)))
        .text(
            "build_revision",
            roles.iter().map(|_| Some(env!("CARGO_PKG_VERSION"))),
        )
        .text::<String>("labels", roles.iter().map(|_| None))
        .long(
            "available_processors",
            roles.iter().map(|_| Some(i64::from(machine.threads))),
        )
        .long(
            "total_memory",
            roles.iter().map(|_| Some(machine.machine_bytes as i64)),
        )
        .table()
}

fn tasks(controller: &Controller) -> Result<Arc<dyn TableProvider>> {
    let tasks: Vec<TaskRecord> = controller
        .task_records()
        .map_err(|error| datafusion::error::DataFusionError::External(Box::new(error)))?;
    let (host, port) = controller.host_and_port();
    let status = |task: &TaskRecord| match task.state {
        TaskState::Running => "RUNNING",
        TaskState::Success => "SUCCESS",
        TaskState::Failed => "FAILED",
    };
    Rows::default()
        .text("task_id", tasks.iter().map(|task| Some(task.id.clone())))
        .text("group_id", tasks.iter().map(|task| Some(task.id.clone())))
        .text("type", tasks.iter().map(|_| Some("query_controller")))
        .text(
            "datasource",
            tasks.iter().map(|task| Some(task.datasource.clone())),
        )
        .text(
            "created_time",
            tasks.iter().map(|task| Some(iso(task.created_ms))),
        )
        .text("queue_insertion_time", tasks.iter().map(|_| Some(iso(0))))
        .text("status", tasks.iter().map(|task| Some(status(task))))
        .text(
            "runner_status",
            tasks.iter().map(|task| Some(controller.runner_status(task))),
        )
        .long("duration", tasks.iter().map(|task| Some(task.duration_ms)))
        .text("location", tasks.iter().map(|_| Some(controller.location())))
        .text("host", tasks.iter().map(|_| Some(host.clone())))
        .long("plaintext_port", tasks.iter().map(|_| Some(i64::from(port))))
        .long("tls_port", tasks.iter().map(|_| Some(-1)))
        .text("error_msg", tasks.iter().map(|task| task.error_message.clone()))
        .table()
}

/// A table of `INFORMATION_SCHEMA`; none if there is no such table.
pub(crate) fn information(snapshot: &Snapshot, name: &str) -> Option<Result<Arc<dyn TableProvider>>> {
    Some(match name {
        "SCHEMATA" => schemata(),
        "TABLES" => tables(snapshot),
        "COLUMNS" => columns(snapshot),
        "ROUTINES" => routines(),
        _ => return None,
    })
}

fn routines() -> Result<Arc<dyn TableProvider>> {
    let routines = trilith_functions::routines();
    let yes_no = |yes: bool| if yes { "YES" } else { "NO" };
    Rows::default()
        .text("ROUTINE_CATALOG", routines.iter().map(|_| Some("druid")))
        .text(
            "ROUTINE_SCHEMA",
            routines.iter().map(|_| Some("INFORMATION_SCHEMA")),
        )
        .text(
            "ROUTINE_NAME",
            routines.iter().map(|routine| Some(routine.name.clone())),
        )
        .text("ROUTINE_TYPE", routines.iter().map(|_| Some("FUNCTION")))
        .text(
            "IS_AGGREGATOR",
            routines.iter().map(|routine| Some(yes_no(routine.aggregate))),
        )
        .text(
            "SIGNATURES",
            routines.iter().map(|routine| Some(routine.signatures.clone())),
        )
        .table()
}

fn schemata() -> Result<Arc<dyn TableProvider>> {
    let names = ["druid", "INFORMATION_SCHEMA", "lookup", "sys", "view"];
    let mut rows = Rows::default()
        .text("CATALOG_NAME", names.iter().map(|_| Some("druid")))
        .text("SCHEMA_NAME", names.iter().map(|name| Some(*name)));
    for name in [
        "SCHEMA_OWNER",
        "DEFAULT_CHARACTER_SET_CATALOG",
        "DEFAULT_CHARACTER_SET_SCHEMA",
        "DEFAULT_CHARACTER_SET_NAME",
        "SQL_PATH",
    ] {
        rows = rows.text::<String>(name, names.iter().map(|_| None));
    }
    rows.table()
}

fn tables(snapshot: &Snapshot) -> Result<Arc<dyn TableProvider>> {
    let mut names: Vec<(&str, String)> = Vec::new();
    names.extend(snapshot.datasources().into_iter().map(|name| ("druid", name)));
    names.extend(
        INFORMATION
            .iter()
            .map(|name| ("INFORMATION_SCHEMA", (*name).to_owned())),
    );
    names.extend(SYS.iter().map(|name| ("sys", (*name).to_owned())));
    let kind = |schema: &str| {
        if schema == "druid" {
            "TABLE"
        } else {
            "SYSTEM_TABLE"
        }
    };
    Rows::default()
        .text("TABLE_CATALOG", names.iter().map(|_| Some("druid")))
        .text("TABLE_SCHEMA", names.iter().map(|(schema, _)| Some(*schema)))
        .text("TABLE_NAME", names.iter().map(|(_, name)| Some(name.clone())))
        .text("TABLE_TYPE", names.iter().map(|(schema, _)| Some(kind(schema))))
        .text("IS_JOINABLE", names.iter().map(|_| Some("NO")))
        .text("IS_BROADCAST", names.iter().map(|_| Some("NO")))
        .table()
}

/// What Calcite says of the digits after the point of a floating-point number.
const SCALE_UNSPECIFIED: i64 = -2_147_483_648;

struct ColumnRow {
    schema: &'static str,
    table: String,
    name: String,
    position: i64,
    column_type: ColumnType,
}

impl ColumnRow {
    /// What DATA_TYPE says: COMPLEX types have names of their own.
    fn data_type(&self) -> String {
        match &self.column_type {
            ColumnType::Complex(_) => self.column_type.to_string(),
            _ => self.sql_type(),
        }
    }

    fn sql_type(&self) -> String {
        column::sql_type(&column::to_field(&self.name, &self.column_type, self.is_time()))
    }

    fn is_time(&self) -> bool {
        self.name == "__time"
    }

    fn jdbc_type(&self) -> i64 {
        match (&self.column_type, self.is_time()) {
            (_, true) => 93,
            (ColumnType::String, _) => 12,
            (ColumnType::Long, _) => -5,
            (ColumnType::Double, _) => 8,
            (ColumnType::Float, _) => 6,
            (ColumnType::Array(_), _) => 2003,
            (ColumnType::Complex(_), _) => 1111,
        }
    }

    fn precision(&self) -> Option<i64> {
        match (&self.column_type, self.is_time()) {
            (ColumnType::Long, false) => Some(19),
            (ColumnType::Double | ColumnType::Float, _) => Some(15),
            _ => None,
        }
    }

    fn scale(&self) -> Option<i64> {
        self.precision().map(|_| match self.column_type {
            ColumnType::Long => 0,
            _ => SCALE_UNSPECIFIED,
        })
    }
}

/// Columns of the system tables, from the tables as they are.
fn system_columns(snapshot: &Snapshot) -> Vec<ColumnRow> {
    let controller = snapshot.controller();
    let sys = SYS
        .iter()
        .map(|name| ("sys", *name, sys(snapshot, controller, name)));
    // This table itself would ask for itself without an end.
    let information = INFORMATION
        .iter()
        .filter(|name| **name != "COLUMNS")
        .map(|name| ("INFORMATION_SCHEMA", *name, information(snapshot, name)));
    let mut rows = Vec::new();
    for (schema, table, provider) in sys.chain(information) {
        let Some(Ok(provider)) = provider else { continue };
        let fields = provider.schema();
        rows.extend((1..).zip(fields.fields()).map(|(position, field)| ColumnRow {
            schema,
            table: table.to_owned(),
            name: field.name().clone(),
            position,
            column_type: column::of_field(field),
        }));
    }
    rows
}

fn columns(snapshot: &Snapshot) -> Result<Arc<dyn TableProvider>> {
    let mut rows: Vec<ColumnRow> = Vec::new();
    for table in snapshot.datasources() {
        for (index, (name, column_type)) in snapshot
            .columns(&table)
            .unwrap_or_default()
            .into_iter()
            .enumerate()
        {
            rows.push(ColumnRow {
                schema: "druid",
                table: table.clone(),
                name,
                position: index as i64 + 1,
                column_type,
            });
        }
    }
    rows.extend(system_columns(snapshot));
    let text = |row: &ColumnRow| row.column_type == ColumnType::String;
    Rows::default()
        .text("TABLE_CATALOG", rows.iter().map(|_| Some("druid")))
        .text("TABLE_SCHEMA", rows.iter().map(|row| Some(row.schema)))
        .text("TABLE_NAME", rows.iter().map(|row| Some(row.table.clone())))
        .text("COLUMN_NAME", rows.iter().map(|row| Some(row.name.clone())))
        .long("ORDINAL_POSITION", rows.iter().map(|row| Some(row.position)))
        .text("COLUMN_DEFAULT", rows.iter().map(|_| Some("")))
        .text(
            "IS_NULLABLE",
            rows.iter()
                .map(|row| Some(if row.is_time() { "NO" } else { "YES" })),
        )
        .text("DATA_TYPE", rows.iter().map(|row| Some(row.data_type())))
        .text::<String>("CHARACTER_MAXIMUM_LENGTH", rows.iter().map(|_| None))
        .text::<String>("CHARACTER_OCTET_LENGTH", rows.iter().map(|_| None))
        .long("NUMERIC_PRECISION", rows.iter().map(ColumnRow::precision))
        .long(
            "NUMERIC_PRECISION_RADIX",
            rows.iter().map(|row| row.precision().map(|_| 10)),
        )
        .long("NUMERIC_SCALE", rows.iter().map(ColumnRow::scale))
        .long(
            "DATETIME_PRECISION",
            rows.iter().map(|row| row.is_time().then_some(3)),
        )
        .text(
            "CHARACTER_SET_NAME",
            rows.iter().map(|row| text(row).then_some("UTF-16LE")),
        )
        .text(
            "COLLATION_NAME",
            rows.iter()
                .map(|row| text(row).then_some("UTF-16LE$en_US$primary")),
        )
        .long("JDBC_TYPE", rows.iter().map(|row| Some(row.jdbc_type())))
        .table()
}
