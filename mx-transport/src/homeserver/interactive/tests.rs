//! A homeserver that asks what it is told to ask, and what is answered.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use ruma::api::client::{
    device::delete_device::v3::Request as Delete,
    uiaa::{MatrixUserIdentifier, UserIdentifier},
};
use serde_json::{Value, json};

use super::*;
use crate::{AccessToken, Transport, TransportError, Unattended};

#[derive(Debug, Default)]
struct Asking {
    script: Mutex<VecDeque<(u16, Value)>>,
    answers: Mutex<Vec<Value>>,
}

#[async_trait]
impl Transport for Asking {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let endpoint = request.extensions().get::<Endpoint>();
        assert!(endpoint.is_some(), "an id would be a label of logs and metrics");
        let (status, body) = if request.uri().path().ends_with("/versions") {
            (200, json!({"versions": ["v1.11"]}))
        } else {
            let body: Value = serde_json::from_slice(request.body()).unwrap();
            self.answers.lock().unwrap().push(body["auth"].clone());
            let mut script = self.script.lock().unwrap();
            // The last one goes on for ever.
            if script.len() > 1 {
                script.pop_front()
            } else {
                script.front().cloned()
            }
            .unwrap()
        };
        let answer = http::Response::builder().status(status);
        Ok(answer.body(Bytes::from(body.to_string())).unwrap())
    }
}

fn homeserver(script: &[(u16, Value)]) -> (Homeserver, Arc<Asking>) {
    let asking = Arc::new(Asking {
        script: Mutex::new(script.iter().cloned().collect()),
        answers: Mutex::default(),
    });
    let homeserver = Homeserver::new("https://hs.test/at/", asking.clone()).unwrap();
    homeserver.set_access_token(AccessToken::new("token").unwrap());
    (homeserver, asking)
}

fn me() -> UserIdentifier {
    UserIdentifier::Matrix(MatrixUserIdentifier::new("me".to_owned()))
}

fn delete(auth: Option<AuthData>) -> Delete {
    let mut request = Delete::new("OLD".into());
    request.auth = auth;
    request
}

fn asks(flows: &[&[&str]], completed: &[&str], more: &Value) -> (u16, Value) {
    let flows: Vec<Value> = flows.iter().map(|stages| json!({"stages": stages})).collect();
    let mut body = json!({"session": "dialogue-1", "flows": flows, "completed": completed});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    (401, body)
}

async fn challenge(script: (u16, Value)) -> Challenge {
    match homeserver(&[script]).0.ask(delete(None)).await.unwrap() {
        Asked::Challenged(challenge) => *challenge,
        Asked::Done(_) => panic!("it was done"),
    }
}

#[tokio::test]
async fn a_password_is_given_in_the_session_and_every_stage_after_it() {
    let two: &[&[&str]] = &[&["m.login.sso"], &["m.login.password", "m.login.dummy"]];
    let mut without_session = asks(two, &["m.login.password"], &json!({}));
    without_session.1.as_object_mut().unwrap().remove("session");
    let (homeserver, asking) = homeserver(&[asks(two, &[], &json!({})), without_session, (200, json!({}))]);
    let answers = Unattended::new().password(me(), "hunter2");
    homeserver.authenticate(delete, &answers).await.unwrap();
    let given = asking.answers.lock().unwrap().clone();
    let identifier = json!({"type": "m.id.user", "user": "me"});
    assert_eq!(
        given,
        [
            Value::Null,
            json!({"type": "m.login.password", "identifier": identifier, "password": "hunter2", "session": "dialogue-1"}),
            json!({"type": "m.login.dummy", "session": "dialogue-1"}),
        ]
    );
    assert!(!format!("{answers:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_wrong_password_is_given_once_and_told_from_other_failures() {
    let flow: &[&[&str]] = &[&["m.login.password"]];
    let wrong = json!({"errcode": "M_FORBIDDEN", "error": "Invalid \u{1b}password"});
    let other = json!({"errcode": "M_USER_LOCKED", "error": "locked"});
    for (refused, code) in [
        (asks(flow, &[], &wrong), "wrong_password"),
        ((403, wrong.clone()), "wrong_password"),
        (asks(flow, &[], &json!({})), "authentication_refused"),
        (asks(flow, &[], &other), "authentication_refused"),
        ((403, json!({"errcode": "M_UNKNOWN"})), "homeserver_refused"),
        ((401, json!({"errcode": "M_UNKNOWN_TOKEN"})), "logged_out"),
        ((429, json!({"errcode": "M_LIMIT_EXCEEDED"})), "rate_limited"),
    ] {
        let (homeserver, asking) = homeserver(&[asks(flow, &[], &json!({})), refused]);
        let answers = Unattended::new().password(me(), "hunter2");
        let error = homeserver.authenticate(delete, &answers).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        let said = format!("{error} {error:?}");
        assert!(!said.contains("hunter2") && !said.contains('\u{1b}'), "{said}");
        assert_eq!(
            asking.answers.lock().unwrap().len(),
            2,
            "{code}: the password is sent once"
        );
    }
    // What is forbidden before anybody answered is no wrong password.
    let (homeserver, _) = homeserver(&[(403, wrong)]);
    let error = homeserver.authenticate(delete, &Unattended::new()).await.unwrap_err();
    assert_eq!(error.code(), "forbidden");
}

#[tokio::test]
async fn what_cannot_be_answered_is_named_and_not_begun() {
    let flows: &[&[&str]] = &[&["m.login.password", "m.login.recaptcha"], &["m.login.sso"]];
    let (homeserver, asking) = homeserver(&[asks(flows, &[], &json!({}))]);
    let answers = Unattended::new().password(me(), "hunter2");
    let error = homeserver.authenticate(delete, &answers).await.unwrap_err();
    assert_eq!(error.code(), "authentication_unanswerable");
    assert!(error.to_string().contains("m.login.sso, m.login.password"), "{error}");
    assert_eq!(asking.answers.lock().unwrap().len(), 1);
}

/// Answers whatever comes with the same, as a person who never gives up.
#[derive(Debug)]
struct Stubborn;

#[async_trait]
impl Answers for Stubborn {
    async fn answer(&self, challenge: &Challenge) -> Result<AuthData, InteractiveError> {
        Ok(challenge.password(me(), "again"))
    }
}

#[tokio::test]
async fn no_dialogue_goes_on_for_ever() {
    let (homeserver, asking) = homeserver(&[asks(&[&["m.login.password"]], &[], &json!({}))]);
    let error = homeserver.authenticate(delete, &Stubborn).await.unwrap_err();
    assert_eq!(error.code(), "authentication_endless");
    assert_eq!(asking.answers.lock().unwrap().len(), MAX_ROUNDS + 1);
}

#[tokio::test]
async fn a_challenge_says_what_is_left_and_where_it_is_done() {
    let flows: &[&[&str]] = &[&["a", "b", "c"], &["b", "a"], &["a"]];
    let challenge_of = challenge(asks(flows, &["b"], &json!({}))).await;
    let left: Vec<Vec<&str>> = challenge_of
        .open_flows()
        .iter()
        .map(|stages| stages.iter().map(AuthType::as_str).collect())
        .collect();
    assert_eq!(left, [vec!["a"], vec!["a"], vec!["a", "b", "c"]]);
    let next: Vec<&str> = challenge_of.next_stages().into_iter().map(AuthType::as_str).collect();
    assert_eq!(next, ["a"]);
    assert_eq!(challenge_of.session(), Some("dialogue-1"));
    assert!(challenge_of.refusal().is_none());
    assert!(!format!("{challenge_of:?}").contains("dialogue-1"));

    let odd = json!({"session": "a b&c", "params": {"m.oauth": {"url": "https://account.test/reset"}, "x": 1}});
    let challenge_of = challenge(asks(&[&["m.login.sso"]], &[], &odd)).await;
    assert_eq!(
        challenge_of.page(&AuthType::Sso).unwrap().as_str(),
        "https://hs.test/at/_matrix/client/v3/auth/m.login.sso/fallback/web?session=a+b%26c"
    );
    assert_eq!(
        challenge_of.page(&AuthType::OAuth).unwrap().as_str(),
        "https://account.test/reset"
    );
    let done = |stage| serde_json::to_value(challenge_of.done_elsewhere(&stage).unwrap()).unwrap();
    assert_eq!(done(AuthType::Sso), json!({"session": "a b&c"}));
    assert_eq!(done(AuthType::OAuth), json!({"type": "m.oauth", "session": "a b&c"}));
    assert_eq!(challenge_of.params::<u64>(&AuthType::from("x")), Some(1));
    assert_eq!(challenge_of.params::<String>(&AuthType::from("x")), None);
    let evil = json!({"params": {"m.oauth": {"url": "javascript:alert(1)"}}});
    assert!(challenge(asks(&[], &[], &evil)).await.page(&AuthType::OAuth).is_none());
}

#[tokio::test]
async fn what_is_no_question_is_an_error() {
    for (status, body, code) in [
        (401, json!({"error": "a proxy"}), "homeserver_refused"),
        (401, json!({"flows": "none"}), "homeserver_refused"),
        (403, json!({"flows": [], "errcode": "M_FORBIDDEN"}), "forbidden"),
        (
            401,
            json!({"flows": [], "errcode": "M_UNKNOWN_TOKEN", "soft_logout": true}),
            "soft_logged_out",
        ),
    ] {
        let error = homeserver(&[(status, body)]).0.ask(delete(None)).await.unwrap_err();
        assert_eq!(error.code(), code);
    }
}
