//! What is said of who speaks, and what refusals mean then.

use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use ruma::{api::client::account::whoami, user_id};
use serde_json::{Value, json};

use super::*;
use crate::{Transport, TransportError};

#[derive(Debug)]
struct Fixed {
    answer: Mutex<(u16, Value)>,
    seen: Mutex<Vec<http::Request<Bytes>>>,
}

#[async_trait]
impl Transport for Fixed {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let (status, body) = if request.uri().path() == "/_matrix/client/versions" {
            (200, json!({"versions": ["v1.17"]}))
        } else {
            self.answer.lock().unwrap().clone()
        };
        self.seen.lock().unwrap().push(request);
        let answer = http::Response::builder().status(status);
        Ok(answer.body(Bytes::from(body.to_string())).unwrap())
    }
}

fn homeserver(status: u16, body: Value) -> (Homeserver, Arc<Fixed>) {
    let fixed = Arc::new(Fixed {
        answer: Mutex::new((status, body)),
        seen: Mutex::default(),
    });
    (Homeserver::new("https://hs.test", fixed.clone()).unwrap(), fixed)
}

fn token() -> AccessToken {
    AccessToken::new("as-token").unwrap()
}

#[tokio::test]
async fn who_speaks_is_in_the_query_of_what_carries_the_token() {
    let (homeserver, fixed) = homeserver(200, json!({"user_id": "@a+b:hs.test"}));
    let bot = Masquerade::user(user_id!("@a+b:hs.test").to_owned());
    for (masquerade, query) in [
        (bot.clone(), "user_id=%40a%2Bb%3Ahs.test"),
        (
            bot.clone().device("D&1".into()),
            "user_id=%40a%2Bb%3Ahs.test&device_id=D%261",
        ),
        (
            bot.clone().device("D&1".into()).unstable(),
            "user_id=%40a%2Bb%3Ahs.test&org.matrix.msc3202.device_id=D%261",
        ),
        (bot.unstable(), "user_id=%40a%2Bb%3Ahs.test"),
    ] {
        let homeserver = homeserver.for_another_login();
        homeserver.masquerade(token(), masquerade);
        homeserver.send(whoami::v3::Request::new()).await.unwrap();
        let last = fixed.seen.lock().unwrap().pop().unwrap();
        assert_eq!(last.uri().query(), Some(query));
        assert_eq!(last.headers()["authorization"], "Bearer as-token");
    }
    let versions = fixed.seen.lock().unwrap();
    assert_eq!(versions.len(), 1, "what is known of a homeserver is shared");
    assert_eq!(versions[0].uri().query(), None);
    assert!(homeserver.access_token().is_none(), "tokens are not");
}

#[tokio::test]
async fn a_token_that_was_changed_does_not_end_the_device() {
    let soft = |error: RequestError| match error {
        RequestError::LoggedOut { soft } => Some(soft),
        _ => None,
    };
    for (status, code, masquerading, expected) in [
        (401, "M_UNKNOWN_TOKEN", true, Some(true)),
        (401, "M_UNKNOWN_TOKEN", false, Some(false)),
        (400, "M_UNKNOWN_DEVICE", true, Some(false)),
        (400, "M_UNKNOWN_DEVICE", false, None),
        (403, "M_FORBIDDEN", true, None),
    ] {
        let (homeserver, _) = homeserver(status, json!({"errcode": code}));
        homeserver.set_access_token(token());
        if masquerading {
            homeserver.masquerade(token(), Masquerade::user(user_id!("@a:hs.test").to_owned()));
        }
        let error = homeserver.send(whoami::v3::Request::new()).await.unwrap_err();
        assert_eq!(soft(error), expected, "{code} {masquerading}");
    }
}

#[tokio::test]
async fn a_user_is_made_once_and_without_a_device() {
    let (homeserver, fixed) = homeserver(400, json!({"errcode": "M_USER_IN_USE"}));
    homeserver.register_by_appservice(&token(), "bot").await.unwrap();
    let last = fixed.seen.lock().unwrap().pop().unwrap();
    assert_eq!(last.headers()["authorization"], "Bearer as-token");
    let body: Value = serde_json::from_slice(last.body()).unwrap();
    assert_eq!(
        body,
        json!({"type": "m.login.application_service", "username": "bot", "inhibit_login": true})
    );
    *fixed.answer.lock().unwrap() = (400, json!({"errcode": "M_EXCLUSIVE"}));
    assert!(homeserver.register_by_appservice(&token(), "bot").await.is_err());
}
