//! Who plays? The files, addresses and processes of a measurement.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::certificates::{self, SERVER_NAME};
use crate::process::{Cores, Running, command};
use crate::rows::Proxy;
use crate::tokens::{AUDIENCE, ISSUER, Signature, Signer};

/// How Portcullis is configured. Always the full path: see [`Stage::portcullis_yaml`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Remembers one token and one exchanged credential.
    Amnesic,
    /// Rules for routing, answers, budgets and taint that are about other requests.
    Features,
    /// Remembers one token.
    Forgetful,
    Full,
    /// Every detector looks through the answer, and finds nothing.
    Scanning,
    /// This many rules for other tools before those that decide.
    Rules(usize),
    /// TLS to clients and to servers.
    Tls,
}

/// Where the programs are.
pub struct Programs {
    pub bare: PathBuf,
    pub nginx: Option<PathBuf>,
    pub oha: PathBuf,
    pub portcullis: PathBuf,
}

/// Everything that a measurement needs, with a backend that runs.
pub struct Stage {
    pub programs: Programs,
    pub dir: PathBuf,
    /// A token each, RS256 and ES256.
    rs256: String,
    es256: String,
    backends: [SocketAddr; 2],
    tls_backends: [SocketAddr; 2],
    token_endpoint: SocketAddr,
    _backend: Running,
}

impl Stage {
    /// Writes keys and tokens into `dir`, which is made anew, and starts the backend.
    pub fn set(programs: Programs, dir: PathBuf) -> Self {
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let signer = Signer::new();
        signer.write_jwks(&dir.join("jwks.json"));
        for signature in [Signature::Rs256, Signature::Es256] {
            let tokens: Vec<String> = (0..MANY_TOKENS).map(|number| signer.token(signature, number)).collect();
            fs::write(many_tokens(&dir, signature), tokens.join("\n")).unwrap();
        }
        write_private(&dir.join("sts.secret"), "load-test-only");
        let key = Command::new(&programs.portcullis).arg("keygen").output().unwrap().stdout;
        write_private(&dir.join("session.key"), &String::from_utf8(key).unwrap());

        certificates::write(&dir, write_private);

        let [a, b, token_endpoint, tls_a, tls_b] = free_addresses();
        let mut backend = command(&std::env::current_exe().unwrap(), Cores::Others);
        backend.arg("backend").args([a, b, token_endpoint].map(|address| address.port().to_string()));
        backend.arg("tls").args([dir.join("certificate.pem"), dir.join("certificate.key")]);
        backend.args([tls_a, tls_b].map(|address| address.port().to_string()));
        let backend = Running::start(backend, token_endpoint, &dir.join("backend.log"));
        Self {
            programs,
            rs256: signer.token(Signature::Rs256, MANY_TOKENS),
            es256: signer.token(Signature::Es256, MANY_TOKENS),
            dir,
            backends: [a, b],
            tls_backends: [tls_a, tls_b],
            token_endpoint,
            _backend: backend,
        }
    }

    /// The one token of most rows.
    pub fn token(&self, signature: Signature) -> &str {
        match signature {
            Signature::Es256 => &self.es256,
            Signature::Rs256 => &self.rs256,
        }
    }

    /// The file of tokens, one a line.
    pub fn many_tokens(&self, signature: Signature) -> PathBuf {
        many_tokens(&self.dir, signature)
    }

    /// Starts a proxy; `None` when the machine has none of its kind.
    pub fn start(&self, proxy: Proxy) -> Option<Running> {
        let [address, metrics] = free_addresses();
        let (command, log) = match proxy {
            Proxy::Bare => {
                let mut command = command(&self.programs.bare, Cores::Proxy);
                command.args([address.to_string(), self.backends[0].to_string()]);
                (command, "bare.log".to_owned())
            }
            Proxy::BareTls => {
                let mut command = command(&self.programs.bare, Cores::Proxy);
                command.args([address.to_string(), self.tls_backends[0].to_string()]);
                command.args(["certificate.pem", "certificate.key", "authority.pem"].map(|file| self.dir.join(file)));
                (command, "bare-tls.log".to_owned())
            }
            Proxy::Nginx => {
                let file = self.dir.join("nginx.conf");
                fs::write(&file, self.nginx_conf(address)).unwrap();
                let mut command = command(self.programs.nginx.as_deref()?, Cores::Proxy);
                command.arg("-p").arg(&self.dir).arg("-c").arg(file).arg("-e").arg(self.dir.join("nginx.log"));
                (command, "nginx.out".to_owned())
            }
            Proxy::Portcullis(variant) => {
                let file = self.dir.join(format!("portcullis-{}.yaml", address.port()));
                fs::write(&file, self.portcullis_yaml(variant, address, metrics)).unwrap();
                let mut command = command(&self.programs.portcullis, Cores::Proxy);
                command.arg("run").arg("--config").arg(file);
                (command, format!("portcullis-{}.log", address.port()))
            }
        };
        Some(Running::start(command, address, &self.dir.join(log)))
    }

    /// Opens `count` sessions and returns the id of the last.
    pub fn open_sessions(&self, proxy: &Running, count: usize) -> String {
        let mut client = self.client("sessions", proxy);
        let output = client.arg(count.to_string()).arg(&self.rs256).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "sessions cannot be opened");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// This program, as a client of `proxy`.
    pub fn client(&self, part: &str, proxy: &Running) -> Command {
        let mut client = command(&std::env::current_exe().unwrap(), Cores::Others);
        client.arg(part).arg(proxy.address.to_string());
        client
    }

    /// Empties the audit files: a minute of load writes more than a gigabyte.
    pub fn empty_audit_files(&self) {
        for file in fs::read_dir(&self.dir).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap();
            }
        }
    }

    /// Signed tokens, a rule of two scopes with a regex on an argument, three deny rules, two instances, token exchange,
    /// metrics, audit to a file.
    fn portcullis_yaml(&self, variant: Variant, address: SocketAddr, metrics: SocketAddr) -> String {
        let (dir, port) = (self.dir.display(), address.port());
        let token_endpoint = self.token_endpoint;
        let is_tls = variant == Variant::Tls;
        let [a, b] = if is_tls {
            self.tls_backends.map(|address| format!("https://{address}"))
        } else {
            self.backends.map(|address| format!("http://{address}"))
        };
        let (listen_tls, server_tls) = if is_tls {
            (
                format!(", tls: {{ certificate: {dir}/certificate.pem, private_key: {dir}/certificate.key }}"),
                format!("tls: {{ ca: {dir}/authority.pem, server_name: {SERVER_NAME} }}"),
            )
        } else {
            Default::default()
        };
        let (token_cache, credential_cache) = match variant {
            Variant::Amnesic => (1, 1),
            Variant::Forgetful => (1, 65_536),
            Variant::Features | Variant::Full | Variant::Scanning | Variant::Rules(_) | Variant::Tls => {
                (65_536, 65_536)
            }
        };
        let mut more_rules = String::new();
        if let Variant::Rules(count) = variant {
            for number in 0..count.saturating_sub(4) {
                let when = if number % 2 == 0 { "" } else { r#", when: 'args.text.matches("^[a-z]+$")'"# };
                let target = format!("{{ tools: [{{ server: tools, tool: tool-{number}{when} }}] }}");
                let source = format!("{{ jwt: {{ scopes: [scope-{number}] }} }}");
                writeln!(more_rules, "        - {{ name: more-{number}, source: {source}, target: {target} }}")
                    .unwrap();
            }
        }
        let (of_server, of_all) = match variant {
            Variant::Features => (FEATURES_OF_SERVER, FEATURES.replace("DIR", &format!("{dir}/{port}"))),
            Variant::Scanning => (DETECTORS, String::new()),
            Variant::Amnesic | Variant::Forgetful | Variant::Full | Variant::Rules(_) | Variant::Tls => {
                Default::default()
            }
        };
        format!(
            r#"
server: {{ threads: 1, grace_period_seconds: 0, drain_seconds: 0, graceful_shutdown_timeout_seconds: 1 }}
listen: [{{ address: "{address}"{listen_tls} }}]
public_url: https://mcp.bench.test
metrics: {{ address: "{metrics}" }}
audit: {{ file: {dir}/audit-{port}.jsonl }}
session: {{ keys: [{{ file: {dir}/session.key }}] }}
limits: {{ token_cache: {token_cache}, credential_cache: {credential_cache} }}
issuers:
  - {{ name: corp, issuer: "{ISSUER}", audiences: ["{AUDIENCE}"], jwks: {{ file: {dir}/jwks.json }} }}
servers:
  - name: tools
    instances: [{{ id: a, url: "{a}" }}, {{ id: b, url: "{b}" }}]
    {server_tls}
{of_server}
    credential:
      token_exchange:
        token_endpoint: http://{token_endpoint}/token
        client: {{ id: portcullis, secret: {{ file: {dir}/sts.secret }} }}
        audience: [tools]
routes:
  - path: /mcp
    servers: [tools]
    issuers: [corp]
    authorization:
      rules:
{more_rules}        - name: no-purge
          action: deny
          target: {{ tools: [{{ server: tools, tool: purge }}] }}
        - name: no-contractors
          action: deny
          source: {{ jwt: {{ claims: [{{ name: groups, type: string_array, values: [contractors] }}] }} }}
        - name: no-large-limit
          action: deny
          when: 'has(args.limit) && args.limit > 1000'
        - name: polite-calls
          source: {{ jwt: {{ scopes: [mcp:use, echo:call] }} }}
          target:
            tools:
              - {{ server: tools, tool: echo, when: 'args.text.matches("^Hello, .*!$")' }}
              - {{ server: tools, tool: big, when: 'args.text.matches("^Hello, .*!$")' }}
              - {{ server: tools, tool: events, when: 'args.text.matches("^Hello, .*!$")' }}
{of_all}
"#
        )
    }

    fn nginx_conf(&self, address: SocketAddr) -> String {
        let (dir, backend) = (self.dir.display(), self.backends[0]);
        format!(
            "daemon off; master_process off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/nginx.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_buffer_size 128k; proxy_buffers 16 8k;
  client_body_temp_path {dir}/nginx-body; proxy_temp_path {dir}/nginx-proxy; fastcgi_temp_path {dir}/nginx-fastcgi;
  uwsgi_temp_path {dir}/nginx-uwsgi; scgi_temp_path {dir}/nginx-scgi;
  upstream tools {{ server {backend}; keepalive 512; keepalive_requests 100000000; }}
  server {{
    listen {address};
    location / {{ proxy_pass http://tools; proxy_http_version 1.1; proxy_set_header Connection ''; }}
  }}
}}
"
        )
    }
}

fn many_tokens(dir: &Path, signature: Signature) -> PathBuf {
    dir.join(match signature {
        Signature::Es256 => "es256.tokens",
        Signature::Rs256 => "rs256.tokens",
    })
}

/// Addresses that were free a moment ago.
fn free_addresses<const COUNT: usize>() -> [SocketAddr; COUNT] {
    let listeners = [(); COUNT].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}

/// A file for its owner alone.
pub fn write_private(path: &Path, text: &str) {
    use std::io::Write as _;
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// What a server can have, about tools and callers that the load does not bring.
const FEATURES_OF_SERVER: &str = r#"
    routing:
      - { name: directors, when: '"directors" in claims.groups', to: { instances: [a] } }
      - { name: large, when: 'request.bytes > 262144', to: { instances: [b] } }
      - { name: eu, when: 'request.region == "eu"', to: { instances: [a] }, strict: true }
      - name: canary
        tools: [search*]
        split: [ { to: { instances: [a] }, weight: 90 }, { to: { instances: [b] }, weight: 10 } ]
        sticky: principal
        abort_when: { error_rate_above: 0.05, over: 60s, at_least: 50 }
    circuit: { consecutive_failures: 5, error_rate: { above: 0.5 }, slow: { times: 5 } }
    shadow: { to: { instances: [b] }, tools: [search*] }
    content:
      - { name: personal-data, tools: [search*], unless: '"pii:read" in scopes', redact: { detect: [email, phone, card, iban, us_ssn] } }
      - { name: salaries, tools: [payroll*], drop: ["/employees/*/salary"] }
      - { name: bounds, tools: [search*], limit: { result_bytes: 1MiB, items: 100 } }
      - { name: poison, tools: [fetch*], guard: { action: flag } }
      - { name: payroll, tools: [payroll*], sensitive: true }
"#;

const FEATURES: &str = r#"
store: { sqlite: DIR.db }
registry: {}
trusted_proxies: [10.0.0.0/8]
region: { claim: region, header: X-Region, networks: [{ network: 10.1.0.0/16, region: eu }] }
budgets:
  - { name: tools, by: principal, tools: ["purge*", other], calls: 1 per day, repeat: 1 per day }
  - { name: directors, by: agent, when: '"directors" in claims.groups', rate: { burst: 1, refill: 1 per hour } }
  - { name: bots, when: 'principal.subject == "bot"', concurrency: 1, bytes: 1KiB per hour }
taint: { untrusted_sources: [{ tool: "fetch*" }], sinks: [{ tool: purge }] }
"#;

/// Every detector.
const DETECTORS: &str = r#"
    content:
      - name: secrets
        redact: { detect: [aws_key, card, email, github_token, google_key, iban, ip, jwt, phone, private_key, slack_token, us_ssn] }
      - { name: poison, guard: { action: flag } }
"#;

/// More than a cache of one entry remembers; few enough to be signed in two seconds.
const MANY_TOKENS: usize = 2_000;
