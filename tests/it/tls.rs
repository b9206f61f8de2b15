//! Is what should be secret and genuine so, on both sides of the gateway?

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::support::{
    Answer, Authority, Conf, Gateway, Identity, Idp, McpServer, PUBLIC_HOST, Reply, Request, TlsClient, TlsFront,
    World, conf, poll_until, usual,
};

/// A world whose listener speaks TLS with a certificate of `authority`.
fn world(authority: &Authority, change: impl FnOnce(Conf) -> Conf) -> World {
    let shown = authority.server(&[PUBLIC_HOST]);
    World::with(|conf| change(listening(conf, &shown)))
}

fn listening(mut conf: Conf, shown: &Identity) -> Conf {
    conf = with_identity(conf, "listen", shown);
    let tls = json!({ "certificate": "DIR/listen.pem", "private_key": "DIR/listen.key" });
    conf.set("listen", json!([{ "address": "LISTEN", "tls": tls }]))
}

fn asking_for(conf: Conf, clients: &Authority) -> Conf {
    conf.file("clients.pem", clients.pem(), 0o644).set("listen.0.tls.client_ca", "DIR/clients.pem")
}

fn with_identity(conf: Conf, name: &str, identity: &Identity) -> Conf {
    conf.file(&format!("{name}.pem"), &identity.certificate, 0o644).file(&format!("{name}.key"), &identity.key, 0o600)
}

/// A call that the gateway passes on, with a host that is allowed.
fn call(world: &World) -> Request {
    world.reader().modern("tools/call", json!({ "name": "read", "arguments": {} })).header("Host", PUBLIC_HOST)
}

fn replace(gateway: &Gateway, name: &str, content: &str, mode: u32) {
    let (path, next) = (gateway.path(name), gateway.path("next"));
    fs::write(&next, content).unwrap();
    fs::set_permissions(&next, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(next, path).unwrap();
}

// ── Listeners ──

#[test]
fn both_http_versions_are_spoken_as_agreed() {
    let authority = Authority::new("edge");
    let world = world(&authority, |conf| conf);
    let address = world.gateway.address();

    let both = TlsClient::trusting(&authority).alpn(&["h2", "http/1.1"]);
    assert_eq!(both.connect(address).unwrap().protocol(), "h2");
    let mut request = call(&world);
    request.headers.retain(|(name, _)| name != "Host");
    let (version, answer) = both.send_negotiated(address, &request);
    assert_eq!((version, answer.status), (reqwest::Version::HTTP_2, 200), "{answer}");

    let old = TlsClient::trusting(&authority);
    let mut connection = old.connect(address).unwrap();
    assert_eq!(connection.protocol(), "http/1.1");
    for _ in 0..2 {
        assert_eq!(connection.send(&call(&world)).unwrap().status, 200);
    }
    let silent = TlsClient::trusting(&authority).alpn(&[]);
    assert_eq!(silent.send(address, &call(&world)).unwrap().status, 200, "without ALPN it is HTTP/1.1");
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_clear_text_is_not() {
    let authority = Authority::new("edge");
    let world = world(&authority, |conf| conf);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = TlsClient::trusting(&authority).only(version, &authority);
        let answer = client.send(world.gateway.address(), &call(&world)).unwrap();
        assert_eq!(answer.status, 200, "{version:?}");
    }
    let request = call(&world).bytes(world.gateway.address());
    assert_eq!(crate::support::send_raw(world.gateway.address(), &request), None);
    assert_eq!(world.tickets.seen_of("tools/call").len(), 2);
}

#[test]
fn a_new_certificate_is_taken_from_the_files_without_losing_a_connection() {
    let authority = Authority::new("edge");
    let world = world(&authority, |conf| conf);
    let (address, client) = (world.gateway.address(), TlsClient::trusting(&authority));
    let mut open = client.connect(address).unwrap();
    assert_eq!(open.send(&call(&world)).unwrap().status, 200);

    let next = authority.server(&[PUBLIC_HOST, "next.test"]);
    assert_ne!(open.shown(), next.der());
    replace(&world.gateway, "listen.pem", &next.certificate, 0o644);
    replace(&world.gateway, "listen.key", &next.key, 0o600);
    poll_until("the new certificate", || (client.connect(address).unwrap().shown() == next.der()).then_some(()));

    assert_eq!(open.send(&call(&world)).unwrap().status, 200, "the open connection lives on");
    let mut fresh = client.connect(address).unwrap();
    assert_eq!(fresh.send(&call(&world)).unwrap().status, 200);
    let reloads = world.gateway.metric("portcullis_tls_certificate_reloads_total", &[r#"outcome="applied""#]);
    assert!(reloads >= 1.0, "{reloads}");
}

#[test]
fn sighup_takes_certificate_and_authorities_at_once() {
    let (authority, clients, others) = (Authority::new("edge"), Authority::new("clients"), Authority::new("others"));
    let world = world(&authority, |conf| asking_for(conf, &clients));
    let address = world.gateway.address();
    let (one, other) = (clients.client("one"), others.client("other"));
    let (one, other) = (TlsClient::showing(&authority, &one), TlsClient::showing(&authority, &other));
    let mut open = one.connect(address).unwrap();
    assert_eq!(open.send(&call(&world)).unwrap().status, 200);
    assert!(other.send(address, &call(&world)).is_none());

    let next = authority.server(&[PUBLIC_HOST]);
    replace(&world.gateway, "listen.pem", &next.certificate, 0o644);
    replace(&world.gateway, "listen.key", &next.key, 0o600);
    replace(&world.gateway, "clients.pem", others.pem(), 0o644);
    world.gateway.signal("HUP");
    poll_until("the reload", || (world.gateway.metric("portcullis_config_generation", &[]) == 2.0).then_some(()));

    poll_until("the authorities", || other.send(address, &call(&world)));
    assert_eq!(other.connect(address).unwrap().shown(), next.der());
    assert_eq!(open.send(&call(&world)).unwrap().status, 200, "the open connection lives on");
}

#[test]
fn a_bad_file_keeps_the_last_good_certificate_and_is_reported() {
    let authority = Authority::new("edge");
    let world = world(&authority, |conf| conf);
    let (address, client) = (world.gateway.address(), TlsClient::trusting(&authority));
    let shown = client.connect(address).unwrap().shown();

    replace(&world.gateway, "listen.pem", &authority.server(&[PUBLIC_HOST]).certificate, 0o644);
    let refused = || world.gateway.metric("portcullis_tls_certificate_reloads_total", &[r#"outcome="refused""#]);
    poll_until("the refusal", || (refused() == 1.0).then_some(()));
    assert_eq!(client.connect(address).unwrap().shown(), shown);
    let log = world.gateway.log();
    assert!(log.contains("listen.key: is not the key of the first certificate"), "{log}");

    world.gateway.signal("HUP");
    let counted = || world.gateway.metric("portcullis_config_reloads_total", &[r#"outcome="refused""#]);
    poll_until("the refused reload", || (counted() == 1.0).then_some(()));
    assert_eq!(client.send(address, &call(&world)).unwrap().status, 200);
    assert_eq!(client.connect(address).unwrap().shown(), shown);
}

#[test]
fn files_that_cannot_be_used_stop_the_start_and_are_named() {
    let (authority, idp, tickets) = (Authority::new("edge"), Idp::start(), McpServer::start());
    let good = authority.server(&[PUBLIC_HOST]);
    let usual = || listening(usual(&idp, &tickets), &good);
    let broken = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    for (conf, key, says) in [
        (usual().file("listen.pem", broken, 0o644), "listen[0].tls.certificate", "a certificate that cannot be read"),
        (usual().file("listen.pem", "", 0o644), "listen[0].tls.certificate", "has no certificate in it"),
        (
            usual().file("listen.key", &authority.server(&["b.test"]).key, 0o600),
            "listen[0].tls.private_key",
            "is not the key of the first certificate",
        ),
        (usual().file("listen.key", &good.key, 0o644), "listen[0].tls.private_key", "chmod 600"),
        (
            asking_for(usual(), &authority).file("clients.pem", &good.key, 0o644),
            "listen[0].tls.client_ca",
            "has no certificate in it",
        ),
    ] {
        let output = Gateway::start_refused(conf);
        assert_eq!(output.code, Some(64), "{output:?}");
        assert!(output.stderr.contains(key) && output.stderr.contains(says), "{says}: {}", output.stderr);
        assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
    }
}

#[test]
fn the_expiry_of_a_certificate_is_a_metric() {
    let authority = Authority::new("edge");
    let world = world(&authority, |conf| conf);
    let label = format!(r#"listener="{}""#, world.gateway.address());
    let not_after = world.gateway.metric("portcullis_tls_certificate_not_after_seconds", &[&label]);
    // What rcgen signs without being told otherwise is good until the year 4096.
    assert!(not_after > 60_000_000_000.0, "{not_after}");
}

// ── Client certificates ──

#[test]
fn a_listener_with_client_ca_lets_nobody_in_without_its_certificate() {
    let (authority, clients, others) = (Authority::new("edge"), Authority::new("clients"), Authority::new("others"));
    let world = world(&authority, |conf| asking_for(conf, &clients));
    let address = world.gateway.address();
    let stranger = TlsClient::trusting(&authority);
    let impostor = TlsClient::showing(&authority, &others.client("robot"));
    let a_server = TlsClient::showing(&authority, &clients.server(&["robot.test"]));
    for client in [stranger, impostor, a_server] {
        assert!(client.send(address, &call(&world)).is_none());
    }
    let robot = TlsClient::showing(&authority, &clients.client("robot"));
    assert_eq!(robot.send(address, &call(&world)).unwrap().status, 200);
    assert_eq!(world.tickets.seen_of("tools/call").len(), 1);
}

#[test]
fn rules_and_audit_see_the_verified_certificate() {
    let (authority, clients) = (Authority::new("edge"), Authority::new("clients"));
    let rule = json!({
        "name": "robots-only",
        "action": "deny",
        "target": { "tools": [{ "server": "tickets", "tool": "read" }] },
        "when": "request.client_certificate.subject != 'CN=robot' || \
                 !('spiffe://test/robot' in request.client_certificate.sans.uri)",
    });
    let world = world(&authority, |mut conf| {
        let rules = conf.value["routes"][0]["authorization"]["rules"].as_array_mut().unwrap();
        rules.insert(0, rule);
        asking_for(conf, &clients)
    });
    let address = world.gateway.address();
    let (robot, human) = (clients.client("robot"), clients.client("human"));
    for (client, version) in [(&robot, "http/1.1"), (&robot, "h2")] {
        let client = TlsClient::showing(&authority, client).alpn(&[version]);
        let mut request = call(&world);
        request.headers.retain(|(name, _)| name != "Host");
        assert_eq!(client.send_negotiated(address, &request).1.status, 200, "{version}");
    }
    let refused = Answer(TlsClient::showing(&authority, &human).send(address, &call(&world)).unwrap());
    refused.assert_refused(403, "denied");

    let records = world.gateway.audit(3);
    let digest = |identity: &Identity| {
        let digest = ring::digest::digest(&ring::digest::SHA256, &identity.der());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    for (record, (name, identity)) in records.iter().zip([("robot", &robot), ("robot", &robot), ("human", &human)]) {
        let expected = json!({ "subject": format!("CN={name}"), "digest": digest(identity) });
        assert_eq!(record["client_certificate"], expected, "{record}");
    }
}

#[test]
fn without_a_certificate_there_is_none_to_see() {
    let world = World::with(|conf| {
        conf.rule(json!({
            "name": "nobody-shown",
            "target": { "tools": [{ "server": "tickets", "tool": "purge" }] },
            "when": "request.client_certificate == null",
        }))
    });
    assert_eq!(world.reader().call("purge", json!({})).status(), 200);
    assert!(world.gateway.audited().get("client_certificate").is_none());
}

/// rustls does not verify the certificate of a resumed session again: without a second look a client whose authority was
/// removed would come in for as long as it resumes in time.
#[test]
fn a_resumed_session_does_not_outlive_the_trust_it_began_with() {
    let (authority, clients, others) = (Authority::new("edge"), Authority::new("clients"), Authority::new("others"));
    let world = world(&authority, |conf| asking_for(conf, &clients));
    let address = world.gateway.address();
    let robot = TlsClient::showing(&authority, &clients.client("robot"));
    assert_eq!(robot.send(address, &call(&world)).unwrap().status, 200);
    let mut resumed = robot.connect(address).unwrap();
    assert!(resumed.is_resumed(), "or the test shows nothing");
    assert_eq!(resumed.send(&call(&world)).unwrap().status, 200);

    replace(&world.gateway, "clients.pem", others.pem(), 0o644);
    world.gateway.signal("HUP");
    poll_until("the reload", || (world.gateway.metric("portcullis_config_generation", &[]) == 2.0).then_some(()));
    let trusted = TlsClient::showing(&authority, &others.client("other"));
    poll_until("the authorities", || trusted.send(address, &call(&world)));

    let seen = world.tickets.seen_of("tools/call").len();
    let mut resumed = robot.connect(address).unwrap();
    assert!(resumed.is_resumed(), "or the test shows nothing");
    Answer(resumed.send(&call(&world)).unwrap()).assert_refused(403, "forbidden_certificate");
    assert_eq!(world.tickets.seen_of("tools/call").len(), seen);
}

// ── To the instances ──

/// A gateway to `tickets` behind TLS; `tls` are the keys of `servers[].tls`.
struct Upstream {
    world: World,
    front: TlsFront,
}

impl Upstream {
    fn new(shown: &Identity, clients: Option<&Authority>, change: impl FnOnce(Conf) -> Conf) -> Self {
        let mut front = None;
        let world = World::with(|mut conf| {
            let url = conf.value["servers"][0]["instances"][0]["url"].as_str().unwrap().to_owned();
            let server = url.strip_prefix("http://").unwrap().parse().unwrap();
            let started = TlsFront::start(server, shown, clients);
            let instance = json!([{ "id": "a", "url": format!("https://{}", started.address()) }]);
            conf = conf.of_server("instances", instance);
            front = Some(started);
            change(conf)
        });
        Self { world, front: front.unwrap() }
    }

    fn call(&self) -> Answer {
        self.world.reader().call("read", json!({}))
    }

    fn seen(&self) -> usize {
        self.world.tickets.seen_of("tools/call").len()
    }
}

#[test]
fn an_instance_is_verified_by_a_private_authority_and_its_name_or_address() {
    let authority = Authority::new("inside");
    for (names, server_name) in [
        (vec!["127.0.0.1"], json!(null)),
        (vec!["tickets.test"], json!("tickets.test")),
        (vec!["*.inside.test"], json!("a.inside.test")),
    ] {
        for http2 in [false, true] {
            let upstream = Upstream::new(&authority.server(&names), None, |conf| {
                let mut tls = json!({ "ca": "DIR/ca.pem" });
                if server_name.is_string() {
                    tls["server_name"] = server_name.clone();
                }
                conf.file("ca.pem", authority.pem(), 0o644).of_server("tls", tls).of_server("http2", json!(http2))
            });
            assert_eq!(upstream.call().status(), 200, "{names:?} http2 {http2}");
            let version = upstream.world.tickets.seen_of("tools/call")[0].version;
            assert_eq!(version == axum::http::Version::HTTP_2, http2);
        }
    }
}

#[test]
fn an_instance_that_is_not_who_it_should_be_gets_no_request() {
    let (inside, outside, clients) = (Authority::new("inside"), Authority::new("outside"), Authority::new("clients"));
    let good = inside.server(&["tickets.test"]);
    let ca = |conf: Conf| conf.file("ca.pem", inside.pem(), 0o644);
    let wrong_name = json!({ "ca": "DIR/ca.pem", "server_name": "wiki.test" });
    let address_not_named = json!({ "ca": "DIR/ca.pem" });
    let right_name = json!({ "ca": "DIR/ca.pem", "server_name": "tickets.test" });
    let public_authorities = json!({ "server_name": "tickets.test" });
    let forged = outside.server(&["tickets.test"]);
    let expired = {
        let mut params = rcgen::CertificateParams::new(vec!["tickets.test".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        inside.sign(&params)
    };
    let other_client = outside.client("somebody");
    let no_certificate = Upstream::new(&good, Some(&clients), |conf| ca(conf).of_server("tls", right_name.clone()));
    let wrong_certificate = Upstream::new(&good, Some(&clients), |conf| {
        let mut tls = right_name.clone();
        tls["client_certificate"] = "DIR/client.pem".into();
        tls["client_key"] = "DIR/client.key".into();
        with_identity(ca(conf), "client", &other_client).of_server("tls", tls)
    });
    for (what, upstream) in [
        ("another name", Upstream::new(&good, None, |conf| ca(conf).of_server("tls", wrong_name))),
        (
            "an address that is not named",
            Upstream::new(&good, None, |conf| ca(conf).of_server("tls", address_not_named)),
        ),
        ("another authority", Upstream::new(&forged, None, |conf| ca(conf).of_server("tls", right_name.clone()))),
        ("a private authority", Upstream::new(&good, None, |conf| conf.of_server("tls", public_authorities))),
        ("expired", Upstream::new(&expired, None, |conf| ca(conf).of_server("tls", right_name.clone()))),
        ("no client certificate", no_certificate),
        ("another client certificate", wrong_certificate),
    ] {
        let answer = upstream.call();
        assert_eq!(answer.status(), 502, "{what}: {}", answer.0);
        answer.assert_refused(502, "upstream_unreachable");
        assert_eq!((upstream.seen(), upstream.front.accepted()), (0, 0), "{what}");
    }
}

#[test]
fn a_client_certificate_is_shown_to_an_instance_that_asks() {
    let (inside, clients) = (Authority::new("inside"), Authority::new("clients"));
    let upstream = Upstream::new(&inside.server(&["127.0.0.1"]), Some(&clients), |conf| {
        let tls = json!({ "ca": "DIR/ca.pem", "client_certificate": "DIR/client.pem", "client_key": "DIR/client.key" });
        with_identity(conf, "client", &clients.client("portcullis"))
            .file("ca.pem", inside.pem(), 0o644)
            .of_server("tls", tls)
    });
    for _ in 0..2 {
        assert_eq!(upstream.call().status(), 200);
    }
    assert_eq!(upstream.seen(), 2);
}

/// Pingora's pool does not tell connections apart by the authorities they were verified with.
#[test]
fn a_connection_verified_for_one_server_carries_no_request_of_another() {
    let (inside, outside) = (Authority::new("inside"), Authority::new("outside"));
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read"));
    let front = TlsFront::start(tickets.instances[0].address(), &inside.server(&["127.0.0.1"]), None);
    let instance = json!([{ "id": "a", "url": format!("https://{}", front.address()) }]);
    let gateway = Gateway::start(
        conf()
            .idp(&idp)
            .server("trusting", &tickets)
            .of_server("instances", instance.clone())
            .of_server("tls", json!({ "ca": "DIR/inside.pem" }))
            .allow_all()
            .server("doubting", &tickets)
            .of_server("instances", instance)
            .of_server("tls", json!({ "ca": "DIR/outside.pem" }))
            .allow_all()
            .file("inside.pem", inside.pem(), 0o644)
            .file("outside.pem", outside.pem(), 0o644),
    );
    let trusting = gateway.caller(idp.token().scope("x"));
    let doubting = gateway.caller(idp.token().audience("https://mcp.example.test/doubting").scope("x")).at("/doubting");
    // Several rounds: a connection goes back to the pool a moment after its answer.
    for _ in 0..5 {
        assert_eq!(trusting.call("read", json!({})).status(), 200);
        let answer = doubting.call("read", json!({}));
        assert!([502, 503].contains(&answer.status()), "{}", answer.0);
    }
    assert_eq!((tickets.seen_of("tools/call").len(), front.accepted()), (5, 1));
}

#[test]
fn sighup_takes_new_files_for_the_instances() {
    let (inside, outside) = (Authority::new("inside"), Authority::new("outside"));
    let upstream = Upstream::new(&inside.server(&["127.0.0.1"]), None, |conf| {
        conf.file("ca.pem", inside.pem(), 0o644).of_server("tls", json!({ "ca": "DIR/ca.pem" }))
    });
    let gateway = &upstream.world.gateway;
    assert_eq!(upstream.call().status(), 200);
    let reload = |pem: &str, generation: f64| {
        replace(gateway, "ca.pem", pem, 0o644);
        gateway.signal("HUP");
        poll_until("the reload", || (gateway.metric("portcullis_config_generation", &[]) == generation).then_some(()));
    };
    reload(outside.pem(), 2.0);
    poll_until("the new pool", || (upstream.call().status() == 502).then_some(()));
    reload(inside.pem(), 3.0);
    poll_until("the new pool", || (upstream.call().status() == 200).then_some(()));
}

#[test]
fn changed_files_for_the_instances_are_taken_without_a_signal() {
    let (inside, outside) = (Authority::new("inside"), Authority::new("outside"));
    let (clients, others) = (Authority::new("clients"), Authority::new("others"));
    let upstream = Upstream::new(&inside.server(&["127.0.0.1"]), Some(&clients), |conf| {
        let tls = json!({ "ca": "DIR/ca.pem", "client_certificate": "DIR/client.pem", "client_key": "DIR/client.key" });
        with_identity(conf, "client", &clients.client("portcullis"))
            .file("ca.pem", inside.pem(), 0o644)
            .of_server("tls", tls)
    });
    let gateway = &upstream.world.gateway;
    assert_eq!(upstream.call().status(), 200);
    let pieces = upstream.world.tickets.stream_next("tools/call");
    let mut open = upstream.world.reader().open("tools/call", json!({ "name": "read" }));
    let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": 1 } });
    pieces.event(&progress);
    open.event().unwrap();
    let applied = || gateway.metric("portcullis_upstream_tls_certificate_reloads_total", &[r#"outcome="applied""#]);

    replace(gateway, "ca.pem", outside.pem(), 0o644);
    poll_until("the other authorities", || (upstream.call().status() == 502).then_some(()));
    replace(gateway, "ca.pem", inside.pem(), 0o644);
    poll_until("the first authorities", || (upstream.call().status() == 200).then_some(()));
    assert_eq!(applied(), 2.0);

    for (authority, status) in [(&others, 502), (&clients, 200)] {
        let shown = authority.client("portcullis");
        replace(gateway, "client.pem", &shown.certificate, 0o644);
        replace(gateway, "client.key", &shown.key, 0o600);
        poll_until("the client certificate", || (upstream.call().status() == status).then_some(()));
    }
    assert_eq!(gateway.metric("portcullis_config_generation", &[]), 1.0, "no reload of the configuration");
    pieces.event(&progress);
    open.event().expect("what was open goes on");
}

#[test]
fn a_bad_file_for_the_instances_keeps_the_last_good_one_and_is_reported() {
    let inside = Authority::new("inside");
    let upstream = Upstream::new(&inside.server(&["127.0.0.1"]), None, |conf| {
        conf.file("ca.pem", inside.pem(), 0o644).of_server("tls", json!({ "ca": "DIR/ca.pem" }))
    });
    let gateway = &upstream.world.gateway;
    replace(gateway, "ca.pem", "no certificate", 0o644);
    let refused = || gateway.metric("portcullis_upstream_tls_certificate_reloads_total", &[r#"outcome="refused""#]);
    poll_until("the refusal", || (refused() == 1.0).then_some(()));
    assert_eq!(upstream.call().status(), 200);
    assert!(gateway.log().contains("ca.pem: has no certificate in it"), "{}", gateway.log());
}

#[test]
fn the_expiries_of_the_files_for_the_instances_are_metrics() {
    let (inside, clients) = (Authority::new("inside"), Authority::new("clients"));
    let upstream = Upstream::new(&inside.server(&["127.0.0.1"]), Some(&clients), |conf| {
        let tls = json!({ "ca": "DIR/ca.pem", "client_certificate": "DIR/client.pem", "client_key": "DIR/client.key" });
        let mut params = rcgen::CertificateParams::new(vec!["portcullis".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2099, 1, 15);
        with_identity(conf, "client", &clients.sign(&params)).file("ca.pem", inside.pem(), 0o644).of_server("tls", tls)
    });
    let expiry = |file: &str| {
        let labels = [&*format!("file=\"{file}\""), r#"server="tickets""#];
        upstream.world.gateway.metric("portcullis_upstream_tls_certificate_not_after_seconds", &labels)
    };
    assert_eq!(expiry("client_certificate"), 4_072_118_400.0);
    // What rcgen signs without being told otherwise is good until the year 4096.
    assert!(expiry("ca") > 60_000_000_000.0);
}

/// `GET` over TLS finds what a TCP connection cannot: an instance that is not who it should be.
#[test]
fn health_is_asked_over_tls_too() {
    let (inside, outside) = (Authority::new("inside"), Authority::new("outside"));
    let (idp, tickets) = (Idp::start(), McpServer::start().tool("read"));
    tickets.on("GET", |_| Reply::text(200, "text/plain", "ok"));
    let front = TlsFront::start(tickets.instances[0].address(), &inside.server(&["127.0.0.1"]), None);
    let conf = |authority: &Authority| {
        usual(&idp, &tickets)
            .of_server("instances", json!([{ "id": "a", "url": format!("https://{}", front.address()) }]))
            .of_server("tls", json!({ "ca": "DIR/ca.pem" }))
            .of_server("health", json!({ "interval": "200ms", "unhealthy_after": 1, "http": { "path": "/healthz" } }))
            .file("ca.pem", authority.pem(), 0o644)
    };
    let trusting = Gateway::start(conf(&inside));
    assert_eq!(trusting.caller(idp.token().scope("tickets:read")).call("read", json!({})).status(), 200);
    let seen = tickets.seen_of("GET");
    assert!(seen.iter().all(|seen| seen.path == "/healthz") && !seen.is_empty(), "{seen:?}");

    let doubting = Gateway::start_unready(conf(&outside));
    let healthy = || doubting.metric("portcullis_instance_healthy", &[r#"instance="a""#]);
    poll_until("the verdict", || (healthy() == 0.0).then_some(()));
    let answer = doubting.caller(idp.token().scope("tickets:read")).call("read", json!({}));
    answer.assert_refused(503, "no_healthy_instance");
    assert_eq!(tickets.seen_of("tools/call").len(), 1);
}

// ── Our own listeners ──

#[test]
fn metrics_and_admin_leave_loopback_only_when_told_to() {
    let (idp, tickets) = (Idp::start(), McpServer::start());
    for key in ["metrics", "admin"] {
        let conf = usual(&idp, &tickets).set(key, json!({ "address": "0.0.0.0:21999" }));
        let output = Gateway::start_refused(conf);
        assert_eq!(output.code, Some(64), "{output:?}");
        assert!(output.stderr.contains("is reachable from other machines"), "{}", output.stderr);
    }
    let conf = usual(&idp, &tickets).set("metrics", json!({ "address": "0.0.0.0:21998", "insecure": true }));
    let gateway = Gateway::start(conf);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 21998));
    poll_until("the listener", || std::net::TcpStream::connect(address).ok());
    let page = poll_until("the page", || {
        let answer = crate::support::send(address, &Request::get("/metrics"));
        (answer.status == 200).then(|| answer.text())
    });
    assert!(page.contains("portcullis_config_generation 1"), "{page}");
    drop(gateway);
}

#[test]
fn metrics_and_admin_are_not_read_past_their_tls() {
    let (authority, operators) = (Authority::new("edge"), Authority::new("operators"));
    let (idp, tickets) = (Idp::start(), McpServer::start());
    let free = |port: u16| format!("0.0.0.0:{port}");
    let (metrics, admin) = (free(21_997), free(21_996));
    let shown = authority.server(&[PUBLIC_HOST]);
    let tls = json!({ "certificate": "DIR/inner.pem", "private_key": "DIR/inner.key" });
    let mut for_operators = tls.clone();
    for_operators["client_ca"] = "DIR/operators.pem".into();
    let conf = with_identity(usual(&idp, &tickets), "inner", &shown)
        .file("operators.pem", operators.pem(), 0o644)
        .set("allowed_hosts", json!([PUBLIC_HOST, "127.0.0.1"]))
        .set("metrics", json!({ "address": metrics, "tls": tls }))
        .set("admin", json!({ "address": admin, "tls": for_operators }));
    let gateway = Gateway::start_hidden(conf);
    let local = |address: &str| -> std::net::SocketAddr { address.replace("0.0.0.0", "127.0.0.1").parse().unwrap() };
    let (metrics, admin) = (local(&metrics), local(&admin));
    let ask = |path: &str, host: &str| Request::get(path).header("Host", host);

    for address in [metrics, admin] {
        poll_until("the listener", || std::net::TcpStream::connect(address).ok());
    }
    // In clear text nobody reads anything.
    assert_eq!(crate::support::send_raw(metrics, &ask("/metrics", "localhost").bytes(metrics)), None);
    let stranger = TlsClient::trusting(&authority);
    let page = poll_until("the page", || stranger.send(metrics, &ask("/metrics", PUBLIC_HOST)));
    assert!(page.status == 200 && page.text().contains("portcullis_config_generation 1"), "{page}");
    assert!(page.text().contains("portcullis_tls_certificate_not_after"), "its certificate has an expiry too: {page}");
    // The name counts as it does everywhere.
    assert_eq!(stranger.send(metrics, &ask("/metrics", "evil.test")).unwrap().status, 403);
    // Where clients are asked for certificates, only those of the authority get in.
    assert_eq!(stranger.send(admin, &ask("/status", PUBLIC_HOST)), None);
    let other = TlsClient::showing(&authority, &authority.client("mallory"));
    assert_eq!(other.send(admin, &ask("/status", PUBLIC_HOST)), None);
    let operator = TlsClient::showing(&authority, &operators.client("operator"));
    assert_eq!(operator.send(admin, &ask("/status", PUBLIC_HOST)).unwrap().status, 200);

    // A new certificate is shown without a restart.
    let next = authority.server(&[PUBLIC_HOST]);
    replace(&gateway, "inner.key", &next.key, 0o600);
    replace(&gateway, "inner.pem", &next.certificate, 0o644);
    gateway.signal("HUP");
    poll_until("the next certificate", || (stranger.connect(metrics).ok()?.shown() == next.der()).then_some(()));
}
