//! What a caller got back, and what a test may say about it.

use serde_json::Value;

use super::{Event, Response};

/// An answer to one MCP request.
#[derive(Clone, Debug)]
pub struct Answer(pub Response);

impl Answer {
    pub fn status(&self) -> u16 {
        self.0.status
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.header(name)
    }

    /// The JSON-RPC answer: the body, or the last event of a stream.
    pub fn json(&self) -> Value {
        if self.header("content-type").is_some_and(|value| value.starts_with("text/event-stream")) {
            return Event::all(&self.0.text()).last().expect("an event").json();
        }
        self.0.json()
    }

    /// The result of a call that went through.
    pub fn result(&self) -> Value {
        assert_eq!(self.status(), 200, "{}", self.0);
        let json = self.json();
        assert!(json.get("error").is_none(), "{}", self.0);
        json["result"].clone()
    }

    /// What the scripted server's tool says it was given.
    pub fn echoed(&self) -> Value {
        let result = self.result();
        let text = result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {result}"));
        serde_json::from_str(text).unwrap()
    }

    /// The names in a list answer.
    pub fn names(&self) -> Vec<String> {
        let result = self.result();
        ["tools", "prompts", "resources", "resourceTemplates"]
            .iter()
            .find_map(|kind| result[kind].as_array())
            .unwrap_or_else(|| panic!("no list in {result}"))
            .iter()
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// `data.reason` of a refusal.
    pub fn reason(&self) -> String {
        self.json()["error"]["data"]["reason"].as_str().unwrap_or_else(|| panic!("no reason in {}", self.0)).to_owned()
    }

    /// The name under which the audit log knows this request.
    pub fn request_id(&self) -> String {
        self.header("x-request-id").unwrap_or_else(|| panic!("no id in {}", self.0)).to_owned()
    }

    pub fn challenge(&self) -> &str {
        self.header("www-authenticate").unwrap_or_else(|| panic!("no challenge in {}", self.0))
    }

    /// A parameter of the challenge, without its quotes.
    pub fn challenge_parameter(&self, name: &str) -> Option<String> {
        let (_, rest) = self.challenge().split_once(&format!("{name}=\""))?;
        rest.split('"').next().map(str::to_owned)
    }

    /// Refused by the gateway itself, as the contract's table says.
    #[track_caller]
    pub fn assert_refused(&self, status: u16, reason: &str) -> &Self {
        assert_eq!(self.status(), status, "{}", self.0);
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.0);
        let json = self.json();
        assert_eq!(json["jsonrpc"], "2.0", "{}", self.0);
        assert_eq!(self.reason(), reason, "{}", self.0);
        assert_eq!(json["error"]["code"].as_i64(), Some(code(status, reason)), "{}", self.0);
        assert!(json["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{}", self.0);
        assert_eq!(json["error"]["data"]["request_id"], self.request_id(), "{}", self.0);
        assert!(json.get("result").is_none(), "{}", self.0);
        self
    }
}

/// The JSON-RPC code of a refusal: a JSON-RPC or MCP code where one fits, else the HTTP status.
fn code(status: u16, reason: &str) -> i64 {
    match reason {
        "parse_error" => -32700,
        "invalid_request" => -32600,
        "method_not_found" => -32601,
        "invalid_params" => -32602,
        "header_mismatch" => -32020,
        "unsupported_protocol_version" => -32022,
        _ => status.into(),
    }
}
