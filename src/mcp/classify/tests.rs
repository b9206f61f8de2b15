use http::HeaderValue;
use proptest::prelude::*;
use serde_json::Value;
use serde_json::json;

use super::*;
use crate::mcp::error::HeaderFault;
use crate::mcp::error::HeaderProblem;
use crate::mcp::json::JsonError;

const LIMITS: ClassifyLimits = ClassifyLimits { json_depth: 64, batch_messages: 50 };

/// `_meta` as 2026-07-28 asks for it.
const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

#[test]
fn reads_a_modern_tool_call() {
    let body = format!(
        r#" {{"jsonrpc":"2.0","id":"a-1","method":"tools/call","params":{{"name":"sear\u0063h","arguments":{{"n":1.00, "m":12345678901234567890123}},{META},"x":1}}}} "#
    );
    let head = head(&[("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "search")]);

    let request = classify(&head, Bytes::from(body.clone()), &LIMITS).unwrap();

    assert_eq!(request.revision, Revision::V2026_07_28);
    assert!(!request.batch);
    assert_eq!(request.body, body);
    let [message] = &request.messages[..] else { panic!("one message") };
    assert_eq!(message.kind, MessageKind::Request { id: id("\"a-1\""), method: Method::ToolsCall });
    assert_eq!(message.target, Target::Tool("search".into()));
    assert_eq!(message.arguments.as_ref().unwrap().bytes(), r#"{"n":1.00, "m":12345678901234567890123}"#);
    assert_eq!(message.meta.as_ref().unwrap().bytes(), &META[8..]);
    assert!(message.params.as_ref().unwrap().bytes().ends_with(br#","x":1}"#));
}

#[test]
fn reads_what_legacy_clients_send() {
    use Revision::*;
    use Target as T;
    for (version, body, revision, method, target) in [
        (None, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, V2025_03_26, Method::Ping, T::None),
        (Some("2025-03-26"), r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, V2025_03_26, Method::Ping, T::None),
        (
            Some("2025-06-18"),
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#,
            V2025_06_18,
            Method::ToolsList,
            T::None,
        ),
        (
            Some("2025-11-25"),
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#,
            V2025_11_25,
            Method::ToolsCall,
            T::Tool("a".into()),
        ),
        (
            None,
            r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"p","arguments":{"a":"b"}}}"#,
            V2025_03_26,
            Method::PromptsGet,
            T::Prompt("p".into()),
        ),
        (
            None,
            r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///a b"}}"#,
            V2025_03_26,
            Method::ResourcesRead,
            T::Resource("file:///a b".into()),
        ),
        (
            None,
            r#"{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"uri":"x:y"}}"#,
            V2025_03_26,
            Method::ResourcesSubscribe,
            T::Resource("x:y".into()),
        ),
        (
            None,
            r#"{"jsonrpc":"2.0","id":1,"method":"resources/unsubscribe","params":{"uri":"x:y"}}"#,
            V2025_03_26,
            Method::ResourcesUnsubscribe,
            T::Resource("x:y".into()),
        ),
        (
            None,
            r#"{"jsonrpc":"2.0","id":1,"method":"tasks/result","params":{"taskId":"t"}}"#,
            V2025_03_26,
            Method::TasksResult,
            T::Task("t".into()),
        ),
        (
            None,
            r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"p"},"argument":{"name":"a","value":"b"}}}"#,
            V2025_03_26,
            Method::CompletionComplete,
            T::Prompt("p".into()),
        ),
        (
            None,
            r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"uri":"f:{x}","type":"ref/resource"},"argument":{"name":"a","value":"b"}}}"#,
            V2025_03_26,
            Method::CompletionComplete,
            T::Resource("f:{x}".into()),
        ),
        (
            None,
            r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{}}}"#,
            V2025_06_18,
            Method::Initialize,
            T::None,
        ),
        (
            None,
            r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2024-11-05"}}"#,
            V2025_11_25,
            Method::Initialize,
            T::None,
        ),
        (
            None,
            r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2026-07-28"}}"#,
            V2025_11_25,
            Method::Initialize,
            T::None,
        ),
        (
            Some("2025-06-18"),
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            V2025_06_18,
            Method::NotificationsInitialized,
            T::None,
        ),
        (
            Some("2025-11-25"),
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#,
            V2025_11_25,
            Method::NotificationsCancelled,
            T::None,
        ),
    ] {
        let head = version.map_or_else(HeaderMap::new, |version| head(&[("mcp-protocol-version", version)]));
        let request = classify(&head, Bytes::from_static(body.as_bytes()), &LIMITS).unwrap();

        assert_eq!(request.revision, revision, "{body}");
        assert_eq!(request.messages[0].method(), Some(method), "{body}");
        assert_eq!(request.messages[0].target, target, "{body}");
    }
}

#[test]
fn reads_a_legacy_clients_answer_to_the_server() {
    for body in [
        r#"{"jsonrpc":"2.0","id":7,"result":{"Method":"x","action":"accept"}}"#,
        r#"{"jsonrpc":"2.0","id":7,"error":{"code":-1,"message":"no"}}"#,
    ] {
        let request = legacy("2025-11-25", body).unwrap();
        assert_eq!(request.messages[0].kind, MessageKind::Response { id: id("7") });
        assert_eq!(request.messages[0].target, Target::None);
    }
}

/// Each `J` row of the collection of hostile inputs: JSON that means something else to somebody else.
#[test]
fn hostile_json_is_refused() {
    use JsonError::*;
    let call =
        |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{{params},{META}}}}}"#);
    let list = |envelope: &str| format!(r#"{{{envelope},"method":"tools/list","params":{{{META}}}}}"#);
    let long_id = format!(r#""jsonrpc":"2.0","id":"{}""#, "a".repeat(1 << 20));
    let whole = list(r#""jsonrpc":"2.0","id":1"#);
    for (row, body, error) in [
        ("J01 cut", r#"{"jsonrpc":"2.0","id":1,"#.to_owned(), RequestError::ParseError(UnexpectedEnd)),
        ("J02 two names", call(r#""name":"a","name":"b","arguments":{}"#), RequestError::ParseError(DuplicateKey)),
        (
            "J04 two params",
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{{META}}},"params":{{{META}}}}}"#),
            RequestError::ParseError(DuplicateKey),
        ),
        (
            "J05 escaped name",
            call(r#""name":"a","na\u006de":"b","arguments":{}"#),
            RequestError::ParseError(DuplicateKey),
        ),
        (
            "J07 deep",
            call(r#""name":"a","arguments":{"path":"/ok","path":"/etc/shadow"}"#),
            RequestError::ParseError(DuplicateKey),
        ),
        ("J08 batch", format!("[{whole},{whole}]"), invalid(EnvelopeFault::BatchNotSpoken)),
        ("J10 null id", list(r#""jsonrpc":"2.0","id":null"#), invalid(EnvelopeFault::BadId)),
        ("J11 fraction", list(r#""jsonrpc":"2.0","id":1.5"#), invalid(EnvelopeFault::BadId)),
        ("J13 object", list(r#""jsonrpc":"2.0","id":{}"#), invalid(EnvelopeFault::BadId)),
        ("J14 array", list(r#""jsonrpc":"2.0","id":[1]"#), invalid(EnvelopeFault::BadId)),
        ("J16 1e400", list(r#""jsonrpc":"2.0","id":1e400"#), RequestError::ParseError(BadNumber)),
        ("J17 long id", list(&long_id), invalid(EnvelopeFault::BadId)),
        ("J19 no version", list(r#""id":1"#), invalid(EnvelopeFault::NotJsonRpc2)),
        ("J20 1.0", list(r#""jsonrpc":"1.0","id":1"#), invalid(EnvelopeFault::NotJsonRpc2)),
        (
            "J22 response",
            r#"{"jsonrpc":"2.0","id":7,"result":{"action":"accept"}}"#.to_owned(),
            invalid(EnvelopeFault::ResponseNotSpoken),
        ),
        (
            "J23 array",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":[1]}"#.to_owned(),
            RequestError::InvalidParams(ParamFault::NotAnObject),
        ),
        ("J25 surrogate", call(r#""name":"x\ud800","arguments":{}"#), RequestError::ParseError(LoneSurrogate)),
        ("J26 BOM", format!("\u{feff}{whole}"), RequestError::ParseError(Unexpected)),
        (
            "J28 NaN",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"a":NaN,/*x*/}}"#.to_owned(),
            RequestError::ParseError(Unexpected),
        ),
        ("J29 two", format!("{whole}{whole}"), RequestError::ParseError(TrailingBytes)),
    ] {
        let head = head(&[("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/list"), ("mcp-name", "a")]);
        assert_eq!(classify(&head, body.into(), &LIMITS).unwrap_err().error, error, "{row}");
    }
}

/// Each `M` row but those on `Mcp-Param-*`: headers that say something else than the body.
#[test]
fn hostile_modern_headers_are_refused() {
    use HeaderProblem::*;
    let call = || {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"add","arguments":{{}},{META}}}}}"#)
    };
    let list = |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{{params}}}}}"#);
    let version = ("mcp-protocol-version", "2026-07-28");
    let tools_call = ("mcp-method", "tools/call");
    let tools_list = ("mcp-method", "tools/list");
    for (row, headers, body, error) in [
        ("M02 other name", vec![version, tools_call, ("mcp-name", "other")], call(), header(McpHeader::Name, Unlike)),
        ("M03 no name", vec![version, tools_call], call(), header(McpHeader::Name, Missing)),
        (
            "M05 two names",
            vec![version, tools_call, ("mcp-name", "add"), ("mcp-name", "other")],
            call(),
            header(McpHeader::Name, Repeated),
        ),
        (
            "two equal names",
            vec![version, tools_call, ("mcp-name", "add"), ("mcp-name", "add")],
            call(),
            header(McpHeader::Name, Repeated),
        ),
        (
            "name in another case",
            vec![version, tools_call, ("mcp-name", "Add")],
            call(),
            header(McpHeader::Name, Unlike),
        ),
        (
            "M08 CR LF",
            vec![version, tools_call, ("mcp-name", "=?base64?YQ0KWC1JbmplY3RlZDogMQ==?=")],
            call(),
            header(McpHeader::Name, Unlike),
        ),
        (
            "not Base64",
            vec![version, tools_call, ("mcp-name", "=?base64?!?=")],
            call(),
            header(McpHeader::Name, Malformed),
        ),
        ("no method", vec![version, ("mcp-name", "add")], call(), header(McpHeader::Method, Missing)),
        ("other method", vec![version, tools_list, ("mcp-name", "add")], call(), header(McpHeader::Method, Unlike)),
        (
            "method in Base64",
            vec![version, ("mcp-method", "=?base64?dG9vbHMvY2FsbA==?="), ("mcp-name", "add")],
            call(),
            header(McpHeader::Method, Unlike),
        ),
        (
            "two methods",
            vec![version, tools_call, tools_list, ("mcp-name", "add")],
            call(),
            header(McpHeader::Method, Repeated),
        ),
        (
            "M09 version",
            vec![version, tools_list],
            list(&META.replace("2026-07-28", "2025-11-25")),
            header(McpHeader::ProtocolVersion, Unlike),
        ),
        ("two versions", vec![version, version, tools_list], list(META), header(McpHeader::ProtocolVersion, Repeated)),
        (
            "two unlike versions",
            vec![("mcp-protocol-version", "2025-06-18"), version, tools_list],
            list(""),
            header(McpHeader::ProtocolVersion, Repeated),
        ),
        ("no version header", vec![tools_list], list(META), header(McpHeader::ProtocolVersion, Missing)),
        ("M11 no _meta", vec![version, tools_list], list(""), RequestError::InvalidParams(ParamFault::ProtocolVersion)),
        (
            "_meta is no object",
            vec![version, tools_list],
            list(r#""_meta":1"#),
            RequestError::InvalidParams(ParamFault::ProtocolVersion),
        ),
        (
            "M12 no capabilities",
            vec![version, tools_list],
            list(r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#),
            RequestError::InvalidParams(ParamFault::ClientCapabilities),
        ),
        (
            "version is a number",
            vec![version, tools_list],
            list(r#""_meta":{"io.modelcontextprotocol/protocolVersion":20260728}"#),
            RequestError::InvalidParams(ParamFault::ProtocolVersion),
        ),
        (
            "M14 unknown method",
            vec![version, ("mcp-method", "x/y")],
            list(META).replace("tools/list", "x/y"),
            RequestError::MethodNotFound { era: Era::Modern },
        ),
        (
            "legacy method",
            vec![version, ("mcp-method", "initialize")],
            list(META).replace("tools/list", "initialize"),
            RequestError::MethodNotFound { era: Era::Modern },
        ),
        (
            "M18 legacy header",
            vec![("mcp-protocol-version", "2025-11-25"), tools_list, ("mcp-name", "allowed")],
            call(),
            header(McpHeader::ProtocolVersion, Unlike),
        ),
        (
            "future version",
            vec![("mcp-protocol-version", "2099-01-01"), tools_list],
            list(&META.replace("2026-07-28", "2099-01-01")),
            RequestError::unsupported_version("2099-01-01", &Revision::MODERN),
        ),
        (
            "future header alone",
            vec![("mcp-protocol-version", "2099-01-01"), tools_list],
            list(""),
            RequestError::unsupported_version("2099-01-01", &Revision::ALL),
        ),
        (
            "older version spoken the modern way",
            vec![("mcp-protocol-version", "2025-11-25"), tools_list],
            list(&META.replace("2026-07-28", "2025-11-25")),
            RequestError::unsupported_version("2025-11-25", &Revision::MODERN),
        ),
    ] {
        let refused = classify(&head(&headers), body.into(), &LIMITS).unwrap_err();
        assert_eq!(refused.error, error, "{row}");
        assert_eq!(refused.id, Some(id("1")), "{row}");
    }
}

/// Rows M06, M17, M20 and what real clients send.
#[test]
fn honest_modern_requests_pass() {
    let version = ("mcp-protocol-version", "2026-07-28");
    let request = |method: &str, params: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}{META}}}}}"#)
    };
    for (row, headers, body) in [
        (
            "M06 Base64 name",
            vec![version, ("mcp-method", "tools/call"), ("mcp-name", "=?base64?YWRk?=")],
            request("tools/call", r#""name":"add","#),
        ),
        (
            "M17 unknown Mcp-Param",
            vec![version, ("mcp-method", "tools/call"), ("mcp-name", "add"), ("mcp-param-foo", "x")],
            request("tools/call", r#""name":"add","#),
        ),
        (
            "M20 cancel",
            vec![version],
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":"x",{META}}}}}"#),
        ),
        (
            "cancel without _meta",
            vec![version],
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"x"}}"#.to_owned(),
        ),
        (
            "non-ASCII URI",
            vec![version, ("mcp-method", "resources/read"), ("mcp-name", "=?base64?ZmlsZTovLy/kuJY=?=")],
            request("resources/read", r#""uri":"file:///世","#),
        ),
        (
            "task",
            vec![version, ("mcp-method", "tasks/get"), ("mcp-name", "t-1")],
            request("tasks/get", r#""taskId":"t-1","#),
        ),
        (
            "no Mcp-Name for a completion",
            vec![version, ("mcp-method", "completion/complete")],
            request(
                "completion/complete",
                r#""ref":{"type":"ref/prompt","name":"p"},"argument":{"name":"a","value":""},"#,
            ),
        ),
        ("stray Mcp-Name", vec![version, ("mcp-method", "tools/list"), ("mcp-name", "x")], request("tools/list", "")),
        ("padded header", vec![version, ("mcp-method", " tools/list\t")], request("tools/list", r#""cursor":"","#)),
        ("discover", vec![version, ("mcp-method", "server/discover")], request("server/discover", "")),
        (
            "retry",
            vec![version, ("mcp-method", "prompts/get"), ("mcp-name", "p")],
            request("prompts/get", r#""name":"p","inputResponses":{},"requestState":"s","#),
        ),
    ] {
        let request = classify(&head(&headers), body.into(), &LIMITS);
        assert_eq!(request.map(|request| request.revision), Ok(Revision::V2026_07_28), "{row}");
    }
}

/// CVE-2026-11719: a rule must not be escaped by speaking an older revision, so every revision reads the same target.
#[test]
fn a_request_is_about_the_same_in_every_revision() {
    for (method, params, target) in [
        ("tools/call", r#""name":"x","arguments":{"a":1}"#, Target::Tool("x".into())),
        ("prompts/get", r#""name":"x","arguments":{"a":"1"}"#, Target::Prompt("x".into())),
        ("resources/read", r#""uri":"x""#, Target::Resource("x".into())),
        ("completion/complete", r#""ref":{"type":"ref/prompt","name":"x"}"#, Target::Prompt("x".into())),
        ("tasks/get", r#""taskId":"x""#, Target::Task("x".into())),
        ("tools/list", r#""cursor":"x""#, Target::None),
    ] {
        let mut read = Vec::new();
        for revision in Revision::ALL {
            let meta = if revision.era() == Era::Modern { format!(",{META}") } else { String::new() };
            let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}{meta}}}}}"#);
            let head = head(&[("mcp-protocol-version", revision.as_str()), ("mcp-method", method), ("mcp-name", "x")]);
            let request = classify(&head, body.into(), &LIMITS).unwrap();
            assert_eq!(request.revision, revision);
            let message = &request.messages[0];
            assert_eq!(message.target, target, "{method} in {revision}");
            read.push((message.kind.clone(), message.arguments.as_ref().map(|text| text.bytes().clone())));
        }
        assert!(read.iter().all(|one| *one == read[0]), "{method}");
    }
}

/// Legacy requests may carry any `Mcp-*` header: nobody has checked it, so nobody reads it.
#[test]
fn mirror_headers_of_a_legacy_request_say_nothing() {
    let head = head(&[
        ("mcp-protocol-version", "2025-11-25"),
        ("mcp-method", "tools/list"),
        ("mcp-name", "safe"),
        ("mcp-name", "b"),
    ]);
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"danger"}}"#;

    let request = classify(&head, Bytes::from_static(body.as_bytes()), &LIMITS).unwrap();

    assert_eq!(request.messages[0].target, Target::Tool("danger".into()));
}

#[test]
fn malformed_legacy_messages_are_refused() {
    use EnvelopeFault::*;
    let params = RequestError::InvalidParams;
    for (body, error) in [
        ("1", invalid(NotAMessage)),
        ("null", invalid(NotAMessage)),
        (r#""x""#, invalid(NotAMessage)),
        ("{}", invalid(NotJsonRpc2)),
        (r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#, invalid(NotJsonRpc2)),
        (r#"{"jsonrpc":"2.0","id":1}"#, invalid(NotAMessage)),
        (r#"{"jsonrpc":"2.0","id":1,"method":5}"#, invalid(NotAMessage)),
        (r#"{"jsonrpc":"2.0","id":1,"method":null}"#, invalid(NotAMessage)),
        (r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#, invalid(BadId)),
        (r#"{"jsonrpc":"2.0","id":-0,"method":"ping"}"#, invalid(BadId)),
        (r#"{"jsonrpc":"2.0","id":1e2,"method":"ping"}"#, invalid(BadId)),
        (r#"{"jsonrpc":"2.0","id":18446744073709551616,"method":"ping"}"#, invalid(BadId)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#, invalid(MethodAndResult)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","error":{}}"#, invalid(MethodAndResult)),
        (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#, invalid(NotAMessage)),
        (r#"{"jsonrpc":"2.0","id":1,"result":[]}"#, invalid(NotAMessage)),
        (r#"{"jsonrpc":"2.0","id":1,"result":{},"params":{}}"#, invalid(NotAMessage)),
        (r#"{"jsonrpc":"2.0","result":{}}"#, invalid(BadId)),
        (r#"{"jsonrpc":"2.0","id":null,"error":{}}"#, invalid(BadId)),
        (r#"{"jsonrpc":"2.0","method":"tools/list"}"#, invalid(RequestWithoutId)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"notifications/initialized"}"#, invalid(NotificationWithId)),
        (r#"{"jsonrpc":"2.0","method":"notifications/other"}"#, invalid(UnknownNotification)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"server/discover"}"#, RequestError::MethodNotFound { era: Era::Legacy }),
        (r#"{"jsonrpc":"2.0","id":1,"method":"Tools/Call"}"#, RequestError::MethodNotFound { era: Era::Legacy }),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call "}"#, RequestError::MethodNotFound { era: Era::Legacy }),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":null}"#, params(ParamFault::NotAnObject)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":"x"}"#, params(ParamFault::NotAnObject)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":null}}"#, params(ParamFault::Meta)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#, params(ParamFault::Name)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":""}}"#, params(ParamFault::Name)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":["a"]}}"#, params(ParamFault::Name)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a\u0000"}}"#, params(ParamFault::Name)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a\u009b"}}"#, params(ParamFault::Name)),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":null}}"#,
            params(ParamFault::Arguments),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":[]}}"#,
            params(ParamFault::Arguments),
        ),
        (r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"uri":"a"}}"#, params(ParamFault::Name)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"name":"a"}}"#, params(ParamFault::Uri)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"a\nb"}}"#, params(ParamFault::Uri)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{}}"#, params(ParamFault::TaskId)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{}}"#, params(ParamFault::Ref)),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":"ref/prompt"}}"#,
            params(ParamFault::Ref),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/tool","name":"a"}}}"#,
            params(ParamFault::Ref),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","uri":"a"}}}"#,
            params(ParamFault::Ref),
        ),
    ] {
        assert_eq!(legacy("2025-11-25", body).unwrap_err().error, error, "{body}");
    }
}

/// CVE-2026-27896: keys that a reader without regard to case takes for others.
#[test]
fn variants_of_known_keys_are_refused_at_every_level_that_is_judged() {
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","Method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","param\u017f":{}}"#,
        r#"{"JSONRPC":"2.0","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"ID":2,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Name":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","ｎａｍｅ":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","argument\u017f":{}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","tas\u212a":{}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":"a","task_id":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"a","NAME":"b"}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"IO.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
    ] {
        let refused = legacy("2025-11-25", body).unwrap_err();
        assert_eq!(
            refused,
            Unclassified { id: None, error: RequestError::ParseError(JsonError::VariantKey) },
            "{body}"
        );
    }
}

#[test]
fn keys_of_arguments_and_results_are_the_servers_own_matter() {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"Name":1,"name":2,"METHOD":3}}}"#;
    assert!(legacy("2025-11-25", body).is_ok());
}

#[test]
fn the_id_is_told_whenever_it_was_readable() {
    for (body, id_text) in [
        (r#"{"jsonrpc":"2.0","id":"x","method":"nope"}"#, Some("\"x\"")),
        (r#"{"jsonrpc":"1.0","id":-5,"method":"ping"}"#, Some("-5")),
        (r#"{"id":18446744073709551615,"method":"ping","extra":{}}"#, Some("18446744073709551615")),
        (r#"{"jsonrpc":"2.0","id":5}"#, Some("5")),
        (r#"{"jsonrpc":"2.0","id":5,"method":"ping","params":1}"#, Some("5")),
        (r#"{"jsonrpc":"2.0","id":[5],"method":"ping"}"#, None),
        (r#"{"jsonrpc":"2.0","id":5,"result":1}"#, None),
        (r#"{"jsonrpc":"2.0","id":5,"method":"ping""#, None),
        (r#"[{"jsonrpc":"2.0","id":5,"method":"ping"}]"#, None),
    ] {
        assert_eq!(legacy("2025-11-25", body).unwrap_err().id, id_text.map(id), "{body}");
    }
}

#[test]
fn ids_and_names_have_bounds() {
    let with_id = |bytes| format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"ping"}}"#, "i".repeat(bytes));
    let with_name = |bytes| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{}"}}}}"#, "n".repeat(bytes))
    };
    let with_uri = |bytes| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{{"uri":"{}"}}}}"#, "u".repeat(bytes))
    };

    assert!(legacy("2025-11-25", &with_id(ID_BYTES_MAX)).is_ok());
    assert_eq!(legacy("2025-11-25", &with_id(ID_BYTES_MAX + 1)).unwrap_err().error, invalid(EnvelopeFault::BadId));
    assert!(legacy("2025-11-25", &with_name(NAME_BYTES_MAX)).is_ok());
    assert_eq!(
        legacy("2025-11-25", &with_name(NAME_BYTES_MAX + 1)).unwrap_err().error,
        RequestError::InvalidParams(ParamFault::Name)
    );
    assert!(legacy("2025-11-25", &with_uri(URI_BYTES_MAX)).is_ok());
    assert_eq!(
        legacy("2025-11-25", &with_uri(URI_BYTES_MAX + 1)).unwrap_err().error,
        RequestError::InvalidParams(ParamFault::Uri)
    );
}

#[test]
fn depth_is_bounded_by_the_limit_and_by_what_rules_can_read() {
    let body = |depth: usize| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"a":{}{}}}}}"#,
            "[".repeat(depth - 2),
            "]".repeat(depth - 2)
        )
    };
    for (limit, depth, refused) in [(64, 64, false), (64, 65, true), (1000, 127, false), (1000, 128, true)] {
        let limits = ClassifyLimits { json_depth: limit, ..LIMITS };
        let outcome = classify(&HeaderMap::new(), body(depth).into(), &limits);
        assert_eq!(
            outcome.err(),
            refused.then(|| RequestError::ParseError(JsonError::TooDeep).into()),
            "{depth} of {limit}"
        );
    }
}

#[test]
fn a_version_header_that_is_not_spoken_is_refused() {
    for (values, error) in [
        (vec!["2024-11-05"], RequestError::unsupported_version("2024-11-05", &Revision::ALL)),
        (vec![""], RequestError::unsupported_version("", &Revision::ALL)),
        (vec!["2025-11-25, 2026-07-28"], RequestError::unsupported_version("2025-11-25, 2026-07-28", &Revision::ALL)),
        (vec!["2025-11-25", "2025-11-25"], invalid(EnvelopeFault::VersionHeader)),
        (vec!["2025-11-25", "2025-03-26"], invalid(EnvelopeFault::VersionHeader)),
    ] {
        let headers: Vec<_> = values.iter().map(|value| ("mcp-protocol-version", *value)).collect();
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        assert_eq!(classify(&head(&headers), body.into(), &LIMITS).unwrap_err().error, error, "{values:?}");
    }
}

#[test]
fn an_unsupported_version_is_shown_back_clean_and_short() {
    let error = RequestError::unsupported_version(&format!("<\u{1b}é>{}", "9".repeat(100)), &Revision::ALL);

    let data = error.data().unwrap();

    assert_eq!(data["requested"], format!("<??>{}", "9".repeat(60)));
    assert_eq!(data["supported"], json!(["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"]));
    assert_eq!((error.code(), error.status().as_u16(), error.label()), (-32022, 400, "unsupported_protocol_version"));
}

#[test]
fn refusals_have_the_codes_of_the_specification() {
    for (error, label, code, status) in [
        (RequestError::ParseError(JsonError::TooDeep), "parse_error", -32700, 400),
        (invalid(EnvelopeFault::BadId), "invalid_request", -32600, 400),
        (header(McpHeader::Name, HeaderProblem::Missing), "header_mismatch", -32020, 400),
        (RequestError::InvalidParams(ParamFault::Name), "invalid_params", -32602, 400),
        (RequestError::MethodNotFound { era: Era::Modern }, "method_not_found", -32601, 404),
        (RequestError::MethodNotFound { era: Era::Legacy }, "method_not_found", -32601, 200),
    ] {
        assert_eq!((error.label(), error.code(), error.status().as_u16()), (label, code, status));
        assert_eq!(error.data(), None);
    }
    assert_eq!(
        header(McpHeader::Name, HeaderProblem::Unlike).public_message(),
        "Mcp-Name header does not match the body"
    );
}

#[test]
fn a_batch_is_read_message_by_message() {
    let body = r#"[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}} ,
        {"jsonrpc":"2.0","method":"notifications/progress","params":{}},
        {"jsonrpc":"2.0","id":"1","method":"tools/list"},{"jsonrpc":"2.0","id":1,"result":{}}]"#;
    for head in [HeaderMap::new(), head(&[("mcp-protocol-version", "2025-03-26")])] {
        let request = classify(&head, Bytes::from_static(body.as_bytes()), &LIMITS).unwrap();

        assert!(request.batch);
        assert_eq!(request.revision, Revision::V2025_03_26);
        let methods: Vec<_> = request.messages.iter().map(Message::method).collect();
        assert_eq!(
            methods,
            [Some(Method::ToolsCall), Some(Method::NotificationsProgress), Some(Method::ToolsList), None]
        );
        assert_eq!(request.messages[0].target, Target::Tool("a".into()));
    }
}

#[test]
fn a_batch_that_is_not_one_is_refused() {
    use EnvelopeFault::*;
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-03-26"}}"#;
    let modern = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{{META}}}}}"#);
    for (version, body, error) in [
        ("2025-03-26", "[]".to_owned(), invalid(BatchEmpty)),
        ("2025-03-26", "[1]".to_owned(), invalid(NotAMessage)),
        ("2025-03-26", format!("[[{ping}]]"), invalid(NotAMessage)),
        ("2025-03-26", format!("[{ping},{ping}]"), invalid(DuplicateId)),
        (
            "2025-03-26",
            format!(r#"[{},{}]"#, ping.replace('1', "\"a\""), ping.replace('1', r#""\u0061""#)),
            invalid(DuplicateId),
        ),
        ("2025-03-26", format!("[{initialize}]"), invalid(InitializeInBatch)),
        ("2025-03-26", format!("[{modern}]"), invalid(BatchNotSpoken)),
        ("2025-03-26", format!("[{}]", vec![ping; 51].join(",")), invalid(BatchTooLong)),
        ("2025-06-18", format!("[{ping}]"), invalid(BatchNotSpoken)),
        ("2025-11-25", format!("[{ping}]"), invalid(BatchNotSpoken)),
        ("2026-07-28", format!("[{modern}]"), invalid(BatchNotSpoken)),
        ("2026-07-28", "[]".to_owned(), invalid(BatchNotSpoken)),
        (
            "2025-03-26",
            format!(r#"[{ping},{{"jsonrpc":"2.0","id":2,"method":"nope"}}]"#),
            RequestError::MethodNotFound { era: Era::Legacy },
        ),
        ("2025-03-26", format!("[{ping},"), RequestError::ParseError(JsonError::UnexpectedEnd)),
    ] {
        assert_eq!(legacy(version, &body), Err(error.into()), "{version} {body}");
    }
}

#[test]
fn tells_the_resources_a_listen_asks_for() {
    let listen = |filter: &str| {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{{"notifications":{filter},{META}}}}}"#
        );
        let head = head(&[("mcp-protocol-version", "2026-07-28"), ("mcp-method", "subscriptions/listen")]);
        classify(&head, body.into(), &LIMITS)
            .map_err(|unclassified| unclassified.error)
            .and_then(|request| listen_resources(&request.messages[0]))
    };
    let fault = Err(RequestError::InvalidParams(ParamFault::Subscriptions));

    assert_eq!(listen(r#"{"toolsListChanged":true}"#), Ok(vec![]));
    assert_eq!(listen(r#"{"resourceSubscriptions":["a:b","c:d"]}"#), Ok(vec!["a:b".into(), "c:d".into()]));
    for filter in [
        "[]",
        "null",
        r#"{"resourceSubscriptions":"a"}"#,
        r#"{"resourceSubscriptions":[1]}"#,
        r#"{"resourceSubscriptions":[""]}"#,
    ] {
        assert_eq!(listen(filter), fault, "{filter}");
    }
    let many = format!(r#"{{"resourceSubscriptions":[{}]}}"#, vec!["\"a:b\""; SUBSCRIPTIONS_MAX + 1].join(","));
    assert_eq!(listen(&many), fault);
    assert_eq!(
        listen_resources(&legacy("2025-11-25", r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).unwrap().messages[0]),
        Ok(vec![])
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Law: what is judged (target and arguments) is what any JSON reader finds in the body that is sent.
    #[test]
    fn what_is_judged_is_what_is_sent(name in "[^\\p{C}]{1,20}", arguments in "\\PC{0,20}", number in any::<u64>(), at in 0..6_usize) {
        let mut members = [
            format!(r#""name":{}"#, Value::from(name.clone())),
            format!(r#""arguments":{{"a":{},"n":{number}}}"#, Value::from(arguments)),
            r#""other":{"name":"x","arguments":{"name":[{}]}}"#.to_owned(),
        ];
        members.rotate_left(at % 3);
        let body = format!(r#"{{"params":{{{}}},"id":{number},"method":"tools/call","jsonrpc":"2.0"}}"#, members.join(", "));

        let request = classify(&HeaderMap::new(), body.into(), &LIMITS).unwrap();

        let sent: Value = serde_json::from_slice(&request.body).unwrap();
        let message = &request.messages[0];
        prop_assert_eq!(&message.target, &Target::Tool(name.into()));
        prop_assert_eq!(message.arguments.as_ref().unwrap().value(), &sent["params"]["arguments"]);
        prop_assert_eq!(message.params.as_ref().unwrap().value(), &sent["params"]);
        prop_assert_eq!(message.request_id().unwrap().as_json(), number.to_string());
    }

    #[test]
    fn any_bytes_are_classified_or_refused(body in "[\\[\\]{}\",:a-z0-9 ]{0,60}", version in prop::sample::select(vec!["2025-03-26", "2025-11-25", "2026-07-28", "x"])) {
        if let Ok(request) = legacy(version, &body) {
            prop_assert!(serde_json::from_slice::<Value>(&request.body).is_ok());
        }
    }
}

fn legacy(version: &str, body: &str) -> Result<McpRequest, Unclassified> {
    classify(&head(&[("mcp-protocol-version", version)]), Bytes::copy_from_slice(body.as_bytes()), &LIMITS)
}

fn head(headers: &[(&'static str, &str)]) -> HeaderMap {
    let mut head = HeaderMap::new();
    for (name, value) in headers {
        head.append(*name, HeaderValue::from_str(value).unwrap());
    }
    head
}

fn id(text: &str) -> RequestId {
    RequestId::from_json(text)
}

fn invalid(fault: EnvelopeFault) -> RequestError {
    RequestError::InvalidRequest(fault)
}

fn header(header: McpHeader, problem: HeaderProblem) -> RequestError {
    RequestError::HeaderMismatch(HeaderFault { header, problem })
}

/// So that outcomes can be compared as a whole; two requests are alike when they were read from the same bytes.
impl PartialEq for McpRequest {
    fn eq(&self, other: &Self) -> bool {
        self.revision == other.revision && self.body == other.body
    }
}
