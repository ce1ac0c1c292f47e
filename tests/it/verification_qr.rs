//! Codes: shown here and scanned there, in both directions, and codes that are not the right ones.

use mx_e2ee::{VerificationId, VerificationOutcome, VerificationState};

use crate::{
    verification_cast::{code, has_signed, secrets, settle, state, two, with, with_identity},
    world::{Device, World},
};

/// `asker` asks, `other` accepts.
async fn ready(asker: &Device, other: &Device) -> (VerificationId, VerificationId) {
    let asked = if asker.client.user_id() == other.client.user_id() {
        asker.client.orchestrator().verify_own_devices().await.unwrap()
    } else {
        let (user, device) = (other.client.user_id(), other.client.device_id());
        asker.client.orchestrator().verify_device(user, device).await.unwrap()
    };
    settle(&[other]).await;
    let answered = with(other, asker.client.user_id());
    other
        .client
        .orchestrator()
        .accept_verification(&answered)
        .await
        .unwrap();
    settle(&[asker, other]).await;
    (asked, answered)
}

/// One shows, the other one scans, and the first says that it saw that.
async fn scanned(shower: (&Device, &VerificationId), scanner: (&Device, &VerificationId)) {
    let shown = shower
        .0
        .client
        .orchestrator()
        .show_verification_qr(shower.1)
        .await
        .unwrap();
    assert!(shown.width() >= 21 && shown.is_dark(0, 0), "the corner of a finder");
    let device = scanner.0.client.orchestrator();
    device.scan_verification_qr(scanner.1, shown.bytes()).await.unwrap();
    assert_eq!(state(scanner.0, scanner.1), VerificationState::Confirmed);
    settle(&[shower.0, scanner.0]).await;
    assert_eq!(state(shower.0, shower.1), VerificationState::QrScanned);
    shower
        .0
        .client
        .orchestrator()
        .confirm_verification(shower.1)
        .await
        .unwrap();
    settle(&[scanner.0, shower.0, scanner.0]).await;
}

fn user_was_verified(device: &Device, id: &VerificationId) -> bool {
    match state(device, id) {
        VerificationState::Ended(VerificationOutcome::Done { user, .. }) => user,
        other => unreachable!("{other:?}"),
    }
}

#[tokio::test]
async fn the_code_of_either_side_verifies_both_users() {
    for asker_shows in [true, false] {
        let two = two().await;
        let (asked, answered) = ready(&two.alice, &two.bob).await;
        let (alice, bob) = ((&two.alice, &asked), (&two.bob, &answered));
        if asker_shows {
            scanned(alice, bob).await;
        } else {
            scanned(bob, alice).await;
        }
        assert!(user_was_verified(alice.0, alice.1) && user_was_verified(bob.0, bob.1));
        assert!(has_signed(&two.alice, two.bob.client.user_id()).await);
        assert!(has_signed(&two.bob, two.alice.client.user_id()).await);
    }
}

#[tokio::test]
async fn the_code_of_either_device_verifies_a_new_one() {
    for new_shows in [true, false] {
        let server = World::new();
        let old = with_identity(Device::new(&server, "alice").await).await;
        let new = Device::new(&server, "alice").await;
        settle(&[&old, &new]).await;
        let (asked, answered) = ready(&new, &old).await;
        if new_shows {
            scanned((&new, &asked), (&old, &answered)).await;
        } else {
            scanned((&old, &answered), (&new, &asked)).await;
        }
        settle(&[&new, &old]).await;
        assert!(user_was_verified(&new, &asked), "the new device trusts the identity");
        assert_eq!(secrets(&new).await, 3);
    }
}

#[tokio::test]
async fn a_code_of_another_verification_or_with_other_keys_is_refused() {
    let two = two().await;
    let (asked, answered) = ready(&two.alice, &two.bob).await;
    let bob = two.bob.client.orchestrator();
    let shown = two
        .alice
        .client
        .orchestrator()
        .show_verification_qr(&asked)
        .await
        .unwrap();
    let refused = |bytes: Vec<u8>| {
        let (bob, answered) = (bob.clone(), answered.clone());
        async move { bob.scan_verification_qr(&answered, &bytes).await.unwrap_err() }
    };
    assert_eq!(refused(b"MATRIX".to_vec()).await.code(), "verification_wrong_qr");
    assert_eq!(
        refused(b"https://example.org".to_vec()).await.code(),
        "verification_wrong_qr"
    );
    let flow = u16::try_from(asked.flow_id.len()).unwrap();
    let keys = 6 + 1 + 1 + 2 + usize::from(flow);
    let mut of_another = shown.bytes().to_vec();
    of_another[10] ^= 1;
    let error = refused(of_another).await;
    assert!(error.to_string().contains("another verification"), "{error}");
    let other = two.alice.client.key_status().await.unwrap().ed25519;
    let other = vodozemac::base64_decode(other).unwrap();
    for place in [keys, keys + 32] {
        let mut forged = shown.bytes().to_vec();
        forged[place..place + 32].copy_from_slice(&other);
        let error = refused(forged).await;
        assert!(error.to_string().contains("other keys"), "{error}");
    }
    assert!(
        matches!(state(&two.bob, &answered), VerificationState::Ready { .. }),
        "nothing happened"
    );
    // The secret is what tells alice that it was her code: with another one she is told nothing.
    let mut guessed = shown.bytes().to_vec();
    *guessed.last_mut().unwrap() ^= 1;
    bob.scan_verification_qr(&answered, &guessed).await.unwrap();
    two.settle().await;
    assert_ne!(state(&two.alice, &asked), VerificationState::QrScanned);
    assert!(!has_signed(&two.alice, two.bob.client.user_id()).await);
    assert_eq!(code(&two.alice, &asked), "m.key_mismatch");
}

#[tokio::test]
async fn who_shows_a_code_may_still_compare_emoji() {
    let two = two().await;
    let (asked, answered) = ready(&two.alice, &two.bob).await;
    let (alice, bob) = (two.alice.client.orchestrator(), two.bob.client.orchestrator());
    alice.show_verification_qr(&asked).await.unwrap();
    assert_eq!(state(&two.alice, &asked), VerificationState::ShowingQr);
    bob.start_sas(&answered).await.unwrap();
    two.settle().await;
    assert_eq!(state(&two.alice, &asked), state(&two.bob, &answered));
    assert!(matches!(state(&two.alice, &asked), VerificationState::Compare { .. }));
}
