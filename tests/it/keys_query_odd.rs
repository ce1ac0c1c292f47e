//! Answers to `/keys/query` that are odd JSON (row KQ-35): one device is spoilt, and nothing else.

use mx_e2ee::UnusableReason;
use mx_test_homeserver::EvilPeer;
use serde_json::{Value, json};

use crate::{
    keys_cast::{Cast, rejected},
    keys_query_rejected::signed,
};

/// Bob's device as this text, which need not be good JSON beyond its braces.
async fn with_text(make: impl FnOnce(&EvilPeer) -> String) -> Cast {
    let cast = Cast::fresh().await;
    let text = make(&cast.bob);
    cast.server.rewrite("/keys/query", move |_, response| {
        let body: Value = serde_json::from_slice(response.body()).unwrap();
        let users: Vec<&String> = body["device_keys"].as_object().unwrap().keys().collect();
        if !users.iter().any(|user| *user == "@bob:localhost") {
            return response;
        }
        let alice = &body["device_keys"]["@alice:localhost"];
        let others = if alice.is_object() {
            format!(r#","@alice:localhost":{alice}"#)
        } else {
            String::new()
        };
        let answer = format!(r#"{{"device_keys":{{"@bob:localhost":{{"BDEV":{text}}}{others}}},"failures":{{}}}}"#);
        response.map(|_| answer.into())
    });
    cast
}

/// The device's keys with `field` in them before they are signed, and as a text in which it stands as `written`.
fn written(bob: &EvilPeer, field: Value, written: &str) -> String {
    let keys = signed(bob, |keys| keys["odd"] = field.clone());
    let (plain, odd) = (format!(r#""odd":{field}"#), format!(r#""odd":{written}"#));
    let text = keys.to_string();
    assert!(text.contains(&plain));
    text.replace(&plain, &odd)
}

#[tokio::test]
async fn kq_35_json_that_is_odd_spoils_its_device_and_nothing_else() {
    let deep = ["[".repeat(10_000), "]".repeat(10_000)].concat();
    for (odd, reason) in [
        (deep.as_str(), UnusableReason::Malformed),
        ("1e400", UnusableReason::Malformed),
        (r#""\ud800""#, UnusableReason::Malformed),
        ("9007199254740992", UnusableReason::BadSignature),
        ("1.5", UnusableReason::BadSignature),
    ] {
        let cast = with_text(|bob| written(bob, json!(0), odd)).await;
        let found = cast.nobody_reached().await;
        let short: String = odd.chars().take(20).collect();
        assert_eq!(found, [rejected("BDEV", reason)], "{short}");
        assert!(!cast.knows(cast.bob.user(), cast.bob.device()).await, "{short}");
    }
}

#[tokio::test]
async fn kq_35_of_two_keys_with_one_name_the_one_that_is_used_is_the_one_that_was_signed() {
    let twice = |first: bool| {
        move |bob: &EvilPeer| {
            let honest = bob.device_keys().to_string();
            let good = format!(r#""curve25519:BDEV":"{}""#, bob.curve25519().to_base64());
            let forged = format!(r#""curve25519:BDEV":"{}""#, "A".repeat(43));
            assert!(honest.contains(&good));
            let both = if first {
                format!("{good},{forged}")
            } else {
                format!("{forged},{good}")
            };
            honest.replace(&good, &both)
        }
    };
    // The last one counts, for the signature and for use alike.
    let cast = with_text(twice(true)).await;
    let found = cast.nobody_reached().await;
    assert_eq!(found, [rejected("BDEV", UnusableReason::BadSignature)]);
    let mut cast = with_text(twice(false)).await;
    let one_time_keys = cast.bob.one_time_keys(1);
    cast.bob
        .publish_keys(&json!({"device_keys": cast.bob.device_keys(), "one_time_keys": one_time_keys}));
    assert_eq!(cast.send("x").await.readable_by(), 1);
    let mut bob = cast.bob.clone();
    assert_eq!(cast.read_by(&mut bob), ["x"]);
    // A field of the object itself that stands twice is none.
    let cast = with_text(|bob| {
        bob.device_keys()
            .to_string()
            .replacen('{', r#"{"user_id":"@bob:localhost","#, 1)
    })
    .await;
    assert_eq!(
        cast.nobody_reached().await,
        [rejected("BDEV", UnusableReason::Malformed)]
    );
}
