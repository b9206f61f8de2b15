//! What does the browser keep for us?

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

/// The session of somebody who has signed in. `__Host-` (RFC 6265bis §4.1.3.2): set by this very host over a trustworthy
/// connection, so no other host, sibling or subdomain can plant one.
pub(in super::super) const SESSION: &str = "__Host-portcullis";

/// A sign-in that this browser has begun.
pub(in super::super) const ATTEMPT: &str = "__Host-portcullis-signin";

/// The value of the one cookie of this name; two of them are none.
pub(in super::super) fn find<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut found = lines.flat_map(|line| line.split(';')).filter_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then_some(value)
    });
    match (found.next(), found.next()) {
        (Some(value), None) if value.len() <= VALUE_BYTES_MAX => Some(value),
        _ => None,
    }
}

/// `Lax`, because the issuer sends people back from another site.
pub(in super::super) fn set(name: &str, value: &str, seconds: u64) -> Option<HeaderValue> {
    let cookie = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}");
    HeaderValue::from_str(&cookie).ok()
}

/// Has the browser forget it.
pub(in super::super) fn clear(name: &str) -> Option<HeaderValue> {
    set(name, "", 0)
}

/// Browsers keep 4096 bytes of a cookie.
const VALUE_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_cookie_of_the_name_counts() {
        let headers = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(COOKIE, HeaderValue::from_static(line));
            }
            headers
        };
        assert_eq!(find(&headers(&["a=1; __Host-portcullis=x; b=2"]), SESSION), Some("x"));
        assert_eq!(find(&headers(&["a=1", "__Host-portcullis=x"]), SESSION), Some("x"));
        for lines in [
            &["__Host-portcullis=x; __Host-portcullis=y"][..],
            &["__Host-portcullis=x", "__Host-portcullis=y"],
            &["__Host-portcullis-signin=x"],
            &["__host-portcullis=x"],
            &[],
        ] {
            assert_eq!(find(&headers(lines), SESSION), None, "{lines:?}");
        }
    }
}
