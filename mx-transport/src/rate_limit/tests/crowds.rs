//! Many at once, long pauses, and who shares a budget with whom.

use tokio::sync::Semaphore;

use super::*;
use crate::rate_limit::budget::{FOR_A_PROBE, LONGEST_HOLD};

/// Waits for leave before it answers, and says the same to everybody.
#[derive(Debug)]
struct Slow {
    leave: Semaphore,
    answer: Mutex<(u16, &'static str, Bytes)>,
    seen: Mutex<usize>,
}

#[async_trait]
impl Transport for Arc<Slow> {
    async fn send(&self, _: http::Request<Bytes>) -> Answer {
        *self.seen.lock().unwrap() += 1;
        self.leave.acquire().await.unwrap().forget();
        let (status, pause, body) = self.answer.lock().unwrap().clone();
        let response = http::Response::builder()
            .status(status)
            .header(RETRY_AFTER, pause)
            .header("x-of-another", "secret");
        Ok(response.body(body).unwrap())
    }
}

impl Slow {
    fn saying(status: u16, pause: &'static str, body: impl Into<Bytes>) -> Arc<Self> {
        Arc::new(Self {
            leave: Semaphore::new(0),
            answer: Mutex::new((status, pause, body.into())),
            seen: Mutex::default(),
        })
    }

    fn says(&self, status: u16, pause: &'static str) {
        *self.answer.lock().unwrap() = (status, pause, Bytes::new());
    }

    fn seen(&self) -> usize {
        *self.seen.lock().unwrap()
    }
}

/// Let everything go on that can, without time.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nw_01_a_thousand_at_once_are_few_on_their_way_and_their_refusals_count_once() {
    let slow = Slow::saying(429, "5", "{}");
    let limited = RateLimit::new(Arc::clone(&slow));
    let begun = Instant::now();
    let all = tokio::spawn({
        let limited = limited.clone();
        async move { join_all((0..1000).map(|room| limited.send(within(put(room), 30)))).await }
    });
    settle().await;
    assert_eq!(slow.seen(), UNDER_WAY);
    slow.leave.add_permits(UNDER_WAY);
    settle().await;
    assert_eq!(slow.seen(), UNDER_WAY, "the first refusal holds all the others back");
    slow.says(200, "0");
    slow.leave.add_permits(2000);
    let answers = all.await.unwrap();
    let refused = answers.iter().filter(|answer| answer.as_ref().unwrap().status() == 429);
    assert_eq!(refused.count(), UNDER_WAY);
    let took = Instant::now() - begun;
    let least = Duration::from_secs(5);
    assert!(
        took >= least && took <= least + LEAST_SPACE * 10,
        "64 refusals at once make as much space as one: {took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn long_polls_and_files_are_not_counted_and_what_is_dropped_makes_room() {
    let slow = Slow::saying(200, "0", "{}");
    let limited = RateLimit::new(Arc::clone(&slow)).under_way(1);
    let second = Duration::from_secs(1);
    let polls = join_all((0..5).map(|_| tokio::time::timeout(second, limited.send(sync()))));
    assert!(polls.await.iter().all(Result::is_err));
    assert_eq!(slow.seen(), 5);
    let first = tokio::time::timeout(second, limited.send(put(1)));
    let second = limited.send(within(put(2), 10));
    let (first, second) = tokio::join!(first, async {
        let answer = tokio::time::timeout(Duration::from_secs(3), second).await;
        (answer.is_err(), slow.seen())
    });
    assert!(first.is_err());
    assert_eq!(second, (true, 7), "the second went when the first was dropped");
    let stuck = limited.send(put(3));
    let behind = async {
        settle().await;
        limited.send(within(put(4), 10)).await.unwrap_err().kind()
    };
    let behind = tokio::select! {
        _ = stuck => None,
        behind = behind => Some(behind),
    };
    assert_eq!(behind, Some(Kind::Timeout(Phase::Queue)));
}

#[tokio::test(start_paused = true)]
async fn nw_01_a_pause_of_a_day_is_asked_after_by_one_request_every_few_minutes() {
    let slow = Slow::saying(429, "86400", "{}");
    slow.leave.add_permits(1);
    let limited = RateLimit::new(Arc::clone(&slow)).patience(Duration::from_secs(100_000));
    limited.send(put(0)).await.unwrap();
    let waiting = tokio::spawn({
        let limited = limited.clone();
        async move { join_all((1..=20).map(|room| limited.send(put(room)))).await }
    });
    tokio::time::sleep(LONGEST_HOLD - Duration::from_secs(1)).await;
    assert_eq!(slow.seen(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(slow.seen(), 2, "one asks");
    slow.leave.add_permits(1);
    tokio::time::sleep(LONGEST_HOLD - Duration::from_secs(3)).await;
    assert_eq!(slow.seen(), 2, "and was refused for all");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(slow.seen(), 3);
    tokio::time::sleep(FOR_A_PROBE).await;
    assert_eq!(
        slow.seen(),
        4,
        "an answer that does not come is not waited for for ever"
    );
    slow.says(200, "0");
    let begun = Instant::now();
    slow.leave.add_permits(100);
    let answers = waiting.await.unwrap();
    assert!(Instant::now() - begun < FOR_A_PROBE, "a good answer is one for all");
    let good = answers.iter().filter(|answer| answer.as_ref().unwrap().status() == 200);
    assert_eq!(good.count(), 19);
}

fn asked(uri: &str, token: Option<&str>) -> http::Request<Bytes> {
    let request = http::Request::get(format!("https://{uri}"));
    let request = match token {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    };
    request.body(Bytes::new()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn nw_01_another_homeserver_another_login_and_what_needs_no_login_do_not_wait() {
    let server = Server::refusing(&[(0, "60"), (1, "60")]);
    let limited = RateLimit::new(Arc::clone(&server));
    let begun = Instant::now();
    let at = |host: &str, path: &str| format!("{host}/_matrix/client/v3/{path}");
    limited.send(asked(&at("hs.test", "login"), None)).await.unwrap();
    limited
        .send(asked(&at("hs.test", "account/whoami"), Some("one")))
        .await
        .unwrap();
    for (uri, token) in [
        (at("hs.test", "refresh"), None),
        (at("other.test", "login"), None),
        (at("hs.test:8448", "login"), None),
        (at("hs.test", "account/whoami"), Some("two")),
        (at("other.test", "account/whoami"), Some("one")),
        (at("hs.test", "sync"), Some("one")),
    ] {
        assert_eq!(limited.send(asked(&uri, token)).await.unwrap().status(), 200, "{uri}");
        assert_eq!(Instant::now(), begun, "{uri}");
    }
    for (uri, token) in [
        (at("hs.test", "register"), None),
        (at("hs.test", "devices"), Some("one")),
    ] {
        let mut request = asked(&uri, token);
        request.extensions_mut().insert(Deadline(Duration::from_secs(10)));
        assert_eq!(limited.send(request).await.unwrap().status(), 429, "{uri}");
    }
    assert_eq!(server.times().len(), 8);
}

#[tokio::test(start_paused = true)]
async fn nw_01_who_waits_is_not_given_the_answer_of_another() {
    let mut body = br#"{"errcode":"M_LIMIT_EXCEEDED","error":"secret-"#.to_vec();
    body.resize(50_000, b'x');
    body.extend_from_slice(b"\"}");
    let slow = Slow::saying(429, "60", body);
    slow.leave.add_permits(1);
    let limited = RateLimit::new(Arc::clone(&slow));
    limited.send(put(0)).await.unwrap();
    let refused = limited.send(within(put(1), 10)).await.unwrap();
    assert!(refused.headers().get("x-of-another").is_none());
    let text = String::from_utf8(refused.body().to_vec()).unwrap();
    assert!(!text.contains("secret") && text.len() < 1000, "{text}");
    assert!(text.contains("M_LIMIT_EXCEEDED") && text.contains("60000"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn nw_15_what_nobody_would_wait_for_is_not_sent_by_a_retry_nor_in_line() {
    let post = || {
        let request = http::Request::post("https://hs.test/_matrix/client/v3/keys/claim");
        request.body(Bytes::new()).unwrap()
    };
    // Named by the homeserver to this request, and to another one before it.
    for first in [put(0).uri().to_string(), post().uri().to_string()] {
        let server = Server::refusing(&[(0, "119.9")]);
        let stack = Retry::new(RateLimit::new(Arc::clone(&server)));
        let begun = Instant::now();
        let mut request = post();
        *request.uri_mut() = first.parse().unwrap();
        assert_eq!(stack.send(request.clone()).await.unwrap().status(), 429);
        assert_eq!(stack.send(request).await.unwrap().status(), 429);
        assert_eq!(Instant::now(), begun);
        assert_eq!(server.times().len(), 1, "a POST that would be dropped is not sent");
    }
}

#[tokio::test(start_paused = true)]
async fn who_stands_too_far_behind_is_told_at_once() {
    let server = Server::refusing(&[]);
    let limited = RateLimit::new(Arc::clone(&server)).limit(Family::Send, 1, Duration::from_secs(10));
    let begun = Instant::now();
    let answers = join_all((0..10).map(|room| {
        let limited = limited.clone();
        async move {
            let answer = limited.send(within(put(room), 40)).await;
            (answer.map_err(|error| error.kind()), (Instant::now() - begun).as_secs())
        }
    }));
    let answers = answers.await;
    for (room, (answer, at)) in answers.into_iter().enumerate() {
        match answer {
            Ok(_) => assert_eq!(at, room as u64 * 10),
            Err(kind) => {
                assert!(room >= 4, "number {room} has time enough");
                assert_eq!((kind, at), (Kind::Timeout(Phase::Queue), 0));
            }
        }
    }
    assert_eq!(server.times().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_for_those_who_were_told_of_it() {
    let server = Server::refusing(&[]);
    let free = RateLimit::new(Arc::clone(&server));
    let limited = free.clone().limit(Family::Send, 1, Duration::from_secs(10));
    let begun = Instant::now();
    join_all((0..5).map(|room| free.send(put(room)))).await;
    assert_eq!(Instant::now(), begun);
    join_all((0..3).map(|room| limited.send(put(room)))).await;
    assert_eq!((Instant::now() - begun).as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn budgets_that_nobody_needs_are_forgotten() {
    let server = Server::refusing(&[(0, "100000")]);
    let limited = RateLimit::new(Arc::clone(&server));
    limited
        .send(asked("held.test/_matrix/client/v3/sync", None))
        .await
        .unwrap();
    tokio::time::advance(Duration::from_secs(200)).await;
    for number in 0..MANY * 2 {
        tokio::time::advance(Duration::from_millis(40)).await;
        limited.send(asked(&format!("hs{number}.test/"), None)).await.unwrap();
    }
    let lines = limited.lines.lines.lock().unwrap();
    assert!(lines.len() < 1600, "{}", lines.len());
    assert!(lines.keys().any(|key| key.authority == "held.test"));
}
