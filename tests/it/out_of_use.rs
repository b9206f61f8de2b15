//! Does what is under way end when the registry takes its server, or its tool, out of use?

use std::time::{Duration, Instant};

use portcullis::registry::lifecycle::Action;
use serde_json::{Value, json};

use crate::support::registry::Registry;
use crate::support::{Caller, Conf, Gateway, Idp, LEGACY, McpServer, Opened, Pieces, conf, poll_until};

/// The governed server `mail` and the ungoverned `wiki` behind two gateways on one store.
struct World {
    idp: Idp,
    mail: McpServer,
    wiki: McpServer,
    gateways: [Gateway; 2],
    registry: Registry,
    _directory: tempfile::TempDir,
}

impl World {
    /// With the tools `send` and `read`, approved and in force everywhere.
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("registry.db");
        let (idp, mail) = (Idp::start(), McpServer::start().tool("send").tool("read"));
        let wiki = McpServer::start().tool("look");
        let conf: Conf = conf()
            .idp(&idp)
            .server("mail", &mail)
            .of_server("managed", json!(true))
            .allow_all()
            .server("wiki", &wiki)
            .allow_all()
            .set("store", json!({ "sqlite": file, "poll": "100ms" }))
            .set("registry", json!({ "refresh": "1s", "approvals": { "groups": ["security"] } }));
        let gateways = [Gateway::start(conf.clone()), Gateway::start(conf)];
        let registry = Registry::sqlite(file);
        registry.server("mail");
        registry.approve_server("mail");
        for tool in ["send", "read"] {
            registry.approve("mail", tool);
        }
        let world = Self { idp, mail, wiki, gateways, registry, _directory: directory };
        for gateway in 0..2 {
            for tool in ["send", "read"] {
                poll_until(&format!("{tool} to be callable"), || {
                    (world.caller(gateway).call(tool, json!({})).status() == 200).then_some(())
                });
            }
        }
        world
    }

    fn caller(&self, gateway: usize) -> Caller {
        self.gateways[gateway].caller(self.idp.token())
    }

    fn reader_of_wiki(&self, gateway: usize) -> Caller {
        self.gateways[gateway].caller(self.idp.token().audience("https://mcp.example.test/wiki")).at("/wiki")
    }
}

/// A call that is under way, and has been heard once.
fn calling(server: &McpServer, caller: &Caller, tool: &str) -> (Opened, Pieces) {
    let pieces = server.stream_next("tools/call");
    let mut stream = caller.open("tools/call", json!({ "name": tool, "arguments": {} }));
    pieces.event(&event());
    assert_eq!(stream.event().unwrap().json(), event());
    (stream, pieces)
}

fn event() -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": {} })
}

/// The reason that the last event of a stream gives, and that the stream has ended with it.
#[track_caller]
fn last_words(stream: &mut Opened) -> Value {
    let error = stream.event().expect("a last event").json();
    stream.finish();
    error["error"]["data"]["reason"].clone()
}

#[test]
fn no_stream_of_a_suspended_server_goes_on_at_any_gateway() {
    let world = World::start();
    let mut calls = [0, 1].map(|gateway| calling(&world.mail, &world.caller(gateway), "send"));
    let session = world.caller(1).initialize(LEGACY);
    let listening = world.mail.stream_next("GET");
    let mut listener = session.get(None);
    listening.event(&event());
    listener.event().unwrap();
    let mut others = [0, 1].map(|gateway| calling(&world.wiki, &world.reader_of_wiki(gateway), "look"));

    world.registry.act_on_server("mail", Action::Suspend);
    let began = Instant::now();
    for (stream, pieces) in &mut calls {
        assert_eq!(last_words(stream), "server_suspended");
        pieces.wait_until_abandoned();
    }
    assert!(listener.event().is_none(), "a stream that waits for nothing ends without a word");
    listening.wait_until_abandoned();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    world.caller(0).call("send", json!({})).assert_refused(403, "server_suspended");
    for gateway in &world.gateways {
        poll_until("the record of the call", || {
            let text = std::fs::read_to_string(gateway.path("audit.jsonl")).unwrap();
            let all = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut ended =
                all.filter(|record| record["reason"] == "server_suspended" && record["upstream_ms"] != Value::Null);
            ended.find(|record| record["mcp"]["name"] == "send" && record["event"] == "mcp.request")
        });
    }
    // What is not suspended goes on.
    for (stream, pieces) in &mut others {
        pieces.event(&event());
        assert_eq!(stream.event().unwrap().json(), event());
    }
    world.registry.act_on_server("mail", Action::Resume);
    poll_until("the server to work", || (world.caller(1).call("send", json!({})).status() == 200).then_some(()));
}

#[test]
fn no_call_of_a_suspended_tool_goes_on_and_calls_of_others_do() {
    let world = World::start();
    let (mut send, sending) = calling(&world.mail, &world.caller(0), "send");
    let (mut read, reading) = calling(&world.mail, &world.caller(0), "read");
    world.registry.act("mail", "send", Action::Suspend);
    let began = Instant::now();
    assert_eq!(last_words(&mut send), "tool_quarantined");
    sending.wait_until_abandoned();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    reading.event(&event());
    assert_eq!(read.event().unwrap().json(), event());
}
