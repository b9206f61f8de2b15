use proptest::prelude::*;

use super::*;

const MAX: usize = 1 << 20;

/// The fields of WHATWG HTML §9.2.6, with each kind of line end.
#[test]
fn reads_events_as_the_standard_says() {
    for (stream, name, id, data) in [
        ("data: x\n\n", None, None, Some("x")),
        ("data:x\n\n", None, None, Some("x")),
        ("data:  x\n\n", None, None, Some(" x")),
        ("data: a\ndata: b\n\n", None, None, Some("a\nb")),
        ("data: a\r\ndata: b\r\n\r\n", None, None, Some("a\nb")),
        ("data: a\rdata: b\r\r", None, None, Some("a\nb")),
        ("data: a\r\ndata: b\rdata: c\n\r\n", None, None, Some("a\nb\nc")),
        ("data\n\n", None, None, Some("")),
        ("data:\n\n", None, None, Some("")),
        ("data\ndata\n\n", None, None, Some("\n")),
        ("event: message\nid: 7\nretry: 5\ndata: x\n\n", Some("message"), Some("7"), Some("x")),
        ("event: a\nevent: b\ndata: x\n\n", Some("b"), None, Some("x")),
        ("id: 1\ndata:\n\n", None, Some("1"), Some("")),
        ("id: 1\n\n", None, Some("1"), None),
        ("data: x\n:comment\nfoo: bar\nDATA: y\n data: z\n\n", None, None, Some("x")),
        ("\u{feff}data: x\n\n", None, None, Some("x")),
        ("\u{feff}\ndata: x\n\n", None, None, Some("x")),
        ("data: \u{feff}{\"a\":\"世\"}\n\n", None, None, Some("\u{feff}{\"a\":\"世\"}")),
    ] {
        let (pieces, tail) = split([stream]);
        let events: Vec<_> = pieces.iter().map(Piece::event).filter(|event| *event != Event::default()).collect();

        let bytes = |text: Option<&str>| text.map(|text| Bytes::copy_from_slice(text.as_bytes()));
        assert_eq!(events, [Event { name: bytes(name), id: bytes(id), data: bytes(data) }], "{stream:?}");
        assert_eq!(tail, None, "{stream:?}");
    }
}

#[test]
fn comments_and_blank_lines_between_events_pass_at_once() {
    let (pieces, tail) = split([":keep-alive\r\n", "\n", ":\n:\n", "data: x\n", ":inside\n", "\n", ": half"]);
    let raws: Vec<_> = pieces.iter().map(|piece| &piece.raw[..]).collect();
    assert_eq!(raws, [&b":keep-alive\r\n"[..], b"\n", b":\n", b":\n", b"data: x\n:inside\n\n"]);
    assert_eq!(tail.unwrap().raw, ": half");
}

#[test]
fn a_line_end_in_two_chunks_is_one_line_end() {
    let (pieces, tail) = split(["data: x\r", "\n\r", "\ndata: y\r", "\r", "data: z\n\n"]);
    let data: Vec<_> = pieces.iter().filter_map(|piece| piece.event().data).collect();
    assert_eq!(data, ["x", "y", "z"]);
    assert_eq!(tail, None);
}

#[test]
fn an_event_inside_one_chunk_is_not_copied() {
    let chunk = Bytes::from("data: x\n\ndata: y\n\n".to_owned());
    let mut splitter = Splitter::new(MAX);
    splitter.push(chunk.clone());

    for place in [0..9, 9..18] {
        let piece = splitter.next_piece().unwrap().unwrap();
        assert_eq!(piece.raw.as_ptr(), chunk.slice(place.clone()).as_ptr());
        assert_eq!(piece.event().data.unwrap().as_ptr(), chunk.slice(place.start + 6..place.end).as_ptr());
    }
    assert!(splitter.is_at_boundary());
}

#[test]
fn an_event_over_the_limit_ends_the_stream_but_not_what_came_before() {
    for chunks in [
        vec!["data: x\n\ndata: 123456789\n\n"],
        vec!["data: x\n\ndata: 1", "2345", "6789\n\n"],
        vec!["data: x\n\n", "data: 123456789"],
    ] {
        let mut splitter = Splitter::new(14);
        let mut pieces = Vec::new();
        let mut error = None;
        for chunk in &chunks {
            splitter.push(Bytes::from_static(chunk.as_bytes()));
            loop {
                match splitter.next_piece() {
                    Ok(Some(piece)) => pieces.push(piece.raw),
                    Ok(None) => break,
                    Err(failure) => {
                        error = Some(failure);
                        break;
                    }
                }
            }
        }
        assert_eq!(pieces, ["data: x\n\n"], "{chunks:?}");
        assert_eq!(error, Some(SseError::EventTooLong), "{chunks:?}");
    }
}

#[test]
fn new_data_leaves_the_other_lines_as_they_are() {
    for (event, data, changed) in [
        (
            "event: message\r\nid:7\r\ndata: a\r\nretry: 1\r\ndata: b\r\n\r\n",
            "new",
            "event: message\r\nid:7\r\ndata: new\r\nretry: 1\r\n\r\n",
        ),
        ("data:a\n:c\n\n", "{\n}", "data: {\ndata: }\n:c\n\n"),
        ("data:a\r\r", "x\r\ny", "data: x\rdata: \rdata: y\r\r"),
        ("\u{feff}data:a\n\n", "b", "\u{feff}data: b\n\n"),
        ("id: 1\n\n", "b", "id: 1\n\n"),
        ("data: a\rdata: b\n\n", "c", "data: c\r\n\n"),
        ("data: a\nid: 1\rdata: b\n\n", "c", "data: c\nid: 1\r\n\n"),
    ] {
        let (pieces, _) = split([event]);
        assert_eq!(String::from_utf8(pieces[0].with_data(data.as_bytes())).unwrap(), changed, "{event:?}");
    }
}

#[test]
fn an_error_event_is_whole_and_cannot_be_broken_out_of() {
    let id = RequestId::from_json(r#""a\nb""#);
    let event = error_event(&id, -32603, "it \"broke\"\n\ndata: x");
    assert_eq!(
        String::from_utf8(event).unwrap(),
        "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"a\\nb\",\"error\":{\"code\":-32603,\"message\":\"it \\\"broke\\\"\\n\\ndata: x\"}}\n\n"
    );
}

#[test]
fn knows_whether_an_event_can_be_put_in() {
    for (stream, at_boundary) in [
        ("", true),
        ("d", false),
        ("data: x", false),
        ("data: x\n", false),
        ("data: x\n\n", true),
        ("data: x\r\n\r", true),
        ("data: x\r\n\r\n", true),
        ("data: x\n\n:", false),
        ("data: x\n\n:c\n", true),
        ("data: x\n:c\n", false),
        ("\n", true),
    ] {
        let mut boundary = Boundary::default();
        for byte in stream.bytes() {
            boundary.watch(&[byte]);
        }
        assert_eq!(boundary.is_at_boundary(), at_boundary, "{stream:?} byte by byte");
        let mut boundary = Boundary::default();
        boundary.watch(stream.as_bytes());
        assert_eq!(boundary.is_at_boundary(), at_boundary, "{stream:?}");
    }
}

#[test]
fn pieces_are_joined_without_a_copy_when_there_is_one() {
    let piece = Bytes::from("data".to_owned());
    assert_eq!(join(vec![piece.clone()]).as_ptr(), piece.as_ptr());
    assert_eq!(join(vec![piece.clone(), piece]), "datadata");
    assert_eq!(join(vec![]), "");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Law: chunking changes neither bytes nor events.
    #[test]
    fn any_chunking_gives_the_same_events_and_all_bytes((stream, cuts) in chunked()) {
        let whole = split([&stream[..]]);
        let parts = split(cut(&stream, &cuts));

        prop_assert_eq!(glue(&whole), stream.as_bytes());
        prop_assert_eq!(glue(&parts), stream.as_bytes());
        prop_assert_eq!(events(&whole.0), events(&parts.0));
        prop_assert_eq!(events(&parts.0), reference(&stream));
    }

    /// Law: between two pieces, and only there, [`Boundary`] sees a boundary.
    #[test]
    fn the_boundary_follows_the_pieces((stream, cuts) in chunked()) {
        let mut splitter = Splitter::new(MAX);
        let mut boundary = Boundary::default();
        for chunk in cut(&stream, &cuts) {
            splitter.push(Bytes::copy_from_slice(chunk.as_bytes()));
            while splitter.next_piece().unwrap().is_some() {}
            boundary.watch(chunk.as_bytes());
            prop_assert_eq!(splitter.is_at_boundary(), boundary.is_at_boundary());
        }
    }

    /// Law: an event with new data reads as the same event with that data.
    #[test]
    fn new_data_is_what_a_client_reads((stream, _) in chunked(), data in "[a-z \n]{0,12}") {
        for piece in split([&stream[..]]).0 {
            let before = piece.event();
            let changed = piece.with_data(data.as_bytes());
            // A byte order mark counts only at the begin of a stream.
            let before_it = if piece.begins_stream { "" } else { ":\n" };
            let (pieces, tail) = split([before_it, std::str::from_utf8(&changed).unwrap()]);
            let after = events(&pieces);
            prop_assert_eq!(tail, None);
            if before.data.is_some() {
                prop_assert_eq!(after, [Event { data: Some(Bytes::from(data.clone())), ..before }]);
            }
        }
    }
}

/// A stream glued from pieces of events, and places to cut it at.
fn chunked() -> impl Strategy<Value = (String, Vec<usize>)> {
    let piece = prop::sample::select(vec![
        "data",
        ":",
        " ",
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "\r\n\r\n",
        "\r\r",
        "x",
        "{\"a\":1}",
        "data: x",
        "data:y\n",
        "id: 1\n",
        "event: e\r",
        ": c\n",
        "世",
        "\u{feff}",
        "data: long enough for a word\r\n\r\n",
    ]);
    (prop::collection::vec(piece, 0..16), prop::collection::vec(any::<usize>(), 0..8))
        .prop_map(|(pieces, cuts)| (pieces.concat(), cuts))
}

fn cut<'s>(stream: &'s str, cuts: &[usize]) -> Vec<&'s str> {
    let mut places: Vec<usize> =
        cuts.iter().map(|cut| cut % (stream.len() + 1)).filter(|place| stream.is_char_boundary(*place)).collect();
    places.extend([0, stream.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
}

fn split<'s>(chunks: impl IntoIterator<Item = &'s str>) -> (Vec<Piece>, Option<Piece>) {
    let mut splitter = Splitter::new(MAX);
    let mut pieces = Vec::new();
    for chunk in chunks {
        splitter.push(Bytes::copy_from_slice(chunk.as_bytes()));
        while let Some(piece) = splitter.next_piece().unwrap() {
            pieces.push(piece);
        }
    }
    (pieces, splitter.finish())
}

fn glue((pieces, tail): &(Vec<Piece>, Option<Piece>)) -> Vec<u8> {
    pieces.iter().chain(tail).flat_map(|piece| piece.raw.clone()).collect()
}

fn events(pieces: &[Piece]) -> Vec<Event> {
    pieces.iter().map(Piece::event).filter(|event| *event != Event::default()).collect()
}

/// Reads a whole stream in the plainest way: WHATWG HTML §9.2.6, line by line.
fn reference(stream: &str) -> Vec<Event> {
    let stream = stream.strip_prefix('\u{feff}').unwrap_or(stream).replace("\r\n", "\n").replace('\r', "\n");
    let mut events = Vec::new();
    let mut event = Event::default();
    let mut lines: Vec<&str> = stream.split('\n').collect();
    lines.pop();
    for line in lines {
        if line.is_empty() {
            events.push(std::mem::take(&mut event));
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "event" => event.name = Some(value.into()),
            "id" => event.id = Some(value.into()),
            "data" => {
                event.data = Some(match event.data.take() {
                    None => value.into(),
                    Some(before) => format!("{}\n{value}", std::str::from_utf8(&before).unwrap()).into(),
                });
            }
            _ => {}
        }
    }
    events.retain(|event| *event != Event::default());
    events
}
