//! Real processes, real sockets, rows read back. Expected values are computed here, from the data files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod concurrency;
mod conformance;
mod dialect;
mod differential;
mod disk;
mod durable;
mod errors;
mod externs;
mod fake_workers;
mod fault_codes;
mod faults;
mod flight_sql;
mod functions;
mod golden;
mod harness;
mod http;
mod ingest;
mod locks;
mod memory;
mod namespaces;
mod parallel;
mod queries;
mod rejections;
mod replaced;
mod resume;
mod retries;
mod rust_client;
mod source;
mod stalled;
mod table_model;
mod wire;
mod workers;
