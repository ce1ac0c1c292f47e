//! A proxy of ours between a device and its homeserver: what happens to requests on the way.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use mx_transport::{ReqwestTransport, Transport};
use tokio::{net::TcpListener, task::JoinHandle};

/// What happens to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Weather {
    /// It goes through.
    #[default]
    Fair,
    /// A proxy on the way answers for the homeserver.
    Status(u16),
    /// It never arrives, and the connection breaks.
    CutBefore,
    /// The homeserver takes it, and its answer never arrives.
    CutAfter,
    /// Those whose path holds this are answered at once, and delivered when they are let go; all others go through.
    Hold(&'static str),
}

/// A proxy that listens as long as this is held.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    way: Arc<Way>,
    listening: JoinHandle<()>,
}

#[derive(Debug)]
struct Way {
    upstream: String,
    http: ReqwestTransport,
    weather: Mutex<Weather>,
    held: Mutex<Vec<Request<Bytes>>>,
    /// How many requests did not simply go through.
    touched: std::sync::atomic::AtomicUsize,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Proxy {
    pub(crate) async fn before(upstream: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let way = Arc::new(Way {
            upstream: upstream.to_owned(),
            http: ReqwestTransport::builder().build()?,
            weather: Mutex::default(),
            held: Mutex::default(),
            touched: std::sync::atomic::AtomicUsize::default(),
        });
        let listening = tokio::spawn(listen(listener, Arc::clone(&way)));
        Ok(Self {
            address,
            way,
            listening,
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn weather(&self, weather: Weather) {
        *self.way.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    pub(crate) fn touched(&self) -> usize {
        self.way.touched.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Deliver what was held. Returns how many requests that were.
    pub(crate) async fn let_go(&self) -> Result<usize> {
        self.weather(Weather::Fair);
        let held = std::mem::take(&mut *self.way.held.lock().unwrap_or_else(PoisonError::into_inner));
        let count = held.len();
        for request in held {
            let answer = self.way.http.send(request).await?;
            anyhow::ensure!(answer.status().is_success(), "a held request: {}", answer.status());
        }
        Ok(count)
    }
}

async fn listen(listener: TcpListener, way: Arc<Way>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let way = Arc::clone(&way);
        connections.spawn(async move {
            let service = service_fn(|request| Arc::clone(&way).pass(request));
            // A connection that breaks is what the weather is about.
            let _ended = http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

impl Way {
    async fn pass(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        *request.uri_mut() = format!("{}{path}", self.upstream).parse()?;
        for name in [header::AUTHORIZATION, header::CONTENT_TYPE] {
            if let Some(value) = head.headers.get(&name) {
                request.headers_mut().insert(name, value.clone());
            }
        }
        let weather = self.weather.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let touches = match &weather {
            Weather::Fair => false,
            Weather::Hold(held) => path.contains(held),
            _ => true,
        };
        if touches {
            self.touched.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        match weather {
            Weather::Status(status) => {
                let mut answer = Response::new(Full::from("<html>the proxy is unhappy</html>"));
                *answer.status_mut() = StatusCode::from_u16(status)?;
                Ok(answer)
            }
            Weather::CutBefore => anyhow::bail!("cut"),
            Weather::CutAfter => {
                let _taken = self.http.send(request).await?;
                anyhow::bail!("cut")
            }
            Weather::Hold(_) if touches => {
                self.held.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                let mut answer = Response::new(Full::from("{}"));
                answer
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Ok(answer)
            }
            Weather::Fair | Weather::Hold(_) => self.forward(request).await,
        }
    }

    async fn forward(&self, request: Request<Bytes>) -> Result<Response<Full<Bytes>>> {
        // No answer at all is a broken connection for the device too.
        let (head, body) = self.http.send(request).await?.into_parts();
        let mut answer = Response::new(Full::from(body));
        *answer.status_mut() = head.status;
        for name in [header::CONTENT_TYPE, header::RETRY_AFTER] {
            if let Some(value) = head.headers.get(&name) {
                answer.headers_mut().insert(name, value.clone());
            }
        }
        Ok(answer)
    }
}
