//! What came out? The table, as text and as JSON.

use std::path::Path;

use serde_json::{Value, json};

use crate::rows::Row;

/// One case of a row: seconds and bytes.
#[derive(Clone, Copy)]
pub struct Measured {
    pub requests_per_second: f64,
    pub p50: f64,
    pub p99: f64,
    /// CPU time of the process for each request, user and system.
    pub cpu: f64,
    pub rss: f64,
}

/// Bytes.
pub struct Memory {
    pub idle: u64,
    /// More, after sessions were opened.
    pub sessions: u64,
    pub streams: u64,
    pub per_stream: u64,
}

/// The table so far; rows are printed as they come.
pub struct Report {
    rows: Vec<Value>,
    memory: Vec<Value>,
}

impl Measured {
    /// The median of each figure by itself.
    pub fn median(samples: &[Self]) -> Option<Self> {
        let median = |figure: fn(&Self) -> f64| {
            let mut figures: Vec<f64> = samples.iter().map(figure).collect();
            figures.sort_unstable_by(f64::total_cmp);
            figures.get(figures.len() / 2).copied()
        };
        Some(Self {
            requests_per_second: median(|sample| sample.requests_per_second)?,
            p50: median(|sample| sample.p50)?,
            p99: median(|sample| sample.p99)?,
            cpu: median(|sample| sample.cpu)?,
            rss: median(|sample| sample.rss)?,
        })
    }

    fn json(&self) -> Value {
        json!({
            "requests_per_second": self.requests_per_second.round(), "p50_us": micros(self.p50), "p99_us": micros(self.p99),
            "cpu_us": micros(self.cpu), "rss_mib": tenths(self.rss / MIB),
        })
    }
}

impl Report {
    pub fn new() -> Self {
        println!("| | req/s | p50 µs | p99 µs | CPU µs | RSS MiB |");
        println!("|---|---:|---:|---:|---:|---:|");
        Self { rows: Vec::new(), memory: Vec::new() }
    }

    /// Adds a row. In brackets: the ratio to the row's first case.
    pub fn add(&mut self, row: &Row, measured: Vec<Option<Measured>>) {
        println!("| **{}** | | | | | |", row.name);
        let base = measured[0].unwrap();
        let mut cases = Vec::new();
        for (case, measured) in row.cases.iter().zip(measured) {
            let Some(measured) = measured else { continue };
            let cell = |value: f64, base: f64, decimals: usize| format!("{value:.decimals$} ({:.2})", value / base);
            println!(
                "| {} | {} | {} | {} | {} | {} |",
                case.label,
                cell(measured.requests_per_second, base.requests_per_second, 0),
                cell(measured.p50 * 1e6, base.p50 * 1e6, 0),
                cell(measured.p99 * 1e6, base.p99 * 1e6, 0),
                cell(measured.cpu * 1e6, base.cpu * 1e6, 1),
                cell(measured.rss / MIB, base.rss / MIB, 1),
            );
            let mut figures = measured.json();
            figures["case"] = case.label.into();
            figures["ratio"] = json!({
                "requests_per_second": hundredths(measured.requests_per_second / base.requests_per_second),
                "p50": hundredths(measured.p50 / base.p50), "p99": hundredths(measured.p99 / base.p99),
                "cpu": hundredths(measured.cpu / base.cpu), "rss": hundredths(measured.rss / base.rss),
            });
            cases.push(figures);
        }
        self.rows.push(json!({ "row": row.name, "connections": row.connections, "cases": cases }));
    }

    /// Adds what a process holds.
    pub fn add_memory(&mut self, label: &str, memory: Memory) {
        let Memory { idle, sessions, streams, per_stream } = memory;
        let (idle, sessions) = (tenths(idle as f64 / MIB), tenths(sessions as f64 / MIB));
        let per_stream = tenths(per_stream as f64 / 1024.0);
        println!(
            "| memory of {label} | idle {idle} MiB | after 10,000 sessions + {sessions} MiB | \
             {streams} open streams: {per_stream} KiB each | | |"
        );
        self.memory.push(json!({
            "case": label, "idle_mib": idle, "sessions_mib": sessions, "streams": streams, "per_stream_kib": per_stream,
        }));
    }

    /// Writes the JSON file.
    pub fn finish(self, path: &Path) {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let report =
            json!({ "cores": cores, "load_average_after": load.trim(), "rows": self.rows, "memory": self.memory });
        std::fs::write(path, format!("{report:#}\n")).unwrap();
        println!("\nIn brackets: the ratio to the first line of its group. As JSON: {}", path.display());
    }
}

fn micros(seconds: f64) -> f64 {
    tenths(seconds * 1e6)
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

const MIB: f64 = 1024.0 * 1024.0;
