//! Olm sessions that broke: renewed, told, and at most once an hour a device. Rows TD-36, TD-37 and KC-20.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use mx_e2ee::{Clock, Options};
use mx_test_homeserver::{EvilPeer, Fault};
use serde_json::json;

use crate::evil::{Evil, evil, text};

const HOUR_MS: u64 = 3_600_000;

struct Time(Arc<AtomicU64>);

impl Time {
    fn new() -> (Self, Options) {
        let now = Arc::new(AtomicU64::new(1_900_000_000_000));
        let read = Arc::clone(&now);
        let mut options = Options::default();
        options.clock = Clock::from_fn(move || read.load(Ordering::SeqCst));
        (Self(now), options)
    }

    fn add(&self, ms: i64) {
        self.0.fetch_add(ms.cast_unsigned(), Ordering::SeqCst);
    }
}

/// As [`evil`], under a clock of the test's.
async fn evil_at(time: Options) -> Evil {
    evil().await.kill_alice_with(time).await
}

impl Evil {
    /// A normal message on a session that alice never had.
    fn send_on_unknown_session(&mut self) {
        // Somebody else's session makes a normal message that nobody here can open.
        let mut content = json!({"algorithm": "m.olm.v1.curve25519-aes-sha2", "sender_key": self.bob.curve25519().to_base64(), "ciphertext": {}});
        let fresh = self.server.log().len();
        let mut stranger = EvilPeer::new(&self.server, &format!("stranger{fresh}"), "SDEV");
        stranger.publish();
        let mut other = EvilPeer::new(&self.server, &format!("other{fresh}"), "ODEV");
        other.publish();
        let there = stranger.olm_session_with(other.user(), other.device());
        stranger.send_olm(&there, &stranger.envelope(&there, "m.dummy", json!({})));
        other.receive();
        let back = other.newest_olm_session(stranger.user(), stranger.device()).unwrap();
        let normal = other.encrypt(&back, "nobody reads this");
        let theirs = stranger.curve25519().to_base64();
        let ours = self.alice_key();
        content["ciphertext"][ours] = normal["ciphertext"][theirs].clone();
        let (user, device) = (
            self.alice.client.user_id().to_owned(),
            self.alice.client.device_id().to_owned(),
        );
        self.bob.send_to_device(&user, &device, "m.room.encrypted", &content);
    }

    fn alice_key(&self) -> String {
        let keys = self
            .bob
            .device_keys_of(self.alice.client.user_id(), self.alice.client.device_id());
        let name = format!("curve25519:{}", self.alice.client.device_id());
        keys["keys"][name].as_str().unwrap().to_owned()
    }

    fn claims(&self) -> usize {
        self.requests("/keys/claim")
    }

    /// How many `m.dummy` bob has been sent since last time.
    fn dummies(&mut self) -> usize {
        let received = self.bob.receive();
        let dummy = |payload: &serde_json::Value| payload["type"] == "m.dummy";
        received
            .iter()
            .filter(|event| event.payload.as_ref().is_some_and(dummy))
            .count()
    }
}

#[tokio::test]
async fn td_36_a_wedged_session_is_renewed_and_the_other_side_is_told() {
    let (_, options) = Time::new();
    let mut evil = evil_at(options).await;
    evil.bodies().await;
    let claims = evil.claims();
    evil.send_on_unknown_session();
    let summary = evil
        .alice
        .client
        .orchestrator()
        .sync(std::time::Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(summary.to_device_rejected, 1);
    assert_eq!(summary.rejected[0].reason.code(), "undecryptable");
    assert_eq!(evil.claims(), claims + 1, "one new session");
    assert_eq!(evil.dummies(), 1, "and he is told on it");
    // He can give keys again, on the session that he was given.
    let (user, device) = (
        evil.alice.client.user_id().to_owned(),
        evil.alice.client.device_id().to_owned(),
    );
    evil.olm = evil.bob.newest_olm_session(&user, &device).unwrap();
    let mut session = evil.session();
    let content = session.encrypt(text(&session, "healed"));
    evil.put(&content);
    assert_eq!(evil.bodies().await, ["healed"]);
}

#[tokio::test]
async fn td_36_one_session_an_hour_also_across_restarts() {
    let (time, options) = Time::new();
    let mut evil = evil_at(options.clone()).await;
    evil.bodies().await;
    evil.send_on_unknown_session();
    evil.bodies().await;
    assert_eq!(evil.dummies(), 1);
    let claims = evil.claims();
    for _ in 0..5 {
        time.add(10 * 60_000);
        evil.send_on_unknown_session();
        evil.bodies().await;
        evil = evil.kill_alice_with(options.clone()).await;
        evil.bodies().await;
    }
    assert_eq!((evil.claims(), evil.dummies()), (claims, 0), "fifty minutes");
    time.add(11 * 60_000);
    evil.bodies().await;
    assert_eq!(
        (evil.claims(), evil.dummies()),
        (claims + 1, 1),
        "what was not mended is tried again after an hour"
    );
}

#[tokio::test]
async fn td_36_a_repair_that_a_crash_interrupts_is_finished() {
    for path in ["/keys/claim", "/sendToDevice/"] {
        let (time, options) = Time::new();
        let mut evil = evil_at(options.clone()).await;
        evil.bodies().await;
        evil.send_on_unknown_session();
        evil.server.fault(Fault::drop_before(path).times(50));
        evil.bodies().await;
        assert_eq!(evil.dummies(), 0);
        evil = evil.kill_alice_with(options).await;
        evil.server.behave();
        time.add(6 * 60_000);
        evil.bodies().await;
        assert_eq!(evil.dummies(), 1, "{path}");
    }
}

#[tokio::test]
async fn td_37_a_clock_that_jumps_makes_no_loop() {
    const YEAR_MS: i64 = 365 * 24 * 3_600_000;
    for jump in [-YEAR_MS, YEAR_MS] {
        let (time, options) = Time::new();
        let mut evil = evil_at(options).await;
        evil.bodies().await;
        evil.send_on_unknown_session();
        evil.bodies().await;
        let claims = evil.claims();
        time.add(jump);
        for _ in 0..5 {
            evil.send_on_unknown_session();
            evil.bodies().await;
        }
        assert!(evil.claims() <= claims + 1, "one for the jump at most");
        time.add(i64::try_from(HOUR_MS).unwrap() + 1);
        evil.send_on_unknown_session();
        evil.bodies().await;
        assert!((claims + 1..=claims + 2).contains(&evil.claims()), "and it goes on");
    }
}

#[tokio::test]
async fn kc_20_a_peer_who_wedges_without_end_gets_one_session_an_hour() {
    let (time, options) = Time::new();
    let mut evil = evil_at(options).await;
    evil.bodies().await;
    let claims = evil.claims();
    for _ in 0..24 {
        time.add(i64::try_from(HOUR_MS / 4).unwrap());
        evil.send_on_unknown_session();
        evil.bodies().await;
    }
    let made = evil.claims() - claims;
    assert!((1..=7).contains(&made), "{made} in six hours");
}

#[tokio::test]
async fn td_32_a_replayed_message_is_no_wedge() {
    let mut evil = evil().await;
    evil.bodies().await;
    let envelope = evil.bob.envelope(&evil.olm, "m.dummy", json!({}));
    let content = evil.bob.encrypt(&evil.olm, envelope.to_value().to_string());
    let (user, device) = (
        evil.alice.client.user_id().to_owned(),
        evil.alice.client.device_id().to_owned(),
    );
    evil.bob.send_to_device(&user, &device, "m.room.encrypted", &content);
    evil.bodies().await;
    let claims = evil.claims();
    // Again, in another sync; and twice in one.
    for _ in 0..3 {
        evil.bob.send_to_device(&user, &device, "m.room.encrypted", &content);
    }
    let summary = evil
        .alice
        .client
        .orchestrator()
        .sync(std::time::Duration::ZERO)
        .await
        .unwrap();
    let codes: Vec<_> = summary.rejected.iter().map(|rejected| rejected.reason.code()).collect();
    assert_eq!(codes, ["replay", "replay", "replay"]);
    evil.bodies().await;
    assert_eq!((evil.claims(), evil.dummies()), (claims, 0));
}

#[tokio::test]
async fn td_36_strangers_do_not_keep_a_member_from_being_helped() {
    let mut evil = evil().await;
    evil.bodies().await;
    let mallory = EvilPeer::new(&evil.server, "mallory", "MDEV");
    let ours = evil.alice_key();
    let message = [&[3, 0x0a, 32][..], &[9; 32], &[0x10, 0, 0x22, 16], &[1; 16], &[0; 8]].concat();
    let body = vodozemac::base64_encode(message);
    let event = |number: u8| {
        let key = vodozemac::base64_encode([&[100 + number; 31][..], &[0]].concat());
        json!({"type": "m.room.encrypted", "sender": mallory.user(), "content": {
            "algorithm": "m.olm.v1.curve25519-aes-sha2", "sender_key": key,
            "ciphertext": {&ours: {"type": 1, "body": &body}}}})
    };
    let (user, device) = (
        evil.alice.client.user_id().to_owned(),
        evil.alice.client.device_id().to_owned(),
    );
    evil.server
        .queue_to_device(&user, &device, (0..60).map(event).collect());
    evil.bodies().await;
    let claims = evil.claims();
    evil.send_on_unknown_session();
    evil.bodies().await;
    assert_eq!((evil.claims(), evil.dummies()), (claims + 1, 1));
}
