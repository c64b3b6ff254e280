//! Commands and events as messages of `trilith.worker.v1`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trilith_exchange::{BucketStatistics, PartitionRange};
use trilith_proto::fault::Fault;
use trilith_proto::id::{TaskId, WorkOrderId};
use trilith_proto::pb::task::ErrorReport;
use trilith_proto::pb::worker as pb;
use trilith_segment::SegmentRecord;

use super::order::{HeldOrder, OrderSettings, PlanSource, Sink, WorkOrder, WorkerCommand, WorkerEvent};
use crate::kernel::HeldStep;

/// A message that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A required part is missing.
    #[error("a message of the worker stream lacks {0}")]
    Missing(&'static str),
    /// JSON inside a message is wrong.
    #[error("a message of the worker stream is malformed: {0}")]
    Json(#[from] serde_json::Error),
    /// A plan of this process cannot travel.
    #[error("a plan was not encoded for its worker process")]
    LocalPlan,
}

/// The sink of an order on the wire.
#[derive(Serialize, Deserialize)]
struct SinkJson(Sink);

/// A command as a message.
pub fn command_message(command: WorkerCommand) -> Result<pb::WorkResponse, WireError> {
    use pb::work_response::Message;
    let message = match command {
        WorkerCommand::Start(order) => {
            let plan = match order.plan {
                Some(PlanSource::Encoded(bytes)) => bytes.to_vec(),
                Some(PlanSource::Local(_)) => return Err(WireError::LocalPlan),
                None => Vec::new(),
            };
            Message::Start(pb::WorkOrder {
                id: Some((&order.id).into()),
                plan,
                sink_json: serde_json::to_string(&SinkJson(order.sink))?,
                context_json: serde_json::to_string(&order.settings)?,
                trace_parent: order.trace_parent,
            })
        }
        WorkerCommand::SetBoundaries { id, ranges } => Message::Boundaries(pb::SetBoundaries {
            id: Some((&id).into()),
            boundaries_json: serde_json::to_string(ranges.as_ref())?,
        }),
        WorkerCommand::Release { id } => Message::Release(pb::ReleaseOutput {
            id: Some((&id).into()),
        }),
        WorkerCommand::Repeat { id } => Message::Repeat(pb::RepeatStatus {
            id: Some((&id).into()),
        }),
        WorkerCommand::CancelTask { task } => Message::Cancel(pb::CancelTask {
            task_id: task.to_string(),
        }),
    };
    Ok(pb::WorkResponse {
        message: Some(message),
    })
}

fn required<T>(value: Option<T>, name: &'static str) -> Result<T, WireError> {
    value.ok_or(WireError::Missing(name))
}

/// A message as a command; none for a heartbeat.
pub fn command(message: pb::WorkResponse) -> Result<Option<WorkerCommand>, WireError> {
    use pb::work_response::Message;
    Ok(Some(match required(message.message, "its content")? {
        Message::Start(order) => {
            let SinkJson(sink) = serde_json::from_str(&order.sink_json)?;
            let settings: OrderSettings = serde_json::from_str(&order.context_json)?;
            let plan = (!order.plan.is_empty()).then(|| PlanSource::Encoded(order.plan.into()));
            let id = WorkOrderId::from(required(order.id, "the id of a work order")?);
            WorkerCommand::Start(Box::new(WorkOrder {
                id,
                plan,
                sink,
                settings,
                trace_parent: order.trace_parent,
            }))
        }
        Message::Boundaries(boundaries) => {
            let ranges: Vec<PartitionRange> = serde_json::from_str(&boundaries.boundaries_json)?;
            let id = WorkOrderId::from(required(boundaries.id, "the id of a work order")?);
            WorkerCommand::SetBoundaries {
                id,
                ranges: Arc::new(ranges),
            }
        }
        Message::Release(release) => WorkerCommand::Release {
            id: required(release.id, "the id of a work order")?.into(),
        },
        Message::Repeat(repeat) => WorkerCommand::Repeat {
            id: required(repeat.id, "the id of a work order")?.into(),
        },
        Message::Cancel(cancel) => WorkerCommand::CancelTask {
            task: TaskId::from(cancel.task_id),
        },
        Message::Heartbeat(_) => return Ok(None),
    }))
}

/// An event as a message of a session.
pub fn event_message(worker_id: &str, event: WorkerEvent) -> Result<pb::WorkRequest, WireError> {
    use pb::work_order_status::Status;
    use pb::work_request::Message;
    let status = |id: &WorkOrderId, status: Status| {
        Message::Status(pb::WorkOrderStatus {
            id: Some(id.into()),
            status: Some(status),
        })
    };
    let message = match event {
        WorkerEvent::InputRead {
            id,
            buckets,
            has_multiple_values,
        } => {
            let buckets = buckets.into_iter().map(bucket_message).collect();
            status(
                &id,
                Status::InputRead(pb::InputRead {
                    buckets,
                    has_multiple_values,
                }),
            )
        }
        WorkerEvent::OutputReady {
            id,
            partition_rows,
            segments,
        } => {
            let segments_json = segments
                .iter()
                .map(serde_json::to_string)
                .collect::<Result<_, _>>()?;
            status(
                &id,
                Status::OutputReady(pb::OutputReady {
                    partition_rows,
                    segments_json,
                }),
            )
        }
        WorkerEvent::Failed { id, fault } => {
            let report = ErrorReport {
                task_id: id.worker_task_id(),
                stage_number: Some(id.stage.0),
                fault: Some((&fault).into()),
                ..Default::default()
            };
            status(&id, Status::Failed(report))
        }
        WorkerEvent::Counters {
            id,
            sequence,
            counters,
            warnings,
        } => Message::Counters(pb::CounterUpdate {
            id: Some((&id).into()),
            sequence,
            counters,
            warnings,
        }),
    };
    Ok(pb::WorkRequest {
        worker_id: worker_id.to_owned(),
        message: Some(message),
    })
}

/// A heartbeat as a message of a session.
pub fn heartbeat_message(worker_id: &str, busy: usize, held: &[HeldOrder]) -> pb::WorkRequest {
    use pb::held_order::Step;
    let orders = held
        .iter()
        .map(|order| pb::HeldOrder {
            id: Some((&order.id).into()),
            step: match order.step {
                HeldStep::Running => Step::Running,
                HeldStep::InputRead => Step::InputRead,
                HeldStep::OutputReady => Step::OutputReady,
                HeldStep::Failed => Step::Failed,
            }
            .into(),
        })
        .collect();
    pb::WorkRequest {
        worker_id: worker_id.to_owned(),
        message: Some(pb::work_request::Message::Heartbeat(pb::Heartbeat {
            busy_slot_count: busy as u32,
            orders,
        })),
    }
}

/// What a heartbeat says of work orders.
pub fn held(heartbeat: pb::Heartbeat) -> Result<Vec<HeldOrder>, WireError> {
    use pb::held_order::Step;
    let order = |order: pb::HeldOrder| {
        let step = match Step::try_from(order.step).unwrap_or_default() {
            Step::Running => HeldStep::Running,
            Step::InputRead => HeldStep::InputRead,
            Step::OutputReady => HeldStep::OutputReady,
            Step::Failed => HeldStep::Failed,
            Step::Unspecified => return Err(WireError::Missing("the step of a work order")),
        };
        let id = required(order.id, "the id of a work order")?.into();
        Ok(HeldOrder { id, step })
    };
    heartbeat.orders.into_iter().map(order).collect()
}

fn bucket_message(bucket: BucketStatistics) -> pb::BucketStatistics {
    let (keys, key_weights) = bucket
        .keys
        .into_iter()
        .map(|(key, weight)| (key.to_vec(), weight))
        .unzip();
    pb::BucketStatistics {
        bucket_ms: bucket.bucket_ms,
        row_count: bucket.rows,
        weight: bucket.weight,
        keys,
        key_weights,
    }
}

/// A message as an event. Heartbeats are read by `held`.
pub fn event(message: pb::WorkRequest) -> Result<WorkerEvent, WireError> {
    use pb::work_order_status::Status;
    use pb::work_request::Message;
    Ok(match required(message.message, "its content")? {
        Message::Heartbeat(_) => return Err(WireError::Missing("a status")),
        Message::Counters(update) => WorkerEvent::Counters {
            id: required(update.id, "the id of a work order")?.into(),
            sequence: update.sequence,
            counters: update.counters,
            warnings: update.warnings,
        },
        Message::Status(status) => {
            let id = WorkOrderId::from(required(status.id, "the id of a work order")?);
            match required(status.status, "a status")? {
                Status::InputRead(read) => WorkerEvent::InputRead {
                    id,
                    buckets: read
                        .buckets
                        .into_iter()
                        .map(|bucket| BucketStatistics {
                            bucket_ms: bucket.bucket_ms,
                            rows: bucket.row_count,
                            weight: bucket.weight,
                            keys: bucket
                                .keys
                                .into_iter()
                                .map(Into::into)
                                .zip(bucket.key_weights)
                                .collect(),
                        })
                        .collect(),
                    has_multiple_values: read.has_multiple_values,
                },
                Status::OutputReady(ready) => {
                    let segments = ready
                        .segments_json
                        .iter()
                        .map(|text| serde_json::from_str::<SegmentRecord>(text))
                        .collect::<Result<_, _>>()?;
                    WorkerEvent::OutputReady {
                        id,
                        partition_rows: ready.partition_rows,
                        segments,
                    }
                }
                Status::Failed(report) => {
                    let fault = report
                        .fault
                        .map_or_else(|| Fault::unknown("no reason given"), Fault::from);
                    WorkerEvent::Failed { id, fault }
                }
            }
        }
    })
}
