//! Whom we talk to: certificates that are good, and all those that are not. They are made as the tests run.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use mx_transport::{Pin as KeyPin, ReqwestTransportBuilder};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::*;

/// An authority of the tests.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
pub(crate) struct Certified {
    certificate: CertificateDer<'static>,
    pem: String,
    key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a host, changed before it is signed.
    pub(crate) fn certify(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Certified {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Certified::of(&certificate, &key)
    }
}

impl Certified {
    fn of(certificate: &rcgen::Certificate, key: &KeyPair) -> Self {
        Self {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    fn self_signed(host: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        Self::of(&params.self_signed(&key).unwrap(), &key)
    }

    fn pin(&self) -> KeyPin {
        KeyPin::of_certificate(&self.certificate).unwrap()
    }

    /// What a server with it does at a connection. `clients`: who may come.
    pub(crate) fn config(&self, clients: Option<&Authority>) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let config = match clients {
            None => config.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.0.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                config.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        config.with_single_cert(vec![self.certificate.clone()], key).unwrap()
    }
}

/// A server over TLS that answers everything with `{}`.
pub(crate) struct Secure {
    pub(crate) address: SocketAddr,
    /// The requests that came, as they were written.
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

pub(crate) async fn secure(config: ServerConfig) -> Secure {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let book = Arc::clone(&seen);
    let accepting = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, book) = (acceptor.clone(), Arc::clone(&book));
            tokio::spawn(async move {
                let mut stream = acceptor.accept(socket).await.ok()?;
                let mut request = [0; 4096];
                let read = stream.read(&mut request).await.ok()?;
                book.lock()
                    .unwrap()
                    .push(String::from_utf8_lossy(&request[..read]).into_owned());
                let steps = vec![answer(200, "", b"{}"), Step::Close];
                mx_transport::conformance::play(&mut stream, steps).await.ok()
            });
        }
    });
    Secure {
        address,
        seen,
        accepting,
    }
}

/// What comes of asking it as `hs.test`.
async fn asked(server: &Secure, builder: ReqwestTransportBuilder) -> Result<Bytes, Kind> {
    let client = builder.resolve("hs.test", server.address).build().unwrap();
    let url = format!("https://hs.test:{}/", server.address.port());
    let answer = client.send(get(&url)).await;
    answer.map(http::Response::into_body).map_err(|error| {
        assert!(!error.may_have_been_processed(), "{error:?}");
        error.kind()
    })
}

/// Who trusts this authority, beside the platform's roots.
pub(crate) fn trusting(authority: &Authority) -> ReqwestTransportBuilder {
    ReqwestTransport::builder()
        .trust_pem(authority.pem().as_bytes())
        .unwrap()
}

#[tokio::test]
async fn a_root_of_our_own_is_trusted_beside_the_platforms_or_alone() {
    let authority = Authority::new("of the tests");
    let server = secure(authority.certify("hs.test", |_| ()).config(None)).await;
    assert_eq!(asked(&server, trusting(&authority)).await.unwrap(), "{}");
    assert_eq!(
        asked(&server, trusting(&authority).trust_nothing_else()).await.unwrap(),
        "{}"
    );
    assert_eq!(asked(&server, trusting(&authority).http1_only()).await.unwrap(), "{}");
}

#[tokio::test]
async fn a_server_that_is_not_who_it_says_is_not_asked() {
    let authority = Authority::new("of the tests");
    let other = Authority::new("another");
    for (what, config) in [
        ("an unknown authority", other.certify("hs.test", |_| ()).config(None)),
        ("a wrong name", authority.certify("other.test", |_| ()).config(None)),
        (
            "a name that holds ours",
            authority.certify("hs.test.evil.test", |_| ()).config(None),
        ),
        ("signed by itself", Certified::self_signed("hs.test").config(None)),
        (
            "expired",
            authority
                .certify("hs.test", |params| {
                    params.not_before = date_time_ymd(2019, 1, 1);
                    params.not_after = date_time_ymd(2020, 1, 1);
                })
                .config(None),
        ),
        (
            "not yet",
            authority
                .certify("hs.test", |params| params.not_before = date_time_ymd(4000, 1, 1))
                .config(None),
        ),
    ] {
        let server = secure(config).await;
        assert_eq!(asked(&server, trusting(&authority)).await, Err(Kind::Tls), "{what}");
        assert_eq!(
            asked(&server, trusting(&authority).trust_nothing_else()).await,
            Err(Kind::Tls),
            "{what}"
        );
    }
}

#[tokio::test]
async fn a_pin_comes_on_top_of_trust_and_does_not_replace_it() {
    let authority = Authority::new("of the tests");
    let certified = authority.certify("hs.test", |_| ());
    let (pin, another) = (certified.pin(), Certified::self_signed("hs.test").pin());
    let server = secure(certified.config(None)).await;
    assert_eq!(asked(&server, trusting(&authority).pin(pin)).await.unwrap(), "{}");
    assert_eq!(asked(&server, trusting(&authority).pin(another)).await, Err(Kind::Tls));
    assert_eq!(
        asked(&server, trusting(&authority).pin(another).pin(pin))
            .await
            .unwrap(),
        "{}"
    );
    let untrusting = ReqwestTransport::builder().pin(pin);
    assert_eq!(
        asked(&server, untrusting).await,
        Err(Kind::Tls),
        "the right key of nobody"
    );
    let of_the_authority = KeyPin::of_certificate(authority.0.der()).unwrap();
    assert_eq!(
        asked(&server, trusting(&authority).pin(of_the_authority)).await,
        Err(Kind::Tls),
        "a pin is the server's own key"
    );
    assert_eq!(pin.to_string().parse::<KeyPin>().unwrap(), pin);
}

#[tokio::test]
async fn a_server_that_has_signed_its_own_is_trusted_by_name_of_its_certificate() {
    let certified = Certified::self_signed("hs.test");
    let server = secure(certified.config(None)).await;
    let trusting = ReqwestTransport::builder().trust_pem(certified.pem.as_bytes()).unwrap();
    assert_eq!(asked(&server, trusting.pin(certified.pin())).await.unwrap(), "{}");
}

#[tokio::test]
async fn a_server_that_asks_who_we_are_is_shown_our_certificate() {
    let (authority, clients) = (Authority::new("of the tests"), Authority::new("of clients"));
    let server = secure(authority.certify("hs.test", |_| ()).config(Some(&clients))).await;
    let known = |client: &Certified| {
        let pem = format!("{}{}", client.pem, client.key);
        let builder = trusting(&authority).client_certificate_pem(pem.as_bytes()).unwrap();
        assert!(!format!("{builder:?}").contains("PRIVATE"), "the key is not shown");
        builder
    };
    assert_eq!(
        asked(&server, known(&clients.certify("bot", |_| ()))).await.unwrap(),
        "{}"
    );
    assert_eq!(
        asked(&server, trusting(&authority)).await,
        Err(Kind::Tls),
        "without one"
    );
    let stranger = authority.certify("bot", |_| ());
    assert_eq!(asked(&server, known(&stranger)).await, Err(Kind::Tls), "with another's");
}

#[tokio::test]
async fn what_speaks_no_tls_is_told_apart_from_what_does_not_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let _plain = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let steps = vec![answer(400, "", b"this is the plain port"), Step::Silence];
        mx_transport::conformance::play(&mut socket, steps).await
    });
    let error = client().send(get(&url)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Tls, "{error:?}");
    assert!(!error.may_have_been_processed());
}

/// A connection whose bytes are garbled on their way to the server, from when that is said.
struct Garbled {
    socket: TcpStream,
    from_now: Arc<AtomicBool>,
}

impl AsyncRead for Garbled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(context, buffer);
        if self.from_now.load(Ordering::SeqCst)
            && let Some(last) = buffer.filled_mut()[before..].last_mut()
        {
            *last ^= 1;
        }
        read
    }
}

impl AsyncWrite for Garbled {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[tokio::test]
async fn nw_15_an_alert_after_a_request_was_written_is_no_proof_that_it_was_not_processed() {
    let authority = Authority::new("of the tests");
    let acceptor = TlsAcceptor::from(Arc::new(authority.certify("hs.test", |_| ()).config(None)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let from_now = Arc::new(AtomicBool::new(false));
    let garbled = Arc::clone(&from_now);
    let _serving = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.ok()?;
        let from_now = garbled;
        let mut stream = acceptor.accept(Garbled { socket, from_now }).await.ok()?;
        let mut request = [0; 4096];
        let _first = stream.read(&mut request).await.ok()?;
        let first = vec![answer(200, "", b"{}")];
        mx_transport::conformance::play(&mut stream, first).await.ok()?;
        // It cannot be read: TLS says so in an alert, which has nothing to do with certificates.
        let second = stream.read(&mut request).await;
        assert!(second.is_err(), "{second:?}");
        stream.shutdown().await.ok()
    });
    let client = trusting(&authority).resolve("hs.test", address).build().unwrap();
    let url = format!("https://hs.test:{}/", address.port());
    client.send(get(&url)).await.unwrap();
    from_now.store(true, Ordering::SeqCst);
    let post = http::Request::post(&url).body(Bytes::from_static(b"{}")).unwrap();
    let error = client.send(post).await.unwrap_err();
    assert!(format!("{error:?}").contains("AlertReceived"), "{error:?}");
    assert_eq!(error.kind(), Kind::Interrupted);
    assert!(error.may_have_been_processed() && error.is_transient());
}
