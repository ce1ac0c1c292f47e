//! The media repository: files to the homeserver and back, and how large they may be.
#![expect(deprecated, reason = "homeservers before Matrix 1.11 have no other endpoints")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use ruma::api::client::media::{get_content::v3::Request as Older, get_media_config::v3::Request as OlderConfig};
use ruma::{
    MxcUri, OwnedMxcUri,
    api::{
        Metadata,
        client::{
            authenticated_media::{
                get_content::v1::Request as Authenticated, get_media_config::v1::Request as AuthenticatedConfig,
            },
            media::create_content::v3::Request as Upload,
        },
    },
};

use super::{Call, Homeserver, accepted, decode, endpoint, renew::Renewals, until::Until};
use crate::{Deadline, Endpoint, Idempotent, RequestError, Sink, Source, Streams};

/// What an exchange of a file may take, whatever its size.
const LEAST_PATIENCE: Duration = Duration::from_secs(120);
/// Slower than this, in bytes a second, is given up.
const SLOWEST: u64 = 32 * 1024;

impl Homeserver {
    /// Give the homeserver a file, and get its address. The homeserver is told nothing about it: neither name nor kind.
    ///
    /// An upload whose answer was lost is repeated by a transport that retries: the file may be there twice then, and the
    /// one without an address is of no use to anybody.
    ///
    /// ```no_run
    /// # async fn example(homeserver: mx_transport::Homeserver, encrypted: std::fs::File) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::sync::Arc;
    /// use mx_transport::FileSource;
    ///
    /// // Nothing is said of what it is: neither its name nor its kind.
    /// let address = homeserver.upload(Arc::new(FileSource::new(encrypted)?)).await?;
    /// println!("{address}");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`RequestError`]: of its codes, `too_large` where the homeserver takes no file of this size, and `local_body`
    /// where the source cannot be read.
    ///
    /// # Cancel safety
    /// Dropping the future closes the exchange; the file may be there, and nobody knows its address.
    pub async fn upload(&self, source: Arc<dyn Source>) -> Result<OwnedMxcUri, RequestError> {
        let streams = self.streams()?;
        let mut upload = Upload::new(Vec::new());
        upload.content_type = Some("application/octet-stream".to_owned());
        let bytes = source.bytes();
        let versions = self.versions().await?;
        let endpoint = endpoint::<Upload>(&versions)?;
        self.renew_early(Until::default()).await;
        let mut request = self.head(upload, &versions)?.map(|_| source);
        request.extensions_mut().insert(Idempotent);
        request.extensions_mut().insert(Deadline(patience(bytes)));
        request.extensions_mut().insert(Endpoint(endpoint));
        let mut renewals = Renewals::default();
        loop {
            let answer = accepted(streams.upload(request.clone()).await, endpoint);
            if let Some(response) = self
                .judge(answer, &mut request, &mut renewals, Until::default())
                .await?
            {
                return Ok(decode::<Upload>(response, endpoint)?.content_uri);
            }
        }
    }

    /// Get a file of the homeserver, or of one that it asks. Only after `Ok` is the whole file in the sink.
    ///
    /// The endpoint with authentication is asked where the homeserver has it (Matrix 1.11), else the older one, without
    /// our token. A redirect is not followed, here either.
    ///
    /// ```no_run
    /// # async fn example(homeserver: mx_transport::Homeserver) -> Result<(), Box<dyn std::error::Error>> {
    /// use mx_transport::FileSink;
    ///
    /// // Nobody makes us keep more than this, whatever the answer says of its length.
    /// let mut sink = FileSink::new(tempfile::tempfile()?, 10 << 20);
    /// homeserver.download("mxc://example.org/eagle".into(), &mut sink).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`RequestError`]: of its codes, `answer_too_large` where the sink takes no file of this size, `not_found` where it
    /// is not there, and `local_body` where the sink cannot be written.
    ///
    /// # Cancel safety
    /// Dropping the future closes the exchange, and leaves a part of the file in the sink.
    pub async fn download(&self, uri: &MxcUri, sink: &mut dyn Sink) -> Result<(), RequestError> {
        let streams = self.streams()?;
        let authenticated = Authenticated::from_uri(uri).map_err(RequestError::build)?;
        let versions = self.versions().await?;
        self.renew_early(Until::default()).await;
        let (request, endpoint) = if Authenticated::PATH_BUILDER.is_supported(&versions) {
            (
                self.head(authenticated, &versions)?,
                endpoint::<Authenticated>(&versions)?,
            )
        } else {
            let older = Older::from_url(uri).map_err(RequestError::build)?;
            (self.head(older, &versions)?, endpoint::<Older>(&versions)?)
        };
        let mut request = request.map(Bytes::from);
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("*/*"));
        request.headers_mut().remove(CONTENT_TYPE);
        request.extensions_mut().insert(Deadline(patience(sink.max_bytes())));
        request.extensions_mut().insert(Endpoint(endpoint));
        let mut renewals = Renewals::default();
        loop {
            let answer = accepted(streams.download(request.clone(), sink).await, endpoint);
            if self
                .judge(answer, &mut request, &mut renewals, Until::default())
                .await?
                .is_some()
            {
                return Ok(());
            }
        }
    }

    /// The largest file that the homeserver takes, in bytes. `None`: it does not say.
    ///
    /// ```no_run
    /// # async fn example(homeserver: mx_transport::Homeserver, bytes: u64) -> Result<(), mx_transport::RequestError> {
    /// match homeserver.max_upload_bytes().await? {
    ///     Some(max) if bytes > max => println!("{bytes} bytes are more than the {max} that it takes"),
    ///     // A homeserver that does not say may still refuse it.
    ///     _ => println!("go on"),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request.
    pub async fn max_upload_bytes(&self) -> Result<Option<u64>, RequestError> {
        /// The specification lets the field be absent, and ruma does not.
        #[derive(serde::Deserialize)]
        struct Config {
            #[serde(rename = "m.upload.size")]
            upload_size: Option<u64>,
        }
        let versions = self.versions().await?;
        let (answer, endpoint) = if AuthenticatedConfig::PATH_BUILDER.is_supported(&versions) {
            let answer = self.exchange(AuthenticatedConfig::new(), Call::default()).await;
            (answer, endpoint::<AuthenticatedConfig>(&versions)?)
        } else {
            let answer = self.exchange(OlderConfig::new(), Call::default()).await;
            (answer, endpoint::<OlderConfig>(&versions)?)
        };
        match answer {
            Ok(answer) => {
                let config: Config = serde_json::from_slice(answer.body()).map_err(|error| RequestError::Decode {
                    endpoint,
                    source: error.into(),
                })?;
                Ok(config.upload_size)
            }
            Err(error) if matches!(error.code(), "not_found" | "unsupported_by_homeserver") => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn streams(&self) -> Result<&dyn Streams, RequestError> {
        let streams = self.0.transport.streams();
        streams.ok_or_else(|| RequestError::build("the transport of this client carries no files"))
    }
}

/// How long an exchange of a file may take.
const fn patience(bytes: u64) -> Duration {
    LEAST_PATIENCE.saturating_add(Duration::from_secs(bytes / SLOWEST))
}
