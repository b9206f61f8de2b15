//! Does a stream show the same however it is cut into chunks, and does a whole answer stay JSON of the same shape?
//!
//! Input: a first line whose bytes are the lengths of the chunks (repeated until the stream ends), then the stream, which is also
//! taken for a text in an answer.

use std::sync::Arc;

use bytes::Bytes;
use portcullis::content::detect::{Detector, Detectors, find, open_end};
use portcullis::content::rule::{
    About, Action, Guard, GuardAction, Places, Redact, Replacement, Rule, Threat, Threats,
};
use portcullis::content::{Filter, Plan};
use portcullis::mcp::ListStream;
use serde_json::{Value, json};

/// Filters, and compares.
pub fn run(input: &[u8]) {
    let Some((lengths, stream)) = super::split_once(input, b"\n") else { return };
    let plan = plan();
    let whole = streamed(&plan, &[Bytes::copy_from_slice(stream)]);
    let cut = streamed(&plan, &super::sse::chunks(lengths, stream));
    assert_eq!(whole, cut, "what passes depends on where the stream was cut");

    let Ok(text) = std::str::from_utf8(stream) else { return };
    let all = Detectors::of(&Detector::ALL);
    let mut found = Vec::new();
    find(text, all, &mut found);
    for found in found {
        assert!(!text.get(found.range).expect("at the borders of characters").is_empty());
    }
    assert!(open_end(text, all).is_none_or(|at| text.is_char_boundary(at)));
    an_answer_stays_one(&plan, text);
}

fn plan() -> Arc<Plan> {
    let redact = Redact {
        detectors: Detectors::of(&Detector::ALL),
        patterns: Box::default(),
        with: Replacement::Text("<{kind}>".into()),
        places: Places::ALL,
        base64: true,
    };
    let guard =
        Guard { threats: Threats::of(&Threat::ALL), hosts: Box::default(), base64: true, action: GuardAction::Flag };
    let rule = |name: &str, action: Action| {
        Arc::new(Rule { name: name.into(), about: About::default(), unless: None, action })
    };
    Plan::new(&[rule("redact", Action::Redact(redact)), rule("guard", Action::Guard(guard))], &[]).expect("two rules")
}

fn filter(plan: &Arc<Plan>) -> Filter {
    Filter::new(plan, None, plan.all(), true, "nonce".into()).expect("rules that apply")
}

/// What passes of a stream, and whether it ended well.
fn streamed(plan: &Arc<Plan>, chunks: &[Bytes]) -> (Vec<u8>, bool) {
    let mut filter = filter(plan);
    let mut stream = ListStream::replaying(1 << 20);
    let mut out = Vec::new();
    let mut keep = |_: portcullis::mcp::ListItem<'_>, _: &str| true;
    let refuse = |_: &str, _| Vec::new();
    for chunk in chunks.iter().map(Some).chain([None]) {
        let mut pieces = Vec::new();
        let read = match chunk {
            Some(chunk) => stream.push_pieces(chunk.clone(), &mut keep, &mut pieces),
            None => stream.finish_pieces(&mut keep, &mut pieces),
        };
        for piece in pieces {
            if filter.event(piece, &refuse, &mut out).is_err() {
                return (out.concat(), false);
            }
        }
        if read.is_err() {
            return (out.concat(), false);
        }
    }
    filter.end(&mut out);
    (out.concat(), true)
}

fn an_answer_stays_one(plan: &Arc<Plan>, text: &str) {
    let content = json!([{ "type": "text", "text": text }, { "type": "text", "text": "end" }]);
    let answer =
        json!({ "jsonrpc": "2.0", "id": 1, "result": { "content": content, "structuredContent": { "a": text } } });
    let answer = answer.to_string();
    let Ok(Some(changed)) = filter(plan).document(answer.as_bytes(), &|_, _| Vec::new()) else { return };
    let changed: Value = serde_json::from_slice(&changed).expect("JSON");
    for place in ["/result/content/0/text", "/result/content/1/text", "/result/structuredContent/a"] {
        assert!(changed.pointer(place).is_some_and(Value::is_string), "{place} of {changed}");
    }
    assert_eq!(changed["id"], 1);
}
