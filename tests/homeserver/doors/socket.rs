//! The door on a socket: for a client in another process, in another language, or that brings its own HTTP.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    thread,
};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, runtime, sync::oneshot};

use crate::{Homeserver, faults::Outcome, peer::sure};

/// A homeserver on a socket of 127.0.0.1, until it is dropped. It runs in a thread of its own, so that a test may block.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let server = mx_test_homeserver::Homeserver::new();
/// server.register("alice", "password");
/// let listening = server.listen().await;
/// // For a client in another language, or in another process.
/// println!("{}", listening.uri());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Listening {
    address: SocketAddr,
    _until_dropped: oneshot::Sender<()>,
}

impl Homeserver {
    /// The door on a socket of 127.0.0.1.
    pub async fn listen(&self) -> Listening {
        self.listen_on(0).await
    }

    /// The same on a port that is known beforehand. 0: any that is free.
    ///
    /// # Panics
    /// When the port is taken.
    pub async fn listen_on(&self, port: u16) -> Listening {
        Listening::start(self.clone(), port).await
    }
}

impl Listening {
    async fn start(homeserver: Homeserver, port: u16) -> Self {
        let (until_dropped, dropped) = oneshot::channel();
        let (bound, address) = oneshot::channel();
        let serve = async move {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
            let address = listener.as_ref().map_err(io::Error::kind).and_then(|listener| {
                let address = listener.local_addr();
                address.map_err(|error| error.kind())
            });
            if bound.send(address).is_ok()
                && let Ok(listener) = listener
            {
                tokio::select! {
                    () = accept(listener, homeserver) => {}
                    _ = dropped => {}
                }
            }
        };
        let thread = thread::Builder::new().name("homeserver".to_owned()).spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            sure(runtime, "the runtime of a homeserver").block_on(serve);
        });
        sure(thread, "the thread of a homeserver");
        Self {
            address: sure(sure(address.await, "a homeserver's address"), "a socket of 127.0.0.1"),
            _until_dropped: until_dropped,
        }
    }

    /// Where it listens, as in `http://127.0.0.1:40123`.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn accept(listener: TcpListener, homeserver: Homeserver) {
    while let Ok((stream, _)) = listener.accept().await {
        let homeserver = homeserver.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(&homeserver, request));
            // A client that goes away breaks its connection.
            let _broken = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    homeserver: &Homeserver,
    request: http::Request<Incoming>,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return Ok(nothing(StatusCode::BAD_REQUEST));
    };
    let request = http::Request::from_parts(parts, body.to_bytes());
    Ok(match homeserver.exchange(&request).await {
        Outcome::Answer(response) => {
            let mut response = response.map(Full::new);
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().entry(CONTENT_TYPE).or_insert(json);
            response
        }
        // As a proxy answers that lost its server.
        Outcome::Dropped => nothing(StatusCode::BAD_GATEWAY),
    })
}

fn nothing(status: StatusCode) -> http::Response<Full<Bytes>> {
    let mut response = http::Response::new(Full::default());
    *response.status_mut() = status;
    response
}
