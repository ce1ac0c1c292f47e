//! What every wrapper is made of: it does the same with a request in memory, an upload and a download.

use std::{borrow::Cow, fmt, io, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Extensions, HeaderMap, Method, Uri};

use crate::{
    Deadline, Endpoint, Family, Sink, Source, Transport, TransportError, TransportErrorKind as Kind, endpoint::shown,
};

/// What came of a request.
pub(crate) type Answer = Result<http::Response<Bytes>, TransportError>;

/// A request on its way, whatever its bodies are. It can be sent again: a source is read from its start then, and a sink
/// is filled anew.
pub(crate) enum Job<'a> {
    Send(http::Request<Bytes>),
    Upload(http::Request<Arc<dyn Source>>),
    Download(http::Request<Bytes>, &'a mut dyn Sink),
}

/// Request extension: a wrapper ends the request after this long, whether it has a [`Deadline`] or not. Who holds it back
/// has to know; the client need not, since a deadline means more to it.
#[derive(Clone, Copy, Debug)]
struct TimeLeft(Duration);

/// What of this time an exchange needs for itself: who would wait longer for its turn, or for another attempt, would send
/// what nobody waits for any more.
pub(crate) fn for_the_exchange(time: Duration) -> Duration {
    (time / 10).min(Duration::from_secs(10))
}

macro_rules! of_head {
    ($job:ident, $request:ident => $what:expr) => {
        match $job {
            Job::Send($request) | Job::Download($request, _) => $what,
            Job::Upload($request) => $what,
        }
    };
}

impl Job<'_> {
    pub(crate) fn method(&self) -> &Method {
        of_head!(self, request => request.method())
    }

    pub(crate) fn uri(&self) -> &Uri {
        of_head!(self, request => request.uri())
    }

    pub(crate) fn path(&self) -> &str {
        self.uri().path()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        of_head!(self, request => request.headers())
    }

    pub(crate) fn headers_mut(&mut self) -> &mut HeaderMap {
        of_head!(self, request => request.headers_mut())
    }

    pub(crate) fn extensions(&self) -> &Extensions {
        of_head!(self, request => request.extensions())
    }

    pub(crate) fn extensions_mut(&mut self) -> &mut Extensions {
        of_head!(self, request => request.extensions_mut())
    }

    /// What a log or a metric shows of the path.
    pub(crate) fn shown(&self) -> Cow<'static, str> {
        shown(self.extensions().get::<Endpoint>(), self.path())
    }

    pub(crate) fn family(&self) -> Family {
        Family::of(self.path())
    }

    /// How many bytes of a body are sent.
    pub(crate) fn bytes_out(&self) -> u64 {
        match self {
            Self::Send(request) | Self::Download(request, _) => request.body().len() as u64,
            Self::Upload(request) => request.body().bytes(),
        }
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.extensions().get::<Deadline>().map(|deadline| deadline.0)
    }

    /// How long anybody waits for it, said or not.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        let left = self.extensions().get::<TimeLeft>().map(|left| left.0);
        let deadline = self.deadline();
        left.map_or(deadline, |left| {
            Some(deadline.map_or(left, |deadline| deadline.min(left)))
        })
    }

    /// Nobody waits longer for it than this, and not longer than was said before.
    pub(crate) fn waits_at_most(&mut self, time: Duration) {
        let before = self.extensions().get::<TimeLeft>().map_or(time, |left| left.0);
        self.extensions_mut().insert(TimeLeft(time.min(before)));
    }

    /// What is left of the deadline after this much of it.
    pub(crate) fn spend(&mut self, time: Duration) {
        if let Some(TimeLeft(left)) = self.extensions().get::<TimeLeft>().copied() {
            self.extensions_mut().insert(TimeLeft(left.saturating_sub(time)));
        }
        if let Some(deadline) = self.deadline() {
            self.extensions_mut().insert(Deadline(deadline.saturating_sub(time)));
        }
    }

    /// Send it, and count what is received of a body.
    pub(crate) async fn run_counted(&mut self, inner: &dyn Transport) -> (Answer, u64) {
        if let Self::Download(request, sink) = self {
            let mut counted = Counted { sink: *sink, bytes: 0 };
            let answer = Job::Download(request.clone(), &mut counted).run(inner).await;
            let refusal = answer.as_ref().map_or(0, |answer| answer.body().len() as u64);
            return (answer, counted.bytes + refusal);
        }
        let answer = self.run(inner).await;
        let bytes = answer.as_ref().map_or(0, |answer| answer.body().len() as u64);
        (answer, bytes)
    }

    /// Send it, once more if it was sent before.
    pub(crate) async fn run(&mut self, inner: &dyn Transport) -> Answer {
        match self {
            Self::Send(request) => inner.send(request.clone()).await,
            Self::Upload(request) => files(inner)?.upload(request.clone()).await,
            Self::Download(request, sink) => files(inner)?.download(request.clone(), *sink).await,
        }
    }
}

fn files(inner: &dyn Transport) -> Result<&dyn crate::Streams, TransportError> {
    inner
        .streams()
        .ok_or_else(|| TransportError::with_source(Kind::Build, "this transport carries no files"))
}

/// A sink that counts what goes into it.
#[derive(Debug)]
struct Counted<'a> {
    sink: &'a mut dyn Sink,
    bytes: u64,
}

#[async_trait]
impl Sink for Counted<'_> {
    fn max_bytes(&self) -> u64 {
        self.sink.max_bytes()
    }

    async fn restart(&mut self) -> io::Result<()> {
        self.sink.restart().await
    }

    async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        self.bytes += chunk.len() as u64;
        self.sink.write(chunk).await
    }
}

/// How an exchange ended, in a word: the status, or the code of the error.
pub(crate) fn outcome(answer: &Answer) -> String {
    match answer {
        Ok(response) => response.status().as_str().to_owned(),
        Err(error) => error.code().to_owned(),
    }
}

/// A wrapper: what it does with a request on the way to what it wraps. [`transport!`] makes it a transport.
#[async_trait]
pub(crate) trait Layer: fmt::Debug + Send + Sync {
    fn inner(&self) -> &dyn Transport;

    async fn carry(&self, job: &mut Job<'_>) -> Answer;
}

/// The transport that a [`Layer`] is. It carries files where what it wraps does.
macro_rules! transport {
    ($layer:ident $(: $lifetime:lifetime)?) => {
        #[async_trait::async_trait]
        impl<T: $crate::Transport $(+ $lifetime)?> $crate::Transport for $layer<T> {
            async fn send(&self, request: http::Request<bytes::Bytes>) -> $crate::layer::Answer {
                $crate::layer::send(self, request).await
            }

            fn streams(&self) -> Option<&dyn $crate::Streams> {
                $crate::layer::Layer::inner(self).streams().map(|_| self as _)
            }
        }

        $crate::layer::streams!($layer $(: $lifetime)?);
    };
}

/// The second half of [`transport!`]: the files.
macro_rules! streams {
    ($layer:ident $(: $lifetime:lifetime)?) => {
        #[async_trait::async_trait]
        impl<T: $crate::Transport $(+ $lifetime)?> $crate::Streams for $layer<T> {
            async fn upload(
                &self,
                request: http::Request<std::sync::Arc<dyn $crate::Source>>,
            ) -> $crate::layer::Answer {
                $crate::layer::upload(self, request).await
            }

            async fn download(
                &self,
                request: http::Request<bytes::Bytes>,
                sink: &mut dyn $crate::Sink,
            ) -> $crate::layer::Answer {
                $crate::layer::download(self, request, sink).await
            }
        }
    };
}

pub(crate) use {streams, transport};

pub(crate) async fn send(layer: &impl Layer, request: http::Request<Bytes>) -> Answer {
    layer.carry(&mut Job::Send(request)).await
}

pub(crate) async fn upload(layer: &impl Layer, request: http::Request<Arc<dyn Source>>) -> Answer {
    layer.carry(&mut Job::Upload(request)).await
}

pub(crate) async fn download(layer: &impl Layer, request: http::Request<Bytes>, sink: &mut dyn Sink) -> Answer {
    layer.carry(&mut Job::Download(request, sink)).await
}
