#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use serde_json::json;
use trilith_proto::interval::Interval;
use trilith_segment::{SegmentRecord, ShardSpec};

use crate::*;

fn task(id: &str, created_ms: i64) -> TaskRecord {
    TaskRecord {
        id: id.to_owned(),
        statement: "INSERT".to_owned(),
        datasource: "t".to_owned(),
        sql: "INSERT".to_owned(),
        context: json!({}),
        payload: json!({}),
        created_ms,
        state: TaskState::Running,
        duration_ms: -1,
        fault: None,
        error_message: None,
    }
}

fn segment(start_ms: i64, version: &str, number: u32) -> SegmentRecord {
    SegmentRecord {
        shard_spec: ShardSpec::Numbered {
            partition_num: number,
            partitions: 1,
        },
        ..SegmentRecord::tombstone(
            "t",
            Interval {
                start_ms,
                end_ms: start_ms + 10,
            },
            version,
            0,
        )
    }
}

fn ended(id: &str) -> TaskRecord {
    TaskRecord {
        state: TaskState::Success,
        duration_ms: 5,
        ..task(id, 1)
    }
}

/// What every store must do.
fn contract(store: &dyn MetadataStore) {
    store.put_task(&task("a", 1)).unwrap();
    store.put_task(&task("b", 2)).unwrap();
    assert!(matches!(
        store.put_task(&task("a", 9)),
        Err(MetadataError::AlreadyExists(_))
    ));
    assert_eq!(store.task("a").unwrap().unwrap(), task("a", 1));
    assert_eq!(store.task("x").unwrap(), None);

    let first = store
        .tasks(&TaskFilter {
            limit: 1,
            ..Default::default()
        })
        .unwrap();
    assert_eq!(first.tasks[0].id, "b");
    let second = store
        .tasks(&TaskFilter {
            limit: 1,
            after: first.next,
            ..Default::default()
        })
        .unwrap();
    assert_eq!(second.tasks[0].id, "a");
    assert_eq!(second.next, None);

    let publish = Publish {
        task: ended("a"),
        report: b"report".to_vec(),
        segments: vec![segment(0, "1", 0), segment(10, "1", 0)],
        unused: Vec::new(),
    };
    store.publish(&publish).unwrap();
    assert_eq!(store.report("a").unwrap().unwrap(), b"report");
    assert_eq!(store.used_segments(Some("t")).unwrap().len(), 2);
    assert_eq!(store.used_segments(Some("other")).unwrap().len(), 0);
    // Publishing twice, or for nobody, or over a segment that is there, changes nothing.
    let over = Publish {
        task: ended("b"),
        ..publish.clone()
    };
    assert!(matches!(store.publish(&over), Err(MetadataError::Conflict(_))));
    assert_eq!(store.task("b").unwrap().unwrap().state, TaskState::Running);
    let again = Publish {
        segments: vec![segment(20, "1", 0)],
        ..publish
    };
    assert!(matches!(store.publish(&again), Err(MetadataError::Ended(_))));
    let nobody = Publish {
        task: ended("x"),
        ..again.clone()
    };
    assert!(matches!(store.publish(&nobody), Err(MetadataError::NotFound(_))));
    assert_eq!(store.used_segments(None).unwrap().len(), 2);

    let replace = Publish {
        task: ended("b"),
        segments: vec![segment(0, "2", 0)],
        unused: vec![segment(0, "1", 0).segment_id()],
        ..again
    };
    store.publish(&replace).unwrap();
    let mut versions: Vec<String> = store
        .used_segments(Some("t"))
        .unwrap()
        .into_iter()
        .map(|record| record.version)
        .collect();
    versions.sort();
    assert_eq!(versions, ["1", "2"]);
    let running = TaskFilter {
        states: vec![TaskState::Running],
        ..Default::default()
    };
    assert!(store.tasks(&running).unwrap().tasks.is_empty());
}

#[test]
fn memory_store_keeps_the_contract() {
    contract(&MemoryStore::default());
}

#[test]
fn sled_store_keeps_the_contract_and_survives_reopening() {
    let directory = tempfile::tempdir().unwrap();
    contract(&SledStore::open(directory.path()).unwrap());
    let store = SledStore::open(directory.path()).unwrap();
    assert_eq!(store.task("a").unwrap().unwrap().state, TaskState::Success);
    assert_eq!(store.report("b").unwrap().unwrap(), b"report");
    assert_eq!(store.used_segments(None).unwrap().len(), 2);
}

const ALL: [Interval; 1] = [Interval {
    start_ms: 0,
    end_ms: 100,
}];
const SHORT: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn exclusive_locks_wait_and_shared_ones_do_not() {
    let locks = LockManager::default();
    let first = locks
        .acquire("1", "t", &ALL, LockKind::Shared, 0, LONG)
        .await
        .unwrap();
    let second = locks
        .acquire("2", "t", &ALL, LockKind::Shared, 0, LONG)
        .await
        .unwrap();
    assert!(second.version() > first.version());
    assert!(
        locks
            .acquire("3", "t", &ALL, LockKind::Exclusive, 0, SHORT)
            .await
            .is_none()
    );
    assert!(
        locks
            .acquire("3", "other", &ALL, LockKind::Exclusive, 0, LONG)
            .await
            .is_some()
    );
    let mut waiting = tokio::task::JoinSet::new();
    waiting.spawn({
        let locks = locks.clone();
        async move {
            locks
                .acquire("3", "t", &ALL, LockKind::Exclusive, 0, LONG)
                .await
                .is_some()
        }
    });
    while !locks.is_waiting("3") {
        tokio::task::yield_now().await;
    }
    // Fair: who comes later does not overtake.
    assert!(
        locks
            .acquire("4", "t", &ALL, LockKind::Shared, 0, SHORT)
            .await
            .is_none()
    );
    drop((first, second));
    assert!(waiting.join_next().await.unwrap().unwrap());
}

fn allocate(
    allocator: &Allocator,
    task: &str,
    chunk: Interval,
    used: &[SegmentRecord],
    version: &str,
) -> Result<Allocation, AllocationError<MetadataError>> {
    let mut all = allocator.allocate_all(task, "t", &[(chunk, 1)], version, || Ok(used.to_vec()))?;
    Ok(all.remove(0))
}

fn numbered(number: u32, core: u32) -> ShardSpec {
    ShardSpec::Numbered {
        partition_num: number,
        partitions: core,
    }
}

#[test]
fn allocates_numbers_once() {
    let allocator = Allocator::default();
    let chunk = Interval {
        start_ms: 0,
        end_ms: 10,
    };
    let used = [segment(0, "1", 0)];
    let first = allocate(&allocator, "a", chunk, &used, "5").unwrap();
    assert_eq!(
        first,
        Allocation {
            version: "1".to_owned(),
            shard_spec: numbered(1, 1)
        }
    );
    let second = allocate(&allocator, "b", chunk, &used, "6").unwrap();
    assert_eq!(second.shard_spec, numbered(2, 1));
    let empty = Interval {
        start_ms: 50,
        end_ms: 60,
    };
    let opened = allocate(&allocator, "a", empty, &used, "5").unwrap();
    assert_eq!(
        opened,
        Allocation {
            version: "5".to_owned(),
            shard_spec: numbered(0, 0)
        }
    );
    let joined = allocate(&allocator, "b", empty, &used, "6").unwrap();
    assert_eq!(
        joined,
        Allocation {
            version: "5".to_owned(),
            shard_spec: numbered(1, 0)
        }
    );
    allocator.release("a");
    allocator.release("b");
    assert_eq!(
        allocate(&allocator, "c", chunk, &used, "7").unwrap().shard_spec,
        numbered(1, 1)
    );
}

#[test]
fn appends_of_another_granularity_are_refused_published_or_not() {
    let allocator = Allocator::default();
    let (coarse, fine) = (
        Interval {
            start_ms: 0,
            end_ms: 10,
        },
        Interval {
            start_ms: 0,
            end_ms: 5,
        },
    );
    let used = [segment(0, "1", 0)];
    let refused = |result| match result {
        Err(AllocationError::Covered { allocated, .. }) => allocated,
        _ => panic!("allocated"),
    };
    assert_eq!(refused(allocate(&allocator, "a", fine, &used, "5")), Some(coarse));
    allocate(&allocator, "a", coarse, &[], "5").unwrap();
    assert_eq!(refused(allocate(&allocator, "b", fine, &[], "6")), Some(coarse));
}

#[test]
fn appends_after_a_tombstone_share_a_version_above_it() {
    let allocator = Allocator::default();
    let chunk = Interval {
        start_ms: 0,
        end_ms: 10,
    };
    let used = [SegmentRecord::tombstone("t", chunk, "4", 0)];
    let first = allocate(&allocator, "a", chunk, &used, "5").unwrap();
    let second = allocate(&allocator, "b", chunk, &used, "6").unwrap();
    assert_eq!(
        (first.version, first.shard_spec),
        ("5".to_owned(), numbered(0, 0))
    );
    assert_eq!(
        (second.version, second.shard_spec),
        ("5".to_owned(), numbered(1, 0))
    );
}

#[tokio::test]
async fn versions_never_go_back() {
    let future = 4_000_000_000_000;
    let locks = LockManager::new(future);
    let lease = locks
        .acquire("1", "t", &ALL, LockKind::Shared, 0, LONG)
        .await
        .unwrap();
    assert!(lease.version() > trilith_proto::interval::iso(future).as_str());
}
