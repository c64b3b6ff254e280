#![allow(clippy::unwrap_used, clippy::panic)]

mod aggregates;
mod arrays;
mod bloom;
mod json;
mod multi_values;
mod numbers;
mod strings;
mod times;

use arrow::array::RecordBatch;
use datafusion::prelude::SessionContext;

fn context() -> SessionContext {
    let mut state = SessionContext::new().state();
    crate::register(&mut state).unwrap();
    SessionContext::new_with_state(state)
}

async fn rows(context: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>, String> {
    let frame = context.sql(sql).await.map_err(|error| error.to_string())?;
    frame.collect().await.map_err(|error| error.to_string())
}

fn text(batches: &[RecordBatch], row: usize) -> String {
    let options = arrow::util::display::FormatOptions::default().with_null("NULL");
    let batch = batches.iter().find(|batch| batch.num_rows() > 0).unwrap();
    let batch = trilith_proto::multi_value::shown(batch.clone()).unwrap();
    arrow::util::display::ArrayFormatter::try_new(batch.column(0), &options)
        .unwrap()
        .value(row)
        .to_string()
}

/// Each expression has its value, whether its arguments are literals or columns.
async fn check(cases: &[(&str, &str)]) {
    let context = context();
    let mut wrong = Vec::new();
    for (sql, expected) in cases {
        let found = match rows(&context, &format!("SELECT {sql}")).await {
            Ok(batches) => text(&batches, 0),
            Err(error) => error,
        };
        if found != *expected {
            wrong.push(format!("{sql}\n  gave {found}\n  not  {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each expression is refused or fails, with these words.
async fn fails(cases: &[(&str, &str)]) {
    let context = context();
    for (sql, expected) in cases {
        match rows(&context, &format!("SELECT {sql}")).await {
            Ok(batches) => panic!("{sql} gave {}", text(&batches, 0)),
            Err(error) => {
                assert!(error.contains(expected), "{sql}: {error}");
                for word in ["Utf8", "Int64", "Float64", "DataType"] {
                    assert!(!error.contains(word), "{sql}: {error}");
                }
            }
        }
    }
}

/// The listed routines exist, and each once.
#[test]
fn routines_exist() {
    use datafusion::execution::FunctionRegistry;
    let context = context();
    let state = context.state();
    let routines = crate::routines();
    for routine in &routines {
        let name = routine.name.to_lowercase();
        let name = match name.as_str() {
            "earliest" => "earliest_by",
            "latest" => "latest_by",
            other => other,
        };
        let known = state.udf(name).is_ok()
            || state.udaf(name).is_ok()
            || state.udwf(name).is_ok()
            || name == "grouping";
        assert!(known, "{name}");
    }
    let mut names: Vec<_> = routines.iter().map(|routine| routine.name.clone()).collect();
    names.dedup();
    assert_eq!(names.len(), routines.len());
    let strpos = routines.iter().find(|routine| routine.name == "STRPOS").unwrap();
    assert_eq!(strpos.signatures, "'STRPOS(<ANY>, <ANY>)'");
    assert!(!strpos.aggregate);
}
