//! Files over reqwest: sent and received in pieces, and given up when nothing moves.

use std::{
    future::Future,
    io,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::CONTENT_LENGTH;
use tokio::time::timeout;

use super::{ReqwestTransport, announced, collect, complete, failure::within_the_answer};
use crate::{Deadline, Phase, Sink, Source, Streams, TransportError, TransportErrorKind as Kind};

/// What a server says instead of a file is short, in bytes.
const MAX_REFUSAL_BYTES: usize = 1024 * 1024;

/// Without a deadline an exchange ends after this long, however well it goes.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

#[async_trait]
impl Streams for ReqwestTransport {
    async fn upload(&self, request: http::Request<Arc<dyn Source>>) -> Result<http::Response<Bytes>, TransportError> {
        let moved = Moved::default();
        let unreadable = Unreadable::default();
        let deadline = deadline(&request);
        let exchanged = self
            .while_it_moves(deadline, &moved, self.put(request, &moved, &unreadable))
            .await;
        // The client only says that the body broke.
        match unreadable.take() {
            Some(error) => Err(TransportError::with_source(Kind::LocalBody, error)),
            None => exchanged,
        }
    }

    async fn download(
        &self,
        request: http::Request<Bytes>,
        sink: &mut dyn Sink,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let moved = Moved::default();
        let deadline = deadline(&request);
        self.while_it_moves(deadline, &moved, self.fetch(request, sink, &moved))
            .await
    }
}

impl ReqwestTransport {
    /// Give up at the deadline, and when nothing has moved for a while.
    async fn while_it_moves<T>(
        &self,
        deadline: Duration,
        moved: &Moved,
        exchange: impl Future<Output = Result<T, TransportError>> + Send,
    ) -> Result<T, TransportError> {
        let mut exchange = pin!(exchange);
        let watched = async {
            let mut before = moved.so_far();
            loop {
                match timeout(self.idle, &mut exchange).await {
                    Ok(exchanged) => return exchanged,
                    Err(_) if moved.so_far() != before => before = moved.so_far(),
                    Err(_) => return Err(TransportError::new(Kind::Timeout(Phase::Body))),
                }
            }
        };
        timeout(deadline, watched)
            .await
            .unwrap_or_else(|_| Err(TransportError::new(Kind::Timeout(Phase::Total))))
    }

    async fn put(
        &self,
        request: http::Request<Arc<dyn Source>>,
        moved: &Moved,
        unreadable: &Unreadable,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let (mut parts, source) = request.into_parts();
        parts.headers.insert(CONTENT_LENGTH, source.bytes().into());
        let (moved, unreadable) = (moved.clone(), unreadable.clone());
        let chunks = source.open().map(move |chunk| match chunk {
            Ok(chunk) => {
                moved.add(chunk.len());
                Ok(chunk)
            }
            Err(error) => {
                let kind = error.kind();
                unreadable.keep(error);
                Err(io::Error::from(kind))
            }
        });
        let body = ::reqwest::Body::wrap_stream(chunks);
        let mut response = self.execute(http::Request::from_parts(parts, body)).await?;
        let body = collect(&mut response, MAX_REFUSAL_BYTES, self.stall).await?;
        Ok(complete(&mut response, body))
    }

    async fn fetch(
        &self,
        request: http::Request<Bytes>,
        sink: &mut dyn Sink,
        moved: &Moved,
    ) -> Result<http::Response<Bytes>, TransportError> {
        sink.restart().await.map_err(unwritable)?;
        let mut response = self.execute(request.map(::reqwest::Body::from)).await?;
        if !response.status().is_success() {
            let body = collect(&mut response, MAX_REFUSAL_BYTES, self.stall).await?;
            return Ok(complete(&mut response, body));
        }
        let mut left = sink.max_bytes();
        if announced(&response).is_some_and(|announced| announced > left) {
            return Err(TransportError::new(Kind::BodyTooLarge));
        }
        while let Some(chunk) = response.chunk().await.map_err(within_the_answer)? {
            moved.add(chunk.len());
            left = left
                .checked_sub(chunk.len() as u64)
                .ok_or_else(|| TransportError::new(Kind::BodyTooLarge))?;
            sink.write(chunk).await.map_err(unwritable)?;
        }
        Ok(complete(&mut response, Bytes::new()))
    }
}

fn unwritable(error: io::Error) -> TransportError {
    TransportError::with_source(Kind::LocalBody, error)
}

fn deadline<B>(request: &http::Request<B>) -> Duration {
    let deadline = request.extensions().get::<Deadline>();
    deadline.map_or(LONGEST, |deadline| deadline.0)
}

/// How many pieces and bytes have moved.
#[derive(Clone, Debug, Default)]
struct Moved(Arc<AtomicU64>);

impl Moved {
    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn so_far(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why the source could not be read.
#[derive(Clone, Debug, Default)]
struct Unreadable(Arc<Mutex<Option<io::Error>>>);

impl Unreadable {
    fn keep(&self, error: io::Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn exchange(pauses: &[u64], deadline: u64) -> Option<Kind> {
        let transport = ReqwestTransport::builder().build().unwrap();
        let moved = Moved::default();
        let exchange = async {
            for pause in pauses {
                tokio::time::sleep(Duration::from_secs(*pause)).await;
                moved.add(1);
            }
            Ok(())
        };
        let watched = transport.while_it_moves(Duration::from_secs(deadline), &moved, exchange);
        watched.await.err().map(|error| error.kind())
    }

    #[tokio::test(start_paused = true)]
    async fn what_moves_may_take_long_and_what_stands_still_may_not() {
        assert_eq!(exchange(&[50; 100], 10_000).await, None);
        assert_eq!(exchange(&[50, 50, 121], 10_000).await, Some(Kind::Timeout(Phase::Body)));
        assert_eq!(
            exchange(&[50; 100], 4_000).await,
            Some(Kind::Timeout(Phase::Total)),
            "the deadline is for all of it"
        );
    }
}
