//! The semantics that an encrypted client notices, at the brain.

use bytes::Bytes;
use ruma::{OwnedUserId, device_id};
use serde_json::{Value, json};

use crate::{Fault, Homeserver};

/// Somebody who is logged in.
struct Caller {
    server: Homeserver,
    token: String,
    user: OwnedUserId,
}

impl Caller {
    fn new(server: &Homeserver, name: &str) -> Self {
        let user = server.register(name, "password");
        Self {
            server: server.clone(),
            token: server.token(&user, "DEVICE"),
            user,
        }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://localhost/_matrix/client/v3{path}"))
            .header("authorization", format!("Bearer {}", self.token))
            .body(Bytes::from(body.to_string()))
            .unwrap();
        let answer = self.server.handle(&request);
        (
            answer.status().as_u16(),
            serde_json::from_slice(answer.body()).unwrap_or_default(),
        )
    }

    fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, path, &body);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    fn sync(&self, since: Option<&str>) -> Value {
        let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
        self.ok("GET", &format!("/sync?timeout=0{since}"), json!({}))
    }

    fn upload(&self, id: &str, key: &str) -> (u16, Value) {
        self.ask(
            "POST",
            "/keys/upload",
            &json!({"one_time_keys": {format!("signed_curve25519:{id}"): {"key": key}}}),
        )
    }

    fn claim(&self, of: &Self) -> Value {
        let wanted = json!({"one_time_keys": {of.user.as_str(): {"DEVICE": "signed_curve25519"}}});
        self.ok("POST", "/keys/claim", wanted)["one_time_keys"][of.user.as_str()]["DEVICE"].clone()
    }

    fn room_with(&self, other: &Self) -> String {
        let encryption = json!({"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}});
        let made = self.ok(
            "POST",
            "/createRoom",
            json!({"invite": [other.user], "initial_state": [encryption]}),
        );
        let room = made["room_id"].as_str().unwrap().to_owned();
        other.ok("POST", &format!("/join/{room}"), json!({}));
        room
    }
}

fn two() -> (Homeserver, Caller, Caller) {
    let server = Homeserver::new();
    let (alice, bob) = (Caller::new(&server, "alice"), Caller::new(&server, "bob"));
    (server, alice, bob)
}

#[test]
fn one_time_keys_go_in_order_and_the_fallback_key_stays() {
    let (_, alice, bob) = two();
    for id in ["B", "A"] {
        assert_eq!(bob.upload(id, id).0, 200);
    }
    bob.ok(
        "POST",
        "/keys/upload",
        json!({"fallback_keys": {"signed_curve25519:F": {"key": "f"}}}),
    );
    let unused = bob.sync(None);
    assert_eq!(unused["device_one_time_keys_count"]["signed_curve25519"], 2);
    assert_eq!(unused["device_unused_fallback_key_types"], json!(["signed_curve25519"]));
    for id in ["B", "A", "F", "F"] {
        assert!(alice.claim(&bob)[format!("signed_curve25519:{id}")].is_object(), "{id}");
    }
    let used = bob.sync(None);
    assert_eq!(
        used["device_one_time_keys_count"]["signed_curve25519"], 0,
        "named although there is none"
    );
    assert_eq!(used["device_unused_fallback_key_types"], json!([]));
}

#[test]
fn a_one_time_key_may_be_uploaded_again_and_not_changed() {
    let (_, alice, bob) = two();
    assert_eq!(bob.upload("A", "one").0, 200);
    assert_eq!(bob.upload("A", "one").0, 200);
    let (status, answer) = bob.upload("A", "two");
    assert_eq!((status, &answer["errcode"]), (400, &json!("M_UNKNOWN")));
    assert!(answer["error"].as_str().unwrap().contains("already exists"));
    assert_eq!(alice.claim(&alice), Value::Null, "none is no error");
}

#[test]
fn to_device_events_come_in_pages_and_go_when_their_token_comes_back() {
    let (server, alice, bob) = two();
    let start = bob.sync(None)["next_batch"].as_str().unwrap().to_owned();
    for number in 0..150 {
        let body = json!({"messages": {bob.user.as_str(): {"DEVICE": {"n": number}}}});
        for _again in 0..2 {
            alice.ok("PUT", &format!("/sendToDevice/m.test/{number}"), body.clone());
        }
    }
    let numbers = |answer: &Value| -> Vec<u64> {
        answer["to_device"]["events"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|event| event["content"]["n"].as_u64().unwrap())
            .collect()
    };
    let first = bob.sync(Some(&start));
    assert_eq!(numbers(&first), (0..100).collect::<Vec<_>>(), "each transaction once");
    assert_eq!(
        numbers(&bob.sync(Some(&start))),
        numbers(&first),
        "the token did not come back"
    );
    let second = bob.sync(first["next_batch"].as_str());
    assert_eq!(numbers(&second), (100..150).collect::<Vec<_>>());
    assert_eq!(server.to_device_of(&bob.user, device_id!("DEVICE")).len(), 50);
    assert!(
        bob.sync(second["next_batch"].as_str()).get("to_device").is_none(),
        "empty sections are left out"
    );
}

#[test]
fn a_transaction_id_is_taken_once() {
    let (server, alice, bob) = two();
    let room = alice.room_with(&bob);
    let path = format!("/rooms/{room}/send/m.room.message/txn");
    let first = alice.ok("PUT", &path, json!({"body": "x"}));
    assert_eq!(alice.ok("PUT", &path, json!({"body": "x"})), first);
    let room = ruma::RoomId::parse(room).unwrap();
    assert_eq!(
        server
            .timeline(&room)
            .iter()
            .filter(|event| event["type"] == "m.room.message")
            .count(),
        1
    );
}

#[test]
fn device_lists_name_who_shares_an_encrypted_room() {
    let (server, alice, bob) = two();
    let carol = Caller::new(&server, "carol");
    alice.room_with(&bob);
    let since = alice.sync(None)["next_batch"].as_str().unwrap().to_owned();
    for caller in [&bob, &carol] {
        caller.ok(
            "POST",
            "/keys/upload",
            json!({"device_keys": {"keys": {"a": caller.user}}}),
        );
    }
    let answer = alice.sync(Some(&since));
    assert_eq!(answer["device_lists"]["changed"], json!([bob.user]));
    assert!(answer.get("rooms").is_none());
}

#[test]
fn strangers_see_nothing_and_tokens_expire() {
    let (server, alice, bob) = two();
    let carol = Caller::new(&server, "carol");
    let room = alice.room_with(&bob);
    for path in ["state/m.room.encryption", "members", "joined_members", "messages?dir=b"] {
        assert_eq!(
            carol.ask("GET", &format!("/rooms/{room}/{path}"), &json!({})).0,
            403,
            "{path}"
        );
        assert_eq!(
            carol
                .ask("GET", &format!("/rooms/!none:localhost/{path}"), &json!({}))
                .0,
            403
        );
    }
    assert_eq!(
        alice
            .ask("GET", &format!("/rooms/{room}/state/m.room.topic"), &json!({}))
            .0,
        404
    );
    let large = json!({"body": "x".repeat(65_000)});
    assert_eq!(
        alice
            .ask("PUT", &format!("/rooms/{room}/send/m.room.message/1"), &large)
            .1["errcode"],
        "M_TOO_LARGE"
    );
    server.expire_token(&alice.user, device_id!("DEVICE"), true);
    let (status, answer) = alice.ask("GET", "/account/whoami", &json!({}));
    assert_eq!(
        (status, &answer["errcode"], &answer["soft_logout"]),
        (401, &json!("M_UNKNOWN_TOKEN"), &json!(true))
    );
    assert_eq!(bob.ask("GET", "/nonsense", &json!({})).1["errcode"], "M_UNRECOGNIZED");
}

#[test]
fn what_is_no_request_of_its_endpoint_is_refused() {
    let (_, alice, _) = two();
    for (method, path, body) in [
        ("POST", "/keys/claim", json!({"one_time_keys": 7})),
        ("POST", "/keys/query", json!({"device_keys": {"no user id": []}})),
        ("POST", "/login", json!({"type": 7})),
        ("PUT", "/rooms/no-room-id/send/m.room.message/1", json!({})),
    ] {
        let (status, answer) = alice.ask(method, path, &body);
        assert_eq!((status, &answer["errcode"]), (400, &json!("M_BAD_JSON")), "{path}");
    }
}

#[test]
fn a_filter_limits_the_timeline_and_members_come_lazily() {
    let (_, alice, bob) = two();
    let room = alice.room_with(&bob);
    for number in 0..5 {
        alice.ok(
            "PUT",
            &format!("/rooms/{room}/send/m.room.message/{number}"),
            json!({"n": number}),
        );
    }
    let filter = json!({"room": {"timeline": {"limit": 2}, "state": {"lazy_load_members": true}}});
    let id = alice.ok("POST", "/user/@alice:localhost/filter", filter)["filter_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let answer = alice.ok("GET", &format!("/sync?filter={id}"), json!({}));
    let joined = &answer["rooms"]["join"][&room];
    assert_eq!(joined["timeline"]["events"].as_array().unwrap().len(), 2);
    assert_eq!(joined["timeline"]["limited"], true);
    let members: Vec<&Value> = joined["state"]["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["type"] == "m.room.member")
        .collect();
    assert_eq!(members.len(), 1, "bob has not spoken");
}

#[test]
fn the_log_shows_everything_but_secrets() {
    let (server, alice, _) = two();
    let body = json!({"type": "m.login.password", "user": "alice", "password": "password"});
    alice.ok("POST", "/login", body);
    server.fault(Fault::drop_before("/whoami"));
    alice
        .ask("GET", "/account/whoami", &json!({}))
        .0
        .checked_sub(502)
        .unwrap();
    let log = server.log();
    assert_eq!(log[0].request_body["password"], "<hidden>");
    assert_eq!(log[0].response_body["access_token"], "<hidden>");
    assert_eq!(
        (log[1].status, log[1].user.as_deref()),
        (None, Some(alice.user.as_str()))
    );
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_comes_on_tokios_clock_and_not_after_the_deadline() {
    let (server, alice, _) = two();
    let minute = std::time::Duration::from_secs(60);
    let request = |deadline: std::time::Duration| {
        let mut request = http::Request::post("http://localhost/_matrix/client/v3/createRoom")
            .header("authorization", format!("Bearer {}", alice.token))
            .body(Bytes::from_static(b"{}"))
            .unwrap();
        request.extensions_mut().insert(mx_transport::Deadline(deadline));
        request
    };
    server.fault(Fault::delay("/createRoom", minute).times(2));
    let before = tokio::time::Instant::now();
    let answer = server.transport().send(request(minute * 2)).await.unwrap();
    assert_eq!((answer.status().as_u16(), before.elapsed().as_secs()), (200, 60));
    let error = server.transport().send(request(minute / 2)).await.unwrap_err();
    assert_eq!(
        (error.kind(), before.elapsed().as_secs()),
        (
            mx_transport::TransportErrorKind::Timeout(mx_transport::Phase::Total),
            90
        )
    );
    let joined = alice.ok("GET", "/joined_rooms", json!({}));
    assert_eq!(
        joined["joined_rooms"].as_array().unwrap().len(),
        2,
        "both were processed"
    );
}

#[test]
fn a_repeated_request_is_processed_twice() {
    let (server, alice, bob) = two();
    bob.upload("A", "one");
    bob.upload("B", "two");
    server.fault(Fault::duplicate("/keys/claim"));
    assert!(
        alice.claim(&bob)["signed_curve25519:B"].is_object(),
        "the second answer arrives"
    );
    assert_eq!(server.one_time_keys_left(&bob.user, device_id!("DEVICE")), 0);
    assert_eq!(
        server.log().len() as u64,
        server.requests(),
        "the log shows what was sent"
    );
}

/// Longer than any answer that does not wait takes.
const A_WHILE: std::time::Duration = std::time::Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_over_a_socket_waits_for_news_unless_that_is_forbidden() {
    let server = Homeserver::new();
    let alice = Caller::new(&server, "alice");
    let listening = server.listen().await;
    let transport = std::sync::Arc::new(mx_transport::ReqwestTransport::builder().build().unwrap());
    let client = mx_transport::Homeserver::new(&listening.uri(), transport).unwrap();
    client.set_access_token(mx_transport::AccessToken::new(alice.token.clone()).unwrap());
    let sync = |since: Option<String>| {
        let mut request = ruma::api::client::sync::sync_events::v3::Request::new();
        request.timeout = Some(std::time::Duration::from_secs(30));
        request.since = since;
        let client = client.clone();
        tokio::spawn(async move { client.send(request).await.unwrap() })
    };
    let first = sync(None).await.unwrap();
    let waiting = sync(Some(first.next_batch.clone()));
    tokio::time::sleep(A_WHILE).await;
    assert!(!waiting.is_finished(), "there is nothing new");
    let event = json!({"type": "m.test", "sender": alice.user, "content": {}});
    server.queue_to_device(&alice.user, device_id!("DEVICE"), vec![event]);
    assert_eq!(waiting.await.unwrap().to_device.events.len(), 1);

    server.wait_at_most(std::time::Duration::ZERO);
    let news = sync(Some(first.next_batch)).await.unwrap();
    let nothing = sync(Some(news.next_batch)).await.unwrap();
    assert!(nothing.to_device.events.is_empty());
}
