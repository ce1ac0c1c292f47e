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
