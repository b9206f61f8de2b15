//! How do we say no? Every way we refuse is a variant here, and every refusal is rendered here.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::credential::ExchangeError;
use crate::identity::AuthnError;
use crate::mcp::{RequestError, RequestId, Revision};

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
    /// No rule permits it, and no scope would help.
    Denied,
    /// The token exchange failed.
    Exchange(ExchangeError),
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
    /// The bearer token is not believed.
    InvalidToken {
        /// Why, as one of a fixed set of words.
        error: AuthnError,
        /// `WWW-Authenticate`.
        challenge: HeaderValue,
    },
    /// A body of more than 64 KiB came without a length.
    LengthRequired,
    /// The request is malformed below MCP: authorization header, length, encoding.
    Malformed(StatusCode),
    /// The path has no such HTTP method.
    MethodNotAllowed {
        /// `Allow`.
        allow: &'static str,
    },
    /// No bearer token.
    MissingToken {
        /// `WWW-Authenticate`.
        challenge: HeaderValue,
    },
    /// No instance of the server takes new work.
    NoHealthyInstance,
    /// No route has this path.
    NoRoute,
    /// `Accept` leaves out what MCP answers with.
    NotAcceptable,
    /// The body is not what MCP speaks.
    Request(RequestError),
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
    /// HTTP status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::AuditUnavailable | Self::NoHealthyInstance => StatusCode::SERVICE_UNAVAILABLE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ClientGone => StatusCode::BAD_REQUEST,
            Self::Denied | Self::ForbiddenHost | Self::ForbiddenOrigin | Self::InsufficientScope { .. } => {
                StatusCode::FORBIDDEN
            }
            Self::Exchange(error) if is_timeout(error) => StatusCode::GATEWAY_TIMEOUT,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::InvalidToken { .. } | Self::MissingToken { .. } => StatusCode::UNAUTHORIZED,
            Self::LengthRequired => StatusCode::LENGTH_REQUIRED,
            Self::Malformed(status) | Self::UpstreamRefused(status) => *status,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoRoute | Self::UnknownSession => StatusCode::NOT_FOUND,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::Request(error) => error.status(),
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Exchange(_) | Self::UpstreamCredential | Self::UpstreamProtocol | Self::UpstreamUnreachable => {
                StatusCode::BAD_GATEWAY
            }
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// JSON-RPC error code: the reserved codes where the specification names one, else the HTTP status, which lies
    /// outside the reserved range.
    pub(crate) fn code(&self) -> i64 {
        match self {
            Self::Request(error) => i64::from(error.code()),
            other => i64::from(other.status().as_u16()),
        }
    }

    /// The fixed word of `data.reason`, of metrics and of the audit record.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::AuditUnavailable => "audit_unavailable",
            Self::BodyTimeout => "body_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::ClientGone => "client_gone",
            Self::Denied => "denied",
            Self::Exchange(error) if is_timeout(error) => "exchange_timeout",
            Self::Exchange(_) => "exchange_failed",
            Self::ForbiddenHost => "forbidden_host",
            Self::ForbiddenOrigin => "forbidden_origin",
            Self::HeadersTooLarge => "headers_too_large",
            Self::InsufficientScope { .. } => "insufficient_scope",
            Self::InvalidToken { .. } => "invalid_token",
            Self::LengthRequired => "length_required",
            Self::Malformed(_) => "malformed_request",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::MissingToken { .. } => "missing_token",
            Self::NoHealthyInstance => "no_healthy_instance",
            Self::NoRoute => "no_route",
            Self::NotAcceptable => "not_acceptable",
            Self::Request(error) => error.label(),
            Self::UnknownSession => "unknown_session",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::UpstreamCredential | Self::UpstreamProtocol | Self::UpstreamRefused(_) => "upstream_protocol",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamUnreachable => "upstream_unreachable",
        }
    }

    /// A finer fixed word, where the reason has several causes. A client is told that of its own token only.
    pub(crate) fn detail(&self) -> Option<&'static str> {
        match self {
            Self::InvalidToken { error, .. } => Some(error.label()),
            Self::Exchange(error) => Some(error.label()),
            _ => None,
        }
    }

    fn public_detail(&self) -> Option<&'static str> {
        if let Self::InvalidToken { error, .. } = self { Some(error.label()) } else { None }
    }

    /// The public sentence. Never request data, addresses or causes.
    fn message(&self) -> &'static str {
        match self {
            Self::AuditUnavailable => "the request cannot be recorded, so it is not carried out; try again later",
            Self::BodyTimeout => "the request body did not arrive in time",
            Self::BodyTooLarge => "the request body is too large",
            Self::ClientGone => "the connection broke",
            Self::Denied => "not permitted",
            Self::Exchange(_) => "no credential for the server could be obtained",
            Self::ForbiddenHost => "this host name is not served here",
            Self::ForbiddenOrigin => "requests from this origin are not accepted",
            Self::HeadersTooLarge => "the request headers are too large",
            Self::InsufficientScope { .. } => "the access token lacks a scope",
            Self::InvalidToken { .. } => "the access token is not valid here",
            Self::LengthRequired => "a body of more than 64 KiB needs a Content-Length",
            Self::Malformed(_) => "the request is malformed",
            Self::MethodNotAllowed { .. } => "this HTTP method is not offered here",
            Self::MissingToken { .. } => "an access token is required",
            Self::NoHealthyInstance => "no instance of the server is available; try again later",
            Self::NoRoute => "nothing is served at this path",
            Self::NotAcceptable => "Accept must cover application/json and text/event-stream",
            Self::Request(error) => error.public_message(),
            Self::UnknownSession => "unknown session; initialize a new one",
            Self::UnsupportedMediaType => "the body must be application/json without content encoding",
            Self::UpstreamCredential => "the server did not accept the gateway's credential",
            Self::UpstreamProtocol => "the server gave an answer that cannot be passed on",
            Self::UpstreamRefused(_) => "the server refused the request",
            Self::UpstreamTimeout => "the server did not answer in time",
            Self::UpstreamUnreachable => "the server could not be reached",
        }
    }

    /// Whether the client's connection may serve another request: not when part of this one may still be on it.
    pub(crate) fn leaves_connection_clean(&self) -> bool {
        !matches!(
            self,
            Self::BodyTimeout
                | Self::BodyTooLarge
                | Self::ClientGone
                | Self::HeadersTooLarge
                | Self::LengthRequired
                | Self::Malformed(_)
        )
    }

    fn headers(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::AuditUnavailable | Self::NoHealthyInstance => Some((RETRY_AFTER, HeaderValue::from_static("1"))),
            Self::InsufficientScope { challenge }
            | Self::InvalidToken { challenge, .. }
            | Self::MissingToken { challenge } => Some((WWW_AUTHENTICATE, challenge.clone())),
            Self::MethodNotAllowed { allow } => Some((ALLOW, HeaderValue::from_static(allow))),
            _ => None,
        }
    }

    /// The JSON-RPC error object's text, for an answer of its own or for an event in a stream that is already open.
    pub(crate) fn body(&self, id: Option<&RequestId>, request_id: &str) -> Bytes {
        let id = id.and_then(|id| serde_json::from_str::<&RawValue>(id.as_json()).ok());
        let versions = match self {
            Self::Request(RequestError::UnsupportedVersion { requested, supported }) => {
                let supported: Vec<_> = supported.iter().copied().map(Revision::as_str).collect();
                (Some(supported), Some(&**requested))
            }
            _ => (None, None),
        };
        let error = ErrorAnswer {
            jsonrpc: "2.0",
            id,
            error: ErrorObject {
                code: self.code(),
                message: self.message(),
                data: ErrorData {
                    reason: self.reason(),
                    detail: self.public_detail(),
                    request_id,
                    supported: versions.0,
                    requested: versions.1,
                },
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
        if let Some((name, value)) = self.headers() {
            headers.insert(name, value);
        }
        response
    }
}

fn is_timeout(error: &ExchangeError) -> bool {
    matches!(error, ExchangeError::Timeout)
}

#[derive(Serialize)]
struct ErrorAnswer<'a> {
    jsonrpc: &'static str,
    id: Option<&'a RawValue>,
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    code: i64,
    message: &'static str,
    data: ErrorData<'a>,
}

#[derive(Serialize)]
struct ErrorData<'a> {
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
    request_id: &'a str,
    /// MCP 2026-07-28: the error of an unsupported version lists the supported ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    supported: Option<Vec<&'static str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requested: Option<&'a str>,
}
