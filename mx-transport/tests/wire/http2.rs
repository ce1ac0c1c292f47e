//! Row NW-33: HTTP/2, and servers that end its streams and connections.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use h2::{Reason, server::SendResponse};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use mx_transport::Phase;

use super::{memory::Growth, tls::Authority, *};

/// What becomes of the n-th stream, counted from 0 over all connections.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    Answer,
    Reset(Reason),
    /// A head of two hundred kilobytes.
    LongHead,
    /// The connection ends in good order before the stream is looked at.
    GoAway,
}

pub(crate) struct Multiplexed {
    pub(crate) url: String,
    pub(crate) client: ReqwestTransport,
    streams: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Drop for Multiplexed {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

pub(crate) async fn multiplexed(fate: fn(usize) -> Fate) -> Multiplexed {
    let authority = Authority::new("of the tests");
    let mut config = authority.certify("hs.test", |_| ()).config(None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (streams, connections) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (all, made) = (Arc::clone(&streams), Arc::clone(&connections));
    let accepting = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            made.fetch_add(1, Ordering::SeqCst);
            let (acceptor, all) = (acceptor.clone(), Arc::clone(&all));
            tokio::spawn(async move {
                let stream = acceptor.accept(socket).await.ok()?;
                let mut connection = h2::server::handshake(stream).await.ok()?;
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    match fate(all.fetch_add(1, Ordering::SeqCst)) {
                        Fate::Answer => give(&mut respond),
                        Fate::Reset(reason) => respond.send_reset(reason),
                        Fate::LongHead => give_a_long_head(&mut respond),
                        Fate::GoAway => {
                            respond.send_reset(Reason::REFUSED_STREAM);
                            connection.abrupt_shutdown(Reason::NO_ERROR);
                        }
                    }
                }
                Some(())
            });
        }
    });
    let client = ReqwestTransport::builder()
        .trust_pem(authority.pem().as_bytes())
        .unwrap()
        .resolve("hs.test", address)
        .build()
        .unwrap();
    Multiplexed {
        url: format!("https://hs.test:{}/", address.port()),
        client,
        streams,
        connections,
        accepting,
    }
}

fn give(respond: &mut SendResponse<Bytes>) {
    if let Ok(mut body) = respond.send_response(http::Response::new(()), false) {
        let _gone = body.send_data(Bytes::from_static(b"{}"), true);
    }
}

fn give_a_long_head(respond: &mut SendResponse<Bytes>) {
    let mut response = http::Response::new(());
    for number in 0..200 {
        let name = http::HeaderName::try_from(format!("x-{number}")).unwrap();
        let value = http::HeaderValue::try_from("y".repeat(1000)).unwrap();
        response.headers_mut().insert(name, value);
    }
    let _gone = respond.send_response(response, true);
}

impl Multiplexed {
    fn request(&self, method: &str) -> http::Request<Bytes> {
        let request = http::Request::builder().method(method).uri(&self.url);
        request.body(Bytes::from_static(b"{}")).unwrap()
    }

    fn retry(&self) -> Retry<ReqwestTransport> {
        Retry::new(self.client.clone()).pauses(Duration::ZERO, Duration::ZERO)
    }
}

#[tokio::test]
async fn nw_33_many_requests_share_a_connection() {
    let server = multiplexed(|_| Fate::Answer).await;
    server.client.send(server.request("GET")).await.unwrap();
    let answers = (0..50).map(|_| server.client.send(server.request("GET")));
    for answer in futures_util::future::join_all(answers).await {
        assert_eq!(answer.unwrap().body(), "{}");
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn nw_33_a_connection_that_is_going_away_is_replaced() {
    let server = multiplexed(|number| if number % 3 == 1 { Fate::GoAway } else { Fate::Answer }).await;
    for _ in 0..6 {
        let answer = server.retry().send(server.request("PUT")).await;
        assert_eq!(answer.unwrap().status(), 200);
    }
    assert!(server.connections.load(Ordering::SeqCst) > 1);
}

#[tokio::test]
async fn nw_33_a_flood_of_resets_ends_in_an_error_and_a_post_is_not_repeated() {
    let server = multiplexed(|_| Fate::Reset(Reason::INTERNAL_ERROR)).await;
    let error = server.retry().send(server.request("PUT")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted, "{error:?}");
    assert_eq!(server.streams.load(Ordering::SeqCst), 5, "bounded");
    let error = server.retry().send(server.request("POST")).await.unwrap_err();
    assert!(error.may_have_been_processed());
    assert_eq!(server.streams.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn nw_33_a_stream_that_was_refused_unseen_goes_out_again_within_bounds() {
    let server = multiplexed(|number| match number {
        0 => Fate::Reset(Reason::REFUSED_STREAM),
        _ => Fate::Answer,
    })
    .await;
    let answer = server.client.send(server.request("POST")).await;
    assert_eq!(answer.unwrap().status(), 200);
    let server = multiplexed(|_| Fate::Reset(Reason::REFUSED_STREAM)).await;
    server.client.send(server.request("POST")).await.unwrap_err();
    assert!(server.streams.load(Ordering::SeqCst) <= 5, "bounded");
}

#[tokio::test]
async fn nw_32_a_long_head_over_http2_is_no_answer_and_the_next_one_is() {
    let server = multiplexed(|number| if number == 0 { Fate::LongHead } else { Fate::Answer }).await;
    let error = server.client.send(server.request("POST")).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Interrupted | Kind::Malformed), "{error:?}");
    assert!(error.may_have_been_processed());
    assert_eq!(server.client.send(server.request("POST")).await.unwrap().body(), "{}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nw_33_a_flood_of_settings_ends_in_the_time_of_the_request_and_is_not_kept() {
    let test = "http2::nw_33_a_flood_of_settings_ends_in_the_time_of_the_request_and_is_not_kept";
    if !memory::is_alone(test).await {
        return;
    }
    let authority = Authority::new("of the tests");
    let mut config = authority.certify("hs.test", |_| ()).config(None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let flooding = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(socket).await.unwrap();
        // A frame of settings without any, over and over: each asks for a frame that says yes. What is said is not read.
        let frames = [0, 0, 0, 4, 0, 0, 0, 0, 0].repeat(10_000);
        let mut sent = 0_usize;
        while tokio::io::AsyncWriteExt::write_all(&mut stream, &frames).await.is_ok() {
            sent += frames.len();
        }
        sent
    });
    let client = ReqwestTransport::builder()
        .trust_pem(authority.pem().as_bytes())
        .unwrap()
        .resolve("hs.test", address)
        .headers_timeout(Duration::from_millis(500))
        .build()
        .unwrap();
    let url = format!("https://hs.test:{}/", address.port());
    let growth = Growth::begin();
    let error = client.send(get(&url)).await.unwrap_err();
    assert!(
        matches!(
            error.kind(),
            Kind::Timeout(Phase::Headers) | Kind::Interrupted | Kind::Malformed
        ),
        "{error:?}"
    );
    if let Some(growth) = growth {
        assert!(growth.bytes() < 32 * 1024 * 1024, "{} bytes", growth.bytes());
    }
    drop(client);
    flooding.abort();
}
