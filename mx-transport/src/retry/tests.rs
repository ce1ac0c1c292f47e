//! What is tried again, how often, and after which pause. Time is tokio's, paused.

use std::sync::Mutex;

use bytes::Bytes;

use super::*;

/// Gives prepared answers, and notes when it was asked.
#[derive(Debug)]
struct Script {
    answers: Mutex<Vec<Answer>>,
    asked: Mutex<Vec<Instant>>,
    uris: Mutex<Vec<http::Uri>>,
    deadlines: Mutex<Vec<Option<Duration>>>,
}

impl Script {
    fn new(mut answers: Vec<Answer>) -> Self {
        answers.reverse();
        Self {
            answers: Mutex::new(answers),
            asked: Mutex::default(),
            uris: Mutex::default(),
            deadlines: Mutex::default(),
        }
    }
}

#[async_trait]
impl Transport for &'static Script {
    async fn send(&self, request: http::Request<Bytes>) -> Answer {
        self.uris.lock().unwrap().push(request.uri().clone());
        let deadline = request.extensions().get::<Deadline>();
        self.deadlines.lock().unwrap().push(deadline.map(|deadline| deadline.0));
        self.asked.lock().unwrap().push(Instant::now());
        self.answers
            .lock()
            .unwrap()
            .pop()
            .expect("asked more often than expected")
    }
}

fn script(answers: Vec<Answer>) -> &'static Script {
    Box::leak(Box::new(Script::new(answers)))
}

fn answer(status: u16, headers: &[(&str, &str)], body: &'static str) -> Answer {
    let mut response = http::Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    Ok(response.body(Bytes::from_static(body.as_bytes())).unwrap())
}

fn request(method: Method) -> http::Request<Bytes> {
    http::Request::builder()
        .method(method)
        .uri("https://hs.test/x")
        .body(Bytes::new())
        .unwrap()
}

const MAY_HAVE_BEEN_PROCESSED: [Kind; 6] = [
    Kind::Interrupted,
    Kind::Truncated,
    Kind::Malformed,
    Kind::Timeout(Phase::Headers),
    Kind::Timeout(Phase::Body),
    Kind::Timeout(Phase::Total),
];

#[tokio::test(start_paused = true)]
async fn nw_15_a_post_is_not_repeated_when_it_may_have_been_processed() {
    for kind in MAY_HAVE_BEEN_PROCESSED {
        let script = script(vec![Err(TransportError::new(kind))]);
        let error = Retry::new(script).send(request(Method::POST)).await.unwrap_err();
        assert_eq!(error.kind(), kind);
    }
    let script = script(vec![answer(502, &[], "")]);
    assert_eq!(
        Retry::new(script).send(request(Method::POST)).await.unwrap().status(),
        502
    );
}

#[tokio::test(start_paused = true)]
async fn nw_02_a_post_is_repeated_when_nothing_was_sent_or_taken() {
    let script = script(vec![
        Err(TransportError::new(Kind::Connect)),
        Err(TransportError::new(Kind::Timeout(Phase::Connect))),
        answer(429, &[], r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":1500}"#),
        answer(200, &[], "{}"),
    ]);
    assert_eq!(
        Retry::new(script).send(request(Method::POST)).await.unwrap().status(),
        200
    );
    let asked = script.asked.lock().unwrap();
    assert_eq!(asked[3] - asked[2], Duration::from_millis(1500));
}

#[tokio::test(start_paused = true)]
async fn nw_15_a_put_and_a_marked_post_are_repeated() {
    for mut request in [request(Method::PUT), request(Method::POST)] {
        request.extensions_mut().insert(Idempotent);
        let script = script(vec![
            answer(502, &[], "<html>"),
            Err(TransportError::new(Kind::Interrupted)),
            Err(TransportError::new(Kind::Truncated)),
            Err(TransportError::new(Kind::Malformed)),
            answer(200, &[], "{}"),
        ]);
        assert_eq!(Retry::new(script).send(request).await.unwrap().status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_are_bounded() {
    let script = script((0..5).map(|_| answer(503, &[], "")).collect());
    assert_eq!(
        Retry::new(script).send(request(Method::GET)).await.unwrap().status(),
        503
    );
    assert_eq!(script.asked.lock().unwrap().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn nw_03_the_header_goes_before_the_body() {
    let script = script(vec![
        answer(429, &[("retry-after", "7")], r#"{"retry_after_ms":1}"#),
        answer(200, &[], "{}"),
    ]);
    Retry::new(script).send(request(Method::GET)).await.unwrap();
    let asked = script.asked.lock().unwrap();
    assert_eq!(asked[1] - asked[0], Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn a_pause_beyond_the_deadline_is_not_waited_for() {
    let script = script(vec![answer(429, &[("retry-after", "86400")], "{}")]);
    let before = Instant::now();
    assert_eq!(
        Retry::new(script).send(request(Method::GET)).await.unwrap().status(),
        429
    );
    assert_eq!(Instant::now(), before);
}

#[tokio::test(start_paused = true)]
async fn what_will_not_change_is_not_tried_again() {
    for status in [200, 400, 401, 403, 404, 413, 501] {
        let script = script(vec![answer(status, &[], "{}")]);
        assert_eq!(
            Retry::new(script).send(request(Method::GET)).await.unwrap().status(),
            status
        );
    }
    for kind in [Kind::Tls, Kind::Redirect, Kind::BodyTooLarge, Kind::Build] {
        let script = script(vec![Err(TransportError::new(kind))]);
        assert_eq!(
            Retry::new(script).send(request(Method::GET)).await.unwrap_err().kind(),
            kind
        );
    }
}

#[tokio::test(start_paused = true)]
async fn nw_01_the_same_request_goes_out_after_the_pause_that_the_server_names() {
    let script = script(vec![
        answer(429, &[("retry-after", "2")], r#"{"errcode":"M_LIMIT_EXCEEDED"}"#),
        answer(200, &[], "{}"),
    ]);
    let mut put = request(Method::PUT);
    *put.uri_mut() = "https://hs.test/_matrix/client/v3/rooms/!r/send/m.room.encrypted/txn1"
        .parse()
        .unwrap();
    assert_eq!(Retry::new(script).send(put).await.unwrap().status(), 200);
    let asked = script.asked.lock().unwrap();
    assert_eq!(asked[1] - asked[0], Duration::from_secs(2));
    let uris = script.uris.lock().unwrap();
    assert_eq!(uris[0], uris[1], "the same transaction id");
}

#[tokio::test(start_paused = true)]
async fn nw_01_a_pause_of_nothing_is_no_invitation_to_hammer() {
    let mut answers: Vec<Answer> = (0..4).map(|_| answer(429, &[("retry-after", "0")], "{}")).collect();
    answers.push(answer(429, &[("retry-after", "-5")], "{}"));
    let script = script(answers);
    let retry = Retry::new(script).pauses(Duration::from_secs(8), Duration::from_secs(8));
    assert_eq!(retry.send(request(Method::GET)).await.unwrap().status(), 429);
    let asked = script.asked.lock().unwrap();
    assert_eq!(asked.len(), 5, "bounded");
    assert!(
        asked[4] - asked[0] > Duration::from_millis(100),
        "four random parts of 8 s"
    );
}

#[tokio::test(start_paused = true)]
async fn pauses_are_a_random_part_of_a_growing_one() {
    let mut firsts = Vec::new();
    for _ in 0..40 {
        let script = script((0..5).map(|_| answer(503, &[], "")).collect());
        let retry = Retry::new(script).pauses(Duration::from_secs(1), Duration::from_secs(4));
        retry.send(request(Method::GET)).await.unwrap();
        let asked = script.asked.lock().unwrap();
        for (attempt, most) in [1, 2, 4, 4].into_iter().enumerate() {
            // The clock of these tests counts whole milliseconds.
            assert!(asked[attempt + 1] - asked[attempt] <= Duration::from_millis(most * 1000 + 1));
        }
        firsts.push(asked[1] - asked[0]);
    }
    let (least, most) = (firsts.iter().min().unwrap(), firsts.iter().max().unwrap());
    assert!(
        *least < Duration::from_millis(400) && *most > Duration::from_millis(600),
        "{least:?} to {most:?}"
    );
}

/// Says nothing, for ever.
#[derive(Debug)]
struct Silent;

#[async_trait]
impl Transport for Silent {
    async fn send(&self, _: http::Request<Bytes>) -> Answer {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_for_all_attempts_together() {
    let before = Instant::now();
    let error = Retry::new(Silent).send(request(Method::GET)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout(Phase::Total));
    assert!(Instant::now() - before <= Duration::from_secs(121), "its own total");

    let before = Instant::now();
    let mut get = request(Method::GET);
    get.extensions_mut().insert(Deadline(Duration::from_secs(7)));
    Retry::new(Silent).send(get).await.unwrap_err();
    assert!(Instant::now() - before <= Duration::from_secs(8));

    // What an attempt has taken is not there for the next one.
    let script = script(vec![answer(503, &[("retry-after", "3")], ""), answer(200, &[], "{}")]);
    let mut get = request(Method::GET);
    get.extensions_mut().insert(Deadline(Duration::from_secs(7)));
    Retry::new(script).send(get).await.unwrap();
    let deadlines = script.deadlines.lock().unwrap();
    assert_eq!(*deadlines, [Duration::from_secs(7), Duration::from_secs(4)].map(Some));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_beyond_all_clocks_is_none() {
    let script = script(vec![answer(200, &[], "{}")]);
    let mut get = request(Method::GET);
    get.extensions_mut().insert(Deadline(Duration::MAX));
    assert_eq!(Retry::new(script).send(get).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_may_have_a_time_of_its_own_and_a_long_poll_and_a_post_do_not() {
    let seconds = Duration::from_secs;
    let at = |method: Method, path: &str| {
        let mut request = request(method);
        *request.uri_mut() = format!("https://hs.test/_matrix/client/v3/{path}").parse().unwrap();
        request.extensions_mut().insert(Deadline(seconds(100)));
        request
    };
    for (request, first) in [
        (at(Method::GET, "devices"), 20),
        (at(Method::GET, "sync"), 100),
        (at(Method::POST, "keys/claim"), 100),
        (request(Method::GET), 0),
    ] {
        let script = script(vec![answer(200, &[], "{}")]);
        Retry::new(script).attempt(seconds(20)).send(request).await.unwrap();
        let deadline = script.deadlines.lock().unwrap()[0];
        assert_eq!(deadline.map_or(0, |deadline| deadline.as_secs()), first);
    }
    let begun = Instant::now();
    let dead = Retry::new(Silent).attempt(seconds(20)).attempts(3);
    let error = dead.send(at(Method::GET, "devices")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout(Phase::Total));
    let took = (Instant::now() - begun).as_secs();
    assert!((60..=70).contains(&took), "three attempts, {took} s");
}

#[tokio::test(start_paused = true)]
async fn no_attempt_begins_for_whose_answer_there_is_no_time() {
    let script = script(vec![answer(429, &[("retry-after", "28")], "{}")]);
    let mut post = request(Method::POST);
    post.extensions_mut().insert(Deadline(Duration::from_secs(30)));
    assert_eq!(Retry::new(script).send(post).await.unwrap().status(), 429);
}
