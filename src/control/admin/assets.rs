//! What do browsers load? Files that are part of the binary, each with the digest of its bytes as `ETag`, and compressed for
//! those who take it.

use std::io::Write as _;
use std::sync::LazyLock;

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::identity::crypto::sha256;

use super::guard::PAGE;

/// A file of `ui/`.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

/// A file as it is sent.
struct Served {
    asset: &'static Asset,
    plain_tag: HeaderValue,
    gzip: Vec<u8>,
    gzip_tag: HeaderValue,
}

macro_rules! asset {
    ($path:literal, $type:expr) => {
        Asset { path: concat!("/", $path), content_type: $type, bytes: include_bytes!(concat!("ui/", $path)) }
    };
}

/// Every file that is served. The pages of the app are all one document, which reads its place from the part of the address
/// after `#`.
const ASSETS: &[Asset] = &[
    Asset { path: "/", content_type: HTML, bytes: include_bytes!("ui/index.html") },
    asset!("app.css", CSS),
    asset!("app.js", JS),
    asset!("icon.svg", "image/svg+xml"),
    asset!("pages.css", CSS),
    asset!("theme.js", JS),
    asset!("lib/api.js", JS),
    asset!("lib/approve.js", JS),
    asset!("lib/chart.js", JS),
    asset!("lib/definition.js", JS),
    asset!("lib/diff.js", JS),
    asset!("lib/dom.js", JS),
    asset!("lib/numbers.js", JS),
    asset!("lib/parts.js", JS),
    asset!("lib/records.js", JS),
    asset!("lib/words.js", JS),
    asset!("pages/agents.js", JS),
    asset!("pages/approvals.js", JS),
    asset!("pages/audit.js", JS),
    asset!("pages/config.js", JS),
    asset!("pages/item.js", JS),
    asset!("pages/overview.js", JS),
    asset!("pages/policy.js", JS),
    asset!("pages/quarantines.js", JS),
    asset!("pages/register.js", JS),
    asset!("pages/server.js", JS),
    asset!("pages/servers.js", JS),
    asset!("pages/sessions.js", JS),
    asset!("pages/signin.js", JS),
    asset!("pages/why.js", JS),
];

/// Compressed once, when the first page is asked for.
static SERVED: LazyLock<Vec<Served>> = LazyLock::new(|| ASSETS.iter().map(Served::of).collect());

/// The file at the request's path; `None` when there is none.
pub(super) fn find(request: &Request) -> Option<Response> {
    let served = SERVED.iter().find(|served| served.asset.path == request.uri().path())?;
    let takes_gzip = takes_gzip(request.headers());
    let tag = if takes_gzip { &served.gzip_tag } else { &served.plain_tag };
    let has_it = request.headers().get_all(IF_NONE_MATCH).iter().any(|tags| names(tags, tag));
    let mut answer = match (has_it, takes_gzip) {
        (true, _) => StatusCode::NOT_MODIFIED.into_response(),
        (false, true) => served.gzip.as_slice().into_response(),
        (false, false) => served.asset.bytes.into_response(),
    };
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(served.asset.content_type));
    // Asked for every time, sent only when it has changed.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(PAGE, HeaderValue::from_static("1"));
    headers.insert(ETAG, tag.clone());
    if takes_gzip && !has_it {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Some(answer)
}

impl Served {
    fn of(asset: &'static Asset) -> Self {
        // Writing to memory does not fail; if it did, what is sent plain is right all the same.
        let compress = || {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(asset.bytes).and_then(|()| encoder.finish())
        };
        let gzip = compress().unwrap_or_default();
        let digest = URL_SAFE_NO_PAD.encode(sha256(asset.bytes));
        let tag = |text: String| HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("\"\""));
        Self { asset, plain_tag: tag(format!("\"{digest}\"")), gzip, gzip_tag: tag(format!("\"{digest}.gz\"")) }
    }
}

/// Whether one of these tags is `tag`; compared weakly (RFC 9110 §13.1.2).
fn names(tags: &HeaderValue, tag: &HeaderValue) -> bool {
    let is_it = |one: &str| one.trim().trim_start_matches("W/").as_bytes() == tag.as_bytes();
    tags.to_str().is_ok_and(|tags| tags.split(',').any(is_it))
}

/// Whether gzip is named and not ruled out with `q=0` (RFC 9110 §12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let is_ruled_out = |weight: &str| {
            let quality = weight.strip_prefix("q=").or(weight.strip_prefix("Q="));
            quality.is_some_and(|quality| quality.parse::<f32>().is_ok_and(|quality| quality <= 0.0))
        };
        is_gzip && !parts.any(is_ruled_out)
    })
}

const CSS: &str = "text/css; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// A file that is not served is a page that does not work.
    #[test]
    fn every_file_of_the_pages_is_served() {
        fn files(directory: &Path, prefix: &str, found: &mut BTreeSet<String>) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                let name = format!("{prefix}/{}", entry.file_name().to_string_lossy());
                if entry.file_type().unwrap().is_dir() {
                    files(&entry.path(), &name, found);
                } else {
                    found.insert(name);
                }
            }
        }
        let mut found = BTreeSet::new();
        files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/control/admin/ui"), "", &mut found);
        found.remove("/index.html");
        found.insert("/".to_owned());
        let served: BTreeSet<String> = ASSETS.iter().map(|asset| asset.path.to_owned()).collect();
        assert_eq!(served, found);
    }

    /// Without this, a module is fetched only once the one that names it has come.
    #[test]
    fn the_document_names_every_module_so_that_all_come_at_once() {
        let page = std::str::from_utf8(ASSETS.first().unwrap().bytes).unwrap();
        for asset in ASSETS.iter().filter(|asset| asset.path.contains("/lib/") || asset.path.contains("/pages/")) {
            assert!(page.contains(&format!("<link rel=\"modulepreload\" href=\"{}\">", asset.path)), "{}", asset.path);
        }
    }

    /// Strict CSP: nothing in line, nothing from elsewhere, no way from a string to markup.
    #[test]
    fn no_file_names_another_place_or_turns_strings_into_markup() {
        for asset in ASSETS {
            let text = std::str::from_utf8(asset.bytes).unwrap();
            let text = text.replace("http://www.w3.org/2000/svg", "").replace("http://10.0.0.7:3001", "");
            for forbidden in [
                "http://",
                "https://",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                " style=\"",
                "javascript:",
            ] {
                assert!(!text.contains(forbidden), "{} has {forbidden}", asset.path);
            }
        }
    }

    #[test]
    fn compressed_only_for_those_who_take_it() {
        for (line, expected) in [
            ("gzip, deflate, br, zstd", true),
            ("GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("br, gzip; q=0.0", false),
            ("identity", false),
            ("xgzip", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(line));
            assert_eq!(takes_gzip(&headers), expected, "{line}");
        }
        let (plain, sent) =
            SERVED.iter().fold((0, 0), |(plain, sent), one| (plain + one.asset.bytes.len(), sent + one.gzip.len()));
        assert!(sent * 2 < plain, "{sent} of {plain} bytes: then it does not pay");
    }
}
