//! Where do audit records go? Through a bounded queue to one thread that writes them, so that no request waits for a
//! disk, and no request is served that could not be recorded.
//!
//! A request takes a place in the queue before anything of it goes upstream ([`AuditSink::reserve`]), and its record
//! fills that place. A full queue makes new requests wait or be refused; it never makes a record vanish. The writer
//! numbers the records and appends them in batches of one `write` each. When
//! a write fails it keeps the batch and tries again, so the queue fills and requests feel it.
//!
//! A line is in the kernel's hands, and so survives the end of this process, at most [`LINGER`] after it was recorded,
//! as long as the disk keeps up. [`AuditSink::close`] writes what is left.

use std::fmt;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use prometheus::IntCounter;
use prometheus::IntGauge;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::audit::Event;
use crate::audit::Stamp;
use crate::config::AuditSettings;
use crate::config::OnFull;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::recent::About;
use crate::telemetry::recent::Recent;
use crate::telemetry::recent::Recorded;

/// The way to the audit log. Clones lead to the same queue.
#[derive(Clone)]
pub struct AuditSink {
    queue: mpsc::Sender<Queued>,
    control: Arc<Control>,
    /// Whether records are shown to somebody once they are written.
    shows: bool,
}

/// A place in the queue. Dropped unused it goes back: that is right when nothing was done, so that there is nothing to
/// record.
#[must_use = "a place that is dropped records nothing"]
pub struct AuditPlace {
    permit: mpsc::OwnedPermit<Queued>,
    shows: bool,
}

/// Why there is no place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditUnavailable {
    /// The log is closed: the process ends, or its writer is gone.
    #[error("the audit log is closed")]
    Closed,
    /// The queue is full and the configuration says to refuse.
    #[error("the audit queue is full")]
    Full,
}

/// Records that were not written before the deadline of [`AuditSink::close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{records} audit records, or places kept for them, were left when the time was over")]
pub struct NotDrained {
    /// How many.
    pub records: usize,
}

impl AuditSink {
    /// Opens the sinks of `settings` and starts the writer. `gateway` stands in every record.
    ///
    /// The writer is a thread: call this after the process has become a daemon, because threads do not survive a fork.
    ///
    /// # Errors
    /// When the file cannot be opened for appending, no sink is configured, or no thread can be started. A gateway that
    /// cannot record must not start.
    pub fn start(settings: &AuditSettings, gateway: Arc<str>, metrics: &Metrics) -> io::Result<Self> {
        Self::start_with(settings, gateway, metrics, None, PATH_CHECK)
    }

    /// The same, and shows every record to `recent` once it is written.
    ///
    /// # Errors
    /// As [`AuditSink::start`].
    pub fn start_showing(
        settings: &AuditSettings,
        gateway: Arc<str>,
        metrics: &Metrics,
        recent: Option<Arc<Recent>>,
    ) -> io::Result<Self> {
        Self::start_with(settings, gateway, metrics, recent, PATH_CHECK)
    }

    fn start_with(
        settings: &AuditSettings,
        gateway: Arc<str>,
        metrics: &Metrics,
        recent: Option<Arc<Recent>>,
        path_check: Duration,
    ) -> io::Result<Self> {
        let mut sinks = Vec::new();
        if let Some(path) = &settings.file {
            sinks.push(Sink::file(path.clone(), metrics.audit_records("file"))?);
        }
        if settings.stdout {
            sinks.push(Sink::stdout(metrics.audit_records("stdout"))?);
        }
        if sinks.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the audit log has neither a file nor stdout"));
        }
        let (queue, receiver) = mpsc::channel(settings.queue.max(1));
        let control = Arc::new(Control::default());
        let shows = recent.is_some();
        let writer = Writer {
            queue: receiver,
            sinks,
            control: Arc::clone(&control),
            gateway,
            seq: 0,
            depth: metrics.audit_queue_records().clone(),
            recent,
            path_check,
        };
        // Made here so that its failure is the caller's to see.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || runtime.block_on(writer.run()))?;
        Ok(Self { queue, control, shows })
    }

    /// Takes a place for one record. The usual case is one atomic operation.
    ///
    /// # Errors
    /// With [`OnFull::Refuse`], [`AuditUnavailable::Full`] when there is no place now. With [`OnFull::Wait`] this waits
    /// for one, without an end of its own: its caller bounds the time. [`AuditUnavailable::Closed`] when the log is.
    pub async fn reserve(&self, on_full: OnFull) -> Result<AuditPlace, AuditUnavailable> {
        let place = |permit| AuditPlace { permit, shows: self.shows };
        match self.queue.clone().try_reserve_owned() {
            Ok(permit) => Ok(place(permit)),
            Err(TrySendError::Closed(_)) => Err(AuditUnavailable::Closed),
            Err(TrySendError::Full(queue)) => match on_full {
                OnFull::Refuse => Err(AuditUnavailable::Full),
                OnFull::Wait => match queue.reserve_owned().await {
                    Ok(permit) => Ok(place(permit)),
                    Err(_) => Err(AuditUnavailable::Closed),
                },
            },
        }
    }

    /// Places taken: records not yet with the writer, and places kept for records to come.
    #[must_use]
    pub fn queue_records(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Has the file opened again by its name before the next line is written, as after a rotation (SIGHUP). When that
    /// fails, the old file stays in use.
    pub fn reopen(&self) {
        self.control.reopen.store(true, Ordering::Release);
        self.control.wake.notify_one();
    }

    /// Takes no further reservation, waits until every reserved place is filled or given back and everything is written
    /// and synced, at most for `deadline`. Blocks its thread: for the end of the process. May be called again.
    ///
    /// # Errors
    /// [`NotDrained`] when the time was over first; the writer goes on for as long as the process lives.
    pub fn close(&self, deadline: Duration) -> Result<(), NotDrained> {
        self.control.closing.store(true, Ordering::Release);
        self.control.wake.notify_one();
        let done = self.control.done.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, _) = self
            .control
            .done_signal
            .wait_timeout_while(done, deadline, |done| !*done)
            .unwrap_or_else(PoisonError::into_inner);
        if *done {
            return Ok(());
        }
        Err(NotDrained { records: self.queue_records() + self.control.in_hand.load(Ordering::Acquire) })
    }
}

impl fmt::Debug for AuditSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditSink").field("queue_records", &self.queue_records()).finish_non_exhaustive()
    }
}

impl AuditPlace {
    /// Records `event` as of this moment. Never waits.
    pub fn record(self, event: Event) {
        let mut rest = Vec::with_capacity(RECORD_BYTES_USUAL);
        event.write_rest(&mut rest);
        let time_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let time_ms = u64::try_from(time_ms).unwrap_or(u64::MAX);
        let about = self.shows.then(|| Box::new(About::of(&event)));
        self.permit.send(Queued { time_ms, rest, about });
    }
}

impl fmt::Debug for AuditPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditPlace").finish_non_exhaustive()
    }
}

impl AuditUnavailable {
    /// Word for metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Full => "full",
        }
    }
}

/// A record that waits for its number.
struct Queued {
    time_ms: u64,
    /// All of the line but its beginning. Written where the event was: its parts are freed by the thread that made them,
    /// and a long string takes no more memory here than in the log.
    rest: Vec<u8>,
    /// What it is found by, when it is shown to somebody.
    about: Option<Box<About>>,
}

/// What the two sides tell each other past the queue.
#[derive(Default)]
struct Control {
    reopen: AtomicBool,
    closing: AtomicBool,
    wake: Notify,
    /// Records taken out of the queue and not yet written everywhere.
    in_hand: AtomicUsize,
    done: Mutex<bool>,
    done_signal: Condvar,
}

struct Writer {
    queue: mpsc::Receiver<Queued>,
    sinks: Vec<Sink>,
    control: Arc<Control>,
    gateway: Arc<str>,
    seq: u64,
    depth: IntGauge,
    /// Who is shown the records.
    recent: Option<Arc<Recent>>,
    path_check: Duration,
}

impl Writer {
    async fn run(mut self) {
        let mut records = Vec::with_capacity(BATCH_RECORDS);
        let mut batch = Vec::new();
        // Where records are few, the queue is short only by configuration; then each one counts.
        let lingers = self.queue.max_capacity() >= BATCH_RECORDS;
        let mut path_checked = Instant::now();
        loop {
            self.obey();
            let taken = tokio::select! {
                biased;
                () = self.control.wake.notified() => continue,
                taken = self.queue.recv_many(&mut records, BATCH_RECORDS) => taken,
            };
            if taken == 0 {
                break;
            }
            if path_checked.elapsed() >= self.path_check {
                path_checked = Instant::now();
                self.sinks.iter_mut().for_each(Sink::follow_path);
            }
            self.control.in_hand.store(taken, Ordering::Release);
            let mut lines = 0;
            let mut to_show = Vec::new();
            for Queued { time_ms, rest, about } in records.drain(..) {
                self.seq += 1;
                Stamp { time_ms, seq: self.seq, gateway: &self.gateway }.write_beginning(&mut batch);
                batch.extend_from_slice(&rest);
                lines += 1;
                if let Some(about) = about {
                    let gateway = Arc::clone(&self.gateway);
                    let rest = rest.into_boxed_slice();
                    to_show.push(Arc::new(Recorded { time_ms, seq: self.seq, gateway, about, rest }));
                }
                if batch.len() >= BATCH_BYTES {
                    self.write(&mut batch, &mut lines).await;
                }
            }
            self.write(&mut batch, &mut lines).await;
            if let Some(recent) = &self.recent {
                recent.push(to_show);
            }
            self.measure();
            if lingers && taken < BATCH_RECORDS {
                // Nobody wakes a writer that is not waiting at the queue, so a busy gateway pays for a few hundred
                // wake-ups a second instead of one for each record.
                tokio::select! {
                    () = self.control.wake.notified() => {}
                    () = tokio::time::sleep(LINGER) => {}
                }
            }
        }
        for sink in &self.sinks {
            sink.sync();
        }
        *self.control.done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.control.done_signal.notify_all();
    }

    /// Does what [`AuditSink::reopen`] and [`AuditSink::close`] asked for.
    fn obey(&mut self) {
        if self.control.reopen.swap(false, Ordering::AcqRel) {
            for sink in &mut self.sinks {
                if let Err(error) = sink.reopen(&[]) {
                    tracing::error!(%error, "The audit file cannot be opened again; the open one stays in use.");
                }
            }
        }
        if self.control.closing.load(Ordering::Acquire) {
            self.queue.close();
        }
    }

    /// Writes the `lines` of `batch` to every sink, trying again until they are written, and empties both.
    async fn write(&mut self, batch: &mut Vec<u8>, lines: &mut usize) {
        let mut back_off = BACK_OFF_FIRST;
        let mut failed = false;
        let mut sinks = std::mem::take(&mut self.sinks);
        for sink in &mut sinks {
            sink.written = 0;
            while let Err(error) = sink.write(batch) {
                if !failed {
                    failed = true;
                    tracing::error!(
                        %error, sink = sink.name,
                        "Audit records cannot be written. They are kept and tried again; when the queue is full, \
                         requests wait or are refused."
                    );
                }
                self.measure();
                tokio::select! {
                    () = self.control.wake.notified() => {}
                    () = tokio::time::sleep(back_off) => {}
                }
                back_off = (back_off * 2).min(BACK_OFF_LAST);
                if self.control.closing.load(Ordering::Acquire) {
                    self.queue.close();
                }
                // Whatever was wrong may be right at the same path: a volume mounted, a mode corrected. When it is
                // not, the next write fails and says so.
                self.control.reopen.store(false, Ordering::Release);
                let _ = sink.reopen(batch);
            }
            sink.records.inc_by(*lines as u64);
        }
        self.sinks = sinks;
        self.control.in_hand.fetch_sub(*lines, Ordering::AcqRel);
        *lines = 0;
        batch.clear();
        if failed {
            tracing::info!("Audit records are being written again; none was lost.");
        }
    }

    fn measure(&self) {
        let taken = self.queue.max_capacity() - self.queue.capacity();
        self.depth.set(i64::try_from(taken).unwrap_or(i64::MAX));
    }
}

/// One place that lines are appended to.
struct Sink {
    name: &'static str,
    /// `None`: standard output, which cannot be opened again.
    path: Option<PathBuf>,
    file: File,
    /// Bytes of the present batch that are written.
    written: usize,
    records: IntCounter,
}

impl Sink {
    fn file(path: PathBuf, records: IntCounter) -> io::Result<Self> {
        let file = open(&path)?;
        Ok(Self { name: "file", path: Some(path), file, written: 0, records })
    }

    fn stdout(records: IntCounter) -> io::Result<Self> {
        // A descriptor of our own: std's `Stdout` has a buffer that would split batches, and a lock that others hold.
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self { name: "stdout", path: None, file, written: 0, records })
    }

    /// Writes the rest of `batch`; on an error, what was written so far is known.
    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        while let Some(rest) = batch.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Opens the file by its name. When that leads to another file, a line of `batch` that is half written begins again
    /// there, so that the new file holds whole lines only.
    fn reopen(&mut self, batch: &[u8]) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let file = open(path)?;
        if identity(&file)? != identity(&self.file)? {
            self.written = line_start(batch, self.written);
            self.file = file;
        }
        Ok(())
    }

    /// Notices that the name leads elsewhere, as after a rotation that nobody announced.
    fn follow_path(&mut self) {
        let Some(path) = &self.path else { return };
        let is_same = std::fs::metadata(path)
            .and_then(|found| Ok((found.dev(), found.ino()) == identity(&self.file)?))
            .unwrap_or(false);
        if !is_same && let Err(error) = self.reopen(&[]) {
            tracing::error!(%error, "The audit file is no longer at its path and cannot be created there; records \
                             go on into the one that was moved or removed.");
        }
    }

    fn sync(&self) {
        // A pipe or a terminal cannot be synced, and need not be.
        if self.path.is_some()
            && let Err(error) = self.file.sync_data()
        {
            tracing::warn!(%error, "The audit file could not be synced at the end.");
        }
    }
}

/// Opens `path` for appending; a new file can be read by its group and written by nobody else.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let found = file.metadata()?;
    Ok((found.dev(), found.ino()))
}

/// Where the line begins that `written` bytes of `batch` end in.
fn line_start(batch: &[u8], written: usize) -> usize {
    let done = batch.get(..written).unwrap_or(batch);
    done.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}

/// How long the writer lets records gather after a batch.
pub const LINGER: Duration = Duration::from_millis(5);

/// Room for a record of the usual size.
const RECORD_BYTES_USUAL: usize = 1024;

/// Records taken from the queue at once.
const BATCH_RECORDS: usize = 1024;

/// A batch that has this many bytes is written before another line is added.
const BATCH_BYTES: usize = 1 << 20;

/// How often the writer looks whether the path still leads to its file.
const PATH_CHECK: Duration = Duration::from_secs(1);

const BACK_OFF_FIRST: Duration = Duration::from_millis(50);
const BACK_OFF_LAST: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
