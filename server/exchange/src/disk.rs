//! Temporary files: counted by work order, bounded by task, gone when they are dropped.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SpillFile as OperatorFile, SpillWriter as OperatorWriter, TempFileFactory};
use futures::stream::{self, Stream};
use parking_lot::Mutex;
use tempfile::TempPath;
use trilith_proto::fault::Fault;
use trilith_proto::id::{TaskId, WorkOrderId};

use crate::error::ExchangeError;
use crate::memory::Usage;

const PREFIX: &str = "trilith-";
/// Bytes of an operator's file that are read at a time.
const READ_BYTES: usize = 256 * 1024;

/// Temporary files of one process.
pub(crate) struct Disk {
    directory: Arc<PathBuf>,
    task_limit: Option<u64>,
    usage: Arc<Usage>,
    tasks: Mutex<HashMap<TaskId, Weak<TaskDisk>>>,
    orders: Mutex<HashMap<WorkOrderId, Weak<OrderDisk>>>,
}

/// Files of one task in this process.
#[derive(Debug)]
struct TaskDisk {
    limit: Option<u64>,
    used: AtomicU64,
}

/// Files of one work order: of its output and of its operators.
#[derive(Debug)]
pub struct OrderDisk {
    directory: Arc<PathBuf>,
    task: Arc<TaskDisk>,
    usage: Arc<Usage>,
    used: AtomicU64,
    files: AtomicU64,
    written: AtomicU64,
}

/// What a work order has on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskUse {
    /// Bytes there now.
    pub bytes: u64,
    /// Files written so far.
    pub files_written: u64,
    /// Bytes written so far.
    pub bytes_written: u64,
}

impl Disk {
    /// Makes the directory and removes what an earlier process left in it.
    pub fn open(
        directory: &Path,
        task_limit: Option<u64>,
        usage: &Arc<Usage>,
    ) -> Result<Disk, ExchangeError> {
        let failed = |action, path: &Path| {
            let path = path.to_path_buf();
            move |source| ExchangeError::Disk { action, path, source }
        };
        std::fs::create_dir_all(directory).map_err(failed("create", directory))?;
        for entry in std::fs::read_dir(directory).map_err(failed("list", directory))? {
            let entry = entry.map_err(failed("list", directory))?;
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                let file = entry.path();
                std::fs::remove_file(&file).map_err(failed("remove", &file))?;
            }
        }
        Ok(Disk {
            directory: Arc::new(directory.to_path_buf()),
            task_limit,
            usage: Arc::clone(usage),
            tasks: Mutex::default(),
            orders: Mutex::default(),
        })
    }

    /// The account of a work order.
    pub fn order(&self, id: &WorkOrderId) -> Arc<OrderDisk> {
        let mut orders = self.orders.lock();
        if let Some(order) = orders.get(id).and_then(Weak::upgrade) {
            return order;
        }
        orders.retain(|_, order| order.strong_count() > 0);
        let order = Arc::new(OrderDisk {
            directory: Arc::clone(&self.directory),
            task: self.task(&id.task),
            usage: Arc::clone(&self.usage),
            used: AtomicU64::new(0),
            files: AtomicU64::new(0),
            written: AtomicU64::new(0),
        });
        orders.insert(id.clone(), Arc::downgrade(&order));
        order
    }

    fn task(&self, id: &TaskId) -> Arc<TaskDisk> {
        let mut tasks = self.tasks.lock();
        if let Some(task) = tasks.get(id).and_then(Weak::upgrade) {
            return task;
        }
        tasks.retain(|_, task| task.strong_count() > 0);
        let task = Arc::new(TaskDisk {
            limit: self.task_limit,
            used: AtomicU64::new(0),
        });
        tasks.insert(id.clone(), Arc::downgrade(&task));
        task
    }
}

impl OrderDisk {
    /// What is there.
    pub fn size(&self) -> DiskUse {
        DiskUse {
            bytes: self.used.load(Ordering::Relaxed),
            files_written: self.files.load(Ordering::Relaxed),
            bytes_written: self.written.load(Ordering::Relaxed),
        }
    }

    /// Starts a file; it is removed when the last part of it is dropped.
    pub(crate) fn create(self: &Arc<Self>) -> Result<TemporaryFile, ExchangeError> {
        let made = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempfile_in(self.directory.as_path());
        let (file, path) = made
            .map_err(|source| ExchangeError::Disk {
                action: "create a file in",
                path: self.directory.to_path_buf(),
                source,
            })?
            .into_parts();
        self.files.fetch_add(1, Ordering::Relaxed);
        let place = Arc::new(Place {
            path,
            bytes: AtomicU64::new(0),
            disk: Arc::clone(self),
        });
        Ok(TemporaryFile { file, place })
    }

    /// For the operators of the work order.
    pub fn operator_files(self: &Arc<Self>) -> Arc<dyn TempFileFactory> {
        Arc::new(OperatorFiles(Arc::clone(self)))
    }

    fn take(&self, bytes: u64) -> Result<(), Fault> {
        let before = self.task.used.fetch_add(bytes, Ordering::Relaxed);
        let after = before + bytes;
        if let Some(limit) = self.task.limit.filter(|limit| after > *limit) {
            self.task.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Fault::not_enough_temporary_storage(after, limit));
        }
        self.used.fetch_add(bytes, Ordering::Relaxed);
        self.usage.disk.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn give_back(&self, bytes: u64) {
        self.task.used.fetch_sub(bytes, Ordering::Relaxed);
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.usage.disk.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn wrote(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
        self.usage.spilled.fetch_add(bytes, Ordering::Relaxed);
    }

    /// An error of the disk, in words that help when it is full.
    fn failure(&self, error: io::Error) -> io::Error {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        if !matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge) {
            return error;
        }
        let used = self.task.used.load(Ordering::Relaxed);
        io::Error::other(Fault::disk_full(
            &self.directory.display().to_string(),
            used,
            &error.to_string(),
        ))
    }
}

/// A file with its bytes in the account.
#[derive(Debug)]
pub(crate) struct Place {
    pub path: TempPath,
    bytes: AtomicU64,
    disk: Arc<OrderDisk>,
}

impl Place {
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// An error of the disk as one of the exchange.
    pub fn error(&self, action: &'static str) -> impl FnOnce(io::Error) -> ExchangeError + use<> {
        let path = self.path.to_path_buf();
        move |source| ExchangeError::Disk { action, path, source }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.disk.give_back(self.bytes());
    }
}

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct TemporaryFile {
    file: File,
    pub place: Arc<Place>,
}

impl Write for TemporaryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let disk = &self.place.disk;
        disk.take(bytes.len() as u64).map_err(io::Error::other)?;
        self.place.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.file.write_all(bytes).map_err(|error| disk.failure(error))?;
        disk.wrote(bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(|error| self.place.disk.failure(error))
    }
}

struct OperatorFiles(Arc<OrderDisk>);

impl TempFileFactory for OperatorFiles {
    fn create_temp_file(&self, _description: &str) -> DataFusionResult<Arc<dyn OperatorFile>> {
        let file = self.0.create()?;
        Ok(Arc::new(SharedFile {
            file: file.file,
            place: file.place,
        }))
    }
}

/// A file of an operator.
struct SharedFile {
    file: File,
    place: Arc<Place>,
}

impl OperatorFile for SharedFile {
    fn path(&self) -> Option<&Path> {
        Some(&self.place.path)
    }

    fn size(&self) -> Option<u64> {
        Some(self.place.bytes())
    }

    fn read_stream(&self) -> DataFusionResult<Pin<Box<dyn Stream<Item = DataFusionResult<Bytes>> + Send>>> {
        let file = File::open(&self.place.path).map_err(DataFusionError::IoError)?;
        // The file stays while it is read.
        let state = (file, Arc::clone(&self.place));
        Ok(Box::pin(stream::try_unfold(
            state,
            |(mut file, place)| async move {
                let read = SpawnedTask::spawn_blocking(move || {
                    let mut bytes = vec![0; READ_BYTES];
                    let count = file.read(&mut bytes)?;
                    bytes.truncate(count);
                    Ok::<_, io::Error>((count > 0).then(|| (Bytes::from(bytes), (file, place))))
                });
                read.join()
                    .await
                    .map_err(|_stopped| DataFusionError::from(ExchangeError::Stopped))?
                    .map_err(DataFusionError::IoError)
            },
        )))
    }

    fn open_writer(&self) -> DataFusionResult<Box<dyn OperatorWriter>> {
        let file = self.file.try_clone().map_err(DataFusionError::IoError)?;
        Ok(Box::new(TemporaryFile {
            file,
            place: Arc::clone(&self.place),
        }))
    }
}

impl OperatorWriter for TemporaryFile {
    fn finish(&mut self) -> DataFusionResult<()> {
        self.flush().map_err(DataFusionError::IoError)
    }
}
