//! The processes of Trilith: server, worker, gateway.

pub mod config;
pub mod demo;
mod flight;
mod parts;
pub mod server;
mod services;
pub mod telemetry;
pub mod worker_process;

pub use parts::StartError;
