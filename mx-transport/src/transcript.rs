//! What went over the wire, written down once and told again: tests against a real homeserver without one.
//!
//! # The format
//! Lines of JSON, in UTF-8. The first is `{"mx-transcript":1}`. Each further line is an exchange, in the order in which
//! its request went out:
//!
//! ```json
//! {"method":"PUT","path":"/_matrix/client/v3/sendToDevice/m.room.encrypted/t1","query":[["ts","1"]],
//!  "body":{"text":"{}"},"answer":{"status":200,"headers":[["content-type","application/json"]],"body":{"text":"{}"}}}
//! ```
//!
//! A request has no headers. Of an answer those are kept that mean something to a client of Matrix: `content-type`,
//! `retry-after`. Instead of `answer` there may be `failed`, with the name of a [`TransportErrorKind`]. A body is one of
//! `text` (UTF-8, as it was), `json` (with secrets taken out), `form` (likewise), `base64`, or not there (empty).
//!
//! # What is taken out
//! All headers of requests, and with them access tokens. In JSON, forms and queries the values of names that stand for
//! secrets: passwords, tokens, codes, sessions, keys of backups. What is encrypted stays: a transcript says who talks to
//! whom, and when. It is for test accounts.

mod body;
mod line;
mod record;
mod replay;

pub use self::{record::Record, replay::Replay};

/// The first line.
const HEADER: &str = r#"{"mx-transcript":1}"#;

/// A transcript that cannot be written or read.
///
/// ```
/// use mx_transport::{Replay, TranscriptError};
///
/// match Replay::from_transcript("{\"mx-transcript\":1}\nnonsense") {
///     Err(TranscriptError::Malformed { line }) => assert_eq!(line, 2),
///     other => unreachable!("{other:?}"),
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TranscriptError {
    /// Its file cannot be read or written.
    #[error("the transcript cannot be read or written: check the disk and the permissions")]
    Io(#[from] std::io::Error),

    /// It is none, or one of a later version.
    #[error("line {line} is not what a transcript has there: record it again")]
    Malformed {
        /// Counted from 1.
        line: usize,
    },
}

#[cfg(test)]
mod tests;
