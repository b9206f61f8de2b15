//! Certificates made for one test, a client that speaks TLS, and a server's TLS front.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, StreamOwned};
use tokio::sync::oneshot;

use super::http1::Wire;
use super::{Connection, DEADLINE, Request, Response, prepare, runtime};

/// A private authority.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, as PEM.
#[derive(Clone)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// Its own certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for a server of these names or addresses.
    pub fn server(&self, names: &[&str]) -> Identity {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    /// A certificate for a client.
    pub fn client(&self, name: &str) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://test/{name}").try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    pub fn sign(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        roots
    }
}

impl Identity {
    /// The certificate as it goes over the wire.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }

    fn parts(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (vec![self.der()], PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap())
    }
}

/// Somebody who trusts an authority and speaks TLS to `mcp.example.test`. Clones share the sessions they may resume.
#[derive(Clone)]
pub struct TlsClient {
    config: ClientConfig,
}

impl TlsClient {
    pub fn trusting(authority: &Authority) -> Self {
        prepare();
        let config = ClientConfig::builder().with_root_certificates(authority.roots()).with_no_client_auth();
        Self { config }.alpn(&["http/1.1"])
    }

    pub fn showing(authority: &Authority, identity: &Identity) -> Self {
        prepare();
        let (chain, key) = identity.parts();
        let builder = ClientConfig::builder().with_root_certificates(authority.roots());
        Self { config: builder.with_client_auth_cert(chain, key).unwrap() }.alpn(&["http/1.1"])
    }

    /// Offers these protocols.
    #[must_use]
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// Speaks only this version of TLS.
    #[must_use]
    pub fn only(mut self, version: &'static rustls::SupportedProtocolVersion, authority: &Authority) -> Self {
        let alpn = self.config.alpn_protocols;
        self.config = ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(authority.roots())
            .with_no_client_auth();
        self.config.alpn_protocols = alpn;
        self
    }

    /// Connects and finishes the handshake as far as a client can tell.
    pub fn connect(&self, address: SocketAddr) -> io::Result<TlsConnection> {
        let name = ServerName::try_from("mcp.example.test").unwrap();
        let mut tls = ClientConnection::new(Arc::new(self.config.clone()), name).unwrap();
        let mut tcp = TcpStream::connect_timeout(&address, DEADLINE)?;
        tcp.set_read_timeout(Some(DEADLINE))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        let wire = Wire::Tls(Box::new(StreamOwned::new(tls, tcp)));
        Ok(TlsConnection(Connection::over(address, wire)))
    }

    /// One request on a connection of its own; `None` when the server refused the connection.
    pub fn send(&self, address: SocketAddr, request: &Request) -> Option<Response> {
        self.connect(address).ok()?.send(request)
    }

    /// One request over HTTP/2, as ALPN has it; the version that was spoken comes with the answer.
    pub fn send_negotiated(&self, address: SocketAddr, request: &Request) -> (reqwest::Version, Response) {
        runtime().block_on(async {
            let client = reqwest::Client::builder()
                .tls_backend_preconfigured(self.config.clone())
                .resolve("mcp.example.test", address)
                .no_proxy()
                .build()
                .unwrap();
            let url = format!("https://mcp.example.test:{}{}", address.port(), request.target);
            let mut sent = client.request(request.method.parse().unwrap(), url).body(request.body.clone());
            for (name, value) in &request.headers {
                sent = sent.header(name, value);
            }
            let answer = sent.timeout(DEADLINE).send().await.unwrap();
            let headers = answer.headers().iter();
            let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
            let (version, status) = (answer.version(), answer.status().as_u16());
            (version, Response { status, headers, body: answer.bytes().await.unwrap().to_vec() })
        })
    }
}

/// An open connection over TLS, HTTP/1.1.
pub struct TlsConnection(Connection);

impl TlsConnection {
    /// The certificate the server has shown.
    pub fn shown(&self) -> CertificateDer<'static> {
        self.tls().peer_certificates().unwrap()[0].clone()
    }

    /// The protocol that was agreed on.
    pub fn protocol(&self) -> String {
        String::from_utf8(self.tls().alpn_protocol().unwrap_or_default().to_vec()).unwrap()
    }

    pub fn is_resumed(&self) -> bool {
        self.tls().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    fn tls(&self) -> &ClientConnection {
        self.0.tls().unwrap()
    }

    /// Reads until the server closes; false when it has not in time.
    pub fn until_closed(&mut self) -> bool {
        self.0.until_closed()
    }

    /// Sends and reads the whole answer; `None` when the server closed without one.
    pub fn send(&mut self, request: &Request) -> Option<Response> {
        self.0.write(&request.bytes(self.0.address()));
        self.0.response()
    }
}

/// TLS in front of a server in clear text. Dropping it closes every connection.
pub struct TlsFront {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TlsFront {
    /// Shows `identity`; with `clients`, only to those who have a certificate of that authority.
    pub fn start(server: SocketAddr, identity: &Identity, clients: Option<&Authority>) -> Self {
        prepare();
        let (chain, key) = identity.parts();
        let builder = match clients {
            Some(authority) => ServerConfig::builder()
                .with_client_cert_verifier(WebPkiClientVerifier::builder(authority.roots().into()).build().unwrap()),
            None => ServerConfig::builder().with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let accepted = Arc::new(AtomicUsize::new(0));
        let (stop, stopped) = oneshot::channel::<()>();
        let (told, bound) = mpsc::channel();
        let counter = Arc::clone(&accepted);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                told.send(listener.local_addr().unwrap()).unwrap();
                let serve = async {
                    while let Ok((tcp, _)) = listener.accept().await {
                        tokio::spawn(pass_on(tcp, acceptor.clone(), server, Arc::clone(&counter)));
                    }
                };
                tokio::select! {
                    () = serve => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        let address = bound.recv().expect("the front starts");
        Self { address, accepted, stop: Some(stop), thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Handshakes that succeeded.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn pass_on(
    tcp: tokio::net::TcpStream,
    acceptor: tokio_rustls::TlsAcceptor,
    server: SocketAddr,
    accepted: Arc<AtomicUsize>,
) {
    let Ok(mut tls) = acceptor.accept(tcp).await else { return };
    accepted.fetch_add(1, Ordering::SeqCst);
    if let Ok(mut clear) = tokio::net::TcpStream::connect(server).await {
        let _ = tokio::io::copy_bidirectional(&mut tls, &mut clear).await;
    }
}
