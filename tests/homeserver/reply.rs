//! Answers: JSON with a status, and Matrix's errors.

use bytes::Bytes;
use serde_json::{Value, json};

/// What an endpoint answers, or refuses with.
pub(crate) type Reply = Result<Value, Refusal>;

/// A Matrix error.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Refusal {
    pub(crate) fn new(status: u16, errcode: &str, error: &str) -> Self {
        Self {
            status,
            body: json!({"errcode": errcode, "error": error}),
        }
    }

    pub(crate) fn forbidden(error: &str) -> Self {
        Self::new(403, "M_FORBIDDEN", error)
    }

    pub(crate) fn not_found(error: &str) -> Self {
        Self::new(404, "M_NOT_FOUND", error)
    }

    pub(crate) fn bad_json(error: &str) -> Self {
        Self::new(400, "M_BAD_JSON", error)
    }
}

/// As HTTP.
pub(crate) fn response(reply: Reply) -> http::Response<Bytes> {
    let (status, body) = match reply {
        Ok(body) => (200, body),
        Err(refusal) => (refusal.status, refusal.body),
    };
    raw(status, Bytes::from(body.to_string()))
}

pub(crate) fn raw(status: u16, body: Bytes) -> http::Response<Bytes> {
    let mut response = http::Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    response
}
