//! Which facts stand in a line, and in which order?

use crate::identity::AgentIdentity;
use crate::identity::agent::Step;
use crate::mcp::Revision;
use crate::policy::Effect;

use super::line::Object;
use super::{Act, Arguments, Credential, Decision, Event, Mcp, Message, Principal, Registry, Routing, Stamp};

impl Event {
    /// Appends the record, all but the beginning of its line ([`Stamp::write_beginning`]). Together they are a JSON object
    /// (RFC 8259) and a line feed.
    ///
    /// Every string is cut to [`STRING_BYTES_MAX`](super::STRING_BYTES_MAX) and escaped so that the line cannot end
    /// early, pass for two, or move a terminal's cursor: control characters (C0, DEL, C1), line and paragraph separators,
    /// and characters that are invisible or turn text around are written as `\u` escapes, which a JSON parser turns back.
    pub fn write_rest(&self, out: &mut Vec<u8>) {
        let mut line = Object { out, empty: false };
        line.optional("request_id", Some(&*self.request_id).filter(|id| !id.is_empty()));
        line.optional("trace_id", self.trace_id.as_deref());
        line.label("event", self.event.label());
        if let Some(ip) = self.client_ip {
            line.address("client_ip", ip);
        }
        if let Some(certificate) = &self.client_certificate {
            line.object("client_certificate", |object| {
                object.string("subject", certificate.subject());
                object.string("digest", certificate.digest());
            });
        }
        line.optional("route", self.route.as_deref());
        if let Some(principal) = &self.principal {
            line.object("principal", |object| principal.write(object));
        }
        if let Some(agent) = &self.agent {
            line.object("agent", |object| write_agent(agent, object));
        }
        line.optional("server", self.server.as_deref());
        line.optional("instance", self.instance.as_deref());
        if let Some(session) = self.session {
            line.plain("session", &session.hex());
        }
        if let Some(mcp) = &self.mcp {
            line.object("mcp", |object| mcp.write(object));
        }
        if let Some(arguments) = &self.arguments {
            line.object("arguments", |object| arguments.write(object));
        }
        if let Some(decision) = &self.decision {
            line.object("decision", |object| decision.write(object));
        }
        if let Some(routing) = &self.routing {
            line.object("routing", |object| routing.write(object));
        }
        if let Some(act) = &self.act {
            line.object("act", |object| act.write(object));
        }
        if let Some(registry) = &self.registry {
            line.object("registry", |object| registry.write(object));
        }
        if let Some(credential) = &self.credential {
            line.object("credential", |object| credential.write(object));
        }
        if let Some(budget) = &self.budget {
            line.object("budget", |object| {
                object.string("name", &budget.name);
                object.label("limit", budget.limit);
            });
        }
        line.optional_label("taint", self.taint);
        line.objects("content", &self.content, |content, object| {
            object.string("rule", &content.rule);
            object.label("action", content.action);
            object.number("count", content.count);
        });
        if let Some(status) = self.status {
            line.number("status", u64::from(status));
        }
        line.label("outcome", self.outcome.label());
        line.optional_label("reason", self.reason);
        line.optional_label("detail", self.detail);
        line.millis("duration_ms", self.duration);
        if let Some(upstream) = self.upstream {
            line.millis("upstream_ms", upstream);
        }
        line.number("bytes_in", self.bytes_in);
        line.number("bytes_out", self.bytes_out);
        line.number("config_generation", self.config_generation);
        line.end();
        out.push(b'\n');
    }
}

impl Stamp<'_> {
    /// Appends the beginning of a line; [`Event::write_rest`] has written the rest.
    pub fn write_beginning(&self, out: &mut Vec<u8>) {
        let mut line = Object::begin(out);
        line.time("time", self.time_ms);
        line.number("seq", self.seq);
        line.string("gateway", self.gateway);
    }
}

impl Principal {
    fn write(&self, object: &mut Object<'_>) {
        object.string("issuer", &self.issuer);
        object.string("subject", &self.subject);
        object.optional("client_id", self.client_id.as_deref());
        object.optional("token_id", self.token_id.as_deref());
    }
}

/// The whole identity, in the words that rules read it by, but for its name, which is `id` here.
fn write_agent(agent: &AgentIdentity, object: &mut Object<'_>) {
    object.string("id", &agent.agent);
    object.string("issuer", &agent.issuer);
    object.optional("instance", agent.instance.as_deref());
    object.optional("type", agent.kind.as_deref());
    object.optional("provider", agent.provider.as_deref());
    object.optional("model", agent.model.as_deref());
    object.optional("version", agent.version.as_deref());
    object.strings("capabilities", agent.capabilities.iter());
    object.optional("trust_level", agent.trust_level.as_deref());
    object.optional("delegator", agent.delegator.as_deref());
    object.objects("chain", &agent.chain, write_step);
    object.string("chain_assurance", agent.assurance.label());
    object.number("depth", agent.depth() as u64);
    object.optional("purpose", agent.purpose.as_deref());
    object.optional("context", agent.context.as_deref());
    object.string("attestation", agent.attestation.label());
    object.optional("attestation_detail", agent.attestation.detail());
    object.string("source", agent.source.label());
}

/// One step of a chain. Constraints are left out: nothing here is of unbounded shape.
fn write_step(step: &Step, object: &mut Object<'_>) {
    object.optional("issuer", step.issuer.as_deref());
    object.string("delegator", &step.delegator);
    object.string("delegatee", &step.delegatee);
    if let Some(at) = step.delegated_at {
        object.number("delegated_at", at.0);
    }
    if let Some(scopes) = &step.scopes {
        object.strings("scopes", scopes.iter());
    }
    object.optional("purpose", step.purpose.as_deref());
    object.optional("id", step.id.as_deref());
}

impl Act {
    fn write(&self, object: &mut Object<'_>) {
        object.string("call", &self.call);
        object.optional("target", self.target.as_deref());
        object.optional("action", self.action.as_deref());
        object.optional("note", self.note.as_deref());
        object.optional("roles", self.roles.as_deref());
    }
}

impl Registry {
    fn write(&self, object: &mut Object<'_>) {
        object.optional("kind", self.kind);
        object.optional("name", self.name.as_deref());
        object.optional("digest", self.digest.as_deref());
        object.optional("state", self.state);
        object.optional("cause", self.cause);
        if self.findings > 0 {
            object.number("findings", self.findings);
        }
        object.optional("note", self.note.as_deref());
    }
}

impl Mcp {
    fn write(&self, object: &mut Object<'_>) {
        object.optional_label("revision", self.revision.map(Revision::as_str));
        object.method(self.method.as_ref());
        object.optional("name", self.name.as_deref());
        object.request_id("id", self.id.as_ref());
        object.objects("batch", &self.batch, Message::write);
    }
}

impl Message {
    fn write(&self, object: &mut Object<'_>) {
        object.method(self.method.as_ref());
        object.optional("name", self.name.as_deref());
        object.request_id("id", self.id.as_ref());
        if let Some(arguments) = &self.arguments {
            object.object("arguments", |object| arguments.write(object));
        }
        if let Some(decision) = &self.decision {
            object.object("decision", |object| decision.write(object));
        }
    }
}

impl Arguments {
    fn write(&self, object: &mut Object<'_>) {
        object.plain("hmac_sha256", &self.hmac_sha256.hex());
    }
}

impl Decision {
    fn write(&self, object: &mut Object<'_>) {
        let effect = match self.effect {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
        };
        object.label("effect", effect);
        object.optional("rule", self.rule.as_deref());
        object.label("reason", self.reason);
    }
}

impl Routing {
    fn write(&self, object: &mut Object<'_>) {
        object.optional("rule", self.rule.as_deref());
        object.optional("split", self.split.as_deref());
        object.optional("version", self.version.as_deref());
        object.optional("region", self.region.as_deref());
        if self.fell_back {
            object.raw("fell_back", true);
        }
        object.optional("failed_rule", self.failed_rule.as_deref());
    }
}

impl Credential {
    fn write(&self, object: &mut Object<'_>) {
        object.label("mode", self.mode);
        object.strings("audience", self.audience.iter().map(|audience| &**audience));
        object.optional("scope", Some(&*self.scope).filter(|scope| !scope.is_empty()));
        object.raw("cached", self.cached);
    }
}
