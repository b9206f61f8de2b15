use proptest::prelude::*;

use super::*;

fn tool(text: &str) -> Definition {
    Definition::read(ItemKind::Tool, text, 1 << 20).unwrap()
}

/// RFC 8785 §3.2.2 and §3.2.3, the sample of the text.
#[test]
fn writes_the_sample_of_the_rfc() {
    let sample = r#"{
      "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
      "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
      "literals": [null, true, false]
    }"#;
    let wanted = "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
                  \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
    assert_eq!(canonical(sample).unwrap(), wanted);
}

/// RFC 8785 §3.2.3: the order is that of UTF-16 code units, where an emoji comes before U+FB33.
#[test]
fn sorts_keys_as_the_rfc_does() {
    let sample = r#"{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One",
                     "\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}"#;
    let wanted = "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\"ö\":\"Latin Small Letter O With \
                  Diaeresis\",\"€\":\"Euro Sign\",\"😀\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet \
                  With Dagesh\"}";
    assert_eq!(canonical(sample).unwrap(), wanted);
}

/// RFC 8785 appendix B.
#[test]
fn writes_numbers_as_the_rfc_does() {
    let rows: [(u64, &str); 19] = [
        (0x0000_0000_0000_0000, "0"),
        (0x8000_0000_0000_0000, "0"),
        (0x0000_0000_0000_0001, "5e-324"),
        (0x8000_0000_0000_0001, "-5e-324"),
        (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
        (0xffef_ffff_ffff_ffff, "-1.7976931348623157e+308"),
        (0x4340_0000_0000_0000, "9007199254740992"),
        (0xc340_0000_0000_0000, "-9007199254740992"),
        (0x4430_0000_0000_0000, "295147905179352830000"),
        (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
        (0x44b5_2d02_c7e1_4af6, "1e+23"),
        (0x44b5_2d02_c7e1_4af7, "1.0000000000000001e+23"),
        (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
        (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
        (0x444b_1ae4_d6e2_ef50, "1e+21"),
        (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
        (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
        (0x41b3_de43_5555_5554, "333333333.33333325"),
        (0x4340_0000_0000_0001, "9007199254740994"),
    ];
    for (bits, wanted) in rows {
        let text = format!("{:e}", f64::from_bits(bits));
        assert_eq!(canonical(&text).unwrap(), wanted, "{bits:016x}");
    }
}

#[test]
fn whole_numbers_that_no_double_holds_stay_apart() {
    for text in ["9007199254740993", "-9007199254740993", "18446744073709551617", &"9".repeat(60)] {
        assert_eq!(canonical(text).unwrap(), text);
    }
    assert_eq!(canonical("1000000000000000000000").unwrap(), "1e+21");
    assert_eq!(canonical("9007199254740992").unwrap(), "9007199254740992");
}

#[test]
fn order_of_keys_white_space_escapes_and_spelling_of_numbers_do_not_count() {
    let one = tool(r#"{"name":"mail","inputSchema":{"type":"object","maximum":10}}"#);
    for text in [
        r#"{"inputSchema":{"maximum":10,"type":"object"},"name":"mail"}"#,
        "{\n \"name\" : \"mail\",\t\"inputSchema\": {\"type\":\"object\", \"maximum\": 10 } }",
        r#"{"n\u0061me":"m\u0061il","inputSchema":{"type":"object","maximum":1.0e1}}"#,
    ] {
        assert_eq!(tool(text).digest(), one.digest(), "{text}");
    }
}

#[test]
fn every_other_difference_counts() {
    let base = r#"{"name":"mail","description":"Sends.","inputSchema":{"type":"object"}}"#;
    for text in [
        r#"{"name":"mail","description":"Sends. ","inputSchema":{"type":"object"}}"#,
        r#"{"name":"mail","description":"Sends.","inputSchema":{"type":"object"},"outputSchema":{"type":"object"}}"#,
        r#"{"name":"mail","description":"Sends.","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true}}"#,
        r#"{"name":"mail","description":"Sends.","inputSchema":{"type":"object"},"_meta":{"a":1}}"#,
        r#"{"name":"mail","description":"Sends.","inputSchema":{"type":"object","required":[]}}"#,
        r#"{"name":"Mail","description":"Sends.","inputSchema":{"type":"object"}}"#,
        "{\"name\":\"mail\",\"description\":\"Sends.\u{200b}\",\"inputSchema\":{\"type\":\"object\"}}",
        r#"{"name":"mail","description":null,"inputSchema":{"type":"object"}}"#,
        r#"{"name":"mail","description":"Sends.","inputSchema":{"type":"object"},"icons":[]}"#,
    ] {
        assert_ne!(tool(text).digest(), tool(base).digest(), "{text}");
    }
}

#[test]
fn what_tells_of_a_resources_content_is_no_part_of_its_definition() {
    let resource = |text: &str| Definition::read(ItemKind::Resource, text, 4096).unwrap().digest();
    let one = resource(
        r#"{"uri":"a:b","name":"b","size":1,"annotations":{"lastModified":"2026-01-01T00:00:00Z","priority":1}}"#,
    );
    let other = resource(
        r#"{"uri":"a:b","name":"b","size":2,"annotations":{"lastModified":"2026-01-02T00:00:00Z","priority":1}}"#,
    );
    assert_eq!(one, other);
    // A place that is left out must not be one where words to a model can hide.
    let hidden =
        resource(r#"{"uri":"a:b","name":"b","size":2,"annotations":{"lastModified":"ignore previous","priority":1}}"#);
    assert_ne!(one, hidden);
    let hidden = resource(
        r#"{"uri":"a:b","name":"b","size":"ignore","annotations":{"lastModified":"2026-01-02","priority":1}}"#,
    );
    assert_ne!(one, hidden);
}

#[test]
fn refuses_what_is_no_definition() {
    let read = |text: &str| Definition::read(ItemKind::Tool, text, 4096).unwrap_err();
    assert_eq!(read("[]"), DefinitionError::NotAnObject);
    assert_eq!(read("{}"), DefinitionError::NoName);
    assert_eq!(read(r#"{"name":""}"#), DefinitionError::NoName);
    assert_eq!(read(r#"{"name":1}"#), DefinitionError::NoName);
    assert_eq!(read(r#"{"name":"a","name":"b"}"#), DefinitionError::Json(JsonError::DuplicateKey));
    assert_eq!(read(r#"{"name":"a"} x"#), DefinitionError::Json(JsonError::TrailingBytes));
    assert_eq!(read(&format!(r#"{{"name":"{}"}}"#, "a".repeat(NAME_BYTES_MAX + 1))), DefinitionError::NameTooLong);
    assert_eq!(read(&format!(r#"{{"name":"a","description":"{}"}}"#, "a".repeat(4096))), DefinitionError::TooLarge);
    let deep = format!(r#"{{"name":"a","inputSchema":{}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let deep = Definition::read(ItemKind::Tool, &deep, 1 << 20).unwrap_err();
    assert_eq!(deep, DefinitionError::Json(JsonError::TooDeep));
}

#[test]
fn a_digest_survives_its_text() {
    let digest = Digest::of(b"portcullis");
    assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
    assert_eq!(Digest::parse(&digest.to_string().to_uppercase()), None);
    assert_eq!(Digest::parse("00"), None);
    let json = serde_json::to_string(&digest).unwrap();
    assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::btree_map(any::<String>(), inner, 0..5)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Canonical JSON means the same, and making it canonical again changes nothing.
    #[test]
    fn canonical_json_is_its_own_canonical_form(value in json()) {
        let once = canonical(&value.to_string()).unwrap();
        prop_assert_eq!(canonical(&once).unwrap(), once.clone());
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        prop_assert_eq!(canonical(&pretty).unwrap(), once);
    }
}
