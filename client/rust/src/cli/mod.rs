//! The client commands of `trilith`.

mod output;
pub mod progress;
mod prompt;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use trilith_proto::pb::task as tasks;

use crate::client::{Client, ClientError};
use crate::connect::ConnectOptions;
use crate::druid_json::{report_json, state_code};
use crate::task::{Statement, parameter};

/// Where the server is.
#[derive(Debug, Clone, Args)]
pub struct ServerArg {
    /// gRPC address of the server.
    #[arg(
        long,
        env = "TRILITH_SERVER",
        default_value = "http://127.0.0.1:8889",
        value_name = "ADDRESS"
    )]
    server: String,
    /// Sent with every call as a bearer token.
    #[arg(long, env = "TRILITH_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// PEM file with the certificates to trust at an https:// address [default: those of the system].
    #[arg(long, env = "TRILITH_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl ServerArg {
    fn connect(&self) -> Result<Client, ClientError> {
        let mut options = ConnectOptions::new(&self.server);
        if let Some(token) = &self.token {
            options = options.token(token);
        }
        if let Some(path) = &self.ca_file {
            options = options.ca_file(path);
        }
        options.connect()
    }
}

/// The statement, and its context.
#[derive(Debug, Clone, Args)]
pub struct SqlArg {
    /// Statement.
    #[arg(
        short = 'e',
        long = "execute",
        value_name = "SQL",
        conflicts_with = "file",
        allow_hyphen_values = true
    )]
    execute: Option<String>,
    /// File with the statement; "-" reads standard input.
    #[arg(short = 'f', long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Query context, as key=value; JSON values keep their type.
    #[arg(short = 'c', long = "context", value_name = "KEY=VALUE")]
    context: Vec<String>,
    /// Value of the next `?` of the statement, as TYPE=VALUE, for example VARCHAR=en or BIGINT=5; BIGINT=null is NULL.
    #[arg(short = 'p', long = "param", value_name = "TYPE=VALUE")]
    parameters: Vec<String>,
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One object per line.
    Json,
    /// With a header.
    Csv,
    /// A Parquet file.
    Parquet,
    /// An Arrow IPC stream.
    Arrow,
}

/// Client commands.
#[derive(Debug, Clone, Subcommand)]
pub enum ClientCommand {
    /// Run SQL: SELECT at once, INSERT and REPLACE as a task. Without -e or -f: a prompt.
    Sql {
        #[command(flatten)]
        server: ServerArg,
        #[command(flatten)]
        sql: SqlArg,
        /// Format of the rows.
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
        /// Write rows to a file.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Submit a statement as a task and print its id.
    Submit {
        #[command(flatten)]
        server: ServerArg,
        #[command(flatten)]
        sql: SqlArg,
        /// Wait for the end, with progress; fails if the task fails.
        #[arg(long)]
        wait: bool,
    },
    /// Print the state of a task.
    Status {
        #[command(flatten)]
        server: ServerArg,
        /// Task id.
        task_id: String,
    },
    /// Print the report of a task as Druid's JSON.
    Report {
        #[command(flatten)]
        server: ServerArg,
        /// Task id.
        task_id: String,
    },
    /// Follow a task until it ends.
    Watch {
        #[command(flatten)]
        server: ServerArg,
        /// Task id.
        task_id: String,
    },
    /// Stop a task.
    Cancel {
        #[command(flatten)]
        server: ServerArg,
        /// Task id.
        task_id: String,
    },
    /// List tasks, newest first.
    Tasks {
        #[command(flatten)]
        server: ServerArg,
        /// Most tasks to list.
        #[arg(long, default_value = "50")]
        limit: u32,
    },
    /// List the segments of a datasource, or all datasources.
    Segments {
        #[command(flatten)]
        server: ServerArg,
        /// Datasource.
        datasource: Option<String>,
    },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// A call failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A file or the terminal failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Rows cannot be written.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// Rows cannot be written.
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
    /// Wrong use.
    #[error("{0}")]
    Usage(String),
    /// The task failed.
    #[error("task {0} failed: {1}")]
    Failed(String, String),
}

/// Runs a command; errors go to standard error.
pub async fn run(command: ClientCommand) -> ExitCode {
    match execute(command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trilith: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(command: ClientCommand) -> Result<(), CommandError> {
    match command {
        ClientCommand::Sql {
            server,
            sql,
            format,
            output,
        } => {
            let client = server.connect()?;
            match sql.statement()? {
                Some(statement) => run_sql(&client, statement, format, output.as_deref()).await,
                None => prompt::run(&client, &sql.settings()?, format).await,
            }
        }
        ClientCommand::Submit { server, sql, wait } => {
            let client = server.connect()?;
            let statement = sql
                .statement()?
                .ok_or_else(|| CommandError::Usage("give a statement with -e or -f".to_owned()))?;
            let id = submit(&client, statement).await?;
            let Some(id) = id else { return Ok(()) };
            println!("{id}");
            if wait {
                progress::follow(&client, &id).await
            } else {
                Ok(())
            }
        }
        ClientCommand::Status { server, task_id } => {
            let task = server.connect()?.task(&task_id).await?;
            println!("{}", state_code(task.state()));
            match task.error_message {
                Some(message) => Err(CommandError::Failed(task_id, message)),
                None => Ok(()),
            }
        }
        ClientCommand::Report { server, task_id } => {
            let report = server.connect()?.report(&task_id).await?;
            println!("{:#}", report_json(&report, None));
            Ok(())
        }
        ClientCommand::Watch { server, task_id } => progress::follow(&server.connect()?, &task_id).await,
        ClientCommand::Cancel { server, task_id } => {
            let state = server.connect()?.cancel(&task_id).await?;
            println!("{}", state_code(state));
            Ok(())
        }
        ClientCommand::Tasks { server, limit } => {
            let request = tasks::ListTasksRequest {
                page_size: limit,
                ..Default::default()
            };
            let page = server.connect()?.list(request).await?;
            output::tasks(&page.tasks);
            Ok(())
        }
        ClientCommand::Segments { server, datasource } => {
            let client = server.connect()?;
            match datasource {
                Some(name) => output::segments(&client.segments(&name, false).await?),
                None => output::datasources(&client.list_datasources().await?),
            }
            Ok(())
        }
    }
}

impl SqlArg {
    /// The statement with its settings; none is for a prompt.
    fn statement(&self) -> Result<Option<Statement>, CommandError> {
        let settings = self.settings()?;
        Ok(self.text()?.map(|sql| Statement { sql, ..settings }))
    }

    fn text(&self) -> Result<Option<String>, CommandError> {
        if let Some(sql) = &self.execute {
            return Ok(Some(sql.clone()));
        }
        match &self.file {
            Some(path) if path.as_os_str() == "-" => Ok(Some(std::io::read_to_string(std::io::stdin())?)),
            Some(path) => Ok(Some(std::fs::read_to_string(path)?)),
            None if !std::io::IsTerminal::is_terminal(&std::io::stdin()) => {
                Ok(Some(std::io::read_to_string(std::io::stdin())?))
            }
            None => Ok(None),
        }
    }

    /// A statement without a text.
    fn settings(&self) -> Result<Statement, CommandError> {
        let mut settings = Statement::default();
        for pair in &self.context {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| CommandError::Usage(format!("--context [{pair}] is not key=value")))?;
            let value = serde_json::from_str::<Value>(value).unwrap_or_else(|_| json!(value));
            settings = settings.with(key, value);
        }
        let parameters = self.parameters.iter().map(|pair| {
            let (sql_type, text) = pair
                .split_once('=')
                .ok_or_else(|| CommandError::Usage(format!("--param [{pair}] is not TYPE=VALUE")))?;
            let sql_type = sql_type.to_ascii_uppercase();
            let value = match (sql_type.as_str(), serde_json::from_str::<Value>(text)) {
                // Digits may be text.
                ("VARCHAR" | "CHAR", Ok(value)) if !value.is_null() => json!(text),
                (_, Ok(value)) => value,
                (_, Err(_)) => json!(text),
            };
            Ok(parameter(&sql_type, value))
        });
        let parameters = parameters.collect::<Result<Vec<_>, CommandError>>()?;
        Ok(settings.with_parameters(parameters))
    }
}

/// True for what writes, also behind SET and comments.
fn ingests(sql: &str) -> bool {
    let plain: String = sql
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join(" ");
    let last = plain
        .split(';')
        .map(str::trim)
        .rfind(|part| !part.is_empty())
        .unwrap_or_default()
        .to_ascii_uppercase();
    let mut words = last
        .split_whitespace()
        .skip_while(|word| ["EXPLAIN", "PLAN", "FOR"].contains(word));
    words
        .next()
        .is_some_and(|verb| ["INSERT", "REPLACE", "DELETE"].contains(&verb))
}

/// Submits a task; none for an EXPLAIN, which is printed.
async fn submit(client: &Client, statement: Statement) -> Result<Option<String>, CommandError> {
    let answer = client.submit_once(statement).await?;
    match answer.explanation {
        Some(explanation) => {
            println!("{}", explanation.plan_json);
            Ok(None)
        }
        None => Ok(Some(answer.task_id)),
    }
}

async fn run_sql(
    client: &Client,
    statement: Statement,
    format: Format,
    file: Option<&std::path::Path>,
) -> Result<(), CommandError> {
    if ingests(&statement.sql) {
        return match submit(client, statement).await? {
            Some(id) => progress::follow(client, &id).await,
            None => Ok(()),
        };
    }
    let result = client.select(statement).await?;
    output::rows(result, format, file).await
}
