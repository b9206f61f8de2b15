//! International bank account numbers (ISO 13616).

use std::ops::Range;

use super::{byte_at, byte_before, is_word};

/// Two letters, two check digits, and as many characters as the country has, in groups of four or without; the check digits
/// are right. The anchor ends behind the fifth character.
pub(super) fn iban(text: &str, end: usize) -> Option<Range<usize>> {
    // Between the check digits and the rest there may be a space.
    [5, 6].into_iter().find_map(|back| from(text, end.checked_sub(back)?))
}

fn from(text: &str, start: usize) -> Option<Range<usize>> {
    if is_word(byte_before(text, start)) {
        return None;
    }
    let length = length_of(text, start)?;
    let mut at = start;
    let mut count = 0;
    let mut remainder = 0_u32;
    let mut first = [0_u8; 4];
    while count < length {
        let byte = byte_at(text, at)?;
        if matches!(byte, b' ' | b'-') && count > 0 && count % 4 == 0 {
            at += 1;
            continue;
        }
        let byte = byte_at(text, at).filter(u8::is_ascii_alphanumeric)?;
        match first.get_mut(count) {
            Some(place) => *place = byte,
            None => remainder = fold(remainder, byte),
        }
        count += 1;
        at += 1;
    }
    let remainder = first.into_iter().fold(remainder, fold);
    (remainder == 1 && !is_word(byte_at(text, at))).then_some(start..at)
}

/// ISO 7064, MOD 97-10, one character at a time: letters count from 10.
fn fold(remainder: u32, byte: u8) -> u32 {
    let value = char::from(byte).to_digit(36).unwrap_or_default();
    (remainder * if value > 9 { 100 } else { 10 } + value) % 97
}

/// Where an account number has begun that goes on to the end of the text.
pub(super) fn open_end(text: &str) -> Option<usize> {
    let most = text.len().min(44);
    let from = (text.len() - most..text.len()).find(|at| text.is_char_boundary(*at))?;
    (from..text.len().saturating_sub(6)).find(|start| {
        text.is_char_boundary(*start)
            && !is_word(byte_before(text, *start))
            && length_of(text, *start).is_some_and(|length| {
                let rest = text.as_bytes().get(*start..).unwrap_or_default();
                let count = rest.iter().filter(|byte| byte.is_ascii_alphanumeric()).count();
                count < length && rest.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'-'))
            })
    })
}

/// How many characters an account number has that begins here.
fn length_of(text: &str, start: usize) -> Option<usize> {
    let head = text.get(start..start + 4)?.to_ascii_uppercase();
    let (country, digits) = head.split_at_checked(2)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    LENGTHS.iter().find(|(known, _)| *known == country).map(|(_, length)| *length)
}

/// SWIFT, IBAN Registry, release 99.
const LENGTHS: [(&str, usize); 89] = [
    ("AD", 24),
    ("AE", 23),
    ("AL", 28),
    ("AT", 20),
    ("AZ", 28),
    ("BA", 20),
    ("BE", 16),
    ("BG", 22),
    ("BH", 22),
    ("BI", 27),
    ("BR", 29),
    ("BY", 28),
    ("CH", 21),
    ("CR", 22),
    ("CY", 28),
    ("CZ", 24),
    ("DE", 22),
    ("DJ", 27),
    ("DK", 18),
    ("DO", 28),
    ("EE", 20),
    ("EG", 29),
    ("ES", 24),
    ("FI", 18),
    ("FK", 18),
    ("FO", 18),
    ("FR", 27),
    ("GB", 22),
    ("GE", 22),
    ("GI", 23),
    ("GL", 18),
    ("GR", 27),
    ("GT", 28),
    ("HN", 28),
    ("HR", 21),
    ("HU", 28),
    ("IE", 22),
    ("IL", 23),
    ("IQ", 23),
    ("IS", 26),
    ("IT", 27),
    ("JO", 30),
    ("KW", 30),
    ("KZ", 20),
    ("LB", 28),
    ("LC", 32),
    ("LI", 21),
    ("LT", 20),
    ("LU", 20),
    ("LV", 21),
    ("LY", 25),
    ("MC", 27),
    ("MD", 24),
    ("ME", 22),
    ("MK", 19),
    ("MN", 20),
    ("MR", 27),
    ("MT", 31),
    ("MU", 30),
    ("NI", 28),
    ("NL", 18),
    ("NO", 15),
    ("OM", 23),
    ("PK", 24),
    ("PL", 28),
    ("PS", 29),
    ("PT", 25),
    ("QA", 29),
    ("RO", 24),
    ("RS", 22),
    ("RU", 33),
    ("SA", 24),
    ("SC", 31),
    ("SD", 18),
    ("SE", 24),
    ("SI", 19),
    ("SK", 24),
    ("SM", 27),
    ("SO", 23),
    ("ST", 25),
    ("SV", 28),
    ("TL", 23),
    ("TN", 24),
    ("TR", 26),
    ("UA", 29),
    ("VA", 22),
    ("VG", 24),
    ("XK", 20),
    ("YE", 30),
];
