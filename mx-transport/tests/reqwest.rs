//! The HTTP client against a socket.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use bytes::Bytes;
use mx_transport::{Deadline, Phase, ReqwestTransport, Transport, TransportErrorKind as Kind};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::method};

async fn server(template: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("GET")).respond_with(template).mount(&server).await;
    server
}

fn get(url: &str) -> http::Request<Bytes> {
    http::Request::builder().uri(url).body(Bytes::new()).unwrap()
}

fn transport() -> ReqwestTransport {
    ReqwestTransport::builder().max_body_bytes(1000).build().unwrap()
}

/// A socket that answers every connection with these bytes and closes it.
async fn raw_server(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = socket.read(&mut request).await;
            let _ = socket.write_all(bytes).await;
        }
    });
    url
}

#[tokio::test]
async fn every_status_is_an_answer() {
    for status in [200, 404, 429, 500] {
        let server = server(ResponseTemplate::new(status).set_body_string("body")).await;
        let answer = transport().send(get(&server.uri())).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.body().as_ref()),
            (status, &b"body"[..])
        );
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let target = server(ResponseTemplate::new(200)).await;
    let server = server(ResponseTemplate::new(302).insert_header("location", target.uri())).await;
    let error = transport().send(get(&server.uri())).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Redirect);
    assert!(target.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_answer_over_the_cap_is_refused() {
    let exact = server(ResponseTemplate::new(200).set_body_bytes(vec![b'x'; 1000])).await;
    assert_eq!(transport().send(get(&exact.uri())).await.unwrap().body().len(), 1000);
    let over = server(ResponseTemplate::new(200).set_body_bytes(vec![b'x'; 1001])).await;
    assert_eq!(
        transport().send(get(&over.uri())).await.unwrap_err().kind(),
        Kind::BodyTooLarge
    );
}

#[tokio::test]
async fn a_slow_answer_ends_at_the_deadline() {
    let server = server(ResponseTemplate::new(200).set_delay(Duration::from_secs(600))).await;
    let mut request = get(&server.uri());
    request.extensions_mut().insert(Deadline(Duration::from_millis(50)));
    let error = transport().send(request).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout(Phase::Headers));
    assert!(error.may_have_been_processed());
}

#[tokio::test]
async fn an_answer_that_ends_early_is_not_an_answer() {
    let url = raw_server(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"next_batch\":").await;
    let error = transport().send(get(&url)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Truncated);
    assert!(error.may_have_been_processed());
}

#[tokio::test]
async fn nobody_there_is_told_from_interrupted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/?secret=1", listener.local_addr().unwrap());
    drop(listener);
    let error = transport().send(get(&url)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Connect);
    assert!(!error.may_have_been_processed());
    assert!(!format!("{error:?} {error}").contains("secret"));
    let host = url
        .strip_prefix("http://")
        .and_then(|rest| rest.split('/').next())
        .unwrap();
    assert!(error.to_string().contains(host), "{error}");
    assert_eq!(error.redirect_host(), None);
}

#[tokio::test]
async fn plain_http_is_for_loopback_only() {
    for url in [
        "http://hs.test/",
        "http://192.0.2.1/",
        "http://127.0.0.1.evil.test/",
        "ftp://127.0.0.1/",
    ] {
        assert_eq!(
            transport().send(get(url)).await.unwrap_err().kind(),
            Kind::Build,
            "{url}"
        );
    }
}
