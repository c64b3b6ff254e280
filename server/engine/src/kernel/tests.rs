use proptest::prelude::*;
use trilith_proto::fault::{CancelReason, Fault, FaultCode};
use trilith_proto::id::{AttemptNumber, StageNumber, WorkerNumber};

use super::{Action, Attempt, Event, FinishedStage, Kernel, Outcome, Phase, Shape, StageShape};

fn ingest_shape() -> Shape {
    Shape {
        stages: vec![
            StageShape {
                inputs: vec![],
                sorts: true,
                gathers_statistics: true,
                writes_segments: false,
                durable: false,
            },
            StageShape {
                inputs: vec![StageNumber(0)],
                sorts: false,
                gathers_statistics: false,
                writes_segments: true,
                durable: false,
            },
        ],
        publishes: true,
        fault_tolerant: false,
        deadline_ms: None,
        max_concurrent_stages: 1,
        start_timeout_ms: 600_000,
        lock_timeout_ms: 1_000,
        silence_ms: 10_000,
        task: "query-t".to_owned(),
    }
}

fn select_shape() -> Shape {
    let scan = StageShape {
        inputs: vec![],
        sorts: true,
        gathers_statistics: false,
        writes_segments: false,
        durable: false,
    };
    let limit = StageShape {
        inputs: vec![StageNumber(0)],
        sorts: false,
        gathers_statistics: false,
        writes_segments: false,
        durable: false,
    };
    Shape {
        stages: vec![scan, limit],
        publishes: false,
        fault_tolerant: false,
        deadline_ms: Some(10_000),
        max_concurrent_stages: 1,
        start_timeout_ms: 600_000,
        lock_timeout_ms: 1_000,
        silence_ms: 10_000,
        task: "query-t".to_owned(),
    }
}

const S0: StageNumber = StageNumber(0);
const S1: StageNumber = StageNumber(1);
const W0: WorkerNumber = WorkerNumber(0);
const W1: WorkerNumber = WorkerNumber(1);

fn first(worker: WorkerNumber) -> Attempt {
    Attempt {
        worker,
        number: AttemptNumber(0),
    }
}

fn launched(stage: StageNumber, workers: &[WorkerNumber]) -> Event {
    Event::Launched {
        stage,
        workers: workers.to_vec(),
    }
}

#[test]
fn independent_stages_are_active_together_up_to_the_limit() {
    let scan = StageShape {
        inputs: vec![],
        sorts: false,
        gathers_statistics: false,
        writes_segments: false,
        durable: false,
    };
    let join = StageShape {
        inputs: vec![S0, S1, StageNumber(2)],
        ..scan.clone()
    };
    let shape = Shape {
        stages: vec![scan.clone(), scan.clone(), scan, join],
        max_concurrent_stages: 2,
        ..select_shape()
    };
    let mut kernel = Kernel::new(shape);
    let launch = |stage| {
        vec![Action::Launch {
            stage: StageNumber(stage),
        }]
    };
    let launched = |stage| Event::Launched {
        stage: StageNumber(stage),
        workers: vec![W0],
    };
    let ready = |stage| Event::OutputReady {
        stage: StageNumber(stage),
        order: first(W0),
    };
    // One launch at a time asks for slots.
    assert_eq!(kernel.on_event(Event::Started, 0), launch(0));
    assert_eq!(kernel.on_event(launched(0), 0), launch(1));
    assert_eq!(kernel.on_event(launched(1), 0), []);
    assert_eq!(kernel.on_event(ready(1), 0), launch(2));
    assert_eq!(kernel.on_event(launched(2), 0), []);
    assert_eq!(kernel.on_event(ready(0), 0), []);
    assert_eq!(kernel.on_event(ready(2), 0), launch(3));
    assert_eq!(kernel.on_event(launched(3), 0), []);
    let last = kernel.on_event(ready(3), 0);
    assert_eq!(last.last(), Some(&Action::Publish), "{last:?}");
}

#[test]
fn an_ingestion_passes_every_phase_in_order() {
    let steps: Vec<(Event, Vec<Action>, Phase, Phase)> = vec![
        (
            Event::Started,
            vec![Action::Launch { stage: S0 }],
            Phase::ReadingInput,
            Phase::New,
        ),
        (launched(S0, &[W0, W1]), vec![], Phase::ReadingInput, Phase::New),
        (
            Event::InputRead {
                stage: S0,
                order: first(W1),
            },
            vec![],
            Phase::ReadingInput,
            Phase::New,
        ),
        (
            Event::InputRead {
                stage: S0,
                order: first(W1),
            },
            vec![],
            Phase::ReadingInput,
            Phase::New,
        ),
        (
            Event::InputRead {
                stage: S0,
                order: first(W0),
            },
            vec![Action::CutBoundaries { stage: S0 }],
            Phase::MergingStatistics,
            Phase::New,
        ),
        (
            Event::BoundariesCut {
                stage: S0,
                partition_count: 3,
            },
            vec![
                Action::SendBoundaries {
                    stage: S0,
                    order: first(W0),
                },
                Action::SendBoundaries {
                    stage: S0,
                    order: first(W1),
                },
            ],
            Phase::PostReading,
            Phase::New,
        ),
        (
            Event::OutputReady {
                stage: S0,
                order: first(W0),
            },
            vec![],
            Phase::PostReading,
            Phase::New,
        ),
        (
            Event::OutputReady {
                stage: S0,
                order: first(W1),
            },
            vec![Action::AllocateSegments { stage: S1 }],
            Phase::ResultsReady,
            Phase::ReadingInput,
        ),
        (
            Event::SegmentsAllocated { stage: S1 },
            vec![Action::Launch { stage: S1 }],
            Phase::ResultsReady,
            Phase::ReadingInput,
        ),
        (
            launched(S1, &[W0]),
            vec![],
            Phase::ResultsReady,
            Phase::ReadingInput,
        ),
        (
            Event::OutputReady {
                stage: S1,
                order: first(W0),
            },
            vec![Action::Release { stage: S0 }, Action::Publish],
            Phase::Finished,
            Phase::ResultsReady,
        ),
        (
            Event::Published,
            vec![Action::StopWorkers, Action::Finish(Outcome::Success)],
            Phase::Finished,
            Phase::Finished,
        ),
    ];
    let mut kernel = Kernel::new(ingest_shape());
    for (event, actions, first, second) in steps {
        let name = format!("{event:?}");
        assert_eq!(kernel.on_event(event, 0), actions, "{name}");
        assert_eq!(kernel.stages()[0].phase, first, "{name}");
        assert_eq!(kernel.stages()[1].phase, second, "{name}");
    }
    assert!(kernel.is_done());
    assert!(
        kernel
            .on_event(
                Event::Cancel {
                    reason: CancelReason::TaskShutdown
                },
                0
            )
            .is_empty()
    );
}

#[test]
fn a_lost_worker_fails_the_job_unless_nobody_needs_it() {
    let mut kernel = Kernel::new(ingest_shape());
    kernel.on_event(Event::Started, 0);
    kernel.on_event(launched(S0, &[W0, W1]), 0);
    let idle = Event::WorkersLost {
        workers: vec![WorkerNumber(7)],
        worker_task_id: "t-worker7_0".into(),
        reason: "gone".into(),
    };
    assert!(kernel.on_event(idle, 0).is_empty());
    let lost = Event::WorkersLost {
        workers: vec![W1],
        worker_task_id: "t-worker1_0".into(),
        reason: "gone".into(),
    };
    let actions = kernel.on_event(lost, 0);
    assert_eq!(actions[0], Action::StopWorkers);
    match &actions[1] {
        Action::Finish(Outcome::Failed { fault, stage }) => {
            assert_eq!(fault.code, FaultCode::WorkerFailed);
            assert_eq!(*stage, Some(S0));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_timeout_cancels_and_a_publish_that_began_is_not_cancelled() {
    let mut kernel = Kernel::new(select_shape());
    kernel.on_event(Event::Started, 0);
    assert!(kernel.on_event(Event::Tick, 9_999).is_empty());
    let actions = kernel.on_event(Event::Tick, 10_000);
    match &actions[..] {
        [
            Action::StopWorkers,
            Action::Finish(Outcome::Failed { fault, stage: None }),
        ] => {
            assert_eq!(fault.code, FaultCode::Canceled);
        }
        other => panic!("{other:?}"),
    }
    let mut kernel = Kernel::new(ingest_shape());
    for event in [
        Event::Started,
        launched(S0, &[W0]),
        Event::InputRead {
            stage: S0,
            order: first(W0),
        },
        Event::BoundariesCut {
            stage: S0,
            partition_count: 1,
        },
        Event::OutputReady {
            stage: S0,
            order: first(W0),
        },
        Event::SegmentsAllocated { stage: S1 },
        launched(S1, &[W0]),
        Event::OutputReady {
            stage: S1,
            order: first(W0),
        },
    ] {
        kernel.on_event(event, 0);
    }
    assert!(
        kernel
            .on_event(
                Event::Cancel {
                    reason: CancelReason::TaskShutdown
                },
                0
            )
            .is_empty()
    );
    assert_eq!(
        kernel.on_event(Event::Published, 0).last(),
        Some(&Action::Finish(Outcome::Success))
    );
}

#[test]
fn a_launch_that_never_answers_ends_in_a_fault() {
    let mut kernel = Kernel::new(ingest_shape());
    kernel.on_event(Event::Started, 0);
    let actions = kernel.on_event(Event::Tick, 1_000_000);
    assert!(matches!(
        actions.last(),
        Some(Action::Finish(Outcome::Failed { .. }))
    ));
}

fn any_event() -> impl Strategy<Value = Event> {
    let stage = (0u32..3).prop_map(StageNumber);
    let worker = (0u32..3).prop_map(WorkerNumber);
    prop_oneof![
        Just(Event::Started),
        (stage.clone(), proptest::collection::vec(worker.clone(), 1..3))
            .prop_map(|(stage, workers)| Event::Launched { stage, workers }),
        (stage.clone(), worker.clone()).prop_map(|(stage, worker)| Event::InputRead {
            stage,
            order: first(worker)
        }),
        (stage.clone(), 0u32..4).prop_map(|(stage, partition_count)| Event::BoundariesCut {
            stage,
            partition_count
        }),
        stage.clone().prop_map(|stage| Event::SegmentsAllocated { stage }),
        (stage.clone(), worker.clone()).prop_map(|(stage, worker)| Event::OutputReady {
            stage,
            order: first(worker)
        }),
        stage.prop_map(|stage| Event::StageFailed {
            stage,
            fault: Fault::unknown("x")
        }),
        worker.prop_map(|worker| Event::WorkersLost {
            workers: vec![worker],
            worker_task_id: "w".into(),
            reason: "r".into()
        }),
        Just(Event::Published),
        Just(Event::Cancel {
            reason: CancelReason::UserRequest
        }),
        Just(Event::Tick),
    ]
}

proptest! {
    /// Any order of events: at most one end, one publish, success only after it, no stage before its inputs.
    #[test]
    fn any_history_keeps_the_invariants(
        events in proptest::collection::vec(any_event(), 0..120),
        ingest in any::<bool>(),
    ) {
        let shape = if ingest { ingest_shape() } else { select_shape() };
        let mut kernel = Kernel::new(shape.clone());
        let (mut ends, mut publishes) = (0, 0);
        for event in events {
            let published = matches!(event, Event::Published);
            for action in kernel.on_event(event, 0) {
                match action {
                    Action::Launch { stage } | Action::AllocateSegments { stage } => {
                        for input in &shape.stages[stage.0 as usize].inputs {
                            prop_assert_eq!(kernel.stages()[input.0 as usize].phase, Phase::ResultsReady);
                        }
                    }
                    Action::Publish => publishes += 1,
                    Action::Finish(outcome) => {
                        ends += 1;
                        if outcome == Outcome::Success {
                            prop_assert!(!ingest || (publishes == 1 && published));
                            prop_assert!(kernel.stages().iter().all(|s| s.phase == Phase::Finished));
                        }
                    }
                    _ => {}
                }
            }
        }
        prop_assert!(ends <= 1 && publishes <= 1);
        prop_assert_eq!(ends == 1, kernel.is_done());
    }
}

fn resumed(outputs: Option<Vec<Attempt>>) -> Event {
    let stage = FinishedStage {
        stage: S0,
        outputs,
        partition_count: 3,
    };
    Event::Resumed { stages: vec![stage] }
}

#[test]
fn what_an_earlier_run_finished_is_not_launched_again() {
    let shape = Shape {
        fault_tolerant: true,
        ..select_shape()
    };
    let second = Attempt {
        worker: W0,
        number: AttemptNumber(1),
    };
    let mut kernel = Kernel::new(shape.clone());
    assert!(
        kernel
            .on_event(resumed(Some(vec![second, first(W1)])), 0)
            .is_empty()
    );
    let launch = kernel.on_event(Event::Started, 0);
    assert_eq!(launch, [Action::Launch { stage: S1 }]);
    assert_eq!(kernel.stages()[0].phase, Phase::ResultsReady);
    // Too late: the job has started.
    let mut late = Kernel::new(shape.clone());
    late.on_event(Event::Started, 0);
    late.on_event(resumed(Some(vec![first(W0)])), 0);
    assert_eq!(late.stages()[0].phase, Phase::ReadingInput);
    // Its worker is lost after all.
    kernel.on_event(launched(S1, &[W0]), 0);
    let lost = kernel.on_event(
        Event::WorkersLost {
            workers: vec![W0],
            worker_task_id: "w".to_owned(),
            reason: "gone".to_owned(),
        },
        1,
    );
    let third = Attempt {
        worker: W0,
        number: AttemptNumber(2),
    };
    assert!(lost.contains(&Action::Relaunch {
        stage: S0,
        orders: vec![third],
    }));
}

#[test]
fn outputs_that_nobody_needs_any_more_may_be_gone() {
    let mut shape = Shape {
        fault_tolerant: true,
        ..select_shape()
    };
    shape.stages.iter_mut().for_each(|stage| stage.durable = true);
    let mut kernel = Kernel::new(shape);
    kernel.on_event(resumed(None), 0);
    let last = FinishedStage {
        stage: S1,
        outputs: Some(vec![first(W0)]),
        partition_count: 1,
    };
    kernel.on_event(Event::Resumed { stages: vec![last] }, 0);
    assert_eq!(kernel.on_event(Event::Started, 0), [Action::Publish]);
    let phases: Vec<Phase> = kernel.stages().iter().map(|stage| stage.phase).collect();
    assert_eq!(phases, [Phase::Finished, Phase::ResultsReady]);
}
