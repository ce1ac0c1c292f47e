//! What a network does, on real sockets: rows NW of the catalogue.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod bytes;
mod encodings;
mod http2;
mod memory;
mod paths;
mod phases;
mod proxies;
mod redirects;
mod repeats;
mod seen;
mod tls;
mod tunnels;
mod words;

use std::sync::Arc;

use ::bytes::Bytes;
use mx_transport::{
    AccessToken, Homeserver, ReqwestTransport, Retry, Transport, TransportErrorKind as Kind,
    conformance::{Seen, Server, Step, answer},
};

/// What the tests' homeservers are asked with.
const TOKEN: &str = "syt_a_token_that_nobody_may_see";

fn get(url: &str) -> http::Request<Bytes> {
    http::Request::get(url).body(Bytes::new()).unwrap()
}

fn client() -> ReqwestTransport {
    ReqwestTransport::builder().build().unwrap()
}

async fn server(respond: impl Fn(usize, &Seen) -> Vec<Step> + Send + Sync + 'static) -> Server {
    Server::start(respond).await.unwrap()
}

/// A server that says these bytes to everybody, and hangs up.
async fn says(bytes: impl Into<Bytes>) -> Server {
    let bytes = bytes.into();
    server(move |_, _| vec![Step::Write(bytes.clone()), Step::Close]).await
}

/// What comes of asking such a server, in its kind.
async fn told(bytes: impl Into<Bytes>) -> Result<Bytes, Kind> {
    let server = says(bytes).await;
    let answer = client().send(get(&server.url())).await;
    answer.map(http::Response::into_body).map_err(|error| error.kind())
}

/// A homeserver that answers so, but for its versions.
async fn homeserver(respond: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> (Homeserver, Server) {
    let server = server(move |_, seen| {
        if seen.target() == "/_matrix/client/versions" {
            vec![answer(200, "", br#"{"versions":["v1.11"]}"#)]
        } else {
            respond(seen)
        }
    })
    .await;
    let patient = Retry::new(client()).pauses(std::time::Duration::ZERO, std::time::Duration::ZERO);
    let homeserver = Homeserver::new(&server.url(), Arc::new(patient)).unwrap();
    homeserver.set_access_token(AccessToken::new(TOKEN).unwrap());
    (homeserver, server)
}
