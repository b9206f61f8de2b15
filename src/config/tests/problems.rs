//! Bad files and the exact words about them.

use super::*;

/// Replaces `from` in [`BASE`] by `to`; the report must be `says`.
struct Case(&'static str, &'static str, &'static str);

#[track_caller]
fn check(cases: &[Case]) {
    check_rows(cases.iter().map(|Case(from, to, says)| {
        assert!(BASE.contains(from), "{from:?} is not in the base");
        (BASE.replacen(from, to, 1), Fake::new(), (*says).to_owned())
    }));
}

/// Holds the report on every text against what it must say, and shows all that differ.
#[track_caller]
fn check_rows(rows: impl IntoIterator<Item = (String, Fake, String)>) {
    let differ: Vec<String> = rows
        .into_iter()
        .map(|(text, machine, says)| (read_bad(&text, &machine), says))
        .filter(|(report, says)| report != says)
        .map(|(report, says)| format!("said: {report}\nnot:  {says}\n"))
        .collect();
    assert!(differ.is_empty(), "\n{}", differ.join("\n"));
}

#[test]
fn every_problem_is_reported_at_once_in_the_order_of_the_file() {
    let text = "\
listen: [{ address: here }]
publc_url: https://mcp.test
session: { keys: [], ttl: 5 parsecs }
limits:
  json_depth: deep
  body_bytes: 2GiB
issuers:
  - name: corp
    issuer: http://idp.test
    algorithms: [none, HS256, RS257]
servers:
  - name: tickets
    credential: nothing
    instances: [{ url: ftp://a, weight: 0 }]
routes:
  - path: mcp
    servers: [tikets]
    issuers: []
";
    assert_eq!(
        read_bad(text, &Fake::new()),
        "\
1:1: public_url: is missing; add the key
1:21: listen[0].address: \"here\" is not an address; write an IP address and a port, e.g. 127.0.0.1:8080 or [::]:443
2:1: unknown key \"publc_url\"; did you mean public_url?
3:12: session.keys: is an empty list; name at least one
3:27: session.ttl: \"5 parsecs\" is not a duration; write a number with ms, s, m, h or d, e.g. 2s
5:15: limits.json_depth: must be a whole number, not a string; write a whole number from 4 to 512
6:15: limits.body_bytes: 2GiB is out of bounds; write a size from 1KiB to 1GiB
9:13: issuers[0].issuer: \"http://idp.test\" is not protected on its way; write an https URL; http is for loopback hosts, and for plain_http_hosts
10:18: issuers[0].algorithms[0]: \"none\" would accept tokens that nobody signed; write some of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA
10:24: issuers[0].algorithms[1]: HS256 is never accepted: whoever can check such a token can also make one; write some of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA
10:31: issuers[0].algorithms[2]: \"RS257\" is not known here; write one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA
13:17: servers[0].credential: \"nothing\" is not a kind of credential; write none, or a map with one of static and token_exchange
14:24: servers[0].instances[0].url: \"ftp://a\" is not an http or https URL; write one like https://host.example.com:8443/path
14:41: servers[0].instances[0].weight: 0 is out of bounds; write a whole number from 1 to 1000
16:11: routes[0].path: \"mcp\" is not absolute; start it with /
17:15: routes[0].servers[0]: there is no server \"tikets\"; did you mean tickets?
18:5: routes[0].issuers: is an empty list; name at least one"
    );
}

#[test]
fn a_report_names_the_file_before_every_problem() {
    let problems = read("listen: 1\nroutes: 2", &Fake::new(), &|_| Vec::new()).unwrap_err();
    let report = Report::new(Path::new("conf/a.yaml"), problems).to_string();
    assert_eq!(
        report.lines().last(),
        Some(
            "conf/a.yaml:2:9: routes: must be a list, not a whole number; write [a, b], or one item a line after \"- \""
        )
    );
    let whole = Report::new(Path::new("a.yaml"), read("", &Fake::new(), &|_| Vec::new()).unwrap_err());
    assert_eq!(whole.to_string(), "a.yaml: the file is empty; start from conf/minimal.yaml");
}

#[test]
fn what_is_not_one_yaml_document_is_refused() {
    let says = |text: &str| read_bad(text, &Fake::new());
    assert_eq!(says("# nothing\n"), "the file is empty; start from conf/minimal.yaml");
    assert_eq!(says("a: 1\n---\nb: 2\n"), "3:1: a second YAML document starts here; keep one document in a file");
    assert_eq!(says("a: 1\nb: 2\na: 3\n"), "3:1: this key is given twice in one map; keep one of the two");
    assert_eq!(
        says("a: [1, 2\nb\n"),
        "3:1: not valid YAML: while parsing a flow sequence, expected ',' or ']'; look at the indentation, quotes and brackets \
         around this place"
    );
    assert_eq!(
        says("tool: *\n"),
        "1:7: not valid YAML: while scanning an anchor or alias, did not find expected alphabetic or numeric character; a value \
         that starts with * or & needs quotes, e.g. \"*\""
    );
    assert_eq!(says("- a\n"), "1:1: must be a map, not a list; write { key: value }, or one \"key: value\" a line");
}

#[test]
fn wrong_types_are_named() {
    check(&[
        Case(
            "name: corp",
            "name: 5",
            "5:11: issuers[0].name: must be a string, not a whole number; put quotes around it\n14:15: routes[0].issuers[0]: there is no issuer \"corp\"; declare one under issuers",
        ),
        Case("path: /mcp", "path: [a]", "12:5: routes[0].path: must be a string, not a list; write one value here"),
        Case(
            "credential: none",
            "credential:",
            "9:15: servers[0].credential: must be a map, not empty; write { key: value }, or one \"key: value\" a line",
        ),
        Case(
            "{ address: 127.0.0.1:8080 }",
            "{ address: 127.0.0.1:8080, tls: }",
            "1:40: listen[0].tls: must be a map, not empty; write { key: value }, or one \"key: value\" a line",
        ),
        Case("public_url: https://mcp.test", "public_url: ''", "2:13: public_url: is blank; write a value"),
        Case(
            "public_url: https://mcp.test",
            "public_url: !secret x",
            "2:13: public_url: must be a string, not a tagged value; write one value here",
        ),
        Case(
            "credential: none",
            "credential: none\n    http2: 'yes'",
            "10:12: servers[0].http2: must be true or false, not a string; write one of the two without quotes",
        ),
    ]);
}

#[test]
fn unknown_keys_are_refused_wherever_they_are() {
    check(&[
        Case(
            "name: corp",
            "name: corp\n    audience: [a]",
            "6:5: issuers[0]: unknown key \"audience\"; did you mean audiences?",
        ),
        Case("address:", "adress: x, address:", "1:12: listen[0]: unknown key \"adress\"; did you mean address?"),
        Case(
            "credential: none",
            "credential: { tokenexchange: {} }",
            "9:19: servers[0].credential: unknown key \"tokenexchange\"; did you mean token_exchange?",
        ),
        Case(
            "{ file: session.key }",
            "{ fiel: session.key }",
            "3:21: session.keys[0]: unknown key \"fiel\"; did you mean file?",
        ),
        Case("session: {", "session: { colour: red,", "3:12: session: unknown key \"colour\"; known here: keys, ttl"),
        Case("session: {", "session: { [a]: red,", "3:12: session: unknown key \"[…]\"; known here: keys, ttl"),
    ]);
}

#[test]
fn an_alias_beside_the_key_it_stands_for_is_refused() {
    check(&[Case(
        "routes:\n",
        "backends: []\nroutes:\n",
        "11:1: backends: is another word for servers, which is given too; keep one of the two",
    )]);
}

#[test]
fn bounds_are_held() {
    let rows = [
        ("server: { threads: 0 }", "1:20: server.threads: 0 is out of bounds; write a whole number from 1 to 1024"),
        ("server: { threads: -1 }", "1:20: server.threads: -1 is out of bounds; write a whole number from 1 to 1024"),
        (
            "server: { threads: 1025 }",
            "1:20: server.threads: 1025 is out of bounds; write a whole number from 1 to 1024",
        ),
        (
            "audit: { queue: 16777217 }",
            "1:17: audit.queue: 16777217 is out of bounds; write a whole number from 1 to 16777216",
        ),
        ("audit: { open_after: 2h }", "1:22: audit.open_after: 2h is out of bounds; write a duration from 100ms to 1h"),
        (
            "audit: { open_after: 10 }",
            "1:22: audit.open_after: 10 has no unit; write a number with ms, s, m, h or d, e.g. 2s",
        ),
        (
            "audit: { open_after: 1.5s }",
            "1:22: audit.open_after: \"1.5s\" is not a duration; write a number with ms, s, m, h or d, e.g. 2s",
        ),
        (
            "audit: { open_after: 99999999999999999999d }",
            "1:22: audit.open_after: \"99999999999999999999d\" is not a duration; write a number with ms, s, m, h or d, e.g. 2s",
        ),
        ("audit: { on_full: drop }", "1:19: audit.on_full: \"drop\" is not known here; write one of wait, refuse"),
        ("audit: { stdout: false }", "1:1: audit: audit records would go nowhere; name a file, or write stdout: true"),
        (
            "limits: { body_bytes: 4MB }",
            "1:23: limits.body_bytes: \"4MB\" is not a size; write bytes, or a number with B, KiB, MiB or GiB, e.g. 4MiB",
        ),
        ("limits: { body_bytes: -1 }", "1:23: limits.body_bytes: 0B is out of bounds; write a size from 1KiB to 1GiB"),
        (
            "limits: { header_count: 7 }",
            "1:25: limits.header_count: 7 is out of bounds; write a whole number from 8 to 256",
        ),
        (
            "limits: { request_head_timeout: 2h }",
            "1:33: limits.request_head_timeout: 2h is out of bounds; write a duration from 100ms to 1h",
        ),
        (
            "limits: { connections: 0 }",
            "1:24: limits.connections: 0 is out of bounds; write a whole number from 1 to 16777216",
        ),
        (
            "limits: { http2_streams: 0 }",
            "1:26: limits.http2_streams: 0 is out of bounds; write a whole number from 1 to 10000",
        ),
        (
            "limits: { header_bytes: 100 }",
            "1:25: limits.header_bytes: 100B is out of bounds; write a size from 1KiB to 1MiB",
        ),
        (
            "trusted_proxies: [10.0.0.0/33]",
            "1:19: trusted_proxies[0]: \"10.0.0.0/33\" is not a network; write a CIDR range, e.g. 10.0.0.0/8",
        ),
        (
            "allowed_hosts: ['*.test']",
            "1:17: allowed_hosts[0]: \"*.test\" has a wildcard in it; name each host; a wildcard would let in hosts that others control",
        ),
        (
            "allowed_hosts: ['https://a']",
            "1:17: allowed_hosts[0]: \"https://a\" is not a host; write a host name, or host:port to accept one port only",
        ),
        ("allowed_hosts: []", "1:1: allowed_hosts: is an empty list; name at least one"),
        (
            "allowed_origins: ['https://a.test/']",
            "1:19: allowed_origins[0]: \"https://a.test/\" is not an origin; write scheme, host and, if need be, port: https://app.example.com",
        ),
        (
            "metrics: { address: 0.0.0.0:9090 }",
            "1:21: metrics.address: 0.0.0.0:9090 is reachable from other machines, without TLS and without authentication; use a loopback address, add tls, or add insecure: true if the network is closed to others",
        ),
        (
            "admin: { address: 127.0.0.1:8080 }",
            "1:19: admin.address: 127.0.0.1:8080 is taken by listen[0]; give each its own address or port",
        ),
        ("admin: { address: 127.0.0.1:0 }", "1:19: admin.address: port 0 is no port; write one from 1 to 65535"),
    ];
    check_rows(rows.map(|(section, says)| (format!("{section}\n{BASE}"), Fake::new(), says.to_owned())));
}

#[test]
fn public_urls_that_clients_could_not_compare_or_trust_are_refused() {
    let hint = "write one like https://host.example.com:8443/path";
    for (url, says) in [
        ("http://mcp.test", "is not protected on its way; write an https URL; http is for loopback hosts only"),
        ("mcp.test", &format!("is not an http or https URL; {hint}")),
        ("https://u:p@mcp.test", &format!("has user information in it; {hint}")),
        ("https://mcp.test/#x", &format!("has a fragment; {hint}")),
        ("https://mcp.test:99999", &format!("has no valid port; {hint}")),
        ("https://mcp.test?x=1", "has a query; write scheme, host and, if need be, port and path"),
        ("https://MCP.test", "has capital letters in scheme or host; write both in lower case"),
        ("https://mcp.test:443", "spells out the scheme's own port; leave the port out"),
    ] {
        let text = BASE.replacen("https://mcp.test", &format!("'{url}'"), 1);
        assert_eq!(read_bad(&text, &Fake::new()), format!("2:13: public_url: \"{url}\" {says}"));
    }
}

#[test]
fn route_paths_are_absolute_and_exact() {
    for (path, says) in [
        ("/mcp/", "ends with a slash; leave the last slash out"),
        ("/mcp?x", "has a query or fragment in it; write the path alone"),
        ("/a/../b", "has an empty, \".\" or \"..\" segment; write the path it leads to"),
        ("//mcp", "has an empty, \".\" or \"..\" segment; write the path it leads to"),
        ("/a%20b", "has a percent sign in it; use characters that need no encoding"),
        ("/mcp/*", "has a wildcard in it; a route has one exact path; write one route per path"),
        ("/.well-known/x", "is where the gateway publishes metadata; choose a path outside /.well-known/"),
        ("/a b", "has ' ' in it, which no path can contain; use letters, digits, \"-\", \"_\" and \"/\""),
    ] {
        let text = BASE.replacen("path: /mcp", &format!("path: '{path}'"), 1);
        assert_eq!(read_bad(&text, &Fake::new()), format!("12:11: routes[0].path: \"{path}\" {says}"));
    }
    read_good(&BASE.replacen("path: /mcp", "path: /", 1));
}

#[test]
fn names_paths_ids_and_addresses_are_each_different() {
    check(&[
        Case(
            "servers:\n",
            "  - { name: corp, issuer: https://b.test }\nservers:\n",
            "7:13: issuers[1].name: \"corp\" is given twice, first in line 5; each must be different",
        ),
        Case(
            "routes:\n",
            "  - { name: tickets, credential: none, instances: [{ url: http://a }] }\nroutes:\n",
            "11:13: servers[1].name: \"tickets\" is given twice, first in line 8; each must be different",
        ),
        Case(
            "issuers: [corp]\n",
            "issuers: [corp]\n  - { path: /mcp, servers: [tickets], issuers: [corp] }\n",
            "15:13: routes[1].path: \"/mcp\" is given twice, first in line 12; each must be different",
        ),
        Case(
            "{ url: http://10.0.0.1:9101 }",
            "{ url: http://a, id: x }, { url: http://b, id: x }",
            "10:64: servers[0].instances[1].id: the id \"x\" is already that of instance 0; each must be different",
        ),
        Case(
            "{ url: http://10.0.0.1:9101 }",
            "{ url: http://a, id: x }, { url: http://A:80, id: y }",
            "10:50: servers[0].instances[1].url: A:80 is already instance 0; write each address once; weight gives it a larger share",
        ),
        Case(
            "{ address: 127.0.0.1:8080 }",
            "{ address: 127.0.0.1:8080 }, { address: 127.0.0.1:8080 }",
            "1:50: listen[1].address: 127.0.0.1:8080 is taken by listen[0]; give each its own address or port",
        ),
    ]);
}

#[test]
fn a_route_has_one_server_so_far() {
    check(&[Case(
        "servers: [tickets]",
        "servers: [tickets, tickets]",
        "13:5: routes[0].servers: names several servers; name one; several servers behind one route come later",
    )]);
}

#[test]
fn servers_are_checked_in_themselves() {
    let url = "http://10.0.0.1:9101";
    check(&[
        Case(
            url,
            "http://10.0.0.1:9101/mcp",
            "10:24: servers[0].instances[0].url: \"http://10.0.0.1:9101/mcp\" has a path or query; end it after the port; the path goes into the server's path",
        ),
        Case(
            "credential: none",
            "credential: none\n    tls: { client_certificate: c }",
            "10:5: servers[0].tls.client_key: is missing; add the key\n10:32: servers[0].tls.client_certificate: \"c\" does not exist; name a file that this user can read",
        ),
        Case(
            "credential: none",
            "credential: none\n    forward_claims: { sub: Authorization }",
            "10:28: servers[0].forward_claims.sub: \"Authorization\" is a header that only HTTP, MCP or the gateway sets; use one of your own, e.g. X-User-Id",
        ),
        Case(
            "credential: none",
            "credential: none\n    forward_claims: { sub: Mcp-User }",
            "10:28: servers[0].forward_claims.sub: \"Mcp-User\" is a header that only HTTP, MCP or the gateway sets; use one of your own, e.g. X-User-Id",
        ),
        Case(
            "credential: none",
            "credential: none\n    forward_claims: { sub: X-A, email: x-a }",
            "10:40: servers[0].forward_claims.email: x-a already carries another claim; use one header for each claim",
        ),
        Case(
            "credential: none",
            "credential: none\n    forward_claims: { sub: 'X A' }",
            "10:28: servers[0].forward_claims.sub: \"X A\" is not a header name; write letters, digits and \"-\"",
        ),
        Case(
            "credential: none",
            "credential: { static: { secret: { env: STS }, header: x-key } }\n    forward_claims: { sub: X-Key }",
            "10:5: servers[0].forward_claims: x-key is the header of the static credential; use another header",
        ),
        Case(
            "credential: none",
            "credential: {}",
            "9:5: servers[0].credential: says nothing; give exactly one of static, token_exchange",
        ),
        Case(
            "credential: none",
            "credential: { token_exchange: { token_endpoint: http://sts.test, client: { id: a, auth: none, secret: { env: STS } } } }",
            "9:53: servers[0].credential.token_exchange.token_endpoint: \"http://sts.test\" is not protected on its way; write an https URL; http is for loopback hosts, and for plain_http_hosts\n9:99: servers[0].credential.token_exchange.client.secret: is not sent with auth: none; leave it out, or choose client_secret_basic",
        ),
        Case(
            "credential: none",
            "credential: { token_exchange: { token_endpoint: https://sts.test, client: { id: a } } }",
            "9:71: servers[0].credential.token_exchange.client.secret: is missing; add the key",
        ),
    ]);
}

#[test]
fn issuers_are_checked_in_themselves() {
    let issuer = "issuer: https://idp.test";
    check(&[
        Case(
            issuer,
            "issuer: https://idp.test?x",
            "6:13: issuers[0].issuer: \"https://idp.test?x\" has a query; write exactly what the issuer puts into iss",
        ),
        Case(
            issuer,
            "issuer: https://idp.test\n    algorithms: []",
            "7:5: issuers[0].algorithms: is an empty list; name at least one",
        ),
        Case(
            issuer,
            "issuer: https://idp.test\n    jwks: { url: https://a, file: b }",
            "7:5: issuers[0].jwks: says more than one thing; give exactly one of discover, file, url",
        ),
        Case(
            issuer,
            "issuer: https://idp.test\n    jwks: { discover: false }",
            "7:23: issuers[0].jwks.discover: keys must come from somewhere; write discover: true, url: URL or file: PATH",
        ),
        Case(
            issuer,
            "issuer: https://idp.test\n    jwks: { file: keys.json }",
            "7:19: issuers[0].jwks.file: \"keys.json\" does not exist; name a file that this user can read",
        ),
        Case(
            issuer,
            "issuer: https://idp.test\n    accept_id_tokens: true\n    require_at_jwt: true",
            "7:23: issuers[0].accept_id_tokens: contradicts require_at_jwt: an ID token is no at+jwt; set at most one of the two",
        ),
    ]);
}

/// An empty list in a rule would widen it to everybody or everything.
#[test]
fn rules_that_say_less_than_they_seem_to_are_refused() {
    let rows = [
        (
            "{ source: { jwt: {} } }",
            "17:23: routes[0].authorization.rules[0].source.jwt: asks for nothing; name scopes or claims, or leave source out to mean every caller",
        ),
        (
            "{ source: { jwt: { scopes: [] } } }",
            "17:30: routes[0].authorization.rules[0].source.jwt.scopes: is an empty list; name at least one",
        ),
        (
            "{ source: { jwt: { scopes: ['a b'] } } }",
            "17:39: routes[0].authorization.rules[0].source.jwt.scopes[0]: \"a b\" is not one scope; write one scope per list item, without spaces",
        ),
        (
            "{ target: {} }",
            "17:13: routes[0].authorization.rules[0].target: names nothing; name tools, prompts, resources or methods, or leave target out to mean every one",
        ),
        (
            "{ target: { tools: [] } }",
            "17:23: routes[0].authorization.rules[0].target.tools: is an empty list; name at least one",
        ),
        (
            "{ target: { tools: [{ server: tickts, tool: a }] } }",
            "17:41: routes[0].authorization.rules[0].target.tools[0].server: there is no server \"tickts\"; did you mean tickets?",
        ),
        (
            "{ target: { methods: [tool/call] } }",
            "17:33: routes[0].authorization.rules[0].target.methods[0]: \"tool/call\" is not a method; did you mean tools/call?",
        ),
        (
            "{ target: { tools: [{ tool: a, toolName: b }] } }",
            "17:52: routes[0].authorization.rules[0].target.tools[0].toolName: is another word for tool, which is given too; keep one of the two",
        ),
        (
            "{ when: 'true', cel: 'true' }",
            "17:32: routes[0].authorization.rules[0].cel: is another word for when, which is given too; keep one of the two",
        ),
        (
            "{ action: permit }",
            "17:21: routes[0].authorization.rules[0].action: \"permit\" is not known here; write one of allow, deny",
        ),
        (
            "{ source: { jwt: { claims: [{ name: n, type: number, values: ['1'] }] } } }",
            "17:73: routes[0].authorization.rules[0].source.jwt.claims[0].values[0]: must be a number, as the claim's type says; write it without quotes",
        ),
        (
            "{ source: { jwt: { claims: [{ name: n, values: [1] }] } } }",
            "17:59: routes[0].authorization.rules[0].source.jwt.claims[0].values[0]: must be a string, not a whole number; put quotes around it",
        ),
        (
            "{ name: a }\n        - { name: a }",
            "18:19: routes[0].authorization.rules[1].name: \"a\" is given twice, first in line 17; each must be different",
        ),
    ];
    check_rows(rows.map(|(rule, says)| (with_rules(&format!("\n        - {rule}\n")), Fake::new(), says.to_owned())));
}

#[test]
fn a_condition_that_does_not_compile_is_reported_where_it_stands_with_everything_else() {
    let rules = "
        - name: a
        - name: b
          target: { tools: [{ tool: x, when: 'args..' }] }
          cel: 1 +
";
    let text = with_rules(rules).replace("issuers: [corp]", "issuers: [crop]");
    let issue = |rule, path: &str, message: &str| RuleIssue { rule, path: path.into(), message: message.into() };
    let compile = |route: &RouteConfig| {
        assert_eq!(route.rules.len(), 2);
        vec![issue(1, "target.tools[0].when", "syntax error"), issue(1, "when", "early end"), issue(0, "", "odd")]
    };
    let problems = read(&text, &Fake::new(), &compile).unwrap_err();
    assert_eq!(
        shown(&problems),
        "\
14:15: routes[0].issuers[0]: there is no issuer \"crop\"; did you mean corp?
17:11: routes[0].authorization.rules[0]: odd; correct the expression, or remove it
19:46: routes[0].authorization.rules[1].target.tools[0].when: syntax error; correct the expression, or remove it
20:16: routes[0].authorization.rules[1].cel: early end; correct the expression, or remove it"
    );
}

#[test]
fn secrets_that_are_missing_sample_or_readable_by_others_are_refused() {
    let at = "3:27: session.keys[0].file:";
    let keygen = "make one with: (umask 077; portcullis keygen > FILE)";
    let key = "3:19: session.keys[0]:";
    check_rows(
        [
            (Fake::default(), format!("{at} \"session.key\" does not exist; name a file that this user can read")),
            (
                Fake::new().file("session.key", 0o640, KEY),
                format!(
                    "{at} \"session.key\" can be read or written by others (mode 0640); run: chmod 600 session.key"
                ),
            ),
            (
                Fake::new().file("session.key", 0o602, KEY),
                format!(
                    "{at} \"session.key\" can be read or written by others (mode 0602); run: chmod 600 session.key"
                ),
            ),
            (Fake::new().file("session.key", 0o600, "\n"), format!("{key} the key is empty; {keygen}")),
            (
                Fake::new().file("session.key", 0o600, "changeme"),
                format!("{key} the key is not 32 bytes in base64; {keygen}"),
            ),
            (
                Fake::new().file("session.key", 0o600, "AAAA"),
                format!("{key} the key is not 32 bytes in base64; {keygen}"),
            ),
            (
                Fake::new().file("session.key", 0o600, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
                format!("{key} the key is a sample: its bytes are not random; {keygen}"),
            ),
            (
                Fake::new().file("session.key", 0o600, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
                format!("{key} the key is a sample: its bytes are not random; {keygen}"),
            ),
            (
                // "changemechangemechangemechangeme"
                Fake::new().file("session.key", 0o600, "Y2hhbmdlbWVjaGFuZ2VtZWNoYW5nZW1lY2hhbmdlbWU="),
                format!("{key} the key is a sample: its bytes are not random; {keygen}"),
            ),
        ]
        .map(|(machine, says)| (BASE.to_owned(), machine, says)),
    );
}

#[test]
fn the_same_key_twice_is_refused() {
    check(&[Case(
        "[{ file: session.key }]",
        "[{ file: session.key }, { file: session.key }]",
        "3:12: session.keys: holds the same key twice; keep one, or add the old key after the current one",
    )]);
}

#[test]
fn client_secrets_are_refused_without_being_shown() {
    let text =
        |secret: &str| BASE.replace("credential: none", &format!("credential: {{ static: {{ secret: {secret} }} }}"));
    let at = "9:37: servers[0].credential.static.secret:";
    let machine = Fake::new().env("SAMPLE", "Change-Me!").env("LINES", "a\nb").env("BLANK", " ");
    let rows = [
        ("hunter2", format!("{at} must be a map, not the secret itself; keep secrets out of this file: write {{ file: PATH }}, {{ env: NAME }} or {{ credential: NAME }}")),
        ("{ env: NOT_SET }", "9:44: servers[0].credential.static.secret.env: the environment has no \"NOT_SET\"; set it in the unit or shell that starts this".to_owned()),
        ("{ credential: ../../etc/passwd }", "9:51: servers[0].credential.static.secret.credential: \"../../etc/passwd\" is not a credential's name; write the name given to LoadCredential=".to_owned()),
        ("{ env: SAMPLE }", "9:29: servers[0].credential.static.secret: the secret is a sample value that everybody knows; ask the issuer of the secret for a real one".to_owned()),
        ("{ env: LINES }", "9:29: servers[0].credential.static.secret: the secret is not one line of text; write it without line breaks and control characters".to_owned()),
        ("{ env: BLANK }", "9:29: servers[0].credential.static.secret: the secret is empty; put the secret there".to_owned()),
        ("{ env: A, file: b }", "9:29: servers[0].credential.static.secret: says more than one thing; give exactly one of file, env, credential".to_owned()),
    ];
    check_rows(rows.map(|(secret, says)| (text(secret), machine.clone(), says)));
}

#[test]
fn keys_of_certificates_are_kept_as_secrets_are() {
    let (certificate, private_key) = certificate_and_key();
    let machine = Fake::new().file("cert.pem", 0o644, &certificate).file("key.pem", 0o644, &private_key);
    let text = with_listener_tls("certificate: cert.pem, private_key: key.pem");
    assert_eq!(
        read_bad(&text, &machine),
        "1:80: listen[0].tls.private_key: \"key.pem\" can be read or written by others (mode 0644); run: chmod 600 key.pem"
    );
    let machine = machine.file("key.pem", 0o400, &private_key);
    assert!(read(&text, &machine, &|_| Vec::new()).is_ok());
}

#[test]
fn certificates_that_cannot_be_used_are_found_before_the_start() {
    let (certificate, private_key) = certificate_and_key();
    let (_, other_key) = certificate_and_key();
    let machine = Fake::new()
        .file("cert.pem", 0o644, &certificate)
        .file("key.pem", 0o600, &private_key)
        .file("other.key", 0o600, &other_key)
        .file("text", 0o600, "hello");
    const PEM: &str = "write it in PEM: lines between BEGIN and END";
    const PAIR: &str = "put the certificate that belongs to the key first, and its issuers after it";
    for (tls, says) in [
        (
            "certificate: text, private_key: key.pem",
            format!("1:57: listen[0].tls.certificate: \"text\" has no certificate in it; {PEM}"),
        ),
        (
            "certificate: cert.pem, private_key: text",
            format!("1:80: listen[0].tls.private_key: \"text\" has no private key in it; {PEM}"),
        ),
        (
            "certificate: key.pem, private_key: key.pem",
            format!("1:57: listen[0].tls.certificate: \"key.pem\" has no certificate in it; {PEM}"),
        ),
        (
            "certificate: cert.pem, private_key: other.key",
            format!(
                "1:80: listen[0].tls.private_key: \"other.key\" is not the key of the first certificate in \"cert.pem\"; {PAIR}"
            ),
        ),
        (
            "certificate: cert.pem, private_key: key.pem, client_ca: text",
            format!("1:100: listen[0].tls.client_ca: \"text\" has no certificate in it; {PEM}"),
        ),
    ] {
        assert_eq!(read_bad(&with_listener_tls(tls), &machine), says, "{tls}");
    }
}

/// Pingora holds the certificate of `my_host.test` against `my-host.test`, which may be somebody else's.
#[test]
fn https_instances_are_verified_by_the_name_that_was_written() {
    let instance = |url: &str, more: &str| {
        BASE.replace("http://10.0.0.1:9101", url).replace("credential: none", &format!("credential: none{more}"))
    };
    let text = instance("https://my_host.test", "");
    assert!(read_bad(&text, &Fake::new()).contains("].url: no certificate names a host with an underscore; "));
    let text = instance("https://my_host.test", "\n    tls: { server_name: my-host.test }");
    assert!(read(&text, &Fake::new(), &|_| Vec::new()).is_ok());
    let text = instance("https://my_host.test", "\n    tls: { server_name: my_host.test }");
    assert!(read_bad(&text, &Fake::new()).contains("tls.server_name: \"my_host.test\" is not a host name; "));
}

fn with_listener_tls(tls: &str) -> String {
    BASE.replace("127.0.0.1:8080 }", &format!("127.0.0.1:8080, tls: {{ {tls} }} }}"))
}

/// [`BASE`] with a section `agents` after its issuers, a key `agents` on its route, and one more key of its server.
fn with_agents(agents: &str, of_route: &str, of_server: &str) -> String {
    let base = BASE.replacen("servers:\n", &format!("agents:\n{agents}servers:\n"), 1);
    let base = base.replacen("    credential: none\n", &format!("    credential: none\n{of_server}"), 1);
    format!("{base}{of_route}")
}

#[test]
fn what_is_wrong_about_agents_is_said() {
    const GOOD: &str = "  issuers: [{ issuer: corp }]\n";
    let rows = [
        ("  max_chain: 4\n", "", "", "7:1: agents: believes nobody; name issuers, access_tokens, or both"),
        (
            "  issuers: [{ issuer: crop }]\n",
            "",
            "",
            "8:23: agents.issuers[0].issuer: there is no issuer \"crop\"; did you mean corp?",
        ),
        (
            "  issuers: [{ issuer: corp }, { issuer: corp }]\n",
            "",
            "",
            "8:41: agents.issuers[1].issuer: \"corp\" is given twice, first in line 8; each must be different",
        ),
        (
            "  issuers: [{ issuer: corp, delegators: [nobody] }]\n",
            "",
            "",
            "8:42: agents.issuers[0].delegators[0]: there is no issuer \"nobody\"; known: corp",
        ),
        (
            "  issuers: [{ issuer: corp, delegation_chain: liu }]\n",
            "",
            "",
            "8:47: agents.issuers[0].delegation_chain: \"liu\" is not known here; write one of oidc_a, ignore",
        ),
        (
            "  access_tokens: [{ issuer: corp, claims: [scope] }]\n",
            "",
            "",
            "8:44: agents.access_tokens[0].claims[0]: \"scope\" is not known here; write one of oidc_a, act, entra",
        ),
        (
            "  issuers: [{ issuer: corp }]\n  header: Authorization\n",
            "",
            "",
            "9:11: agents.header: \"Authorization\" is a header that only HTTP, MCP or the gateway sets; use one of your own, \
             e.g. X-User-Id",
        ),
        (
            "  issuers: [{ issuer: corp }]\n  max_chain: 17\n  scope_subset: prefix\n",
            "",
            "",
            "9:14: agents.max_chain: 17 is out of bounds; write a whole number from 1 to 16\n\
             10:17: agents.scope_subset: \"prefix\" is not known here; write one of exact, hierarchical",
        ),
        (
            "  issuers: [{ issuer: corp }]\n  attestation: [{ issuer: corp, max_age: 1ms, nonce: once }]\n",
            "",
            "",
            "9:42: agents.attestation[0].max_age: 1ms is out of bounds; write a duration from 1s to 30d\n\
             9:54: agents.attestation[0].nonce: \"once\" is not known here; write one of required, optional",
        ),
        (
            GOOD,
            "    agents: always\n",
            "",
            "17:13: routes[0].agents: \"always\" is not known here; write one of optional, required",
        ),
        (
            GOOD,
            "    authorization: { rules: [{ source: { agent: {} } }] }\n",
            "",
            "17:42: routes[0].authorization.rules[0].source.agent: no agent is looked for on this route; write agents: \
             optional or required on the route",
        ),
        (
            GOOD,
            "    agents: optional\n    authorization: { rules: [{ source: { agent: { kinds: [a] } } }] }\n",
            "",
            "18:51: routes[0].authorization.rules[0].source.agent: unknown key \"kinds\"; known here: types, providers, \
             models, trust_levels, capabilities, instances",
        ),
        (
            GOOD,
            "",
            "    identity: { issuer: corp, url: http://10.0.0.1/token }\n",
            "12:36: servers[0].identity.url: \"http://10.0.0.1/token\" is not protected on its way; write an https URL; \
             http is for loopback hosts, and for plain_http_hosts",
        ),
    ];
    check_rows(
        rows.map(|(agents, route, server, says)| (with_agents(agents, route, server), Fake::new(), says.into())),
    );
}

#[test]
fn nobody_can_ask_for_agents_where_nobody_is_believed_about_them() {
    let exchange = "credential: { token_exchange: { token_endpoint: https://sts.test/t, client: { id: g, auth: none }, \
                    actor_token: { from: agent } } }";
    let text = BASE.replacen("credential: none", exchange, 1) + "    agents: optional\n";
    assert_eq!(
        read_bad(&text, &Fake::new()),
        "9:104: servers[0].credential.token_exchange.actor_token: nobody is believed about agents; write a section agents, \
         beside issuers\n\
         15:13: routes[0].agents: nobody is believed about agents; write a section agents, beside issuers"
    );
}

#[test]
fn a_store_needs_a_place() {
    let text = format!("{BASE}store: {{ poll: 1s }}\n");
    assert_eq!(read_bad(&text, &Fake::new()), "15:1: store: says nothing; give exactly one of sqlite, postgres");
}
