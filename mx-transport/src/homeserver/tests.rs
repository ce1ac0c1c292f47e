//! What is sent, and what an answer becomes.

use std::sync::Mutex;

use async_trait::async_trait;
use ruma::{api::client::account::whoami, api::client::keys::get_keys};

use super::*;
use crate::{AccessToken, Deadline, TransportError};

/// Answers `/versions` itself and everything else as told.
#[derive(Debug)]
struct Fixed {
    status: u16,
    body: &'static str,
    seen: Mutex<Vec<http::Request<Bytes>>>,
}

#[async_trait]
impl Transport for Fixed {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let (status, body) = if request.uri().path() == "/_matrix/client/versions" {
            (200, r#"{"versions":["v1.11"]}"#)
        } else {
            (self.status, self.body)
        };
        self.seen.lock().unwrap().push(request);
        Ok(http::Response::builder()
            .status(status)
            .body(Bytes::from_static(body.as_bytes()))
            .unwrap())
    }
}

fn homeserver(status: u16, body: &'static str) -> (Homeserver, Arc<Fixed>) {
    let fixed = Arc::new(Fixed {
        status,
        body,
        seen: Mutex::default(),
    });
    let homeserver = Homeserver::new("https://hs.test/", fixed.clone()).unwrap();
    homeserver.set_access_token(AccessToken::new("secret").unwrap());
    (homeserver, fixed)
}

async fn whoami_error(status: u16, body: &'static str) -> RequestError {
    homeserver(status, body)
        .0
        .send(whoami::v3::Request::new())
        .await
        .unwrap_err()
}

#[tokio::test]
async fn the_token_is_in_the_header_and_versions_are_asked_once() {
    let (homeserver, fixed) = homeserver(200, r#"{"user_id":"@a:hs.test"}"#);
    for _ in 0..2 {
        homeserver.send(whoami::v3::Request::new()).await.unwrap();
    }
    let seen = fixed.seen.lock().unwrap();
    assert_eq!(seen.len(), 3, "versions once, whoami twice");
    assert!(
        seen[0].headers().get("authorization").is_none(),
        "no token where none is needed"
    );
    assert_eq!(seen[1].headers()["authorization"], "Bearer secret");
    assert_eq!(seen[1].uri(), "https://hs.test/_matrix/client/v3/account/whoami");
}

#[tokio::test]
async fn without_a_token_nothing_is_sent() {
    let (homeserver, fixed) = homeserver(200, "{}");
    homeserver.clear_access_token();
    let error = homeserver.send(whoami::v3::Request::new()).await.unwrap_err();
    assert_eq!(error.code(), "not_logged_in");
    assert_eq!(fixed.seen.lock().unwrap().len(), 1, "versions only");
}

#[tokio::test]
async fn refusals_are_typed() {
    let soft = whoami_error(401, r#"{"errcode":"M_UNKNOWN_TOKEN","error":"x","soft_logout":true}"#).await;
    assert!(matches!(soft, RequestError::LoggedOut { soft: true }));
    let hard = whoami_error(401, r#"{"errcode":"M_UNKNOWN_TOKEN","error":"x"}"#).await;
    assert!(matches!(hard, RequestError::LoggedOut { soft: false }));
    let limited = whoami_error(
        429,
        r#"{"errcode":"M_LIMIT_EXCEEDED","error":"slow","retry_after_ms":1500}"#,
    )
    .await;
    assert_eq!(limited.code(), "rate_limited");
    assert!(
        matches!(limited, RequestError::Api { retry_after: Some(pause), .. } if pause == Duration::from_millis(1500))
    );
    let proxy = whoami_error(502, "<html>Bad Gateway</html>").await;
    assert!(matches!(&proxy, RequestError::Api { errcode: None, .. }));
    assert_eq!(proxy.code(), "homeserver_failed");
    assert!(!proxy.to_string().contains("html"));
}

#[tokio::test]
async fn what_a_server_says_is_cut_and_cleaned() {
    let error = whoami_error(403, "{\"errcode\":\"M_FORBIDDEN\",\"error\":\"a\\u001b[31m\\nb\"}").await;
    assert_eq!(
        error.to_string(),
        "the homeserver refused /_matrix/client/v3/account/whoami: 403 Forbidden, M_FORBIDDEN, a[31mb"
    );
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_names_its_endpoint_only() {
    for body in ["<html>", "", "[]", r#"{"user_id":"not an id"}"#, r#"{"user_id":7}"#] {
        let error = whoami_error(200, body).await;
        assert_eq!(error.code(), "unreadable_answer", "{body}");
        assert!(error.to_string().contains("/account/whoami"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_reaches_the_transport() {
    let (homeserver, fixed) = homeserver(200, r#"{"device_keys":{}}"#);
    let call = Call::repeatable().within(Duration::from_secs(3));
    homeserver.send_with(get_keys::v3::Request::new(), call).await.unwrap();
    let seen = fixed.seen.lock().unwrap();
    assert_eq!(
        seen[1].extensions().get::<Deadline>(),
        Some(&Deadline(Duration::from_secs(3)))
    );
    assert!(seen[1].extensions().get::<Idempotent>().is_some());
}

#[test]
fn addresses_are_checked_and_passwords_not_repeated() {
    let new =
        |url: &str| Homeserver::new(url, homeserver(200, "").1).map(|homeserver| homeserver.base_url().to_owned());
    assert_eq!(new("https://hs.test/").unwrap(), "https://hs.test");
    assert_eq!(new(" http://127.0.0.1:8008 ").unwrap(), "http://127.0.0.1:8008");
    for bad in [
        "",
        "hs.test",
        "ftp://hs.test",
        "https://",
        "https://hs.test/?access_token=x",
        "https://u:secret@hs.test",
    ] {
        let error = new(bad).unwrap_err();
        assert!(
            !error.to_string().contains("secret") && !error.to_string().contains("access_token"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn nw_35_a_prefix_stays_and_slashes_at_the_end_do_not() {
    for (base, whoami_at) in [
        ("https://hs.test", "https://hs.test/_matrix/client/v3/account/whoami"),
        ("https://hs.test///", "https://hs.test/_matrix/client/v3/account/whoami"),
        (
            "https://hs.test:8448/a/b",
            "https://hs.test:8448/a/b/_matrix/client/v3/account/whoami",
        ),
        (
            "https://hs.test/a/b/",
            "https://hs.test/a/b/_matrix/client/v3/account/whoami",
        ),
        ("HTTPS://HS.test/", "https://hs.test/_matrix/client/v3/account/whoami"),
        (
            "https://[::1]:8448",
            "https://[::1]:8448/_matrix/client/v3/account/whoami",
        ),
        (
            "https://bücher.test",
            "https://xn--bcher-kva.test/_matrix/client/v3/account/whoami",
        ),
    ] {
        let fixed = homeserver(200, r#"{"user_id":"@a:hs.test"}"#).1;
        let homeserver = Homeserver::new(base, fixed.clone()).unwrap();
        homeserver.set_access_token(AccessToken::new("secret").unwrap());
        // Versions are asked for under the prefix too, which this transport does not know.
        let _unknown = homeserver.send(whoami::v3::Request::new()).await;
        let seen = fixed.seen.lock().unwrap();
        let first = seen[0].uri().to_string();
        assert_eq!(
            first.replace("/client/versions", "/client/v3/account/whoami"),
            whoami_at,
            "{base}"
        );
    }
}

#[tokio::test]
async fn a_limit_for_files_is_known_or_there_is_none() {
    let limit = async |status, body| homeserver(status, body).0.max_upload_bytes().await;
    assert_eq!(
        limit(200, r#"{"m.upload.size":52428800}"#).await.unwrap(),
        Some(52_428_800)
    );
    assert_eq!(limit(200, "{}").await.unwrap(), None);
    assert_eq!(limit(404, r#"{"errcode":"M_UNRECOGNIZED"}"#).await.unwrap(), None);
    assert_eq!(limit(404, r#"{"errcode":"M_NOT_FOUND"}"#).await.unwrap(), None);
    assert_eq!(limit(502, "bad gateway").await.unwrap_err().code(), "homeserver_failed");
    for unreadable in [r#"{"m.upload.size":-1}"#, r#"{"m.upload.size":"5"}"#, "text"] {
        assert_eq!(limit(200, unreadable).await.unwrap_err().code(), "unreadable_answer");
    }
}

#[tokio::test]
async fn a_transport_without_files_says_so_and_an_address_is_checked() {
    let (homeserver, fixed) = homeserver(200, "{}");
    let file = tempfile::tempfile().unwrap();
    let source = Arc::new(crate::FileSource::new(file.try_clone().unwrap()).unwrap());
    assert_eq!(homeserver.upload(source).await.unwrap_err().code(), "request_invalid");
    let mut sink = crate::FileSink::new(file, 1000);
    for uri in ["mxc://hs.test/file", "https://hs.test/file", "mxc://hs.test"] {
        let error = homeserver.download(uri.into(), &mut sink).await.unwrap_err();
        assert_eq!(error.code(), "request_invalid", "{uri}");
    }
    assert!(fixed.seen.lock().unwrap().is_empty(), "nothing was sent");
}
