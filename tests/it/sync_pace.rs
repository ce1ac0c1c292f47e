//! How often a homeserver is asked that fails, or does not wait: less and less. Rows NW-11, NW-20 and NW-29.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use mx_e2ee::{Client, Event, Room};
use mx_test_homeserver::Fault;
use mx_transport::{Transport, TransportError, TransportErrorKind};
use serde_json::json;

use crate::{
    sync_answers::bodies,
    world::{Device, Pair, World, builder, pair, sliding_pair},
};

const HOUR: Duration = Duration::from_secs(3600);

/// What happens to syncs.
#[derive(Clone, Debug)]
enum Way {
    Open,
    /// Nothing goes through, not even another request.
    Cut,
    /// Syncs are answered at once, with this.
    AtOnce(String),
    /// The same, the nth with what this makes of it.
    Each(fn(&http::Request<Bytes>, usize) -> http::Response<Bytes>),
}

/// A way to the homeserver that can change.
#[derive(Clone, Debug)]
struct Ways {
    inner: Arc<dyn Transport>,
    way: Arc<Mutex<Way>>,
    requests: Arc<AtomicUsize>,
}

impl Ways {
    fn take(&self, way: Way) {
        *self.way.lock().unwrap() = way;
        self.requests.store(0, Ordering::SeqCst);
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Transport for Ways {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let way = self.way.lock().unwrap().clone();
        match way {
            Way::Cut => Err(TransportError::new(TransportErrorKind::Connect)),
            Way::AtOnce(body) if request.uri().path().ends_with("/sync") => Ok(http::Response::new(body.into())),
            Way::Each(answer) if request.uri().path().ends_with("/sync") => Ok(answer(&request, self.requests())),
            Way::Open | Way::AtOnce(_) | Way::Each(_) => self.inner.send(request).await,
        }
    }
}

/// Alice and her room, and bob on a way that can change, with the time stopped.
struct OnWays {
    _server: World,
    _alice: Device,
    room: Room,
    bob: Client,
    ways: Ways,
}

async fn on_ways() -> OnWays {
    on_ways_of(pair().await).await
}

async fn on_ways_of(pair: Pair) -> OnWays {
    let Pair {
        server,
        alice,
        bob,
        room,
        bobs_room,
    } = pair;
    drop(bobs_room);
    bob.events().await;
    let ways = Ways {
        inner: server.transport(),
        way: Arc::new(Mutex::new(Way::Open)),
        requests: Arc::default(),
    };
    bob.client.close().await.unwrap();
    let bob = builder(&server, &bob.disk)
        .transport(Arc::new(ways.clone()))
        .directory(bob.directory.path())
        .open()
        .await
        .unwrap();
    tokio::time::pause();
    OnWays {
        _server: server,
        _alice: alice,
        room,
        bob,
        ways,
    }
}

#[tokio::test]
async fn nw_20_a_day_offline_ends_by_itself_and_costs_little() {
    let on_ways = on_ways().await;
    let (bob, ways, room) = (&on_ways.bob, &on_ways.ways, &on_ways.room);
    let mut events = std::pin::pin!(bob.events());
    ways.take(Way::Cut);
    let began = tokio::time::Instant::now();
    let mut errors = 0;
    while began.elapsed() < 24 * HOUR {
        assert_eq!(events.next().await.unwrap().unwrap_err().code(), "unreachable");
        errors += 1;
    }
    assert!(errors <= 24 * 60 + 20, "at most about one a minute: {errors}");
    assert!(ways.requests() <= 2 * errors, "{} requests", ways.requests());
    ways.take(Way::Open);
    tokio::select! {
        event = events.next() => panic!("{event:?}"),
        () = tokio::time::sleep(HOUR) => {}
    }
    assert!(bob.orchestrator().since_last_sync().unwrap() <= Duration::from_secs(60));
    // It worked, though nobody said anything: what fails now is tried again soon.
    ways.take(Way::Cut);
    assert!(events.next().await.unwrap().is_err());
    let began = tokio::time::Instant::now();
    assert!(events.next().await.unwrap().is_err());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    room.send_text("welcome back").await.unwrap();
    ways.take(Way::Open);
    let event = events.next().await.unwrap().unwrap();
    assert!(matches!(event, Event::Message(message) if message.body() == Some("welcome back")));
}

/// The requests of an hour in which nothing is told.
async fn asked_in_an_hour(on_ways: &OnWays, way: Way) -> usize {
    on_ways.ways.take(way);
    let mut events = std::pin::pin!(on_ways.bob.events());
    tokio::select! {
        event = events.next() => panic!("{event:?}"),
        () = tokio::time::sleep(HOUR) => {}
    }
    on_ways.ways.requests()
}

#[tokio::test]
async fn answers_that_bring_nothing_but_a_new_token_are_not_asked_for_in_a_hot_loop() {
    let on_ways = on_ways().await;
    let asked = asked_in_an_hour(
        &on_ways,
        Way::Each(|_, number| {
            let body = json!({"next_batch": format!("s1-{number}"), "device_lists": 7,
                "to_device": {"events": [{"type": "m.room.encrypted", "sender": "@a:b", "content": number}]},
                "device_one_time_keys_count": {"signed_curve25519": 50}, "device_unused_fallback_key_types": ["signed_curve25519"]});
            http::Response::new(body.to_string().into())
        }),
    )
    .await;
    assert!(asked < 1500, "{asked} requests in an hour");
    assert!(asked > 30, "{asked}");
}

#[tokio::test]
async fn a_homeserver_that_forgets_each_connection_is_not_asked_in_a_hot_loop() {
    let on_ways = on_ways_of(sliding_pair().await).await;
    let asked = asked_in_an_hour(
        &on_ways,
        Way::Each(|request, number| {
            if request.uri().query().unwrap_or_default().contains("pos=") {
                let body = r#"{"errcode":"M_UNKNOWN_POS","error":"no"}"#;
                let mut refusal = http::Response::new(body.into());
                *refusal.status_mut() = http::StatusCode::BAD_REQUEST;
                return refusal;
            }
            // Something new each time.
            let name = json!({"type": "m.room.name", "state_key": "", "event_id": format!("$n{number}"), "sender": "@a:b",
                "origin_server_ts": 1, "content": {"name": "again"}});
            let body = json!({"pos": format!("{number}"), "rooms": {"!a:b": {"timeline": [name]}},
                "extensions": {"to_device": {"next_batch": "1"}}});
            http::Response::new(body.to_string().into())
        }),
    )
    .await;
    assert!(asked < 1500, "{asked} requests in an hour");
    assert!(asked > 30, "{asked}");
}

#[tokio::test]
async fn a_homeserver_that_does_not_wait_is_not_asked_in_a_hot_loop() {
    let on_ways = on_ways().await;
    let (bob, ways) = (&on_ways.bob, &on_ways.ways);
    let body = json!({"next_batch": "s1", "device_one_time_keys_count": {"signed_curve25519": 50},
                      "device_unused_fallback_key_types": ["signed_curve25519"], "rooms": {"join": {}}});
    ways.take(Way::AtOnce(body.to_string()));
    let mut events = std::pin::pin!(bob.events());
    tokio::select! {
        event = events.next() => panic!("{event:?}"),
        () = tokio::time::sleep(HOUR) => {}
    }
    let asked = ways.requests();
    assert!(asked < 300, "{asked} requests in an hour");
    assert!(asked > 30, "and it is asked: {asked}");
}

#[tokio::test]
async fn an_answer_that_repeats_its_token_is_nothing_new() {
    let on_ways = on_ways().await;
    let (bob, ways, room) = (&on_ways.bob, &on_ways.ways, &on_ways.room);
    let body = json!({"next_batch": "s1", "device_one_time_keys_count": {"signed_curve25519": 50},
        "device_unused_fallback_key_types": ["signed_curve25519"], "rooms": {"join": {room.id().as_str(): {"timeline": {"events": [
        {"type": "m.room.name", "state_key": "", "event_id": "$n", "sender": "@alice:localhost",
         "origin_server_ts": 1, "content": {"name": "again"}}]}}}}});
    ways.take(Way::AtOnce(body.to_string()));
    let mut events = std::pin::pin!(bob.events());
    tokio::select! {
        event = events.next() => panic!("{event:?}"),
        () = tokio::time::sleep(HOUR) => {}
    }
    let asked = ways.requests();
    assert!(asked < 300, "{asked} requests in an hour");
}

#[tokio::test]
async fn nw_11_a_long_poll_may_be_silent_for_as_long_as_it_was_given() {
    let Pair { server, bob, room, .. } = pair().await;
    bob.events().await;
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    assert!(bob.client.receive(Duration::from_secs(30)).await.unwrap().is_empty());
    assert!(began.elapsed() >= Duration::from_secs(30), "{:?}", began.elapsed());
    // A server that answers late, within the margin, is no timeout;
    server.fault(Fault::delay("/sync", Duration::from_secs(25)));
    room.send_text("late").await.unwrap();
    let events = bob.client.receive(Duration::from_secs(30)).await.unwrap();
    assert_eq!(bodies(&events), ["late"]);
    // and one that never answers is.
    server.fault(Fault::delay("/sync", Duration::from_secs(3600)));
    let began = tokio::time::Instant::now();
    let error = bob.client.receive(Duration::from_secs(30)).await.unwrap_err();
    assert_eq!(error.code(), "timeout");
    assert!(error.is_transient());
    assert!(began.elapsed() >= Duration::from_secs(30) && began.elapsed() <= Duration::from_secs(61));
}

#[tokio::test]
async fn nw_29_what_a_homeserver_refuses_a_sync_for_is_told_apart() {
    for (status, errcode, code, transient) in [
        (403, "M_USER_DEACTIVATED", "user_deactivated", false),
        (401, "M_USER_LOCKED", "user_locked", true),
        (403, "M_CONSENT_NOT_GIVEN", "consent_not_given", false),
        (429, "M_LIMIT_EXCEEDED", "rate_limited", true),
        (403, "M_RESOURCE_LIMIT_EXCEEDED", "resource_limit_exceeded", false),
    ] {
        let Pair { server, bob, room, .. } = pair().await;
        bob.events().await;
        let body = json!({"errcode": errcode, "error": "no", "soft_logout": true, "retry_after_ms": 7000});
        server.fault(Fault::status("/sync", status, &body.to_string()));
        let error = bob.client.receive(Duration::ZERO).await.unwrap_err();
        assert_eq!((error.code(), error.is_transient()), (code, transient), "{errcode}");
        if errcode == "M_LIMIT_EXCEEDED" {
            assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        }
        // None of them is the end of the device: what was said meanwhile is there.
        room.send_text("kept").await.unwrap();
        let bob = bob.kill_and_open().await;
        assert_eq!(bob.bodies().await, ["kept"], "{errcode}");
    }
}

#[tokio::test]
async fn a_stream_waits_as_long_as_the_homeserver_asks_for() {
    let Pair { server, bob, room, .. } = pair().await;
    bob.events().await;
    tokio::time::pause();
    let body = r#"{"errcode":"M_LIMIT_EXCEEDED","error":"slower","retry_after_ms":120000}"#;
    server.fault(Fault::status("/sync", 429, body));
    let mut events = std::pin::pin!(bob.client.events());
    room.send_text("after it").await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap_err().code(), "rate_limited");
    let began = tokio::time::Instant::now();
    assert!(events.next().await.unwrap().is_ok());
    assert!(began.elapsed() >= Duration::from_secs(120), "{:?}", began.elapsed());
}
