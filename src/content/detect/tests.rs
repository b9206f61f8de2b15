#![expect(clippy::unwrap_used, clippy::string_slice, reason = "a test may panic")]

use proptest::prelude::*;

use super::*;

/// What each detector must find, and exactly that: the labelled corpus. Each stands in every one of [`FRAMES`].
fn labelled() -> Vec<(Detector, String)> {
    let mut corpus: Vec<(Detector, String)> = Vec::new();
    let mut add = |what: Detector, texts: &[&str]| corpus.extend(texts.iter().map(|text| (what, (*text).to_owned())));
    add(
        Detector::Email,
        &[
            "alice@example.com",
            "first.last+tag@mail.example.co.uk",
            "o'brien@example.ie",
            "x@y.io",
            "user_name%box@sub-domain.example.museum",
            "jürgen@müller.example",
            "почта@пример.рф",
            "ops@xn--bcher-kva.xn--p1ai",
        ],
    );
    add(
        Detector::Phone,
        &[
            "+1 212-555-0123",
            "(212) 555-0123",
            "212-555-0123",
            "212.555.0123",
            "1-800-555-0199",
            "+49 30 1234567",
            "+4930123456789",
            "+44 (0)20 7946 0958",
            "0049 30 1234567",
            "+33 1 23 45 67 89",
        ],
    );
    add(
        Detector::Iban,
        &[
            "DE89 3704 0044 0532 0130 00",
            "DE89370400440532013000",
            "GB29NWBK60161331926819",
            "FR14 2004 1010 0505 0001 3M02 606",
            "NO93 8601 1117 947",
            "MT84MALT011000012345MTLCAST001S",
            "ch9300762011623852957",
            "NL91-ABNA-0417-1643-00",
        ],
    );
    add(Detector::UsSsn, &["078-05-1120", "219-09-9999", "123 45 6789"]);
    add(
        Detector::Ip,
        &[
            "10.0.0.1",
            "192.168.100.254",
            "8.8.8.8",
            "2001:db8::7",
            "fe80::1ff:fe23:4567:890a",
            "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
            "::ffff:10.1.2.3",
            "::1",
        ],
    );
    add(Detector::AwsKey, &["AKIAIOSFODNN7EXAMPLE", "ASIAY34FZKBOKMUTVV7A"]);
    add(
        Detector::SlackToken,
        &[
            "xoxb-123456789012-1234567890123-AbCdEfGhIjKlMnOpQrStUvWx",
            "xoxp-1-abcdefghijkl",
            "xapp-1-A0123456789-1234567890123-abcdef0123456789",
            "hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX",
        ],
    );
    let letters = |count: usize| "aB3dE5gH7jK9".chars().cycle().take(count).collect::<String>();
    for (what, prefix, count) in [
        (Detector::GitHubToken, "ghp_", 36),
        (Detector::GitHubToken, "gho_", 36),
        (Detector::GitHubToken, "ghu_", 36),
        (Detector::GitHubToken, "ghs_", 36),
        (Detector::GitHubToken, "ghr_", 76),
        (Detector::GitHubToken, "github_pat_", 82),
        (Detector::GoogleKey, "AIza", 35),
        (Detector::GoogleKey, "ya29.", 60),
        (Detector::GoogleKey, "GOCSPX-", 28),
    ] {
        corpus.push((what, format!("{prefix}{}", letters(count))));
    }
    for (begin, length) in [
        ("4", 13),
        ("4", 16),
        ("4", 19),
        ("51", 16),
        ("2221", 16),
        ("34", 15),
        ("37", 15),
        ("6011", 16),
        ("65", 16),
        ("3528", 16),
        ("36", 14),
        ("300", 14),
        ("62", 16),
        ("62", 19),
        ("5018", 16),
    ] {
        let number = with_luhn(begin, length);
        corpus.push((Detector::Card, number.clone()));
        for mark in [" ", "-"] {
            corpus.push((Detector::Card, grouped(&number, mark)));
        }
    }
    for header in [
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
        "eyJhbGciOiJub25lIn0",
        "eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiIsImtpZCI6IjEifQ",
    ] {
        corpus.push((Detector::Jwt, format!("{header}.eyJzdWIiOiJhbGljZSJ9.{}", letters(43))));
    }
    corpus.push((Detector::Jwt, "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.".to_owned()));
    let encrypted = "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.OKOawDo13gRp2ojaHV7.48V1_ALb6US04U3b.5eym8TW_c8Su.XFBoMYUZodetZdvTiFvSkQ";
    corpus.push((Detector::Jwt, encrypted.to_owned()));
    for label in [
        "PRIVATE KEY",
        "RSA PRIVATE KEY",
        "EC PRIVATE KEY",
        "OPENSSH PRIVATE KEY",
        "ENCRYPTED PRIVATE KEY",
        "PGP PRIVATE KEY BLOCK",
    ] {
        corpus.push((
            Detector::PrivateKey,
            format!(
                "-----BEGIN {label}-----\nMIIEvQIBADANBgkq{}\n{}==\n-----END {label}-----",
                letters(48),
                letters(60)
            ),
        ));
    }
    corpus
}

/// What a text may look like around something: `@` stands for it.
const FRAMES: [(&str, &str); 8] = [
    ("", ""),
    ("see ", " please"),
    ("(", ")"),
    ("\"", "\","),
    ("value=", ";"),
    ("first line\n", "\nlast line"),
    ("ünïcode ‚", "‘ – ünïcode"),
    ("a,", ","),
];

/// Recall over the labelled corpus: 100 %, and with the very bytes, in every frame, alone and all together.
#[test]
fn everything_in_the_labelled_corpus_is_found() {
    let corpus = labelled();
    let mut missed = Vec::new();
    for (what, text) in &corpus {
        for (before, after) in FRAMES {
            // An international number in front of which a comma and nothing else stands is not cut out of a list.
            let whole = format!("{before}{text}{after}");
            let range = before.len()..before.len() + text.len();
            for wanted in [Detectors::of(&[*what]), Detectors::of(&Detector::ALL)] {
                let mut found = Vec::new();
                find(&whole, wanted, &mut found);
                if !found.contains(&Found { range: range.clone(), what: *what }) {
                    missed.push(format!("{what:?} {whole:?} gave {found:?}"));
                }
            }
        }
    }
    let asked = corpus.len() * FRAMES.len() * 2;
    assert!(missed.is_empty(), "{} of {asked} missed:\n{}", missed.len(), missed.join("\n"));
}

/// What looks like something and is not.
#[test]
fn what_only_looks_like_something_is_left_alone() {
    for (what, texts) in [
        (
            Detector::Email,
            &[
                "alice at example.com",
                "@example.com",
                "alice@",
                "alice@localhost",
                "icon@2x.png",
                "pkg@1.2.3",
                "@app.route",
            ] as &[&str],
        ),
        (
            Detector::Card,
            &[
                "4111111111111112",
                "0.4539578763621486",
                "1234567890123456",
                "4111-1111-1111-1111-2222",
                "id4111111111111111",
                "0000000000000000",
                "2026-07-28 10:20:30",
                "9007199254740993",
                "1785300000000000000",
            ],
        ),
        (
            Detector::Iban,
            &["DE89 3704 0044 0532 0130 01", "XX89370400440532013000", "ab12cdef3456", "DE8937040044053201300"],
        ),
        (
            Detector::UsSsn,
            &[
                "000-12-3456",
                "666-12-3456",
                "912-12-3456",
                "123-00-4567",
                "123-45-0000",
                "1123-45-6789",
                "123-45-67890",
                "123456789",
            ],
        ),
        (
            Detector::Ip,
            &[
                "1.2.3",
                "256.1.1.1",
                "1.2.3.4.5",
                "v1.2.3.4",
                "12:34:56",
                "aa:bb:cc:dd:ee:ff",
                "std::string",
                "abc::def",
                "a.b.c.d",
            ],
        ),
        (
            Detector::Phone,
            &[
                "2026-07-28",
                "555-0123",
                "5551234567",
                "012-345-6789",
                "+12",
                "1.234.567",
                "100-200-3000-4000",
                "20260728102030",
            ],
        ),
        (
            Detector::Jwt,
            &[
                "eyJhbGciOiJIUzI1NiJ9",
                "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOjF9",
                "eyJub3QiOiJqb3NlIn0.eyJzdWIiOjF9.sig",
                "eyJ.a.b",
            ],
        ),
        (
            Detector::PrivateKey,
            &[
                "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----",
                "-----BEGIN PUBLIC KEY-----",
                "PRIVATE KEY",
            ],
        ),
        (
            Detector::AwsKey,
            &["AKIAIOSFODNN7EXAMPL", "AKIAIOSFODNN7EXAMPLEX", "xAKIAIOSFODNN7EXAMPLE", "secret_access_key = short"],
        ),
        (Detector::GitHubToken, &["ghp_short", "ghp_", "xghp_aB3dE5gH7jK9aB3dE5gH7jK9aB3dE5gH7jK9"]),
        (Detector::SlackToken, &["xoxb-short", "xoxb", "hooks.slack.com/help", "hooks.slack.com/services/"]),
        (Detector::GoogleKey, &["AIzaShort", "ya29.short", "GOCSPX-"]),
    ] {
        for text in texts {
            let mut found = Vec::new();
            find(text, Detectors::of(&[what]), &mut found);
            assert_eq!(found, [], "{what:?} in {text:?}");
        }
    }
}

/// A secret access key is found by the name in front of it.
#[test]
fn a_secret_access_key_is_found_by_its_name() {
    let key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    for before in
        ["aws_secret_access_key = ", "AWS_SECRET_ACCESS_KEY=", "\"SecretAccessKey\": \"", "secret-access-key:\t'"]
    {
        let text = format!("{before}{key}\n");
        let mut found = Vec::new();
        find(&text, Detectors::of(&[Detector::AwsKey]), &mut found);
        assert_eq!(found, [Found { range: before.len()..before.len() + key.len(), what: Detector::AwsKey }], "{text}");
    }
}

/// What is found in texts that hold nothing: counted, and named. A change of these numbers is a change of what operators see.
#[test]
fn false_positives_on_the_clean_corpus_are_these() {
    let mut found = Vec::new();
    find(CLEAN, Detectors::of(&Detector::ALL), &mut found);
    let mut named: Vec<String> =
        found.iter().map(|found| format!("{} {}", found.what.label(), &CLEAN[found.range.clone()])).collect();
    named.sort();
    let known = [
        // The user in front of a repository, which has the shape of an address.
        "email git@git.example.org",
        // A version of four parts.
        "ip 10.4.128.3",
        // Three groups of a part number.
        "phone 221-334-5678",
        // Groups of a lot number.
        "us_ssn 321-54-9876",
    ];
    assert_eq!(named, known, "{} false positives in {} bytes of clean text", named.len(), CLEAN.len());
}

/// Prose, code, tables, identifiers and logs as tools answer with them, and nothing that should be found.
const CLEAN: &str = include_str!("clean.txt");

#[test]
fn what_a_text_may_end_with_is_open() {
    let all = Detectors::of(&Detector::ALL);
    for (text, expected) in [
        ("card 4111 1111 11", Some(5)),
        ("card 4111 1", None),
        ("mail alice@exam", Some(5)),
        ("mail alice", None),
        ("key AKIAIOSF", Some(4)),
        ("key AKIA", None),
        ("key AKIAIOSF and more", None),
        ("token ghp_abc", Some(6)),
        ("ssn 078-05-", Some(4)),
        ("account DE89 3704 0044", Some(8)),
        ("from 10.20.30", Some(5)),
        ("from 2001:db8:", Some(5)),
        ("call +49 30 12", Some(5)),
        ("jwt eyJhbGciOi", Some(4)),
        ("aws_secret_access_key=wJalrXUt", Some(22)),
        ("step 3 of 10", None),
        ("50.5", None),
        ("done: 1200 files.", None),
        ("", None),
    ] {
        assert_eq!(open_end(text, all), expected, "{text}");
    }
}

/// Whatever begins in the corpus and is cut, is either open, or shows so little that it need not be kept back.
#[test]
fn whatever_is_cut_late_is_open_or_found() {
    let mut leaks = Vec::new();
    for (what, text) in labelled() {
        // What has spaces and is longer than an event may wait for is found by its beginning.
        let cut_from = text.char_indices().map(|(at, _)| at).filter(|at| *at * 4 >= text.len() * 3);
        for cut in cut_from {
            let (begin, _) = text.split_at(cut);
            let wanted = Detectors::of(&[what]);
            let mut found = Vec::new();
            find(begin, wanted, &mut found);
            if found.is_empty() && open_end(begin, wanted).is_none() {
                leaks.push(format!("{what:?} {begin:?}"));
            }
        }
    }
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
}

proptest! {
    /// Whatever the text, matches lie inside it and at the borders of characters.
    #[test]
    fn matches_lie_at_the_borders_of_characters(text in "(\\PC|[0-9 @.:-]|-----BEGIN PRIVATE KEY-----|eyJ|AKIA){0,60}") {
        let mut found = Vec::new();
        find(&text, Detectors::of(&Detector::ALL), &mut found);
        for found in found {
            prop_assert!(text.get(found.range.clone()).is_some_and(|matched| !matched.is_empty()), "{found:?}");
        }
        let open = open_end(&text, Detectors::of(&Detector::ALL));
        prop_assert!(open.is_none_or(|at| text.is_char_boundary(at)));
    }
}

/// Hostile texts take time in proportion to their length: ten times as long, not a hundred.
#[test]
fn texts_made_to_be_slow_are_not() {
    for part in [
        "eyJ",
        "-----BEGIN PRIVATE KEY-----",
        "a@",
        "1.1.1.",
        "4111 ",
        "::",
        "ghp_",
        "DE89 3704 ",
        "+1 ",
        "eyJa.",
        "xoxb-",
        "secretkey=",
    ] {
        let time = |count: usize| {
            let text = part.repeat(count);
            let started = std::time::Instant::now();
            find(&text, Detectors::of(&Detector::ALL), &mut Vec::new());
            started.elapsed()
        };
        time(100);
        let (short, long) = (time(500).as_secs_f64(), time(5_000).as_secs_f64());
        assert!(long < short * 50.0 + 0.2, "{part:?}: {short} s, {long} s");
    }
}

fn with_luhn(begin: &str, length: usize) -> String {
    let body: String = begin.chars().chain("4900012345678901234".chars()).take(length - 1).collect();
    (0..10).map(|digit| format!("{body}{digit}")).find(|number| luhn(number)).unwrap()
}

/// Another way to reckon it than the detector's.
fn luhn(number: &str) -> bool {
    let digits: Vec<u32> = number.chars().map(|c| c.to_digit(10).unwrap()).collect();
    let doubled = [0, 2, 4, 6, 8, 1, 3, 5, 7, 9];
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(nth, digit)| if nth % 2 == 1 { *doubled.get(*digit as usize).unwrap() } else { *digit })
        .sum();
    sum.is_multiple_of(10)
}

/// As printed on cards: fours, but American Express and Diners.
fn grouped(number: &str, mark: &str) -> String {
    let groups: &[usize] = match number.len() {
        14 => &[4, 6, 4],
        15 => &[4, 6, 5],
        _ => &[4, 4, 4, 4, 4],
    };
    let mut rest = number;
    let mut parts = Vec::new();
    for group in groups {
        let (part, after) = rest.split_at((*group).min(rest.len()));
        if !part.is_empty() {
            parts.push(part);
        }
        rest = after;
    }
    parts.join(mark)
}
