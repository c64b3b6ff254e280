//! Prints rows and lists.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::{Table, presets};
use futures::TryStreamExt;
use trilith_proto::interval::iso;
use trilith_proto::pb::datasource as datasources;
use trilith_proto::pb::task as tasks;

use super::{CommandError, Format};
use crate::client::{QueryResult, schema_of};
use crate::druid_json::state_code;

/// Prints or writes the rows of a statement.
pub(crate) async fn rows(
    result: QueryResult,
    format: Format,
    file: Option<&Path>,
) -> Result<(), CommandError> {
    let batches: Vec<RecordBatch> = result.rows.try_collect().await?;
    let mut out: Box<dyn Write + Send> = match file {
        Some(path) => Box::new(File::create(path)?),
        None => Box::new(std::io::stdout()),
    };
    let names: Vec<String> = result.columns.iter().map(|column| column.name.clone()).collect();
    match format {
        Format::Table => {
            let mut table = Table::new();
            table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(&names);
            let mut count = 0;
            for row in texts(&batches)? {
                table.add_row(row.into_iter().map(Option::unwrap_or_default));
                count += 1;
            }
            writeln!(out, "{table}\n{count} rows")?;
        }
        Format::Json => {
            let mut writer = WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, LineDelimited>(out);
            for batch in &batches {
                writer.write(batch)?;
            }
            writer.finish()?;
        }
        Format::Csv => {
            writeln!(
                out,
                "{}",
                names.iter().map(|name| cell(name)).collect::<Vec<_>>().join(",")
            )?;
            for row in texts(&batches)? {
                let cells: Vec<String> = row
                    .iter()
                    .map(|value| value.as_deref().map_or(String::new(), cell))
                    .collect();
                writeln!(out, "{}", cells.join(","))?;
            }
        }
        Format::Parquet => {
            let Some(schema) = schema_of(&batches) else {
                return Err(CommandError::Usage("there are no rows to write".to_owned()));
            };
            let mut writer = parquet::arrow::ArrowWriter::try_new(out, schema, None)?;
            for batch in &batches {
                writer.write(batch)?;
            }
            writer.close()?;
        }
        Format::Arrow => {
            let Some(schema) = schema_of(&batches) else {
                return Err(CommandError::Usage("there are no rows to write".to_owned()));
            };
            let mut writer = arrow::ipc::writer::StreamWriter::try_new(out, &schema)?;
            for batch in &batches {
                writer.write(batch)?;
            }
            writer.finish()?;
        }
    }
    Ok(())
}

type Row = Vec<Option<String>>;

fn texts(batches: &[RecordBatch]) -> Result<Vec<Row>, CommandError> {
    let mut rows = Vec::new();
    for batch in batches {
        rows.extend(texts_of(batch)?);
    }
    Ok(rows)
}

fn texts_of(batch: &RecordBatch) -> Result<Vec<Row>, CommandError> {
    let options = FormatOptions::default();
    let columns = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options))
        .collect::<Result<Vec<_>, _>>()?;
    Ok((0..batch.num_rows())
        .map(|row| {
            columns
                .iter()
                .zip(batch.columns())
                .map(|(formatter, column)| column.is_valid(row).then(|| formatter.value(row).to_string()))
                .collect()
        })
        .collect())
}

/// A CSV cell, quoted when it must be.
fn cell(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn print(header: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(header);
    table.add_rows(rows);
    println!("{table}");
}

/// Lists tasks.
pub(crate) fn tasks(tasks: &[tasks::Task]) {
    let rows = tasks.iter().map(|task| {
        let duration = if task.duration_ms < 0 {
            String::new()
        } else {
            format!("{} ms", task.duration_ms)
        };
        vec![
            task.task_id.clone(),
            state_code(task.state()).to_owned(),
            task.datasource.clone(),
            iso(task.created_time_ms),
            duration,
            task.error_message.clone().unwrap_or_default(),
        ]
    });
    print(
        &["task", "state", "datasource", "created", "duration", "error"],
        rows.collect(),
    );
}

/// Lists segments.
pub(crate) fn segments(segments: &[datasources::Segment]) {
    let rows = segments.iter().map(|segment| {
        vec![
            segment.segment_id.clone(),
            segment.row_count.to_string(),
            segment.size_bytes.to_string(),
            segment.shard_spec_json.clone(),
        ]
    });
    print(&["segment", "rows", "bytes", "shard spec"], rows.collect());
}

/// Lists datasources.
pub(crate) fn datasources(datasources: &[datasources::Datasource]) {
    let rows = datasources.iter().map(|datasource| {
        vec![
            datasource.name.clone(),
            datasource.segment_count.to_string(),
            datasource.row_count.to_string(),
            datasource.size_bytes.to_string(),
        ]
    });
    print(&["datasource", "segments", "rows", "bytes"], rows.collect());
}
