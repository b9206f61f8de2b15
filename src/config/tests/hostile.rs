//! No text whatsoever crashes, hangs or fills the machine.

use proptest::prelude::*;

use super::*;

const COMPLETE: &str = include_str!("../../../conf/portcullis.yaml");

/// Reads it both ways; a refusal says something.
fn survive(text: &str) -> Result<(), TestCaseError> {
    for result in [read_shape(text, &|_| Vec::new()).err(), read(text, &Fake::new(), &|_| Vec::new()).err()] {
        for problem in result.iter().flatten() {
            prop_assert!(!problem.message.is_empty() && !problem.hint.is_empty());
            prop_assert!(!problem.to_string().contains('\n'), "{problem:?}");
        }
        prop_assert!(result.is_none_or(|problems| !problems.is_empty()));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        survive(&text)?;
    }

    #[test]
    fn any_mixture_of_yaml_is_read_or_refused(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..60)
    ) {
        survive(&pieces.concat())?;
    }

    #[test]
    fn any_damage_to_a_good_file_is_read_or_refused(
        from in 0..400_usize, count in 0..4_usize, piece in prop::sample::select(PIECES), at in 0..60_usize
    ) {
        let mut lines: Vec<String> = COMPLETE.lines().map(str::to_owned).collect();
        let from = from % lines.len();
        let end = (from + count).min(lines.len());
        lines.drain(from..end);
        if let Some(line) = lines.get_mut(from) {
            let place = line.char_indices().nth(at).map_or(line.len(), |(place, _)| place);
            line.insert_str(place, piece);
        }
        survive(&lines.join("\n"))?;
    }
}

const PIECES: &[&str] = &[
    "\n",
    "\n  ",
    "\n    ",
    "- ",
    ": ",
    "? ",
    ", ",
    "[",
    "]",
    "{",
    "}",
    "&a ",
    "*a",
    "!!int ",
    "!x ",
    "|\n",
    ">-\n",
    "'",
    "\"",
    "#",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "\t",
    "\r",
    "\0",
    "\u{feff}",
    "null",
    "true",
    "-1",
    "1e999",
    ".nan",
    "0x10",
    "99999999999999999999",
    "listen: ",
    "servers: ",
    "backends: ",
    "routes: ",
    "issuers: ",
    "name: ",
    "file: ",
    "url: ",
    "http://[::1]:80",
    "https://a",
    "credential: ",
    "token_exchange: ",
    "authorization: ",
    "rules: ",
    "<<: ",
    "é",
    "\u{202e}",
];

#[test]
fn deep_nesting_is_refused() {
    let problem = |text: &str| read_bad(text, &Fake::new());
    assert_eq!(
        problem(&"[".repeat(100_000)),
        "1:256: not valid YAML: recursion limit exceeded; look at the indentation, quotes and brackets around this place"
    );
    assert_eq!(
        problem(&"- ".repeat(100_000)),
        "1:1: the line is indented by 200000 characters; 128 is the most that is read"
    );
    let stairs: String = (0..500).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert_eq!(problem(&stairs), "130:1: the line is indented by 129 characters; 128 is the most that is read");
    let flow = format!("listen: {}{}", "[".repeat(200), "]".repeat(200));
    assert_eq!(
        problem(&flow),
        "lists and maps lie 201 deep in one another; 16 is the most that is read, aliases expanded"
    );
}

/// The most levels that the limits let through, in a thread with less stack than any the gateway reads a file in.
#[test]
fn the_deepest_text_that_is_parsed_fits_a_small_stack() {
    let stairs: String = (0..=128).map(|depth| format!("{}a:\n{0}- b:\n", " ".repeat(depth))).collect();
    let compact = format!("{}{}{}", "- ".repeat(64), "[".repeat(255), "]".repeat(255));
    let stack = std::thread::Builder::new().stack_size(2 * 1024 * 1024);
    let read_all = move || [stairs, compact].map(|text| read(&text, &Fake::new(), &|_| Vec::new()).is_err());
    assert_eq!(stack.spawn(read_all).unwrap().join().unwrap(), [true, true]);
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for nth in 1..12 {
        let before = format!("*a{}, ", nth - 1).repeat(10);
        text.push_str(&format!("a{nth}: &a{nth} [{before}]\n"));
    }
    assert_eq!(
        read_bad(&text, &Fake::new()),
        "the file has 1234567901245 values; 500000 is the most that is read, aliases expanded"
    );
}

/// saphyr's own budget does not look inside keys.
#[test]
fn an_alias_bomb_inside_keys_is_refused() {
    let mut text = "a0: &a0 [x]\n".to_owned();
    for nth in 1..64 {
        text.push_str(&format!("a{nth}: &a{nth} {{ ? [*a{0}, *a{0}] : 1 }}\n", nth - 1));
    }
    assert_eq!(
        read_bad(&text, &Fake::new()),
        "lists and maps lie 128 deep in one another; 16 is the most that is read, aliases expanded"
    );
}

/// Each alias puts 250 levels below 250 more: saphyr alone overflows the stack at the thirtieth.
#[test]
fn a_chain_of_deep_aliases_is_refused() {
    let (open, close) = ("[".repeat(250), "]".repeat(250));
    let mut text = format!("a0: &a0 {open}x{close}\n");
    for nth in 1..1_000 {
        text.push_str(&format!("a{nth}: &a{nth} {open}*a{}{close}\n", nth - 1));
    }
    assert_eq!(
        read_bad(&text, &Fake::new()),
        "lists and maps lie 250001 deep in one another; 16 is the most that is read, aliases expanded"
    );
}

#[test]
fn a_file_that_is_too_large_is_refused() {
    let text = "#".repeat(8 * 1024 * 1024 + 1);
    assert_eq!(read_bad(&text, &Fake::new()), "the file has 8388609 bytes; 8 MiB is the most that is read");
}
