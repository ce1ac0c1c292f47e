//! Files that are received: what was changed on the way is not kept, and what is kept stays in its place.

use std::path::PathBuf;

use mx_e2ee::{Attachment, ReceivedFile};
use serde_json::{Value, json};

use crate::{
    attachments::{code, names, received, requests, retrying},
    world::{Pair, pair},
};

#[tokio::test]
async fn what_the_homeserver_changed_is_corrupt_and_nothing_of_it_is_kept() {
    let Pair {
        server,
        alice: _alice,
        bob,
        room,
        ..
    } = pair().await;
    room.send_attachment(Attachment::from_bytes("other", vec![8; 200_000]))
        .await
        .unwrap();
    bob.messages().await;
    let (_, other) = server.files().remove(0);
    let content = vec![9; 200_000];
    room.send_attachment(Attachment::from_bytes("file", content.clone()))
        .await
        .unwrap();
    let file = received(&bob).await;
    let (uri, real) = server.files().into_iter().find(|(uri, _)| uri == file.url()).unwrap();
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("file");
    let flipped = |bit: usize| {
        let mut changed = real.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        changed
    };
    for (what, changed) in [
        ("its first bit", flipped(0)),
        ("a bit", flipped(1_000_003)),
        ("its last bit", flipped(real.len() * 8 - 1)),
        ("truncated", real[..real.len() - 1].to_vec()),
        ("empty", Vec::new()),
        ("longer", [&real[..], b"x"].concat()),
        ("another file", other.to_vec()),
        ("the plaintext", content.clone()),
    ] {
        server.put_file(&uri, changed);
        assert_eq!(
            code(bob.client.download(&file, &path).await),
            "attachment_corrupt",
            "{what}"
        );
        assert!(names(place.path()).is_empty(), "{what}");
    }
    server.put_file(&uri, real);
    bob.client.download(&file, &path).await.unwrap();
    assert!(std::fs::read(&path).unwrap() == content);
    assert_eq!(names(place.path()), ["file"]);
}

#[tokio::test]
async fn another_hash_in_the_event_is_corrupt_and_another_key_is_no_secret_leak() {
    let Pair {
        server,
        alice: _alice,
        bob,
        room,
        ..
    } = pair().await;
    room.send_attachment(Attachment::from_bytes("file", vec![9; 1000]))
        .await
        .unwrap();
    let mut content = bob.messages().await.remove(0).content;
    content["file"]["hashes"]["sha256"] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into();
    let file = ReceivedFile::of_content(&content).unwrap().unwrap();
    let place = tempfile::tempdir().unwrap();
    let error = bob.client.download(&file, place.path().join("x")).await.unwrap_err();
    server.examine(&error);
    assert_eq!(error.code(), "attachment_corrupt");
    assert!(names(place.path()).is_empty());
}

#[tokio::test]
async fn a_file_in_plaintext_is_named_and_not_fetched() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    room.send_attachment(Attachment::from_bytes("file", b"x"))
        .await
        .unwrap();
    let mut content = bob.messages().await.remove(0).content;
    // The key of this one has been on the wire.
    server.inject(room.id(), alice.client.user_id(), "m.room.message", content.clone());
    content.as_object_mut().unwrap().remove("file");
    content["url"] = "mxc://localhost/media1".into();
    room.send("m.room.message", content).await.unwrap();
    let messages = bob.messages().await;
    assert_eq!(messages.len(), 2);
    for message in &messages {
        assert_eq!(
            ReceivedFile::of(message).unwrap_err().code(),
            "attachment_not_encrypted"
        );
    }
    assert_eq!(requests(&server, "/download/"), 0);
}

#[tokio::test]
async fn nothing_that_exists_is_replaced_and_no_name_leads_elsewhere() {
    let Pair {
        alice: _alice,
        bob,
        room,
        ..
    } = pair().await;
    let outer = tempfile::tempdir().unwrap();
    let place = outer.path().join("files");
    std::fs::create_dir(&place).unwrap();
    let name = "../../\u{202e}gnp.evil\u{0}.png";
    room.send_attachment(Attachment::from_bytes(name, b"new"))
        .await
        .unwrap();
    let file = received(&bob).await;
    assert_eq!(file.claimed_name, name);
    std::fs::write(place.join("taken"), "old").unwrap();
    std::os::unix::fs::symlink(outer.path().join("elsewhere"), place.join("dangling")).unwrap();
    for taken in ["taken", "dangling", ""] {
        assert_eq!(code(bob.client.download(&file, place.join(taken)).await), "file_exists");
    }
    assert_eq!(code(bob.client.download(&file, place.join("..")).await), "file_name");
    let files = bob.client.files();
    let mut kept: Vec<PathBuf> = Vec::new();
    for _ in 0..3 {
        kept.push(files.download_into(&file, &place).await.unwrap());
    }
    assert_eq!(
        kept,
        ["gnp.evil.png", "gnp.evil-1.png", "gnp.evil-2.png"].map(|name| place.join(name))
    );
    assert_eq!(std::fs::read(place.join("taken")).unwrap(), b"old");
    assert_eq!(
        names(&place),
        ["dangling", "gnp.evil-1.png", "gnp.evil-2.png", "gnp.evil.png", "taken"]
    );
    assert_eq!(names(outer.path()), ["files"]);
}

#[tokio::test]
async fn a_download_has_a_limit_whatever_the_sender_says() {
    let Pair {
        server,
        alice: _alice,
        bob,
        room,
        ..
    } = pair().await;
    room.send_attachment(Attachment::from_bytes("file", [9; 1000]))
        .await
        .unwrap();
    let mut content = bob.messages().await.remove(0).content;
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("file");
    let files = bob.client.files().max_bytes(999);
    let of = |content: &Value| ReceivedFile::of_content(content).unwrap().unwrap();
    assert_eq!(code(files.download(&of(&content), &path).await), "too_large");
    assert_eq!(requests(&server, "/download/"), 0, "its size was announced");
    for said in [json!(10), json!(null)] {
        content["info"]["size"] = said;
        assert_eq!(code(files.download(&of(&content), &path).await), "too_large");
    }
    assert!(names(place.path()).is_empty());
    let (uri, _) = server.files().remove(0);
    content["file"]["url"] = format!("{uri}9").into();
    assert_eq!(code(files.download(&of(&content), &path).await), "not_found");
    content["file"]["url"] = uri.as_str().into();
    files.max_bytes(1000).download(&of(&content), &path).await.unwrap();
}

#[tokio::test]
async fn an_older_homeserver_is_asked_without_our_token_and_without_redirects() {
    let Pair {
        server,
        alice: _alice,
        bob,
        room,
        ..
    } = pair().await;
    room.send_attachment(Attachment::from_bytes("file", b"x"))
        .await
        .unwrap();
    let file = received(&bob).await;
    server.rewrite("/versions", |_, response| {
        response.map(|_| r#"{"versions":["v1.10"]}"#.into())
    });
    let older = retrying(&server, "carol").await;
    let place = tempfile::tempdir().unwrap();
    // This homeserver has only the newer endpoint.
    assert_ne!(code(older.download(&file, place.path().join("file")).await), "ok");
    let log = server.log();
    let asked: Vec<_> = log
        .iter()
        .filter(|exchange| exchange.path.contains("/download/"))
        .collect();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].path.starts_with("/_matrix/media/v3/download/localhost/"));
    assert_eq!((&asked[0].user, &asked[0].query), (&None, &Vec::new()));
    assert!(names(place.path()).is_empty());
}
