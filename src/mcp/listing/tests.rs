use proptest::prelude::*;
use serde_json::Value;
use serde_json::json;

use super::*;

#[test]
fn hidden_items_are_cut_and_all_else_stays_byte_for_byte() {
    for (shown, tools, filtered) in [
        ("abc", r#"[ {"name":"a"} , {"name":"b"},{"name":"c"} ]"#, None),
        ("bc", r#"[ {"name":"a"} , {"name":"b"},{"name":"c"} ]"#, Some(r#"[ {"name":"b"},{"name":"c"} ]"#)),
        ("ac", r#"[ {"name":"a"} , {"name":"b"},{"name":"c"} ]"#, Some(r#"[ {"name":"a"},{"name":"c"} ]"#)),
        ("ab", r#"[ {"name":"a"} , {"name":"b"},{"name":"c"} ]"#, Some(r#"[ {"name":"a"} , {"name":"b"} ]"#)),
        ("a", r#"[{"name":"a"},{"name":"b"},{"name":"c"}]"#, Some(r#"[{"name":"a"}]"#)),
        ("c", r#"[{"name":"a"},{"name":"b"},{"name":"c"}]"#, Some(r#"[{"name":"c"}]"#)),
        ("", r#"[{"name":"a"},{"name":"b"},{"name":"c"}]"#, Some("[]")),
        ("", "[ ]", None),
    ] {
        let answer = |tools: &str| {
            format!(
                "{{\"jsonrpc\":\"2.0\", \"id\":1,\"result\":{{\"x\":1.00,\"tools\":{tools},\"nextCursor\":\"\\u0041\"}} }}\n"
            )
        };
        let expected = filtered.map_or(Filtered::Unchanged, |tools| Filtered::Changed(answer(tools).into_bytes()));

        assert_eq!(filter(Method::ToolsList, Era::Legacy, &answer(tools), shown), Ok(expected), "{shown} of {tools}");
    }
}

#[test]
fn each_kind_of_list_is_filtered_by_its_own_name() {
    for (method, key, item) in [
        (Method::ToolsList, "tools", "name"),
        (Method::PromptsList, "prompts", "name"),
        (Method::ResourcesList, "resources", "uri"),
        (Method::ResourcesTemplatesList, "resourceTemplates", "uriTemplate"),
    ] {
        let answer = json!({ "id": 1, "result": { key: [{ item: "a", "title": "b" }, { item: "b", "title": "a" }] } });
        let expected = json!({ "id": 1, "result": { key: [{ item: "a", "title": "b" }] } });

        let filtered = filter(method, Era::Legacy, &answer.to_string(), "a");

        assert_eq!(filtered, Ok(Filtered::Changed(expected.to_string().into_bytes())), "{method}");
    }
}

#[test]
fn items_that_cannot_be_named_are_hidden_unasked() {
    let answer = r#"{"id":1,"result":{"tools":[1,"a",null,[],{},{"name":1},{"Name":"a"},{"name":"a","NAME":"a"},{"n\u0061me":"a"},{"title":"a"}]}}"#;
    let expected = r#"{"id":1,"result":{"tools":[{"n\u0061me":"a"}]}}"#;
    assert_eq!(
        filter(Method::ToolsList, Era::Legacy, answer, "a"),
        Ok(Filtered::Changed(expected.as_bytes().to_vec()))
    );
}

#[test]
fn a_modern_list_is_marked_private() {
    for (result, marked) in [
        (r#"{"tools":[]}"#, Some(r#"{"cacheScope":"private","tools":[]}"#)),
        ("{ }", Some(r#"{"cacheScope":"private" }"#)),
        (r#"{"cacheScope": "public" ,"tools":[]}"#, Some(r#"{"cacheScope": "private" ,"tools":[]}"#)),
        (r#"{"tools":[],"cacheScope":null}"#, Some(r#"{"tools":[],"cacheScope":"private"}"#)),
        (
            r#"{"tools":[{"name":"z"}],"ttlMs":5,"cacheScope":"public"}"#,
            Some(r#"{"tools":[],"ttlMs":5,"cacheScope":"private"}"#),
        ),
        (r#"{"cacheScope":"public","tools":[{"name":"z"}]}"#, Some(r#"{"cacheScope":"private","tools":[]}"#)),
        (
            r#"{"resultType":"complete","tools":[]}"#,
            Some(r#"{"cacheScope":"private","resultType":"complete","tools":[]}"#),
        ),
        (r#"{"tools":[],"cacheScope":"private"}"#, None),
        (r#"{"tools":[],"cacheScope":"priv\u0061te"}"#, None),
        (r#"{"resultType":"input_required"}"#, None),
    ] {
        let answer = |result: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
        let expected = marked.map_or(Filtered::Unchanged, |marked| Filtered::Changed(answer(marked).into_bytes()));

        assert_eq!(filter(Method::ToolsList, Era::Modern, &answer(result), ""), Ok(expected), "{result}");
    }
}

#[test]
fn what_is_no_answer_to_a_list_passes() {
    for answer in [
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"tools","data":{"tools":[{"name":"z"}]}}}"#,
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"x"}}"#,
        r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"x"}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"tools":[{"name":"z"}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#,
        r#"{"jsonrpc":"2.0","id":"call","result":{"tools":[{"name":"z"}]}}"#,
        "[]",
    ] {
        let asked = [(id("1"), Method::ToolsList), (id("\"call\""), Method::ToolsCall)];
        let filtered = filter_answer(Asked::These(&asked), Era::Legacy, answer.as_bytes(), &mut |_, _| false);
        assert_eq!(filtered, Ok(Filtered::Unchanged), "{answer}");
    }
}

#[test]
fn an_answer_that_cannot_be_judged_is_refused() {
    for (answer, error) in [
        ("", ListError::Json(JsonError::UnexpectedEnd)),
        ("<html>", ListError::Json(JsonError::Unexpected)),
        (r#"{"id":1,"result":{"tools":[],"tools":[{"name":"z"}]}}"#, ListError::Json(JsonError::DuplicateKey)),
        (r#"{"id":1,"result":{"tools":[{"name":"a","name":"z"}]}}"#, ListError::Json(JsonError::DuplicateKey)),
        (r#"{"id":1,"id":2,"result":{}}"#, ListError::Json(JsonError::DuplicateKey)),
        (r#"{"id":1,"result":{"Tools":[{"name":"z"}]}}"#, ListError::Json(JsonError::VariantKey)),
        (r#"{"id":1,"Result":{"tools":[{"name":"z"}]}}"#, ListError::Json(JsonError::VariantKey)),
        (r#"{"id":1,"result":{"tools":[]}} {}"#, ListError::Json(JsonError::TrailingBytes)),
        (r#"{"id":2,"result":{"tools":[{"name":"z"}]}}"#, ListError::ForeignAnswer),
        (r#"{"id":"1","result":{}}"#, ListError::ForeignAnswer),
        (r#"{"result":{"tools":[]}}"#, ListError::ForeignAnswer),
        (r#"{"id":2,"error":{}}"#, ListError::ForeignAnswer),
        (r#"{"id":2,"method":"x","result":{"tools":[]}}"#, ListError::ForeignAnswer),
        (r#"{"id":1,"result":{"tools":{"0":{"name":"z"}}}}"#, ListError::NotAList),
        (r#"{"id":1,"result":{"tools":null}}"#, ListError::NotAList),
        (r#"{"id":1,"result":[{"name":"z"}]}"#, ListError::NotAList),
        ("1", ListError::NotAMessage),
        (r#"[{"id":1,"result":{"tools":[]}},1]"#, ListError::NotAMessage),
    ] {
        assert_eq!(filter(Method::ToolsList, Era::Legacy, answer, "a"), Err(error), "{answer}");
    }
}

#[test]
fn ten_thousand_brackets_are_refused_and_not_followed() {
    let answer = format!(r#"{{"id":1,"result":{{"tools":[{}"#, "[".repeat(10_000));
    assert_eq!(filter(Method::ToolsList, Era::Legacy, &answer, ""), Err(ListError::Json(JsonError::TooDeep)));
}

/// A small answer must not become a large table: `1,` costs two bytes in the text.
#[test]
fn lists_and_batches_have_a_longest_length() {
    let list = |count| format!(r#"{{"id":1,"result":{{"tools":[{}]}}}}"#, vec!["1"; count].join(","));
    let batch = |count| format!("[{}]", vec!["{}"; count].join(","));

    for (answer, is_refused) in [
        (list(LIST_ITEMS_MAX), false),
        (list(LIST_ITEMS_MAX + 1), true),
        (list(LIST_ITEMS_MAX * 3), true),
        (batch(ANSWERS_MAX), false),
        (batch(ANSWERS_MAX + 1), true),
        (batch(ANSWERS_MAX * 3), true),
    ] {
        let refused = filter(Method::ToolsList, Era::Legacy, &answer, "a").err();
        assert_eq!(refused, is_refused.then_some(ListError::TooLong), "{} bytes", answer.len());
    }
}

#[test]
fn ids_are_compared_as_values() {
    for (asked, answered) in [
        ("1", "1.0"),
        ("1", "1e0"),
        ("0", "-0"),
        (r#""a""#, r#""\u0061""#),
        (r#""\u0061\/""#, r#""a/""#),
        (r#""\n""#, r#""\u000a""#),
    ] {
        let answer = format!(r#"{{"id":{answered},"result":{{"tools":[{{"name":"z"}}]}}}}"#);
        let expected = format!(r#"{{"id":{answered},"result":{{"tools":[]}}}}"#);
        let asked = [(id(asked), Method::ToolsList)];

        let filtered = filter_answer(Asked::These(&asked), Era::Legacy, answer.as_bytes(), &mut |_, _| false);

        assert_eq!(filtered, Ok(Filtered::Changed(expected.into_bytes())), "{asked:?} {answered}");
    }
}

#[test]
fn a_batch_is_filtered_answer_by_answer() {
    let asked = [(id("1"), Method::ToolsList), (id("2"), Method::ToolsCall), (id("3"), Method::PromptsList)];
    let list = r#"{"tools":[{"name":"a"},{"name":"z"}],"prompts":[{"name":"z"}]}"#;
    let answer = format!(r#"[{{"id":3,"result":{list}}}, {{"id":2,"result":{list}}},{{"result":{list},"id":1}}]"#);
    let cut = r#"{"tools":[{"name":"a"}],"prompts":[]}"#;
    let expected = format!(r#"[{{"id":3,"result":{cut}}}, {{"id":2,"result":{list}}},{{"result":{cut},"id":1}}]"#);

    let filtered =
        filter_answer(Asked::These(&asked), Era::Legacy, answer.as_bytes(), &mut |item, _| is_shown(item, "a"));

    assert_eq!(filtered, Ok(Filtered::Changed(expected.into_bytes())));
}

/// A GET with `Last-Event-ID` may bring the answer to a list that was asked on another connection.
#[test]
fn a_replayed_answer_is_filtered_by_its_looks() {
    let replay = |answer: &str| {
        filter_answer(Asked::Earlier, Era::Legacy, answer.as_bytes(), &mut |item, _| is_shown(item, "a"))
    };

    assert_eq!(
        replay(r#"{"id":9,"result":{"tools":[{"name":"z"}]}}"#),
        Ok(Filtered::Changed(br#"{"id":9,"result":{"tools":[]}}"#.to_vec()))
    );
    assert_eq!(replay(r#"{"id":9,"result":{"content":[{"name":"z"}]}}"#), Ok(Filtered::Unchanged));
    assert_eq!(replay(r#"{"id":9,"result":true}"#), Ok(Filtered::Unchanged));
}

#[test]
fn a_modern_caller_sees_no_tool_with_an_invalid_annotation() {
    let bad = r#"{"name":"a","inputSchema":{"properties":{"p":{"type":"number","x-mcp-header":"P"}}}}"#;
    let hidden = r#"{"name":"a","inputSchema":{"properties":{"p":{"type":"number","x-mcp-he\u0061der":"P"}}}}"#;
    let good = r#"{"name":"a","inputSchema":{"properties":{"p":{"type":"string","x-mcp-header":"P"}}}}"#;
    let answer = format!(r#"{{"id":1,"result":{{"cacheScope":"private","tools":[{bad},{good},{hidden}]}}}}"#);
    let expected = format!(r#"{{"id":1,"result":{{"cacheScope":"private","tools":[{good}]}}}}"#);

    assert_eq!(filter(Method::ToolsList, Era::Modern, &answer, "a"), Ok(Filtered::Changed(expected.into_bytes())));
    assert_eq!(filter(Method::ToolsList, Era::Legacy, &answer, "a"), Ok(Filtered::Unchanged));
}

#[test]
fn a_list_teaches_which_arguments_headers_repeat() {
    let schema = json!({ "properties": { "r": { "type": "string", "x-mcp-header": "R" } } });
    let invalid = json!({ "x-mcp-header": "R" });
    let answer = json!({ "id": 1, "result": { "tools": [
        { "name": "plain" },
        { "name": "annotated", "inputSchema": schema },
        { "name": "invalid", "inputSchema": invalid },
        { "title": "nameless" },
    ]}});

    assert_eq!(
        tool_param_headers(answer.to_string().as_bytes()),
        [
            ("plain".into(), Ok(ParamHeaders::default())),
            ("annotated".into(), ParamHeaders::from_schema(&schema)),
            ("invalid".into(), Err(ParamHeaderError::NotReachable)),
        ]
    );
    assert_eq!(tool_param_headers(b"nonsense"), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Law: filtering the text is filtering the value.
    #[test]
    fn filters_as_one_would_filter_the_value(names in prop::collection::vec("[a-d]", 0..8), shown in "[a-d]{0,3}", pretty in any::<bool>(), extra in "\\PC{0,8}") {
        let tools = |keep: &dyn Fn(&str) -> bool| -> Vec<Value> {
            names.iter().filter(|name| keep(name)).map(|name| json!({ "name": name, "x": [extra, { "name": "d" }] })).collect()
        };
        let answer = |tools: Vec<Value>| json!({ "id": 1, "jsonrpc": "2.0", "result": { "a": extra, "tools": tools, "z": 1 } });
        let before = answer(tools(&|_| true));
        let text = if pretty { serde_json::to_string_pretty(&before).unwrap() } else { before.to_string() };

        let filtered = match filter(Method::ToolsList, Era::Legacy, &text, &shown).unwrap() {
            Filtered::Changed(text) => serde_json::from_slice(&text).unwrap(),
            Filtered::Unchanged => before,
        };

        prop_assert_eq!(filtered, answer(tools(&|name| shown.contains(name))));
    }
}

fn filter(method: Method, era: Era, answer: &str, shown: &str) -> Result<Filtered, ListError> {
    filter_answer(Asked::These(&[(id("1"), method)]), era, answer.as_bytes(), &mut |item, _| is_shown(item, shown))
}

fn is_shown(item: ListItem<'_>, shown: &str) -> bool {
    match item {
        ListItem::Prompt { name } | ListItem::Tool { name, .. } => shown.contains(name),
        ListItem::Resource { uri } => shown.contains(uri),
        ListItem::ResourceTemplate { uri_template } => shown.contains(uri_template),
    }
}

fn id(text: &str) -> RequestId {
    RequestId::from_json(text)
}
