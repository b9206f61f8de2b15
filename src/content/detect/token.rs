//! Keys and tokens that say by their first letters what they are.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Detector, Detectors, byte_at, byte_before, is_word, run, run_before};

/// `AKIA` or `ASIA`, `ABIA`, `ACCA` and 16 capital letters or digits. The anchor is the first five.
pub(super) fn aws_key_id(text: &str, end: usize) -> Option<Range<usize>> {
    let start = end.checked_sub(5)?;
    let length = run(text, start, 21, |byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    let is_one = length == 20 && !is_word(byte_before(text, start)) && !is_word(byte_at(text, start + 20));
    is_one.then_some(start..start + 20)
}

/// 40 characters of base64 behind a name such as `aws_secret_access_key` and what stands between a name and its value. A
/// secret access key alone cannot be told from any other 40 characters.
pub(super) fn aws_secret(text: &str, end: usize) -> Option<Range<usize>> {
    let between = run(text, end, 12, |byte| matches!(byte, b' ' | b'\t' | b'"' | b'\'' | b'=' | b':' | b'>' | b'\\'));
    let start = end + between;
    let length = run(text, start, 41, is_base64);
    (between > 0 && length == 40).then_some(start..start + 40)
}

/// `ghp_`, `gho_`, `ghu_`, `ghs_`, `ghr_` and at least 36 letters or digits. The anchor is the prefix and one of them.
pub(super) fn github(text: &str, end: usize) -> Option<Range<usize>> {
    prefixed(text, end.checked_sub(5)?, 4, 36, is_name)
}

/// `github_pat_` and at least 22 characters.
pub(super) fn github_pat(text: &str, end: usize) -> Option<Range<usize>> {
    prefixed(text, end.checked_sub(12)?, 11, 22, is_name)
}

/// `AIza` and 35 characters: an API key.
pub(super) fn google_api_key(text: &str, end: usize) -> Option<Range<usize>> {
    let start = end.checked_sub(5)?;
    let length = run(text, start, 40, is_base64url);
    (length == 39 && !is_word(byte_before(text, start))).then_some(start..start + 39)
}

/// `ya29.`, an access token, or `GOCSPX-`, the secret of a client.
pub(super) fn google_other(text: &str, end: usize) -> Option<Range<usize>> {
    if text.get(..end)?.ends_with("ya29.") {
        return prefixed(text, end - 5, 5, 20, |byte| is_base64url(byte) || byte == b'.');
    }
    prefixed(text, end.checked_sub(7)?, 7, 20, is_base64url)
}

/// `xoxb-` and its like, or `xapp-`, and at least 10 characters.
pub(super) fn slack(text: &str, end: usize) -> Option<Range<usize>> {
    prefixed(text, end.checked_sub(5)?, 5, 10, |byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The address of a webhook or a workflow: whoever has it may post.
pub(super) fn slack_hook(text: &str, end: usize) -> Option<Range<usize>> {
    let start = end.checked_sub(HOOKS.len())?;
    let kinds = ["services/", "workflows/", "triggers/"];
    let is_hook = kinds.iter().any(|kind| text.get(end..).is_some_and(|path| path.starts_with(kind)));
    let length = run(text, end, 256, |byte| is_name(byte) || byte == b'/' || byte == b'+' || byte == b'-');
    (is_hook && length >= 20).then_some(start..end + length)
}

/// A JSON web token (RFC 7519): a header that is JSON with `alg`, a body, and a signature that may be empty; an encrypted one
/// (RFC 7516) with its five parts. The anchor is `eyJ` and one more.
pub(super) fn jwt(text: &str, end: usize) -> Option<Range<usize>> {
    let start = end.checked_sub(4)?;
    // Deep inside a run nothing begins; looking at each of a thousand places there would not be linear.
    if run_before(text, start, GLUED_BYTES_MAX + 1, is_base64url) > GLUED_BYTES_MAX {
        return None;
    }
    let header_length = run(text, start, JWT_HEADER_BYTES_MAX, is_base64url);
    let mut at = start + header_length;
    let mut parts = 1;
    while parts < 5 && byte_at(text, at) == Some(b'.') {
        let length = run(text, at + 1, text.len(), is_base64url);
        // The second part of a signed token and the fourth of an encrypted one are never empty.
        if length == 0 && parts == 1 && byte_at(text, at + 1) != Some(b'.') {
            return None;
        }
        at += 1 + length;
        parts += 1;
    }
    if parts < 3 || !is_jose_header(text.get(start..start + header_length)?) {
        return None;
    }
    // A dot that ends a sentence is not part of it.
    let at = if parts > 3 && byte_before(text, at) == Some(b'.') { at - 1 } else { at };
    Some(start..at)
}

fn is_jose_header(part: &str) -> bool {
    let Ok(header) = URL_SAFE_NO_PAD.decode(part) else { return false };
    let header: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_slice(&header);
    header.is_ok_and(|header| header.contains_key("alg"))
}

/// A PEM block (RFC 7468) whose label ends with `PRIVATE KEY`, or the one of PGP. Without its end it reaches to the end of the
/// text: what follows is the key. The anchor is `-----BEGIN`.
pub(super) fn private_key(text: &str, end: usize) -> Option<Range<usize>> {
    let start = end.checked_sub(BEGIN.len())?;
    let label =
        run(text, end, LABEL_BYTES_MAX, |byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' ');
    let label_end = end + label;
    let name = text.get(end..label_end)?.trim();
    let is_private = name.ends_with("PRIVATE KEY") || name.ends_with("PRIVATE KEY BLOCK");
    let rest = text.get(label_end..)?;
    if !is_private || !rest.starts_with("-----") {
        return None;
    }
    let closing = rest.find("-----END").map_or(text.len(), |at| {
        let from = label_end + at + "-----END".len();
        let label = run(text, from, LABEL_BYTES_MAX, |byte| byte != b'-' && byte != b'\n');
        from + label + run(text, from + label, 5, |byte| byte == b'-')
    });
    // The label may have been cut inside a character that no label has.
    let closing = (closing..=text.len()).find(|at| text.is_char_boundary(*at))?;
    Some(start..closing)
}

/// Where a token has begun that goes on to the end of the text and has more than its prefix, but is not whole.
pub(super) fn open_end(text: &str, wanted: Detectors) -> Option<usize> {
    let is_token = |byte: u8| is_base64url(byte) || matches!(byte, b'.' | b'/' | b'+');
    let start = text.len() - run_before(text, text.len(), text.len(), is_token);
    let last = text.get(start..)?;
    let prefixes: [(Detector, &[&str]); 5] = [
        (Detector::AwsKey, &["AKIA", "ASIA", "ABIA", "ACCA"]),
        (Detector::GitHubToken, &["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"]),
        (Detector::GoogleKey, &["AIza", "ya29.", "GOCSPX-"]),
        (Detector::Jwt, &["eyJ"]),
        (
            Detector::SlackToken,
            &["xoxa-", "xoxb-", "xoxc-", "xoxd-", "xoxe-", "xoxo-", "xoxp-", "xoxr-", "xoxs-", "xapp-", HOOKS],
        ),
    ];
    let begun = prefixes.iter().filter(|(detector, _)| wanted.has(*detector)).flat_map(|(_, prefixes)| *prefixes);
    let mut places: Vec<usize> =
        begun.filter_map(|prefix| last.find(prefix).filter(|at| at + prefix.len() < last.len())).collect();
    if wanted.has(Detector::AwsKey) && last.len() >= 4 && last.len() <= 40 {
        let before = text.get(..start)?.trim_end_matches([' ', '\t', '"', '\'', '=', ':', '>', '\\']);
        let name = before.get(before.len().saturating_sub(17)..).unwrap_or_default().to_ascii_lowercase();
        let is_named =
            ["secret_access_key", "secretaccesskey", "secret-access-key", "secret_key", "secretkey", "secret-key"];
        if before.len() < start && is_named.iter().any(|ending| name.ends_with(ending)) {
            places.push(0);
        }
    }
    places.into_iter().min().map(|at| start + at)
}

fn prefixed(text: &str, start: usize, prefix: usize, least: usize, fits: fn(u8) -> bool) -> Option<Range<usize>> {
    if is_word(byte_before(text, start)) {
        return None;
    }
    let length = run(text, start + prefix, TOKEN_BYTES_MAX, fits);
    (length >= least).then_some(start..start + prefix + length)
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/'
}

fn is_base64url(byte: u8) -> bool {
    is_name(byte) || byte == b'-'
}

const BEGIN: &str = "-----BEGIN";
const HOOKS: &str = "hooks.slack.com/";
/// How much may stand right in front of a JSON web token.
const GLUED_BYTES_MAX: usize = 32;
const LABEL_BYTES_MAX: usize = 64;
const JWT_HEADER_BYTES_MAX: usize = 8192;
const TOKEN_BYTES_MAX: usize = 4096;
