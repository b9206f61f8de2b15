//! How do we say no? Every way we refuse is a variant here, and every refusal is rendered here.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::content::Refusal;
use crate::credential::ExchangeError;
use crate::identity::AuthnError;
use crate::identity::agent::{AgentError, DelegationError};
use crate::mcp::{RequestError, RequestId, Revision};
use crate::registry::record::Cause;

use super::budgets::OverBudget;

/// Every way the gateway refuses.
#[derive(Clone, Debug)]
pub(crate) enum Rejection {
    /// No place in the audit queue, and `audit.on_full` is `refuse`.
    AuditUnavailable,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body is over its bound.
    BodyTooLarge,
    /// The client's connection broke; nobody is left to be told.
    ClientGone,
    /// A rule about content withholds the answer.
    Content(Refusal),
    /// No rule permits it, and no scope would help.
    Denied,
    /// The agent is believed, but may not do this for this caller.
    DelegationRefused(DelegationError),
    /// The token exchange failed.
    Exchange(ExchangeError),
    /// The TLS session was resumed, and the client certificate it began with is trusted no more.
    ForbiddenCertificate,
    /// `Host` is none of ours.
    ForbiddenHost,
    /// `Origin` is none of ours.
    ForbiddenOrigin,
    /// The request head is over its bound.
    HeadersTooLarge,
    /// A rule would permit it to a caller with more scopes.
    InsufficientScope {
        /// `WWW-Authenticate`.
        challenge: HeaderValue,
    },
    /// The agent's token is not believed.
    InvalidAgentToken {
        /// Why, as one of a fixed set of words.
        error: AgentError,
        /// `WWW-Authenticate`.
        challenge: HeaderValue,
    },
    /// The bearer token is not believed.
    InvalidToken {
        /// Why, as one of a fixed set of words.
        error: AuthnError,
        /// `WWW-Authenticate`.
        challenge: HeaderValue,
    },
    /// A body of more than 64 KiB came without a length.
    LengthRequired,
    /// The request is malformed below MCP: two authorization headers, a length that is none.
    Malformed,
    /// The path has no such HTTP method.
    MethodNotAllowed {
        /// `Allow`.
        allow: &'static str,
    },
    /// No agent is named where one must be.
    MissingAgentToken {
        /// `WWW-Authenticate`.
        challenge: HeaderValue,
    },
    /// No bearer token.
    MissingToken {
        /// `WWW-Authenticate`.
        challenge: HeaderValue,
    },
    /// No instance of the server takes new work.
    NoHealthyInstance,
    /// A strict routing rule is about it, and has no instance that takes work.
    NoInstanceInRegion,
    /// No route has this path.
    NoRoute,
    /// The call is more than a budget allows.
    OverBudget(Box<OverBudget>),
    /// `Accept` leaves out what MCP answers with.
    NotAcceptable,
    /// Somebody has stopped the principal, or the agent, as the word says.
    QuarantinedCaller(&'static str),
    /// The body is not what MCP speaks.
    Request(RequestError),
    /// The server is not approved, or was taken out of use.
    ServerSuspended,
    /// The process ends, and its successor serves: what is still open is ended.
    ShuttingDown,
    /// The server has not proved to be what it must be.
    UnidentifiedServer,
    /// It would carry something out of a conversation that has read what anybody may have written.
    Tainted,
    /// What it reads would have to be marked, and there is no room.
    TaintFull,
    /// Somebody has stopped the tool.
    ToolStopped,
    /// The tool, prompt or resource is not what was approved; none: it was taken out of use.
    ToolQuarantined(Option<Cause>),
    /// The session is unknown, expired, forged or someone else's: all alike.
    UnknownSession,
    /// `Content-Type` is not JSON, or the body is encoded.
    UnsupportedMediaType,
    /// The server refused the credential twice.
    UpstreamCredential,
    /// The server's answer is not MCP.
    UpstreamProtocol,
    /// The server did not answer in time.
    UpstreamTimeout,
    /// The server refused with this status (4xx), in no form that could be passed on.
    UpstreamRefused(StatusCode),
    /// The server could not be reached, or broke off.
    UpstreamUnreachable,
}

impl Rejection {
    /// The table of refusals: HTTP status, the fixed word of `data.reason`, metrics and audit, and the public sentence,
    /// which never holds request data, addresses or causes.
    fn row(&self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::AuditUnavailable => (
                S::SERVICE_UNAVAILABLE,
                "audit_unavailable",
                "the request cannot be recorded, so it is not carried out",
            ),
            Self::BodyTimeout => (S::REQUEST_TIMEOUT, "body_timeout", "the request body did not arrive in time"),
            Self::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "body_too_large", "the request body is too large"),
            Self::ClientGone => (S::BAD_REQUEST, "client_gone", "the connection broke"),
            Self::Content(refusal) => content_row(*refusal),
            Self::Denied => (S::FORBIDDEN, "denied", "not permitted"),
            Self::DelegationRefused(_) => {
                (S::FORBIDDEN, "delegation_refused", "the agent may not do this for this caller")
            }
            Self::Exchange(ExchangeError::Timeout) => {
                (S::GATEWAY_TIMEOUT, "exchange_timeout", "no credential for the server could be obtained in time")
            }
            Self::Exchange(_) => (S::BAD_GATEWAY, "exchange_failed", "no credential for the server could be obtained"),
            Self::ForbiddenCertificate => {
                (S::FORBIDDEN, "forbidden_certificate", "the client certificate is not trusted any more; connect anew")
            }
            Self::ForbiddenHost => (S::FORBIDDEN, "forbidden_host", "this host name is not served here"),
            Self::ForbiddenOrigin => (S::FORBIDDEN, "forbidden_origin", "requests from this origin are not accepted"),
            Self::HeadersTooLarge => {
                (S::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", "the request headers are too large")
            }
            Self::InsufficientScope { .. } => (S::FORBIDDEN, "insufficient_scope", "the access token lacks a scope"),
            Self::InvalidAgentToken { .. } => {
                (S::UNAUTHORIZED, "invalid_agent_token", "the agent's token is not valid here")
            }
            Self::InvalidToken { .. } => (S::UNAUTHORIZED, "invalid_token", "the access token is not valid here"),
            Self::LengthRequired => {
                (S::LENGTH_REQUIRED, "length_required", "a body of more than 64 KiB needs a Content-Length")
            }
            Self::Malformed => (S::BAD_REQUEST, "malformed_request", "the request is malformed"),
            Self::MethodNotAllowed { .. } => {
                (S::METHOD_NOT_ALLOWED, "method_not_allowed", "this HTTP method is not offered here")
            }
            Self::MissingAgentToken { .. } => {
                (S::UNAUTHORIZED, "missing_agent_token", "a token of the agent is required")
            }
            Self::MissingToken { .. } => (S::UNAUTHORIZED, "missing_token", "an access token is required"),
            Self::NoHealthyInstance => {
                (S::SERVICE_UNAVAILABLE, "no_healthy_instance", "no instance of the server is available")
            }
            Self::NoInstanceInRegion => {
                (S::SERVICE_UNAVAILABLE, "no_instance_in_region", "no instance is available where this request may go")
            }
            Self::NoRoute => (S::NOT_FOUND, "no_route", "nothing is served at this path"),
            Self::NotAcceptable => {
                (S::NOT_ACCEPTABLE, "not_acceptable", "Accept must cover application/json and text/event-stream")
            }
            Self::OverBudget(over) => (S::TOO_MANY_REQUESTS, "budget_exceeded", over.advice()),
            Self::QuarantinedCaller(_) => {
                (S::FORBIDDEN, "quarantined_caller", "an operator has stopped this caller; do not try again")
            }
            Self::Request(error) => (error.status(), error.label(), error.public_message()),
            Self::ServerSuspended => (S::FORBIDDEN, "server_suspended", "the server is not approved for use"),
            Self::ShuttingDown => (S::SERVICE_UNAVAILABLE, "shutting_down", "the gateway is being replaced; ask again"),
            Self::UnidentifiedServer => {
                (S::SERVICE_UNAVAILABLE, "unidentified_server", "the server has not proved what it is")
            }
            Self::Tainted => (
                S::FORBIDDEN,
                "tainted_context",
                "this conversation has read untrusted content, so it may not send anything out; ask a person to approve, \
                 or begin anew",
            ),
            Self::TaintFull => {
                (S::SERVICE_UNAVAILABLE, "taint_unavailable", "untrusted content cannot be kept apart at the moment")
            }
            Self::ToolStopped => (S::FORBIDDEN, "tool_stopped", "an operator has stopped this tool; do without it"),
            Self::ToolQuarantined(_) => (S::FORBIDDEN, "tool_quarantined", "not approved for use"),
            Self::UnknownSession => (S::NOT_FOUND, "unknown_session", "unknown session; initialize a new one"),
            Self::UnsupportedMediaType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "the body must be application/json without content encoding",
            ),
            Self::UpstreamCredential => {
                (S::BAD_GATEWAY, "upstream_protocol", "the server did not accept the gateway's credential")
            }
            Self::UpstreamProtocol => {
                (S::BAD_GATEWAY, "upstream_protocol", "the server gave an answer that cannot be passed on")
            }
            Self::UpstreamRefused(status) => (*status, "upstream_protocol", "the server refused the request"),
            Self::UpstreamTimeout => (S::GATEWAY_TIMEOUT, "upstream_timeout", "the server did not answer in time"),
            Self::UpstreamUnreachable => (S::BAD_GATEWAY, "upstream_unreachable", "the server could not be reached"),
        }
    }

    /// HTTP status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        self.row().0
    }

    /// The fixed word of `data.reason`, of metrics and of the audit record.
    pub(crate) fn reason(&self) -> &'static str {
        self.row().1
    }

    /// A finer fixed word for the audit record, where the reason has several causes.
    pub(crate) fn detail(&self) -> Option<&'static str> {
        if let Self::ToolQuarantined(cause) = self {
            return Some(cause.map_or("suspended", Cause::label));
        }
        if let Self::Exchange(error) = self { Some(error.label()) } else { self.public_detail() }
    }

    /// A finer fixed word that the caller may know too: it is about their own token, or their agent's.
    fn public_detail(&self) -> Option<&'static str> {
        if let Self::InvalidToken { error, .. } = self {
            Some(error.label())
        } else if let Self::InvalidAgentToken { error, .. } = self {
            Some(error.label())
        } else if let Self::DelegationRefused(error) = self {
            Some(error.label())
        } else if let Self::OverBudget(over) = self {
            Some(over.limit.label())
        } else if let Self::QuarantinedCaller(what) = self {
            Some(what)
        } else {
            None
        }
    }

    /// What a result may have, and what it has, when that is why.
    fn bound(&self) -> Option<(usize, usize)> {
        if let Self::Content(Refusal::TooLarge { found, limit } | Refusal::TooMany { found, limit }) = self {
            Some((*limit, *found))
        } else {
            None
        }
    }

    /// JSON-RPC error code: the reserved codes where the specification names one, else the HTTP status, which lies
    /// outside the reserved range.
    fn code(&self) -> i32 {
        if let Self::Request(error) = self { error.code() } else { i32::from(self.status().as_u16()) }
    }

    /// Whether the client's connection may serve another request: not when part of this one may still be on it, or when
    /// the connection itself is what is refused.
    pub(crate) fn leaves_connection_clean(&self) -> bool {
        !matches!(
            self,
            Self::BodyTimeout
                | Self::BodyTooLarge
                | Self::ClientGone
                | Self::ForbiddenCertificate
                | Self::HeadersTooLarge
                | Self::LengthRequired
                | Self::Malformed
        )
    }

    /// The header that goes with the refusal.
    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        if let Self::MethodNotAllowed { allow } = self {
            return Some((ALLOW, HeaderValue::from_static(allow)));
        }
        if let Self::InsufficientScope { challenge }
        | Self::InvalidAgentToken { challenge, .. }
        | Self::InvalidToken { challenge, .. }
        | Self::MissingAgentToken { challenge }
        | Self::MissingToken { challenge } = self
        {
            return Some((WWW_AUTHENTICATE, challenge.clone()));
        }
        if let Self::OverBudget(over) = self {
            return Some((RETRY_AFTER, HeaderValue::from(over.retry_after)));
        }
        (self.status() == StatusCode::SERVICE_UNAVAILABLE).then(|| (RETRY_AFTER, HeaderValue::from_static("1")))
    }

    /// The JSON-RPC error object's text in its fewest words: the reason in place of the sentence, and no data.
    pub(crate) fn short_body(&self, id: Option<&RequestId>) -> Bytes {
        let error = ErrorObject { code: self.code(), message: self.reason(), data: None };
        serde_json::to_vec(&ErrorAnswer { jsonrpc: "2.0", id: raw(id), error }).unwrap_or_default().into()
    }

    /// The JSON-RPC error object's text, for an answer of its own or for an event in a stream that is already open.
    pub(crate) fn body(&self, id: Option<&RequestId>, request_id: &str) -> Bytes {
        let (supported, requested) =
            if let Self::Request(RequestError::UnsupportedVersion { requested, supported }) = self {
                (Some(supported.iter().copied().map(Revision::as_str).collect()), Some(&**requested))
            } else {
                (None, None)
            };
        let over = if let Self::OverBudget(over) = self { Some(over) } else { None };
        let error = ErrorAnswer {
            jsonrpc: "2.0",
            id: raw(id),
            error: ErrorObject {
                code: self.code(),
                message: self.row().2,
                data: Some(ErrorData {
                    reason: self.reason(),
                    detail: self.public_detail(),
                    budget: over.map(|over| &*over.budget),
                    retry_after: over.map(|over| over.retry_after),
                    request_id,
                    supported,
                    requested,
                    limit: self.bound().map(|(limit, _)| limit),
                    found: self.bound().map(|(_, found)| found),
                }),
            },
        };
        serde_json::to_vec(&error).unwrap_or_default().into()
    }

    /// The whole answer.
    pub(crate) fn render(&self, id: Option<&RequestId>, request_id: &str) -> http::Response<Bytes> {
        let body = self.body(id, request_id);
        let mut response = http::Response::new(body);
        *response.status_mut() = self.status();
        let length = response.body().len();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some((name, value)) = self.header() {
            headers.insert(name, value);
        }
        if let Self::OverBudget(over) = self {
            headers.extend(over.headers());
        }
        response
    }
}

/// The rows of answers that rules about content withhold.
fn content_row(refusal: Refusal) -> (StatusCode, &'static str, &'static str) {
    use StatusCode as S;
    match refusal {
        Refusal::Blocked => {
            (S::FORBIDDEN, "content_blocked", "the answer is withheld: it tries to give orders to whoever reads it")
        }
        Refusal::BlockedOutside => (S::FORBIDDEN, "content_blocked", "the answer is withheld by a content check"),
        Refusal::Media => {
            (S::FORBIDDEN, "media_not_allowed", "the answer holds media of a type that is not allowed here")
        }
        Refusal::NoVerdict => {
            (S::BAD_GATEWAY, "content_unchecked", "the answer could not be checked, so it is withheld")
        }
        Refusal::TooLarge { .. } => {
            (S::PAYLOAD_TOO_LARGE, "result_too_large", "the result is larger than allowed here; ask for less")
        }
        Refusal::TooMany { .. } => {
            (S::PAYLOAD_TOO_LARGE, "too_many_items", "the result has more items than allowed here; ask for fewer")
        }
        Refusal::Unencrypted => (S::FORBIDDEN, "encryption_required", "only callers over TLS are given this"),
        Refusal::Unreadable => {
            (S::BAD_GATEWAY, "upstream_protocol", "the server gave an answer that cannot be passed on")
        }
    }
}

/// The bytes of the request's id, as they came.
fn raw(id: Option<&RequestId>) -> Option<&RawValue> {
    id.and_then(|id| serde_json::from_str(id.as_json()).ok())
}

#[derive(Serialize)]
struct ErrorAnswer<'a> {
    jsonrpc: &'static str,
    id: Option<&'a RawValue>,
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    code: i32,
    message: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<ErrorData<'a>>,
}

#[derive(Serialize)]
struct ErrorData<'a> {
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
    /// The budget that is exceeded, and in how many seconds it may be asked again.
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    request_id: &'a str,
    /// MCP 2026-07-28: the error of an unsupported version lists the supported ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    supported: Option<Vec<&'static str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requested: Option<&'a str>,
    /// A result that is too large: what it may have, so that an agent can ask for less.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
    /// And what it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<usize>,
}
