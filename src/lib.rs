//! Portcullis: an identity-aware edge gateway for the Model Context Protocol (MCP), built on Pingora.
//!
//! AI agents on one side, MCP servers on the other. Every call is authenticated, authorized per tool and per argument,
//! sent to the instance that owns its session, given a freshly exchanged credential instead of the caller's token,
//! filtered on its way back, and written to the audit log.
//!
//! # The path of a request
//!
//! ```text
//!  agent ──► listener ──► gateway (Pingora phases, thin)
//!                            │
//!                            ▼   gateway/pipeline.rs::admit            reads top to bottom
//!    what exists        registry     path → Route → Server
//!    who is calling     identity     token, keys, now → Caller { Principal, scopes, claims }
//!    which software     identity     agent's token or claims → AgentIdentity, bound to the Caller
//!    what do they ask   mcp          headers + body → McpRequest { revision, messages }
//!    which talk         session      Mcp-Session-Id → Session            (legacy revisions)
//!    may they           policy       Caller, Server, Message → Decision → Permit
//!    is it approved     registry     Catalog, Message → not kept back    (governed servers)
//!    is it enough       policy       Caller, Message, what was used → Spent, given back at the end
//!    where              routing      Session, rules, health → Instance
//!    whose authority    credential   Permit, Caller → Credential         (may use the network: token exchange)
//!                            │  Admitted
//!                            ▼
//!                       forward ──► MCP server instance
//!                            │
//!                            ▼  answer
//!    what comes back    respond      session id sealing, list filter, pins; SSE event by event
//!    what happened      audit        exactly one audit event per request, refusals included
//! ```
//!
//! `admit` is the whole security story on one screen: each line is a stage, each `?` is a refusal, each value is the next
//! one's input. The unknown caller costs no JSON parse; nothing is minted for a refused request.
//!
//! # Words
//!
//! **Principal** = (issuer, subject). **Caller** = proof of authentication. **AgentIdentity** = the
//! software that acts for the caller. **Route** = a public path. **Server** = a
//! registered MCP server. **Instance** = one address of a server. **Permit / Denial** = what `policy::decide` returns; a
//! `Permit` can be made nowhere else. **Credential** = what the upstream sees in `Authorization`. **Rejection** = every
//! way we refuse; one closed enum, one renderer. **Snapshot** = the frozen world of one request.
//!
//! # Invariants
//!
//! 1. Nothing reaches an upstream without a `Permit`: not a byte, not a connection.
//! 2. What was judged is what is sent: the upstream body comes from the parsed `McpRequest`, never from a second reading.
//! 3. A client's token never goes upstream. No conversion from bearer token to `Credential` exists.
//! 4. One request, one snapshot.
//! 5. The core has no clock, randomness, IO or logs; `now` and nonces are arguments.
//! 6. Every request ends in exactly one audit event. Its place in the audit queue is reserved before anything goes
//!    upstream.
//! 7. Deny by default. An allow rule that errs does not match, a deny rule that errs denies.
//! 8. The verdict does not depend on the protocol revision.
//! 9. Refusals are rendered in one place; the client sees a public message, the log the cause.
//! 10. A bad config never replaces a good one; all its problems are reported together.
//! 11. Unknown is refused: config keys, revisions, methods without a rule, hosts.
//! 12. Everything has a bound with a named key and a default.
//! 13. No default secret exists.
//!
//! # Who may import whom
//!
//! Imports point inwards, without circles. `tests/architecture.rs` reads this table and holds it against the code.
//!
//! ```text imports
//! time:
//! secret:
//! lifecycle:
//! mcp:
//! identity: time
//! credential: secret, time
//! policy: identity, mcp, time
//! content: mcp, policy, secret
//! session: identity, secret, time
//! routing: identity, mcp, policy, time
//! config: content, credential, identity, mcp, policy, routing, secret
//! registry: config, content, credential, identity, mcp, policy, routing, time
//! audit: content, credential, identity, mcp, policy
//! snapshot: config, policy, registry, routing, session
//! net: config, identity, mcp, registry, routing, secret, time
//! store: config, mcp, policy, registry, secret, time
//! telemetry: audit, config, credential, mcp, policy, time
//! gateway: audit, config, content, credential, identity, lifecycle, mcp, net, policy, registry, routing, secret, session, snapshot, telemetry, time
//! control: audit, config, content, credential, identity, lifecycle, mcp, net, policy, registry, routing, secret, session, snapshot, store, telemetry, time
//! demo: secret, time
//! cli: config, demo, policy, secret
//! app: cli, config, control, demo, gateway, lifecycle, net, snapshot, store, telemetry, time
//! ```
//!
//! # Modules in reading order

pub mod app;
pub mod cli;

// ── The core: rules only. No clock, randomness, sockets, files, tasks, logs. ──
pub mod audit;
pub mod config;
pub mod content;
pub mod credential;
pub mod identity;
pub mod mcp;
pub mod policy;
pub mod registry;
pub mod routing;
pub mod session;
pub mod snapshot;

// ── The shell: IO. ──
pub mod control;
#[cfg(feature = "demo")]
pub mod demo;
pub mod gateway;
pub mod net;
pub mod store;
pub mod telemetry;

pub mod lifecycle;
pub mod secret;
pub mod time;
