//! Files over the HTTP client, against a socket.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs::File,
    io::{Read, Seek, Write},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use mx_transport::{
    Chunks, FileSink, FileSource, Idempotent, Phase, ReqwestTransport, Retry, Source, Streams, TransportError,
    TransportErrorKind as Kind,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::method};

fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

fn source(content: &[u8]) -> Arc<dyn Source> {
    Arc::new(FileSource::new(file(content)).unwrap())
}

fn content(file: &mut File) -> Vec<u8> {
    let mut all = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut all).unwrap();
    all
}

fn post(url: &str, source: Arc<dyn Source>) -> http::Request<Arc<dyn Source>> {
    http::Request::post(url).body(source).unwrap()
}

fn get(url: &str) -> http::Request<Bytes> {
    http::Request::get(url).body(Bytes::new()).unwrap()
}

fn transport() -> ReqwestTransport {
    ReqwestTransport::builder().build().unwrap()
}

fn kind<T>(result: Result<T, TransportError>) -> Option<Kind> {
    result.err().map(|error| error.kind())
}

/// More than a chunk, and not a multiple of one.
fn large() -> Vec<u8> {
    (0..300_001_u32).map(|number| number.to_le_bytes()[0]).collect()
}

/// Answers the requests of one connection each, in their order, with these bytes; the last one for ever.
async fn raw_server(answers: Vec<&'static [u8]>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut answers = answers.into_iter().peekable();
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = socket.read(&mut request).await;
            let answer = *answers.peek().unwrap();
            if answers.len() > 1 {
                answers.next();
            }
            let _ = socket.write_all(answer).await;
            if answer.is_empty() {
                // Says nothing, for as long as somebody waits.
                tokio::spawn(async move { while matches!(socket.read(&mut request).await, Ok(1..)) {} });
            }
        }
    });
    url
}

#[tokio::test]
async fn a_file_is_sent_whole_with_its_length_and_again_from_its_start() {
    let server = MockServer::start().await;
    for (status, times) in [(503, 1), (200, 1)] {
        Mock::given(method("POST"))
            .respond_with(ResponseTemplate::new(status).set_body_string("{}"))
            .up_to_n_times(times)
            .mount(&server)
            .await;
    }
    let content = large();
    let mut request = post(&server.uri(), source(&content));
    request.extensions_mut().insert(Idempotent);
    let retry = Retry::new(transport()).pauses(Duration::ZERO, Duration::ZERO);
    let answer = retry.upload(request).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (200, &b"{}"[..]));
    let received = server.received_requests().await.unwrap();
    assert_eq!(received.len(), 2);
    for request in received {
        assert_eq!(request.headers["content-length"], content.len().to_string());
        assert!(request.body == content, "each attempt sends all of it");
    }
}

#[tokio::test]
async fn an_upload_that_may_have_arrived_is_not_repeated_unless_that_does_no_harm() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(502))
        .mount(&server)
        .await;
    let retry = Retry::new(transport()).pauses(Duration::ZERO, Duration::ZERO);
    let answer = retry.upload(post(&server.uri(), source(b"x"))).await.unwrap();
    assert_eq!(answer.status().as_u16(), 502);
    assert_eq!(server.received_requests().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_file_is_received_whole_and_a_broken_attempt_leaves_nothing_of_itself() {
    let url = raw_server(vec![
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nthe beginning of",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole",
    ])
    .await;
    let mut file = file(b"what was there before");
    let mut sink = FileSink::new(file.try_clone().unwrap(), 5);
    assert_eq!(
        kind(transport().download(get(&url), &mut sink).await),
        Some(Kind::BodyTooLarge)
    );
    let mut sink = FileSink::new(file.try_clone().unwrap(), 1000);
    let retry = Retry::new(transport()).pauses(Duration::ZERO, Duration::ZERO);
    retry.download(get(&url), &mut sink).await.unwrap();
    assert_eq!(content(&mut file), b"whole");

    let url = raw_server(vec![b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nthe beginning of"]).await;
    assert_eq!(
        kind(transport().download(get(&url), &mut sink).await),
        Some(Kind::Truncated)
    );
}

#[tokio::test]
async fn a_refusal_is_an_answer_and_does_not_get_into_the_file() {
    let url = raw_server(vec![b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"]).await;
    let mut file = file(b"");
    let mut sink = FileSink::new(file.try_clone().unwrap(), 1000);
    let answer = transport().download(get(&url), &mut sink).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (404, &b"{}"[..]));
    assert!(content(&mut file).is_empty());
}

#[tokio::test]
async fn a_file_over_the_cap_is_refused_whether_its_length_is_announced_or_not() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n01234567890"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\n012345\r\n5\r\n67890\r\n0\r\n\r\n",
    ] {
        let url = raw_server(vec![answer]).await;
        let mut sink = FileSink::new(file(b""), 10);
        assert_eq!(
            kind(transport().download(get(&url), &mut sink).await),
            Some(Kind::BodyTooLarge)
        );
        let mut sink = FileSink::new(file(b""), 11);
        assert_eq!(kind(transport().download(get(&url), &mut sink).await), None);
    }
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let url = raw_server(vec![
        b"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n",
    ])
    .await;
    let mut sink = FileSink::new(file(b""), 10);
    assert_eq!(
        kind(transport().download(get(&url), &mut sink).await),
        Some(Kind::Redirect)
    );
    assert_eq!(
        kind(transport().upload(post(&url, source(b"x"))).await),
        Some(Kind::Redirect)
    );
}

#[tokio::test]
async fn what_stands_still_is_given_up() {
    let hasty = ReqwestTransport::builder()
        .idle_timeout(Duration::from_millis(50))
        .headers_timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    let url = raw_server(vec![b""]).await;
    let mut sink = FileSink::new(file(b""), 100);
    assert_eq!(
        kind(hasty.download(get(&url), &mut sink).await),
        Some(Kind::Timeout(Phase::Headers))
    );
    assert_eq!(
        kind(hasty.upload(post(&url, source(b"x"))).await),
        Some(Kind::Timeout(Phase::Headers))
    );
}

/// Breaks after its first piece.
#[derive(Debug)]
struct Broken;

impl Source for Broken {
    fn bytes(&self) -> u64 {
        200_000
    }

    fn open(&self) -> Chunks {
        let first = Ok(Bytes::from_static(&[0; 100_000]));
        let broken = std::io::Error::other("the disk is gone");
        futures_util::stream::iter([first, Err(broken)]).boxed()
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_or_written_here_is_told_from_a_network_that_fails() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(200))
        .mount(&server)
        .await;
    let mut request = post(&server.uri(), Arc::new(Broken));
    request.extensions_mut().insert(Idempotent);
    let error = Retry::new(transport()).upload(request).await.unwrap_err();
    assert_eq!(error.kind(), Kind::LocalBody);
    assert!(!error.is_transient());

    let url = raw_server(vec![b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"]).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("read-only");
    std::fs::write(&path, "before").unwrap();
    let mut sink = FileSink::new(File::open(&path).unwrap(), 10);
    assert_eq!(
        kind(transport().download(get(&url), &mut sink).await),
        Some(Kind::LocalBody)
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"before");
}
