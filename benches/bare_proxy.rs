//! What would Pingora cost without a gateway in it? A proxy with no filters, built from the same dependencies, with the
//! same profile and allocator: the ceiling that `benches/load/run.sh` holds Portcullis against.
//!
//! `bare_proxy LISTEN UPSTREAM [CERTIFICATE KEY AUTHORITY]`, the first two `127.0.0.1:PORT`, the others PEM files with which
//! it speaks TLS on both sides. One worker thread.
#![expect(clippy::expect_used, reason = "a measurement that cannot be set up should fail loudly")]

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::server::configuration::{Opt, ServerConf};
use pingora::server::{RunArgs, Server};
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{WrappedX509, parse_x509};
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Bare {
    upstream: HttpPeer,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _client: &mut Session, _ctx: &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(self.upstream.clone()))
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let (Some(listen), Some(upstream)) = (arguments.next(), arguments.next()) else { return };
    let upstream: SocketAddr = upstream.parse().expect("UPSTREAM is not IP:PORT");
    let tls: Vec<String> = arguments.collect();
    let mut upstream = HttpPeer::new(upstream, !tls.is_empty(), "localhost".to_owned());
    let conf = ServerConf { threads: 1, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(Opt::default(), conf);
    server.bootstrap();
    if let [_, _, authority] = &tls[..] {
        let authority = CertificateDer::from_pem_file(authority).expect("AUTHORITY cannot be read");
        upstream.options.ca = Some(Arc::from([WrappedX509::new(authority.to_vec(), parse_x509)]));
    }
    let mut service = http_proxy_service(&server.configuration, Bare { upstream });
    match &tls[..] {
        [certificate, key, _] => service.add_tls(&listen, certificate, key).expect("TLS"),
        _ => service.add_tcp(&listen),
    }
    server.add_service(service);
    server.run(RunArgs::default());
}
