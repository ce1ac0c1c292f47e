//! Odd contents arrive as they were sent, and what is no content is nobody's text. Rows LM of the catalogue.

use mx_e2ee::{Event, Message, UndecryptableReason};
use ruma::canonical_json::to_canonical_value;
use serde_json::{Value, json};

use crate::{
    evil::{Evil, evil, messages},
    world::{Pair, pair},
};

/// Send these contents, and receive as many.
async fn through(pair: &Pair, contents: &[Value]) -> Vec<Message> {
    let mut received = Vec::new();
    for some in contents.chunks(10) {
        for content in some {
            pair.room.send("m.room.message", content.clone()).await.unwrap();
        }
        received.extend(pair.bob.messages().await);
    }
    assert_eq!(received.len(), contents.len());
    received
}

fn text(body: &str) -> Value {
    json!({"msgtype": "m.text", "body": body})
}

#[tokio::test]
async fn lm_01_every_character_arrives_as_it_was_sent() {
    let pair = pair().await;
    let mut bodies: Vec<String> = [
        "",
        " ",
        "\u{0}",
        "a\u{0}b",
        "\u{e9} e\u{301}",
        "\u{212b} \u{c5} A\u{30a}",
        "👩\u{200d}👩\u{200d}👧 🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
        "\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}",
        "\u{feff}\u{fffe}\u{ffff}\u{fdd0}\u{10ffff}",
        "\r\n\t\u{b}\u{c}\u{1b}[0m\u{7f}\u{85}\u{2028}\u{2029}",
        "\"\\/\u{8}",
        r"\u0000 \ud800 %00 &amp; <b>",
    ]
    .map(str::to_owned)
    .to_vec();
    // All that two bytes of UTF-16 can say, and each sixteenth beyond, in pieces that an event can carry.
    let all: Vec<char> = ('\0'..='\u{ffff}')
        .chain(('\u{10000}'..=char::MAX).step_by(16))
        .collect();
    bodies.extend(all.chunks(10_000).map(|piece| piece.iter().collect()));
    let contents: Vec<Value> = bodies.iter().map(|body| text(body)).collect();
    let received = through(&pair, &contents).await;
    for ((message, content), body) in received.iter().zip(&contents).zip(&bodies) {
        assert!(
            message.content == *content && message.body() == Some(body),
            "{:?}",
            body.chars().next()
        );
    }
}

/// What alice makes of a payload of bob's.
async fn payload(evil: &mut Evil, payload: &str) -> Vec<Event> {
    let mut session = evil.session();
    let content = session.encrypt(payload.replace("ROOM", evil.room.id().as_str()));
    // Past the homeserver's limit for the size of an event.
    evil.server
        .inject(evil.room.id(), evil.bob.user(), "m.room.encrypted", content);
    evil.alice.events().await
}

fn is_bad_payload(events: &[Event]) -> bool {
    matches!(events, [Event::Undecryptable(event)] if event.reason == UndecryptableReason::BadPayload)
}

#[tokio::test]
async fn lm_03_a_lone_surrogate_is_no_text_and_no_character_takes_its_place() {
    let mut evil = evil().await;
    for body in [r"\ud800", r"\udc00", r"a\ud83dz", r"\ude00\ud83d"] {
        for field in [format!(r#""body":"{body}""#), format!(r#""body":"x","{body}":1"#)] {
            let text =
                format!(r#"{{"room_id":"ROOM","type":"m.room.message","content":{{"msgtype":"m.text",{field}}}}}"#);
            let events = payload(&mut evil, &text).await;
            assert!(is_bad_payload(&events), "{field}: {events:?}");
        }
    }
    let pair = r#"{"room_id":"ROOM","type":"m.room.message","content":{"msgtype":"m.text","body":"\ud83d\ude00"}}"#;
    let events = payload(&mut evil, pair).await;
    assert_eq!(messages(&events)[0].body(), Some("😀"));
}

/// Python's `json.dumps(sort_keys=True, separators=(",", ":"), ensure_ascii=False)` of each text, with the specification's
/// rules for numbers; nothing where it has no canonical form.
fn golden() -> Vec<(String, Option<String>)> {
    serde_json::from_str(include_str!("content/canonical.json")).unwrap()
}

#[tokio::test]
async fn lm_06_canonical_json_is_pythons_and_what_has_none_is_not_sent() {
    let pair = pair().await;
    let golden = golden();
    assert!(golden.len() > 50);
    for (given, canonical) in &golden {
        let read: Option<Value> = serde_json::from_str(given).ok();
        let ours = read.clone().and_then(|value| to_canonical_value(value).ok());
        assert_eq!(
            ours.map(|value| value.to_string()).as_ref(),
            canonical.as_ref(),
            "{given}"
        );
        // What is sent follows the same rule.
        let Some(value) = read else { continue };
        let content = json!({"msgtype": "m.text", "body": "x", "more": value});
        let sent = pair.room.send("m.room.message", content.clone()).await;
        match canonical {
            Some(_) => {
                sent.unwrap();
                let received = pair.bob.messages().await;
                assert_eq!(received[0].content, content, "{given}");
            }
            None => {
                assert_eq!(sent.unwrap_err().code(), "bad_content", "{given}");
                assert!(pair.bob.messages().await.is_empty(), "{given}");
            }
        }
    }
}

#[tokio::test]
async fn lm_07_names_that_are_special_elsewhere_are_plain_data() {
    let pair = pair().await;
    let mut content = text("x");
    for name in [
        "__proto__",
        "constructor",
        "toString",
        "prototype",
        "hasOwnProperty",
        "$__toString",
        "",
    ] {
        content[name] = json!({name: {"polluted": true}});
    }
    let received = through(&pair, &[content.clone(), json!({"__proto__": null}), text("__proto__")]).await;
    assert_eq!(received[0].content, content);
    assert_eq!(
        (&received[1].content, received[1].body()),
        (&json!({"__proto__": null}), None)
    );
    assert_eq!(received[2].body(), Some("__proto__"));
    let typed = pair.room.send("__proto__", json!({"constructor": 1})).await.unwrap();
    let received = pair.bob.messages().await;
    assert_eq!(
        (&received[0].event_id, received[0].event_type.as_str()),
        (&typed.event_id, "__proto__")
    );
}

/// The engine reads what it decrypts and writes it anew: of two values of one name the last one is left, for what is checked
/// and for what is delivered alike.
#[tokio::test]
async fn lm_08_of_two_values_of_one_name_the_last_is_checked_and_delivered() {
    let mut evil = evil().await;
    for (text, content) in [
        (
            r#"{"room_id":"ROOM","type":"m.room.message","content":{"body":"one","body":"two"}}"#,
            json!({"body": "two"}),
        ),
        (
            r#"{"room_id":"ROOM","type":"m.room.message","content":{"body":"one","\u0062ody":"two"}}"#,
            json!({"body": "two"}),
        ),
        (
            r#"{"room_id":"ROOM","type":"m.room.message","content":{"body":"one"},"content":{"x":[{"a":1,"a":2}]}}"#,
            json!({"x": [{"a": 2}]}),
        ),
        (
            r#"{"room_id":"!other:localhost","type":"m.room.message","content":{"body":"x"},"room_id":"ROOM"}"#,
            json!({"body": "x"}),
        ),
    ] {
        let events = payload(&mut evil, text).await;
        let [Event::Message(message)] = &events[..] else {
            panic!("{text}: {events:?}")
        };
        assert_eq!(message.content, content, "{text}");
    }
    for text in [
        r#"{"room_id":"ROOM","type":"m.room.message","content":{"body":"x"},"room_id":"!other:localhost"}"#,
        r#"{"room_id":"ROOM","type":"m.room.message","content":{"body":"x"},"type":"m.room.encrypted"}"#,
        r#"{"room_id":"ROOM","type":"m.room.message","content":{"body":"x"},"type":"m.room.name"}"#,
    ] {
        let events = payload(&mut evil, text).await;
        assert!(events.len() == 1 && messages(&events).is_empty(), "{text}: {events:?}");
    }
}

#[tokio::test]
async fn lm_08_of_two_keys_of_one_name_the_one_that_is_verified_is_the_one_that_is_used() {
    let twice = |pair: &Pair, forged_last: bool| {
        let device = pair.bob.client.device_id().to_string();
        pair.server.rewrite("/keys/query", move |_, response| {
            let name = format!("\"curve25519:{device}\":");
            let body = String::from_utf8(response.body().to_vec()).unwrap();
            let forged = format!("{name}\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"");
            let Some(at) = body.find(&name) else { return response };
            let end = at + body[at..].find(['}', ',']).unwrap();
            let genuine = body[at..end].to_owned();
            let both = if forged_last {
                format!("{genuine},{forged}")
            } else {
                format!("{forged},{genuine}")
            };
            response.map(|_| body.replace(&genuine, &both).into())
        });
    };
    let good = pair().await;
    twice(&good, false);
    good.room.send_text("x").await.unwrap();
    assert_eq!(good.bob.bodies().await, ["x"]);
    let bad = pair().await;
    twice(&bad, true);
    assert_eq!(
        bad.room.send_text("x").await.unwrap_err().code(),
        "no_usable_recipients"
    );
    assert!(bad.bob.bodies().await.is_empty());
}

#[tokio::test]
async fn lm_09_what_nests_too_deep_is_no_event() {
    let mut evil = evil().await;
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"room_id":"ROOM","type":"m.room.message","content":{{"body":"deep","x":{open}{close}}}}}"#)
    };
    assert_eq!(
        messages(&payload(&mut evil, &nested(100)).await)[0].body(),
        Some("deep")
    );
    for depth in [128, 10_000, 1_000_000] {
        assert!(is_bad_payload(&payload(&mut evil, &nested(depth)).await), "{depth}");
    }
}

#[tokio::test]
async fn lm_09_what_is_wide_is_an_event() {
    let mut evil = evil().await;
    let ones = "1,".repeat(999_999);
    let wide = format!(r#"{{"room_id":"ROOM","type":"m.room.message","content":{{"body":"wide","x":[{ones}1]}}}}"#);
    let events = payload(&mut evil, &wide).await;
    assert_eq!(messages(&events)[0].content["x"].as_array().unwrap().len(), 1_000_000);
}

#[tokio::test]
async fn lm_09_what_is_long_is_an_event() {
    let mut evil = evil().await;
    let long = "x".repeat(10 * 1024 * 1024);
    let long = format!(r#"{{"room_id":"ROOM","type":"m.room.message","content":{{"body":"{long}"}}}}"#);
    let events = payload(&mut evil, &long).await;
    assert_eq!(messages(&events)[0].body().unwrap().len(), 10 * 1024 * 1024);
}

#[tokio::test]
async fn lm_16_a_content_without_a_text_is_delivered_as_it_is() {
    let pair = pair().await;
    let contents = [
        json!({}),
        json!({"msgtype": "m.text"}),
        json!({"body": 7, "msgtype": "m.text"}),
        json!({"body": null}),
        json!({"body": ["x"], "msgtype": {}}),
        json!({"body": {"body": "x"}}),
    ];
    let received = through(&pair, &contents).await;
    for (message, content) in received.iter().zip(&contents) {
        assert_eq!((&message.content, message.body()), (content, None));
    }
    let received = through(&pair, &[json!({"body": "a text all the same"})]).await;
    assert_eq!(received[0].body(), Some("a text all the same"));
}
