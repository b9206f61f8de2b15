//! What the reader says about files, good and bad.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod conf;
mod content;
mod hostile;
mod problems;
mod routing;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::credential::{ClientAuth, Plan};
use crate::identity::Algorithm;
use crate::policy::rule::{ClaimKind, TargetEntry};

/// The configuration most tests change one thing of: line 1 is `listen`.
const BASE: &str = "\
listen: [{ address: 127.0.0.1:8080 }]
public_url: https://mcp.test
session: { keys: [{ file: session.key }] }
issuers:
  - name: corp
    issuer: https://idp.test
servers:
  - name: tickets
    credential: none
    instances: [{ url: http://10.0.0.1:9101 }]
routes:
  - path: /mcp
    servers: [tickets]
    issuers: [corp]
";

/// 32 bytes of a real generator.
const KEY: &str = "8vcZqg8YJeQ6ysemE4PbeXP+iuDcMKaBPa5yZA3DZgc=";

#[test]
fn one_thread_takes_no_work_from_others_unless_it_is_told_to() {
    let steals = |section: &str| read_good(&format!("{BASE}{section}")).server.work_stealing;

    assert!(!steals("server: { threads: 1 }\n"));
    assert!(steals("server: { threads: 2 }\n"));
    assert!(steals("server: { threads: 1, work_stealing: true }\n"));
    assert!(!steals("server: { work_stealing: false }\n"));
}

#[test]
fn the_least_configuration_has_every_documented_default() {
    let config = read_good(BASE);

    assert_eq!(
        config.server,
        ServerSettings {
            threads: 6,
            work_stealing: true,
            pid_file: None,
            upgrade_sock: None,
            control_sock: None,
            grace_period_seconds: 30,
            drain_seconds: 1,
            graceful_shutdown_timeout_seconds: 10,
        }
    );
    assert_eq!(config.listen, [Listen { address: "127.0.0.1:8080".parse().unwrap(), tls: None }]);
    assert_eq!(config.trusted_proxies, []);
    assert_eq!(config.public_url, "https://mcp.test");
    assert_eq!(config.allowed_hosts, ["mcp.test", "localhost", "127.0.0.1", "[::1]"]);
    assert_eq!(config.allowed_origins, ["https://mcp.test"]);
    assert!(config.loopback_origins);
    assert!(config.metrics.is_none() && config.admin.is_none());
    assert_eq!((config.audit.file, config.audit.stdout), (None, true));
    assert_eq!((config.audit.queue, config.audit.on_full), (65_536, OnFull::Wait));
    assert_eq!(config.audit.open_after, Duration::from_secs(10));
    assert_eq!(config.session.ttl, Duration::from_secs(43_200));
    assert_eq!(config.session.keys.len(), 1);
    assert_eq!(
        config.limits,
        Limits {
            body_bytes: 4_194_304,
            json_depth: 64,
            sse_event_bytes: 4_194_304,
            list_bytes: 16_777_216,
            header_bytes: 65_536,
            header_count: 128,
            connections: 20_000,
            http2_streams: 100,
            request_head_timeout: Duration::from_secs(60),
            request_body_timeout: Duration::from_secs(10),
            client_write_timeout: Duration::from_secs(30),
            batch_messages: 50,
            token_cache: 65_536,
            agent_cache: 65_536,
            credential_cache: 65_536,
            decision_cache: 65_536,
            revoked_sessions: 65_536,
            budget_cells: 131_072,
            taint_marks: 65_536,
            quarantines: 1024,
            handover_sessions: 16_384,
        }
    );
    assert_eq!(
        *config.issuers[0],
        IssuerConfig {
            name: "corp".into(),
            issuer: "https://idp.test".into(),
            audiences: vec![],
            algorithms: vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA],
            jwks: JwksSource::Discover,
            clock_leeway: Duration::from_secs(30),
            scope_claims: vec!["scope".into(), "scp".into()],
            token_types: TokenTypes::AnyButIdToken,
            jwks_refresh: Duration::from_secs(300),
            jwks_cooldown: Duration::from_secs(30),
        }
    );
    let server = &config.servers[0];
    assert_eq!((&*server.name, &*server.path, server.http2), ("tickets", "/mcp", false));
    assert_eq!(
        server.instances,
        [InstanceConfig {
            id: "10.0.0.1:9101".into(),
            tls: false,
            host: "10.0.0.1".into(),
            port: 9101,
            weight: 1,
            traits: Traits::default()
        }]
    );
    assert_eq!(
        server.health,
        HealthSettings {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            unhealthy_after: 3,
            healthy_after: 1,
            http_path: None,
            mcp: false,
        }
    );
    assert_eq!(
        server.timeouts,
        UpstreamTimeouts {
            connect: Duration::from_secs(2),
            first_byte: Duration::from_secs(60),
            idle: Duration::from_secs(300),
            keepalive: Duration::from_secs(4),
            total: Duration::from_secs(43_200),
        }
    );
    assert_eq!(server.tls, UpstreamTls::default());
    assert!(matches!(server.credential, Plan::None));
    assert_eq!(server.forward_claims, []);
    let route = &config.routes[0];
    assert_eq!((&*route.path, &*route.resource), ("/mcp", "https://mcp.test/mcp"));
    assert_eq!((&*route.servers[0], &*route.issuers[0]), ("tickets", "corp"));
    assert_eq!((route.default, route.rules.len(), route.scopes_supported.len()), (Effect::Deny, 0, 0));
}

#[test]
fn a_rule_is_read_with_all_its_parts() {
    let config = read_good(&with_rules(
        r#"
        - name: readers
          action: deny
          source: { jwt: { scopes: [a, b], claims: [{ name: level, type: number, values: [1, 2.5] }] } }
          target:
            tools: [{ server: tickets, tool: search*, glob: false, when: "args.n > 1" }]
            methods: [tasks/*]
          when: "true"
"#,
    ));

    assert_eq!(
        config.routes[0].rules,
        [RuleSpec {
            name: "readers".into(),
            effect: Effect::Deny,
            scopes: vec!["a".into(), "b".into()],
            claims: vec![crate::policy::rule::ClaimSpec {
                name: "level".into(),
                kind: ClaimKind::Number,
                values: vec![json!(1), json!(2.5)],
            }],
            agent: None,
            target: crate::policy::rule::TargetSpec {
                tools: vec![TargetEntry {
                    server: Some("tickets".into()),
                    name: "search*".into(),
                    glob: false,
                    when: Some("args.n > 1".into()),
                }],
                methods: vec!["tasks/*".into()],
                ..Default::default()
            },
            when: Some("true".into()),
        }]
    );
}

/// DESIGN: "the rules of Envoy's MCPRoute run unchanged".
#[test]
fn the_words_of_envoys_mcproute_are_accepted() {
    let config = read_good(
        &with_rules(
            r#"
        - action: Allow
          source: { jwt: { claims: [{ name: groups, type: StringArray, values: [it] }] } }
          target: { tools: [{ backend: tickets, toolName: search }] }
          cel: request.method == "POST"
        - action: Deny
"#,
        )
        .replace("\nservers:", "\nbackends:"),
    );

    let [first, second] = &config.routes[0].rules[..] else { panic!("two rules") };
    assert_eq!((&*first.name, first.effect, first.claims[0].kind), ("rule-1", Effect::Allow, ClaimKind::StringArray));
    assert_eq!(first.target.tools[0].server.as_deref(), Some("tickets"));
    assert_eq!(&*first.target.tools[0].name, "search");
    assert_eq!(first.when.as_deref(), Some("request.method == \"POST\""));
    assert_eq!((&*second.name, second.effect), ("rule-2", Effect::Deny));
}

#[test]
fn anchors_and_aliases_are_read_as_what_they_stand_for() {
    let config = read_good(&BASE.replace(
        "    instances: [{ url: http://10.0.0.1:9101 }]\n",
        "    instances: [{ url: http://10.0.0.1:9101 }]\n    timeouts: &fast { connect: 1s }\n  - name: other\n    \
         credential: none\n    instances: [{ url: http://10.0.0.2:9101 }]\n    timeouts: *fast\n",
    ));
    assert_eq!(config.servers[1].timeouts.connect, Duration::from_secs(1));
    assert_eq!(config.servers[1].timeouts, config.servers[0].timeouts);
}

#[test]
fn a_token_exchange_is_read_with_all_its_parts() {
    let config = read_good(&BASE.replace(
        "credential: none",
        "credential: { token_exchange: { token_endpoint: https://sts.test/token, client: { id: us, secret: { env: STS } }, \
         audience: [a, b], resource: ['https://r.test/'], scope: [s], requested_token_type: null, timeout: 250ms } }",
    ));
    let Plan::TokenExchange(plan) = &config.servers[0].credential else { panic!("a token exchange") };
    assert_eq!((&*plan.token_endpoint, &*plan.client_id), ("https://sts.test/token", "us"));
    assert_eq!(plan.client_secret.as_ref().unwrap().expose(), "s3cr3t-of-the-test");
    assert_eq!(plan.client_auth, ClientAuth::ClientSecretBasic);
    assert_eq!(
        (&plan.audience[..], &plan.resource[..], &plan.scope[..]),
        (&["a".to_owned(), "b".to_owned()][..], &["https://r.test/".to_owned()][..], &["s".to_owned()][..],)
    );
    assert_eq!(plan.subject_token_type, "urn:ietf:params:oauth:token-type:access_token");
    assert_eq!((plan.requested_token_type.as_deref(), plan.accept_missing_token_type), (None, false));
    assert_eq!(plan.timeout, Duration::from_millis(250));
}

#[test]
fn a_static_credential_is_prefix_and_secret() {
    let config = read_good(
        &BASE.replace("credential: none", "credential: { static: { secret: { credential: api }, prefix: 'Bearer ' } }"),
    );
    let Plan::Static { header, secret } = &config.servers[0].credential else { panic!("a static credential") };
    assert_eq!((header.as_str(), &**secret.expose()), ("authorization", "Bearer k3y-of-the-test"));
}

#[test]
fn session_keys_are_read_in_either_base64_padded_or_not_with_or_without_newline() {
    let url_safe = KEY.replace('+', "-").replace('/', "_");
    for text in [KEY, KEY.trim_end_matches('='), &url_safe, url_safe.trim_end_matches('=')] {
        for end in ["", "\n", "\r\n"] {
            let machine = Fake::new().file("session.key", 0o600, &format!("{text}{end}"));
            let config = read(BASE, &machine, &|_| Vec::new()).unwrap_or_else(|p| panic!("{text:?}: {p:?}"));
            assert_eq!(config.session.keys[0].expose()[..3], [0xf2, 0xf7, 0x19], "{text:?}");
        }
    }
}

#[test]
fn origins_that_are_named_replace_the_default_ones() {
    let config = read_good(&format!("allowed_origins: []\n{BASE}"));
    assert_eq!((config.allowed_origins.len(), config.loopback_origins), (0, false));
}

#[test]
fn loopback_origins_are_off_by_default_when_a_listener_is_not_on_loopback() {
    let config =
        read_good(&BASE.replace("{ address: 127.0.0.1:8080 }", "{ address: 127.0.0.1:8080 }, { address: 0.0.0.0:80 }"));
    assert!(!config.loopback_origins);
}

#[test]
fn a_public_url_keeps_its_base_path_and_loses_its_last_slash() {
    for (written, resource) in [
        ("https://mcp.test/", "https://mcp.test/mcp"),
        ("https://mcp.test:8443/edge/", "https://mcp.test:8443/edge/mcp"),
        ("http://localhost:8080", "http://localhost:8080/mcp"),
        ("http://[::1]:8080", "http://[::1]:8080/mcp"),
    ] {
        let config = read_good(&BASE.replace("https://mcp.test", &format!("'{written}'")));
        assert_eq!(&*config.routes[0].resource, resource);
    }
}

#[test]
fn metrics_may_leave_loopback_when_the_operator_insists() {
    let config = read_good(&format!("metrics: {{ address: 10.0.0.5:9090, insecure: true }}\n{BASE}"));
    assert_eq!(config.metrics, Some(Listen { address: "10.0.0.5:9090".parse().unwrap(), tls: None }));
}

#[test]
fn metrics_and_admin_may_leave_loopback_over_tls() {
    for key in ["metrics", "admin"] {
        let tls = "{ certificate: /etc/p/cert.pem, private_key: /etc/p/key.pem }";
        let text = format!("{key}: {{ address: 10.0.0.5:9090, tls: {tls} }}\n{BASE}");
        assert_eq!(read_shape(&text, &|_| Vec::new()).map(|_| ()), Ok(()), "{key}");
    }
}

#[test]
fn keys_are_fetched_from_a_named_host_without_tls_and_clients_never_come_to_one() {
    let plain = BASE.replace("https://idp.test", "http://idp.test");
    assert!(read_shape(&plain, &|_| Vec::new()).is_err());
    let named = format!("plain_http_hosts: [IDP.test]\n{plain}");
    assert_eq!(read_shape(&named, &|_| Vec::new()).map(|_| ()), Ok(()));
    let public = format!("plain_http_hosts: [mcp.test]\n{}", BASE.replace("https://mcp.test", "http://mcp.test"));
    assert!(read_shape(&public, &|_| Vec::new()).is_err());
}

#[test]
fn a_file_checked_for_its_shape_needs_no_secret() {
    let summary = read_shape(BASE, &|_| Vec::new()).unwrap();
    assert_eq!(summary, Summary { issuers: 1, servers: 1, routes: 1 });
    assert_eq!(summary.to_string(), "1 route, 1 server, 1 issuer");
}

#[test]
fn a_configuration_prints_without_its_secrets() {
    let printed = format!("{:?}", read_good(BASE));
    assert!(printed.contains("keys: [Secret(…)]"), "{printed}");
}

// ── Helpers ──

/// A machine with the files, variables and credentials that a test gives it.
#[derive(Clone, Default)]
pub(super) struct Fake {
    files: BTreeMap<String, (u32, Vec<u8>)>,
    env: BTreeMap<String, String>,
}

impl Fake {
    /// With a good session key and a few secrets.
    fn new() -> Self {
        Self::default()
            .file("session.key", 0o600, KEY)
            .env("STS", "s3cr3t-of-the-test")
            .env("CREDENTIALS_DIRECTORY", "/run/credentials")
            .file("/run/credentials/api", 0o440, "k3y-of-the-test\n")
    }

    fn file(mut self, path: &str, mode: u32, text: &str) -> Self {
        self.files.insert(path.to_owned(), (mode, text.as_bytes().to_vec()));
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }
}

/// A certificate and its key in PEM, made for this run of the tests.
pub(super) fn certificate_and_key() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

impl Machine for Fake {
    fn read(&self, path: &Path) -> Result<FoundFile, String> {
        let found = self.files.get(path.to_str().unwrap()).cloned();
        let (mode, bytes) = found.ok_or_else(|| "does not exist".to_owned())?;
        Ok(FoundFile { bytes: Secret::new(bytes), mode: Some(0o100_000 | mode) })
    }

    fn env(&self, name: &str) -> Option<Secret<String>> {
        self.env.get(name).cloned().map(Secret::new)
    }

    fn cores(&self) -> usize {
        6
    }
}

fn read_good(text: &str) -> Config {
    read(text, &Fake::new(), &|_| Vec::new()).unwrap_or_else(|problems| panic!("{}", shown(&problems)))
}

/// The lines an operator sees, the file's name left out.
fn read_bad(text: &str, machine: &Fake) -> String {
    shown(&read(text, machine, &|_| Vec::new()).unwrap_err())
}

fn shown(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// [`BASE`] with rules, the first in line 17.
fn with_rules(rules: &str) -> String {
    format!("{BASE}    authorization:\n      rules:{rules}")
}
