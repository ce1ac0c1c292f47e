//! How large an answer may be, by what it is about.

use std::{collections::BTreeMap, io};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Family, Sink, Transport, TransportError, TransportErrorKind as Kind,
    layer::{Answer, Job, Layer, transport},
};

/// A transport whose answers have at most so many bytes, counted after decompression: an answer that is larger is
/// [`BodyTooLarge`](Kind::BodyTooLarge), and the same request would be answered the same again.
///
/// What is inside has read an answer that is held in memory by then; the client's own limit
/// ([`max_body_bytes`](crate::ReqwestTransportBuilder::max_body_bytes)) is what keeps it from growing. This makes it
/// narrower where that is known: an answer to `/login` is short, one to `/sync` may be long. A file goes to its sink no
/// further than the limit, and what a server says instead of a file is limited too.
///
/// ```
/// # use mx_transport::{BodyCap, Family, Transport};
/// # fn example(client: impl Transport) {
/// let capped = BodyCap::new(client, 64 << 20).of_family(Family::Account, 1 << 20);
/// # drop(capped);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct BodyCap<T> {
    inner: T,
    max_bytes: u64,
    families: BTreeMap<Family, u64>,
}

impl<T: Transport> BodyCap<T> {
    /// No answer of `inner` has more than `max_bytes`.
    pub const fn new(inner: T, max_bytes: u64) -> Self {
        Self {
            inner,
            max_bytes,
            families: BTreeMap::new(),
        }
    }

    /// Another limit for a family.
    #[must_use]
    pub fn of_family(mut self, family: Family, max_bytes: u64) -> Self {
        self.families.insert(family, max_bytes);
        self
    }
}

transport!(BodyCap);

#[async_trait]
impl<T: Transport> Layer for BodyCap<T> {
    fn inner(&self) -> &dyn Transport {
        &self.inner
    }

    async fn carry(&self, job: &mut Job<'_>) -> Answer {
        let max_bytes = self.families.get(&job.family()).copied().unwrap_or(self.max_bytes);
        let answer = match job {
            Job::Download(request, sink) => {
                let mut capped = Capped {
                    sink: *sink,
                    max_bytes,
                    taken: 0,
                };
                let answer = Job::Download(request.clone(), &mut capped).run(&self.inner).await;
                if capped.is_full() {
                    return Err(TransportError::new(Kind::BodyTooLarge));
                }
                answer?
            }
            job => job.run(&self.inner).await?,
        };
        if answer.body().len() as u64 > max_bytes {
            return Err(TransportError::new(Kind::BodyTooLarge));
        }
        Ok(answer)
    }
}

/// A sink that takes no more than that, also where who fills it does not ask.
#[derive(Debug)]
struct Capped<'a> {
    sink: &'a mut dyn Sink,
    max_bytes: u64,
    /// What came, the piece that was too much included.
    taken: u64,
}

impl Capped<'_> {
    const fn is_full(&self) -> bool {
        self.taken > self.max_bytes
    }
}

#[async_trait]
impl Sink for Capped<'_> {
    fn max_bytes(&self) -> u64 {
        self.sink.max_bytes().min(self.max_bytes)
    }

    async fn restart(&mut self) -> io::Result<()> {
        self.taken = 0;
        self.sink.restart().await
    }

    async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        self.taken = self.taken.saturating_add(chunk.len() as u64);
        if self.is_full() {
            return Err(io::Error::other("the answer is larger than allowed"));
        }
        self.sink.write(chunk).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Long(usize);

    #[async_trait]
    impl Transport for Long {
        async fn send(&self, _: http::Request<Bytes>) -> Answer {
            Ok(http::Response::new(vec![b'x'; self.0].into()))
        }
    }

    #[tokio::test]
    async fn nw_13_an_answer_is_as_long_as_its_family_may_be() {
        let answer = async |bytes, path: &str| {
            let capped = BodyCap::new(Long(bytes), 100).of_family(Family::Sync, 1000);
            let request = http::Request::get(format!("https://hs.test/_matrix/client/v3/{path}"));
            capped.send(request.body(Bytes::new()).unwrap()).await
        };
        assert_eq!(answer(100, "login").await.unwrap().body().len(), 100);
        assert_eq!(answer(101, "login").await.unwrap_err().kind(), Kind::BodyTooLarge);
        assert_eq!(answer(1000, "sync").await.unwrap().body().len(), 1000);
        assert_eq!(answer(1001, "sync").await.unwrap_err().kind(), Kind::BodyTooLarge);
    }

    /// Fills a sink without asking how much it takes.
    #[derive(Debug)]
    struct Careless;

    #[async_trait]
    impl Transport for Careless {
        async fn send(&self, _: http::Request<Bytes>) -> Answer {
            Ok(http::Response::default())
        }

        fn streams(&self) -> Option<&dyn crate::Streams> {
            Some(self)
        }
    }

    #[async_trait]
    impl crate::Streams for Careless {
        async fn upload(&self, _: http::Request<std::sync::Arc<dyn crate::Source>>) -> Answer {
            Ok(http::Response::default())
        }

        async fn download(&self, _: http::Request<Bytes>, sink: &mut dyn Sink) -> Answer {
            sink.restart().await.unwrap();
            for _ in 0..10 {
                let written = sink.write(Bytes::from_static(&[0; 30])).await;
                written.map_err(|error| TransportError::with_source(Kind::LocalBody, error))?;
            }
            Ok(http::Response::default())
        }
    }

    #[tokio::test]
    async fn nw_13_a_file_goes_no_further_than_the_limit_whoever_fills_the_sink() {
        for (max_bytes, kind, kept) in [(100, Some(Kind::BodyTooLarge), 90), (300, None, 300)] {
            let file = tempfile::tempfile().unwrap();
            let mut sink = crate::FileSink::new(file.try_clone().unwrap(), 1000);
            let capped = BodyCap::new(Careless, max_bytes);
            let request = http::Request::get("https://hs.test/_matrix/media/v3/x").body(Bytes::new());
            let streams = capped.streams().unwrap();
            let answer = streams.download(request.unwrap(), &mut sink).await;
            assert_eq!(answer.err().map(|error| error.kind()), kind);
            assert_eq!(file.metadata().unwrap().len(), kept);
        }
    }
}
