//! What our own calls do, and refuse to do, against servers that misbehave.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should fail loudly")]

use std::process::Command;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::*;

#[tokio::test]
async fn an_answer_comes_with_status_headers_and_body() {
    let (url, asked) = serve_once("HTTP/1.1 201 Created\r\nX-A: b\r\nContent-Length: 2\r\n\r\n{}").await;
    let answer = outbound().get(&url, 2).await.unwrap();
    assert_eq!((answer.status, &*answer.body), (StatusCode::CREATED, &b"{}"[..]));
    assert_eq!(answer.headers.get("x-a").unwrap(), "b");
    assert_eq!(answer.ok().unwrap_err(), NetError::BadStatus(201));
    let asked = asked.await.unwrap();
    assert!(asked.starts_with("GET / HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("user-agent: portcullis/"), "{asked}");
    assert!(asked.contains("accept: application/json\r\n"), "{asked}");
    assert!(!asked.contains("accept-encoding"), "{asked}");
}

#[tokio::test]
async fn a_form_is_posted_as_it_is_with_the_headers_given() {
    let (url, asked) = serve_once("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_static("Basic eDp5"));
    let answer = outbound().post_form(&url, headers, "a=b&c=%20", 1024, GET_TIMEOUT).await.unwrap();
    assert_eq!(answer.ok().unwrap(), "{}");
    let asked = asked.await.unwrap();
    assert!(asked.starts_with("POST / HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("content-type: application/x-www-form-urlencoded\r\n"), "{asked}");
    assert!(asked.contains("authorization: Basic eDp5\r\n"), "{asked}");
    assert!(asked.ends_with("\r\n\r\na=b&c=%20"), "{asked}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let (target, followed) = serve_once("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    for status in [301, 302, 303, 307, 308] {
        let redirect = format!("HTTP/1.1 {status} x\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
        let (url, _) = serve_once(&redirect).await;
        let answer = outbound().get(&url, 1024).await.unwrap();
        assert_eq!(answer.ok().unwrap_err(), NetError::BadStatus(status));
    }
    drop(followed);
}

#[tokio::test]
async fn an_answer_over_the_bound_is_refused_announced_or_not() {
    let announced = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\nxxxx";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n";
    let until_close = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcdef";
    for (response, bytes_max, expected) in
        [(announced, 1024, NetError::TooLarge), (chunked, 5, NetError::TooLarge), (until_close, 5, NetError::TooLarge)]
    {
        let (url, _) = serve_once(response).await;
        assert_eq!(outbound().get(&url, bytes_max).await.unwrap_err(), expected, "{response}");
    }
    let (url, _) = serve_once(chunked).await;
    assert_eq!(outbound().get(&url, 6).await.unwrap().body, "abcdef");
}

#[tokio::test]
async fn failures_are_told_apart() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let refused = outbound().get(&format!("http://{closed}/"), 1024).await;
    assert_eq!(refused.unwrap_err(), NetError::Connect);

    let (plain, _) = serve_once("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let tls = outbound().get(&plain.replace("http://", "https://"), 1024).await;
    assert_eq!(tls.unwrap_err(), NetError::Tls);

    let (broken, _) = serve_once("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await;
    assert_eq!(outbound().get(&broken, 1024).await.unwrap_err(), NetError::Protocol);

    let (nonsense, _) = serve_once("SSH-2.0-OpenSSH_9.2\r\n").await;
    assert_eq!(outbound().get(&nonsense, 1024).await.unwrap_err(), NetError::Protocol);
}

#[tokio::test]
async fn a_server_that_does_not_answer_costs_the_timeout_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let call = outbound().post_form(&url, HeaderMap::new(), "a=b", 1024, Duration::from_millis(50)).await;
    assert_eq!(call.unwrap_err(), NetError::Timeout);
}

#[test]
fn urls_are_https_or_this_machine() {
    let cases = [
        ("https://idp.example.com/x", None),
        ("http://127.0.0.1:9/x", None),
        ("http://127.9.9.9/", None),
        ("http://[::1]:9/x", None),
        ("http://localhost/", None),
        ("http://LOCALHOST:8080/", None),
        ("http://idp.localhost/", None),
        // The URL standard reads these as 127.0.0.1, and so it is.
        ("http://2130706433/", None),
        ("http://0x7f.1/", None),
        ("http://idp.example.com/", Some(NetError::InsecureUrl)),
        ("http://10.0.0.1/", Some(NetError::InsecureUrl)),
        ("https://10.0.0.1/", None),
        ("https://[fd12::1]/", None),
        // Every spelling of 169.254.169.254 that the URL standard knows.
        ("http://169.254.169.254/latest", Some(NetError::ForbiddenAddress)),
        ("https://169.254.169.254/latest", Some(NetError::ForbiddenAddress)),
        ("https://2852039166/latest", Some(NetError::ForbiddenAddress)),
        ("https://0xa9fea9fe/latest", Some(NetError::ForbiddenAddress)),
        ("https://0xa9.0xfe.0xa9.0xfe/", Some(NetError::ForbiddenAddress)),
        ("https://0251.0376.0251.0376/", Some(NetError::ForbiddenAddress)),
        ("https://169.16689662/", Some(NetError::ForbiddenAddress)),
        ("https://169.254.169.254./", Some(NetError::ForbiddenAddress)),
        ("https://\u{ff11}69.254.169.254/", Some(NetError::ForbiddenAddress)),
        ("https://169%2E254.169.254/", Some(NetError::ForbiddenAddress)),
        ("https://[::ffff:169.254.169.254]/", Some(NetError::ForbiddenAddress)),
        ("https://[::ffff:a9fe:a9fe]/", Some(NetError::ForbiddenAddress)),
        ("https://[64:ff9b::a9fe:a9fe]/", Some(NetError::ForbiddenAddress)),
        ("https://[2002:a9fe:a9fe::]/", Some(NetError::ForbiddenAddress)),
        ("https://[fd00:ec2::254]/", Some(NetError::ForbiddenAddress)),
        ("https://[fe80::1]/", Some(NetError::ForbiddenAddress)),
        ("https://[::]/", Some(NetError::ForbiddenAddress)),
        ("https://0/", Some(NetError::ForbiddenAddress)),
        ("http://0.0.0.0/", Some(NetError::ForbiddenAddress)),
        ("https://224.0.0.1/", Some(NetError::ForbiddenAddress)),
        ("http://127.0.0.1.nip.io/", Some(NetError::InsecureUrl)),
        ("http://localhost.example.com/", Some(NetError::InsecureUrl)),
        ("http://notlocalhost/", Some(NetError::InsecureUrl)),
        ("http://127.0.0.1@example.com/", Some(NetError::BadUrl)),
        ("https://user:pass@example.com/", Some(NetError::BadUrl)),
        ("file:///etc/passwd", Some(NetError::BadUrl)),
        ("ftp://127.0.0.1/", Some(NetError::BadUrl)),
        ("javascript:alert(1)", Some(NetError::BadUrl)),
        ("idp.example.com", Some(NetError::BadUrl)),
        ("https://", Some(NetError::BadUrl)),
        ("", Some(NetError::BadUrl)),
    ];
    for (url, expected) in cases {
        assert_eq!(checked_url(url, &[]).err(), expected, "{url}");
    }
}

#[test]
fn a_host_named_by_the_operator_may_be_called_without_tls_and_no_other() {
    let named = ["sts.internal".to_owned(), "10.0.0.7".to_owned(), "169.254.169.254".to_owned()];
    for (url, expected) in [
        ("http://sts.internal/token", None),
        ("http://STS.internal:8080/token", None),
        ("http://10.0.0.7/", None),
        ("http://sts.internal.example.com/", Some(NetError::InsecureUrl)),
        ("http://other.internal/", Some(NetError::InsecureUrl)),
        ("http://sts.internal@example.com/", Some(NetError::BadUrl)),
        ("http://169.254.169.254/", Some(NetError::ForbiddenAddress)),
    ] {
        assert_eq!(checked_url(url, &named).err(), expected, "{url}");
    }
}

#[tokio::test]
async fn a_named_host_is_called_without_tls_once_it_is_named() {
    let (url, _request) = serve_once("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    let outbound = resolving_to(&["127.0.0.1"]);
    let url = url.replace("127.0.0.1", "sts.internal");
    assert_eq!(outbound.get(&url, 10).await.unwrap_err(), NetError::InsecureUrl);
    outbound.clone().allow_plain_http(&["sts.internal".to_owned()]);
    assert_eq!(outbound.get(&url, 10).await.unwrap().body, "{}");
    outbound.allow_plain_http(&[]);
    assert_eq!(outbound.get(&url, 10).await.unwrap_err(), NetError::InsecureUrl);
}

/// DNS rebinding: a name whose answer mixes addresses is reached at the good one; without a good one, not at all.
#[tokio::test]
async fn a_name_leads_only_to_addresses_that_may_be_called() {
    let (url, asked) = serve_once("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
    let url = url.replace("127.0.0.1", "idp.localhost");
    let mixed = resolving_to(&["169.254.169.254", "::ffff:169.254.169.254", "192.0.2.1", "127.0.0.1"]);
    assert_eq!(mixed.get(&url, 1024).await.unwrap().body, "{}");
    assert!(asked.await.unwrap().contains("host: idp.localhost:"));

    for (url, answer) in [
        ("https://idp.test/jwks", &["169.254.169.254", "fe80::1", "fd00:ec2::254"][..]),
        ("https://idp.test/jwks", &["0.0.0.0", "::", "2002:a9fe:a9fe::1"]),
        // Plain http is for this machine alone, whatever the resolver says of the name.
        ("http://idp.localhost/jwks", &["192.0.2.1", "10.0.0.1"]),
    ] {
        let refused = resolving_to(answer).get(url, 1024).await;
        assert_eq!(refused.unwrap_err(), NetError::ForbiddenAddress, "{url} {answer:?}");
    }
}

/// The environment of a process is set when it starts, so this test starts one: itself.
#[test]
fn a_machine_without_certificates_but_with_a_proxy_variable_still_calls_loopback_directly() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "net::client::tests::child_of_a_bare_machine"])
        .env("SSL_CERT_FILE", "/nonexistent/cert.pem")
        .env("SSL_CERT_DIR", "/nonexistent")
        .envs(["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"].map(|name| (name, "http://127.0.0.1:1")))
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && out.contains("1 passed"), "{out}{}", String::from_utf8_lossy(&child.stderr));
}

#[tokio::test]
#[ignore = "started by the test above in a process of its own"]
async fn child_of_a_bare_machine() {
    let outbound = Outbound::new().unwrap();
    assert!(!outbound.has_system_roots());
    let (url, _) = serve_once("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
    assert_eq!(outbound.get(&url, 1024).await.unwrap().ok().unwrap(), "{}");
}

fn outbound() -> Outbound {
    Outbound::new().unwrap()
}

/// A client to which every name resolves alike.
fn resolving_to(addresses: &[&str]) -> Outbound {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Outbound::resolving_by(Arc::new(Always(addresses))).unwrap()
}

struct Always(Vec<IpAddr>);

#[async_trait::async_trait]
impl Lookup for Always {
    async fn lookup(&self, _host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(self.0.clone())
    }
}

/// A server that reads one request, answers these very bytes, and hangs up. It tells what it was asked.
async fn serve_once(response: &str) -> (String, oneshot::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (tell, asked) = oneshot::channel();
    let response = response.to_owned();
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let read = connection.read(&mut buffer).await.unwrap_or(0);
            request.extend(buffer.iter().take(read));
            let text = String::from_utf8_lossy(&request);
            if read == 0 || is_whole(&text) || !text.starts_with(['G', 'P']) {
                break;
            }
        }
        let _ = tell.send(String::from_utf8_lossy(&request).into_owned());
        let _ = connection.write_all(response.as_bytes()).await;
        let _ = connection.shutdown().await;
    });
    (url, asked)
}

fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.is_none_or(|length| length.parse() == Ok(body.len()))
}
