//! What does a client learn before it has a token? RFC 9728 metadata, challenges, CORS.

use serde_json::json;

use crate::support::{Gateway, Idp, McpServer, Request, Response, World, send, usual};

fn get(gateway: &Gateway, path: &str) -> Response {
    send(gateway.address(), &Request::get(path))
}

#[test]
fn the_metadata_names_the_resource_its_issuers_and_its_scopes() {
    let world = World::start();
    let expected = json!({
        "resource": "https://mcp.example.test/mcp",
        "authorization_servers": [world.idp.issuer()],
        "scopes_supported": ["tickets:read", "tickets:write"],
        "bearer_methods_supported": ["header"],
    });
    for path in ["/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"] {
        let answer = get(&world.gateway, path);
        assert_eq!(answer.status, 200, "{answer}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        let mut json = answer.json();
        json.as_object_mut().unwrap().retain(|key, _| expected.get(key).is_some());
        assert_eq!(json, expected, "{path}");
    }
    world.tickets.assert_saw_nothing();
}

#[test]
fn with_two_routes_each_has_its_own_metadata_and_none_is_the_default() {
    let (idp, tickets, wiki) = (Idp::start(), McpServer::start(), McpServer::start());
    let gateway = Gateway::start(usual(&idp, &tickets).server("wiki", &wiki));
    for path in ["/mcp", "/wiki"] {
        let answer = get(&gateway, &format!("/.well-known/oauth-protected-resource{path}"));
        assert_eq!(answer.json()["resource"], format!("https://mcp.example.test{path}"));
    }
    assert_eq!(get(&gateway, "/.well-known/oauth-protected-resource").status, 404);
    assert_eq!(get(&gateway, "/.well-known/oauth-protected-resource/other").status, 404);
}

/// The document a challenge points to exists and is about this very resource: a client compares (RFC 9728 §3.3).
#[test]
fn the_challenge_leads_to_the_metadata() {
    let world = World::start();
    let challenge = world.gateway.stranger().list().challenge_parameter("resource_metadata").unwrap();
    let path = challenge.strip_prefix("https://mcp.example.test").unwrap();
    assert_eq!(get(&world.gateway, path).json()["resource"], "https://mcp.example.test/mcp");
}

#[test]
fn the_metadata_minds_the_host_like_everything_else() {
    let world = World::start();
    let request = Request::get("/.well-known/oauth-protected-resource/mcp").header("Host", "evil.example");
    assert_eq!(send(world.gateway.address(), &request).status, 403);
}

#[test]
fn a_preflight_of_an_allowed_origin_is_answered() {
    let world = World::start();
    let preflight = |origin: &str| {
        let request = Request::new("OPTIONS", "/mcp")
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "POST")
            .header(
                "Access-Control-Request-Headers",
                "authorization, content-type, mcp-session-id, mcp-protocol-version",
            );
        send(world.gateway.address(), &request)
    };
    for origin in ["https://mcp.example.test", "http://localhost:6274", "http://127.0.0.1:6274"] {
        let answer = preflight(origin);
        assert!(matches!(answer.status, 200 | 204), "{answer}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        assert!(answer.header("access-control-allow-methods").unwrap().contains("POST"));
        let headers = answer.header("access-control-allow-headers").unwrap().to_ascii_lowercase();
        for header in ["authorization", "content-type", "mcp-session-id", "mcp-protocol-version"] {
            assert!(headers.contains(header), "{headers}");
        }
    }
    assert_eq!(preflight("https://evil.example").status, 403);
    world.tickets.assert_saw_nothing();
}

#[test]
fn an_allowed_origin_may_read_answers_refusals_and_the_headers_it_needs() {
    let world = World::with(|conf| conf.set("allowed_origins", json!(["https://app.example.test"])));
    let origin = "https://app.example.test";
    let with_token = world.reader().header("Origin", origin).list();
    let without = world.gateway.stranger().header("Origin", origin).list();
    for answer in [with_token, without] {
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin), "{}", answer.0);
        let exposed = answer.header("access-control-expose-headers").unwrap().to_ascii_lowercase();
        for header in ["mcp-session-id", "mcp-protocol-version", "www-authenticate"] {
            assert!(exposed.contains(header), "{exposed}");
        }
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
}

#[test]
fn status_tells_the_configurations_generation() {
    let world = World::start();
    let status = world.gateway.admin("/status");
    assert_eq!(status.status, 200, "{status}");
    assert!(status.text().contains("generation"), "{status}");
    let generation = world.gateway.metric("portcullis_config_generation", &[]);
    assert!(generation >= 1.0, "{generation}");
}
