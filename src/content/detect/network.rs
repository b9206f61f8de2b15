//! E-mail addresses and addresses of machines.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::{Detector, Detectors, byte_at, byte_before, is_word, run, run_before};

/// A mailbox at a domain with a top level of letters: `first.last+tag@mail.example.com`, also in other scripts. The anchor ends
/// behind the first character of the domain.
///
/// Known to be taken for one: `git@host.tld`, the user in front of a repository; and names of files with an `@`, but for those
/// of pictures and web pages.
pub(super) fn email(text: &str, end: usize) -> Option<Range<usize>> {
    // The anchor may end inside a character.
    let at = text.as_bytes().get(..end)?.iter().rposition(|byte| *byte == b'@')?;
    let start = at - mailbox_before(text, at)?;
    let domain = text.get(at + 1..)?;
    let is_domain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.');
    let length: usize = domain.chars().take(DOMAIN_CHARS_MAX).take_while(|c| is_domain(*c)).map(char::len_utf8).sum();
    let mut domain = domain.get(..length)?.trim_end_matches(['.', '-']);
    // "x.com.2" is an address and a number.
    loop {
        let (rest, top) = domain.rsplit_once('.')?;
        if rest.is_empty() || rest.ends_with('.') {
            return None;
        }
        if is_top_level(top) {
            return Some(start..at + 1 + domain.len());
        }
        domain = rest;
    }
}

fn mailbox_before(text: &str, at: usize) -> Option<usize> {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '%' | '+' | '-' | '\'');
    let before = text.get(..at)?;
    let length: usize = before.chars().rev().take(MAILBOX_CHARS_MAX).take_while(|c| fits(*c)).map(char::len_utf8).sum();
    let mailbox = before.get(at - length..)?.trim_start_matches(['.', '%', '+', '-', '\'']);
    (!mailbox.is_empty()).then_some(mailbox.len())
}

/// Letters, at least two, and not the ending of a file that is often named with an `@` (`icon@2x.png`).
fn is_top_level(label: &str) -> bool {
    const FILES: [&str; 10] = ["png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "html", "ts"];
    let is_coded = label.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("xn--"));
    let letters = label.chars().all(char::is_alphabetic) && label.chars().nth(1).is_some();
    (is_coded || letters) && !FILES.iter().any(|file| label.eq_ignore_ascii_case(file))
}

/// Four numbers up to 255. The anchor ends behind the first digit of the third, or
/// of the fourth.
///
/// Known to be taken for one: versions of four parts (`2.4.12.1`), unless a letter stands in front.
pub(super) fn ip4(text: &str, end: usize) -> Option<Range<usize>> {
    let fits = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    let start = end - run_before(text, end, 16, fits);
    let end = end + run(text, end, 16, fits);
    let address = text.get(start..end)?.trim_end_matches('.');
    let end = start + address.len();
    let stands_alone = !is_word(byte_before(text, start)) && !is_word(byte_at(text, end));
    (stands_alone && address.parse::<Ipv4Addr>().is_ok()).then_some(start..end)
}

/// What `std` reads as an IPv6 address, with a digit in it or three groups at least. The anchor ends behind its second colon.
///
/// Known to be taken for one: three or more words of hex letters between colons (`a::b::c` is none).
pub(super) fn ip6(text: &str, end: usize) -> Option<Range<usize>> {
    let fits = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let start = end - run_before(text, end, 48, fits);
    let end = end + run(text, end, 48, fits);
    if is_word(byte_before(text, start)) || is_word(byte_at(text, end)) {
        return None;
    }
    let whole = text.get(start..end)?;
    // What ends a sentence or begins a list is not part of it.
    let skipped = whole.len() - whole.trim_start_matches('.').len();
    let whole = whole.get(skipped..)?;
    let candidates = [whole.trim_end_matches('.'), whole.trim_end_matches(['.', ':'])];
    let address = candidates.into_iter().find(|text| text.parse::<Ipv6Addr>().is_ok())?;
    let telling = address.bytes().any(|byte| byte.is_ascii_digit())
        || address.split(':').filter(|group| !group.is_empty()).count() >= 3;
    telling.then_some(start + skipped..start + skipped + address.len())
}

/// Where an address has begun that goes on to the end of the text: a mailbox with its `@`, the first three numbers of an
/// IPv4 address, the first two groups of an IPv6 address.
pub(super) fn open_end(text: &str, wanted: Detectors) -> Option<usize> {
    let mail = || {
        let at = text.rfind('@')?;
        let domain = text.get(at + 1..)?;
        let fits = domain.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '.'));
        fits.then(|| mailbox_before(text, at).map(|length| at - length)).flatten()
    };
    let address = || {
        let fits = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
        let start = text.len() - run_before(text, text.len(), 48, fits);
        let last = text.get(start..)?;
        let is_four = last.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let numbers = last.split('.').filter(|part| !part.is_empty()).count();
        let is_begun = is_four && numbers >= 3 || !is_four && last.matches(':').count() >= 2;
        (is_begun && !is_word(byte_before(text, start))).then_some(start)
    };
    let mail = wanted.has(Detector::Email).then(mail).flatten();
    let address = wanted.has(Detector::Ip).then(address).flatten();
    mail.into_iter().chain(address).min()
}

const DOMAIN_CHARS_MAX: usize = 255;
const MAILBOX_CHARS_MAX: usize = 64;
