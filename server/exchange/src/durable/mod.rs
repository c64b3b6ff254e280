//! Outputs and results in durable storage: a directory that all processes share, or an S3 bucket.
//!
//! Below the root: `controller_<task>/stage_<s>/worker_<w>/taskId_<worker task>/part_<p>`, each part an Arrow IPC
//! stream with LZ4. `__parts` beside them says how many rows each has, and is written last; `worker_<w>/__success`
//! names the worker task that completed. Partitions without rows have no part.

mod parts;
mod read;
mod write;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::{Path, PathPart};
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use trilith_proto::id::{StageNumber, TaskId, WorkOrderId};

use crate::error::ExchangeError;

pub use parts::{PartList, PartSize};
pub use write::PageWriter;

const RESULTS: &str = "query-results";
const CONTROLLER: &str = "controller_";
const SUCCESS: &str = "__success";
const PARTS: &str = "__parts";
/// Parts whose sizes a process keeps at hand.
const PARTS_KNOWN_MAX: usize = 250_000;
/// Objects that are removed at a time.
const REMOVALS: usize = 8;

/// Where durable storage is, and what is needed to get there.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct DurableSettings {
    /// "file:///directory" or "s3://bucket/prefix".
    pub url: String,
    /// Settings of S3 by name, such as "aws_endpoint" or "aws_secret_access_key"; the environment (`AWS_*`) stands
    /// behind them.
    pub options: Vec<(String, String)>,
}

impl std::fmt::Debug for DurableSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values may be secrets.
        let names: Vec<&String> = self.options.iter().map(|(name, _)| name).collect();
        f.debug_struct("DurableSettings")
            .field("url", &self.url)
            .field("options", &names)
            .finish()
    }
}

impl DurableSettings {
    /// Adds what the environment says of S3, under the names of `options`; what is there already wins.
    pub fn with_environment(mut self, variables: impl Iterator<Item = (String, String)>) -> DurableSettings {
        for (name, value) in variables {
            let name = name.to_ascii_lowercase();
            let known = name.starts_with("aws_") && name.parse::<AmazonS3ConfigKey>().is_ok();
            if known && self.options.iter().all(|(own, _)| *own != name) {
                self.options.push((name, value));
            }
        }
        self
    }
}

/// What is kept for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DurableArea {
    /// Outputs of stages, while the task runs.
    Intermediate,
    /// Rows of a SELECT, as long as the task is known.
    Results,
}

/// Directories of tasks that are there.
#[derive(Debug)]
pub struct Leftovers(Vec<Path>);

/// A directory or bucket for outputs and results.
pub struct DurableStorage {
    store: Arc<dyn ObjectStore>,
    location: String,
    /// The root, if it is a directory of this machine.
    directory: Option<PathBuf>,
    /// Lists of parts that were read before.
    lists: Mutex<HashMap<Path, Arc<PartList>>>,
}

impl std::fmt::Debug for DurableStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DurableStorage")
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

impl DurableStorage {
    /// Opens the storage; makes the directory. Nothing is read from a bucket yet.
    pub fn open(settings: &DurableSettings) -> Result<DurableStorage, ExchangeError> {
        let location = settings.url.trim_end_matches('/').to_owned();
        let bad = |reason: String| ExchangeError::DurableSettings {
            url: settings.url.clone(),
            reason,
        };
        let (store, directory): (Arc<dyn ObjectStore>, _) = if let Some(path) =
            location.strip_prefix("file://")
        {
            let path = PathBuf::from(path);
            if !path.is_absolute() {
                return Err(bad(
                    "the directory must be absolute, as in file:///var/trilith".to_owned()
                ));
            }
            std::fs::create_dir_all(&path).map_err(|source| ExchangeError::Disk {
                action: "create",
                path: path.clone(),
                source,
            })?;
            let store = LocalFileSystem::new_with_prefix(&path).map_err(|error| bad(error.to_string()))?;
            (Arc::new(store), Some(path))
        } else if let Some(place) = location.strip_prefix("s3://") {
            let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
            let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
            for (name, value) in &settings.options {
                let key: AmazonS3ConfigKey = name
                    .to_ascii_lowercase()
                    .parse()
                    .map_err(|_unknown| bad(format!("there is no S3 setting [{name}]")))?;
                builder = builder.with_config(key, value);
            }
            let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
            let is_url = |text: &str| text.starts_with("http://") || text.starts_with("https://");
            if endpoint.is_some_and(|endpoint| !is_url(&endpoint)) {
                let reason = "the endpoint must be a URL, as in aws_endpoint=http://host:9000";
                return Err(bad(reason.to_owned()));
            }
            let store = builder.build().map_err(|error| bad(error.to_string()))?;
            (Arc::new(PrefixStore::new(store, Path::from(prefix))), None)
        } else {
            return Err(bad("write file:///DIRECTORY or s3://BUCKET/PREFIX".to_owned()));
        };
        Ok(DurableStorage {
            store,
            location,
            directory,
            lists: Mutex::new(HashMap::new()),
        })
    }

    /// As it was configured, without secrets.
    pub fn location(&self) -> &str {
        &self.location
    }

    fn error(&self, action: &'static str) -> impl Fn(object_store::Error) -> ExchangeError + use<> {
        let location = self.location.clone();
        move |source| ExchangeError::Durable {
            action,
            location: location.clone(),
            source: Box::new(source),
        }
    }

    /// Removes what one attempt wrote.
    pub async fn remove_attempt(&self, area: DurableArea, id: &WorkOrderId) -> Result<(), ExchangeError> {
        self.remove(&attempt(area, id)).await
    }

    /// Removes what the workers of a stage wrote for others, which nobody reads any more.
    pub async fn remove_stage(&self, task: &TaskId, stage: StageNumber) -> Result<(), ExchangeError> {
        let path = controller(DurableArea::Intermediate, task).join(format!("stage_{stage}"));
        self.remove(&path).await
    }

    /// Removes everything of a task.
    pub async fn remove_task(&self, area: DurableArea, task: &TaskId) -> Result<(), ExchangeError> {
        self.lists
            .lock()
            .retain(|path, _| !path.prefix_matches(&controller(area, task)));
        self.remove(&controller(area, task)).await
    }

    /// Directories of tasks that are there.
    pub async fn leftovers(&self, area: DurableArea) -> Result<Leftovers, ExchangeError> {
        let prefix = root(area);
        let found = self
            .store
            .list_with_delimiter(Some(&prefix))
            .await
            .map_err(self.error("list"))?;
        let ours = |path: &Path| path.filename().is_some_and(|name| name.starts_with(CONTROLLER));
        Ok(Leftovers(
            found.common_prefixes.into_iter().filter(ours).collect(),
        ))
    }

    /// Removes those that belong to none of the tasks. Returns how many went.
    pub async fn sweep(
        &self,
        area: DurableArea,
        leftovers: Leftovers,
        kept: &[TaskId],
    ) -> Result<usize, ExchangeError> {
        let names: HashSet<Path> = kept.iter().map(|task| controller(area, task)).collect();
        let mut swept = 0;
        for directory in leftovers.0.iter().filter(|directory| !names.contains(*directory)) {
            self.remove(directory).await?;
            swept += 1;
        }
        Ok(swept)
    }

    async fn remove(&self, prefix: &Path) -> Result<(), ExchangeError> {
        if let Some(directory) = &self.directory {
            // A listing leaves out what a killed writer had not finished; the directory goes as a whole.
            let path = prefix
                .parts()
                .fold(directory.clone(), |path, part| path.join(part.as_ref()));
            let removed = tokio::task::spawn_blocking(move || match std::fs::remove_dir_all(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(ExchangeError::Disk {
                    action: "remove",
                    path,
                    source,
                }),
                _ => Ok(()),
            });
            return removed.await.map_err(|_stopped| ExchangeError::Stopped)?;
        }
        let found: Vec<Path> = self
            .store
            .list(Some(prefix))
            .map_ok(|object| object.location)
            .try_collect()
            .await
            .map_err(self.error("list"))?;
        stream::iter(found)
            .map(|path| async move {
                match self.store.delete(&path).await {
                    // Somebody else was faster.
                    Err(object_store::Error::NotFound { .. }) => Ok(()),
                    other => other,
                }
            })
            .buffer_unordered(REMOVALS)
            .try_collect::<()>()
            .await
            .map_err(self.error("remove files from"))
    }

    async fn put(&self, path: &Path, content: Vec<u8>) -> Result<(), ExchangeError> {
        self.store
            .put(path, content.into())
            .await
            .map_err(self.error("write to"))?;
        Ok(())
    }

    /// Keeps a small text with the results of a task.
    pub async fn put_result_note(
        &self,
        task: &TaskId,
        name: &str,
        text: String,
    ) -> Result<(), ExchangeError> {
        let path = controller(DurableArea::Results, task).join(name);
        self.put(&path, text.into_bytes()).await
    }

    /// Reads it; none if there is none.
    pub async fn result_note(&self, task: &TaskId, name: &str) -> Result<Option<String>, ExchangeError> {
        let path = controller(DurableArea::Results, task).join(name);
        match self.store.get(&path).await {
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.error("read from")(error)),
            Ok(found) => {
                let bytes = found.bytes().await.map_err(self.error("read from"))?;
                Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
            }
        }
    }
}

fn root(area: DurableArea) -> Path {
    match area {
        DurableArea::Intermediate => Path::default(),
        DurableArea::Results => Path::from(RESULTS),
    }
}

fn controller(area: DurableArea, task: &TaskId) -> Path {
    root(area).join(PathPart::from(format!("{CONTROLLER}{task}")))
}

fn worker(area: DurableArea, id: &WorkOrderId) -> Path {
    controller(area, &id.task)
        .join(format!("stage_{}", id.stage))
        .join(format!("worker_{}", id.worker))
}

fn attempt(area: DurableArea, id: &WorkOrderId) -> Path {
    let task = id.worker_task_id();
    // A worker of an earlier run may not know yet that the run has ended: it must not touch what is newer.
    let name = match id.run {
        0 => format!("taskId_{task}"),
        run => format!("taskId_{task}_r{run}"),
    };
    worker(area, id).join(PathPart::from(name))
}

fn part(area: DurableArea, id: &WorkOrderId, number: u32) -> Path {
    attempt(area, id).join(format!("part_{number}"))
}
