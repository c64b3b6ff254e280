//! The Rust client: tasks, queries as Arrow batches, datasources; and the commands of the program.

pub mod cli;
mod client;
mod connect;
pub mod druid_json;
mod task;

pub use client::{Client, ClientError, QueryResult};
pub use connect::ConnectOptions;
pub use task::{Statement, parameter};
pub use trilith_proto::pb;
