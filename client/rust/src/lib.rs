//! The Rust client: tasks, queries as Arrow batches, datasources; and the commands of the program.

pub mod cli;
mod client;
pub mod druid_json;

pub use client::{Client, ClientError, QueryResult};
