//! Do the authorization vectors hold through the real binary, in both eras?

use serde_json::{Value, json};

use crate::support::{Answer, Conf, Gateway, Idp, LEGACY, MODERN, McpServer, PUBLIC_HOST, conf, modern_message};

/// The vectors that a request through the whole gateway can show: not those whose tool name carries a server's prefix, which
/// only a route with several servers gives.
fn vectors() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/authorization.json");
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let file: Value = serde_json::from_str(&text).unwrap();
    let vectors = file["vectors"].as_array().unwrap().clone();
    assert!(vectors.len() >= 35);
    vectors.into_iter().filter(|vector| !vector["authorization"].to_string().contains("__")).collect()
}

/// One gateway for all of them: every vector has a route of its own, whose path the vector's rules are told.
struct Bench {
    idp: Idp,
    servers: Vec<McpServer>,
    gateway: Gateway,
}

impl Bench {
    fn start(vectors: &[Value]) -> Self {
        let idp = Idp::start();
        let servers = vec![McpServer::start(), McpServer::start()];
        let instances = |server: &McpServer| vec![("a".to_owned(), server.instances[0].address())];
        let mut conf: Conf = conf().idp(&idp);
        for (name, server) in ["crm", "files"].into_iter().zip(&servers) {
            conf = conf.server_at(name, &instances(server));
        }
        let routes: Vec<Value> = vectors
            .iter()
            .map(|vector| {
                let path = path_of(vector);
                let authorization: Value =
                    serde_json::from_str(&vector["authorization"].to_string().replace("\\\"/mcp\\\"", &format!("\\\"{path}\\\"")))
                        .unwrap();
                json!({
                    "path": path, "servers": [vector["request"]["server"]], "issuers": ["corp"], "authorization": authorization,
                })
            })
            .collect();
        conf = conf.set("routes", routes).set("allowed_hosts", json!([PUBLIC_HOST, "127.0.0.1"]));
        Self { idp, servers, gateway: Gateway::start(conf) }
    }

    fn ask(&self, vector: &Value, revision: &str) -> Answer {
        let request = &vector["request"];
        let path = path_of(vector);
        let mut token = self.idp.token().audience(format!("https://{PUBLIC_HOST}{path}"));
        for (claim, value) in vector["claims"].as_object().unwrap() {
            token = token.claim(claim, value.clone());
        }
        let mut caller = self.gateway.caller(token).at(&path).header("Host", request["host"].as_str().unwrap());
        for (name, value) in request["headers"].as_object().unwrap() {
            let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
            for value in values {
                caller = caller.header(name, value.as_str().unwrap());
            }
        }
        let (method, params) = match vector["evaluation"].as_str() {
            Some("list") => ("tools/list", json!({})),
            _ => ("tools/call", json!({ "name": request["tool"], "arguments": request["arguments"] })),
        };
        if revision == MODERN {
            caller.send(&caller.modern_post(&modern_message(1, method, params)))
        } else {
            caller.initialize(revision).request(method, params)
        }
    }
}

fn path_of(vector: &Value) -> String {
    format!("/mcp-{}", vector["id"].as_str().unwrap().to_ascii_lowercase())
}

fn check(revision: &str) {
    let vectors = vectors();
    let bench = Bench::start(&vectors);
    for server in &bench.servers {
        server.on("tools/list", |seen| {
            let names = ["lookup", "update", "purge", "batch", "export", "list", "read"];
            let tools: Vec<_> = names.iter().map(|name| json!({ "name": name, "inputSchema": {} })).collect();
            crate::support::Reply::result(seen, json!({ "tools": tools, "ttlMs": 0, "cacheScope": "public" }))
        });
    }
    let mut wrong = Vec::new();
    for vector in &vectors {
        let answer = bench.ask(vector, revision);
        let expected = vector["expect"]["decision"].as_str().unwrap();
        let decided = if vector["evaluation"] == "list" {
            let tool = vector["request"]["tool"].as_str().unwrap();
            if answer.names().iter().any(|name| name == tool) { "allow" } else { "deny" }
        } else {
            match answer.status() {
                200 => "allow",
                403 => "deny",
                _ => "neither",
            }
        };
        let scopes = answer.header("www-authenticate").and_then(|_| answer.challenge_parameter("scope"));
        let mut scopes: Option<Vec<&str>> = scopes.as_ref().map(|text| text.split(' ').collect());
        if let Some(scopes) = &mut scopes {
            scopes.sort_unstable();
        }
        if decided != expected || json!(scopes) != vector["expect"]["challenge_scopes"] {
            wrong.push(format!("{} {}: {decided}, {scopes:?}\n{}", vector["id"], vector["title"], answer.0));
        }
    }
    assert!(wrong.is_empty(), "{} of {} in {revision}:\n{}", wrong.len(), vectors.len(), wrong.join("\n"));
}

#[test]
fn the_vectors_hold_in_2026_07_28() {
    check(MODERN);
}

#[test]
fn the_vectors_hold_in_2025_11_25() {
    check(LEGACY);
}

#[test]
fn the_vectors_hold_in_2025_03_26() {
    check("2025-03-26");
}
