use std::collections::HashSet;
use std::fmt;

use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::*;

#[test]
fn accepts_what_rfc_8259_allows() {
    for text in [
        "null",
        " \t\r\n true \n",
        "false",
        "0",
        "-0",
        "-0.0",
        "10",
        "1.5e-7",
        "1E+2",
        "1e308",
        "18446744073709551616",
        r#""""#,
        r#""\"\\\/\b\f\n\r\t\u0000\u00e9\ud83d\ude00""#,
        "\"\u{7f}\u{2028}é世😀\"",
        "[]",
        "[ ]",
        "{}",
        "{ }",
        r#"[1, [2, {"a": []}], "x"]"#,
        r#"{"a": {"a": {"a": 1}}, "b": [{"a": 1}, {"a": 1}]}"#,
        r#"{"":0," ":1}"#,
    ] {
        assert_eq!(check(text.as_bytes(), DEPTH_MAX), Ok(()), "{text}");
    }
}

#[test]
fn refuses_what_readers_could_disagree_about() {
    use JsonError::*;
    for (text, error) in [
        ("", UnexpectedEnd),
        (" ", UnexpectedEnd),
        (r#"{"a":1,"#, UnexpectedEnd),
        (r#"{"a""#, UnexpectedEnd),
        (r#"{"a":"#, UnexpectedEnd),
        ("[1", UnexpectedEnd),
        ("tru", UnexpectedEnd),
        ("-", UnexpectedEnd),
        ("1.", UnexpectedEnd),
        ("1e", UnexpectedEnd),
        (r#""abc"#, UnexpectedEnd),
        (r#""\"#, UnexpectedEnd),
        (r#""\u12"#, UnexpectedEnd),
        ("\u{feff}{}", Unexpected),
        ("[1,]", Unexpected),
        (r#"{"a":1,}"#, Unexpected),
        ("[,1]", Unexpected),
        ("[1 2]", Unexpected),
        ("[1}", Unexpected),
        ("{1:2}", Unexpected),
        (r#"{"a" 1}"#, Unexpected),
        (r#"{"a":1 "b":2}"#, Unexpected),
        ("{'a':1}", Unexpected),
        ("NaN", Unexpected),
        ("Infinity", Unexpected),
        ("nul!", Unexpected),
        ("TRUE", Unexpected),
        ("/**/1", Unexpected),
        ("\u{a0}1", Unexpected),
        ("+1", Unexpected),
        (".5", Unexpected),
        ("-x", BadNumber),
        ("1.e5", BadNumber),
        ("1e+", UnexpectedEnd),
        ("[1e]", BadNumber),
        ("1e400", BadNumber),
        ("-1e400", BadNumber),
        ("[01]", Unexpected),
        ("01", TrailingBytes),
        ("0x10", TrailingBytes),
        ("{}{}", TrailingBytes),
        ("1 2", TrailingBytes),
        ("{}\0", TrailingBytes),
        ("[] //", TrailingBytes),
        ("\"a\nb\"", ControlCharacter),
        ("\"a\0b\"", ControlCharacter),
        ("\"12345678\u{1f}\"", ControlCharacter),
        (r#""\x41""#, BadEscape),
        (r#""\u12g4""#, BadEscape),
        (r#""\U0041""#, BadEscape),
        (r#""\ud800""#, LoneSurrogate),
        (r#""\ud800x""#, LoneSurrogate),
        (r#""\ud800\n""#, LoneSurrogate),
        (r#""\ud800\ud800""#, LoneSurrogate),
        (r#""\udc00\ud800""#, LoneSurrogate),
        (r#"{"\udead":1}"#, LoneSurrogate),
        (r#"{"a":1,"a":1}"#, DuplicateKey),
        (r#"{"a":1,"b":2,"a":{}}"#, DuplicateKey),
        (r#"{"name":1,"na\u006de":2}"#, DuplicateKey),
        (r#"{"\/":1,"/":2}"#, DuplicateKey),
        (r#"{"😀":1,"\ud83d\ude00":2}"#, DuplicateKey),
        (r#"{"x":[{"y":{"b":1,"b":1}}]}"#, DuplicateKey),
        (r#"{"":1,"":1}"#, DuplicateKey),
    ] {
        assert_eq!(check(text.as_bytes(), DEPTH_MAX), Err(error), "{text}");
    }
}

/// RFC 8259 §8.1: UTF-8 only; no overlong forms, no surrogates, no bytes past U+10FFFF.
#[test]
fn refuses_what_is_not_utf8() {
    for bytes in [
        &b"\"\xff\""[..],
        b"\"\xc0\xaf\"",
        b"\"\xed\xa0\x80\"",
        b"\"\xf4\x90\x80\x80\"",
        b"\"\xe4\xb8\"",
        b"\xff\xfe{\0}\0",
    ] {
        assert_eq!(check(bytes, DEPTH_MAX), Err(JsonError::NotUtf8), "{bytes:?}");
    }
}

#[test]
fn finds_a_duplicate_among_many_keys() {
    for count in [2, FEW_KEYS, FEW_KEYS + 1, 5_000] {
        let mut members: Vec<String> = (0..count).map(|number| format!(r#""k{number}":0"#)).collect();
        let distinct = format!("{{{}}}", members.join(","));
        members.push(r#""k\u0030":0"#.to_owned());
        let escaped = format!("{{{}}}", members.join(","));
        *members.last_mut().unwrap() = format!(r#""k{}":0"#, count / 2);
        let plain = format!("{{{}}}", members.join(","));

        assert_eq!(check(distinct.as_bytes(), DEPTH_MAX), Ok(()), "{count}");
        assert_eq!(check(escaped.as_bytes(), DEPTH_MAX), Err(JsonError::DuplicateKey), "{count}");
        assert_eq!(check(plain.as_bytes(), DEPTH_MAX), Err(JsonError::DuplicateKey), "{count}");
    }
}

#[test]
fn counts_depth_by_open_brackets() {
    for (depth, max, outcome) in [(64, 64, Ok(())), (65, 64, Err(JsonError::TooDeep)), (1, 0, Err(JsonError::TooDeep))]
    {
        let arrays = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let objects = format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));

        assert_eq!(check(arrays.as_bytes(), max), outcome, "{depth} arrays");
        assert_eq!(check(objects.as_bytes(), max), outcome, "{depth} objects");
    }
}

/// A million brackets must not overflow the stack, whatever the limit says.
#[test]
fn needs_no_stack_for_depth() {
    let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    assert_eq!(check(deep.as_bytes(), usize::MAX), Ok(()));
}

#[test]
fn the_deepest_text_it_may_accept_is_one_that_rules_can_read() {
    let deepest = format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
    let deeper = format!("[{deepest}]");

    assert!(serde_json::from_str::<Value>(&deepest).is_ok());
    assert!(serde_json::from_str::<Value>(&deeper).is_err());
}

#[test]
fn finds_the_first_special_byte_of_a_string_at_any_offset() {
    for before in 0..300 {
        for special in ['"', '\\', '\n', '\0', '\u{1f}'] {
            let bytes = format!("{}{special}\"\\\n~~~~~~~~~", "é".repeat(before / 2) + &"a".repeat(before % 2));
            assert_eq!(plain_run(bytes.as_bytes()), before, "{special:?} after {before}");
        }
    }
    assert_eq!(plain_run("!#[]~\u{7f}\u{80} ÿ €".repeat(30).as_bytes()), "!#[]~\u{7f}\u{80} ÿ €".len() * 30);
}

#[test]
fn a_walked_object_gives_each_member_with_its_place() {
    let text = r#" {"a": [1, 2], "\u0062":"x\ny" , "c":{"d":null}} "#;
    let mut reader = Reader::new(text.as_bytes(), DEPTH_MAX).unwrap();
    let mut members = Vec::new();

    let whole = reader
        .object(|reader, key| {
            let value = reader.skip()?;
            members.push((key.into_owned(), value));
            Ok(())
        })
        .unwrap();

    assert_eq!(reader.end(), Ok(()));
    assert_eq!((whole.start, whole.text), (1, text.trim()));
    let read: Vec<_> = members.iter().map(|(key, raw)| (key.as_str(), raw.kind, raw.text)).collect();
    assert_eq!(
        read,
        [("a", Kind::Array, "[1, 2]"), ("b", Kind::String, r#""x\ny""#), ("c", Kind::Object, r#"{"d":null}"#)]
    );
    for (_, raw) in &members {
        assert_eq!(&text[raw.start..raw.end()], raw.text);
    }
    assert_eq!(members[1].1.as_str().unwrap(), "x\ny");
    assert_eq!(members[0].1.as_str(), None);
}

#[test]
fn a_walked_object_has_no_key_twice_either() {
    let mut reader = Reader::new(br#"{"a":{"x":1},"a":2}"#, DEPTH_MAX).unwrap();
    assert_eq!(reader.object(|reader, _| reader.skip().map(drop)), Err(JsonError::DuplicateKey));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Law: what it accepts, `serde_json` accepts; what only `serde_json` accepts has a duplicate key.
    #[test]
    fn accepts_what_serde_json_accepts_but_for_duplicate_keys(text in scraps()) {
        let theirs = serde_json::from_str::<Strict>(&text);
        match check(text.as_bytes(), DEPTH_MAX) {
            Ok(()) => prop_assert!(theirs.is_ok_and(|strict| !strict.duplicate)),
            Err(JsonError::DuplicateKey) => prop_assert!(theirs.map_or(true, |strict| strict.duplicate)),
            Err(error) => prop_assert!(theirs.map_or(true, |strict| strict.duplicate), "{error:?}"),
        }
    }

    #[test]
    fn reads_members_as_serde_json_does(value in object()) {
        let text = serde_json::to_string_pretty(&value).unwrap();
        let mut reader = Reader::new(text.as_bytes(), DEPTH_MAX).unwrap();
        let mut read = serde_json::Map::new();

        reader.object(|reader, key| {
            let raw = reader.skip()?;
            read.insert(key.into_owned(), serde_json::from_str(raw.text).unwrap());
            Ok(())
        }).unwrap();

        prop_assert_eq!(Value::Object(read), value);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let ours = check(&bytes, DEPTH_MAX).is_ok();
        prop_assert!(!ours || serde_json::from_slice::<Value>(&bytes).is_ok());
    }
}

/// Texts glued from pieces of JSON, right and wrong.
fn scraps() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", " ", "\n", "\"a\":", "\"b\":", "\"\\u0061\":", "\"\"", "\"a\"", "{\"a\":1}",
            "1", "-1", "0", "-0", "1.5", "1e5", "1e400", "1e-400", "0e999", "12345678901234567890123", ".5", "1.", "01",
            "true", "false", "null", "nul", "\"\\ud800\"", "\"\\ud83d\\ude00\"", "\"\\n\"", "\"\\x\"", "\"\t\"", "\\", "\"",
        ]).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        2 => object().prop_map(|value| value.to_string()),
    ];
    let nested = |inner: String, shape: u8| match shape {
        0 => format!("[{inner}]"),
        1 => format!("{{\"a\":{inner}}}"),
        2 => format!("{{\"k\":{inner},\"k\":1}}"),
        _ => inner,
    };
    (prop::collection::vec(piece, 0..8), 0..5_u8).prop_map(move |(pieces, shape)| nested(pieces.concat(), shape))
}

fn object() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(".{0,6}", inner, 0..20).prop_map(|map| map.into_iter().collect()),
        ]
    });
    prop::collection::hash_map(".{0,6}", value, 0..20).prop_map(|map| map.into_iter().collect())
}

/// Reads like `serde_json::Value`, and notes whether any object has a key twice.
struct Strict {
    duplicate: bool,
}

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Strict;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E: serde::de::Error>(self) -> Result<Strict, E> {
                Ok(Strict { duplicate: false })
            }
            fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Strict, E> {
                self.visit_unit()
            }
            fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Strict, E> {
                self.visit_unit()
            }
            fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Strict, E> {
                self.visit_unit()
            }
            fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Strict, E> {
                self.visit_unit()
            }
            fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Strict, E> {
                self.visit_unit()
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Strict, A::Error> {
                let mut duplicate = false;
                while let Some(element) = seq.next_element::<Strict>()? {
                    duplicate |= element.duplicate;
                }
                Ok(Strict { duplicate })
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
                let mut duplicate = false;
                let mut keys = HashSet::new();
                while let Some(key) = map.next_key::<String>()? {
                    duplicate |= !keys.insert(key);
                    duplicate |= map.next_value::<Strict>()?.duplicate;
                }
                Ok(Strict { duplicate })
            }
        }
        deserializer.deserialize_any(Any)
    }
}
