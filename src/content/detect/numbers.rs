//! Numbers of cards, telephones and social security: digits in groups.

use std::ops::Range;

use super::{Detector, Detectors, Found, byte_at, byte_before, is_word, run, run_before};

/// Looks through the run of digits and marks between them around a place, and says where the run ends. The anchor ends behind
/// its seventh digit, or a later one.
pub(super) fn in_run(text: &str, end: usize, wanted: Detectors, found: &mut Vec<Found>) -> usize {
    let begin = end - run_before(text, end, LEAD_BYTES_MAX, is_of_run);
    let end = end + run(text, end, text.len(), is_of_run);
    let mut at = begin;
    while at < end {
        if !starts_group(text, at) {
            at += 1;
            continue;
        }
        let match_here = [
            (Detector::Card, card as fn(&str, usize) -> Option<Range<usize>>),
            (Detector::UsSsn, us_ssn),
            (Detector::Phone, phone),
        ]
        .into_iter()
        .filter(|(what, _)| wanted.has(*what))
        .find_map(|(what, detect)| detect(text, at).map(|range| Found { range, what }));
        at = match match_here {
            Some(found_here) => {
                let next = found_here.range.end;
                found.push(found_here);
                next
            }
            None => at + run(text, at, end - at, |byte| byte.is_ascii_digit()),
        };
    }
    end
}

/// 13 to 19 digits of a known issuer with a right Luhn digit (ISO/IEC 7812-1), without marks or in groups of three or more
/// with the same mark, a space or a dash, between each two.
///
/// Known to be taken for one: one in ten of other numbers of that length with such a beginning.
fn card(text: &str, start: usize) -> Option<Range<usize>> {
    // Digits behind a point are a fraction; behind a letter, part of a name.
    let is_fraction = matches!(byte_before(text, start), Some(b'.' | b','))
        && start.checked_sub(2).and_then(|at| byte_at(text, at)).is_some_and(|byte| byte.is_ascii_digit());
    if is_word(byte_before(text, start)) || is_fraction {
        return None;
    }
    let mut digits = [0_u8; 19];
    let (mut count, mut at, mut mark) = (0, start, None);
    loop {
        let group = run(text, at, 20, |byte| byte.is_ascii_digit());
        // Less than three digits are no group, but for the last one of a card of 13 or 17.
        if count + group > digits.len() || group == 0 || group < 3 && count + group != 13 && count + group != 17 {
            return None;
        }
        for byte in text.as_bytes().iter().skip(at).take(group) {
            if let Some(place) = digits.get_mut(count) {
                *place = byte - b'0';
            }
            count += 1;
        }
        at += group;
        let number = digits.get(..count)?;
        if count >= 13 && ends_number(text, at) && is_issued(number) && is_luhn(number) {
            return Some(start..at);
        }
        match byte_at(text, at) {
            Some(found @ (b' ' | b'-')) if mark.is_none_or(|mark| mark == found) => {
                mark = Some(found);
                at += 1;
            }
            _ => return None,
        }
    }
}

/// Nothing follows that would make it part of a longer number: a space and more digits do not.
fn ends_number(text: &str, at: usize) -> bool {
    let digit_behind = byte_at(text, at + 1).is_some_and(|byte| byte.is_ascii_digit());
    let goes_on = matches!(byte_at(text, at), Some(b'-' | b'.' | b',')) && digit_behind;
    !is_word(byte_at(text, at)) && !goes_on
}

/// The first digits of the large issuers, each with its lengths.
fn is_issued(number: &[u8]) -> bool {
    let first = |count: usize| number.iter().take(count).fold(0_u32, |value, digit| value * 10 + u32::from(*digit));
    match number.len() {
        13 => first(1) == 4,
        14 => matches!(first(3), 300..=305 | 309) || matches!(first(2), 36 | 38 | 39),
        15 => matches!(first(2), 34 | 37) || matches!(first(4), 1800 | 2131),
        16 => {
            first(1) == 4
                || matches!(first(2), 51..=55 | 62 | 65 | 81)
                || matches!(first(3), 644..=649)
                || matches!(first(4), 2200..=2204 | 2221..=2720 | 3528..=3589 | 6011 | 6759)
                || matches!(first(2), 50 | 56..=58 | 60 | 63 | 67)
        }
        17 | 18 => matches!(first(2), 62 | 50 | 56..=58 | 63 | 67),
        19 => first(1) == 4 || matches!(first(2), 62 | 65 | 50 | 56..=58 | 63 | 67) || first(4) == 6011,
        _ => false,
    }
}

fn is_luhn(number: &[u8]) -> bool {
    let sum = number.iter().rev().enumerate().fold(0_u32, |sum, (nth, digit)| {
        let digit = u32::from(*digit) << (nth % 2);
        sum + if digit > 9 { digit - 9 } else { digit }
    });
    // A number of zeros is right, too, and nobody's.
    sum.is_multiple_of(10) && sum > 0
}

/// `ddd-dd-dddd` or `ddd dd dddd`, of numbers that can have been given out (SSA, randomization of 2011).
///
/// Known to be taken for one: other numbers that are written so.
fn us_ssn(text: &str, start: usize) -> Option<Range<usize>> {
    let end = start + 11;
    let number = text.get(start..end)?;
    let mark = number.get(3..4).filter(|mark| matches!(*mark, "-" | " "))?;
    let mut parts = number.splitn(3, mark);
    let (area, group, serial) = (parts.next()?, parts.next()?, parts.next()?);
    let lengths = (area.len(), group.len(), serial.len()) == (3, 2, 4);
    let digits = [area, group, serial].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    let is_given = !matches!(area, "000" | "666") && !area.starts_with('9') && group != "00" && serial != "0000";
    let is_inside = matches!(byte_before(text, start), Some(b'-' | b'.'))
        && start.checked_sub(2).and_then(|at| byte_at(text, at)).is_some_and(|byte| byte.is_ascii_digit());
    let stands_alone = !is_word(byte_before(text, start)) && !is_inside && ends_number(text, end);
    (lengths && digits && is_given && stands_alone).then_some(start..end)
}

/// An international number (`+` or `00`, with 8 to 15 digits; ITU-T E.164), or one of North America in three groups with marks:
/// `(212) 555-0123`, `212-555-0123`, `212.555.0123`. National numbers of other countries have no shape of their own, and ten
/// digits without marks could be anything.
///
/// Known to be taken for one: other numbers in groups of three, three and four.
fn phone(text: &str, start: usize) -> Option<Range<usize>> {
    if is_word(byte_before(text, start)) {
        return None;
    }
    if byte_before(text, start) == Some(b'+') && !is_word(start.checked_sub(2).and_then(|at| byte_at(text, at))) {
        let (end, digits) = groups(text, start);
        return ((8..=15).contains(&digits) && ends_number(text, end)).then_some(start - 1..end);
    }
    if text.get(start..).is_some_and(|rest| rest.starts_with("00") && !rest.starts_with("000")) {
        let country = run(text, start, 8, |byte| byte.is_ascii_digit());
        let (end, digits) = groups(text, start);
        let has_marks = matches!(byte_at(text, start + country), Some(b' ' | b'-' | b'/' | b'('));
        return (has_marks && (3..=5).contains(&country) && (10..=17).contains(&digits) && ends_number(text, end))
            .then_some(start..end);
    }
    north_american(text, start)
}

fn north_american(text: &str, start: usize) -> Option<Range<usize>> {
    // A leading 1 is the country.
    let area = if text
        .get(start..)
        .is_some_and(|rest| rest.starts_with("1-") || rest.starts_with("1 ") || rest.starts_with("1."))
    {
        start + 2 + run(text, start + 2, 1, |byte| byte == b'(')
    } else {
        start
    };
    let digits = |at: usize, count: usize| {
        (run(text, at, count + 1, |byte| byte.is_ascii_digit()) == count).then_some(at + count)
    };
    let area_end = digits(area, 3)?;
    let in_brackets = byte_before(text, area) == Some(b'(');
    let (exchange, mark) = match byte_at(text, area_end)? {
        b')' if in_brackets => {
            let space = run(text, area_end + 1, 1, |byte| matches!(byte, b' ' | b'-'));
            (area_end + 1 + space, None)
        }
        mark @ (b'-' | b'.' | b' ') => (area_end + 1, Some(mark)),
        _ => return None,
    };
    let exchange_end = digits(exchange, 3)?;
    let fits = match (byte_at(text, exchange_end)?, mark) {
        (found, Some(mark)) => found == mark,
        (found, None) => matches!(found, b'-' | b'.' | b' '),
    };
    let line_end = digits(exchange_end + 1, 4)?;
    let is_assigned =
        [area, exchange].into_iter().all(|at| byte_at(text, at).is_some_and(|byte| (b'2'..=b'9').contains(&byte)));
    let begin = if mark.is_none() && area == start { start - 1 } else { start };
    let is_inside = matches!(byte_before(text, begin), Some(b'-' | b'.'))
        && begin.checked_sub(2).and_then(|at| byte_at(text, at)).is_some_and(|byte| byte.is_ascii_digit());
    (fits && is_assigned && !is_inside && ends_number(text, line_end)).then_some(begin..line_end)
}

/// Digits with up to two marks between them, 15 digits at most (and the two zeros in front): where they end, and how many.
fn groups(text: &str, start: usize) -> (usize, usize) {
    let (mut end, mut digits) = (start, 0);
    loop {
        let group = run(text, end, 17_usize.saturating_sub(digits), |byte| byte.is_ascii_digit());
        digits += group;
        end += group;
        let marks = run(text, end, 3, |byte| matches!(byte, b' ' | b'-' | b'.' | b'(' | b')' | b'/'));
        let goes_on = byte_at(text, end + marks).is_some_and(|byte| byte.is_ascii_digit());
        if group == 0 || digits >= 17 || marks > 2 || !goes_on || digits > 0 && marks == 0 {
            return (end, digits);
        }
        end += marks;
    }
}

/// Where a number has begun that goes on to the end of the text and shows more than one may: of a card more than six digits, of
/// the others more than four.
pub(super) fn open_end(text: &str, wanted: Detectors) -> Option<usize> {
    let start = text.len() - run_before(text, text.len(), LEAD_BYTES_MAX, is_of_run);
    let last = text.get(start..)?;
    let first = last.find(|c: char| c.is_ascii_digit())?;
    let (lead, number) = last.split_at_checked(first)?;
    let count = number.bytes().filter(u8::is_ascii_digit).count();
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b' ' | b'-'));
    if is_word(byte_before(text, start)) && lead.is_empty() {
        return None;
    }
    let is_card =
        || wanted.has(Detector::Card) && count > 6 && is_plain && number.starts_with(['2', '3', '4', '5', '6']);
    let is_ssn = || {
        let mut groups = number.split(['-', ' ']);
        let (area, group, serial) = (groups.next(), groups.next(), groups.next());
        wanted.has(Detector::UsSsn)
            && count > 4
            && area.is_some_and(|area| area.len() == 3)
            && group.is_some_and(|group| group.len() == 2 || group.len() < 2 && serial.is_none())
            && serial.is_none_or(|serial| serial.len() < 5)
            && groups.next().is_none()
    };
    let is_phone = || {
        let grouped = number.as_bytes().get(3).is_some_and(|byte| !byte.is_ascii_digit())
            && number.starts_with(['2', '3', '4', '5', '6', '7', '8', '9']);
        let led = ["1-", "1.", "1 ", "00"].iter().any(|lead| number.starts_with(lead));
        wanted.has(Detector::Phone) && count > 4 && (lead.ends_with(['+', '(']) || grouped || led)
    };
    let lead_kept = if lead.ends_with(['+', '(']) { 1 } else { 0 };
    (is_card() || is_ssn() || is_phone()).then(|| start + first - lead_kept)
}

fn starts_group(text: &str, at: usize) -> bool {
    let is_digit = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_digit());
    is_digit(byte_at(text, at)) && !is_digit(byte_before(text, at))
}

fn is_of_run(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b' ' | b'-' | b'.' | b'(' | b')' | b'+' | b'/')
}

/// How far in front of an anchor's end its run can begin unseen: it was looked at from there, or holds less than seven digits.
const LEAD_BYTES_MAX: usize = 64;
