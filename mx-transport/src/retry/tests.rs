//! What is tried again, how often, and after which pause. Time is tokio's, paused.

use std::sync::Mutex;

use super::*;
use crate::TransportErrorKind as Kind;

type Answer = Result<http::Response<Bytes>, TransportError>;

/// Gives prepared answers, and notes when it was asked.
#[derive(Debug)]
struct Script {
    answers: Mutex<Vec<Answer>>,
    asked: Mutex<Vec<Instant>>,
}

impl Script {
    fn new(mut answers: Vec<Answer>) -> Self {
        answers.reverse();
        Self {
            answers: Mutex::new(answers),
            asked: Mutex::default(),
        }
    }
}

#[async_trait]
impl Transport for &'static Script {
    async fn send(&self, _: http::Request<Bytes>) -> Answer {
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

#[tokio::test(start_paused = true)]
async fn a_post_is_not_repeated_when_it_may_have_been_processed() {
    for kind in [Kind::Interrupted, Kind::Timeout] {
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
async fn a_post_is_repeated_when_nothing_was_sent_or_taken() {
    let script = script(vec![
        Err(TransportError::new(Kind::Connect)),
        answer(429, &[], r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":1500}"#),
        answer(200, &[], "{}"),
    ]);
    assert_eq!(
        Retry::new(script).send(request(Method::POST)).await.unwrap().status(),
        200
    );
    let asked = script.asked.lock().unwrap();
    assert_eq!(asked[2] - asked[1], Duration::from_millis(1500));
}

#[tokio::test(start_paused = true)]
async fn a_put_and_a_marked_post_are_repeated() {
    for mut request in [request(Method::PUT), request(Method::POST)] {
        request.extensions_mut().insert(Idempotent);
        let script = script(vec![
            answer(502, &[], "<html>"),
            Err(TransportError::new(Kind::Interrupted)),
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
async fn the_header_goes_before_the_body() {
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

#[test]
fn a_date_in_the_past_is_no_pause() {
    let response = answer(429, &[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")], "{}").unwrap();
    assert_eq!(named_pause(&response), Some(Duration::ZERO));
    let response = answer(429, &[("retry-after", "soon")], "nonsense").unwrap();
    assert_eq!(named_pause(&response), None);
}
