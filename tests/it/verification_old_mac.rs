//! Libolm's old MAC (`hkdf-hmac-sha256`, whose base64 is wrong): spoken with a peer that offers nothing else.

use std::time::Duration;

use ruma::MilliSecondsSinceUnixEpoch;
use serde_json::{Value, json};
use vodozemac::{Curve25519PublicKey, sas::Sas};

use crate::{
    evil::{Evil, evil},
    verification_cast::{ended, is_done, settle, with},
};

const FLOW: &str = "old-mac";

impl Evil {
    async fn say_to_alice(&mut self, kind: &str, mut content: Value) {
        content["transaction_id"] = FLOW.into();
        let alice = (
            self.alice.client.user_id().to_owned(),
            self.alice.client.device_id().to_owned(),
        );
        self.bob
            .send_to_device(&alice.0, &alice.1, &format!("m.key.verification.{kind}"), &content);
        self.alice.client.orchestrator().sync(Duration::ZERO).await.unwrap();
        settle(&[&self.alice]).await;
    }

    /// What alice said last of this kind.
    fn heard(&self, kind: &str) -> Value {
        let events = self.server.to_device_of(self.bob.user(), self.bob.device());
        let kind = format!("m.key.verification.{kind}");
        let found = events.iter().rev().find(|event| event["type"] == *kind);
        found.unwrap_or_else(|| unreachable!("{kind}: {events:?}"))["content"].clone()
    }
}

/// All that an old peer knows.
fn start(evil: &Evil) -> Value {
    json!({
        "from_device": evil.bob.device(),
        "method": "m.sas.v1",
        "key_agreement_protocols": ["curve25519-hkdf-sha256"],
        "hashes": ["sha256"],
        "message_authentication_codes": ["hkdf-hmac-sha256"],
        "short_authentication_string": ["decimal", "emoji"],
    })
}

#[tokio::test]
async fn a_peer_that_knows_libolms_old_mac_only_is_verified_by_it() {
    for honest in [true, false] {
        let mut evil = evil().await;
        let (own, device) = (
            evil.alice.client.user_id().to_owned(),
            evil.alice.client.device_id().to_owned(),
        );
        let (peer, peers) = (evil.bob.user().to_owned(), evil.bob.device().to_owned());
        let now = MilliSecondsSinceUnixEpoch::now();
        let request = json!({"from_device": peers, "methods": ["m.sas.v1"], "timestamp": now});
        evil.say_to_alice("request", request).await;
        let id = with(&evil.alice, &peer);
        evil.alice.client.orchestrator().accept_verification(&id).await.unwrap();
        settle(&[&evil.alice]).await;
        evil.heard("ready");
        let start = start(&evil);
        evil.say_to_alice("start", start).await;
        assert_eq!(evil.heard("accept")["message_authentication_code"], "hkdf-hmac-sha256");
        let sas = Sas::new();
        let key = sas.public_key().to_base64();
        evil.say_to_alice("key", json!({"key": key})).await;
        let theirs = Curve25519PublicKey::from_base64(evil.heard("key")["key"].as_str().unwrap()).unwrap();
        let sas = sas.diffie_hellman(theirs).unwrap();
        evil.alice
            .client
            .orchestrator()
            .confirm_verification(&id)
            .await
            .unwrap();
        settle(&[&evil.alice]).await;

        // Hers is of the old kind,
        let fingerprint = evil.bob.device_keys_of(&own, &device)["keys"][format!("ed25519:{device}")]
            .as_str()
            .unwrap()
            .to_owned();
        let info = format!("MATRIX_KEY_VERIFICATION_MAC{own}{device}{peer}{peers}{FLOW}");
        let expected = sas.calculate_mac_invalid_base64(&fingerprint, &format!("{info}ed25519:{device}"));
        assert_eq!(evil.heard("mac")["mac"][format!("ed25519:{device}")], expected);
        // and so is ours, of the key that she knows or of another one.
        let info = format!("MATRIX_KEY_VERIFICATION_MAC{peer}{peers}{own}{device}{FLOW}");
        let name = format!("ed25519:{peers}");
        let key = if honest {
            evil.bob.ed25519().to_base64()
        } else {
            fingerprint
        };
        let mac = sas.calculate_mac_invalid_base64(&key, &format!("{info}{name}"));
        let keys = sas.calculate_mac_invalid_base64(&name, &format!("{info}KEY_IDS"));
        evil.say_to_alice("mac", json!({"mac": {name: mac}, "keys": keys}))
            .await;
        if honest {
            evil.say_to_alice("done", json!({})).await;
        }
        let verified = is_done(&evil.alice, &id)
            || ended(&evil.alice)
                .await
                .iter()
                .any(|end| matches!(end.outcome, mx_e2ee::VerificationOutcome::Done { .. }));
        assert_eq!(verified, honest);
    }
}
