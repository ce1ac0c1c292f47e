//! Files over reqwest: sent and received in pieces, and given up when nothing moves.

use std::{
    future::Future,
    io,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
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
        let moved = Moved::of(request.body().bytes());
        let unreadable = Unreadable::default();
        let times = self.times(&request);
        let exchanged = self
            .while_it_moves(times, &moved, self.put(request, &moved, &unreadable))
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
        let moved = Moved::of(u64::MAX);
        let times = self.times(&request);
        self.while_it_moves(times, &moved, self.fetch(request, sink, &moved))
            .await
    }
}

/// How long the exchange of a file may take.
#[derive(Clone, Copy, Debug)]
struct Times {
    whole: Duration,
    /// The head of the answer, after a file was sent: a server may look into it before it says anything.
    verdict: Duration,
}

impl ReqwestTransport {
    fn times<B>(&self, request: &http::Request<B>) -> Times {
        let deadline = request.extensions().get::<Deadline>().map(|deadline| deadline.0);
        Times {
            whole: deadline.unwrap_or(LONGEST),
            verdict: deadline.unwrap_or_else(|| self.headers.unwrap_or(self.total)),
        }
    }

    /// Give up at the deadline, and when nothing has moved for a while.
    async fn while_it_moves<T>(
        &self,
        times: Times,
        moved: &Moved,
        exchange: impl Future<Output = Result<T, TransportError>> + Send,
    ) -> Result<T, TransportError> {
        let mut exchange = pin!(exchange);
        let watched = async {
            let mut before = moved.so_far();
            loop {
                let patience = if moved.awaits_a_verdict() {
                    times.verdict
                } else {
                    self.idle
                };
                match timeout(patience, &mut exchange).await {
                    Ok(exchanged) => return exchanged,
                    Err(_) if moved.so_far() != before => before = moved.so_far(),
                    Err(_) => return Err(TransportError::new(Kind::Timeout(moved.stands_still_at()))),
                }
            }
        };
        timeout(times.whole, watched).await.unwrap_or_else(|_| {
            let phase = if moved.awaits_a_verdict() {
                Phase::Headers
            } else {
                Phase::Total
            };
            Err(TransportError::new(Kind::Timeout(phase)))
        })
    }

    async fn put(
        &self,
        request: http::Request<Arc<dyn Source>>,
        moved: &Moved,
        unreadable: &Unreadable,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let (mut parts, source) = request.into_parts();
        parts.headers.insert(CONTENT_LENGTH, source.bytes().into());
        let answered = moved.clone();
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
        answered.begin();
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
        moved.begin();
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

/// How far an exchange has come.
#[derive(Clone, Debug)]
struct Moved {
    bytes: Arc<AtomicU64>,
    /// How many are sent: never reached by what is received.
    to_send: u64,
    /// The answer has begun.
    begun: Arc<AtomicBool>,
}

impl Moved {
    fn of(to_send: u64) -> Self {
        Self {
            bytes: Arc::default(),
            to_send,
            begun: Arc::default(),
        }
    }

    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn so_far(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// All of the file is on its way, and nothing was said to it.
    fn awaits_a_verdict(&self) -> bool {
        !self.begun.load(Ordering::Relaxed) && self.so_far() >= self.to_send
    }

    /// What does not come: a piece of the file, or the head of an answer.
    fn stands_still_at(&self) -> Phase {
        let is_sending = self.to_send != u64::MAX && self.so_far() < self.to_send;
        if is_sending || self.begun.load(Ordering::Relaxed) {
            Phase::Body
        } else {
            Phase::Headers
        }
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

    /// A byte after each of these times.
    async fn exchange_of(moved: Moved, pauses: &[u64], deadline: u64) -> Option<Kind> {
        let transport = ReqwestTransport::builder().build().unwrap();
        let exchange = async {
            for pause in pauses {
                tokio::time::sleep(Duration::from_secs(*pause)).await;
                moved.add(1);
            }
            Ok(())
        };
        let times = Times {
            whole: Duration::from_secs(deadline),
            verdict: Duration::from_secs(600),
        };
        let watched = transport.while_it_moves(times, &moved, exchange);
        watched.await.err().map(|error| error.kind())
    }

    async fn exchange(pauses: &[u64], deadline: u64) -> Option<Kind> {
        let moved = Moved::of(u64::MAX);
        moved.begin();
        exchange_of(moved, pauses, deadline).await
    }

    #[tokio::test(start_paused = true)]
    async fn nw_08_who_looks_into_a_file_may_take_longer_than_who_does_not_take_it() {
        let sends = |bytes| Moved::of(bytes);
        assert_eq!(exchange_of(sends(2), &[50, 50, 590], 10_000).await, None);
        assert_eq!(
            exchange_of(sends(2), &[50, 50, 700], 10_000).await,
            Some(Kind::Timeout(Phase::Headers))
        );
        assert_eq!(
            exchange_of(sends(9), &[50, 50, 121], 10_000).await,
            Some(Kind::Timeout(Phase::Body)),
            "its upload stands still"
        );
        assert_eq!(
            exchange_of(sends(2), &[50, 50, 590], 300).await,
            Some(Kind::Timeout(Phase::Headers))
        );
        assert_eq!(
            exchange_of(sends(9), &[50; 9], 300).await,
            Some(Kind::Timeout(Phase::Total))
        );
        assert_eq!(
            exchange_of(Moved::of(u64::MAX), &[121], 10_000).await,
            Some(Kind::Timeout(Phase::Headers)),
            "a download whose answer does not begin"
        );
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
