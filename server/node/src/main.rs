//! The program `trilith`.

mod allocator;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use trilith_client::cli::{self, ClientCommand};
use trilith_node::config::{GatewayOptions, ServerOptions, WorkerOptions};
use trilith_node::telemetry::Telemetry;
use trilith_node::{StartError, demo, server, worker_process};

/// SQL-based ingestion in stages, with Druid's dialect, statuses and reports.
#[derive(Parser)]
#[command(name = "trilith", version)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server: controller, workers, gRPC, Flight, HTTP gateway.
    Server(Box<ServerOptions>),
    /// Run a worker process for a server.
    Worker(WorkerOptions),
    /// Run an HTTP gateway in front of a server.
    Gateway(GatewayOptions),
    /// Start a throw-away server, ingest the bundled Wikipedia edits, query them.
    Demo,
    #[command(flatten)]
    Client(ClientCommand),
}

fn main() -> ExitCode {
    let program = Program::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let name = match program.command {
        Command::Server(_) => "trilith-server",
        Command::Worker(_) => "trilith-worker",
        Command::Gateway(_) => "trilith-gateway",
        Command::Demo | Command::Client(_) => "trilith",
    };
    let logs = filter(&program.command);
    let (telemetry, result) = runtime.block_on(async {
        match Telemetry::start(name, logs) {
            Ok(telemetry) => (Some(telemetry), run(program.command).await),
            Err(error) => (None, Err(error)),
        }
    });
    if let Some(telemetry) = telemetry {
        telemetry.stop();
    }
    match result {
        Ok(code) => code,
        Err(error) => failed(error.as_ref()),
    }
}

fn filter(command: &Command) -> tracing_subscriber::EnvFilter {
    let quiet = matches!(command, Command::Client(_) | Command::Demo);
    let default = if quiet { "warn" } else { "info" };
    tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| default.into())
}

fn failed(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    eprintln!("trilith: {text}");
    ExitCode::FAILURE
}

async fn run(command: Command) -> Result<ExitCode, StartError> {
    match command {
        Command::Server(options) => {
            server::run(*options, stop_signal()?, |addresses| {
                ready(&serde_json::json!({
                    "http": addresses.http.to_string(),
                    "grpc": addresses.grpc.to_string(),
                }));
            })
            .await?;
        }
        Command::Worker(options) => {
            worker_process::run(options, stop_signal()?, |address| {
                ready(&serde_json::json!({"grpc": address.to_string()}));
            })
            .await?;
        }
        Command::Gateway(options) => {
            let listener = tokio::net::TcpListener::bind(options.http_address).await?;
            let address = listener.local_addr()?;
            let client = trilith_client::Client::connect(&options.server)?;
            ready(&serde_json::json!({"http": address.to_string()}));
            trilith_gateway::serve(listener, client, stop_signal()?).await?;
        }
        Command::Demo => return demo::run().await,
        Command::Client(command) => return Ok(cli::run(command).await),
    }
    Ok(ExitCode::SUCCESS)
}

/// One line for whoever started the process.
fn ready(line: &serde_json::Value) {
    let mut out = std::io::stdout().lock();
    // Nobody may be listening; the process serves all the same.
    let _closed = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Cancelled by SIGTERM or Ctrl-C.
fn stop_signal() -> Result<CancellationToken, StartError> {
    let token = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = token.clone();
    let waiter = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    };
    // Lives as long as the process; the tracker exists only because every task has an owner.
    tokio_util::task::TaskTracker::new().spawn(waiter);
    Ok(token)
}
