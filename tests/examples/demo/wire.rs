//! A transport that notes what goes over the wire, for people to watch.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use mx_transport::{ReqwestTransport, Retry, Transport, TransportError};

/// One exchange.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) status: u16,
    pub(crate) note: String,
}

/// A transport around the HTTP client.
#[derive(Debug)]
pub(crate) struct Recorder {
    inner: Retry<ReqwestTransport>,
    lines: Mutex<Vec<Line>>,
}

impl Recorder {
    pub(crate) fn new() -> Result<Self, TransportError> {
        Ok(Self {
            inner: Retry::new(ReqwestTransport::builder().build()?),
            lines: Mutex::default(),
        })
    }

    /// What happened since the last call.
    pub(crate) fn take(&self) -> Vec<Line> {
        std::mem::take(&mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Transport for Recorder {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let method = request.method().to_string();
        let path = request.uri().path().trim_start_matches("/_matrix/client").to_owned();
        let sent: serde_json::Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let answer = self.inner.send(request).await?;
        let received: serde_json::Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        let line = Line {
            note: note(&path, &sent, &received),
            method,
            path,
            status: answer.status().as_u16(),
        };
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        Ok(answer)
    }
}

/// What is worth knowing of an exchange. No secret is in what is counted here.
fn note(path: &str, sent: &serde_json::Value, received: &serde_json::Value) -> String {
    let count = |value: &serde_json::Value| value.as_object().map_or(0, serde_json::Map::len);
    let events = |value: &serde_json::Value| value["events"].as_array().map_or(0, Vec::len);
    if path.ends_with("/keys/upload") {
        format!(
            "   {} one-time keys, {} fallback key",
            count(&sent["one_time_keys"]),
            count(&sent["fallback_keys"])
        )
    } else if path.ends_with("/keys/query") || path.ends_with("/keys/claim") {
        let field = if path.ends_with("query") {
            "device_keys"
        } else {
            "one_time_keys"
        };
        let devices: usize = received[field]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(_, devices)| count(devices))
            .sum();
        format!("   {devices} device(s)")
    } else if path.ends_with("/sync") {
        format!("   {} to-device message(s)", events(&received["to_device"]))
    } else {
        String::new()
    }
}
