//! What do browsers load? Files that are part of the binary, each with the digest of its bytes as `ETag`.

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderValue, StatusCode};

use crate::identity::crypto::sha256;

use super::guard::PAGE;

/// A file of `ui/`.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

/// Every file that is served. The pages of the app are all one document, which reads its place from the part of the address
/// after `#`.
const ASSETS: &[Asset] = &[
    Asset { path: "/", content_type: HTML, bytes: include_bytes!("ui/index.html") },
    Asset { path: "/app.css", content_type: "text/css; charset=utf-8", bytes: include_bytes!("ui/app.css") },
    Asset { path: "/app.js", content_type: "text/javascript; charset=utf-8", bytes: include_bytes!("ui/app.js") },
];

/// The file at the request's path; `None` when there is none.
pub(super) fn find(request: &Request) -> Option<Response> {
    let asset = ASSETS.iter().find(|asset| asset.path == request.uri().path())?;
    let tag = asset.tag();
    let has_it = request.headers().get_all(IF_NONE_MATCH).iter().any(|tags| {
        tags.to_str().is_ok_and(|tags| tags.split(',').any(|one| one.trim().trim_start_matches("W/") == tag))
    });
    let mut answer = if has_it { StatusCode::NOT_MODIFIED.into_response() } else { asset.bytes.into_response() };
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    // Asked for every time, sent only when it has changed.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(PAGE, HeaderValue::from_static("1"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    Some(answer)
}

impl Asset {
    fn tag(&self) -> String {
        format!("\"{}\"", URL_SAFE_NO_PAD.encode(sha256(self.bytes)))
    }
}

const HTML: &str = "text/html; charset=utf-8";
