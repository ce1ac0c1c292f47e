//! By hand: what goes over the wire, with which token, and how often.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;

use super::*;
use crate::{AccessToken, RefreshToken, TransportError};

const SOFT: &str = r#"{"errcode":"M_UNKNOWN_TOKEN","error":"","soft_logout":true}"#;
const HARD: &str = r#"{"errcode":"M_UNKNOWN_TOKEN","error":""}"#;
const RENEWED: &str = r#"{"access_token":"access-2","refresh_token":"refresh-2","expires_in_ms":60000}"#;

/// A homeserver that takes one token, and what it saw: the token, or `-`, and the path.
#[derive(Debug)]
struct Script {
    takes: &'static str,
    refuses_with: &'static str,
    renewals: Mutex<VecDeque<(u16, &'static str)>>,
    seen: Mutex<Vec<String>>,
}

#[async_trait]
impl Transport for Script {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let answer = |status: u16, body: &'static str| {
            let response = http::Response::builder().status(status).body(Bytes::from(body));
            Ok(response.unwrap())
        };
        if request.uri().path().ends_with("/versions") {
            return answer(200, r#"{"versions":["v1.11"]}"#);
        }
        // Others come meanwhile.
        tokio::task::yield_now().await;
        let token = request.headers().get(AUTHORIZATION).map(|value| {
            assert!(value.is_sensitive() || value == "Bearer mine");
            value.to_str().unwrap().trim_start_matches("Bearer ").to_owned()
        });
        let token = token.unwrap_or_else(|| "-".to_owned());
        let path = request.uri().path().rsplit('/').next().unwrap();
        lock(&self.seen).push(format!("{token} {path}"));
        if path == "refresh" {
            let (status, body) = lock(&self.renewals).pop_front().unwrap();
            return answer(status, body);
        }
        if token == self.takes {
            return answer(200, "{}");
        }
        answer(401, self.refuses_with)
    }
}

fn lock<T>(held: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wrapped(refuses_with: &'static str, renewals: &[(u16, &'static str)]) -> TokenRefresh<Script> {
    that_takes("access-2", refuses_with, renewals)
}

fn that_takes(
    takes: &'static str,
    refuses_with: &'static str,
    renewals: &[(u16, &'static str)],
) -> TokenRefresh<Script> {
    let script = Script {
        takes,
        refuses_with,
        renewals: Mutex::new(renewals.iter().copied().collect()),
        seen: Mutex::default(),
    };
    TokenRefresh::new("https://hs.test/under/", script, tokens(None), None).unwrap()
}

fn tokens(lifetime: Option<Duration>) -> Tokens {
    let access = AccessToken::new("access-1").unwrap();
    Tokens::lasting(access, Some(RefreshToken::new("refresh-1")), lifetime)
}

fn seen(transport: &TokenRefresh<Script>) -> Vec<String> {
    std::mem::take(&mut lock(&transport.inner.seen))
}

async fn get(transport: &TokenRefresh<Script>, url: &str) -> http::Response<Bytes> {
    transport
        .send(http::Request::get(url).body(Bytes::new()).unwrap())
        .await
        .unwrap()
}

const WHOAMI: &str = "https://hs.test/under/_matrix/client/v3/account/whoami";

#[tokio::test]
async fn a_refused_request_is_sent_once_more_with_a_renewed_token() {
    let transport = wrapped(SOFT, &[(200, RENEWED)]);
    assert_eq!(get(&transport, WHOAMI).await.status(), 200);
    assert_eq!(seen(&transport), ["access-1 whoami", "- refresh", "access-2 whoami"]);
    assert_eq!(get(&transport, WHOAMI).await.status(), 200);
    assert_eq!(seen(&transport), ["access-2 whoami"]);
}

#[tokio::test]
async fn many_at_a_time_renew_once() {
    let transport = Arc::new(wrapped(SOFT, &[(200, RENEWED)]));
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let transport = Arc::clone(&transport);
        all.spawn(async move { get(&transport, WHOAMI).await.status() });
    }
    assert!(all.join_all().await.iter().all(http::StatusCode::is_success));
    let refreshes = seen(&transport)
        .iter()
        .filter(|request| request.ends_with("refresh"))
        .count();
    assert_eq!(refreshes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_before_it_expires() {
    let transport = wrapped(SOFT, &[(200, RENEWED)]);
    let lifetime = Some(Duration::from_secs(3600));
    transport.homeserver().set_tokens(tokens(lifetime), None);
    tokio::time::advance(Duration::from_secs(3580)).await;
    assert_eq!(get(&transport, WHOAMI).await.status(), 200);
    assert_eq!(seen(&transport), ["- refresh", "access-2 whoami"]);
}

#[tokio::test]
async fn a_login_that_has_ended_is_answered_as_it_was_and_not_asked_for_again() {
    for (refuses_with, soft) in [(SOFT, true), (HARD, false)] {
        let transport = wrapped(refuses_with, &[(401, HARD)]);
        for requests in [&["access-1 whoami", "- refresh"][..], &["access-1 whoami"]] {
            let answer = get(&transport, WHOAMI).await;
            assert_eq!(answer.status(), 401);
            let body: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
            assert_eq!(body["soft_logout"].as_bool().unwrap_or_default(), soft);
            assert_eq!(seen(&transport), requests);
        }
    }
}

#[tokio::test]
async fn what_is_no_word_of_the_homeserver_ends_no_login() {
    let transport = wrapped("<html>who are you</html>", &[]);
    assert_eq!(get(&transport, WHOAMI).await.status(), 401);
    assert_eq!(seen(&transport), ["access-1 whoami"]);
}

#[tokio::test]
async fn nobody_else_sees_the_token() {
    let transport = wrapped(SOFT, &[]);
    for url in [
        "https://other.test/under/_matrix/client/v3/account/whoami",
        "http://hs.test/under/_matrix/client/v3/account/whoami",
        "https://hs.test:8448/under/_matrix/client/v3/account/whoami",
        "https://hs.test/_matrix/client/v3/account/whoami",
        "https://hs.test/under/../_matrix/client/v3/account/whoami",
        "https://hs.test/under/account/whoami",
    ] {
        get(&transport, url).await;
        assert_eq!(seen(&transport), ["- whoami"], "{url}");
    }
}

#[tokio::test]
async fn a_request_with_a_token_of_its_own_keeps_it() {
    let transport = wrapped(SOFT, &[]);
    let request = http::Request::get(WHOAMI).header(AUTHORIZATION, "Bearer mine");
    let answer = transport.send(request.body(Bytes::new()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(seen(&transport), ["mine whoami"]);
}

#[tokio::test]
async fn a_homeserver_that_renews_and_refuses_is_asked_twice_and_no_more() {
    let transport = that_takes("none", SOFT, &[(200, RENEWED); 10]);
    assert_eq!(get(&transport, WHOAMI).await.status(), 401);
    assert_eq!(seen(&transport), ["access-1 whoami", "- refresh", "access-2 whoami"]);
}
