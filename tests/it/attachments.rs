//! Files that are sent: whole or not at all, and never readable on the way.

use std::{path::Path, sync::Arc, time::Duration};

use mx_e2ee::{Attachment, AttachmentKind, Client, Error, ReceivedFile, Room};
use mx_test_homeserver::{Fault, Homeserver};
use mx_transport::Retry;

use crate::world::{Device, Pair, key, leaks::Watched, pair};

pub(crate) fn code<T>(result: Result<T, Error>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) => error.code(),
    }
}

/// The one file that came.
pub(crate) async fn received(device: &Device) -> ReceivedFile {
    let messages = device.messages().await;
    assert_eq!(messages.len(), 1);
    ReceivedFile::of(&messages[0]).unwrap().unwrap()
}

pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// How many requests there were to paths that hold this.
pub(crate) fn requests(server: &Homeserver, path: &str) -> usize {
    server
        .log()
        .iter()
        .filter(|exchange| exchange.path.contains(path))
        .count()
}

#[tokio::test]
async fn each_kind_arrives_as_it_was_sent_and_the_wire_knows_nothing_of_it() {
    let Pair {
        server,
        alice: _alice,
        bob,
        room,
        ..
    } = pair().await;
    let place = tempfile::tempdir().unwrap();
    for (extension, mime, kind) in [
        ("png", "image/png", AttachmentKind::Image),
        ("mp4", "video/mp4", AttachmentKind::Video),
        ("flac", "audio/flac", AttachmentKind::Audio),
        ("pdf", "application/pdf", AttachmentKind::File),
    ] {
        let (inside, small, caption) = (server.canary(), server.canary(), server.canary());
        let name = format!("{}.{extension}", server.canary());
        // More than what is held in memory at once.
        let content = format!("{}{inside}", "x".repeat(300_000));
        let thumbnail = Attachment::from_bytes("t.jpeg", small.as_bytes()).dimensions(8, 6);
        let attachment = Attachment::from_bytes(&name, content.as_bytes())
            .caption(&caption)
            .dimensions(800, 600)
            .duration(Duration::from_millis(1500))
            .thumbnail(thumbnail);
        let receipt = room.send_attachment(attachment).await.unwrap();
        assert_eq!(receipt.readable_by(), 1);

        let file = received(&bob).await;
        assert_eq!((file.kind, file.mime.as_deref()), (Some(kind), Some(mime)));
        assert_eq!((&file.claimed_name, file.caption.as_ref()), (&name, Some(&caption)));
        assert_eq!(file.bytes, Some(content.len() as u64));
        let visible = matches!(kind, AttachmentKind::Image | AttachmentKind::Video);
        assert_eq!(file.dimensions, visible.then_some((800, 600)));
        let lasts = matches!(kind, AttachmentKind::Audio | AttachmentKind::Video);
        assert_eq!(file.duration, lasts.then_some(Duration::from_millis(1500)));

        let path = place.path().join(extension);
        assert_eq!(bob.client.download(&file, &path).await.unwrap(), content.len() as u64);
        assert!(std::fs::read(&path).unwrap() == content.as_bytes());
        #[cfg(unix)]
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions()) & 0o777,
            0o600
        );
        let thumbnail = file.thumbnail.as_deref().unwrap();
        assert_ne!(thumbnail.url(), file.url());
        assert_eq!(
            (thumbnail.dimensions, thumbnail.mime.as_deref()),
            (Some((8, 6)), Some("image/jpeg"))
        );
        let path = place.path().join(format!("{extension}.small"));
        bob.client.download(thumbnail, &path).await.unwrap();
        assert!(std::fs::read(&path).unwrap() == small.as_bytes());
    }
    assert_eq!(server.files().len(), 8, "each is there once");
    let uploads = server
        .log()
        .into_iter()
        .filter(|exchange| exchange.path.contains("/media/v3/upload"));
    assert!(
        uploads.into_iter().all(|upload| upload.query.is_empty()),
        "the homeserver is told no name"
    );
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    let Pair {
        server,
        alice: _alice,
        bob,
        room,
        ..
    } = pair().await;
    room.send_attachment(Attachment::from_bytes("empty", b""))
        .await
        .unwrap();
    assert_eq!(
        server
            .files()
            .into_iter()
            .map(|(_, file)| file.len())
            .collect::<Vec<_>>(),
        [0]
    );
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("empty");
    assert_eq!(bob.client.download(&received(&bob).await, &path).await.unwrap(), 0);
    assert_eq!(std::fs::read(&path).unwrap(), b"");
}

/// A client whose transport tries again.
pub(crate) async fn retrying(server: &Homeserver, name: &str) -> Client {
    let _user = server.register(name, "password");
    let disk = mx_crypto_store::backend::MemoryDisk::new();
    let memory = mx_crypto_store::backend::Memory::open(&disk).unwrap();
    let transport = Retry::new(server.transport()).pauses(Duration::ZERO, Duration::ZERO);
    Client::builder()
        .homeserver("http://localhost")
        .transport(Arc::new(transport))
        .backend(Arc::new(Watched(memory)), key())
        .login(name, "password")
        .await
        .unwrap()
}

#[tokio::test]
async fn an_upload_whose_answer_is_lost_is_repeated_with_the_same_bytes() {
    let Pair {
        server,
        alice: _alice,
        bob,
        room,
        ..
    } = pair().await;
    let carol = retrying(&server, "carol").await;
    room.invite(carol.user_id()).await.unwrap();
    let carols_room = carol.join(room.id().as_str()).await.unwrap();
    bob.messages().await;
    server.fault(Fault::drop_after("/media/v3/upload"));
    server.fault(Fault::status("/media/v3/upload", 503, "{}"));
    let content = vec![9; 300_000];
    let sent = carols_room
        .send_attachment(Attachment::from_bytes("file", content.clone()))
        .await
        .unwrap();
    assert_eq!(requests(&server, "/media/v3/upload"), 3);
    let files = server.files();
    assert_eq!(
        files.len(),
        2,
        "what was taken without an answer, and what was answered"
    );
    assert!(files[0].1 == files[1].1);
    let messages = bob.messages().await;
    assert_eq!(
        messages.iter().map(|message| &message.event_id).collect::<Vec<_>>(),
        [&sent.event_id]
    );
    let file = ReceivedFile::of(&messages[0]).unwrap().unwrap();
    // A download is repeated from its start.
    server.fault(Fault::status("/media/download/", 502, "half of something else"));
    server.fault(Fault::drop_after("/media/download/"));
    let place = tempfile::tempdir().unwrap();
    carol.download(&file, place.path().join("file")).await.unwrap();
    assert!(std::fs::read(place.path().join("file")).unwrap() == content);
}

#[tokio::test]
async fn killed_between_the_upload_and_the_event_nothing_is_sent_and_nothing_is_left() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    let before = names(alice.directory.path());
    server.fault(Fault::delay("/media/v3/upload", Duration::from_secs(3600)));
    let sending = {
        let room = room.clone();
        tokio::spawn(async move {
            room.send_attachment(Attachment::from_bytes("file", vec![9; 1000]))
                .await
        })
    };
    while server.files().is_empty() {
        tokio::task::yield_now().await;
    }
    sending.abort();
    assert!(sending.await.unwrap_err().is_cancelled());
    let room_id = room.id().to_owned();
    drop(room);
    let alice = alice.kill_and_open().await;
    assert_eq!(
        names(alice.directory.path()),
        before,
        "the encrypted file is gone with its process"
    );
    assert_eq!(requests(&server, "/send/"), 0);
    alice.client.room(&room_id).send_text("after").await.unwrap();
    assert_eq!(bob.bodies().await, ["after"]);
}

#[tokio::test]
async fn killed_with_the_event_in_the_outbox_it_is_sent_once_and_opens() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    server.fault(Fault::drop_after("/send/m.room.encrypted/"));
    let sent = room
        .send_attachment(Attachment::from_bytes("file", vec![9; 1000]))
        .await;
    assert_eq!(code(sent), "send_pending");
    drop(room);
    let alice = alice.kill_and_open().await;
    assert_eq!(alice.client.orchestrator().flush_outbox().await.unwrap(), 1);
    assert_eq!(server.files().len(), 1);
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("file");
    bob.client.download(&received(&bob).await, &path).await.unwrap();
    assert!(std::fs::read(&path).unwrap() == [9; 1000]);
}

#[tokio::test]
async fn a_file_over_the_homeservers_limit_is_refused_before_it_is_uploaded() {
    let Pair {
        server, alice, room, ..
    } = pair().await;
    server.limit_files(1000);
    let path = alice.directory.path().join("large");
    std::fs::write(&path, [9; 1001]).unwrap();
    let before = names(alice.directory.path());
    assert_eq!(
        code(room.send_attachment(Attachment::from_path(&path)).await),
        "too_large"
    );
    let endless = Attachment::from_reader("endless", std::io::repeat(9));
    assert_eq!(code(room.send_attachment(endless).await), "too_large");
    let thumbnail = Attachment::from_bytes("file", [9; 1000]).thumbnail(Attachment::from_bytes("t", [9; 1001]));
    assert_eq!(code(room.send_attachment(thumbnail).await), "too_large");
    assert_eq!(
        (requests(&server, "/send/"), names(alice.directory.path())),
        (0, before)
    );
    assert_eq!(
        requests(&server, "/media/v3/upload"),
        1,
        "the file whose thumbnail was too large"
    );
    room.send_attachment(Attachment::from_bytes("file", [9; 1000]))
        .await
        .unwrap();
    // A limit that is not told is met by name all the same, and one that cannot be asked for is none.
    server.fault(Fault::body("/media/config", "{}"));
    let over = room.send_attachment(Attachment::from_bytes("file", [9; 1001])).await;
    assert_eq!(code(over), "too_large");
    server.fault(Fault::status("/media/config", 404, r#"{"errcode":"M_UNRECOGNIZED"}"#));
    room.send_attachment(Attachment::from_bytes("file", [9; 1000]))
        .await
        .unwrap();
}

#[tokio::test]
async fn no_file_is_uploaded_for_a_room_that_is_not_encrypted_or_not_ours() {
    let Pair {
        server, alice, room, ..
    } = pair().await;
    let plain = alice.client.create_plaintext_room(None, &[]).await.unwrap();
    let send = |room: Room| async move { code(room.send_attachment(Attachment::from_bytes("file", b"x")).await) };
    assert_eq!(send(plain).await, "room_not_encrypted");
    assert_eq!(
        send(alice.client.room(ruma::room_id!("!nowhere:localhost"))).await,
        "not_in_room"
    );
    let missing = Attachment::from_path(alice.directory.path().join("missing"));
    assert_eq!(code(room.send_attachment(missing).await), "file_unreadable");
    assert!(server.files().is_empty());
    assert_eq!(requests(&server, "/send/"), 0);
}
