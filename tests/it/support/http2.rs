//! Requests over HTTP/2 in clear text (prior knowledge).

use std::net::SocketAddr;

use super::{Framing, Request, Response, runtime};

/// Sends over h2c; with [`Framing::Chunked`] the body has no `content-length`.
pub fn send_h2c(address: SocketAddr, request: &Request) -> Response {
    runtime().block_on(async {
        let client = reqwest::Client::builder()
            .http2_prior_knowledge()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap();
        let method = request.method.parse::<reqwest::Method>().unwrap();
        let mut sent = client.request(method, format!("http://{address}{}", request.target));
        for (name, value) in &request.headers {
            sent = sent.header(name, value);
        }
        sent = match request.framing {
            Framing::Chunked => sent.body(unsized_body(request.body.clone())),
            Framing::Length => sent.body(request.body.clone()),
            Framing::NoBody => sent,
        };
        let answer = sent.timeout(super::DEADLINE).send().await.expect("an answer over h2c");
        let headers = answer
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let status = answer.status().as_u16();
        Response { status, headers, body: answer.bytes().await.map(|body| body.to_vec()).unwrap_or_default() }
    })
}

/// A body that does not tell its size beforehand.
fn unsized_body(bytes: Vec<u8>) -> reqwest::Body {
    let (sender, body) = super::pieces::body();
    for piece in bytes.chunks(16 * 1024) {
        sender.send(piece.to_vec());
    }
    sender.finish();
    reqwest::Body::wrap(body)
}
