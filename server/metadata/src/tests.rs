#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use trilith_proto::interval::{Granularity, Interval};
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
        parameters: Vec::new(),
        run: 0,
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

fn owner(task: &str, priority: i32) -> LockOwner {
    LockOwner {
        task: task.to_owned(),
        priority,
        revoked: CancellationToken::new(),
    }
}

fn request(locks: &LockManager, owner: &LockOwner, kind: LockKind, intervals: &[Interval]) -> PendingLock {
    let wanted = LockRequest {
        datasource: "t".to_owned(),
        intervals: intervals.to_vec(),
        kind,
    };
    locks.request(owner, wanted)
}

async fn lock(locks: &LockManager, task: &str, kind: LockKind, intervals: &[Interval]) -> Option<LockLease> {
    request(locks, &owner(task, 0), kind, intervals)
        .granted(SHORT)
        .await
        .ok()
}

/// Leave to publish anywhere in these intervals.
async fn permit(kind: LockKind, intervals: &[Interval]) -> PublishPermit {
    let locks = LockManager::default();
    let lease = lock(&locks, "permit", kind, intervals).await.unwrap();
    locks.permit(&[Arc::new(lease)]).unwrap()
}

fn interval(start_ms: i64, end_ms: i64) -> Interval {
    Interval { start_ms, end_ms }
}

async fn append(segments: Vec<SegmentRecord>) -> Change {
    let permit = permit(LockKind::Append, &[interval(0, 100)]).await;
    Change::Append(Append { permit, segments })
}

/// A REPLACE of `[0, 20)` by chunks of a day, that is whole.
async fn replace(version: &str, base: &SegmentView, segments: Vec<SegmentRecord>) -> Change {
    Change::Replace(Replace {
        permit: permit(LockKind::Replace, &[interval(0, 20)]).await,
        segments,
        overwrite: vec![interval(0, 20)],
        granularity: Granularity::All,
        version: version.to_owned(),
        base: Arc::new(SegmentView::new(base.used().to_vec())),
        tombstones_max: 10,
        created_ms: 0,
    })
}

fn publish(task: &str, change: Change) -> Publish {
    Publish {
        task: ended(task),
        report: b"report".to_vec(),
        change,
    }
}

/// What is visible: start, version, number.
fn shown(store: &dyn MetadataStore) -> Vec<(i64, String, u32)> {
    let view = store.segments("t");
    let shown = view
        .visible()
        .iter()
        .filter(|segment| !segment.record.is_tombstone());
    shown
        .map(|segment| {
            let record = &segment.record;
            (
                record.interval.start_ms,
                record.version.clone(),
                record.partition_number(),
            )
        })
        .collect()
}

fn place(start: i64, version: &str, number: u32) -> (i64, String, u32) {
    (start, version.to_owned(), number)
}

/// What every store must do with segments that are put aside.
async fn marks(store: &dyn MetadataStore) {
    store.put_task(&task("a", 1)).unwrap();
    let segments = vec![segment(0, "1", 0), segment(10, "1", 0)];
    let ids: Vec<String> = segments.iter().map(SegmentRecord::segment_id).collect();
    store.publish(&publish("a", append(segments).await)).unwrap();
    let within = |start, end, versions: Option<&str>| Selection::Interval {
        interval: interval(start, end),
        versions: versions.map(|version| vec![version.to_owned()]),
    };
    // Only what lies inside, and of the version.
    for selection in [
        within(0, 9, None),
        within(0, 10, Some("2")),
        Selection::Ids(vec!["x".to_owned()]),
    ] {
        assert_eq!(store.mark_unused("t", &selection).unwrap(), 0, "{selection:?}");
    }
    assert_eq!(store.mark_unused("t", &within(0, 10, Some("1"))).unwrap(), 1);
    assert_eq!(store.mark_unused("other", &Selection::All).unwrap(), 0);
    assert_eq!(store.unused(Some("t")).unwrap().len(), 1);
    assert_eq!(store.unused(Some("other")).unwrap().len(), 0);
    let used = |store: &dyn MetadataStore| store.segments("t").used().len();
    assert_eq!(used(store), 1);
    assert_eq!(store.mark_used("t", &Selection::Ids(ids.clone())).unwrap(), 1);
    assert_eq!(store.mark_used("t", &Selection::Ids(ids.clone())).unwrap(), 0);
    assert_eq!(shown(store).len(), 2);
    // An unused segment keeps its place: what is appended gets another one.
    assert_eq!(store.mark_unused("t", &within(0, 10, None)).unwrap(), 1);
    store.put_task(&task("b", 2)).unwrap();
    store
        .publish(&publish("b", append(vec![segment(0, "1", 0)]).await))
        .unwrap();
    assert_eq!(store.segments("t").used()[0].record.partition_number(), 1);
    assert_eq!(store.mark_used("t", &Selection::All).unwrap(), 1);
    assert_eq!(used(store), 3);
    // What a newer version hides does not come back.
    assert_eq!(store.mark_unused("t", &Selection::All).unwrap(), 3);
    store.put_task(&task("c", 3)).unwrap();
    store
        .publish(&publish("c", append(vec![segment(0, "2", 0)]).await))
        .unwrap();
    assert_eq!(store.mark_used("t", &Selection::All).unwrap(), 1);
    assert_eq!(shown(store), [place(0, "2", 0), place(10, "1", 0)]);
    // Deleted for good: only unused ones inside.
    assert_eq!(store.forget_unused("t", interval(0, 9)).unwrap().len(), 0);
    assert_eq!(store.forget_unused("t", interval(0, 20)).unwrap().len(), 2);
    assert_eq!(store.unused(None).unwrap().len(), 0);
    assert_eq!(used(store), 2);
}

#[tokio::test]
async fn segments_are_put_aside_and_come_back() {
    marks(&MemoryStore::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::open(directory.path()).unwrap();
    marks(&store).await;
    store.mark_unused("t", &Selection::All).unwrap();
    drop(store);
    let store = SledStore::open(directory.path()).unwrap();
    assert_eq!(store.segments("t").used().len(), 0);
    assert_eq!(store.unused(None).unwrap().len(), 2);
}

/// What every store must do.
async fn contract(store: &dyn MetadataStore) {
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

    for (stage, note) in [(1, "b"), (256, "c"), (0, "x"), (0, "a")] {
        store.put_checkpoint("a", stage, note.as_bytes()).unwrap();
    }
    store.put_checkpoint("b", 0, b"other").unwrap();
    assert_eq!(store.checkpoints("a").unwrap(), [b"a", b"b", b"c"]);
    store
        .publish(&publish(
            "a",
            append(vec![segment(0, "1", 0), segment(10, "1", 0)]).await,
        ))
        .unwrap();
    assert_eq!(store.checkpoints("a").unwrap(), Vec::<Vec<u8>>::new());
    assert_eq!(store.checkpoints("b").unwrap(), [b"other"]);
    assert_eq!(store.report("a").unwrap().unwrap(), b"report");
    assert_eq!(shown(store), [place(0, "1", 0), place(10, "1", 0)]);
    assert_eq!(store.segments("other").used().len(), 0);
    // Publishing twice, or for nobody, or outside the locks, changes nothing.
    let outside = append(vec![segment(95, "1", 0)]).await;
    assert!(matches!(
        store.publish(&publish("b", outside)),
        Err(MetadataError::NotLocked(_))
    ));
    assert_eq!(store.task("b").unwrap().unwrap().state, TaskState::Running);
    let again = append(vec![segment(20, "1", 0)]).await;
    assert!(matches!(
        store.publish(&publish("a", again.clone())),
        Err(MetadataError::Ended(_))
    ));
    assert!(matches!(
        store.publish(&publish("x", again)),
        Err(MetadataError::NotFound(_))
    ));
    assert_eq!(shown(store).len(), 2);

    // What a REPLACE hides is gone, what it left out is a tombstone; an older view stays as it was.
    let before = store.segments("t");
    store
        .publish(&publish(
            "b",
            replace("2", &before, vec![segment(0, "2", 0)]).await,
        ))
        .unwrap();
    assert_eq!(shown(store), [place(0, "2", 0)]);
    let ids: Vec<String> = store
        .segments("t")
        .used()
        .iter()
        .map(|segment| segment.id.clone())
        .collect();
    let tombstone = SegmentRecord::tombstone("t", interval(10, 20), "2", 0);
    assert_eq!(ids, [segment(0, "2", 0).segment_id(), tombstone.segment_id()]);
    assert_eq!(before.visible().len(), 2);
    assert_eq!(store.all_segments()["t"].used().len(), 2);
    let running = TaskFilter {
        states: vec![TaskState::Running],
        ..Default::default()
    };
    assert!(store.tasks(&running).unwrap().tasks.is_empty());
    runs(store);
}

/// Only the newest run of a task may end it, whatever became of the server of the run before.
fn runs(store: &dyn MetadataStore) {
    store.put_task(&task("runs", 1)).unwrap();
    let second = store.rerun_task("runs").unwrap();
    assert_eq!((second.run, second.state), (1, TaskState::Running));
    let publish = |run| Publish {
        task: TaskRecord { run, ..ended("runs") },
        report: Vec::new(),
        change: Change::None,
    };
    for run in [0, 2] {
        let error = store.publish(&publish(run)).unwrap_err();
        assert!(
            matches!(error, MetadataError::OtherRun { current: 1, .. }),
            "{error}"
        );
    }
    store.publish(&publish(1)).unwrap();
    assert!(matches!(store.rerun_task("runs"), Err(MetadataError::Ended(_))));
    assert!(matches!(
        store.rerun_task("none"),
        Err(MetadataError::NotFound(_))
    ));
}

#[tokio::test]
async fn memory_store_keeps_the_contract() {
    contract(&MemoryStore::default()).await;
}

#[tokio::test]
async fn sled_store_keeps_the_contract_and_survives_reopening() {
    let directory = tempfile::tempdir().unwrap();
    contract(&SledStore::open(directory.path()).unwrap()).await;
    let store = SledStore::open(directory.path()).unwrap();
    assert_eq!(store.task("a").unwrap().unwrap().state, TaskState::Success);
    assert_eq!(store.report("b").unwrap().unwrap(), b"report");
    assert_eq!(store.segments("t").used().len(), 2);
    assert_eq!(shown(&store), [place(0, "2", 0)]);
}

/// A store with tasks "a" to "e" and one segment at 0, version "1".
async fn store() -> MemoryStore {
    let store = MemoryStore::default();
    for (age, task_id) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        store.put_task(&task(task_id, age as i64)).unwrap();
    }
    store
        .publish(&publish("a", append(vec![segment(0, "1", 0)]).await))
        .unwrap();
    store
}

#[tokio::test]
async fn a_replace_keeps_what_was_appended_while_it_ran() {
    let store = store().await;
    let base = store.segments("t");
    // One append to the chunk, one to an empty chunk, both before the REPLACE ends.
    let empty = SegmentRecord {
        shard_spec: numbered(0, 0),
        ..segment(10, "1970", 0)
    };
    store
        .publish(&publish("b", append(vec![segment(0, "1", 1), empty]).await))
        .unwrap();
    let new = vec![segment(0, "2", 0)];
    store
        .publish(&publish("c", replace("2", &base, new).await))
        .unwrap();
    let after = [place(0, "2", 0), place(0, "2", 1), place(10, "2", 0)];
    assert_eq!(shown(&store), after);
    // One that was given its place before, and comes after.
    store
        .publish(&publish("d", append(vec![segment(0, "1", 2)]).await))
        .unwrap();
    assert_eq!(
        shown(&store),
        [
            place(0, "2", 0),
            place(0, "2", 1),
            place(0, "2", 2),
            place(10, "2", 0)
        ]
    );
    // The next REPLACE knows them all, and leaves a tombstone; an append to it is visible.
    let base = store.segments("t");
    store
        .publish(&publish("e", replace("3", &base, Vec::new()).await))
        .unwrap();
    assert_eq!(shown(&store), []);
    store.put_task(&task("f", 9)).unwrap();
    store
        .publish(&publish("f", append(vec![segment(0, "2", 3)]).await))
        .unwrap();
    assert_eq!(shown(&store), [place(0, "3", 1)]);
}

#[tokio::test]
async fn an_append_shows_when_its_chunk_was_put_aside_meanwhile() {
    let store = store().await;
    assert_eq!(store.mark_unused("t", &Selection::All).unwrap(), 1);
    // It was given its place behind the core partition that is gone.
    store
        .publish(&publish("b", append(vec![segment(0, "1", 1)]).await))
        .unwrap();
    assert_eq!(shown(&store), [place(0, "1", 1)]);
    assert_eq!(store.mark_used("t", &Selection::All).unwrap(), 1);
    assert_eq!(shown(&store), [place(0, "1", 0), place(0, "1", 1)]);
}

#[tokio::test]
async fn files_of_replaced_segments_go_when_nobody_reads_them() {
    let store = store().await;
    let with_file = |segment: SegmentRecord, path: &str| SegmentRecord {
        path: Some(path.to_owned()),
        ..segment
    };
    let base = store.segments("t");
    let first = with_file(segment(0, "2", 0), "first");
    store
        .publish(&publish("b", replace("2", &base, vec![first]).await))
        .unwrap();
    // Appended while the next REPLACE runs: it gets another place, and keeps its file.
    let base = store.segments("t");
    let appended = with_file(segment(0, "2", 1), "appended");
    store
        .publish(&publish("c", append(vec![appended]).await))
        .unwrap();
    let reader = store.segments("t");
    let second = with_file(segment(0, "3", 0), "second");
    store
        .publish(&publish("d", replace("3", &base, vec![second]).await))
        .unwrap();
    assert_eq!(shown(&store), [place(0, "3", 0), place(0, "3", 1)]);
    assert!(store.take_unread_files().is_empty());
    drop(reader);
    assert!(store.take_unread_files().is_empty());
    drop(base);
    assert_eq!(store.take_unread_files(), ["first"]);
    assert!(store.take_unread_files().is_empty());
    // What is put aside can come back.
    assert_eq!(store.mark_unused("t", &Selection::All).unwrap(), 2);
    assert!(store.take_unread_files().is_empty());
}

#[tokio::test]
async fn an_append_whose_number_is_taken_gets_the_next() {
    let store = store().await;
    store
        .publish(&publish(
            "b",
            append(vec![segment(0, "1", 0), segment(0, "1", 5)]).await,
        ))
        .unwrap();
    assert_eq!(
        shown(&store),
        [place(0, "1", 0), place(0, "1", 1), place(0, "1", 5)]
    );
}

const ALL: [Interval; 1] = [Interval {
    start_ms: 0,
    end_ms: 100,
}];
const SHORT: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_secs(60);

/// Waits for a lock beside the test.
fn wait_beside(pending: PendingLock) -> tokio::task::JoinSet<Option<LockLease>> {
    let mut waiting = tokio::task::JoinSet::new();
    waiting.spawn(async move { pending.granted(LONG).await.ok() });
    waiting
}

#[tokio::test]
async fn kinds_of_locks_share_as_they_may() {
    use LockKind::{Append, Exclusive, Replace, Shared};
    let (inner, outer, part) = (interval(10, 20), interval(0, 100), interval(15, 25));
    // (held, wanted, may)
    let cases = [
        ((Exclusive, outer), (Exclusive, inner), false),
        ((Exclusive, outer), (Shared, inner), false),
        ((Exclusive, outer), (Append, inner), false),
        ((Exclusive, outer), (Replace, inner), false),
        ((Shared, outer), (Exclusive, inner), false),
        ((Shared, outer), (Shared, inner), true),
        ((Shared, outer), (Append, inner), false),
        ((Shared, outer), (Replace, inner), false),
        ((Append, inner), (Exclusive, outer), false),
        ((Append, inner), (Shared, outer), false),
        ((Append, inner), (Append, part), true),
        ((Append, inner), (Replace, outer), true),
        ((Append, inner), (Replace, part), false),
        ((Append, outer), (Replace, inner), false),
        ((Replace, outer), (Exclusive, inner), false),
        ((Replace, outer), (Shared, inner), false),
        ((Replace, outer), (Append, inner), true),
        ((Replace, inner), (Append, part), false),
        ((Replace, outer), (Replace, inner), false),
        ((Exclusive, inner), (Exclusive, interval(20, 30)), true),
    ];
    for (held, wanted, may) in cases {
        let locks = LockManager::default();
        let first = lock(&locks, "1", held.0, &[interval(200, 201), held.1])
            .await
            .unwrap();
        first.begin(SHORT).await.unwrap();
        let second = lock(&locks, "2", wanted.0, &[wanted.1, interval(300, 301)]).await;
        assert_eq!(second.is_some(), may, "{held:?} {wanted:?}");
        // A task does not stand in its own way.
        assert!(lock(&locks, "1", wanted.0, &[wanted.1]).await.is_some() || second.is_some());
        drop(first);
        drop(second);
        assert!(lock(&locks, "2", wanted.0, &[wanted.1]).await.is_some());
    }
}

#[tokio::test]
async fn who_asks_first_is_served_first() {
    let locks = LockManager::default();
    let first = lock(&locks, "1", LockKind::Shared, &ALL).await.unwrap();
    let second = lock(&locks, "2", LockKind::Shared, &ALL).await.unwrap();
    assert!(second.version().unwrap() > first.version().unwrap());
    let third = request(&locks, &owner("3", 0), LockKind::Exclusive, &ALL);
    assert!(locks.is_waiting("3"));
    // Shared as the first two, but later than one that is not.
    let late = request(&locks, &owner("4", 0), LockKind::Shared, &ALL);
    assert_eq!(late.granted(SHORT).await.err().unwrap(), ["3"]);
    let mut waiting = wait_beside(third);
    drop((first, second));
    let third = waiting.join_next().await.unwrap().unwrap().unwrap();
    assert!(!locks.is_waiting("3"));
    let active = locks.active();
    assert_eq!(active.len(), 1);
    assert_eq!(
        (active[0].task.as_str(), active[0].kind),
        ("3", LockKind::Exclusive)
    );
    assert_eq!(Some(active[0].version.clone()), third.version());
}

#[tokio::test]
async fn a_higher_priority_takes_locks_unless_their_holder_publishes() {
    let locks = LockManager::default();
    let (low, high) = (owner("low", 1), owner("high", 2));
    let held = request(&locks, &low, LockKind::Exclusive, &ALL)
        .granted(SHORT)
        .await
        .unwrap();
    let held = Arc::new(held);
    let permit = locks.permit(std::slice::from_ref(&held)).unwrap();
    let mut waiting = wait_beside(request(&locks, &high, LockKind::Exclusive, &ALL));
    tokio::task::yield_now().await;
    assert!(locks.is_waiting("high") && !low.revoked.is_cancelled());
    // The lock outlives its lease while the permit is used.
    drop(held);
    assert_eq!(locks.active().len(), 1);
    drop(permit);
    let taken = waiting.join_next().await.unwrap().unwrap().unwrap();

    let low = owner("low", 1);
    let mut waiting = wait_beside(request(&locks, &low, LockKind::Shared, &ALL));
    drop(taken);
    let held = waiting.join_next().await.unwrap().unwrap().unwrap();
    let taken = request(&locks, &high, LockKind::Exclusive, &ALL)
        .granted(SHORT)
        .await
        .unwrap();
    assert!(low.revoked.is_cancelled() && !high.revoked.is_cancelled());
    assert!(locks.permit(&[Arc::new(held)]).is_none());
    assert!(locks.permit(&[Arc::new(taken)]).is_some());
    // An equal priority takes nothing.
    let held = request(&locks, &high, LockKind::Exclusive, &ALL)
        .granted(SHORT)
        .await
        .unwrap();
    let equal = request(&locks, &owner("equal", 2), LockKind::Exclusive, &ALL);
    assert!(equal.granted(SHORT).await.is_err());
    assert!(locks.permit(&[Arc::new(held)]).is_some());
}

#[tokio::test]
async fn a_lock_without_slots_is_lent_to_a_task_that_has_some() {
    let locks = LockManager::default();
    let replace = lock(&locks, "1", LockKind::Exclusive, &ALL).await.unwrap();
    let before = replace.version().unwrap();
    let insert = lock(&locks, "2", LockKind::Shared, &ALL).await.unwrap();
    assert_eq!((replace.version(), locks.is_waiting("1")), (None, true));
    assert_eq!(replace.begin(SHORT).await, Err(vec!["2".to_owned()]));
    // It kept its place.
    assert!(lock(&locks, "3", LockKind::Shared, &ALL).await.is_none());
    drop(insert);
    replace.begin(LONG).await.unwrap();
    assert!(replace.version().unwrap() > before);
    assert!(lock(&locks, "3", LockKind::Shared, &ALL).await.is_none());
    assert!(locks.permit(&[Arc::new(replace)]).is_some());
    assert!(locks.active().is_empty() && !locks.is_waiting("1"));
}

#[tokio::test]
async fn a_task_without_slots_keeps_nobody_waiting_who_has_some() {
    let locks = LockManager::default();
    let replace = lock(&locks, "replace", LockKind::Exclusive, &ALL).await.unwrap();
    let first = lock(&locks, "first", LockKind::Shared, &ALL).await.unwrap();
    // It may wait for the slots of the second one, which therefore must not wait for it.
    let second = lock(&locks, "second", LockKind::Shared, &ALL).await.unwrap();
    drop(first);
    let third = lock(&locks, "third", LockKind::Shared, &ALL).await.unwrap();
    drop(second);
    assert!(replace.begin(SHORT).await.is_err());
    drop(third);
    replace.begin(LONG).await.unwrap();
}

#[tokio::test]
async fn appends_to_empty_chunks_carry_the_epoch() {
    let locks = LockManager::new(5);
    let lease = lock(&locks, "1", LockKind::Append, &ALL).await.unwrap();
    assert_eq!(lease.version().unwrap(), "1970-01-01T00:00:00.000Z");
}

fn allocate(
    allocator: &Allocator,
    task: &str,
    chunk: Interval,
    used: &[SegmentRecord],
    version: &str,
) -> Result<Allocation, Covered> {
    let used = used.iter().cloned().map(UsedSegment::new).collect();
    let view = || Arc::new(SegmentView::new(used));
    let mut all = allocator.allocate_all(task, "t", &[(chunk, 1)], version, false, view)?;
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
        Err(Covered { allocated, .. }) => allocated,
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

#[test]
fn concurrent_appends_join_a_tombstone() {
    let chunk = interval(0, 10);
    let used = vec![UsedSegment::new(SegmentRecord::tombstone("t", chunk, "4", 0))];
    let view = || Arc::new(SegmentView::new(used));
    let allocator = Allocator::default();
    let all = allocator
        .allocate_all("a", "t", &[(chunk, 2)], "1970", true, view)
        .unwrap();
    let places: Vec<_> = all
        .into_iter()
        .map(|place| (place.version, place.shard_spec))
        .collect();
    assert_eq!(
        places,
        [("4".to_owned(), numbered(1, 1)), ("4".to_owned(), numbered(2, 1))]
    );
}

#[tokio::test]
async fn versions_never_go_back() {
    let future = 4_000_000_000_000;
    let locks = LockManager::new(future);
    let lease = lock(&locks, "1", LockKind::Shared, &ALL).await.unwrap();
    assert!(lease.version().unwrap() > trilith_proto::interval::iso(future));
}
