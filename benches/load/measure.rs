//! How is it measured? Every row's cases one after the other, three times over, so that whatever else the machine does
//! falls on all of them; of each case the median counts.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::process::{Cores, Running, command};
use crate::rows::{Case, Proxy, Row, Tokens, rows};
use crate::stage::{Programs, Stage, Variant};
use crate::table::{Measured, Memory, Report};
use crate::tokens::Signature;

/// Measures all rows, prints the table, and writes it as JSON. Options, each followed by its value: `--bare`, `--nginx`,
/// `--oha`, `--portcullis` (programs), `--dir`, `--json` (where to write), `--only` (part of a row's name), `--rounds`.
pub fn run(options: &[&str]) {
    let options: BTreeMap<&str, &str> = options.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let path = |name| PathBuf::from(options.get(name).copied().unwrap_or_else(|| panic!("{name} is missing")));
    let programs = Programs {
        bare: path("--bare"),
        nginx: options.get("--nginx").map(PathBuf::from).filter(|nginx| nginx.exists()),
        oha: path("--oha"),
        portcullis: path("--portcullis"),
    };
    let rounds = options.get("--rounds").map_or(3, |rounds| rounds.parse().unwrap());
    let only = options.get("--only").copied().unwrap_or_default();
    let stage = Stage::set(programs, path("--dir"));

    let mut report = Report::new();
    let mut running = Vec::new();
    for row in rows().into_iter().filter(|row| row.name.contains(only)) {
        // What only this row needs is ended with it.
        running.retain(|(proxy, _)| matches!(proxy, Proxy::Bare | Proxy::Nginx) || *proxy == OPENER);
        let measured = measure(&stage, &row, rounds, &mut running);
        report.add(&row, measured);
    }
    running.clear();
    if "memory".contains(only) {
        report.add_memory("bare Pingora", memory(&stage, Proxy::Bare));
        report.add_memory("portcullis", memory(&stage, Proxy::Portcullis(Variant::Full)));
    }
    report.finish(&path("--json"));
}

/// Measures a row: for each case the rounds' medians; nothing for a case whose proxy the machine lacks.
fn measure(stage: &Stage, row: &Row, rounds: usize, running: &mut Vec<(Proxy, Running)>) -> Vec<Option<Measured>> {
    for proxy in row.cases.iter().map(|case| case.proxy).chain([OPENER]) {
        let is_new = !running.iter().any(|(running, _)| *running == proxy);
        if is_new && let Some(started) = stage.start(proxy) {
            running.push((proxy, started));
        }
    }
    let find = |proxy: Proxy| running.iter().find(|(running, _)| *running == proxy).map(|(_, running)| running);
    // The id is sealed with a key that all variants share; to the others it is a header like any other.
    let session = stage.open_sessions(find(OPENER).unwrap(), 1);
    let mut samples: Vec<Vec<Measured>> = row.cases.iter().map(|_| Vec::new()).collect();
    for case in &row.cases {
        if let Some(proxy) = find(case.proxy) {
            load(stage, row, case, proxy, &session, Duration::from_millis(300));
        }
    }
    for _ in 0..rounds {
        for (case, samples) in row.cases.iter().zip(&mut samples) {
            let Some(proxy) = find(case.proxy) else { continue };
            samples.push(load(stage, row, case, proxy, &session, Duration::from_secs(row.seconds)));
            stage.empty_audit_files();
        }
    }
    samples.iter().map(|samples| Measured::median(samples)).collect()
}

/// One measurement.
fn load(stage: &Stage, row: &Row, case: &Case, proxy: &Running, session: &str, time: Duration) -> Measured {
    let cpu = proxy.cpu();
    let seconds = time.as_secs_f64();
    let mut client = match case.tokens {
        Tokens::Many(signature) => {
            let mut client = stage.client("first-seen", proxy);
            client
                .args([row.connections.to_string(), seconds.to_string()])
                .arg(stage.many_tokens(signature))
                .arg(session);
            client
        }
        Tokens::One(signature) => {
            let body = stage.dir.join("body.json");
            std::fs::write(&body, case.call.body()).unwrap();
            let mut client = command(&stage.programs.oha, Cores::Others);
            client.args(["--no-tui", "--output-format", "json", "--disable-color", "-m", "POST"]);
            client.args(["-z", &format!("{}ms", time.as_millis()), "-c", &row.connections.to_string()]);
            client.arg("-D").arg(body);
            for header in case.call.headers(stage.token(signature), Some(session)) {
                client.arg("-H").arg(header);
            }
            let scheme = if case.proxy.is_tls() { "https" } else { "http" };
            client.arg("--insecure").arg(format!("{scheme}://{}/mcp", proxy.address));
            client
        }
    };
    let output = client.stderr(Stdio::inherit()).output().unwrap();
    let used = proxy.cpu() - cpu;
    let report: Value = serde_json::from_slice(&output.stdout).expect("no report of the client");
    let answers = report["statusCodeDistribution"].as_object().unwrap();
    let total: u64 = answers.values().map(|count| count.as_u64().unwrap()).sum();
    let expected = answers.get(&case.call.status().to_string()).and_then(Value::as_u64);
    // A proxy without rules denies nothing; a slow one may not answer within the time of the warm-up.
    assert!(
        total == 0 || expected == Some(total) || matches!(case.proxy, Proxy::Bare | Proxy::BareTls),
        "{}: {}: unexpected answers: {report}",
        row.name,
        case.label
    );
    let errors = report["errorDistribution"].as_object().unwrap();
    let broken = errors.keys().find(|error| *error != "aborted due to deadline");
    assert!(broken.is_none(), "{}: {}: {broken:?}", row.name, case.label);
    Measured {
        requests_per_second: report["summary"]["requestsPerSec"].as_f64().unwrap(),
        p50: report["latencyPercentiles"]["p50"].as_f64().unwrap_or(f64::NAN),
        p99: report["latencyPercentiles"]["p99"].as_f64().unwrap_or(f64::NAN),
        cpu: used.as_secs_f64() / total as f64,
        rss: proxy.rss() as f64,
    }
}

/// What a process holds idle, after sessions were opened, and for each open event stream. It has opened one session before
/// it counts as idle, because the first brings the program's own pages into memory (2 MiB of them), which no session holds.
fn memory(stage: &Stage, proxy: Proxy) -> Memory {
    let running = stage.start(proxy).unwrap();
    stage.open_sessions(&running, 1);
    std::thread::sleep(Duration::from_secs(1));
    let idle = running.rss();
    let session = stage.open_sessions(&running, SESSIONS);
    let sessions = running.rss();
    // Each stream takes two descriptors of the proxy, and three of ours: the watchdog has one of its own.
    let streams = STREAMS_MAX.min((descriptors() - 500) / 3);
    let mut client = stage.client("streams", &running);
    client.arg(streams.to_string()).arg(stage.token(Signature::Rs256)).arg(session);
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(client.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("open"), "streams cannot be opened");
    let all = running.rss();
    drop(client.stdin.take());
    client.wait().unwrap();
    Memory {
        idle,
        sessions: sessions.saturating_sub(idle),
        streams,
        per_stream: all.saturating_sub(sessions) / streams,
    }
}

/// How many files this process, and those it starts, may open.
fn descriptors() -> u64 {
    let limits = std::fs::read_to_string(Path::new("/proc/self/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap_or(u64::MAX)
}

/// Opens the session that every row uses.
const OPENER: Proxy = Proxy::Portcullis(Variant::Full);

const SESSIONS: usize = 10_000;

const STREAMS_MAX: u64 = 10_000;
