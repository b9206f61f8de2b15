//! Does the kit itself tell the truth? Tested without a gateway, so that a failure elsewhere is the gateway's.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature;
use rmcp::model::CallToolRequestParams;
use serde_json::{Value, json};

use crate::support::{
    Alg, Caller, Idp, LEGACY, MODERN, McpServer, RawServer, Reply, Request, RmcpServer, Sts, Then, conf, connect_rmcp,
    runtime, send,
};

fn b64(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

fn published(idp: &Idp, kid: &str) -> Value {
    let address = idp.issuer().strip_prefix("http://").unwrap().parse().unwrap();
    let set = send(address, &Request::get("/jwks")).json();
    set["keys"].as_array().unwrap().iter().find(|key| key["kid"] == kid).unwrap().clone()
}

#[test]
fn a_token_verifies_with_the_key_the_issuer_publishes() {
    let idp = Idp::start();
    for (alg, kid) in [(Alg::Rs256, "rsa-1"), (Alg::Es256, "ec-1"), (Alg::EdDsa, "ed-1")] {
        let token = idp.token().scope("a b").alg(alg).sign();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let key = published(&idp, kid);
        let part = |name: &str| b64(key[name].as_str().unwrap_or_default());
        let verdict = match alg {
            Alg::EdDsa => signature::UnparsedPublicKey::new(&signature::ED25519, part("x"))
                .verify(signed.as_bytes(), &b64(signature)),
            Alg::Es256 => {
                let point = [vec![4], part("x"), part("y")].concat();
                signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
                    .verify(signed.as_bytes(), &b64(signature))
            }
            Alg::Rs256 => signature::RsaPublicKeyComponents { n: part("n"), e: part("e") }.verify(
                &signature::RSA_PKCS1_2048_8192_SHA256,
                signed.as_bytes(),
                &b64(signature),
            ),
        };
        assert_eq!(verdict, Ok(()), "{alg:?}");
    }
}

#[test]
fn a_stopped_issuer_comes_back_at_the_same_address() {
    let idp = Idp::start();
    let address = idp.issuer().strip_prefix("http://").unwrap().parse().unwrap();
    idp.stop();
    assert!(std::net::TcpStream::connect(address).is_err());
    idp.start_again();
    assert_eq!(send(address, &Request::get("/.well-known/openid-configuration")).json()["issuer"], idp.issuer());
}

#[test]
fn an_exchange_is_recorded_and_its_token_is_good_until_revoked() {
    let (idp, sts) = (Idp::start(), Sts::start());
    let address = sts.token_endpoint()["http://".len()..].trim_end_matches("/token").parse().unwrap();
    let form = format!("subject_token={}&audience=a&audience=b", idp.token().subject("bob").sign());
    let request = Request::new("POST", "/token")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("Authorization", "Basic eDp5")
        .body(form);
    let token = send(address, &request).json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(sts.user_of(&token).as_deref(), Some("bob"));
    assert_eq!(sts.exchanges()[0].all("audience"), ["a", "b"]);
    assert_eq!(sts.exchanges()[0].authorization.as_deref(), Some("Basic eDp5"));
    sts.revoke_all();
    assert_eq!(sts.user_of(&token), None);
}

#[test]
fn the_scripted_server_speaks_both_eras_over_both_http_versions() {
    let server = McpServer::start().tool("read").tool("close");
    let address = server.instances[0].address();
    for caller in [Caller::new(address, None), Caller::new(address, None).h2c()] {
        assert_eq!(caller.list().names(), ["read", "close"]);
        assert_eq!(caller.call("read", json!({ "n": 1 })).echoed()["arguments"], json!({ "n": 1 }));
        let session = caller.initialize(LEGACY);
        assert_eq!(session.call("read", json!({})).echoed()["session"], session.id());
        assert_eq!(session.delete().status(), 200);
        assert_eq!(session.list().status(), 404);
    }
    assert_eq!(server.seen_of("tools/call").len(), 4);
}

#[test]
fn a_scripted_stream_can_flow_break_off_and_be_abandoned() {
    let server = McpServer::start();
    let caller = Caller::new(server.instances[0].address(), None);

    let pieces = server.stream_next("tools/call");
    let mut answer = caller.open("tools/call", json!({ "name": "slow" }));
    pieces.event(&json!(1));
    assert_eq!(answer.event().unwrap().json(), 1);
    pieces.event(&json!(2));
    assert_eq!(answer.event().unwrap().json(), 2);
    pieces.die();
    assert!(!answer.finish(), "a body that broke off should not look whole");

    let pieces = server.stream_next("tools/call");
    drop(caller.open("tools/call", json!({ "name": "slow" })));
    pieces.wait_until_abandoned();
}

#[test]
fn a_stopped_instance_refuses_connections_and_forgets_its_sessions() {
    let server = McpServer::start();
    let caller = Caller::new(server.instances[0].address(), None);
    let session = caller.initialize(LEGACY);
    server.instances[0].stop();
    assert!(std::net::TcpStream::connect(server.instances[0].address()).is_err());
    server.instances[0].restart();
    assert_eq!(session.list().status(), 404);
}

#[test]
fn a_scripted_answer_replaces_the_honest_one() {
    let server = McpServer::start().tool("read");
    server.on_tool("read", |_| Reply::text(200, "text/html", "<p>").with("set-cookie", "a=b"));
    let answer = Caller::new(server.instances[0].address(), None).call("read", json!({}));
    assert_eq!(answer.header("set-cookie"), Some("a=b"));
}

#[test]
fn the_raw_server_sends_what_it_is_told() {
    let server = RawServer::start(|request| match request.earlier_on_connection {
        0 => (RawServer::json(&json!({ "ok": true })), Then::KeepAlive),
        _ => (Vec::new(), Then::Close),
    });
    let mut connection = crate::support::Connection::open(server.address());
    let request = Request::new("POST", "/").body("{}");
    assert_eq!(connection.send(&request).json(), json!({ "ok": true }));
    connection.write(&request.bytes(server.address()));
    assert_eq!(connection.response(), None);
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn the_sdk_client_talks_to_the_sdk_server_in_both_eras() {
    let server = RmcpServer::start();
    let address = server.instances()[0].1;
    runtime().block_on(async {
        for revision in [LEGACY, MODERN] {
            let client = connect_rmcp(address, "/mcp", "a-token", revision).await;
            assert_eq!(client.list_all_tools().await.unwrap().len(), 4, "{revision}");
            let result = client.call_tool(CallToolRequestParams::new("credential")).await.unwrap();
            assert_eq!(result.content[0].as_text().unwrap().text, "Bearer a-token", "{revision}");
            client.cancel().await.unwrap();
        }
    });
}

#[test]
fn a_configuration_is_written_as_block_yaml() {
    let (idp, server) = (Idp::start(), McpServer::start());
    let yaml = conf().idp(&idp).server("tickets", &server).allow("tickets:read", "read").yaml("/tmp/x");
    assert!(yaml.contains("\"file\": \"/tmp/x/audit.jsonl\"\n"), "{yaml}");
    assert!(yaml.contains("\n    \"name\": \"tickets\"\n"), "{yaml}");
}
