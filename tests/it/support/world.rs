//! The usual cast: an issuer, a server `tickets`, and a gateway between them.

use serde_json::json;

use super::{Caller, Conf, Gateway, Idp, McpServer, Sts, Token, conf};

/// An issuer, the server `tickets` with tools `read`, `close` and `purge`, and a gateway in front. Scope `tickets:read`
/// allows `read`, scope `tickets:write` allows `close`, nothing allows `purge`.
pub struct World {
    pub idp: Idp,
    pub sts: Sts,
    pub tickets: McpServer,
    pub gateway: Gateway,
}

impl World {
    pub fn start() -> Self {
        Self::with(|conf| conf)
    }

    /// With a changed configuration.
    #[track_caller]
    pub fn with(change: impl FnOnce(Conf) -> Conf) -> Self {
        Self::with_instances(1, change)
    }

    /// With a token exchange between gateway and server: the server accepts exchanged tokens only.
    #[track_caller]
    pub fn exchanging(change: impl FnOnce(Conf) -> Conf) -> Self {
        let (idp, sts) = (Idp::start(), Sts::start());
        let tickets = cast(1).accepting(&sts);
        let gateway = Gateway::start(change(usual(&idp, &tickets).exchange(&sts, json!({}))));
        Self { idp, sts, tickets, gateway }
    }

    #[track_caller]
    pub fn with_instances(count: u8, change: impl FnOnce(Conf) -> Conf) -> Self {
        let (idp, sts, tickets) = (Idp::start(), Sts::start(), cast(count));
        let gateway = Gateway::start(change(usual(&idp, &tickets)));
        Self { idp, sts, tickets, gateway }
    }

    /// Alice, who may call `read`.
    pub fn reader(&self) -> Caller {
        self.gateway.caller(self.reader_token())
    }

    pub fn reader_token(&self) -> Token {
        self.idp.token().scope("tickets:read")
    }

    /// Somebody else who may call `read`.
    pub fn reader_named(&self, subject: &str) -> Caller {
        self.gateway.caller(self.reader_token().subject(subject))
    }
}

/// The configuration of [`World`].
pub fn usual(idp: &Idp, tickets: &McpServer) -> Conf {
    conf()
        .idp(idp)
        .server("tickets", tickets)
        .of_route("scopes_supported", json!(["tickets:read", "tickets:write"]))
        .allow("tickets:read", "read")
        .allow("tickets:write", "close")
}

fn cast(instances: u8) -> McpServer {
    McpServer::with_instances(instances).tool("read").tool("close").tool("purge")
}
