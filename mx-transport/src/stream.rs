//! The seam for bodies that do not fit into memory: an upload out of a [`Source`], a download into a [`Sink`].

mod file;

use std::{fmt, io, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

pub use self::file::{FileSink, FileSource};
use crate::TransportError;

/// The pieces of a body, in their order.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), std::io::Error> {
/// use bytes::Bytes;
/// use futures_util::{StreamExt, TryStreamExt, stream};
/// use mx_transport::Chunks;
///
/// let chunks: Chunks = stream::iter([Ok(Bytes::from("in ")), Ok(Bytes::from("pieces"))]).boxed();
/// let whole: Vec<u8> = chunks.map_ok(|piece| piece.to_vec()).try_concat().await?;
/// assert_eq!(whole, b"in pieces");
/// # Ok(()) }
/// ```
pub type Chunks = BoxStream<'static, io::Result<Bytes>>;

/// A body that is sent. It can be read from its start as often as an attempt is made.
///
/// ```
/// use bytes::Bytes;
/// use futures_util::{StreamExt, stream};
/// use mx_transport::{Chunks, Source};
///
/// #[derive(Debug)]
/// struct Held(Bytes);
///
/// impl Source for Held {
///     fn bytes(&self) -> u64 {
///         self.0.len() as u64
///     }
///
///     fn open(&self) -> Chunks {
///         stream::iter([Ok(self.0.clone())]).boxed()
///     }
/// }
/// ```
pub trait Source: fmt::Debug + Send + Sync {
    /// How long the body is, in bytes: never more and never less than what [`open`](Self::open) gives.
    fn bytes(&self) -> u64;

    /// The body, from its start. Every call begins anew, and gives the same bytes.
    fn open(&self) -> Chunks;
}

/// Where a body goes that is received.
///
/// ```
/// use async_trait::async_trait;
/// use bytes::Bytes;
/// use mx_transport::Sink;
///
/// #[derive(Debug, Default)]
/// struct InMemory(Vec<u8>);
///
/// #[async_trait]
/// impl Sink for InMemory {
///     fn max_bytes(&self) -> u64 {
///         1 << 20
///     }
///
///     async fn restart(&mut self) -> std::io::Result<()> {
///         self.0.clear();
///         Ok(())
///     }
///
///     async fn write(&mut self, chunk: Bytes) -> std::io::Result<()> {
///         self.0.extend_from_slice(&chunk);
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait Sink: fmt::Debug + Send {
    /// How many bytes it takes at most: an answer that is longer is refused with
    /// [`BodyTooLarge`](crate::TransportErrorKind::BodyTooLarge), before it is read where its length is announced.
    fn max_bytes(&self) -> u64;

    /// Forget what was written: an attempt begins.
    ///
    /// # Errors
    /// Of the place that the body goes to.
    async fn restart(&mut self) -> io::Result<()>;

    /// Take the next piece.
    ///
    /// # Errors
    /// Of the place that the body goes to.
    async fn write(&mut self, chunk: Bytes) -> io::Result<()>;
}

/// What a [`Transport`](crate::Transport) does that also carries bodies which do not fit into memory.
///
/// ```
/// use mx_transport::Transport;
///
/// // A transport of yours that carries none can hold everything but files.
/// fn carries_files(transport: &dyn Transport) -> bool {
///     transport.streams().is_some()
/// }
/// # let _ = carries_files;
/// ```
///
/// # Contract
/// - As [`Transport`](crate::Transport): any status is `Ok`, a call sends at most once unless it is a wrapper's job to
///   repeat, [`Deadline`](crate::Deadline) bounds the whole call, errors hold no header, body or query.
/// - Memory does not grow with the body.
/// - What cannot be read from the source or written to the sink is
///   [`LocalBody`](crate::TransportErrorKind::LocalBody), which is not tried again.
#[async_trait]
pub trait Streams: fmt::Debug + Send + Sync {
    /// Send `request` with the body of its source, and return the complete response.
    ///
    /// ```no_run
    /// # async fn example(way: &dyn mx_transport::Transport, source: std::sync::Arc<dyn mx_transport::Source>) -> Result<(), Box<dyn std::error::Error>> {
    /// // What a homeserver does with it: a request whose body is read as often as it is sent.
    /// let Some(streams) = way.streams() else { return Err("this transport carries no files".into()) };
    /// let answer = streams.upload(http::Request::post("https://hs.test/_matrix/media/v3/upload").body(source)?).await?;
    /// println!("{}", answer.status());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`TransportError`] when no complete response arrived.
    ///
    /// # Cancel safety
    /// Dropping the future closes the exchange; whether the server processed it is not known then.
    async fn upload(&self, request: http::Request<Arc<dyn Source>>) -> Result<http::Response<Bytes>, TransportError>;

    /// Send `request`, and put the body of a 2xx into `sink`; the body of any other status is in the response. Every
    /// attempt restarts the sink. Only after `Ok` with a 2xx is the whole body in it.
    ///
    /// # Errors
    /// [`TransportError`] when no complete response arrived.
    ///
    /// # Cancel safety
    /// Dropping the future closes the exchange, and leaves a part of the body in the sink.
    async fn download(
        &self,
        request: http::Request<Bytes>,
        sink: &mut dyn Sink,
    ) -> Result<http::Response<Bytes>, TransportError>;
}
