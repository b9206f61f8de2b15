//! `redact` and `drop`.

use super::*;

#[test]
fn a_secret_in_the_text_of_a_result_does_not_pass_in_any_revision() {
    let world = world(redacting());
    answers(&world, text("write to alice@example.com, card 4111 1111 1111 1111"));
    let expected = "write to [redacted:email], card [redacted:card]";
    for revision in REVISIONS {
        let result = match revision {
            "2026-07-28" => read(&world).result(),
            legacy => world.reader().initialize(legacy).call("read", json!({})).result(),
        };
        assert_eq!(result["content"][0]["text"], expected, "{revision}");
    }
}

#[test]
fn a_secret_does_not_pass_to_a_client_that_speaks_http_2() {
    let world = world(redacting());
    answers(&world, text("write to alice@example.com"));
    let client = world.reader().h2c();
    assert_eq!(client.call("read", json!({})).result()["content"][0]["text"], "write to [redacted:email]");
    world.tickets.on_tool("read", |seen| {
        let message = message_with_result(seen, text("4111 1111 1111 1111"));
        Reply::sse(format!("data: {}\n\ndata: {message}\n\n", progress("of alice@example.com")))
    });
    let answer = client.call("read", json!({}));
    assert_eq!(answer.result()["content"][0]["text"], "[redacted:card]");
    assert!(answer.0.text().contains("of [redacted:email]"), "{}", answer.0);
}

#[test]
fn a_secret_in_the_text_of_a_streamed_result_does_not_pass() {
    let world = world(redacting());
    world.tickets.on_tool("read", |seen| {
        let message = message_with_result(seen, text("alice@example.com"));
        Reply::sse(format!(": hello\n\nid: 7\nevent: message\ndata: {message}\n\n"))
    });
    let answer = read(&world);
    assert_eq!(answer.result()["content"][0]["text"], "[redacted:email]");
    assert!(answer.0.text().starts_with(": hello\n\nid: 7\nevent: message\ndata: {"), "{}", answer.0);
}

/// A reader sees what a string stands for, not how it is written.
#[test]
fn a_secret_behind_escapes_does_not_pass() {
    let world = world(redacting());
    answers_exactly(
        &world,
        r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"\u0061lice\u0040exampl\u0065.com and 4111\u00201111 1111 1111"}],"resultType":"complete"}}"#,
    );
    assert_eq!(read(&world).result()["content"][0]["text"], "[redacted:email] and [redacted:card]");
}

/// Text that is JSON is read by programs that undo its escapes, too.
#[test]
fn a_secret_behind_the_escapes_of_json_in_text_does_not_pass() {
    let world = world(redacting());
    answers(&world, text(r#"{"mail":"\u0061lice\u0040example.com","n":1}"#));
    assert_eq!(read(&world).result()["content"][0]["text"], r#"{"mail":"[redacted:email]","n":1}"#);
}

#[test]
fn a_secret_in_structured_content_does_not_pass_as_value_key_or_number() {
    let world = world(redacting());
    let data = json!({ "user": { "mail": "alice@example.com" }, "by": { "bob@example.com": 1 }, "pan": 4_111_111_111_111_111_u64 });
    answers(&world, json!({ "content": [], "structuredContent": data }));
    let found = read(&world).result()["structuredContent"].clone();
    assert_eq!(found, json!({ "user": { "mail": "[redacted:email]" }, "by": { "[redacted:email]": 1 }, "pan": 0 }));
}

/// An object with a key twice is read differently by different readers, and refused by strict ones.
#[test]
fn redacted_keys_do_not_become_the_same() {
    let world = world(redacting());
    let data = json!({
        "a@example.com": 1, "b@example.com": 2, "[redacted:email] (2)": 3, "c@example.com": { "d@example.com": 4 },
    });
    answers(&world, json!({ "content": [{ "type": "text", "text": data.to_string() }], "structuredContent": data }));
    let answer = read(&world);
    let expected = json!({
        "[redacted:email]": 1, "[redacted:email] (2)": 3, "[redacted:email] (3)": 2,
        "[redacted:email] (4)": { "[redacted:email]": 4 },
    });
    let found = answer.result();
    assert_eq!(found["structuredContent"], expected, "{}", answer.0);
    assert_eq!(serde_json::from_str::<Value>(found["content"][0]["text"].as_str().unwrap()).unwrap(), expected);
    assert_eq!(done(&world, 1), json!([{ "rule": "pii", "action": "redacted", "count": 8 }]));
}

/// Clients check structured content against `outputSchema`, where a string in the place of a number fails. Text is for a reader, to
/// whom a zero would be a number like any other.
#[test]
fn a_number_that_is_a_secret_stays_a_number_in_structured_content_and_says_what_it_was_in_text() {
    let world = world(redacting());
    let data =
        json!({ "pan": 4_111_111_111_111_111_u64, "ids": [-4_111_111_111_111_111_i64, 4_111_111_111_111_112_u64] });
    answers(&world, json!({ "content": [{ "type": "text", "text": data.to_string() }], "structuredContent": data }));
    let found = read(&world).result();
    assert_eq!(found["structuredContent"], json!({ "pan": 0, "ids": [0, 4_111_111_111_111_112_u64] }));
    let text: Value = serde_json::from_str(found["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(text["pan"], "[redacted:card]");
}

#[test]
fn a_secret_in_resource_text_does_not_pass() {
    let world = World::with(|conf| conf.allow_all().of_server("content", redacting()));
    world.tickets.on("resources/read", |seen| {
        Reply::result(seen, json!({ "contents": [{ "uri": "file:///a", "text": "alice@example.com" }] }))
    });
    let found = world.reader().request("resources/read", json!({ "uri": "file:///a" })).result();
    assert_eq!(found["contents"][0]["text"], "[redacted:email]");
    answers(
        &world,
        json!({ "content": [{ "type": "resource", "resource": { "uri": "file:///a", "text": "alice@example.com" } }] }),
    );
    assert_eq!(read(&world).result()["content"][0]["resource"]["text"], "[redacted:email]");
}

#[test]
fn a_secret_in_a_prompt_does_not_pass() {
    let world = World::with(|conf| conf.allow_all().of_server("content", redacting()));
    world.tickets.on("prompts/get", |seen| {
        let content = json!({ "type": "text", "text": "ask alice@example.com" });
        Reply::result(seen, json!({ "messages": [{ "role": "user", "content": content }] }))
    });
    let found = world.reader().request("prompts/get", json!({ "name": "p" })).result();
    assert_eq!(found["messages"][0]["content"]["text"], "ask [redacted:email]");
}

#[test]
fn a_secret_in_an_error_does_not_pass() {
    let world = world(redacting());
    world.tickets.on_tool("read", |seen| {
        let error =
            json!({ "code": -32000, "message": "no row for alice@example.com", "data": { "q": ["bob@example.com"] } });
        Reply::json(200, &json!({ "jsonrpc": "2.0", "id": seen.message["id"], "error": error }))
    });
    let error = read(&world).json()["error"].clone();
    let expected =
        json!({ "code": -32000, "message": "no row for [redacted:email]", "data": { "q": ["[redacted:email]"] } });
    assert_eq!(error, expected);
}

/// An answer of status 4xx is read like any other.
#[test]
fn a_secret_in_an_error_with_a_status_of_its_own_does_not_pass() {
    let world = world(redacting());
    world.tickets.on_tool("read", |seen| {
        let error = json!({ "code": -32602, "message": "alice@example.com?" });
        Reply::json(400, &json!({ "jsonrpc": "2.0", "id": seen.message["id"], "error": error }))
    });
    let answer = read(&world);
    assert_eq!((answer.status(), &answer.json()["error"]["message"]), (400, &json!("[redacted:email]?")));
}

#[test]
fn a_secret_split_over_the_items_of_one_answer_does_not_pass() {
    let world = world(redacting());
    let token = token();
    let (begin, end) = token.split_at(20);
    let items = json!([
        { "type": "text", "text": format!("the token is {begin}") },
        { "type": "text", "text": format!("{end}, keep it") },
    ]);
    answers(&world, json!({ "content": items }));
    let found = read(&world).result();
    assert_eq!(found["content"][0]["text"], "the token is [redacted:github_token]");
    assert_eq!(found["content"][1]["text"], ", keep it");
}

#[test]
fn a_secret_in_three_pieces_does_not_pass() {
    let world = world(redacting());
    let items = ["4111 11", "11 1111", " 1111 thanks"].map(|part| json!({ "type": "text", "text": part }));
    answers(&world, json!({ "content": items }));
    let found = read(&world).result();
    let texts: Vec<_> = found["content"].as_array().unwrap().iter().map(|item| item["text"].clone()).collect();
    assert_eq!(texts, [json!("[redacted:card]"), json!(""), json!(" thanks")]);
}

#[test]
fn base64_of_images_is_not_text_and_what_only_claims_to_be_base64_is() {
    let world = world(redacting());
    let image = token();
    answers(
        &world,
        json!({ "content": [
            { "type": "image", "mimeType": "image/png", "data": image },
            { "type": "image", "mimeType": "image/png", "data": "alice@example.com" },
            { "type": "resource", "resource": { "uri": "file:///a", "blob": image } },
        ] }),
    );
    let found = read(&world).result();
    assert_eq!(found["content"][0]["data"], image);
    assert_eq!(found["content"][1]["data"], "[redacted:email]");
    assert_eq!(found["content"][2]["resource"]["blob"], image);
}

#[test]
fn a_shape_of_the_operators_own_a_mask_and_a_keyed_hash_replace_what_they_find() {
    let rules = json!([
        { "name": "tickets", "redact": { "patterns": [{ "name": "ticket", "regex": r"\bT-\d{6}\b" }], "replace": "<{kind}>" } },
        { "name": "cards", "redact": { "detect": ["card"], "mask": { "keep_last": 4 } } },
        { "name": "mails", "redact": { "detect": ["email"], "hash": { "secret": { "file": "DIR/hash.key" } } } },
    ]);
    let key = "Vd5QmWYWx1P0rVqz8dG3C3ZJbXnqL2uT6yKfE4oHsAk=";
    let world = World::with(|conf| conf.file("hash.key", key, 0o600).of_server("content", rules));
    answers(&world, text("T-123456 4111-1111-1111-1111 a@example.com b@example.com a@example.com"));
    let found = read(&world).result()["content"][0]["text"].as_str().unwrap().to_owned();
    let words: Vec<&str> = found.split(' ').collect();
    assert_eq!(&words[..2], ["<ticket>", "****-****-****-1111"]);
    assert!(words[2].starts_with("[email:") && words[2].len() == 24, "{found}");
    assert_eq!(words[2], words[4]);
    assert_ne!(words[2], words[3]);
}

#[test]
fn places_that_a_rule_does_not_name_pass_as_they_are() {
    let world = world(json!([{ "name": "pii", "redact": { "detect": ["email"], "in": ["structured"] } }]));
    let mail = "alice@example.com";
    answers(&world, json!({ "content": [{ "type": "text", "text": mail }], "structuredContent": { "m": mail } }));
    let found = read(&world).result();
    assert_eq!(
        (&found["content"][0]["text"], &found["structuredContent"]["m"]),
        (&json!(mail), &json!("[redacted:email]"))
    );
}

#[test]
fn nobody_without_the_scope_sees_what_the_rule_hides() {
    let rules = json!([{ "name": "pii", "unless": r#""pii:read" in scopes"#, "redact": { "detect": ["email"] } }]);
    let world = world(rules);
    answers(&world, text("alice@example.com"));
    assert_eq!(read(&world).result()["content"][0]["text"], "[redacted:email]");
    let trusted = world.gateway.caller(world.idp.token().scope("tickets:read pii:read"));
    assert_eq!(trusted.call("read", json!({})).result()["content"][0]["text"], "alice@example.com");
}

#[test]
fn a_rule_about_one_tool_leaves_others_alone() {
    let world = World::with(|conf| {
        let rules = json!([{ "name": "pii", "tools": ["re*"], "redact": { "detect": ["email"] } }]);
        conf.allow_all().of_server("content", rules)
    });
    for tool in ["read", "close"] {
        world.tickets.on_tool(tool, |seen| Reply::result(seen, text("alice@example.com")));
    }
    assert_eq!(read(&world).result()["content"][0]["text"], "[redacted:email]");
    let other = world.reader().call("close", json!({})).result();
    assert_eq!(other["content"][0]["text"], "alice@example.com");
}

#[test]
fn the_rules_of_server_and_route_both_apply() {
    let world = World::with(|conf| {
        conf.of_server("content", json!([{ "name": "mails", "redact": { "detect": ["email"] } }]))
            .of_route("content", json!([{ "name": "cards", "redact": { "detect": ["card"] } }]))
    });
    answers(&world, text("alice@example.com 4111111111111111"));
    assert_eq!(read(&world).result()["content"][0]["text"], "[redacted:email] [redacted:card]");
    assert_eq!(
        done(&world, 1),
        json!([
            { "rule": "mails", "action": "redacted", "count": 1 },
            { "rule": "cards", "action": "redacted", "count": 1 },
        ])
    );
}

#[test]
fn dropped_members_are_gone_from_structured_content_and_from_the_text_that_repeats_it() {
    let world = world(json!([{ "name": "pay", "drop": ["/employees/*/salary", "/secret"] }]));
    let data = json!({ "secret": 1, "employees": [{ "name": "a", "salary": 10 }, { "salary": 20, "name": "b" }, { "salary": 30 }] });
    let repeated = serde_json::to_string_pretty(&data).unwrap();
    answers(&world, json!({ "content": [{ "type": "text", "text": repeated }], "structuredContent": data }));
    let found = read(&world).result();
    let expected = json!({ "employees": [{ "name": "a" }, { "name": "b" }, {}] });
    assert_eq!(found["structuredContent"], expected);
    let text: Value = serde_json::from_str(found["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(text, expected);
    assert_eq!(done(&world, 1), json!([{ "rule": "pay", "action": "dropped", "count": 8 }]));
}

/// FastMCP wraps what is no object, and repeats it without the wrapper.
#[test]
fn dropped_members_are_gone_from_text_that_repeats_wrapped_content_element_by_element() {
    let world = world(json!([{ "name": "pay", "drop": ["/result/*/salary"] }]));
    let texts =
        [10, 20].map(|salary| json!({ "type": "text", "text": json!({ "name": "a", "salary": salary }).to_string() }));
    let data = json!({ "result": [{ "name": "a", "salary": 10 }, { "name": "a", "salary": 20 }] });
    answers(&world, json!({ "content": texts, "structuredContent": data }));
    assert!(!read(&world).0.text().contains("salary"));
}

/// Whoever reads the first of two equal keys sees another value than whoever reads the last.
#[test]
fn text_that_hides_a_dropped_member_behind_a_second_reading_does_not_pass() {
    let world = world(json!([{ "name": "pay", "drop": ["/salary"] }]));
    answers(&world, json!({ "content": [{ "type": "text", "text": r#"{"salary":1,"salary":2}"# }] }));
    let error = read(&world).json()["error"].clone();
    assert_eq!(error["data"]["reason"], "upstream_protocol", "{error}");
}

#[test]
fn an_answer_in_which_nothing_is_found_passes_byte_for_byte() {
    let all = [
        "email",
        "phone",
        "card",
        "iban",
        "us_ssn",
        "ip",
        "jwt",
        "private_key",
        "aws_key",
        "github_token",
        "slack_token",
        "google_key",
    ];
    let world = world(json!([
        { "redact": { "detect": all } },
        { "drop": ["/nothing/*/there"] },
        { "limit": { "result_bytes": "1MiB", "items": 100, "media": ["image/*"] } },
        { "guard": { "action": "block" } },
    ]));
    let odd = "{ \"jsonrpc\" :\"2.0\",\n\t\"id\": ID , \"result\":{\"b\":1.0e2,\"a\":\"\\u0061\\/\\ud83e\\udd80\",\"content\":[ {\"text\":\"caf\\u00e9 \u{e9} ok\" ,\"type\":\"text\"} ],\"resultType\":\"complete\"} }  ";
    answers_exactly(&world, odd);
    let request = world.reader().modern_post(&modern_message(77, "tools/call", json!({ "name": "read" })));
    let answer = world.reader().send(&request);
    assert_eq!(answer.0.text(), odd.replace("ID", "77"));

    let stream = ": hi\n\nid: 1\r\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\r\ndata: \"params\":{\"message\":\"step 1 \\u0061\",\"progress\":1}}\r\n\r\nevent: ping\ndata: 12\n\ndata: {\"jsonrpc\": \"2.0\",\"id\":78,\"result\":{ \"content\":[]}}\n\n";
    world.tickets.on_tool("read", move |_seen| Reply::sse(stream));
    let request = world.reader().modern_post(&modern_message(78, "tools/call", json!({ "name": "read" })));
    assert_eq!(world.reader().send(&request).0.text(), stream);
    assert_eq!(done(&world, 2), Value::Null);
}

/// Only strings that change are written anew.
#[test]
fn around_what_is_replaced_every_byte_stays() {
    let world = world(redacting());
    answers_exactly(
        &world,
        "{\"jsonrpc\":\"2.0\", \"id\":ID,\"result\":{\"x\":1.0e2,\"content\":[{\"text\":\"a@example.com\",\"type\":\"t\\u0065xt\"}]}}",
    );
    let request = world.reader().modern_post(&modern_message(5, "tools/call", json!({ "name": "read" })));
    let expected = "{\"jsonrpc\":\"2.0\", \"id\":5,\"result\":{\"x\":1.0e2,\"content\":[{\"text\":\"[redacted:email]\",\"type\":\"t\\u0065xt\"}]}}";
    assert_eq!(world.reader().send(&request).0.text(), expected);
}

#[test]
fn audit_and_metrics_say_what_was_done_and_never_what_was_found() {
    let world = world(redacting());
    answers(&world, text("alice@example.com and bob@example.com"));
    read(&world);
    assert_eq!(done(&world, 1), json!([{ "rule": "pii", "action": "redacted", "count": 2 }]));
    let record = world.gateway.audit(1)[0].to_string();
    assert!(!record.contains("alice@") && !record.contains("bob@"), "{record}");
    let labels = [r#"route="/mcp""#, r#"rule="pii""#, r#"action="redacted""#];
    assert_eq!(world.gateway.metric("portcullis_content_filtered_total", &labels), 2.0);
}

/// What is not written in UTF-8, or is packed, cannot be looked through.
#[test]
fn an_answer_that_cannot_be_read_is_refused() {
    let world = world(redacting());
    world.tickets.on_tool("read", |seen| {
        let message = message_with_result(seen, text("alice@example.com")).to_string();
        Reply::text(200, "application/json; charset=utf-16", message)
    });
    read(&world).assert_refused(502, "upstream_protocol");
    world.tickets.on_tool("read", |seen| {
        Reply::json(200, &message_with_result(seen, text("x"))).with("content-encoding", "gzip")
    });
    read(&world).assert_refused(502, "upstream_protocol");
}

/// A member that stands twice is read by one client as this and by another as that.
#[test]
fn an_answer_with_two_readings_does_not_pass() {
    let world = world(redacting());
    answers_exactly(
        &world,
        r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[]},"result":{"content":["alice@example.com"]}}"#,
    );
    let answer = read(&world);
    assert!(!answer.0.text().contains("alice"), "{}", answer.0);
    assert_eq!(answer.json()["error"]["data"]["reason"], "upstream_protocol", "{}", answer.0);
}
