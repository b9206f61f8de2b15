//! Who can reach the demo? Programs on this machine: a listener on any other address cannot be made.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpListener;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::middleware;
use axum::middleware::Next;
use axum::response::IntoResponse as _;
use axum::response::Response;
use tokio_util::sync::CancellationToken;

/// A listening TCP socket. INVARIANT: bound to a loopback address.
#[derive(Debug)]
pub struct LoopbackListener {
    socket: TcpListener,
    address: SocketAddr,
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The operating system said no; most often somebody else listens there.
    #[error("cannot listen on {address}: {cause}")]
    Io {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system said.
        cause: io::Error,
    },
    /// Anything but 127.0.0.0/8 and ::1: sample passwords must not be reachable from outside.
    #[error("the demo listens on loopback addresses only, not on {0}")]
    NotLoopback(SocketAddr),
}

impl LoopbackListener {
    /// Binds `address`; port 0 lets the system choose. From here on connections wait in the socket's queue, so whoever
    /// connects before [`LoopbackListener::serve`] runs is served late and not refused.
    ///
    /// # Errors
    /// [`BindError::NotLoopback`] before a socket is made, [`BindError::Io`] when the system refuses.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        if !address.ip().is_loopback() {
            return Err(BindError::NotLoopback(address));
        }
        let open = || {
            let socket = TcpListener::bind(address)?;
            socket.set_nonblocking(true)?; // tokio asks for it
            let address = socket.local_addr()?;
            Ok(Self { socket, address })
        };
        open().map_err(|cause| BindError::Io { address, cause })
    }

    /// Address and port it has.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `router` until `stop`. A request whose `Host` is neither a loopback address nor `localhost` is refused with
    /// 403: a web page that lets its own name resolve to 127.0.0.1 (DNS rebinding) gets nothing.
    ///
    /// # Errors
    /// Those of the socket, and there is none that ends it in practice.
    pub async fn serve(self, router: Router, stop: CancellationToken) -> io::Result<()> {
        let socket = tokio::net::TcpListener::from_std(self.socket)?;
        let router = router.layer(middleware::from_fn(refuse_foreign_hosts));
        axum::serve(socket, router).with_graceful_shutdown(stop.cancelled_owned()).await
    }
}

async fn refuse_foreign_hosts(request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(names_loopback) {
        return StatusCode::FORBIDDEN.into_response();
    }
    next.run(request).await
}

fn names_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn refuses_every_address_that_others_can_reach() {
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[2001:db8::1]:0"] {
            let address: SocketAddr = address.parse().unwrap();
            let refused = LoopbackListener::bind(address);
            assert!(matches!(refused, Err(BindError::NotLoopback(named)) if named == address), "{address}");
        }
    }

    #[test]
    fn names_the_address_that_is_taken() {
        let first = LoopbackListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let refused = LoopbackListener::bind(first.address());
        assert!(
            matches!(&refused, Err(BindError::Io { address, cause })
                if *address == first.address() && cause.kind() == io::ErrorKind::AddrInUse),
            "{refused:?}"
        );
    }

    #[test]
    fn knows_the_names_of_this_machine() {
        for host in ["127.0.0.1:9101", "127.0.0.1", "[::1]:80", "localhost:8080", "LOCALHOST"] {
            assert!(names_loopback(host), "{host}");
        }
        for host in ["rebound.test", "127.0.0.1.rebound.test:80", "localhost.rebound.test", "10.0.0.1", "", "a b"] {
            assert!(!names_loopback(host), "{host}");
        }
    }
}
