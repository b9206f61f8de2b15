#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::symlink;

use prometheus::Registry;
use serde_json::Value;

use super::*;

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn records_become_numbered_lines_in_the_order_they_were_made() {
    let log = Log::new();
    let sink = log.sink(64);
    for name in ["one", "two", "three"] {
        sink.reserve(OnFull::Wait).await.unwrap().record(event(name));
    }
    sink.close(LONG).unwrap();
    let lines = log.lines();
    let of = |key: &str| lines.iter().map(|line| line[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("request_id"), ["one", "two", "three"]);
    assert_eq!(of("seq"), [1, 2, 3]);
    assert_eq!(of("gateway"), ["edge-1", "edge-1", "edge-1"]);
    assert_eq!(log.metrics.audit_records("file").get(), 3);
}

#[tokio::test]
async fn a_thousand_writers_at_once_lose_nothing() {
    let log = Log::new();
    let sink = log.sink(16);
    let writers = (0..1000).map(|index| {
        let sink = sink.clone();
        tokio::spawn(async move { sink.reserve(OnFull::Wait).await.unwrap().record(event(&index.to_string())) })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    sink.close(LONG).unwrap();
    let lines = log.lines();
    assert_eq!(
        lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect::<Vec<_>>(),
        (1..=1000).collect::<Vec<_>>()
    );
    let mut ids: Vec<u64> = lines.iter().map(|line| line["request_id"].as_str().unwrap().parse().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_new_file_is_for_the_owner_and_the_groups_eyes() {
    let log = Log::new();
    let sink = log.sink(1);
    sink.close(LONG).unwrap();
    let mode = std::fs::metadata(&log.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
}

#[tokio::test]
async fn an_old_file_is_appended_to() {
    let log = Log::new();
    std::fs::write(&log.path, "{\"request_id\":\"before\"}\n").unwrap();
    let sink = log.sink(1);
    sink.reserve(OnFull::Wait).await.unwrap().record(event("after"));
    sink.close(LONG).unwrap();
    assert_eq!(log.ids(), ["before", "after"]);
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_stops_the_start() {
    let log = Log::new();
    let settings = AuditSettings { file: Some(log.path.join("below/a/file")), ..log.settings(1) };
    let error = AuditSink::start(&settings, "edge-1".into(), &log.metrics).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    let settings = AuditSettings { file: None, ..log.settings(1) };
    let error = AuditSink::start(&settings, "edge-1".into(), &log.metrics).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

// ── Rotation ──

#[tokio::test]
async fn after_a_rotation_lines_go_to_the_new_file() {
    let log = Log::new();
    let sink = log.sink(64);
    sink.reserve(OnFull::Wait).await.unwrap().record(event("old"));
    log.wait_for(1).await;
    std::fs::rename(&log.path, log.rotated()).unwrap();
    sink.reopen();
    sink.reserve(OnFull::Wait).await.unwrap().record(event("new"));
    sink.close(LONG).unwrap();
    assert_eq!(ids(&log.rotated()), ["old"]);
    assert_eq!(log.ids(), ["new"]);
}

#[tokio::test]
async fn a_rotation_that_nobody_announced_is_noticed() {
    let log = Log::new();
    let sink = log.sink(64);
    sink.reserve(OnFull::Wait).await.unwrap().record(event("old"));
    log.wait_for(1).await;
    std::fs::rename(&log.path, log.rotated()).unwrap();
    sink.reserve(OnFull::Wait).await.unwrap().record(event("new"));
    sink.close(LONG).unwrap();
    assert_eq!(ids(&log.rotated()), ["old"]);
    assert_eq!(log.ids(), ["new"]);
}

#[tokio::test]
async fn a_path_that_cannot_be_opened_again_keeps_the_open_file() {
    let log = Log::new();
    let sink = log.sink(64);
    sink.reserve(OnFull::Wait).await.unwrap().record(event("old"));
    log.wait_for(1).await;
    std::fs::rename(&log.path, log.rotated()).unwrap();
    std::fs::create_dir(&log.path).unwrap();
    sink.reopen();
    sink.reserve(OnFull::Wait).await.unwrap().record(event("new"));
    sink.close(LONG).unwrap();
    assert_eq!(ids(&log.rotated()), ["old", "new"]);
}

#[test]
fn a_torn_line_begins_again_in_another_file_and_goes_on_in_the_same() {
    let log = Log::new();
    let batch = b"first\nsecond\n";
    let mut sink = Sink::file(log.path.clone(), log.metrics.audit_records("file")).unwrap();
    sink.written = 8;
    sink.reopen(batch).unwrap();
    assert_eq!(sink.written, 8, "the same file");
    std::fs::rename(&log.path, log.rotated()).unwrap();
    sink.reopen(batch).unwrap();
    sink.write(batch).unwrap();
    assert_eq!(std::fs::read(&log.path).unwrap(), b"second\n");
    for (written, start) in [(0, 0), (3, 0), (5, 0), (6, 6), (12, 6), (13, 13)] {
        assert_eq!(line_start(batch, written), start, "{written}");
    }
}

// ── A disk that is full ──

#[tokio::test]
async fn a_full_disk_fills_the_queue_and_then_requests_are_refused_and_nothing_is_lost() {
    let log = Log::new();
    symlink("/dev/full", &log.path).unwrap();
    let sink = log.sink(4);
    let mut recorded = Vec::new();
    // The writer holds what it took before the first failure; the queue holds four more.
    loop {
        match sink.reserve(OnFull::Refuse).await {
            Ok(place) => {
                recorded.push(recorded.len().to_string());
                place.record(event(recorded.last().unwrap()));
            }
            Err(error) => {
                assert_eq!(error, AuditUnavailable::Full);
                if sink.control.in_hand.load(Ordering::Acquire) > 0 && sink.queue_records() == 4 {
                    break;
                }
            }
        }
        assert!(recorded.len() < 100, "the queue has no bound");
        tokio::task::yield_now().await;
    }
    let left = sink.close(Duration::from_millis(10)).unwrap_err().records;
    assert_eq!(left, recorded.len());

    std::fs::remove_file(&log.path).unwrap();
    sink.close(LONG).unwrap();
    assert_eq!(log.ids(), recorded);
    assert_eq!(log.metrics.audit_records("file").get(), recorded.len() as u64);
}

#[tokio::test]
async fn a_request_that_waits_gets_its_place_when_the_disk_has_room_again() {
    let log = Log::new();
    symlink("/dev/full", &log.path).unwrap();
    let sink = log.sink(1);
    sink.reserve(OnFull::Wait).await.unwrap().record(event("in hand"));
    while sink.control.in_hand.load(Ordering::Acquire) == 0 {
        tokio::task::yield_now().await;
    }
    sink.reserve(OnFull::Wait).await.unwrap().record(event("queued"));
    assert_eq!(sink.reserve(OnFull::Refuse).await.unwrap_err(), AuditUnavailable::Full);
    let waits = tokio::spawn({
        let sink = sink.clone();
        async move { sink.reserve(OnFull::Wait).await.unwrap().record(event("waited")) }
    });
    tokio::task::yield_now().await;
    assert!(!waits.is_finished());

    std::fs::remove_file(&log.path).unwrap();
    waits.await.unwrap();
    sink.close(LONG).unwrap();
    assert_eq!(log.ids(), ["in hand", "queued", "waited"]);
}

// ── Places ──

#[tokio::test]
async fn a_place_that_is_not_needed_goes_back() {
    let log = Log::new();
    let sink = log.sink(1);
    let place = sink.reserve(OnFull::Refuse).await.unwrap();
    assert_eq!(sink.queue_records(), 1);
    assert_eq!(sink.reserve(OnFull::Refuse).await.unwrap_err(), AuditUnavailable::Full);
    drop(place);
    assert_eq!(sink.queue_records(), 0);
    sink.reserve(OnFull::Refuse).await.unwrap().record(event("used"));
    sink.close(LONG).unwrap();
    assert_eq!(log.ids(), ["used"]);
}

#[tokio::test]
async fn closing_waits_for_open_requests_and_takes_no_others() {
    let log = Log::new();
    let sink = log.sink(8);
    let open = sink.reserve(OnFull::Wait).await.unwrap();
    assert_eq!(sink.close(Duration::from_millis(10)), Err(NotDrained { records: 1 }));
    while sink.reserve(OnFull::Wait).await.err() != Some(AuditUnavailable::Closed) {
        tokio::task::yield_now().await;
    }
    open.record(event("open"));
    sink.close(LONG).unwrap();
    sink.close(LONG).unwrap();
    assert_eq!(log.ids(), ["open"]);
}

#[tokio::test]
async fn a_sink_that_is_dropped_writes_what_it_has() {
    let log = Log::new();
    let sink = log.sink(8);
    let place = sink.reserve(OnFull::Wait).await.unwrap();
    drop(sink);
    place.record(event("last"));
    log.wait_for(1).await;
    assert_eq!(log.ids(), ["last"]);
}

// ── Helpers ──

/// An audit file in a directory of its own.
struct Log {
    path: PathBuf,
    metrics: Metrics,
    _directory: tempfile::TempDir,
}

impl Log {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            path: directory.path().join("audit.jsonl"),
            metrics: Metrics::new(Registry::new()).unwrap(),
            _directory: directory,
        }
    }

    fn settings(&self, queue: usize) -> AuditSettings {
        AuditSettings {
            file: Some(self.path.clone()),
            stdout: false,
            queue,
            on_full: OnFull::Wait,
            open_after: Duration::from_secs(10),
        }
    }

    /// A sink that looks at its path before every batch.
    fn sink(&self, queue: usize) -> AuditSink {
        AuditSink::start_with(&self.settings(queue), "edge-1".into(), &self.metrics, None, Duration::ZERO).unwrap()
    }

    fn rotated(&self) -> PathBuf {
        self.path.with_extension("1")
    }

    fn lines(&self) -> Vec<Value> {
        lines(&self.path)
    }

    fn ids(&self) -> Vec<String> {
        ids(&self.path)
    }

    /// Waits until the writer, which is another thread, has written `records` in all.
    async fn wait_for(&self, records: u64) {
        let written = self.metrics.audit_records("file");
        let wait = async {
            while written.get() < records {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(LONG, wait).await.unwrap();
    }
}

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(path: &Path) -> Vec<String> {
    lines(path).iter().map(|line| line["request_id"].as_str().unwrap().to_owned()).collect()
}

fn event(id: &str) -> Event {
    Event { request_id: id.into(), ..Event::default() }
}
