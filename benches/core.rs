//! What does each stage of `admit` cost, alone? `cargo bench --bench core`, or `… -- seal` for those with that word.
//!
//! The whole path under load is measured by `benches/load`; here a change in one stage shows without the noise of sockets.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a measurement that cannot be set up should fail loudly"
)]

#[path = "load/tokens.rs"]
#[expect(unreachable_pub, reason = "the load test uses it too")]
#[expect(dead_code, reason = "shared with the load program, which needs more of it")]
mod tokens;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue};
use portcullis::audit::{Arguments, Decision as Verdict, Digest, Event, Mcp, Outcome, Stamp};
use portcullis::content::detect::{Detector, Detectors, find};
use portcullis::content::rule::{
    About, Action, Guard, GuardAction, Places, Redact, Replacement, Rule, Threat, Threats,
};
use portcullis::content::{Filter, Plan, RuleSet};
use portcullis::identity::bearer::unverified_token;
use portcullis::identity::{Algorithm, Caller, IssuerPolicy, KeySet, Principal, TokenTypes, UnverifiedToken, jwt};
use portcullis::mcp::sse::{Boundary, Splitter};
use portcullis::mcp::{Asked, ClassifyLimits, Era, ListStream, McpRequest, Message, Method, classify, filter_answer};
use portcullis::policy::rule::{RuleSpec, TargetEntry, TargetSpec};
use portcullis::policy::{Decision, Effect, Facts, Policy, Question, decide};
use portcullis::secret::Secret;
use portcullis::session::{Binding, Ring, Session, open, seal};
use portcullis::time::{Clock, UnixSeconds};
use quick_cache::sync::Cache;
use serde_json::json;

use tokens::{AUDIENCE, ISSUER, Signature, Signer};

criterion_main!(stages);

criterion_group! {
    name = stages;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = parse, verify, session, decisions, lists, streams, content, audit_line
}

// ── What do they ask ──

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    let legacy = head(&[("mcp-protocol-version", "2025-11-25")]);
    let modern =
        head(&[("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "read_file")]);
    let plain = call(&json!({ "path": "/srv/data/report.txt", "limit": 200, "note": "x".repeat(120) }));
    for (name, head, body) in [
        ("call", &legacy, plain.clone()),
        ("modern call", &modern, modern_call()),
        ("call with 64 KiB in one string", &legacy, call(&json!({ "path": "/srv/a", "text": "x".repeat(64 << 10) }))),
        ("call with 64 KiB of small values", &legacy, call(&json!({ "path": "/srv/a", "rows": rows(64 << 10) }))),
    ] {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::new(name, body.len()), |bench| {
            bench.iter(|| classify(head, black_box(body.clone()), &LIMITS).unwrap());
        });
    }
    group.finish();
}

/// About `bytes` of JSON in which no string is long.
fn rows(bytes: usize) -> Vec<serde_json::Value> {
    let row = json!({ "id": 12345, "state": "open", "score": 0.75, "tags": ["a", "b"], "owner": null });
    vec![row.clone(); bytes / row.to_string().len()]
}

// ── Who is calling ──

fn verify(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("verify");
    let idp = Idp::new();
    let now = Clock.now();
    for (name, signature) in [("miss, RS256", Signature::Rs256), ("miss, ES256", Signature::Es256)] {
        let head = bearer(&idp.signer.token(signature, 1));
        group.bench_function(name, |bench| {
            bench.iter(|| idp.verify(&unverified_token(black_box(&head)).unwrap(), now));
        });
    }
    // What the gateway does for a token it has verified: the token's digest, and a look-up among many.
    let verified = Cache::new(65_536);
    for number in 0..10_000 {
        let token = unverified_token(&bearer(&format!("token-{number}"))).unwrap();
        verified.insert((token.digest(), 1_u64), Arc::new(number));
    }
    let head = bearer(&idp.signer.token(Signature::Rs256, 1));
    verified.insert((unverified_token(&head).unwrap().digest(), 1), Arc::new(0));
    group.bench_function("hit", |bench| {
        bench.iter(|| verified.get(&(unverified_token(black_box(&head)).unwrap().digest(), 1)).unwrap());
    });
    group.finish();
}

struct Idp {
    signer: Signer,
    keys: KeySet,
    policy: IssuerPolicy,
}

impl Idp {
    fn new() -> Self {
        let signer = Signer::new();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jwks.json");
        signer.write_jwks(&path);
        let policy = IssuerPolicy {
            name: "bench".into(),
            issuer: ISSUER.into(),
            audiences: Vec::new(),
            algorithms: vec![Algorithm::RS256, Algorithm::ES256],
            clock_leeway: Duration::from_secs(30),
            scope_claims: vec!["scope".into(), "scp".into()],
            token_types: TokenTypes::AnyButIdToken,
        };
        Self { signer, keys: KeySet::parse(&std::fs::read(path).unwrap()).unwrap(), policy }
    }

    fn verify(&self, token: &UnverifiedToken, now: UnixSeconds) -> Caller {
        jwt::verify(token, &self.policy, &self.keys, AUDIENCE, now).unwrap()
    }

    fn caller(&self) -> Caller {
        let head = bearer(&self.signer.token(Signature::Es256, 1));
        self.verify(&unverified_token(&head).unwrap(), Clock.now())
    }
}

fn bearer(token: &str) -> HeaderMap {
    head(&[("authorization", &format!("Bearer {token}"))])
}

// ── Which talk ──

fn session(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    let ring = Ring::derive(&[Secret::new([1; 32])]).unwrap();
    let rotated = Ring::derive(&[Secret::new([2; 32]), Secret::new([1; 32])]).unwrap();
    let principal = Principal { issuer: ISSUER.into(), subject: "9b2f6c0e-51a7-4d0c-8f39-2f5a4f3f8c11".into() };
    let binding = Binding { principal: &principal, route: "/mcp" };
    let session = Session {
        server: "tickets".into(),
        instance: "10.0.0.1:9101".into(),
        upstream_id: "1868a90c-7342-4f3a-9d8e-2f5a4f3f8c11".into(),
        issued_at: UnixSeconds(1000),
        expires_at: UnixSeconds(44_200),
    };
    let id = seal(&session, binding, [7; 12], &ring).unwrap();
    group.bench_function("seal", |bench| bench.iter(|| seal(black_box(&session), binding, [7; 12], &ring).unwrap()));
    for (name, ring) in [("open", &ring), ("open, sealed with the key before", &rotated)] {
        group.bench_function(name, |bench| {
            bench.iter(|| open(black_box(id.as_bytes()), binding, ring, UnixSeconds(2000)).unwrap());
        });
    }
    group.finish();
}

// ── May they ──

fn decisions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    let caller = Idp::new().caller();
    let legacy = head(&[("mcp-protocol-version", "2025-11-25")]);
    let body = call(&json!({ "path": "/srv/data/report.txt" }));
    let request = classify(&legacy, body, &LIMITS).unwrap();
    let scopes = || rule("readers").scopes(&["mcp:use", "echo:call"]).tool("read_*");
    let regex = || rule("paths").tool("read_file").when(r#"args.path.matches("^/srv/data/[a-z]+\\.txt$")"#);
    let others = |count| (0..count).map(|number| rule(&format!("rule-{number}")).tool(&format!("tool_{number}")));
    for (name, rules) in [
        ("scope rule", vec![scopes()]),
        ("regex rule", vec![regex()]),
        ("scope rule among 10,000", others(9_999).chain([scopes()]).collect()),
        ("regex rule among 10,000", others(9_999).chain([regex()]).collect()),
        ("denied by 10,000", others(10_000).collect()),
    ] {
        let policy = Policy::compile(Effect::Deny, &rules, &["files".into()]).unwrap();
        let expected = !name.starts_with("denied");
        group.bench_function(name, |bench| {
            bench.iter(|| {
                // Arguments are parsed on their first use in a rule, once a request.
                let message = unparsed(&request);
                let decision = ask(&policy, &caller, &message, &legacy);
                assert_eq!(matches!(decision, Decision::Permit(_)), expected);
            });
        });
    }
    group.finish();
}

/// The message as it comes from the classifier. Cloning one whose arguments are parsed would clone the parsed ones.
fn unparsed(request: &McpRequest) -> Message {
    request.messages[0].clone()
}

fn ask(policy: &Policy, caller: &Caller, message: &Message, head: &HeaderMap) -> Decision {
    let facts = Facts {
        now: UnixSeconds(1_785_144_600),
        http_method: "POST",
        host: "mcp.bench.test",
        path: "/mcp",
        headers: head,
        client_ip: None,
        agent: None,
        server_identity: None,
        client_certificate: None,
        body_bytes: 300,
        region: None,
        revision: portcullis::mcp::Revision::V2025_11_25,
    };
    decide(policy, &Question { caller, server: "files", message, facts: &facts })
}

fn rule(name: &str) -> RuleSpec {
    let target = TargetSpec::default();
    RuleSpec {
        name: name.into(),
        effect: Effect::Allow,
        scopes: vec![],
        claims: vec![],
        target,
        when: None,
        agent: None,
    }
}

trait Narrow {
    fn scopes(self, scopes: &[&str]) -> RuleSpec;
    fn tool(self, name: &str) -> RuleSpec;
    fn when(self, when: &str) -> RuleSpec;
}

impl Narrow for RuleSpec {
    fn scopes(self, scopes: &[&str]) -> RuleSpec {
        RuleSpec { scopes: scopes.iter().map(|scope| (*scope).into()).collect(), ..self }
    }

    fn tool(mut self, name: &str) -> RuleSpec {
        self.target.tools.push(TargetEntry { server: None, name: name.into(), glob: true, when: None });
        self
    }

    fn when(self, when: &str) -> RuleSpec {
        RuleSpec { when: Some(when.into()), ..self }
    }
}

// ── What comes back ──

fn lists(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("list filter");
    let answer = list_answer(200);
    let asked = tools_list();
    group.throughput(Throughput::Bytes(answer.len() as u64));
    for (name, era, kept_of) in [
        ("all kept", Era::Legacy, 1),
        ("every second kept", Era::Legacy, 2),
        ("every second kept, modern", Era::Modern, 2),
    ] {
        group.bench_function(BenchmarkId::new(name, answer.len()), |bench| {
            bench.iter(|| {
                let mut count = 0;
                let mut keep = |_: portcullis::mcp::ListItem<'_>, _: &str| {
                    count += 1;
                    count % kept_of == 0
                };
                filter_answer(Asked::These(&asked), era, black_box(&answer), &mut keep).unwrap()
            });
        });
    }
    group.finish();
}

fn streams(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sse");
    let short = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":0.5}}"#;
    let long = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"data":"{}"}}}}"#,
        "x".repeat(8 << 10)
    );
    let stream = |data: &str| Bytes::from(format!("id: 1\ndata: {data}\n\n").repeat((64 << 10) / data.len()));
    let list = Bytes::from(format!("data: {}\n\n", String::from_utf8(list_answer(200)).unwrap()));
    for (name, stream) in [("short events", stream(short)), ("8 KiB events", stream(&long)), ("a list", list)] {
        // Pingora reads an answer in pieces of at most this size.
        let chunks: Vec<Bytes> =
            (0..stream.len()).step_by(16 << 10).map(|at| stream.slice(at..stream.len().min(at + (16 << 10)))).collect();
        group.throughput(Throughput::Bytes(stream.len() as u64));
        group.bench_function(BenchmarkId::new(format!("watch, {name}"), stream.len()), |bench| {
            bench.iter(|| {
                let mut boundary = Boundary::default();
                chunks.iter().for_each(|chunk| boundary.watch(black_box(chunk)));
                assert!(boundary.is_at_boundary());
            });
        });
        group.bench_function(BenchmarkId::new(format!("split, {name}"), stream.len()), |bench| {
            bench.iter(|| {
                let mut splitter = Splitter::new(4 << 20);
                let mut events = 0;
                for chunk in &chunks {
                    splitter.push(black_box(chunk.clone()));
                    while let Some(piece) = splitter.next_piece().unwrap() {
                        events += usize::from(piece.event().data.is_some());
                    }
                }
                events
            });
        });
        group.bench_function(BenchmarkId::new(format!("filter, {name}"), stream.len()), |bench| {
            let asked = tools_list();
            bench.iter(|| {
                let mut filter = ListStream::answering(asked.clone(), Era::Legacy, 4 << 20);
                let mut out = Vec::new();
                for chunk in &chunks {
                    filter.push(black_box(chunk.clone()), &mut |_, _| true, &mut out).unwrap();
                }
                out
            });
        });
    }
    group.finish();
}

fn tools_list() -> Vec<(portcullis::mcp::RequestId, Method)> {
    let body = Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    let request = classify(&HeaderMap::new(), body, &LIMITS).unwrap();
    vec![(request.messages[0].request_id().unwrap().clone(), Method::ToolsList)]
}

/// The answer of a server with this many tools, each about half a KiB.
fn list_answer(tools: usize) -> Vec<u8> {
    let tool = |number: usize| {
        json!({
            "name": format!("tool_{number}"),
            "title": format!("Tool number {number}"),
            "description": "Reads one record by its id and returns every field of it as structured content.",
            "inputSchema": { "type": "object", "required": ["id"], "properties": {
                "id": { "type": "string", "description": "Which record, as the search returned it" },
                "fields": { "type": "array", "items": { "type": "string" }, "default": ["title", "state"] },
                "limit": { "type": "integer", "minimum": 1, "maximum": 500 },
            } },
            "annotations": { "readOnlyHint": true, "openWorldHint": false },
        })
    };
    let tools: Vec<_> = (0..tools).map(tool).collect();
    json!({ "jsonrpc": "2.0", "id": 1, "result": { "tools": tools, "nextCursor": "200" } }).to_string().into_bytes()
}

// ── What may come back ──

/// The scan alone (every detector over clean text), and a whole answer with that text through rules that find nothing.
fn content(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("content");
    let clean = include_str!("../src/content/detect/clean.txt");
    let prose: String = "The quick brown fox jumps over the lazy dog; nothing else happens on this fine day.\n".into();
    for (name, text) in [("prose", &*prose), ("code, tables and logs", clean)] {
        let text: String = text.chars().cycle().take(64 << 10).collect();
        let all = Detectors::of(&Detector::ALL);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::new(format!("scan of clean text, {name}"), text.len()), |bench| {
            let mut found = Vec::new();
            bench.iter(|| {
                found.clear();
                find(black_box(&text), all, &mut found);
                found.len()
            });
        });
        let answer = json!({ "jsonrpc": "2.0", "id": 1, "result": { "content": [{ "type": "text", "text": text }] } });
        let answer = answer.to_string();
        for (rules, plan) in [("redact", redacting()), ("redact and guard", guarding())] {
            group.throughput(Throughput::Bytes(answer.len() as u64));
            group.bench_function(BenchmarkId::new(format!("answer, {name}, {rules}"), answer.len()), |bench| {
                bench.iter(|| {
                    let filter = Filter::new(&plan, Some(Vec::new()), plan.all(), true, "n".into());
                    filter.unwrap().document(black_box(answer.as_bytes()), &|_, _| Vec::new()).unwrap().is_some()
                });
            });
        }
        let stream = Some(vec![("2".into(), RuleSet::default())]);
        assert!(Filter::new(&redacting(), stream, RuleSet::default(), true, "n".into()).is_none());
    }
    group.finish();
}

fn redacting() -> Arc<Plan> {
    let redact = Redact {
        detectors: Detectors::of(&Detector::ALL),
        patterns: Box::default(),
        with: Replacement::Text("[redacted]".into()),
        places: Places::ALL,
        base64: true,
    };
    Plan::new(&[content_rule("redact", Action::Redact(redact))], &[]).unwrap()
}

fn guarding() -> Arc<Plan> {
    let guard =
        Guard { threats: Threats::of(&Threat::ALL), hosts: Box::default(), base64: true, action: GuardAction::Flag };
    let redact = Redact {
        detectors: Detectors::of(&Detector::ALL),
        patterns: Box::default(),
        with: Replacement::Text("[redacted]".into()),
        places: Places::ALL,
        base64: true,
    };
    let rules = [content_rule("redact", Action::Redact(redact)), content_rule("guard", Action::Guard(guard))];
    Plan::new(&rules, &[]).unwrap()
}

fn content_rule(name: &str, action: Action) -> Arc<Rule> {
    Arc::new(Rule { name: name.into(), about: About::default(), unless: None, action })
}

// ── What happened ──

fn audit_line(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("audit");
    let caller = Idp::new().caller();
    let key = Ring::derive(&[Secret::new([1; 32])]).unwrap();
    let key = key.digest_key();
    let arguments = br#"{"path":"/srv/data/report.txt"}"#;
    let event = Event {
        request_id: "0190f6d2a1b2c3d4-0000002a".into(),
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".into()),
        client_ip: Some("192.0.2.7".parse().unwrap()),
        route: Some("/mcp".into()),
        principal: Some((&caller).into()),
        server: Some("files".into()),
        instance: Some("10.0.0.1:9101".into()),
        session: Some(Digest::of_session(key, b"v1.session")),
        mcp: Some(Mcp {
            revision: Some(portcullis::mcp::Revision::V2025_11_25),
            method: Some("tools/call".into()),
            name: Some("read_file".into()),
            id: Some(tools_list()[0].0.clone()),
            batch: Vec::new(),
        }),
        arguments: Some(Arguments { hmac_sha256: Digest::of_arguments(key, arguments) }),
        decision: Some(Verdict { effect: Effect::Allow, rule: Some("readers".into()), reason: "permitted" }),
        status: Some(200),
        outcome: Outcome::Ok,
        duration: Duration::from_micros(1_234),
        upstream: Some(Duration::from_micros(1_100)),
        bytes_in: 300,
        bytes_out: 420,
        config_generation: 1,
        ..Event::default()
    };
    let stamp = Stamp { time_ms: 1_785_144_600_000, seq: 42, gateway: "edge-1" };
    let mut line = Vec::with_capacity(4096);
    group.bench_function("line", |bench| {
        bench.iter(|| {
            line.clear();
            stamp.write_beginning(&mut line);
            black_box(&event).write_rest(&mut line);
        });
    });
    group.bench_function("digest of arguments", |bench| {
        bench.iter(|| Digest::of_arguments(key, black_box(arguments)));
    });
    group.finish();
}

// ── Requests ──

fn call(arguments: &serde_json::Value) -> Bytes {
    let params = json!({ "name": "read_file", "arguments": arguments });
    json!({ "jsonrpc": "2.0", "id": 42, "method": "tools/call", "params": params }).to_string().into()
}

fn modern_call() -> Bytes {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": { "elicitation": {} },
        "io.modelcontextprotocol/clientInfo": { "name": "agent", "version": "1.0" },
    });
    let params = json!({ "name": "read_file", "arguments": { "path": "/srv/data/report.txt" }, "_meta": meta });
    json!({ "jsonrpc": "2.0", "id": 42, "method": "tools/call", "params": params }).to_string().into()
}

fn head(headers: &[(&'static str, &str)]) -> HeaderMap {
    headers.iter().map(|(name, value)| ((*name).parse().unwrap(), HeaderValue::from_str(value).unwrap())).collect()
}

const LIMITS: ClassifyLimits = ClassifyLimits { json_depth: 64, batch_messages: 50 };
