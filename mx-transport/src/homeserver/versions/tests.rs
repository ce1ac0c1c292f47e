//! A homeserver that is updated, and one that fails when it is asked again.

use std::sync::Mutex as StdMutex;

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::{Transport, TransportError};

#[derive(Debug)]
struct Changing {
    body: StdMutex<(u16, &'static str)>,
    asked: StdMutex<usize>,
}

#[async_trait]
impl Transport for Changing {
    async fn send(&self, _: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        *self.asked.lock().unwrap() += 1;
        tokio::task::yield_now().await;
        let (status, body) = *self.body.lock().unwrap();
        let answer = http::Response::builder().status(status);
        Ok(answer.body(Bytes::from_static(body.as_bytes())).unwrap())
    }
}

const OLD: (u16, &str) = (
    200,
    r#"{"versions":["v1.1"],"unstable_features":{"org.a":true,"org.b":false}}"#,
);
const NEW: (u16, &str) = (200, r#"{"versions":["v1.1"],"unstable_features":{"org.b":true}}"#);
const BROKEN: (u16, &str) = (502, "<html>");

fn homeserver() -> (Homeserver, Arc<Changing>) {
    let changing = Arc::new(Changing {
        body: StdMutex::new(OLD),
        asked: StdMutex::new(0),
    });
    (Homeserver::new("https://hs.test", changing.clone()).unwrap(), changing)
}

async fn features(homeserver: &Homeserver) -> (bool, bool) {
    (
        homeserver.supports("org.a").await.unwrap(),
        homeserver.supports("org.b").await.unwrap(),
    )
}

#[tokio::test(start_paused = true)]
async fn what_is_supported_is_asked_once_in_a_while_and_on_demand() {
    let (homeserver, server) = homeserver();
    let other = homeserver.clone();
    let (one, two) = tokio::join!(features(&homeserver), features(&other));
    assert_eq!((one, two), ((true, false), (true, false)));
    assert_eq!(*server.asked.lock().unwrap(), 1, "by all clones together");
    *server.body.lock().unwrap() = NEW;
    tokio::time::advance(FRESH - Duration::from_secs(1)).await;
    assert_eq!(features(&homeserver).await, (true, false));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(features(&homeserver).await, (false, true));
    *server.body.lock().unwrap() = OLD;
    homeserver.refresh_versions().await.unwrap();
    assert_eq!(features(&homeserver).await, (true, false));
    assert_eq!(*server.asked.lock().unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_was_known_goes_on_while_the_homeserver_fails() {
    let (homeserver, server) = homeserver();
    *server.body.lock().unwrap() = BROKEN;
    assert_eq!(homeserver.versions().await.unwrap_err().code(), "homeserver_failed");
    *server.body.lock().unwrap() = OLD;
    homeserver.versions().await.unwrap();
    *server.body.lock().unwrap() = BROKEN;
    tokio::time::advance(FRESH * 2).await;
    let asked = *server.asked.lock().unwrap();
    assert_eq!(features(&homeserver).await, (true, false));
    assert_eq!(
        *server.asked.lock().unwrap(),
        asked + 1,
        "and is not asked with every request"
    );
    assert!(homeserver.refresh_versions().await.is_err());
    assert_eq!(features(&homeserver).await, (true, false));
    *server.body.lock().unwrap() = NEW;
    tokio::time::advance(PAUSE).await;
    assert_eq!(features(&homeserver).await, (false, true));
}

/// Answers nothing but what is about itself; `/versions` only as long as that is said.
#[derive(Debug, Default)]
struct Hanging {
    knows: StdMutex<bool>,
    asked: StdMutex<usize>,
}

#[async_trait]
impl Transport for Hanging {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        if request.uri().path().ends_with("/versions") {
            *self.asked.lock().unwrap() += 1;
            if !*self.knows.lock().unwrap() {
                let deadline = request.extensions().get::<crate::Deadline>();
                tokio::time::sleep(deadline.map_or(Duration::from_secs(60), |deadline| deadline.0)).await;
                return Err(TransportError::new(Kind::Timeout(Phase::Headers)));
            }
            return Ok(http::Response::new(Bytes::from_static(OLD.1.as_bytes())));
        }
        Ok(http::Response::new(Bytes::from_static(b"{\"user_id\":\"@a:hs.test\"}")))
    }
}

fn hanging(knows: bool) -> (Homeserver, Arc<Hanging>) {
    let hanging = Arc::new(Hanging {
        knows: StdMutex::new(knows),
        asked: StdMutex::default(),
    });
    let homeserver = Homeserver::new("https://hs.test", hanging.clone()).unwrap();
    homeserver.set_access_token(crate::AccessToken::new("token").unwrap());
    (homeserver, hanging)
}

async fn whoami(homeserver: &Homeserver, seconds: u64) -> Result<u64, RequestError> {
    let begun = Instant::now();
    let call = Call::default().within(Duration::from_secs(seconds));
    let request = ruma::api::client::account::whoami::v3::Request::new();
    homeserver.send_with(request, call).await?;
    Ok((Instant::now() - begun).as_secs())
}

#[tokio::test(start_paused = true)]
async fn nw_07_fifty_at_a_black_hole_wait_together_and_each_no_longer_than_it_may() {
    let (homeserver, server) = hanging(false);
    let begun = Instant::now();
    let waiting = futures_util::future::join_all((0..50).map(|_| homeserver.versions())).await;
    assert_eq!((Instant::now() - begun).as_secs(), 60, "not one behind the other");
    assert_eq!(*server.asked.lock().unwrap(), 1);
    assert!(
        waiting
            .iter()
            .all(|told| told.as_ref().unwrap_err().code() == "timeout")
    );

    let begun = Instant::now();
    let (patient, hasty) = tokio::join!(homeserver.versions(), whoami(&homeserver, 7));
    assert_eq!(hasty.unwrap_err().code(), "timeout");
    assert_eq!(
        (patient.unwrap_err().code(), (Instant::now() - begun).as_secs()),
        ("timeout", 60)
    );
    let begun = Instant::now();
    whoami(&homeserver, 7).await.unwrap_err();
    assert!((Instant::now() - begun).as_secs() <= 8);
    // Who asked with less patience does not speak for those with more.
    *server.asked.lock().unwrap() = 0;
    let (hasty, patient) = tokio::join!(whoami(&homeserver, 7), async {
        let waits = whoami(&homeserver, 30);
        timeout(Duration::from_secs(10), waits).await.is_err()
    });
    assert!(hasty.is_err() && patient);
    assert_eq!(*server.asked.lock().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_is_not_waited_for_while_one_asks_again() {
    let (homeserver, server) = hanging(true);
    homeserver.versions().await.unwrap();
    *server.knows.lock().unwrap() = false;
    tokio::time::advance(FRESH * 2).await;
    let all = futures_util::future::join_all((0..50).map(|_| whoami(&homeserver, 40))).await;
    let mut took: Vec<u64> = all.into_iter().map(Result::unwrap).collect();
    took.sort_unstable();
    assert_eq!((took[48], took[49]), (0, PATIENCE.as_secs()));
    assert_eq!(
        whoami(&homeserver, 40).await.unwrap(),
        0,
        "nor is it asked again at once"
    );
    tokio::time::advance(PAUSE).await;
    assert_eq!(whoami(&homeserver, 8).await.unwrap(), 4, "within the time of who asks");
    assert_eq!(*server.asked.lock().unwrap(), 3);
}
