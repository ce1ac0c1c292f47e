//! Key files, out and in (rows EX-01 to EX-06): nothing is believed before it is proven, and nothing is taken by halves.

use matrix_sdk_crypto::{encrypt_room_key_export, olm::ExportedRoomKey, store::CryptoStore};
use mx_e2ee::{Client, Error, KeyFileError, Options, RoomKeyImport, Trust, orchestrator};
use ruma::{RoomId, room_id};
use vodozemac::{base64_decode, base64_encode};

use crate::{
    crash_history::Parked,
    disks::{Moment, Plan, Point, Trouble},
    edits::hold_keys_back,
    world::{Device, Pair, World, pair},
};

const PASSPHRASE: &str = "correct horse";

/// The room keys of a device, as a file holds them.
async fn keys_of(client: &Client) -> Vec<ExportedRoomKey> {
    let sessions = client
        .orchestrator()
        .store()
        .get_inbound_group_sessions()
        .await
        .unwrap();
    let mut keys = Vec::new();
    for session in sessions {
        keys.push(session.export().await);
    }
    keys
}

/// A device whose key files are made fast; what is made without it takes as many rounds as Element's.
fn fast() -> Options {
    let mut options = Options::default();
    assert_eq!(options.key_file_rounds, 500_000);
    options.key_file_rounds = 3;
    options
}

/// A file that is opened fast.
fn file_of(keys: &[ExportedRoomKey]) -> String {
    encrypt_room_key_export(keys, PASSPHRASE, 3).unwrap()
}

fn payload(file: &str) -> Vec<u8> {
    base64_decode(file.lines().nth(1).unwrap()).unwrap()
}

fn file_with(payload: &[u8]) -> String {
    let text = base64_encode(payload);
    format!("-----BEGIN MEGOLM SESSION DATA-----\n{text}\n-----END MEGOLM SESSION DATA-----")
}

async fn count(client: &Client) -> usize {
    keys_of(client).await.len()
}

fn kind(error: Error) -> KeyFileError {
    match error {
        Error::Orchestrator(orchestrator::Error::KeyFile(error)) => error,
        other => unreachable!("{other:?}"),
    }
}

/// Alice said three things, and bob was given no key.
async fn without_keys() -> Pair {
    let cast = pair().await;
    hold_keys_back(&cast.server);
    for text in ["one", "two", "three"] {
        cast.room.send_text(text).await.unwrap();
    }
    assert!(cast.bob.bodies().await.is_empty());
    assert_eq!(cast.bob.client.waiting_counts().await.unwrap().waiting, 3);
    cast
}

#[tokio::test]
async fn a_file_goes_out_and_in_and_what_waited_is_read() {
    let Pair { alice, bob, room, .. } = without_keys().await;
    drop(room);
    let alice = alice.kill_and_open_with(fast()).await;
    let file = alice.client.export_room_keys(PASSPHRASE, None).await.unwrap();
    assert_eq!(file.room_keys, 1);
    assert_eq!(payload(&file.text)[33..37], 3_u32.to_be_bytes());
    let taken = bob.client.import_room_keys(&file.text, PASSPHRASE).await.unwrap();
    let expected = |taken: RoomKeyImport| (taken.total, taken.imported, taken.unusable, taken.retried);
    assert_eq!(expected(taken), (1, 1, 0, 3));
    let messages = bob.messages().await;
    let bodies: Vec<_> = messages.iter().filter_map(|message| message.body()).collect();
    assert_eq!(bodies, ["one", "two", "three"]);
    for message in &messages {
        assert_eq!(message.encryption.as_ref().unwrap().trust, Trust::Imported);
    }
    // The same again changes nothing.
    let again = bob.client.import_room_keys(&file.text, PASSPHRASE).await.unwrap();
    assert_eq!(expected(again), (1, 0, 0, 0));
}

#[tokio::test]
async fn what_turns_out_to_be_a_replay_is_not_counted_among_what_can_be_read() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = without_keys().await;
    let timeline = server.timeline(room.id());
    let last = timeline.iter().rev().find(|event| event["type"] == "m.room.encrypted");
    let content = last.unwrap()["content"].clone();
    server.inject(room.id(), alice.client.user_id(), "m.room.encrypted", content);
    assert!(bob.bodies().await.is_empty());
    assert_eq!(bob.client.waiting_counts().await.unwrap().waiting, 4);
    let file = file_of(&keys_of(&alice.client).await);
    let taken = bob.client.import_room_keys(&file, PASSPHRASE).await.unwrap();
    assert_eq!(taken.retried, 3, "of four, one is rejected");
    assert_eq!(bob.bodies().await, ["one", "two", "three"]);
}

#[tokio::test]
async fn only_the_rooms_that_were_asked_for_are_exported() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    room.send_text("one").await.unwrap();
    let second = alice
        .client
        .create_room(None, &[bob.client.user_id().to_owned()])
        .await
        .unwrap();
    second.send_text("two").await.unwrap();
    let rooms = [second.id().to_owned()];
    drop((room, second));
    let alice = alice.kill_and_open_with(fast()).await;
    let whole = alice.client.export_room_keys(PASSPHRASE, None).await.unwrap();
    assert_eq!(whole.room_keys, 2);
    let part = alice.client.export_room_keys(PASSPHRASE, Some(&rooms)).await.unwrap();
    assert_eq!(part.room_keys, 1);
    let carol = Device::new(&server, "carol").await;
    carol.client.import_room_keys(&part.text, PASSPHRASE).await.unwrap();
    assert_eq!(keys_of(&carol.client).await[0].room_id, rooms[0]);
}

#[tokio::test]
async fn ex_01_a_wrong_passphrase_takes_nothing() {
    let cast = without_keys().await;
    let file = file_of(&keys_of(&cast.alice.client).await);
    for wrong in ["Correct horse", "correct horse ", "x"] {
        let error = cast.bob.client.import_room_keys(&file, wrong).await.unwrap_err();
        cast.server.examine(&error);
        assert_eq!(error.code(), "key_file_wrong_passphrase");
    }
    let none = cast.bob.client.import_room_keys(&file, "").await.unwrap_err();
    assert_eq!(none.code(), "key_file_no_passphrase");
    let none = cast.bob.client.export_room_keys("", None).await.unwrap_err();
    assert_eq!(none.code(), "key_file_no_passphrase");
    assert_eq!(count(&cast.bob.client).await, 0);
    assert!(cast.bob.bodies().await.is_empty());
}

#[tokio::test]
async fn ex_02_no_bit_may_differ() {
    let cast = without_keys().await;
    let good = payload(&file_of(&keys_of(&cast.alice.client).await));
    let bob = &cast.bob.client;
    for bit in 0..good.len() * 8 {
        let mut changed = good.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        // More than 255 rounds would take their time, and are the business of another test.
        if changed[33..36] != [0; 3] {
            continue;
        }
        let error = kind(
            bob.import_room_keys(&file_with(&changed), PASSPHRASE)
                .await
                .unwrap_err(),
        );
        let expected = bit / 8 == 0 || changed[33..37] == [0; 4];
        assert_eq!(
            matches!(error, KeyFileError::Rejected { .. }),
            expected,
            "bit {bit}: {error:?}"
        );
    }
    assert_eq!(count(bob).await, 0);
    bob.import_room_keys(&file_with(&good), PASSPHRASE).await.unwrap();
    assert_eq!(count(bob).await, 1);
}

#[tokio::test]
async fn ex_02_a_file_without_its_mac_or_with_another_iv_is_refused() {
    let cast = without_keys().await;
    let keys = keys_of(&cast.alice.client).await;
    let (good, other) = (payload(&file_of(&keys)), payload(&file_of(&keys)));
    let mut swapped = good.clone();
    swapped[17..33].copy_from_slice(&other[17..33]);
    let mut no_mac = good.clone();
    no_mac.truncate(good.len() - 32);
    let mut empty = good.clone();
    empty.drain(37..good.len() - 32);
    for changed in [swapped, no_mac, empty] {
        let error = cast.bob.client.import_room_keys(&file_with(&changed), PASSPHRASE).await;
        assert!(matches!(kind(error.unwrap_err()), KeyFileError::WrongPassphrase));
    }
    assert_eq!(count(&cast.bob.client).await, 0);
}

/// So many rounds would take longer than any test may.
#[tokio::test]
async fn ex_03_hostile_rounds_are_refused_before_any_work() {
    let cast = without_keys().await;
    let good = payload(&file_of(&keys_of(&cast.alice.client).await));
    for rounds in [0, u32::MAX, 1 << 31, 5_000_001] {
        let mut changed = good.clone();
        changed[33..37].copy_from_slice(&rounds.to_be_bytes());
        let error = cast.bob.client.import_room_keys(&file_with(&changed), PASSPHRASE).await;
        assert!(
            matches!(kind(error.unwrap_err()), KeyFileError::Rejected { .. }),
            "{rounds}"
        );
    }
}

#[tokio::test]
async fn ex_04_an_import_never_replaces_what_is_better() {
    let Pair { alice, bob, room, .. } = pair().await;
    for number in 0..4 {
        room.send_text(format!("{number}")).await.unwrap();
    }
    bob.client.sync().await.unwrap();
    let store = bob.client.orchestrator().store();
    let ours = keys_of(&bob.client).await.remove(0);
    let session = store
        .get_inbound_group_session(room.id(), &ours.session_id)
        .await
        .unwrap()
        .unwrap();
    for indices in [vec![2], vec![0], vec![2, 0]] {
        let mut keys = Vec::new();
        for index in indices {
            keys.push(session.export_at_index(index).await);
        }
        let taken = bob.client.import_room_keys(&file_of(&keys), PASSPHRASE).await.unwrap();
        assert_eq!(taken.imported, 0);
    }
    let after = store
        .get_inbound_group_session(room.id(), &ours.session_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(after.first_known_index(), 0);
    assert!(!after.has_been_imported());
    let messages = bob.messages().await;
    assert_eq!(messages.len(), 4);
    assert_ne!(messages[0].encryption.as_ref().unwrap().trust, Trust::Imported);
    drop(alice);
}

#[tokio::test]
async fn ex_04_of_two_keys_of_a_session_the_one_that_reaches_further_back_is_taken() {
    let cast = without_keys().await;
    let alice = cast.alice.client.orchestrator().store();
    let first = keys_of(&cast.alice.client).await.remove(0);
    let session = alice.get_inbound_group_session(cast.room.id(), &first.session_id);
    let session = session.await.unwrap().unwrap();
    let keys = [
        session.export_at_index(2).await,
        first,
        session.export_at_index(2).await,
    ];
    let taken = cast
        .bob
        .client
        .import_room_keys(&file_of(&keys), PASSPHRASE)
        .await
        .unwrap();
    assert_eq!((taken.total, taken.imported, taken.unusable), (3, 1, 0));
    assert_eq!(cast.bob.bodies().await, ["one", "two", "three"]);
}

#[tokio::test]
async fn ex_04_a_key_under_another_name_is_not_taken() {
    let cast = without_keys().await;
    let good = keys_of(&cast.alice.client).await.remove(0);
    let mallory = Device::new(&cast.server, "mallory").await;
    let hers = mallory
        .client
        .create_room(None, &[cast.bob.client.user_id().to_owned()])
        .await
        .unwrap();
    hers.send_text("mine").await.unwrap();
    let mut forged = keys_of(&mallory.client).await.remove(0);
    forged.session_id = good.session_id.clone();
    forged.room_id = cast.room.id().to_owned();
    let bob = &cast.bob.client;
    let taken = bob.import_room_keys(&file_of(&[forged]), PASSPHRASE).await.unwrap();
    assert_eq!((taken.total, taken.imported, taken.unusable), (1, 0, 1));
    // The real one is not kept away.
    let taken = bob.import_room_keys(&file_of(&[good]), PASSPHRASE).await.unwrap();
    assert_eq!(taken.imported, 1);
    assert_eq!(cast.bob.bodies().await, ["one", "two", "three"]);
}

#[tokio::test]
async fn a_file_with_nonsense_inside_takes_nothing() {
    let cast = without_keys().await;
    let nobody: &RoomId = room_id!("!nobody:localhost");
    let mut keys = keys_of(&cast.alice.client).await;
    keys[0].room_id = nobody.to_owned();
    keys[0].algorithm = "org.example.rot13".into();
    let taken = cast
        .bob
        .client
        .import_room_keys(&file_of(&keys), PASSPHRASE)
        .await
        .unwrap();
    assert_eq!((taken.total, taken.unusable), (1, 1));
    let empty = cast
        .bob
        .client
        .import_room_keys(&file_of(&[]), PASSPHRASE)
        .await
        .unwrap();
    assert_eq!(empty.total, 0);
    for file in ["", "not a file", "-----BEGIN MEGOLM SESSION DATA-----"] {
        let error = cast.bob.client.import_room_keys(file, PASSPHRASE).await.unwrap_err();
        assert_eq!(error.code(), "key_file_rejected");
    }
    assert_eq!(count(&cast.bob.client).await, 0);
}

/// Killed before and after each operation of the disk.
#[tokio::test]
async fn ex_05_an_import_that_is_killed_takes_all_or_nothing() {
    let server = World::new();
    let alice = Device::new(&server, "alice").await;
    server.register("bob", "password");
    let carol = Device::new(&server, "carol").await;
    for _ in 0..5 {
        let room = alice
            .client
            .create_room(None, &[carol.client.user_id().to_owned()])
            .await
            .unwrap();
        room.send_text("x").await.unwrap();
    }
    let file = file_of(&keys_of(&alice.client).await);
    let parked = Parked::new("bob");
    parked
        .login(&server, &Plan::default())
        .await
        .unwrap()
        .close()
        .await
        .unwrap();
    let mut cut = 0;
    for moment in [Moment::Before, Moment::After] {
        for nth in 1.. {
            let (device, plan) = (parked.copy(), Plan::default());
            let client = device.open(&server, &plan).await.unwrap();
            plan.arm(Point {
                nth,
                moment,
                trouble: Trouble::Kill,
                ..Point::dry(|operation, _| operation != crate::disks::Operation::Request)
            });
            let done = plan.until_killed(client.import_room_keys(&file, PASSPHRASE)).await;
            drop(client);
            let after = device.open(&server, &Plan::default()).await.unwrap();
            let kept = count(&after).await;
            assert!(kept == 0 || kept == 5, "{kept} of 5 after {:?}", plan.struck());
            if let Some(done) = done {
                assert_eq!((done.unwrap().imported, kept), (5, 5));
                break;
            }
            cut += 1;
        }
    }
    assert!(cut > 4, "{cut}");
}
