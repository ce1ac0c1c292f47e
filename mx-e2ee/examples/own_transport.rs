//! A transport of one's own: a wrapper that shows a pass to a gate in front of the homeserver, as access proxies want it.
//!
//! `cargo xtask example own_transport` runs it behind such a gate. On a homeserver of yours, after `mx login`
//! (`MX_DIRECTORY` is the directory of that login):
//!
//! ```sh
//! MX_DIRECTORY=/var/lib/bot MX_PASS_FILE=pass cargo run -p mx-e2ee --example own_transport -- '#room:example.org' hello
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to people")]

use std::{env, fmt, fs, sync::Arc};

use anyhow::{Context, Result};
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use mx_e2ee::{
    Client,
    transport::{RateLimit, ReqwestTransport, Retry, Sink, Source, Streams, Transport, TransportError},
};

/// A transport around another one, which adds a header to every request.
struct WithPass<T> {
    inner: T,
    pass: HeaderValue,
}

impl<T> WithPass<T> {
    fn show<B>(&self, mut request: Request<B>) -> Request<B> {
        request.headers_mut().insert("x-gate-pass", self.pass.clone());
        request
    }
}

/// The pass stays out of logs.
impl<T: fmt::Debug> fmt::Debug for WithPass<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithPass")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<T: Transport> Transport for WithPass<T> {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        self.inner.send(self.show(request)).await
    }

    // Files go the same way, where the transport below carries them.
    fn streams(&self) -> Option<&dyn Streams> {
        self.inner.streams().is_some().then_some(self)
    }
}

#[async_trait]
impl<T: Transport> Streams for WithPass<T> {
    async fn upload(&self, request: Request<Arc<dyn Source>>) -> Result<Response<Bytes>, TransportError> {
        let inner = self.inner.streams().ok_or_else(carries_none)?;
        inner.upload(self.show(request)).await
    }

    async fn download(&self, request: Request<Bytes>, sink: &mut dyn Sink) -> Result<Response<Bytes>, TransportError> {
        let inner = self.inner.streams().ok_or_else(carries_none)?;
        inner.download(self.show(request), sink).await
    }
}

fn carries_none() -> TransportError {
    TransportError::new(mx_e2ee::transport::TransportErrorKind::LocalBody)
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let (Some(room), Some(text)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: own_transport ROOM TEXT");
    };
    let directory = env::var("MX_DIRECTORY").context("set MX_DIRECTORY to the directory of a login")?;
    let pass = env::var("MX_PASS_FILE").context("set MX_PASS_FILE to the file that holds the pass")?;
    let mut pass = HeaderValue::from_str(fs::read_to_string(pass)?.trim_end())?;
    pass.set_sensitive(true);

    // From the inside to the outside: the HTTP client, the pass, a place in the line, another attempt.
    let inner = ReqwestTransport::builder().build()?;
    let transport = Retry::new(RateLimit::new(WithPass { inner, pass }));
    let client = Client::builder()
        .directory(directory)
        .transport(Arc::new(transport))
        .open()
        .await?;
    let receipt = client.room(&client.resolve(&room).await?).send_text(text).await?;
    println!("{} went through the gate", receipt.event_id);
    Ok(client.close().await?)
}
