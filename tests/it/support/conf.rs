//! A configuration file in the making.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Idp, McpServer, Sts};

/// The host of `public_url` in every test.
pub const PUBLIC_HOST: &str = "mcp.example.test";
/// The resource identifier of the route `/mcp`, and so the audience of its tokens.
pub const AUDIENCE: &str = "https://mcp.example.test/mcp";

/// The session key of every test that does not bring its own.
pub const SESSION_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZkZFRENCQTk4NzY1NDMyMTA=";

/// A configuration and the files it names. `DIR` in a value stands for the directory of the test.
#[derive(Clone, Debug)]
pub struct Conf {
    pub value: Value,
    pub files: Vec<File>,
    /// Variables that the gateway finds in its environment.
    pub environment: Vec<(String, String)>,
}

/// A file beside the configuration.
#[derive(Clone, Debug)]
pub struct File {
    pub name: String,
    pub content: String,
    pub mode: u32,
}

/// A configuration with a session key and an audit file, and one route `/mcp` to the first server that is added.
pub fn conf() -> Conf {
    Conf {
        value: json!({
            "server": { "threads": 2, "grace_period_seconds": 0, "graceful_shutdown_timeout_seconds": 1 },
            "public_url": format!("https://{PUBLIC_HOST}"),
            "audit": { "file": "DIR/audit.jsonl" },
            "session": { "keys": [{ "file": "DIR/session.key" }] },
            "issuers": [],
            "servers": [],
            "routes": [],
        }),
        files: vec![File { name: "session.key".into(), content: SESSION_KEY.into(), mode: 0o600 }],
        environment: Vec::new(),
    }
}

impl Conf {
    /// Trusts an issuer, under the name `corp`.
    #[must_use]
    pub fn idp(self, idp: &Idp) -> Self {
        self.issuer("corp", idp, json!({}))
    }

    /// Trusts an issuer, with more settings; every route so far and to come accepts it.
    #[must_use]
    pub fn issuer(mut self, name: &str, idp: &Idp, more: Value) -> Self {
        let issuer = json!({ "name": name, "issuer": idp.issuer(), "jwks": { "discover": true } });
        list(&mut self.value["issuers"]).push(merged(issuer, more));
        let names = self.issuer_names();
        for route in list(&mut self.value["routes"]) {
            route["issuers"] = names.clone();
        }
        self
    }

    /// Sets an environment variable of the gateway and of `portcullis upgrade`.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Registers a server with its instances. The first one gets the route `/mcp`, later ones `/NAME`.
    #[must_use]
    pub fn server(self, name: &str, server: &McpServer) -> Self {
        let instances: Vec<_> = server.instances.iter().map(|i| (i.id.clone(), i.address())).collect();
        self.server_at(name, &instances)
    }

    /// Registers a server by addresses.
    #[must_use]
    pub fn server_at(mut self, name: &str, instances: &[(String, SocketAddr)]) -> Self {
        let instances: Vec<_> = instances
            .iter()
            .map(|(id, address)| json!({ "id": id, "url": format!("http://{address}"), "weight": 1 }))
            .collect();
        let health = json!({ "interval": "200ms", "timeout": "1s", "unhealthy_after": 1, "healthy_after": 1 });
        list(&mut self.value["servers"]).push(json!({
            "name": name, "path": "/mcp", "instances": instances, "health": health, "credential": "none",
        }));
        let path = if list(&mut self.value["routes"]).is_empty() { "/mcp".to_owned() } else { format!("/{name}") };
        let issuers = self.issuer_names();
        list(&mut self.value["routes"]).push(json!({
            "path": path, "servers": [name], "issuers": issuers, "scopes_supported": [],
            "authorization": { "default": "deny", "rules": [] },
        }));
        self
    }

    /// Exchanges tokens for the last server, with more settings of `token_exchange`.
    #[must_use]
    pub fn exchange(mut self, sts: &Sts, more: Value) -> Self {
        self = self.file("client.secret", "client-secret-value", 0o600);
        let client = json!({
            "id": "portcullis", "secret": { "file": "DIR/client.secret" }, "auth": "client_secret_basic",
        });
        let exchange = json!({ "token_endpoint": sts.token_endpoint(), "client": client, "audience": ["tickets"] });
        self.of_server("credential", json!({ "token_exchange": merged(exchange, more) }))
    }

    /// Sets a key of the last server.
    #[must_use]
    pub fn of_server(mut self, key: &str, value: Value) -> Self {
        list(&mut self.value["servers"]).last_mut().expect("a server")[key] = value;
        self
    }

    /// Sets a key of the last route.
    #[must_use]
    pub fn of_route(mut self, key: &str, value: Value) -> Self {
        list(&mut self.value["routes"]).last_mut().expect("a route")[key] = value;
        self
    }

    /// Lets whoever holds `scope` call `tool` on the last route.
    #[must_use]
    pub fn allow(self, scope: &str, tool: &str) -> Self {
        let server = self.value["routes"].as_array().unwrap().last().expect("a route")["servers"][0].clone();
        self.rule(json!({
            "name": format!("allow-{tool}"),
            "source": { "jwt": { "scopes": [scope] } },
            "target": { "tools": [{ "server": server, "tool": tool }] },
        }))
    }

    /// Adds a rule to the last route.
    #[must_use]
    pub fn rule(mut self, rule: Value) -> Self {
        let route = list(&mut self.value["routes"]).last_mut().expect("a route");
        list(&mut route["authorization"]["rules"]).push(rule);
        self
    }

    /// Lets every authenticated caller do everything that no rule of the last route denies.
    #[must_use]
    pub fn allow_all(mut self) -> Self {
        list(&mut self.value["routes"]).last_mut().expect("a route")["authorization"]["default"] = "allow".into();
        self
    }

    /// Sets any key by its path, e.g. `limits.body_bytes`.
    #[must_use]
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        let mut place = &mut self.value;
        for key in path.split('.') {
            place = match key.parse::<usize>() {
                Ok(index) => &mut place[index],
                Err(_) => &mut place[key],
            };
        }
        *place = value.into();
        self
    }

    /// Writes a file beside the configuration, or replaces it.
    #[must_use]
    pub fn file(mut self, name: &str, content: &str, mode: u32) -> Self {
        self.files.retain(|file| file.name != name);
        self.files.push(File { name: name.into(), content: content.into(), mode });
        self
    }

    /// The configuration as YAML.
    pub fn yaml(&self, directory: &str) -> String {
        let mut text = String::new();
        write_block(&mut text, &self.value, 0);
        text.replace("DIR/", &format!("{directory}/"))
    }

    fn issuer_names(&self) -> Value {
        self.value["issuers"].as_array().unwrap().iter().map(|issuer| issuer["name"].clone()).collect()
    }
}

fn list(value: &mut Value) -> &mut Vec<Value> {
    value.as_array_mut().expect("a list")
}

fn merged(mut base: Value, more: Value) -> Value {
    for (key, value) in more.as_object().expect("an object") {
        base[key] = value.clone();
    }
    base
}

/// Writes block YAML; scalars and empty collections are written as JSON, which YAML reads alike.
fn write_block(text: &mut String, value: &Value, indent: usize) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                *text += &format!("{pad}{}:", json!(key));
                write_value(text, value, indent);
            }
        }
        Value::Array(items) => {
            for item in items {
                *text += &format!("{pad}-");
                write_value(text, item, indent);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => *text += &format!("{pad}{value}\n"),
    }
}

fn write_value(text: &mut String, value: &Value, indent: usize) {
    let is_block = value.as_object().is_some_and(|o| !o.is_empty()) || value.as_array().is_some_and(|a| !a.is_empty());
    if is_block {
        text.push('\n');
        write_block(text, value, indent + 2);
    } else {
        *text += &format!(" {value}\n");
    }
}
