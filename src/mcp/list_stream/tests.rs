use proptest::prelude::*;

use super::*;
use crate::mcp::json::JsonError;
use crate::mcp::listing::ListItem;

const MAX: usize = 4096;

const NOISE: &str = ": hello\r\nid: 0\r\ndata:\r\n\r\nevent: ping\ndata: now\n\nevent: message\nid: 1\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progress\":1.50}}\n\n";

#[test]
fn only_events_with_lists_are_changed() {
    let list = "id: 2\r\nevent: message\r\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\r\ndata: \"result\":{\"tools\":[{\"name\":\"a\"},\r\ndata: {\"name\":\"z\"}]}}\r\nretry: 5\r\n\r\n";
    let cut = "id: 2\r\nevent: message\r\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\r\ndata: \"result\":{\"tools\":[{\"name\":\"a\"}]}}\r\nretry: 5\r\n\r\n";

    let (sent, outcome) = run(asked(), &[&format!("{NOISE}{list}: bye\n")]);

    assert_eq!(sent, format!("{NOISE}{cut}: bye\n"));
    assert_eq!(outcome, Ok(()));
}

#[test]
fn a_list_with_nothing_to_hide_passes_byte_for_byte() {
    let stream = format!("{NOISE}data:{{\"id\":1,\"result\":{{\"tools\":[{{\"name\":\"a\"}}]}}}}\r\r");
    assert_eq!(run(asked(), &[&stream]), (stream, Ok(())));
}

/// Row U16 of the hostile inputs: two responses for one id.
#[test]
fn the_second_answer_to_a_request_is_dropped() {
    let one = "data: {\"id\":1,\"result\":{\"tools\":[]}}\n\n";
    let other = "data: {\"id\":1,\"result\":{\"tools\":[{\"name\":\"a\"}]}}\n\n";
    let (sent, outcome) = run(asked(), &[one, other, ":c\n"]);
    assert_eq!((sent, outcome), (format!("{one}:c\n"), Ok(())));
}

/// Rows U09, U10 and U15: data that is not JSON, a giant event, a response with another id.
#[test]
fn a_fault_ends_the_stream_behind_the_last_good_event() {
    for (fault, error) in [
        ("data: <html>\n\n".to_owned(), StreamError::List(ListError::Json(JsonError::Unexpected))),
        (
            "event: other\ndata: {\"a\":1,\"a\":1}\n\n".to_owned(),
            StreamError::List(ListError::Json(JsonError::DuplicateKey)),
        ),
        ("data: {\"id\":9,\"result\":{\"tools\":[]}}\n\n".to_owned(), StreamError::List(ListError::ForeignAnswer)),
        ("data: {\"id\":1,\"result\":{\"tools\":{}}}\n\n".to_owned(), StreamError::List(ListError::NotAList)),
        (format!("data: \"{}\"\n\n", "x".repeat(MAX)), StreamError::Sse(SseError::EventTooLong)),
    ] {
        let mut stream = ListStream::answering(asked(), Era::Legacy, MAX);
        let mut out = Vec::new();
        let outcome = stream.push(format!("{NOISE}{fault}{NOISE}").into(), &mut keep_a, &mut out);

        assert_eq!(outcome, Err(error), "{fault}");
        assert_eq!(out.concat(), NOISE.as_bytes(), "{fault}");
        assert_eq!(stream.unanswered().map(RequestId::as_json).collect::<Vec<_>>(), ["1", "\"call\""]);
    }
}

#[test]
fn tells_which_requests_are_owed_an_answer() {
    let mut stream = ListStream::answering(asked(), Era::Legacy, MAX);
    stream.push("data: {\"id\":1,\"error\":{\"code\":1}}\n\n".into(), &mut keep_a, &mut Vec::new()).unwrap();
    assert_eq!(stream.unanswered().map(RequestId::as_json).collect::<Vec<_>>(), ["\"call\""]);
}

/// Some clients read an event that the end of the stream cuts off.
#[test]
fn an_event_without_its_end_is_filtered_too() {
    let (sent, outcome) = run(asked(), &["data: {\"id\":1,\"result\":{\"tools\":[{\"name\":\"z\"}]}}"]);
    assert_eq!((sent.as_str(), outcome), ("data: {\"id\":1,\"result\":{\"tools\":[]}}\n", Ok(())));

    let (sent, outcome) = run(asked(), &["data: {\"id\":1,\"result\":{\"tools\":[{\"name\":\"z\"}"]);
    assert_eq!((sent.as_str(), outcome), ("", Err(StreamError::List(ListError::Json(JsonError::UnexpectedEnd)))));
}

#[test]
fn a_get_stream_filters_replayed_lists() {
    let mut stream = ListStream::replaying(MAX);
    let mut out = Vec::new();
    stream
        .push("data: {\"id\":5,\"result\":{\"tools\":[{\"name\":\"z\"}]}}\n\n".into(), &mut keep_a, &mut out)
        .unwrap();
    assert_eq!(out.concat(), b"data: {\"id\":5,\"result\":{\"tools\":[]}}\n\n");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Law: chunking changes nothing.
    #[test]
    fn any_chunking_gives_the_same_stream(cuts in prop::collection::vec(0..400_usize, 0..10)) {
        let stream = format!("{NOISE}data: {{\"id\":1,\"result\":{{\"tools\":[{{\"name\":\"z\"}},{{\"name\":\"a\"}}]}}}}\r\n\r\n{NOISE}");
        let mut places: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        places.extend([0, stream.len()]);
        places.sort_unstable();
        let chunks: Vec<&str> = places.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();

        prop_assert_eq!(run(asked(), &chunks), run(asked(), &[&stream]));
    }
}

fn asked() -> Vec<(RequestId, Method)> {
    vec![(RequestId::from_json("1"), Method::ToolsList), (RequestId::from_json("\"call\""), Method::ToolsCall)]
}

fn keep_a(item: ListItem<'_>, _definition: &str) -> bool {
    matches!(item, ListItem::Tool { name: "a", .. })
}

fn run(asked: Vec<(RequestId, Method)>, chunks: &[&str]) -> (String, Result<(), StreamError>) {
    let mut stream = ListStream::answering(asked, Era::Legacy, MAX);
    let mut out = Vec::new();
    let mut judge = || {
        for chunk in chunks {
            stream.push(Bytes::copy_from_slice(chunk.as_bytes()), &mut keep_a, &mut out)?;
        }
        stream.finish(&mut keep_a, &mut out)
    };
    let outcome = judge();
    (String::from_utf8(out.concat()).unwrap(), outcome)
}
