//! What an event says of its file, and what is not believed.

use serde_json::json;

use super::*;

/// The key and counter of NIST SP 800-38A, F.5.5, as the specification writes them.
fn file() -> Value {
    json!({
        "v": "v2",
        "url": "mxc://localhost/file",
        "key": {
            "kty": "oct",
            "alg": "A256CTR",
            "ext": true,
            "k": "YD3rEBXKcb4rc67whX13gR81LAc7YQjXLZgQowkU3_Q",
            "key_ops": ["encrypt", "decrypt"],
        },
        "iv": "8PHy8/T19vf4+fr7/P3+/w",
        "hashes": {"sha256": "ZjExoH6exWoMfQZrvET9Tu+kuul87rJwH1PSFT6C/6U"},
    })
}

fn content(file: &Value) -> Value {
    json!({"msgtype": "m.file", "body": "a.txt", "file": file, "info": {}})
}

/// The code of what is wrong, with this in place of what the pointer names; nothing there: it is taken out.
fn code(pointer: &str, value: Option<Value>) -> &'static str {
    let mut file = file();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = file.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => parent.insert(name.to_owned(), value),
        None => parent.remove(name),
    };
    match ReceivedFile::of_content(&content(&file)) {
        Ok(Some(_)) => "ok",
        Ok(None) => "none",
        Err(error) => error.code(),
    }
}

#[test]
fn every_part_of_an_encrypted_file_is_checked() {
    assert_eq!(code("/more", Some(json!("ignored"))), "ok");
    assert_eq!(code("/v", Some(json!("v3"))), "attachment_version");
    assert_eq!(code("/v", Some(json!("v1"))), "attachment_version");
    let long = "A".repeat(44);
    for (pointer, value) in [
        ("/v", None),
        ("/v", Some(json!(2))),
        ("/key", None),
        ("/key", Some(json!("x"))),
        ("/key/kty", Some(json!("RSA"))),
        ("/key/alg", Some(json!("A128CTR"))),
        ("/key/alg", Some(json!("none"))),
        ("/key/alg", None),
        ("/key/ext", Some(json!(false))),
        ("/key/ext", Some(json!("true"))),
        ("/key/key_ops", None),
        ("/key/key_ops", Some(json!([]))),
        ("/key/key_ops", Some(json!(["decrypt"]))),
        ("/key/key_ops", Some(json!("encrypt decrypt"))),
        ("/key/k", None),
        ("/key/k", Some(json!(""))),
        ("/key/k", Some(json!("YD3rEBXKcb4rc67whX13gQ"))),
        ("/key/k", Some(json!(long))),
        ("/key/k", Some(json!("not base64!"))),
        ("/iv", None),
        ("/iv", Some(json!("8PHy8/T19vc"))),
        ("/iv", Some(json!(long))),
        ("/hashes", None),
        ("/hashes/sha256", None),
        ("/hashes/sha256", Some(json!("ZjExoH6exWoMfQ"))),
        ("/hashes/sha256", Some(json!({}))),
        ("/url", None),
        ("/url", Some(json!("https://localhost/file"))),
        ("/url", Some(json!("mxc://localhost"))),
        ("/url", Some(json!("mxc://localhost/../other"))),
        ("/url", Some(json!("mxc:///file"))),
        ("/url", Some(json!(7))),
    ] {
        assert_eq!(
            code(pointer, value.clone()),
            "attachment_malformed",
            "{pointer} {value:?}"
        );
    }
}

#[test]
fn plaintext_files_and_what_is_no_file_are_told_apart() {
    let code = |content: Value| match ReceivedFile::of_content(&content) {
        Ok(Some(_)) => "ok",
        Ok(None) => "none",
        Err(error) => error.code(),
    };
    for msgtype in ["m.file", "m.image", "m.audio", "m.video"] {
        let plain = json!({"msgtype": msgtype, "body": "a", "url": "mxc://localhost/file"});
        assert_eq!(code(plain), "attachment_not_encrypted");
        assert_eq!(code(json!({"msgtype": msgtype, "body": "a"})), "attachment_malformed");
        // Where both are there, the encrypted one counts.
        let both = json!({"msgtype": msgtype, "body": "a", "url": "mxc://localhost/file", "file": file()});
        assert_eq!(code(both), "ok");
    }
    for other in [
        json!({}),
        json!(null),
        json!([]),
        json!({"msgtype": "m.text", "file": file()}),
        json!({"msgtype": 7}),
    ] {
        assert_eq!(code(other), "none");
    }
}

#[test]
fn the_senders_words_are_carried_and_not_trusted() {
    let mut content = content(&file());
    let plain = ReceivedFile::of_content(&content).unwrap().unwrap();
    assert_eq!((plain.claimed_name.as_str(), plain.caption.as_deref()), ("a.txt", None));
    assert_eq!(
        (plain.bytes, plain.dimensions, plain.duration, plain.mime),
        (None, None, None, None)
    );
    content["filename"] = "../a.txt".into();
    content["info"] = json!({
        "size": 5, "w": 3, "h": "x", "duration": 1500, "mimetype": "text/plain",
        "thumbnail_file": {"v": "v2"}, "thumbnail_info": {"w": 1, "h": 1},
    });
    let file = ReceivedFile::of_content(&content).unwrap().unwrap();
    assert_eq!(
        (file.claimed_name.as_str(), file.caption.as_deref()),
        ("../a.txt", Some("a.txt"))
    );
    assert_eq!(file.safe_name(), "a.txt");
    assert_eq!((file.bytes, file.dimensions), (Some(5), None));
    assert_eq!(file.duration, Some(Duration::from_millis(1500)));
    assert!(
        file.thumbnail.is_none(),
        "a thumbnail that cannot be read takes nothing else along"
    );
}

#[test]
fn debug_hides_the_key_and_the_names() {
    let shown = format!("{:?}", ReceivedFile::of_content(&content(&file())).unwrap().unwrap());
    assert!(
        !shown.contains("YD3rEBX") && !shown.contains("8PHy8") && !shown.contains("a.txt"),
        "{shown}"
    );
}
