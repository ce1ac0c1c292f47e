//! Rows NW-06, NW-12, NW-14 and NW-32: answers that are cut, garbled, too long or none.

use mx_transport::RequestError;
use ruma::api::client::account::whoami;

use super::*;

const JSON: &[u8] = br#"{"user_id":"@a:hs.test","device_id":"ABC"}"#;

fn whole() -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        JSON.len()
    );
    [head.as_bytes(), JSON].concat()
}

fn chunked() -> Vec<u8> {
    let (first, second) = JSON.split_at(10);
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    [head.as_bytes(), &chunk(first), &chunk(second), b"0\r\n\r\n"].concat()
}

#[tokio::test]
async fn nw_12_an_answer_that_is_cut_at_any_byte_is_none() {
    for whole in [whole(), chunked()] {
        assert_eq!(told(whole.clone()).await.unwrap(), JSON);
        let head = whole.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
        for cut in 0..whole.len() {
            let kind = told(whole[..cut].to_vec()).await.expect_err("it is cut");
            if cut < head {
                assert!(
                    matches!(kind, Kind::Interrupted | Kind::Malformed),
                    "cut at {cut}: {kind:?}"
                );
            } else {
                assert_eq!(kind, Kind::Truncated, "cut at {cut}");
            }
        }
    }
}

#[tokio::test]
async fn nw_12_json_that_is_cut_before_its_right_length_is_unreadable() {
    for cut in 0..JSON.len() {
        let (homeserver, _server) = homeserver(move |_| vec![answer(200, "", &JSON[..cut])]).await;
        let error = homeserver.send(whoami::v3::Request::new()).await.unwrap_err();
        assert!(matches!(error, RequestError::Decode { .. }), "cut at {cut}: {error:?}");
    }
}

#[tokio::test]
async fn nw_12_a_length_that_is_wrong_is_no_answer() {
    let with = |length: &str| {
        let head = format!("HTTP/1.1 200 OK\r\n{length}\r\n");
        [head.as_bytes(), JSON].concat()
    };
    assert_eq!(told(with("content-length: 4000\r\n")).await, Err(Kind::Truncated));
    for garbled in [
        "content-length: -1\r\n",
        "content-length: x\r\n",
        "content-length: 42\r\ncontent-length: 43\r\n",
        "content-length: 99999999999999999999999999\r\n",
    ] {
        assert_eq!(told(with(garbled)).await, Err(Kind::Malformed), "{garbled}");
    }
    // One that is too short cuts the body, which is then no JSON.
    let short = told(with("content-length: 7\r\n")).await.unwrap();
    assert!(serde_json::from_slice::<serde_json::Value>(&short).is_err());
    for garbled in [
        "zz\r\n{}\r\n",
        "-1\r\n{}\r\n",
        "2\r\n{}xx\r\n",
        "ffffffffffffffffff\r\n{}",
    ] {
        let bytes = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{garbled}");
        let kind = told(bytes.clone()).await.expect_err("its chunks are garbled");
        assert!(
            matches!(kind, Kind::Malformed | Kind::Truncated),
            "{garbled:?}: {kind:?}"
        );
    }
}

#[tokio::test]
async fn nw_12_what_is_no_http_is_malformed() {
    for garbage in [
        &b"SSH-2.0-OpenSSH_9.6\r\n"[..],
        b"\x15\x03\x01\x00\x02\x02\x50 and more than that\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nname: \x01\x02\0\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
    ] {
        assert_eq!(told(garbage).await, Err(Kind::Malformed), "{}", garbage.escape_ascii());
    }
    assert_eq!(told(&b""[..]).await, Err(Kind::Interrupted), "nothing is no garbage");
}

#[tokio::test]
async fn nw_14_json_in_another_encoding_than_utf_8_is_unreadable() {
    let text = String::from_utf8(JSON.to_vec()).unwrap();
    let utf_16 = |order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect::<Vec<u8>>();
    for body in [
        [b"\xef\xbb\xbf", JSON].concat(),
        utf_16(u16::to_le_bytes),
        utf_16(u16::to_be_bytes),
        [b"\xff\xfe", utf_16(u16::to_le_bytes).as_slice()].concat(),
        text.replace("ABC", "\u{1}").into_bytes(),
        JSON.iter()
            .map(|byte| if *byte == b'B' { 0xff } else { *byte })
            .collect(),
    ] {
        let shown = body.escape_ascii().to_string();
        let (homeserver, _server) = homeserver(move |_| vec![answer(200, "", &body)]).await;
        let error = homeserver.send(whoami::v3::Request::new()).await.unwrap_err();
        assert!(matches!(error, RequestError::Decode { .. }), "{shown}: {error:?}");
    }
}

#[tokio::test]
async fn nw_06_what_is_no_answer_of_a_homeserver_is_never_success() {
    for (status, body) in [
        (502, "<html>Bad Gateway</html>"),
        (200, "<html>Welcome to the hotel</html>"),
        (200, "{}"),
        (200, "[]"),
        (200, ""),
        (200, "null"),
        (204, ""),
        (401, "<html>Who are you?</html>"),
        (403, "<html>Pay first</html>"),
    ] {
        let (homeserver, _server) = homeserver(move |_| vec![answer(status, "", body.as_bytes())]).await;
        let error = homeserver.send(whoami::v3::Request::new()).await.unwrap_err();
        match error {
            RequestError::Decode { .. } => assert!(status < 300, "{status} {body}"),
            RequestError::Api { errcode: None, .. } => assert!(status > 300, "{status} {body}"),
            other => panic!("{status} {body}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn nw_23_a_captive_portal_and_a_proxy_are_no_logout() {
    for status in [401, 403, 407, 511] {
        let (homeserver, _server) = homeserver(move |_| vec![answer(status, "", b"<html>login</html>")]).await;
        let error = homeserver.send(whoami::v3::Request::new()).await.unwrap_err();
        assert_eq!(error.status().map(|status| status.as_u16()), Some(status));
        assert!(!matches!(error, RequestError::LoggedOut { .. }));
        assert!(!error.to_string().contains("html"), "{error}");
    }
}

#[tokio::test]
async fn nw_32_a_head_without_end_is_not_read_to_its_end() {
    let many = Bytes::from_static(b"x-header: value\r\n");
    let long = Bytes::from(vec![b'x'; 64 * 1024]);
    for steps in [
        vec![Step::Repeat(many, 100_000)],
        vec![Step::Write(Bytes::from_static(b"x-header: ")), Step::Repeat(long, 16)],
    ] {
        let server = server(move |_, _| {
            let status = Step::Write(Bytes::from_static(b"HTTP/1.1 200 OK\r\n"));
            let end = Step::Write(Bytes::from_static(b"\r\ncontent-length: 0\r\n\r\n"));
            [vec![status], steps.clone(), vec![end]].concat()
        })
        .await;
        let error = client().send(get(&server.url())).await.unwrap_err();
        assert!(matches!(error.kind(), Kind::Malformed), "{error:?}");
    }
}
