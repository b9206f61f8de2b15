//! What would Pingora cost without a gateway in it? A proxy with no filters, built from the same dependencies, with the
//! same profile and allocator: the ceiling that `benches/load/run.sh` holds Portcullis against.
//!
//! `bare_proxy LISTEN UPSTREAM`, each `127.0.0.1:PORT`. One worker thread.
#![expect(clippy::expect_used, reason = "a measurement that cannot be set up should fail loudly")]

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora::server::configuration::{Opt, ServerConf};
use pingora::server::{RunArgs, Server};
use pingora::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Bare {
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _client: &mut Session, _ctx: &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let (Some(listen), Some(upstream)) = (arguments.next(), arguments.next()) else { return };
    let upstream = upstream.parse().expect("UPSTREAM is not IP:PORT");
    let conf = ServerConf { threads: 1, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(Opt::default(), conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Bare { upstream });
    service.add_tcp(&listen);
    server.add_service(service);
    server.run(RunArgs::default());
}
