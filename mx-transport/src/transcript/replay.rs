//! Telling a transcript again.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt;

use super::{
    HEADER, TranscriptError,
    body::Opaque,
    line::{Asked, Line},
};
use crate::{
    Sink, Source, Streams, Transport, TransportError, TransportErrorKind as Kind,
    layer::{Answer, Job},
};

/// A transport that answers as a transcript has it, without a network: the same requests, in the same order, with the
/// same bodies but for secrets. Another request is refused ([`Kind::Build`]) and the transcript does not go on.
///
/// Clones go on in the same transcript.
///
/// ```no_run
/// # fn example() -> Result<(), mx_transport::TranscriptError> {
/// let replay = mx_transport::Replay::from_file("tests/login.transcript".as_ref())?;
/// // … the test, and at its end:
/// assert_eq!(replay.left(), 0);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Replay {
    lines: Arc<Mutex<VecDeque<Line>>>,
}

impl Replay {
    /// From a file that [`Record`](crate::Record) has written.
    ///
    /// # Errors
    /// [`TranscriptError`] when it cannot be read, or is none.
    pub fn from_file(path: &Path) -> Result<Self, TranscriptError> {
        Self::from_transcript(&std::fs::read_to_string(path)?)
    }

    /// From the text of a transcript.
    ///
    /// # Errors
    /// [`TranscriptError::Malformed`] when it is none.
    pub fn from_transcript(text: &str) -> Result<Self, TranscriptError> {
        let mut lines = text.lines().enumerate();
        if lines.next().is_none_or(|(_, first)| first.trim() != HEADER) {
            return Err(TranscriptError::Malformed { line: 1 });
        }
        let lines: Result<_, _> = lines
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(number, line)| {
                serde_json::from_str(line).map_err(|_| TranscriptError::Malformed { line: number + 1 })
            })
            .collect();
        Ok(Self {
            lines: Arc::new(Mutex::new(lines?)),
        })
    }

    /// How many exchanges of the transcript have not come yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn tell(&self, asked: &Asked) -> Answer {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(next) = lines.front() else {
            return Err(otherwise("nothing more", asked));
        };
        if !next.asked.is_asked_by(asked) {
            return Err(otherwise(&difference(&next.asked, asked), asked));
        }
        let told = next.told.answer();
        lines.pop_front();
        told
    }
}

fn otherwise(expected: &str, asked: &Asked) -> TransportError {
    let what = format!(
        "the transcript has {expected} where {} {} is asked for",
        asked.method, asked.path
    );
    TransportError::with_source(Kind::Build, what)
}

/// What a transcript has instead, without a query or a body.
fn difference(expected: &Asked, asked: &Asked) -> String {
    let Asked { method, path, .. } = expected;
    if (method, path) != (&asked.method, &asked.path) {
        format!("{method} {path}")
    } else if expected.query != asked.query {
        "another query".to_owned()
    } else {
        "another body".to_owned()
    }
}

#[async_trait]
impl Transport for Replay {
    async fn send(&self, request: http::Request<Bytes>) -> Answer {
        let body = request.body().clone();
        self.tell(&Asked::of(&Job::Send(request), &body, Opaque::Kept))
    }

    fn streams(&self) -> Option<&dyn Streams> {
        Some(self)
    }
}

#[async_trait]
impl Streams for Replay {
    async fn upload(&self, request: http::Request<Arc<dyn Source>>) -> Answer {
        let mut chunks = request.body().open();
        let mut body = Vec::new();
        while let Some(chunk) = chunks.try_next().await.map_err(local)? {
            body.extend_from_slice(&chunk);
        }
        self.tell(&Asked::of(&Job::Upload(request), &body, Opaque::Kept))
    }

    async fn download(&self, request: http::Request<Bytes>, sink: &mut dyn Sink) -> Answer {
        sink.restart().await.map_err(local)?;
        let body = request.body().clone();
        let answer = self.tell(&Asked::of(&Job::Send(request), &body, Opaque::Kept))?;
        if !answer.status().is_success() {
            return Ok(answer);
        }
        if answer.body().len() as u64 > sink.max_bytes() {
            return Err(TransportError::new(Kind::BodyTooLarge));
        }
        let (head, file) = answer.into_parts();
        sink.write(file).await.map_err(local)?;
        Ok(http::Response::from_parts(head, Bytes::new()))
    }
}

fn local(error: std::io::Error) -> TransportError {
    TransportError::with_source(Kind::LocalBody, error)
}
