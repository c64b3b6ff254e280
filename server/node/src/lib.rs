//! The processes of Trilith: server, worker, gateway.

mod advertise;
mod compute;
pub mod config;
mod cors;
mod deadline;
pub mod demo;
mod flight;
mod machine;
mod memory_pool;
mod parts;
pub mod server;
mod services;
pub mod telemetry;
pub mod worker_process;

pub use parts::StartError;
