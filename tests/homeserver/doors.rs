//! The two ways in: a `Transport` in the process, and a socket.

pub(crate) mod socket;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt;
use mx_transport::{Deadline, Phase, Sink, Source, Streams, Transport, TransportError, TransportErrorKind};

use crate::{
    Homeserver,
    faults::{Outcome, Told},
    lock,
};

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
        let failed = |kind| Err(TransportError::new(kind));
        match tokio::time::timeout(patience(&request), self.0.exchange(&request)).await {
            Ok(Outcome::Answer(response)) => Ok(response),
            Ok(Outcome::Dropped) => failed(TransportErrorKind::Interrupted),
            Err(_) => failed(TransportErrorKind::Timeout(Phase::Total)),
        }
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

impl Homeserver {
    /// Answer each sync that has nothing new after this long, although it asks to wait longer, as a proxy does that holds no
    /// request for long.
    pub fn wait_at_most(&self, wait: Duration) {
        lock(&self.0.plan).longest_wait = Some(wait);
    }

    /// Answer when there is something to say.
    async fn exchange(&self, request: &http::Request<Bytes>) -> Outcome {
        let longest = lock(&self.0.plan).longest_wait.unwrap_or(Duration::MAX);
        let wait = self.sync_wait(request).min(longest);
        let end = tokio::time::Instant::now() + wait;
        loop {
            let news = self.news();
            let listening = news.notified();
            if wait.is_zero() || self.has_news(request) || tokio::time::Instant::now() >= end {
                let Told { outcome, after } = self.outcome(request);
                if !after.is_zero() {
                    tokio::time::sleep(after).await;
                }
                return outcome;
            }
            tokio::select! {
                () = listening => {}
                () = tokio::time::sleep_until(end) => {}
            }
        }
    }
}
