//! A scripted homeserver and a keeper, and in which order both are spoken to.

mod early;

use std::{collections::VecDeque, future::poll_fn, sync::Mutex, task::Poll};

use async_trait::async_trait;
use ruma::api::client::account::whoami::v3::Request as Whoami;
use serde_json::Value;

use super::*;
use crate::{KeepError, KeeperTurn, Transport, TransportError, TransportErrorKind};

const SOFT: &str = r#"{"errcode":"M_UNKNOWN_TOKEN","error":"","soft_logout":true}"#;
const HARD: &str = r#"{"errcode":"M_UNKNOWN_TOKEN","error":""}"#;
const LOST: (u16, &str) = (0, "");

fn pair(number: u32, more: &str) -> String {
    format!(r#"{{"access_token":"access-{number}","refresh_token":"refresh-{number}"{more}}}"#)
}

/// What was asked and kept, in order; and what is answered.
#[derive(Debug)]
struct Script {
    valid: Mutex<&'static str>,
    refused: Mutex<&'static str>,
    renewals: Mutex<VecDeque<(u16, String)>>,
    done: Mutex<Vec<String>>,
    /// What the keeper holds.
    kept: Mutex<Option<Tokens>>,
    disk_fails: Mutex<bool>,
}

#[async_trait]
impl Transport for Script {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let answer = |status: u16, body: String| {
            let response = http::Response::builder().status(status).body(Bytes::from(body));
            Ok(response.unwrap())
        };
        if request.uri().path().ends_with("/versions") {
            return answer(200, r#"{"versions":["v1.11"]}"#.to_owned());
        }
        assert!(request.uri().query().is_none());
        tokio::task::yield_now().await;
        if request.uri().path() == "/_matrix/client/v3/refresh" {
            assert!(request.headers().get(AUTHORIZATION).is_none());
            assert!(request.extensions().get::<crate::Idempotent>().is_some());
            let body: Value = serde_json::from_slice(request.body()).unwrap();
            self.note(format!("renew with {}", body["refresh_token"].as_str().unwrap()));
            let (status, body) = self.renewals.lock().unwrap().pop_front().unwrap();
            return match status {
                0 => Err(TransportError::new(TransportErrorKind::Interrupted)),
                status => answer(status, body),
            };
        }
        let token = sent_token(request.headers()).unwrap();
        self.note(format!("ask with {}", token.expose()));
        if token.expose() == *self.valid.lock().unwrap() {
            answer(200, r#"{"user_id":"@a:hs.test"}"#.to_owned())
        } else {
            answer(401, (*self.refused.lock().unwrap()).to_owned())
        }
    }
}

impl Script {
    fn note(&self, what: String) {
        self.done.lock().unwrap().push(what);
    }

    fn done(&self) -> Vec<String> {
        std::mem::take(&mut self.done.lock().unwrap())
    }

    fn renews_with(&self, answers: &[(u16, &str)]) {
        let answers = answers.iter().map(|(status, body)| (*status, (*body).to_owned()));
        self.renewals.lock().unwrap().extend(answers);
    }
}

#[derive(Debug)]
struct Keeper(Arc<Script>);

#[async_trait]
impl TokenKeeper for Keeper {
    async fn turn(&self) -> Result<Box<dyn KeeperTurn>, KeepError> {
        Ok(Box::new(Self(Arc::clone(&self.0))))
    }
}

#[async_trait]
impl KeeperTurn for Keeper {
    async fn kept(&self) -> Result<Option<Tokens>, KeepError> {
        Ok(self.0.kept.lock().unwrap().clone())
    }

    async fn keep(&mut self, tokens: &Tokens) -> Result<(), KeepError> {
        if *self.0.disk_fails.lock().unwrap() {
            return Err("the disk is full".into());
        }
        let refresh = tokens.refresh.as_ref().unwrap().expose();
        self.0.note(format!("keep {} {refresh}", tokens.access.expose()));
        *self.0.kept.lock().unwrap() = Some(tokens.clone());
        Ok(())
    }
}

fn tokens(number: u32) -> Tokens {
    let access = AccessToken::new(format!("access-{number}")).unwrap();
    Tokens::lasting(access, Some(RefreshToken::new(format!("refresh-{number}"))), None)
}

/// The homeserver takes `access-2` only; we have `access-1`.
fn expired(refused: &'static str) -> (Homeserver, Arc<Script>) {
    let script = Arc::new(Script {
        valid: Mutex::new("access-2"),
        refused: Mutex::new(refused),
        renewals: Mutex::default(),
        done: Mutex::default(),
        kept: Mutex::new(Some(tokens(1))),
        disk_fails: Mutex::default(),
    });
    let homeserver = Homeserver::new("https://hs.test/", script.clone()).unwrap();
    homeserver.set_tokens(tokens(1), Some(Arc::new(Keeper(script.clone()))));
    (homeserver, script)
}

async fn ask(homeserver: &Homeserver) -> Result<(), RequestError> {
    homeserver.send(Whoami::new()).await.map(|_| ())
}

fn in_use(homeserver: &Homeserver) -> String {
    homeserver.access_token().unwrap().expose().to_owned()
}

#[tokio::test]
async fn what_is_refused_is_sent_once_more_with_a_token_that_is_kept_before_it_is_used() {
    for refused in [SOFT, HARD] {
        let (homeserver, script) = expired(refused);
        script.renews_with(&[(200, &pair(2, ""))]);
        ask(&homeserver).await.unwrap();
        ask(&homeserver).await.unwrap();
        let expected = [
            "ask with access-1",
            "renew with refresh-1",
            "keep access-2 refresh-2",
            "ask with access-2",
            "ask with access-2",
        ];
        assert_eq!(script.done(), expected);
    }
}

#[tokio::test]
async fn many_that_are_refused_at_once_renew_once() {
    let (homeserver, script) = expired(SOFT);
    script.renews_with(&[(200, &pair(2, ""))]);
    let asking = (0..20).map(|_| {
        let homeserver = homeserver.clone();
        tokio::spawn(async move { ask(&homeserver).await })
    });
    for asked in asking.collect::<Vec<_>>() {
        asked.await.unwrap().unwrap();
    }
    let done = script.done();
    let count = |what: &str| done.iter().filter(|done| done.starts_with(what)).count();
    assert_eq!((count("renew"), count("keep")), (1, 1));
    assert_eq!((count("ask with access-1"), count("ask with access-2")), (20, 20));
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_used() {
    let (homeserver, script) = expired(SOFT);
    *script.disk_fails.lock().unwrap() = true;
    script.renews_with(&[(200, &pair(7, "")), (200, &pair(2, ""))]);
    let error = ask(&homeserver).await.unwrap_err();
    assert_eq!(error.code(), "token_not_kept");
    assert!(!format!("{error} {error:?}").contains("-7"));
    assert_eq!(in_use(&homeserver), "access-1");
    assert_eq!(script.done(), ["ask with access-1", "renew with refresh-1"]);
    *script.disk_fails.lock().unwrap() = false;
    ask(&homeserver).await.unwrap();
    let expected = [
        "ask with access-1",
        "renew with refresh-1",
        "keep access-2 refresh-2",
        "ask with access-2",
    ];
    assert_eq!(script.done(), expected);
}

#[tokio::test]
async fn a_renewal_that_is_refused_is_a_logout_and_not_tried_again() {
    let forbidden = r#"{"errcode":"M_FORBIDDEN","error":"not valid any more"}"#;
    for (refused, status, renewal, expected) in [
        (HARD, 401, SOFT, true),
        (SOFT, 401, HARD, false),
        (SOFT, 403, forbidden, true),
        (HARD, 403, forbidden, false),
        (HARD, 404, r#"{"errcode":"M_UNRECOGNIZED","error":""}"#, false),
    ] {
        let (homeserver, script) = expired(refused);
        script.renews_with(&[(status, renewal)]);
        let error = ask(&homeserver).await.unwrap_err();
        assert!(
            matches!(error, RequestError::LoggedOut { soft } if soft == expected),
            "{status} {error:?}"
        );
        assert_eq!(script.done(), ["ask with access-1", "renew with refresh-1"]);
        assert!(matches!(ask(&homeserver).await, Err(RequestError::LoggedOut { .. })));
        assert_eq!(script.done(), ["ask with access-1"]);
        assert!(script.kept.lock().unwrap().is_some(), "what is kept stays");
    }
}

#[tokio::test]
async fn a_renewal_that_fails_is_repeated_with_the_same_token() {
    for (answer, code) in [
        (LOST, "interrupted"),
        ((502, "<html>"), "homeserver_failed"),
        ((403, "<html>sign in to this network</html>"), "homeserver_refused"),
        ((429, r#"{"errcode":"M_LIMIT_EXCEEDED","error":""}"#), "rate_limited"),
        ((200, "<html>"), "unreadable_answer"),
        ((200, r#"{"access_token":"two words"}"#), "unreadable_answer"),
        (
            (200, r#"{"access_token":"access-9","expires_in_ms":"access-9"}"#),
            "unreadable_answer",
        ),
    ] {
        let (homeserver, script) = expired(HARD);
        script.renews_with(&[answer, (200, &pair(2, ""))]);
        let error = ask(&homeserver).await.unwrap_err();
        assert_eq!(error.code(), code);
        assert!(!format!("{error} {error:?}").contains("access-9"), "{error:?}");
        ask(&homeserver).await.unwrap();
        let expected = [
            "ask with access-1",
            "renew with refresh-1",
            "ask with access-1",
            "renew with refresh-1",
            "keep access-2 refresh-2",
            "ask with access-2",
        ];
        assert_eq!(script.done(), expected, "{code}");
    }
}

#[tokio::test]
async fn a_new_token_that_is_refused_too_ends_it() {
    let (homeserver, script) = expired(SOFT);
    script.renews_with(&[(200, &pair(3, ""))]);
    assert!(matches!(
        ask(&homeserver).await,
        Err(RequestError::LoggedOut { soft: true })
    ));
    let expected = [
        "ask with access-1",
        "renew with refresh-1",
        "keep access-3 refresh-3",
        "ask with access-3",
    ];
    assert_eq!(script.done(), expected);
}

#[tokio::test]
async fn a_refusal_that_is_not_about_the_token_renews_nothing() {
    for body in [
        "<html>proxy</html>",
        "",
        r#"{"error":"x"}"#,
        r#"{"errcode":"M_MISSING_TOKEN","error":""}"#,
    ] {
        let (homeserver, script) = expired(body);
        let error = ask(&homeserver).await.unwrap_err();
        assert!(
            matches!(&error, RequestError::Api { status, .. } if status.as_u16() == 401),
            "{error:?}"
        );
        assert_eq!(script.done(), ["ask with access-1"]);
    }
}

#[tokio::test]
async fn what_another_process_has_renewed_is_used() {
    let (homeserver, script) = expired(HARD);
    *script.kept.lock().unwrap() = Some(tokens(2));
    ask(&homeserver).await.unwrap();
    assert_eq!(script.done(), ["ask with access-1", "ask with access-2"]);

    // It has expired since.
    let (homeserver, script) = expired(HARD);
    *script.kept.lock().unwrap() = Some(tokens(5));
    script.renews_with(&[(200, &pair(2, ""))]);
    ask(&homeserver).await.unwrap();
    let expected = [
        "ask with access-1",
        "ask with access-5",
        "renew with refresh-5",
        "keep access-2 refresh-2",
        "ask with access-2",
    ];
    assert_eq!(script.done(), expected);
}

#[tokio::test]
async fn a_login_that_was_ended_elsewhere_is_not_renewed() {
    let (homeserver, script) = expired(HARD);
    *script.kept.lock().unwrap() = None;
    assert!(matches!(
        ask(&homeserver).await,
        Err(RequestError::LoggedOut { soft: false })
    ));
    assert_eq!(script.done(), ["ask with access-1"]);
}

#[tokio::test]
async fn a_refresh_token_that_is_not_replaced_goes_on() {
    let (homeserver, script) = expired(HARD);
    script.renews_with(&[(200, r#"{"access_token":"access-2"}"#)]);
    ask(&homeserver).await.unwrap();
    assert_eq!(script.done()[2], "keep access-2 refresh-1");
}

#[tokio::test]
async fn a_caller_that_goes_away_while_it_renews_leaves_it_to_the_next() {
    // However far the first one came.
    for polls in 1..12 {
        let (homeserver, script) = expired(HARD);
        script.renews_with(&[(200, &pair(2, "")), (200, &pair(2, ""))]);
        let mut asking = Box::pin(ask(&homeserver));
        for _ in 0..polls {
            let once = poll_fn(|context| Poll::Ready(asking.as_mut().poll(context)));
            if once.await.is_ready() {
                break;
            }
        }
        drop(asking);
        ask(&homeserver).await.unwrap();
        assert_eq!(in_use(&homeserver), "access-2");
        let done = script.done();
        let kept = done.iter().position(|done| done.starts_with("keep"));
        let used = done.iter().position(|done| done == "ask with access-2");
        assert!(kept.unwrap() < used.unwrap(), "{done:?}");
    }
}
