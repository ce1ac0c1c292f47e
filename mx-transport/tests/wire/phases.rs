//! Rows NW-07 to NW-11: each phase has its time, and the error says which one it was.

use std::time::Duration;

use mx_transport::{Deadline, Phase};
use tokio::net::{TcpSocket, TcpStream};

use super::*;

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(100);

async fn kind(client: ReqwestTransport, url: &str) -> Kind {
    // Less than what the client's general limit is: one of its own has to end it.
    let answer = tokio::time::timeout(LONG / 4, client.send(get(url))).await;
    answer.unwrap().unwrap_err().kind()
}

#[tokio::test]
async fn nw_07_a_connection_that_is_not_made_ends_in_its_own_time() {
    // Takes connections and says nothing: no TLS comes of it.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = ReqwestTransport::builder().connect_timeout(SHORT).build().unwrap();
    let url = format!("https://{}/", mute.local_addr().unwrap());
    assert_eq!(kind(client, &url).await, Kind::Timeout(Phase::Connect));
}

#[tokio::test]
async fn nw_07_a_black_hole_ends_in_its_own_time() {
    // A queue of connections that is full: whatever else comes is not answered at all.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(connected) = tokio::time::timeout(SHORT, TcpStream::connect(address)).await {
        queued.push(connected.unwrap());
        assert!(queued.len() < 100, "this queue does not fill");
    }
    let client = ReqwestTransport::builder().connect_timeout(SHORT).build().unwrap();
    let error = client.send(get(&format!("http://{address}/"))).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout(Phase::Connect));
    assert!(!error.may_have_been_processed(), "it may be sent again, whatever it is");
}

#[tokio::test]
async fn nw_08_a_head_that_never_comes_ends_in_its_own_time() {
    let head = b"HTTP/1.1 200 OK\r\nx: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy";
    let slowly = || {
        vec![
            Step::Trickle(Bytes::from_static(head), Duration::from_millis(20)),
            Step::Silence,
        ]
    };
    for steps in [vec![Step::Silence], slowly()] {
        let server = server(move |_, _| steps.clone()).await;
        let client = ReqwestTransport::builder().headers_timeout(SHORT).build().unwrap();
        assert_eq!(kind(client, &server.url()).await, Kind::Timeout(Phase::Headers));
        // Without a limit of its own it is told by what was waited for.
        let client = ReqwestTransport::builder().total_timeout(SHORT).build().unwrap();
        assert_eq!(kind(client, &server.url()).await, Kind::Timeout(Phase::Headers));
    }
}

#[tokio::test]
async fn nw_09_a_body_that_stands_still_is_given_up_and_nothing_of_it_is_told() {
    for begun in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"next_batch\":\"s1\""[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n12\r\n{\"next_batch\":\"s1\"\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n",
    ] {
        let server = server(move |_, _| vec![Step::Write(Bytes::from_static(begun)), Step::Silence]).await;
        let client = ReqwestTransport::builder().stall_timeout(SHORT).build().unwrap();
        assert_eq!(kind(client, &server.url()).await, Kind::Timeout(Phase::Body));
    }
}

#[tokio::test]
async fn nw_10_a_slow_loris_ends_with_the_whole_exchange() {
    let body = Bytes::from(vec![b' '; 100_000]);
    let server = server(move |_, _| {
        let head = Bytes::from_static(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n");
        vec![Step::Write(head), Step::Trickle(body.clone(), Duration::from_millis(5))]
    })
    .await;
    let client = ReqwestTransport::builder().total_timeout(SHORT * 3).build().unwrap();
    assert_eq!(kind(client, &server.url()).await, Kind::Timeout(Phase::Total));
    let mut request = get(&server.url());
    request.extensions_mut().insert(Deadline(SHORT * 3));
    let error = super::client().send(request).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout(Phase::Total), "a deadline is one too");
}

#[tokio::test]
async fn nw_11_a_long_poll_is_silent_and_nothing_is_wrong_with_it() {
    let server = server(|_, _| vec![Step::Wait(SHORT * 5), answer(200, "", b"{}")]).await;
    let impatient = || {
        let builder = ReqwestTransport::builder().headers_timeout(SHORT).stall_timeout(SHORT);
        builder.total_timeout(SHORT).build().unwrap()
    };
    assert_eq!(kind(impatient(), &server.url()).await, Kind::Timeout(Phase::Headers));
    let mut poll = get(&server.url());
    poll.extensions_mut().insert(Deadline(LONG));
    assert_eq!(impatient().send(poll).await.unwrap().body(), "{}");
}
