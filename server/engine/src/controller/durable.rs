//! What tasks leave in durable storage, and when it goes.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};
use trilith_exchange::{DurableArea, DurableStorage, ExchangeError};
use trilith_metadata::{MetadataError, TaskFilter, TaskState};
use trilith_proto::id::{StageNumber, TaskId};

use super::Controller;
use super::job::Job;

/// How long the end of a task waits for its files to be removed; what is left then goes at the next start.
const CLEAN_TIMEOUT: Duration = Duration::from_secs(20);

impl Controller {
    fn durable(&self) -> Option<Arc<DurableStorage>> {
        self.worker_config.exchange.durable().ok().cloned()
    }

    /// Removes what a job kept for its stages, and pages of a SELECT that failed.
    pub(crate) async fn clean_durable(&self, job: &Job, success: bool) {
        let Some(storage) = self.durable().filter(|_| job.graph.needs_durable_storage()) else {
            return;
        };
        let clean = async {
            storage.remove_task(DurableArea::Intermediate, &job.id).await?;
            if !success {
                storage.remove_task(DurableArea::Results, &job.id).await?;
            }
            Ok::<_, ExchangeError>(())
        };
        match tokio::time::timeout(CLEAN_TIMEOUT, clean).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(task = %job.id, %error, "files in durable storage remain until the next start")
            }
            Err(_late) => warn!(task = %job.id, "files in durable storage remain until the next start"),
        }
    }

    /// Removes, in the background, what a stage kept for readers that have all finished.
    pub(crate) fn release_durable(&self, job: &Job, stage: StageNumber) {
        let durable = job.stage(stage).is_some_and(|spec| spec.output.is_durable());
        let Some(storage) = self.durable().filter(|_| durable) else {
            return;
        };
        let (task, shutdown) = (job.id.clone(), self.shutdown.clone());
        self.tracker.spawn(async move {
            // What remains goes when the task ends.
            let removal = shutdown.run_until_cancelled(storage.remove_stage(&task, stage));
            if let Some(Err(error)) = removal.await {
                warn!(%task, stage = stage.0, %error, "the output of a stage remains until the task ends");
            }
        });
    }

    /// Removes, in the background, what killed processes left in durable storage: intermediate files of tasks
    /// that do not run, and results of tasks that are not known or failed.
    pub(super) fn sweep_durable(self: &Arc<Controller>) {
        let Some(storage) = self.durable() else { return };
        let controller = Arc::clone(self);
        self.tracker.spawn(async move {
            let sweep = controller.sweep_areas(&storage);
            if let Some(Err(error)) = controller.shutdown.run_until_cancelled(sweep).await {
                let location = storage.location();
                warn!(location, %error, "durable storage could not be swept");
            }
        });
    }

    async fn sweep_areas(&self, storage: &DurableStorage) -> Result<(), SweepError> {
        // Named before tasks are listed: a task that starts meanwhile is recorded before it writes.
        for area in [DurableArea::Intermediate, DurableArea::Results] {
            let leftovers = storage.leftovers(area).await?;
            let store = Arc::clone(&self.store);
            let tasks = tokio::task::spawn_blocking(move || store.tasks(&TaskFilter::default()))
                .await
                .map_err(|_stopped| ExchangeError::Stopped)??
                .tasks;
            let kept: Vec<TaskId> = tasks
                .into_iter()
                .filter(|task| match area {
                    DurableArea::Intermediate => task.state == TaskState::Running,
                    DurableArea::Results => task.state != TaskState::Failed,
                })
                .map(|task| TaskId::from(task.id))
                .collect();
            let swept = storage.sweep(area, leftovers, &kept).await?;
            if swept > 0 {
                info!(
                    tasks = swept,
                    ?area,
                    "removed what ended tasks had left in durable storage"
                );
            }
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Storage(#[from] ExchangeError),
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}
