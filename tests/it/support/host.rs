//! A loopback HTTP server that can be ended at once, with every connection it holds, and started again on its port.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use tokio::sync::oneshot;

/// A running server. Dropping it closes the listener and every connection.
pub struct Host {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    /// Serves `router` (HTTP/1.1 and h2c) on a free port, or on `port` again.
    pub fn start(router: Router, port: Option<u16>) -> Self {
        super::prepare();
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port.unwrap_or(0)));
        let (stop, stopped) = oneshot::channel::<()>();
        let (told, bound) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = bind(wanted).await;
                told.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    served = async { axum::serve(listener, router).await } => served.unwrap(),
                    _ = stopped => {}
                }
            });
            // Dropping the runtime drops the tasks, and with them every open connection.
            runtime.shutdown_background();
        });
        let address = bound.recv().expect("the test server starts");
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Binds an address. One that was used before may be a passing connection's own for a moment.
async fn bind(wanted: SocketAddr) -> tokio::net::TcpListener {
    for _ in 0..100 {
        match tokio::net::TcpListener::bind(wanted).await {
            Ok(listener) => return listener,
            Err(_taken) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    panic!("no test port is free at {wanted}");
}
