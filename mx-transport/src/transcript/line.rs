//! A line of a transcript: one exchange.

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use serde::{Deserialize, Serialize};

use super::body::{Body, Opaque, pairs};
use crate::{
    Phase, TransportError, TransportErrorKind as Kind,
    layer::{Answer, Job},
};

/// Headers of an answer that mean something to a client of Matrix.
const KEPT: [HeaderName; 2] = [CONTENT_TYPE, RETRY_AFTER];

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) query: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Body::is_nothing")]
    pub(super) body: Body,
}

impl Asked {
    /// Of a request, whose body is this.
    pub(super) fn of(job: &Job<'_>, body: &[u8], opaque: Opaque) -> Self {
        let content_type = job.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        Self {
            method: job.method().to_string(),
            path: job.path().to_owned(),
            query: job.uri().query().map(pairs).unwrap_or_default(),
            body: Body::of(body, content_type, opaque),
        }
    }

    /// Whether it is what was asked then, as far as it was kept.
    pub(super) fn is_asked_by(&self, other: &Self) -> bool {
        let is_same_body = match &self.body {
            Body::Length(bytes) => other.body.bytes().is_some_and(|other| other.len() == *bytes),
            body => *body == other.body,
        };
        is_same_body && (&self.method, &self.path, &self.query) == (&other.method, &other.path, &other.query)
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Told {
    Answer(Answered),
    Failed(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Answered {
    status: u16,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Body::is_nothing")]
    body: Body,
}

/// One exchange.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Line {
    #[serde(flatten)]
    pub(super) asked: Asked,
    #[serde(flatten)]
    pub(super) told: Told,
}

impl Told {
    /// Of an answer; `file` is what went to a sink, which a refusal does not.
    pub(super) fn of(answer: &Answer, file: Option<&[u8]>, opaque: Opaque) -> Self {
        let response = match answer {
            Ok(response) => response,
            Err(error) => return Self::Failed(name(error.kind()).to_owned()),
        };
        let text = |name: &HeaderName| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some((name.to_string(), value.to_owned()))
        };
        let content_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let (body, opaque) = match file.filter(|_| response.status().is_success()) {
            Some(file) => (file, Opaque::Kept),
            None => (response.body().as_ref(), opaque),
        };
        Self::Answer(Answered {
            status: response.status().as_u16(),
            headers: KEPT.iter().filter_map(text).collect(),
            body: Body::of(body, content_type, opaque),
        })
    }

    /// The answer, with all of its body.
    pub(super) fn answer(&self) -> Answer {
        let unreadable = || TransportError::with_source(Kind::Build, "the transcript holds an answer that is none");
        let answered = match self {
            Self::Failed(named) => return Err(TransportError::new(kind(named).ok_or_else(unreadable)?)),
            Self::Answer(answered) => answered,
        };
        let body = answered.body.bytes().ok_or_else(unreadable)?;
        let mut response = http::Response::new(body.into());
        *response.status_mut() = answered.status.try_into().map_err(|_| unreadable())?;
        for (name, value) in &answered.headers {
            let name = HeaderName::try_from(name).map_err(|_| unreadable())?;
            let value = HeaderValue::try_from(value).map_err(|_| unreadable())?;
            response.headers_mut().append(name, value);
        }
        Ok(response)
    }
}

const KINDS: [(&str, Kind); 14] = [
    ("build", Kind::Build),
    ("connect", Kind::Connect),
    ("tls", Kind::Tls),
    ("timeout-queue", Kind::Timeout(Phase::Queue)),
    ("timeout-connect", Kind::Timeout(Phase::Connect)),
    ("timeout-headers", Kind::Timeout(Phase::Headers)),
    ("timeout-body", Kind::Timeout(Phase::Body)),
    ("timeout-total", Kind::Timeout(Phase::Total)),
    ("redirect", Kind::Redirect),
    ("body-too-large", Kind::BodyTooLarge),
    ("truncated", Kind::Truncated),
    ("interrupted", Kind::Interrupted),
    ("malformed", Kind::Malformed),
    ("local-body", Kind::LocalBody),
];

fn name(kind: Kind) -> &'static str {
    KINDS
        .iter()
        .find(|(_, known)| *known == kind)
        .map_or("interrupted", |(name, _)| name)
}

fn kind(name: &str) -> Option<Kind> {
    KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
}
