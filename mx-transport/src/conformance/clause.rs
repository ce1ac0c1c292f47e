//! A clause by its name, under which it fails.
#![expect(clippy::panic, reason = "a clause reports by a panic, as tests do")]

use std::{fmt::Display, time::Duration};

use bytes::Bytes;

use super::{Seen, Server, Step};
use crate::{Streams, Transport, TransportError, TransportErrorKind as Kind, layer::Answer};

/// No clause takes longer, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The name of a clause.
#[derive(Clone, Copy)]
pub(super) struct Clause(pub(super) &'static str);

impl Clause {
    #[track_caller]
    pub(super) fn broken(self, found: impl Display) -> ! {
        panic!("clause {} is broken: {found}", self.0)
    }

    #[track_caller]
    pub(super) fn holds(self, holds: bool, otherwise: impl Display) {
        if !holds {
            self.broken(otherwise);
        }
    }

    /// The answer, which did come.
    #[track_caller]
    pub(super) fn ok(self, answer: Answer) -> http::Response<Bytes> {
        answer.unwrap_or_else(|error| self.broken(format_args!("an unexpected error: {error:?}")))
    }

    /// It failed, like this.
    #[track_caller]
    pub(super) fn fails(self, answer: Answer, what: &str, kind: impl Fn(Kind) -> bool) -> TransportError {
        match answer {
            Ok(response) => self.broken(format_args!("{what} is Ok with {}", response.status())),
            Err(error) if kind(error.kind()) => error,
            Err(error) => self.broken(format_args!("{what} is {error:?}")),
        }
    }

    pub(super) async fn server(self, respond: impl Fn(usize, &Seen) -> Vec<Step> + Send + Sync + 'static) -> Server {
        match Server::start(respond).await {
            Ok(server) => server,
            Err(error) => self.broken(format_args!("no socket on 127.0.0.1: {error}")),
        }
    }

    pub(super) fn request(self, method: &str, url: &str) -> http::Request<Bytes> {
        self.request_with(method, url, Bytes::new())
    }

    pub(super) fn request_with<B>(self, method: &str, url: &str, body: B) -> http::Request<B> {
        let request = http::Request::builder().method(method).uri(url).body(body);
        request.unwrap_or_else(|error| self.broken(format_args!("{url} is no address: {error}")))
    }

    /// What comes of it, in the end.
    pub(super) async fn soon<T>(self, future: impl Future<Output = T>) -> T {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(done) => done,
            Err(_) => self.broken("it hangs"),
        }
    }

    pub(super) async fn send(self, transport: &dyn Transport, request: http::Request<Bytes>) -> Answer {
        self.soon(transport.send(request)).await
    }

    pub(super) fn streams(self, transport: &dyn Transport) -> &dyn Streams {
        transport
            .streams()
            .unwrap_or_else(|| self.broken("this transport carries no files"))
    }
}
