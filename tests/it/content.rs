//! What must not come back: rules about content, through the real listener.

use serde_json::{Value, json};

use crate::support::{Answer, LEGACY, REVISIONS, Reply, World, message_with_result, modern_message};

mod encoded;
mod external;
mod guard;
mod limits;
mod redact;
mod sensitive;
mod streams;

/// A gateway with these rules on its server.
#[track_caller]
fn world(rules: Value) -> World {
    World::with(|conf| conf.of_server("content", rules))
}

/// Redacts e-mail addresses, cards and GitHub tokens everywhere.
fn redacting() -> Value {
    json!([{ "name": "pii", "redact": { "detect": ["email", "card", "github_token"] } }])
}

/// Lets the tool `read` answer with this result, as JSON.
fn answers(world: &World, result: Value) {
    world.tickets.on_tool("read", move |seen| Reply::result(seen, result.clone()));
}

/// Lets the tool `read` answer with exactly this text, `ID` being the request's id.
fn answers_exactly(world: &World, text: &'static str) {
    world.tickets.on_tool("read", move |seen| {
        Reply::text(200, "application/json", text.replace("ID", &seen.message["id"].to_string()))
    });
}

fn read(world: &World) -> Answer {
    world.reader().call("read", json!({}))
}

fn text(text: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": text }] })
}

/// Shaped like a token of GitHub, and nobody's.
fn token() -> String {
    format!("ghp_{}", "aB3dE5gH7jK9".repeat(3))
}

/// What the rules did, by the last audit record.
fn done(world: &World, records: usize) -> Value {
    world.gateway.audit(records).last().unwrap()["content"].clone()
}

fn progress(message: &str) -> Value {
    json!({
        "jsonrpc": "2.0", "method": "notifications/progress",
        "params": { "progressToken": "p", "progress": 1, "message": message },
    })
}
