//! Makes the pool's keys, when asked to: accounts, sessions and devices in states that differ in what a store keeps.

use std::collections::BTreeMap;

use matrix_sdk_crypto::{
    Account, DeviceData, LocalTrust, UserIdentityData,
    olm::{InboundGroupSession, OutboundGroupSession, PrivateCrossSigningIdentity, SenderData, ShareInfo},
    testing::{get_other_identity, get_own_identity},
    types::{EventEncryptionAlgorithm, events::dummy::DummyEventContent, requests::ToDeviceRequest},
};
use ruma::{TransactionId, device_id, events::AnyMessageLikeEventContent, serde::Raw, user_id};
use serde::Serialize;
use serde_json::{json, value::RawValue};

use super::pool::{Kept, own, room};

/// New keys, written to the file that `MX_MODEL_POOL` names.
pub(crate) fn text() -> Option<String> {
    let path = std::env::var_os("MX_MODEL_POOL")?;
    // The pool is needed inside of a runtime too, and a runtime does not begin inside of another.
    let text = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        serde_json::to_string_pretty(&runtime.block_on(kept())).unwrap()
    });
    let text = text.join().unwrap();
    std::fs::write(path, &text).unwrap();
    Some(text)
}

fn write<T: Serialize>(value: &T) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

/// An account with few one-time keys: each costs a multiplication when the account is read, and it is read often.
fn few_keys(account: &Account) -> Box<RawValue> {
    let mut pickle = serde_json::to_value(account.pickle()).unwrap();
    for kind in ["public_keys", "private_keys"] {
        let keys = pickle["pickle"]["one_time_keys"][kind].as_object_mut().unwrap();
        keys.retain(|id, _| ["0", "1", "50"].contains(&id.as_str()));
    }
    write(&pickle)
}

async fn kept() -> Kept {
    let mut alice = Account::with_device_id(own().0, own().1.into());
    let mut bob = Account::with_device_id(user_id!("@bob:example.org"), device_id!("BOB1"));
    let mut bob_too = Account::with_device_id(user_id!("@bob:example.org"), device_id!("BOB2"));
    let mut accounts = vec![few_keys(&alice)];
    alice.generate_one_time_keys(2);
    accounts.push(few_keys(&alice));
    alice.mark_as_shared();
    alice.update_uploaded_key_count(50);
    accounts.push(few_keys(&alice));
    let foreign = Account::with_device_id(own().0, device_id!("OTHER"));
    let other_identity: UserIdentityData = get_other_identity().into();
    let own_identity = get_own_identity();
    let mut identities = vec![
        write(&other_identity),
        write(&UserIdentityData::from(own_identity.clone())),
    ];
    own_identity.mark_as_verified();
    identities.push(write(&UserIdentityData::from(own_identity)));
    Kept {
        accounts,
        foreign: vec![few_keys(&foreign)],
        identity_keys: write(&alice.identity_keys()),
        device_keys: write(&alice.device_keys()),
        private_identities: vec![
            write(&PrivateCrossSigningIdentity::empty(own().0).pickle().await),
            write(&PrivateCrossSigningIdentity::new(own().0.to_owned()).pickle().await),
        ],
        inbound: inbound(&alice, &bob, &bob_too).await,
        outbound: outbound(&alice, &bob).await,
        devices: vec![
            write(&DeviceData::from_account(&alice)),
            write(&DeviceData::new(alice.device_keys(), LocalTrust::Verified)),
            write(&DeviceData::from_account(&bob)),
            write(&DeviceData::new(bob.device_keys(), LocalTrust::BlackListed)),
            write(&DeviceData::from_account(&bob_too)),
        ],
        identities,
        sessions: sessions(&mut alice, &mut bob, &mut bob_too).await,
    }
}

/// One session before and after a message, another with the same device, and one with another device.
async fn sessions(alice: &mut Account, bob: &mut Account, bob_too: &mut Account) -> Vec<Box<RawValue>> {
    let (mut first, _) = alice.create_session_for_test_helper(bob).await;
    let (second, _) = alice.create_session_for_test_helper(bob).await;
    let (third, _) = alice.create_session_for_test_helper(bob_too).await;
    let before = write(&first.pickle().await);
    let device = DeviceData::from_account(bob);
    first.encrypt(&device, "m.dummy", json!({}), None).await.unwrap();
    vec![
        before,
        write(&first.pickle().await),
        write(&second.pickle().await),
        write(&third.pickle().await),
    ]
}

async fn inbound(alice: &Account, bob: &Account, bob_too: &Account) -> Vec<Box<RawValue>> {
    let (one, _) = alice.create_group_session_pair_with_defaults(room(0)).await;
    let (two, _) = alice.create_group_session_pair_with_defaults(room(0)).await;
    let (three, _) = alice.create_group_session_pair_with_defaults(room(1)).await;
    let from = |account: &Account, room_index: usize, key, data: SenderData| {
        let keys = account.identity_keys();
        let algorithm = EventEncryptionAlgorithm::MegolmV1AesSha2;
        InboundGroupSession::new(
            keys.curve25519,
            keys.ed25519,
            room(room_index),
            key,
            data,
            None,
            algorithm,
            None,
            false,
        )
        .unwrap()
    };
    let known = SenderData::device_info(bob.device_keys());
    let (one, two, three) = (
        one.session_key().await,
        two.session_key().await,
        three.session_key().await,
    );
    let backed_up = from(bob, 0, &two, SenderData::unknown());
    backed_up.mark_as_backed_up();
    let sessions = [
        from(bob, 0, &one, SenderData::unknown()),
        // The same one, of which more is known.
        from(bob, 0, &one, known.clone()),
        // The same one, said to be of another sender.
        from(bob_too, 0, &one, SenderData::unknown()),
        from(bob, 0, &two, SenderData::unknown()),
        backed_up,
        // The same one in another room.
        from(bob, 1, &one, SenderData::unknown()),
        from(bob_too, 1, &three, known),
    ];
    let mut texts = Vec::new();
    for session in sessions {
        texts.push(write(&session.pickle().await));
    }
    texts
}

/// One session that is new, is being shared, was shared and has encrypted; the next in its room; one in another room.
async fn outbound(alice: &Account, bob: &Account) -> Vec<Box<RawValue>> {
    let (first, _) = alice.create_group_session_pair_with_defaults(room(0)).await;
    let mut texts = vec![write(&first.pickle().await)];
    let id = TransactionId::new();
    let request = ToDeviceRequest::new(
        bob.user_id(),
        bob.device_id().to_owned(),
        "m.dummy",
        Raw::from_json(write(&DummyEventContent::new())),
    );
    let info = ShareInfo::new_shared(bob.identity_keys().curve25519, 0, Default::default());
    let shares = BTreeMap::from([(
        bob.user_id().to_owned(),
        BTreeMap::from([(bob.device_id().to_owned(), info)]),
    )]);
    first.add_request(id.clone(), request.into(), shares);
    texts.push(write(&first.pickle().await));
    first.mark_request_as_sent(&id);
    first.mark_as_shared();
    texts.push(write(&first.pickle().await));
    let content: Raw<AnyMessageLikeEventContent> = Raw::from_json(write(&json!({ "body": "hello" })));
    first.encrypt("m.room.message", &content).await;
    texts.push(write(&first.pickle().await));
    for other in [room(0), room(1)] {
        let (session, _): (OutboundGroupSession, _) = alice.create_group_session_pair_with_defaults(other).await;
        texts.push(write(&session.pickle().await));
    }
    texts
}
