//! The two ways in: a `Transport` in the process, and a socket through wiremock.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt;
use mx_transport::{Deadline, Phase, Sink, Source, Streams, Transport, TransportError, TransportErrorKind};
use wiremock::{Mock, MockServer, Respond, ResponseTemplate, matchers::any};

use crate::{
    Homeserver,
    faults::{Outcome, Told},
};

/// wiremock answers one request after the other, so that a socket cannot wait for news: an empty sync is held back
/// this long, and asked again by the client.
const SOCKET_WAIT: Duration = Duration::from_millis(100);

/// The door without a socket gives an exchange without a deadline up after this long, as HTTP clients do.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much of a file is given at once, in bytes.
const PIECE_BYTES: usize = 1000;

/// How long the sender of a request waits for its answer.
pub(crate) fn patience(request: &http::Request<Bytes>) -> Duration {
    let deadline = request.extensions().get::<Deadline>();
    deadline.map_or(PATIENCE, |deadline| deadline.0)
}

/// The door without a socket. A sync waits for news as long as it asks for.
#[derive(Clone, Debug)]
pub(crate) struct InProcess(pub(crate) Homeserver);

#[async_trait]
impl Transport for InProcess {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        tokio::time::timeout(patience(&request), self.exchange(&request))
            .await
            .unwrap_or_else(|_| Err(TransportError::new(TransportErrorKind::Timeout(Phase::Total))))
    }

    fn streams(&self) -> Option<&dyn Streams> {
        Some(self)
    }
}

/// In pieces as over a network, and in memory in between: a test's files are small.
#[async_trait]
impl Streams for InProcess {
    async fn upload(&self, request: http::Request<Arc<dyn Source>>) -> Result<http::Response<Bytes>, TransportError> {
        let (parts, source) = request.into_parts();
        let mut chunks = source.open();
        let mut body = Vec::new();
        while let Some(chunk) = chunks.try_next().await.map_err(local)? {
            body.extend_from_slice(&chunk);
        }
        self.send(http::Request::from_parts(parts, body.into())).await
    }

    async fn download(
        &self,
        request: http::Request<Bytes>,
        sink: &mut dyn Sink,
    ) -> Result<http::Response<Bytes>, TransportError> {
        sink.restart().await.map_err(local)?;
        let answer = self.send(request).await?;
        if !answer.status().is_success() {
            return Ok(answer);
        }
        let (parts, mut body) = answer.into_parts();
        if body.len() as u64 > sink.max_bytes() {
            return Err(TransportError::new(TransportErrorKind::BodyTooLarge));
        }
        while !body.is_empty() {
            let piece = body.split_to(body.len().min(PIECE_BYTES));
            sink.write(piece).await.map_err(local)?;
        }
        Ok(http::Response::from_parts(parts, Bytes::new()))
    }
}

fn local(error: std::io::Error) -> TransportError {
    TransportError::with_source(TransportErrorKind::LocalBody, error)
}

impl InProcess {
    async fn exchange(&self, request: &http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let wait = self.0.sync_wait(request);
        let end = tokio::time::Instant::now() + wait;
        loop {
            let news = self.0.news();
            let listening = news.notified();
            if wait.is_zero() || self.0.has_news(request) || tokio::time::Instant::now() >= end {
                let Told { outcome, after } = self.0.outcome(request);
                if !after.is_zero() {
                    tokio::time::sleep(after).await;
                }
                return match outcome {
                    Outcome::Answer(response) => Ok(response),
                    Outcome::Dropped => Err(TransportError::new(TransportErrorKind::Interrupted)),
                };
            }
            tokio::select! {
                () = listening => {}
                () = tokio::time::sleep_until(end) => {}
            }
        }
    }
}

/// A homeserver on a socket of 127.0.0.1, until it is dropped.
#[derive(Debug)]
pub struct Listening {
    server: MockServer,
}

impl Listening {
    pub(crate) async fn start(homeserver: Homeserver) -> Self {
        let server = MockServer::start().await;
        Mock::given(any()).respond_with(Socket(homeserver)).mount(&server).await;
        Self { server }
    }

    /// Where it listens, as in `http://127.0.0.1:40123`.
    #[must_use]
    pub fn uri(&self) -> String {
        self.server.uri()
    }
}

struct Socket(Homeserver);

impl Respond for Socket {
    fn respond(&self, request: &wiremock::Request) -> ResponseTemplate {
        let mut http = http::Request::new(Bytes::from(request.body.clone()));
        *http.method_mut() = request.method.clone();
        *http.headers_mut() = request.headers.clone();
        if let Ok(uri) = request.url.as_str().parse() {
            *http.uri_mut() = uri;
        }
        let held_back = !self.0.sync_wait(&http).is_zero() && !self.0.has_news(&http);
        let Told { outcome, after } = self.0.outcome(&http);
        let template = match outcome {
            Outcome::Answer(response) => {
                let (parts, body) = response.into_parts();
                let template =
                    ResponseTemplate::new(parts.status.as_u16()).set_body_raw(body.to_vec(), "application/json");
                parts
                    .headers
                    .iter()
                    .fold(template, |template, (name, value)| template.insert_header(name, value))
            }
            // wiremock cannot break a connection: a proxy that lost its server answers like this.
            Outcome::Dropped => ResponseTemplate::new(502),
        };
        let delay = if held_back { SOCKET_WAIT + after } else { after };
        if delay.is_zero() {
            template
        } else {
            template.set_delay(delay)
        }
    }
}
