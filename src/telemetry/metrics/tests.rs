#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::time::Duration;

use crate::audit::Outcome;
use crate::credential::ExchangeError;
use crate::mcp::Method;
use crate::policy::Effect;

use super::*;

#[test]
fn every_metric_of_the_contract_appears_with_its_labels() {
    let metrics = metrics();
    exercise(&metrics);
    let text = text(&metrics);
    for line in [
        r#"portcullis_requests_total{method="tools/call",outcome="ok",route="/mcp"} 2"#,
        r#"portcullis_requests_total{method="GET",outcome="aborted",route="/mcp"} 1"#,
        r#"portcullis_request_duration_seconds_count{method="tools/call",route="/mcp"} 2"#,
        r#"portcullis_gateway_duration_seconds_bucket{route="/mcp",le="0.00025"} 1"#,
        r#"portcullis_authentications_total{issuer="corp",result="expired"} 1"#,
        r#"portcullis_authorizations_total{decision="deny",reason="default",route="/mcp"} 1"#,
        r#"portcullis_tool_calls_total{outcome="refused",server="tickets",tool="search"} 1"#,
        r#"portcullis_tool_call_duration_seconds_sum{server="tickets",tool="search"} 0.5"#,
        r#"portcullis_token_exchanges_total{outcome="ok",server="tickets"} 1"#,
        r#"portcullis_token_exchanges_total{outcome="invalid_grant",server="tickets"} 1"#,
        r#"portcullis_token_exchange_duration_seconds_count{server="tickets"} 2"#,
        r#"portcullis_token_cache_total{cache="credential",result="hit"} 1"#,
        r#"portcullis_token_cache_total{cache="token",result="miss"} 1"#,
        r#"portcullis_sessions_total{event="opened"} 1"#,
        "portcullis_streams_active 1",
        "portcullis_connections_active 1",
        "portcullis_connections_refused_total 1",
        r#"portcullis_instance_healthy{instance="a",server="tickets"} 1"#,
        r#"portcullis_instance_healthy{instance="b",server="tickets"} 0"#,
        r#"portcullis_jwks_refreshes_total{issuer="corp",outcome="ok"} 1"#,
        r#"portcullis_audit_records_total{sink="file"} 1"#,
        "portcullis_audit_queue_records 0",
        "portcullis_config_generation 3",
        r#"portcullis_config_reloads_total{outcome="refused"} 1"#,
        r#"portcullis_agent_requests_total{outcome="ok",provider="agents.test",type="assistant"} 1"#,
        r#"portcullis_agent_requests_total{outcome="refused",provider="other",type="other"} 1"#,
        r#"portcullis_token_cache_total{cache="agent",result="hit"} 1"#,
        r#"portcullis_server_identity_checks_total{result="ok",server="tickets"} 1"#,
        r#"portcullis_tls_certificate_not_after_seconds{listener="0.0.0.0:443"} 1800000000"#,
        r#"portcullis_tls_certificate_reloads_total{listener="0.0.0.0:443",outcome="applied"} 1"#,
        r#"portcullis_upstream_tls_certificate_not_after_seconds{file="ca",server="tickets"} 1800000000"#,
        r#"portcullis_upstream_tls_certificate_reloads_total{outcome="refused",server="tickets"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.contains("process_resident_memory_bytes"), "the process is missing");
}

/// A metric labelled with whatever a token says grows without bound.
#[test]
fn an_unknown_kind_of_agent_is_other() {
    let metrics = metrics();
    let agents = metrics.agents(["assistant"], ["agents.test"]);
    for name in [None, Some(""), Some("Assistant"), Some("evil:\"} 1"), Some("agents.test")] {
        agents.acted(name, name.filter(|name| *name != "agents.test"), Outcome::Ok);
    }
    let text = text(&metrics);
    assert!(
        text.contains(r#"portcullis_agent_requests_total{outcome="ok",provider="other",type="other"} 5"#),
        "{text}"
    );
    assert_eq!(text.matches("portcullis_agent_requests_total{").count(), 1, "{text}");
}

/// A metric labelled with whatever a client sent grows without bound.
#[test]
fn an_unknown_tool_is_other() {
    let metrics = metrics();
    let server = metrics.server("tickets", ["search"]);
    for tool in ["../../etc", "", "search\n", "Search", "\"} 1"] {
        server.tool_called(tool, Outcome::Ok, Duration::ZERO);
    }
    let text = text(&metrics);
    assert!(text.contains(r#"portcullis_tool_calls_total{outcome="ok",server="tickets",tool="other"} 5"#), "{text}");
    assert_eq!(text.matches("portcullis_tool_calls_total{").count(), 1, "{text}");
}

#[test]
fn tools_with_counters_of_their_own_are_bounded() {
    let metrics = metrics();
    let names: Vec<String> = (0..TOOLS_MAX + 10).map(|index| format!("tool-{index}")).collect();
    let server = metrics.server("tickets", names.iter().map(String::as_str));
    assert_eq!(server.tools.len(), TOOLS_MAX);
}

#[test]
fn handles_of_two_snapshots_count_together() {
    let metrics = metrics();
    let (old, new) = (metrics.route("/mcp"), metrics.route("/mcp"));
    let method = MethodLabel::Mcp(Method::ToolsList);
    old.finished(method, Outcome::Ok, Duration::ZERO);
    new.finished(method, Outcome::Ok, Duration::ZERO);
    let line = r#"portcullis_requests_total{method="tools/list",outcome="ok",route="/mcp"} 2"#;
    assert!(text(&metrics).contains(line));
}

#[test]
fn every_method_has_a_cell_of_its_own() {
    let special =
        [MethodLabel::Batch, MethodLabel::Delete, MethodLabel::Get, MethodLabel::Other, MethodLabel::Response];
    let mut cells: Vec<_> =
        special.into_iter().chain(Method::ALL.iter().copied().map(MethodLabel::Mcp)).map(MethodLabel::index).collect();
    cells.sort_unstable();
    assert_eq!(cells, (0..MethodLabel::COUNT).collect::<Vec<_>>());
    let outcomes: Vec<_> = Outcome::ALL.into_iter().map(|outcome| outcome as usize).collect();
    assert_eq!(outcomes, [0, 1, 2, 3]);
}

#[test]
fn more_words_than_cells_are_counted_too() {
    let metrics = metrics();
    let issuer = metrics.issuer("corp");
    const WORDS: [&str; 18] =
        ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r"];
    for _ in 0..2 {
        WORDS.into_iter().for_each(|word| issuer.authenticated(word));
    }
    let text = text(&metrics);
    for word in WORDS {
        assert!(text.contains(&format!(r#"result="{word}"}} 2"#)), "{word}");
    }
}

#[test]
fn a_stream_counts_until_its_guard_goes() {
    let metrics = metrics();
    let (one, two) = (metrics.stream_opened(), metrics.stream_opened());
    assert_eq!(metrics.streams_active.get(), 2);
    drop(one);
    assert_eq!(metrics.streams_active.get(), 1);
    drop(two);
    assert_eq!(metrics.streams_active.get(), 0);
}

#[test]
fn a_removed_instance_leaves_the_page() {
    let metrics = metrics();
    metrics.instance_healthy("tickets", "a");
    metrics.instance_removed("tickets", "a");
    metrics.instance_removed("tickets", "never-seen");
    assert!(!text(&metrics).contains("instance=\"a\""));
}

#[test]
fn two_sets_in_one_registry_are_refused() {
    let registry = Registry::new();
    let _metrics = Metrics::new(registry.clone()).unwrap();
    assert!(matches!(Metrics::new(registry), Err(prometheus::Error::AlreadyReg)));
}

fn metrics() -> Metrics {
    Metrics::new(Registry::new()).unwrap()
}

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.render()).unwrap()
}

fn exercise(metrics: &Metrics) {
    let agents = metrics.agents(["assistant"], ["agents.test"]);
    agents.acted(Some("assistant"), Some("agents.test"), Outcome::Ok);
    agents.acted(Some("stranger"), None, Outcome::Refused);
    metrics.cache(CacheName::Agent).hit();
    metrics.server_identity_checked("tickets", "ok");
    let route = metrics.route("/mcp");
    let call = MethodLabel::Mcp(Method::ToolsCall);
    route.finished(call, Outcome::Ok, Duration::from_millis(3));
    route.finished(call, Outcome::Ok, Duration::from_millis(3));
    route.finished(MethodLabel::Get, Outcome::Aborted, Duration::from_secs(30));
    route.gateway_took(Duration::from_micros(200));
    route.decided(Effect::Allow, "rule");
    route.decided(Effect::Deny, "default");
    let server = metrics.server("tickets", ["search"]);
    server.tool_called("search", Outcome::Refused, Duration::from_millis(500));
    server.exchanged(Ok(()), Duration::from_millis(20));
    server.exchanged(Err(ExchangeError::InvalidGrant), Duration::from_millis(20));
    metrics.issuer("corp").authenticated("expired");
    metrics.cache(CacheName::Credential).hit();
    metrics.cache(CacheName::Token).missed();
    metrics.session(SessionEvent::Opened);
    std::mem::forget(metrics.stream_opened());
    std::mem::forget(metrics.connection_opened());
    metrics.connection_refused();
    metrics.instance_healthy("tickets", "a");
    metrics.instance_unhealthy("tickets", "b");
    metrics.jwks_refreshed("corp", "ok");
    metrics.audit_records("file").inc();
    metrics.config_in_force(3);
    metrics.config_reloaded(ReloadOutcome::Refused);
    metrics.certificate_expires("0.0.0.0:443", UnixSeconds(1_800_000_000));
    metrics.certificate_reloaded("0.0.0.0:443", ReloadOutcome::Applied);
    metrics.upstream_certificate_expires("tickets", UpstreamFile::Ca, UnixSeconds(1_800_000_000));
    metrics.upstream_certificates_reloaded("tickets", ReloadOutcome::Refused);
    metrics.routing.exercise();
}
