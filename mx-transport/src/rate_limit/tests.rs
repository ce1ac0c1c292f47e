//! Who waits for whom, and how long. Time is tokio's, paused.

mod crowds;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{StatusCode, header::RETRY_AFTER};

use super::{
    budget::{EASING, LEAST_SPACE, MOST_SPACE},
    *,
};
use crate::{Deadline, Phase, Retry, TransportErrorKind as Kind, retry::named_pause};

/// Answers 429 to some of the requests, by their number, and notes when each came.
#[derive(Debug, Default)]
struct Server {
    refused: Vec<(usize, &'static str)>,
    seen: Mutex<Vec<(Instant, String)>>,
}

#[async_trait]
impl Transport for Arc<Server> {
    async fn send(&self, request: http::Request<Bytes>) -> Answer {
        let mut seen = self.seen.lock().unwrap();
        let number = seen.len();
        seen.push((Instant::now(), request.uri().path().to_owned()));
        let mut response = http::Response::new(Bytes::from_static(b"{}"));
        if let Some((_, pause)) = self.refused.iter().find(|(refused, _)| *refused == number) {
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            response.headers_mut().insert(RETRY_AFTER, pause.parse().unwrap());
        }
        Ok(response)
    }
}

impl Server {
    fn refusing(refused: &[(usize, &'static str)]) -> Arc<Self> {
        Arc::new(Self {
            refused: refused.to_vec(),
            seen: Mutex::default(),
        })
    }

    fn times(&self) -> Vec<Instant> {
        self.seen.lock().unwrap().iter().map(|(at, _)| *at).collect()
    }
}

fn put(room: usize) -> http::Request<Bytes> {
    let uri = format!("https://hs.test/_matrix/client/v3/rooms/!{room}/send/m.room.encrypted/t");
    http::Request::put(uri).body(Bytes::new()).unwrap()
}

fn sync() -> http::Request<Bytes> {
    http::Request::get("https://hs.test/_matrix/client/v3/sync")
        .body(Bytes::new())
        .unwrap()
}

fn within(mut request: http::Request<Bytes>, seconds: u64) -> http::Request<Bytes> {
    request.extensions_mut().insert(Deadline(Duration::from_secs(seconds)));
    request
}

#[tokio::test(start_paused = true)]
async fn nw_01_a_429_for_one_holds_the_family_back_and_nobody_else() {
    let server = Server::refusing(&[(0, "5")]);
    let limited = RateLimit::new(Arc::clone(&server));
    let begun = Instant::now();
    assert_eq!(
        limited.send(put(0)).await.unwrap().status(),
        429,
        "it does not repeat by itself"
    );
    limited.send(sync()).await.unwrap();
    assert_eq!(Instant::now(), begun, "another family does not wait");
    limited.send(put(1)).await.unwrap();
    assert_eq!(Instant::now() - begun, Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn who_waited_goes_in_order_and_with_space_between() {
    let server = Server::refusing(&[(0, "5")]);
    let limited = RateLimit::new(Arc::clone(&server));
    limited.send(put(0)).await.unwrap();
    join_all((1..=200).map(|room| limited.send(put(room)))).await;
    let seen = server.seen.lock().unwrap();
    for (room, (_, path)) in seen.iter().enumerate() {
        assert!(path.contains(&format!("!{room}/")), "{path} is number {room}");
    }
    let space = seen[2].0 - seen[1].0;
    assert!(space >= LEAST_SPACE / 2, "{space:?}");
    assert!(
        seen[200].0 - seen[190].0 < LEAST_SPACE,
        "the space shrinks with good answers"
    );
}

#[tokio::test(start_paused = true)]
async fn every_further_429_makes_more_space_up_to_a_bound() {
    let refused: Vec<(usize, &str)> = (0..20).map(|number| (number, "1")).collect();
    let server = Server::refusing(&refused);
    let limited = RateLimit::new(Arc::clone(&server));
    for room in 0..20 {
        limited.send(put(room)).await.unwrap();
    }
    limited.send(put(20)).await.unwrap();
    limited.send(put(21)).await.unwrap();
    let times = server.times();
    assert_eq!(times[20] - times[19], MOST_SPACE);
    assert_eq!(times[21] - times[20], MOST_SPACE * EASING / 100);
}

#[tokio::test(start_paused = true)]
async fn who_cannot_wait_is_told_at_once_by_the_429_and_nothing_is_sent() {
    let server = Server::refusing(&[(0, "86400")]);
    let limited = RateLimit::new(Arc::clone(&server));
    limited.send(put(0)).await.unwrap();
    let begun = Instant::now();
    tokio::time::advance(Duration::from_secs(100)).await;
    for request in [within(put(1), 30), put(2)] {
        let refused = limited.send(request).await.unwrap();
        assert_eq!(refused.status(), 429);
        assert_eq!(refused.headers()[RETRY_AFTER], "200", "somebody asks again then");
        assert_eq!(named_pause(&refused), Some(Duration::from_secs(200)));
    }
    assert_eq!(Instant::now() - begun, Duration::from_secs(100));
    assert_eq!(server.times().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_shrinks_by_the_time_in_line() {
    let server = Server::refusing(&[(0, "5")]);
    let limited = RateLimit::new(Deadlines(Arc::clone(&server), Arc::default()));
    limited.send(put(0)).await.unwrap();
    limited.send(within(put(1), 30)).await.unwrap();
    let inner = &limited.inner;
    assert_eq!(*inner.1.lock().unwrap(), [None, Some(Duration::from_secs(25))]);
}

#[derive(Debug)]
struct Deadlines(Arc<Server>, Arc<Mutex<Vec<Option<Duration>>>>);

#[async_trait]
impl Transport for Deadlines {
    async fn send(&self, request: http::Request<Bytes>) -> Answer {
        let deadline = request.extensions().get::<Deadline>().map(|deadline| deadline.0);
        self.1.lock().unwrap().push(deadline);
        self.0.send(request).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_known_limit_is_kept_and_an_impatient_request_ends_in_the_queue() {
    let server = Server::refusing(&[]);
    let limited = RateLimit::new(Arc::clone(&server)).limit(Family::Send, 3, Duration::from_secs(10));
    join_all((0..6).map(|room| limited.send(put(room)))).await;
    let times = server.times();
    let since: Vec<u64> = times.iter().map(|at| (*at - times[0]).as_secs()).collect();
    assert_eq!(since, [0, 0, 0, 10, 20, 30]);
    let error = limited.send(within(put(7), 5)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout(Phase::Queue));
    assert!(!error.may_have_been_processed());
    tokio::time::advance(Duration::from_secs(100)).await;
    join_all((0..4).map(|room| limited.send(put(room)))).await;
    let times = server.times();
    assert_eq!(
        (times[8] - times[6], (times[9] - times[8]).as_secs()),
        (Duration::ZERO, 10)
    );
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_leaves_the_line() {
    let server = Server::refusing(&[(0, "5")]);
    let limited = RateLimit::new(Arc::clone(&server));
    limited.send(put(0)).await.unwrap();
    let impatient = tokio::time::timeout(Duration::from_secs(1), limited.send(put(1)));
    assert!(impatient.await.is_err());
    limited.send(put(2)).await.unwrap();
    assert_eq!(server.times().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn within_a_retry_what_was_refused_stands_in_line_again() {
    let server = Server::refusing(&[(0, "5"), (1, "5"), (2, "5")]);
    let stack = Retry::new(RateLimit::new(Arc::clone(&server)));
    let answers = join_all((0..10).map(|room| stack.send(put(room)))).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().status() == 200));
    assert!(
        server.times().len() <= 10 + 10,
        "ten requests, and few that were refused"
    );
}
