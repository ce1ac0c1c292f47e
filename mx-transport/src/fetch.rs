//! Small answers of servers that are not trusted with our memory: read up to a limit, and no further.

use std::{io, sync::Arc};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use crate::{Sink, Transport, TransportError, TransportErrorKind};

/// A body in memory, up to a limit.
#[derive(Debug)]
struct Limited {
    body: BytesMut,
    max_bytes: usize,
}

#[async_trait]
impl Sink for Limited {
    fn max_bytes(&self) -> u64 {
        self.max_bytes as u64
    }

    async fn restart(&mut self) -> io::Result<()> {
        self.body.clear();
        Ok(())
    }

    async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        if self.body.len() + chunk.len() > self.max_bytes {
            return Err(io::Error::other("the answer is larger than allowed"));
        }
        self.body.extend_from_slice(&chunk);
        Ok(())
    }
}

/// Send a request whose answer is at most `max_bytes` long. A transport that carries files stops reading there; another one
/// has its own limit, and what is longer than ours is refused.
pub(crate) async fn fetch(
    transport: &Arc<dyn Transport>,
    request: http::Request<Bytes>,
    max_bytes: usize,
) -> Result<http::Response<Bytes>, TransportError> {
    let answer = match transport.streams() {
        Some(streams) => {
            let mut sink = Limited {
                body: BytesMut::new(),
                max_bytes,
            };
            let answer = streams.download(request, &mut sink).await?;
            if answer.status().is_success() {
                answer.map(|_| sink.body.freeze())
            } else {
                answer
            }
        }
        None => transport.send(request).await?,
    };
    if answer.body().len() > max_bytes {
        return Err(TransportError::new(TransportErrorKind::BodyTooLarge));
    }
    Ok(answer)
}
