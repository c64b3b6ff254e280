//! Settings of the processes: command line, environment, and a TOML file behind both.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use trilith_engine::controller::AdmissionLimits;
use trilith_exchange::DurableSettings;

use crate::machine;

const LEASE_DEFAULT: Duration = Duration::from_secs(5);
const TASKS_MAX: u32 = 4_000;
const QUERIES_MAX: u32 = 500;
const LEASE_RANGE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);

/// Options of `trilith server`.
#[derive(Debug, Clone, Args, Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ServerOptions {
    /// TOML file with the same names as these options; the command line wins.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Where metadata, segments and results are kept [default: ./trilith-data].
    #[arg(long, value_name = "DIR", env = "TRILITH_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the HTTP gateway; port 0 picks a free one [default: 127.0.0.1:8888].
    #[arg(long, value_name = "ADDRESS")]
    pub http_address: Option<SocketAddr>,
    /// Address of gRPC and Flight; port 0 picks a free one [default: 127.0.0.1:8889].
    #[arg(long, value_name = "ADDRESS")]
    pub grpc_address: Option<SocketAddr>,
    /// Host, or host and port, under which workers reach this server's Flight port [default: the gRPC address;
    /// when that is 0.0.0.0, the one from which other machines are reached].
    #[arg(long, value_name = "ADDRESS")]
    pub advertise_address: Option<String>,
    /// Work orders that run at a time in this process; 0 leaves all to worker processes [default: cores].
    #[arg(long, value_name = "N")]
    pub worker_slots: Option<u32>,
    /// How long a task waits for its first worker slots, in seconds [default: 600].
    #[arg(long, value_name = "SECONDS")]
    pub task_start_timeout_s: Option<u32>,
    /// Tasks that may run or wait at a time; more are refused until some have ended [default: 4000].
    #[arg(long, value_name = "N")]
    pub max_tasks: Option<u32>,
    /// Statements that may run at once, outside of tasks; more are refused until some have ended [default: 500].
    #[arg(long, value_name = "N")]
    pub max_queries: Option<u32>,
    /// Directory that `local` input may read; may be given several times.
    #[arg(long, value_name = "DIR")]
    pub allow_local: Vec<PathBuf>,
    /// Host that `http` input may read although its address is not public; may be given several times.
    #[arg(long, value_name = "HOST")]
    pub allow_http: Vec<String>,
    /// Header that a statement may send with `http` input (requestHeaders); may be given several times.
    #[arg(long, value_name = "NAME")]
    pub allow_http_header: Vec<String>,
    /// Origin whose pages may call the gRPC port by gRPC-web, for example http://localhost:3000; `*` allows all; may be
    /// given several times [default: none].
    #[arg(long, value_name = "ORIGIN")]
    pub allow_origin: Vec<String>,
    /// Memory for operators and stage outputs, in bytes or with KB, MB, GB [default: 60 % of the machine or
    /// control group].
    #[arg(long, value_name = "SIZE")]
    pub memory_limit: Option<String>,
    /// How long a worker process may be silent before its work is given to others, for example 5s or 800ms; it
    /// sends a heartbeat five times as often [default: 5s].
    #[arg(long, value_name = "TIME")]
    pub worker_lease: Option<String>,
    /// Files that one task may have in this process, in bytes or with KB, MB, GB [default: no limit].
    #[arg(long, value_name = "SIZE")]
    pub task_disk_limit: Option<String>,
    /// Where outputs and results outlive their process, file:///DIR or s3://BUCKET/PREFIX; one server for each.
    #[arg(long, value_name = "URL", env = "TRILITH_DURABLE_STORAGE")]
    pub durable_storage: Option<String>,
    /// Setting of S3 such as aws_endpoint=http://host:9000; may be given several times, beside AWS_* of the environment.
    #[arg(long, value_name = "NAME=VALUE")]
    pub durable_storage_option: Vec<String>,
}

/// Options of `trilith worker`.
#[derive(Debug, Clone, Args)]
pub struct WorkerOptions {
    /// gRPC address of the server.
    #[arg(long, value_name = "ADDRESS")]
    pub server: String,
    /// Where stage outputs spill.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Address of this worker's Flight port, reachable by the server and other workers.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub grpc_address: SocketAddr,
    /// Host, or host and port, under which the server and other workers reach the Flight port [default: the
    /// address listened on; when that is 0.0.0.0, the one from which the server is reached].
    #[arg(long, value_name = "ADDRESS")]
    pub advertise_address: Option<String>,
    /// Work orders that run at a time [default: cores].
    #[arg(long, value_name = "N")]
    pub slots: Option<u32>,
    /// Memory for operators and stage outputs, in bytes or with KB, MB, GB [default: 60 % of the machine or
    /// control group].
    #[arg(long, value_name = "SIZE")]
    pub memory_limit: Option<String>,
    /// Files that one task may have in this process, in bytes or with KB, MB, GB [default: no limit].
    #[arg(long, value_name = "SIZE")]
    pub task_disk_limit: Option<String>,
}

/// Options of `trilith gateway`.
#[derive(Debug, Clone, Args)]
pub struct GatewayOptions {
    /// gRPC address of the server.
    #[arg(long, value_name = "ADDRESS")]
    pub server: String,
    /// Address to listen on; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8888")]
    pub http_address: SocketAddr,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("config file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("config file {path}: {source}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A time is malformed.
    #[error("--worker-lease [{0}] is not a time between 100ms and 1h; write for example 5s or 800ms")]
    Lease(String),
    /// Nothing could ever be taken on.
    #[error("{0} [0] leaves no room for any; write 1 or more")]
    NoRoom(&'static str),
    /// A size is malformed.
    #[error("--memory-limit [{0}] is not a size; write for example 512MB or 4GB")]
    Size(String),
    /// A size is malformed.
    #[error("--task-disk-limit [{0}] is not a size; write for example 20GB")]
    DiskSize(String),
    /// No name, or no value. It is not shown: it may be a secret.
    #[error("--durable-storage-option must be NAME=VALUE, for example aws_endpoint=http://host:9000")]
    DurableOption,
}

impl ServerOptions {
    /// Fills what the command line left open from the config file.
    pub fn resolved(mut self) -> Result<ServerOptions, ConfigError> {
        let Some(path) = self.config.clone() else {
            return Ok(self);
        };
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Read {
            path: path.clone(),
            source,
        })?;
        let file: ServerOptions = toml::from_str(&text).map_err(|source| ConfigError::Toml {
            path,
            source: Box::new(source),
        })?;
        self.data_dir = self.data_dir.or(file.data_dir);
        self.http_address = self.http_address.or(file.http_address);
        self.grpc_address = self.grpc_address.or(file.grpc_address);
        self.advertise_address = self.advertise_address.or(file.advertise_address);
        self.worker_slots = self.worker_slots.or(file.worker_slots);
        self.task_start_timeout_s = self.task_start_timeout_s.or(file.task_start_timeout_s);
        self.max_tasks = self.max_tasks.or(file.max_tasks);
        self.max_queries = self.max_queries.or(file.max_queries);
        self.memory_limit = self.memory_limit.or(file.memory_limit);
        self.worker_lease = self.worker_lease.or(file.worker_lease);
        self.task_disk_limit = self.task_disk_limit.or(file.task_disk_limit);
        self.durable_storage = self.durable_storage.or(file.durable_storage);
        if self.durable_storage_option.is_empty() {
            self.durable_storage_option = file.durable_storage_option;
        }
        if self.allow_local.is_empty() {
            self.allow_local = file.allow_local;
        }
        if self.allow_http.is_empty() {
            self.allow_http = file.allow_http;
        }
        if self.allow_origin.is_empty() {
            self.allow_origin = file.allow_origin;
        }
        if self.allow_http_header.is_empty() {
            self.allow_http_header = file.allow_http_header;
        }
        Ok(self)
    }

    /// How long a worker process may be silent.
    pub fn worker_lease(&self) -> Result<Duration, ConfigError> {
        let Some(text) = &self.worker_lease else {
            return Ok(LEASE_DEFAULT);
        };
        parse_time(text)
            .filter(|time| LEASE_RANGE.contains(time))
            .ok_or_else(|| ConfigError::Lease(text.clone()))
    }

    /// How much is taken on at a time.
    pub fn admission(&self) -> Result<AdmissionLimits, ConfigError> {
        let room = |option, given: Option<u32>, default| match given.unwrap_or(default) {
            0 => Err(ConfigError::NoRoom(option)),
            max => Ok(max),
        };
        Ok(AdmissionLimits {
            tasks: room("--max-tasks", self.max_tasks, TASKS_MAX)?,
            queries: room("--max-queries", self.max_queries, QUERIES_MAX)?,
        })
    }
}

fn parse_time(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let factor_ms = match text[digits..].trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(factor_ms).map(Duration::from_millis)
}

/// Where durable storage is; none without `--durable-storage`.
pub fn durable_settings(options: &ServerOptions) -> Result<Option<DurableSettings>, ConfigError> {
    let Some(url) = &options.durable_storage else {
        return Ok(None);
    };
    let pairs = options.durable_storage_option.iter().map(|option| {
        let pair = option.split_once('=');
        let (name, value) = pair.ok_or(ConfigError::DurableOption)?;
        Ok((name.trim().to_ascii_lowercase(), value.to_owned()))
    });
    let settings = DurableSettings {
        url: url.clone(),
        options: pairs.collect::<Result<_, ConfigError>>()?,
    };
    Ok(Some(settings.with_environment(std::env::vars())))
}

/// Bytes of a memory limit.
pub fn memory_limit(text: Option<&str>) -> Result<u64, ConfigError> {
    match text {
        Some(text) => parse_size(text).ok_or_else(|| ConfigError::Size(text.to_owned())),
        None => Ok(machine::memory_bytes() / 10 * 6),
    }
}

/// Bytes of files that a task may have; none without a limit.
pub fn task_disk_limit(text: Option<&str>) -> Result<Option<u64>, ConfigError> {
    let parse = |text: &str| parse_size(text).ok_or_else(|| ConfigError::DiskSize(text.to_owned()));
    text.map(parse).transpose()
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let factor = match text[digits..].trim().to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        assert_eq!(parse_size("512MB"), Some(512 << 20));
        assert_eq!(parse_size("4 gb"), Some(4 << 30));
        assert_eq!(parse_size("17"), Some(17));
        assert_eq!(parse_size("many"), None);
        assert_eq!(parse_size("0"), None);
    }

    #[test]
    fn leaves_room() {
        let options = |tasks, queries| ServerOptions {
            max_tasks: tasks,
            max_queries: queries,
            ..ServerOptions::default()
        };
        let limits = options(Some(7), None).admission().unwrap();
        assert_eq!((limits.tasks, limits.queries), (7, QUERIES_MAX));
        for (options, name) in [
            (options(Some(0), None), "--max-tasks [0]"),
            (options(None, Some(0)), "--max-queries [0]"),
        ] {
            let error = options.admission().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn reads_times() {
        let lease = |text: &str| ServerOptions {
            worker_lease: Some(text.to_owned()),
            ..ServerOptions::default()
        };
        assert_eq!(
            ServerOptions::default().worker_lease().unwrap(),
            Duration::from_secs(5)
        );
        assert_eq!(lease("5s").worker_lease().unwrap(), Duration::from_secs(5));
        assert_eq!(
            lease("800 ms").worker_lease().unwrap(),
            Duration::from_millis(800)
        );
        assert_eq!(lease("2m").worker_lease().unwrap(), Duration::from_secs(120));
        for text in ["5", "s", "", "1ms", "2h", "five s"] {
            let error = lease(text).worker_lease().unwrap_err().to_string();
            assert!(error.contains("--worker-lease"), "{error}");
        }
    }
}
