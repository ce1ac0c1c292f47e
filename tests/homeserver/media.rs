//! Files: upload, download with a token, and how large they may be.

use bytes::Bytes;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use ruma::{
    OwnedMxcUri,
    api::{
        IncomingRequest,
        client::{
            authenticated_media::{get_content, get_media_config},
            media::create_content,
        },
    },
};
use serde_json::json;

use crate::{
    Homeserver, lock,
    reply::{self, Refusal, Reply},
    router::Parts,
    state::State,
};

impl State {
    /// Answer with a file. `None`: it is no request for one.
    pub(crate) fn file(&mut self, parts: &Parts) -> Option<http::Response<Bytes>> {
        let endpoint = parts.endpoint();
        let ("GET", ["media", "download", server, id]) = (parts.method.as_str(), endpoint.as_slice()) else {
            return None;
        };
        Some(match self.find_file(parts, server, id) {
            Ok(file) => {
                let mut response = http::Response::new(file);
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
                headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
                response
            }
            Err(refusal) => reply::response(Err(refusal)),
        })
    }

    fn find_file(&mut self, parts: &Parts, server: &str, id: &str) -> Result<Bytes, Refusal> {
        self.session(parts)?;
        self.token_is_used(parts.token.as_deref(), None);
        get_content::v1::Request::try_from_http_request(parts.request.clone(), &[server, id])
            .map_err(|error| Refusal::bad_json(&error.to_string()))?;
        let file = self.files.get(&format!("mxc://{server}/{id}"));
        file.cloned().ok_or_else(|| Refusal::not_found("Not found"))
    }

    /// What belongs to the media repository and is JSON.
    pub(crate) fn of_media(&mut self, parts: &Parts, endpoint: &[&str]) -> Reply {
        match (parts.method.as_str(), endpoint) {
            ("POST", ["media", "upload"]) => {
                parts.typed::<create_content::v3::Request>(&[], || self.take_file(parts.request.body()))
            }
            ("GET", ["media", "config"]) => parts.typed::<get_media_config::v1::Request>(&[], || {
                let limit = self.max_file_bytes.unwrap_or(50 * 1024 * 1024);
                Ok(json!({"m.upload.size": limit}))
            }),
            _ => Err(Refusal::new(404, "M_UNRECOGNIZED", "Unrecognized request")),
        }
    }

    fn take_file(&mut self, file: &Bytes) -> Reply {
        if self.max_file_bytes.is_some_and(|max| file.len() as u64 > max) {
            return Err(Refusal::new(413, "M_TOO_LARGE", "Upload request body is too large"));
        }
        let id = self.name("media");
        let uri = format!("mxc://{}/{id}", self.server_name);
        self.files.insert(uri.clone(), file.clone());
        Ok(json!({"content_uri": uri}))
    }
}

impl Homeserver {
    /// All files that were uploaded, with their addresses, in the order of these.
    #[must_use]
    pub fn files(&self) -> Vec<(OwnedMxcUri, Bytes)> {
        let state = lock(&self.0.state);
        let files = state.files.iter();
        files.map(|(uri, file)| (uri.as_str().into(), file.clone())).collect()
    }

    /// Put a file there, or another one in its place: what a homeserver can do to it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::sync::Arc;
    /// # let server = mx_test_homeserver::Homeserver::new();
    /// # let client = mx_transport::Homeserver::new("http://localhost", server.transport())?;
    /// # let alice = server.register("alice", "password");
    /// # client.set_access_token(mx_transport::AccessToken::new(server.token(&alice, "PHONE"))?);
    /// # let mut file = tempfile::tempfile()?;
    /// # std::io::Write::write_all(&mut file, b"what was sent")?;
    /// let address = client.upload(Arc::new(mx_transport::FileSource::new(file)?)).await?;
    /// assert_eq!(server.files()[0].1, "what was sent");
    /// // Whoever fetches it now has to see that it is another one.
    /// server.put_file(&address, "what the homeserver makes of it");
    /// # Ok(()) }
    /// ```
    pub fn put_file(&self, uri: &OwnedMxcUri, file: impl Into<Bytes>) {
        lock(&self.0.state).files.insert(uri.to_string(), file.into());
    }

    /// No file is larger than this from now on, in bytes.
    pub fn limit_files(&self, max_bytes: u64) {
        lock(&self.0.state).max_file_bytes = Some(max_bytes);
    }
}
