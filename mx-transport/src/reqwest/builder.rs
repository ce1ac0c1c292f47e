//! How a [`ReqwestTransport`] behaves, before it is built.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{
    Pin, ReqwestTransport,
    proxy::Way,
    tls::{Certified, Tls, certificates},
};
use crate::{TransportError, TransportErrorKind as Kind};

/// No answer is larger than this unless the caller allows it, in bytes after decompression: the first sync of an
/// account in a thousand rooms stays well below.
const MAX_BODY_BYTES: usize = 256 * 1024 * 1024;
/// No answer has more fields in its head, over HTTP/1.1.
const MAX_HEADERS: usize = 100;
/// No answer has a larger head, over HTTP/2, in bytes.
const MAX_HEAD_BYTES: u32 = 64 * 1024;
/// A connection over HTTP/2 that carries a request is asked for a sign of life this often.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// How a [`ReqwestTransport`] behaves.
///
/// ```no_run
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use mx_transport::ReqwestTransport;
///
/// // For one homeserver whose key is known, and through the proxy of the company.
/// let client = ReqwestTransport::builder()
///     .pin("sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".parse()?)
///     .proxy("http://proxy.example.org:3128")?
///     .total_timeout(Duration::from_secs(30))
///     .max_body_bytes(16 << 20)
///     .build()?;
/// # drop(client);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct ReqwestTransportBuilder {
    user_agent: String,
    connect: Duration,
    headers: Option<Duration>,
    stall: Duration,
    total: Duration,
    idle: Duration,
    max_body_bytes: usize,
    allow_plain_http: bool,
    tls: Tls,
    way: Way,
    names: Vec<(String, SocketAddr)>,
}

impl Default for ReqwestTransportBuilder {
    fn default() -> Self {
        Self {
            user_agent: concat!("mx-e2ee/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect: Duration::from_secs(10),
            headers: None,
            stall: Duration::from_secs(30),
            total: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            max_body_bytes: MAX_BODY_BYTES,
            allow_plain_http: false,
            tls: Tls::default(),
            way: Way::Direct,
            names: Vec::new(),
        }
    }
}

impl ReqwestTransportBuilder {
    /// What the server is told about who asks.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use mx_transport::ReqwestTransport;
    ///
    /// // So that an operator who looks into the server's log finds whose requests these are.
    /// let client = ReqwestTransport::builder().user_agent("alert-bot/2.1").connect_timeout(Duration::from_secs(5)).build()?;
    /// # drop(client);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// How long making a connection may take, with its name, its proxy and its TLS. Default: 10 seconds.
    #[must_use]
    pub const fn connect_timeout(mut self, connect: Duration) -> Self {
        self.connect = connect;
        self
    }

    /// How long the head of an answer may take, from the start of the exchange, where the request has no
    /// [`Deadline`](crate::Deadline) of its own: a long poll has one. Default: as long as the whole exchange.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use mx_transport::ReqwestTransport;
    ///
    /// // Over a bad mobile network: slow beginnings, and bodies that stand still now and then.
    /// let client = ReqwestTransport::builder()
    ///     .headers_timeout(Duration::from_secs(20))
    ///     .stall_timeout(Duration::from_secs(60))
    ///     .idle_timeout(Duration::from_secs(120))
    ///     .build()?;
    /// # drop(client);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub const fn headers_timeout(mut self, headers: Duration) -> Self {
        self.headers = Some(headers);
        self
    }

    /// How long a body that is held in memory may stand still. Default: 30 seconds.
    #[must_use]
    pub const fn stall_timeout(mut self, stall: Duration) -> Self {
        self.stall = stall;
        self
    }

    /// How long an exchange without a [`Deadline`](crate::Deadline) may take. Default: 60 seconds.
    #[must_use]
    pub const fn total_timeout(mut self, total: Duration) -> Self {
        self.total = total;
        self
    }

    /// How long the exchange of a file may stand still, whatever its [`Deadline`](crate::Deadline). After the last byte of
    /// an upload it is the time for the head of an answer instead: servers look into files before they take them.
    /// Default: 60 seconds.
    #[must_use]
    pub const fn idle_timeout(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// How large an answer may be that is held in memory, in bytes after decompression. Default: 256 MiB.
    #[must_use]
    pub const fn max_body_bytes(mut self, max: usize) -> Self {
        self.max_body_bytes = max;
        self
    }

    /// Allow `http://` to hosts that are not loopback: everybody on the way sees the access token.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use mx_transport::ReqwestTransport;
    ///
    /// // A homeserver in the next container, on a network that nobody else is in. Loopback needs no permission.
    /// let client = ReqwestTransport::builder().allow_plain_http(true).http1_only().build()?;
    /// # drop(client);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub const fn allow_plain_http(mut self, allow: bool) -> Self {
        self.allow_plain_http = allow;
        self
    }

    /// Trust the certificates in a PEM file too, beside the platform's roots: a company's own, or that of a homeserver
    /// which has signed its own.
    ///
    /// # Errors
    /// [`Kind::Build`] when there is none in it.
    pub fn trust_pem(mut self, pem: &[u8]) -> Result<Self, TransportError> {
        self.tls.roots.extend(certificates(pem)?);
        Ok(self)
    }

    /// Trust nothing but what [`trust_pem`](Self::trust_pem) names: the platform's roots are left out.
    ///
    /// ```no_run
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use mx_transport::ReqwestTransport;
    ///
    /// // A homeserver with a certificate of the company's own, and nobody else's will do.
    /// let roots = std::fs::read("/etc/mybot/company-root.pem")?;
    /// let client = ReqwestTransport::builder().trust_pem(&roots)?.trust_nothing_else().build()?;
    /// # drop(client);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub const fn trust_nothing_else(mut self) -> Self {
        self.tls.only_these = true;
        self
    }

    /// Accept only servers whose certificate is good and holds this key, or another that was pinned. Pin the next key too
    /// before the server changes to it.
    #[must_use]
    pub fn pin(mut self, pin: Pin) -> Self {
        self.tls.pins.push(pin);
        self
    }

    /// Show the server this certificate: a PEM file with the certificate, what leads to its root, and its private key.
    ///
    /// ```no_run
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use mx_transport::ReqwestTransport;
    ///
    /// // A proxy before the homeserver lets nobody in without one.
    /// let ours = std::fs::read("/etc/mybot/client.pem")?;
    /// let client = ReqwestTransport::builder().client_certificate_pem(&ours)?.build()?;
    /// # drop(client);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Kind::Build`] when one of them is not in it.
    pub fn client_certificate_pem(mut self, pem: &[u8]) -> Result<Self, TransportError> {
        self.tls.client = Some(Arc::new(Certified::from_pem(pem)?));
        Ok(self)
    }

    /// Send everything through this proxy (`http://user:password@proxy.example.org:3128`): to `https://` through a
    /// tunnel, so that it sees the homeserver's name and nothing else. What is on this very machine is never asked through
    /// a proxy, which is on another one.
    ///
    /// # Errors
    /// [`Kind::Build`] when it is no address of an HTTP proxy.
    pub fn proxy(mut self, address: &str) -> Result<Self, TransportError> {
        self.way = Way::through(address)?;
        Ok(self)
    }

    /// Use the proxies that the environment names: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, and not for the hosts in
    /// `NO_PROXY`, nor for loopback. Without this they are not looked at: what carries tokens is not for a variable to decide.
    ///
    /// ```no_run
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use mx_transport::ReqwestTransport;
    ///
    /// // For a command that a person runs, and not for a service whose environment others may set.
    /// let client = ReqwestTransport::builder().proxy_of_environment().build()?;
    /// # drop(client);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn proxy_of_environment(mut self) -> Self {
        self.way = Way::Environment;
        self
    }

    /// Speak HTTP/1.1 also where the server has HTTP/2, as for something in between that breaks it.
    #[must_use]
    pub const fn http1_only(mut self) -> Self {
        self.tls.http1_only = true;
        self
    }

    /// Connect to this address where the host is `name`, without asking the name service. The certificate must still be
    /// that of `name`. Port 0 is that of the URL.
    #[must_use]
    pub fn resolve(mut self, name: &str, address: SocketAddr) -> Self {
        self.names.push((name.to_owned(), address));
        self
    }

    /// The transport.
    ///
    /// # Errors
    /// [`Kind::Build`] when the platform's roots, the user agent or a certificate cannot be used, and for a proxy over
    /// `https://` together with pins, a client's certificate or [`trust_nothing_else`](Self::trust_nothing_else): what is
    /// meant for the homeserver would be asked of the proxy and shown to it.
    pub fn build(self) -> Result<ReqwestTransport, TransportError> {
        if self.way.is_secure() && self.tls.is_for_one_server() {
            return Err(TransportError::with_source(
                Kind::Build,
                "pins, a client's certificate and own roots would count for the proxy too: use one over http://",
            ));
        }
        let client = self.client(&self.way)?;
        let on_this_machine = if self.way.is_direct() {
            client.clone()
        } else {
            self.client(&Way::Direct)?
        };
        Ok(ReqwestTransport {
            client,
            on_this_machine,
            max_body_bytes: self.max_body_bytes,
            headers: self.headers,
            stall: self.stall,
            total: self.total,
            idle: self.idle,
            allow_plain_http: self.allow_plain_http,
        })
    }

    fn client(&self, way: &Way) -> Result<::reqwest::Client, TransportError> {
        let mut client = ::reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls.config()?)
            .user_agent(&self.user_agent)
            .connect_timeout(self.connect)
            .redirect(::reqwest::redirect::Policy::none())
            .referer(false)
            .http1_max_headers(MAX_HEADERS)
            .http2_max_header_list_size(MAX_HEAD_BYTES)
            .http2_keep_alive_interval(SIGN_OF_LIFE)
            .http2_keep_alive_timeout(self.connect);
        if self.tls.http1_only {
            client = client.http1_only();
        }
        for (name, address) in &self.names {
            client = client.resolve(name, *address);
        }
        let client = way.apply(client)?.build();
        client.map_err(|error| TransportError::with_source(Kind::Build, error.without_url()))
    }
}
