//! Secret storage: read by every client, and what a hostile homeserver makes of it.

use matrix_sdk_crypto::secret_storage::{AesHmacSha2EncryptedData, SecretStorageKey};
use mx_e2ee::IdentityStanding;
use mx_test_homeserver::EvilPeer;
use ruma::events::{
    EventContentFromType, secret::request::SecretName, secret_storage::key::SecretStorageKeyEventContent,
};
use serde_json::{Value, json};

use crate::{
    identity::{SECRETS, second, set_up, standing},
    world::{Device, World},
};

/// The storage of a user, as the homeserver may show it.
struct Storage {
    server: World,
    other: Device,
    key: String,
    key_type: String,
}

async fn storage() -> Storage {
    let server = World::new();
    let alice = Device::new(&server, "alice").await;
    let key = set_up(&alice.client).await.recovery_key.unwrap().to_string();
    let user = alice.client.user_id();
    let default = server.account_data_of(user, "m.secret_storage.default_key").unwrap();
    let key_type = format!("m.secret_storage.key.{}", default["key"].as_str().unwrap());
    Storage {
        other: second(&server, "alice").await,
        server,
        key,
        key_type,
    }
}

impl Storage {
    fn change(&self, kind: &str, change: impl FnOnce(&mut Value)) {
        let user = self.other.client.user_id();
        let mut content = self.server.account_data_of(user, kind).unwrap();
        change(&mut content);
        self.server.set_account_data(user, kind, content);
    }

    async fn refused(&self) -> &'static str {
        let error = self.other.client.recover_identity(&self.key).await.unwrap_err();
        self.server.examine(&error);
        assert_eq!(standing(&self.other.client).await, IdentityStanding::Unverified);
        assert_eq!(
            self.other
                .client
                .identity_status()
                .await
                .unwrap()
                .private_keys_missing
                .len(),
            3
        );
        error.code()
    }
}

/// So many rounds would take longer than any test may.
#[tokio::test]
async fn hostile_rounds_of_a_secret_storage_are_refused_before_any_work() {
    for rounds in [0_u64, 5_000_001, 4_294_967_295, 9_007_199_254_740_991] {
        let storage = storage().await;
        storage.change(&storage.key_type, |key| {
            key["passphrase"] = json!({"algorithm": "m.pbkdf2", "salt": "x", "iterations": rounds});
        });
        assert_eq!(storage.refused().await, "secret_storage_rejected", "{rounds}");
    }
}

#[tokio::test]
async fn secrets_that_were_changed_are_not_taken() {
    let storage = storage().await;
    // Two secrets under each other's name.
    let user = storage.other.client.user_id();
    let one = storage.server.account_data_of(user, SECRETS[0]).unwrap();
    let two = storage.server.account_data_of(user, SECRETS[1]).unwrap();
    storage.server.set_account_data(user, SECRETS[0], two);
    storage.server.set_account_data(user, SECRETS[1], one.clone());
    assert_eq!(storage.refused().await, "secret_storage_rejected");
    storage.server.set_account_data(user, SECRETS[0], one);
    storage.server.set_account_data(user, SECRETS[1], json!({}));
    assert_eq!(storage.refused().await, "secrets_missing");
    storage
        .server
        .set_account_data(user, SECRETS[1], json!({"encrypted": 7}));
    assert_eq!(storage.refused().await, "secret_storage_rejected");
    storage
        .server
        .set_account_data(user, "m.secret_storage.default_key", json!({}));
    assert_eq!(storage.refused().await, "no_secret_storage");
    storage
        .server
        .set_account_data(user, "m.secret_storage.default_key", json!({"key": "nowhere"}));
    assert_eq!(storage.refused().await, "secret_storage_rejected");
}

#[tokio::test]
async fn a_key_without_a_check_value_is_proven_by_a_secret() {
    let storage = storage().await;
    storage.change(&storage.key_type, |key| {
        let key = key.as_object_mut().unwrap();
        key.remove("iv");
        key.remove("mac");
    });
    let other = SecretStorageKey::new().to_base58();
    let error = storage.other.client.recover_identity(&other).await.unwrap_err();
    assert_eq!(error.code(), "wrong_recovery_key");
    storage.other.client.recover_identity(&storage.key).await.unwrap();
}

/// The homeserver shows a master key of its own, which signs the user's real other keys: all private keys that belong to
/// those are right, and the master key is not.
#[tokio::test]
async fn a_false_master_key_over_real_keys_is_not_believed() {
    let storage = storage().await;
    let user = storage.other.client.user_id().to_owned();
    let mallory = EvilPeer::new(&storage.server, "alice", "MALLORY");
    let false_identity = mallory.new_cross_signing();
    let master = false_identity.master_key();
    let sign = move |key: &mut Value| {
        key["signatures"] = json!({});
        false_identity.sign_with_master(key);
    };
    storage.server.rewrite("/keys/query", move |_, response| {
        let mut body: Value = serde_json::from_slice(response.body()).unwrap();
        if body["master_keys"][user.as_str()].is_object() {
            body["master_keys"][user.as_str()] = master.clone();
            sign(&mut body["self_signing_keys"][user.as_str()]);
            sign(&mut body["user_signing_keys"][user.as_str()]);
        }
        response.map(|_| body.to_string().into())
    });
    let client = &storage.other.client;
    let error = client.recover_identity(&storage.key).await.unwrap_err();
    assert_eq!(error.code(), "identity_mismatch");
    // Nor is it when the homeserver does not give the one secret that proves it.
    storage.server.set_account_data(client.user_id(), SECRETS[0], json!({}));
    let error = client.recover_identity(&storage.key).await.unwrap_err();
    assert_eq!(error.code(), "secrets_missing");
    assert!(!standing(client).await.is_good());
}

/// What is kept is what the specification says, for every other client.
#[tokio::test]
async fn secrets_are_kept_as_others_read_them() {
    let server = World::new();
    let alice = Device::new(&server, "alice").await;
    let key = set_up(&alice.client).await.recovery_key.unwrap();
    let user = alice.client.user_id();
    let default = server.account_data_of(user, "m.secret_storage.default_key").unwrap();
    let id = default["key"].as_str().unwrap();
    let mut described = server
        .account_data_of(user, &format!("m.secret_storage.key.{id}"))
        .unwrap();
    assert_eq!(described["algorithm"], "m.secret_storage.v1.aes-hmac-sha2");
    described["name"] = "as it came".into();
    let described = serde_json::value::to_raw_value(&described).unwrap();
    let described = SecretStorageKeyEventContent::from_parts(&format!("m.secret_storage.key.{id}"), &described);
    let key = SecretStorageKey::from_account_data(&key, described.unwrap()).unwrap();
    for name in SECRETS {
        let kept = server.account_data_of(user, name).unwrap();
        let encrypted: AesHmacSha2EncryptedData = serde_json::from_value(kept["encrypted"][id].clone()).unwrap();
        let secret = key.decrypt(&encrypted, &SecretName::from(name)).unwrap();
        let bytes = vodozemac::base64_decode(secret).unwrap();
        assert_eq!(bytes.len(), 32, "{name}");
    }
}
