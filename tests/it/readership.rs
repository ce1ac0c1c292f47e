//! Who can read the next message, said before it is sent: the same as the receipt says afterwards.

use mx_e2ee::{Outlook, Reader, ReaderDevice, ReaderIdentity, ReaderTrust, Readership, Recipients, RotationReason};
use serde_json::json;

use crate::{
    doctor::well,
    doctor_inside::edit_device,
    world::{Device, Pair, pair},
};

fn device<'a>(readers: &'a Readership, of: &Device) -> &'a ReaderDevice {
    let mut devices = readers.users.iter().flat_map(|reader| &reader.devices);
    devices
        .find(|device| device.device_id == of.client.device_id())
        .unwrap()
}

fn user<'a>(readers: &'a Readership, of: &Device) -> &'a Reader {
    let mut users = readers.users.iter();
    users.find(|reader| reader.user_id == of.client.user_id()).unwrap()
}

#[tokio::test]
async fn it_says_before_a_send_what_the_receipt_says_after_it() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    let before = room.readership().await.unwrap();
    assert!(before.encrypted && before.refused.is_empty() && before.warnings.is_empty());
    assert_eq!(
        (before.renewal, before.key.is_none()),
        (Some(RotationReason::FirstKey), true)
    );
    assert!(before.users[0].own, "ourselves first");
    assert_eq!(device(&before, &alice).outlook, Outlook::ThisDevice);
    assert_eq!(device(&before, &bob).outlook, Outlook::NeedsSession);
    let keys = server.one_time_keys_left(bob.client.user_id(), bob.client.device_id());
    assert_eq!(keys, 50, "nothing is claimed by looking");
    let receipt = room.send_text("one").await.unwrap();
    assert_eq!(receipt.rotation, before.renewal);
    let after = room.readership().await.unwrap();
    assert_eq!(
        (after.renewal, device(&after, &bob).outlook.clone()),
        (None, Outlook::HasKey)
    );
    let key = after.key.unwrap();
    assert_eq!(
        (key.session_id, key.messages, key.most_messages),
        (receipt.session_id, 1, 100)
    );
    assert!(key.since_ms.is_some());
    room.rotate_key().await.unwrap();
    let renewed = room.readership().await.unwrap();
    assert_eq!(renewed.renewal, Some(RotationReason::ByHand));
    assert_eq!(device(&renewed, &bob).outlook, Outlook::GetsKey);
    assert_eq!(room.send_text("two").await.unwrap().rotation, renewed.renewal);
}

#[tokio::test]
async fn trust_and_decisions_are_shown_as_they_hold() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = well().await;
    let readers = room.readership().await.unwrap();
    assert_eq!(user(&readers, &bob).identity, ReaderIdentity::Unverified);
    assert_eq!(user(&readers, &alice).identity, ReaderIdentity::Verified);
    assert_eq!(device(&readers, &bob).trust, ReaderTrust::Signed);
    let bobs = bob.client.key_status().await.unwrap();
    assert_eq!(device(&readers, &bob).ed25519.as_deref(), Some(bobs.ed25519.as_str()));

    let lost = Device::new(&server, "bob").await;
    let odd = Device::new(&server, "bob").await;
    edit_device(&server, &odd.client, |keys| keys["signatures"] = json!({}));
    let (user_id, lost_id) = (bob.client.user_id(), lost.client.device_id());
    alice.client.sync().await.unwrap();
    room.readership().await.unwrap();
    alice.client.block_device(user_id, lost_id).await.unwrap();
    let key = bobs.ed25519.as_str();
    alice
        .client
        .trust_device(user_id, bob.client.device_id(), key)
        .await
        .unwrap();
    let readers = room.readership().await.unwrap();
    assert_eq!(device(&readers, &bob).trust, ReaderTrust::Trusted);
    assert_eq!(
        device(&readers, &lost).outlook,
        Outlook::Withheld {
            because: "m.blacklisted"
        }
    );
    assert_eq!(device(&readers, &lost).trust, ReaderTrust::Blocked);
    assert!(!device(&readers, &odd).outlook.can_read());
    assert_eq!(device(&readers, &odd).outlook.describe(), "its keys are not signed");
    // Only trusted devices: the other ones are told so, and the key that they have is not used any more.
    let mut policy = room.policy().await.unwrap();
    policy.recipients = Some(Recipients::OnlyTrusted);
    room.set_policy(policy).await.unwrap();
    alice
        .client
        .unblock_device(user_id, bob.client.device_id())
        .await
        .unwrap();
    let readers = room.readership().await.unwrap();
    assert_eq!(
        device(&readers, &bob).outlook,
        Outlook::Withheld {
            because: "m.unverified"
        }
    );
    assert_eq!(readers.renewal, Some(RotationReason::Policy));
    assert_eq!(readers.refused[0].code, "no_usable_recipients");
    assert_eq!(room.send_text("x").await.unwrap_err().code(), "no_usable_recipients");
}

#[tokio::test]
async fn a_room_that_we_are_not_in_has_no_readers() {
    let Pair { bob, room, .. } = pair().await;
    let stranger = bob.client.room(ruma::room_id!("!nowhere:localhost"));
    assert_eq!(stranger.readership().await.unwrap_err().code(), "not_in_room");
    let plain = bob.client.create_plaintext_room(None, &[]).await.unwrap();
    let readers = plain.readership().await.unwrap();
    assert!(!readers.encrypted);
    drop(room);
}
