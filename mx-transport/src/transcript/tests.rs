//! What is written down, and told again.

use std::{collections::VecDeque, io::Read, sync::Mutex};

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::{FileSink, FileSource, Phase, Transport, TransportError, TransportErrorKind as Kind, layer::Answer};

/// Gives prepared answers.
#[derive(Debug, Default)]
struct Script(Mutex<VecDeque<Answer>>);

#[async_trait]
impl Transport for Script {
    async fn send(&self, _: http::Request<Bytes>) -> Answer {
        self.0
            .lock()
            .unwrap()
            .pop_front()
            .expect("asked more often than expected")
    }
}

fn script(answers: Vec<Answer>) -> Script {
    Script(Mutex::new(answers.into()))
}

fn answer(status: u16, body: impl Into<Bytes>) -> Answer {
    let response = http::Response::builder().status(status);
    let response = response
        .header("content-type", "application/json")
        .header("set-cookie", "secret-cookie");
    Ok(response.body(body.into()).unwrap())
}

fn request(method: &str, path: &str, body: &str) -> http::Request<Bytes> {
    http::Request::builder()
        .method(method)
        .uri(format!("https://hs.test{path}"))
        .header("authorization", "Bearer secret-header")
        .body(Bytes::copy_from_slice(body.as_bytes()))
        .unwrap()
}

const LOGIN: &str = r#"{"type":"m.login.password","password":"secret-password","identifier":{"user":"@a:hs.test"}}"#;

#[tokio::test]
async fn what_was_recorded_is_told_again_without_its_secrets() {
    let binary = Bytes::from_static(&[0xff, 0x00, 0xfe]);
    let record = Record::in_memory(script(vec![
        answer(200, r#"{"access_token":"secret-token","user_id":"@a:hs.test"}"#),
        answer(429, r#"{"retry_after_ms":5}"#),
        Err(TransportError::new(Kind::Timeout(Phase::Body))),
        answer(200, binary.clone()),
        answer(204, ""),
    ]))
    .verbatim();
    let form = || {
        let mut request = request(
            "POST",
            "/token",
            "grant_type=refresh_token&refresh_token=secret-refresh",
        );
        let kind = "application/x-www-form-urlencoded".parse().unwrap();
        request.headers_mut().insert("content-type", kind);
        request
    };
    let story = [
        request("POST", "/login?access_token=secret-query&x=1", LOGIN),
        request("PUT", "/send/1", r#"{ "b":1, "a":2 }"#),
        request("GET", "/sync?since=s1", ""),
        form(),
        request("GET", "/nothing", ""),
    ];
    let mut answers = Vec::new();
    for request in &story {
        answers.push(record.send(request.clone()).await);
    }
    let transcript = record.transcript().unwrap();
    assert!(!transcript.contains("secret-"), "{transcript}");
    assert!(
        transcript.contains(r#"{ \"b\":1, \"a\":2 }"#),
        "what holds no secret is kept as it was"
    );

    let replay = Replay::from_transcript(&transcript).unwrap();
    for (number, (request, before)) in story.into_iter().zip(answers).enumerate() {
        match (replay.send(request).await, before) {
            (Ok(told), Ok(before)) => {
                assert_eq!(told.status(), before.status());
                let same = told.body() == before.body();
                assert_eq!(same, number != 0, "the first one's token was taken out");
                assert_eq!(told.headers()["content-type"], "application/json");
            }
            (Err(told), Err(before)) => assert_eq!(told.kind(), before.kind()),
            (told, before) => panic!("{told:?} and {before:?}"),
        }
    }
    assert_eq!(replay.left(), 0);
}

#[tokio::test]
async fn another_request_is_refused_and_the_transcript_waits() {
    let record = Record::in_memory(script(vec![answer(200, "{}"), answer(200, "{}")]));
    record.send(request("PUT", "/send/1?a=1", r#"{"x":1}"#)).await.unwrap();
    record.send(request("GET", "/sync", "")).await.unwrap();
    let replay = Replay::from_transcript(&record.transcript().unwrap()).unwrap();
    for (request, why) in [
        (request("GET", "/sync", ""), "PUT /send/1"),
        (request("POST", "/send/1?a=1", r#"{"x":1}"#), "PUT /send/1"),
        (request("PUT", "/send/1?a=2", r#"{"x":1}"#), "another query"),
        (request("PUT", "/send/1?a=1", r#"{"x":2}"#), "another body"),
    ] {
        let error = replay.send(request).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Build);
        let words = format!("{error:?}");
        assert!(words.contains(why), "{words}");
    }
    assert_eq!(replay.left(), 2);
    replay.send(request("PUT", "/send/1?a=1", r#"{"x":1}"#)).await.unwrap();
    replay.send(request("GET", "/sync", "")).await.unwrap();
    let error = replay.send(request("GET", "/sync", "")).await.unwrap_err();
    assert!(format!("{error:?}").contains("nothing more"));
}

#[test]
fn what_is_no_transcript_is_refused_by_its_line() {
    let line = r#"{"method":"GET","path":"/","answer":{"status":200}}"#;
    for (text, number) in [
        (String::new(), 1),
        ("{\"mx-transcript\":2}\n".to_owned(), 1),
        (format!("{line}\n"), 1),
        (format!("{HEADER}\n{line}\n\n{{\"method\":\"GET\"}}\n"), 4),
        (format!("{HEADER}\nnonsense"), 2),
    ] {
        match Replay::from_transcript(&text) {
            Err(TranscriptError::Malformed { line }) => assert_eq!(line, number, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    assert_eq!(
        Replay::from_transcript(&format!("{HEADER}\r\n{line}\r\n"))
            .unwrap()
            .left(),
        1
    );
}

#[tokio::test]
async fn a_file_of_a_transcript_is_its_owners_and_never_another_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("transcript");
    let record = Record::to_file(script(vec![answer(200, "{}")]), &path).unwrap();
    record.send(request("POST", "/login", LOGIN)).await.unwrap();
    record.finish().unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), record.transcript().unwrap());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(
        Record::to_file(Script::default(), &path).is_err(),
        "what is there is kept"
    );
    assert_eq!(Replay::from_file(&path).unwrap().left(), 1);
}

/// Never answers.
#[derive(Debug)]
struct Silent;

#[async_trait]
impl Transport for Silent {
    async fn send(&self, _: http::Request<Bytes>) -> Answer {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_dropped_is_left_out_and_holds_nothing_up() {
    let record = Record::in_memory(Silent);
    let second = std::time::Duration::from_secs(1);
    let dropped = tokio::time::timeout(second, record.send(request("GET", "/", ""))).await;
    assert!(dropped.is_err());
    assert_eq!(record.transcript().unwrap(), format!("{HEADER}\n"));
}

#[tokio::test]
async fn files_are_recorded_and_told_too() {
    let line = |method: &str, body: &str, told: &str| {
        format!(r#"{{"method":"{method}","path":"/media"{body},"answer":{{"status":200{told}}}}}"#)
    };
    let text = format!(
        "{HEADER}\n{}\n{}\n",
        line("POST", r#","body":{"text":"file"}"#, r#","body":{"text":"{}"}"#),
        line("GET", "", r#","body":{"base64":"/wD+"}"#),
    );
    // A replay is a transport that carries files: what was told is recorded again.
    let record = Record::in_memory(Replay::from_transcript(&text).unwrap());
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, b"file").unwrap();
    let source: std::sync::Arc<dyn crate::Source> = std::sync::Arc::new(FileSource::new(file).unwrap());
    let upload = http::Request::post("https://hs.test/media").body(source).unwrap();
    assert_eq!(record.streams().unwrap().upload(upload).await.unwrap().body(), "{}");
    let mut received = tempfile::tempfile().unwrap();
    let mut sink = FileSink::new(received.try_clone().unwrap(), 3);
    let download = http::Request::get("https://hs.test/media").body(Bytes::new()).unwrap();
    let answer = record.streams().unwrap().download(download, &mut sink).await.unwrap();
    assert!(answer.body().is_empty());
    let mut content = Vec::new();
    std::io::Seek::rewind(&mut received).unwrap();
    received.read_to_end(&mut content).unwrap();
    assert_eq!(content, [0xff, 0x00, 0xfe]);
    assert_eq!(record.transcript().unwrap(), text);
}

#[tokio::test]
async fn nw_31_half_a_login_is_not_written_down_and_is_as_unreadable_when_it_is_told() {
    let cut = r#"{"user_id":"@a:hs.test","access_token":"secret-tok"#;
    let page = "<html>Bad Gateway</html>";
    let record = Record::in_memory(script(vec![answer(200, cut), answer(502, page)]));
    let story = || {
        [
            request("POST", "/login", "half a form, secret-password"),
            request("GET", "/sync", ""),
        ]
    };
    for request in story() {
        record.send(request).await.unwrap();
    }
    let transcript = record.transcript().unwrap();
    assert!(
        !transcript.contains("secret") && !transcript.contains("html"),
        "{transcript}"
    );
    let replay = Replay::from_transcript(&transcript).unwrap();
    let [login, sync] = story();
    let other = request("POST", "/login", "another one");
    assert_eq!(replay.send(other).await.unwrap_err().kind(), Kind::Build);
    let told = replay.send(login).await.unwrap();
    assert_eq!((told.status().as_u16(), told.body().len()), (200, cut.len()));
    assert!(serde_json::from_slice::<serde_json::Value>(told.body()).is_err());
    assert_eq!(replay.send(sync).await.unwrap().status(), 502);
}

#[tokio::test]
async fn nw_31_what_is_said_instead_of_a_file_is_no_file() {
    let record = Record::in_memory(Half);
    let mut sink = FileSink::new(tempfile::tempfile().unwrap(), 100);
    let download = http::Request::get("https://hs.test/media").body(Bytes::new()).unwrap();
    let answer = record.streams().unwrap().download(download, &mut sink).await.unwrap();
    assert_eq!(answer.status(), 404);
    let transcript = record.transcript().unwrap();
    assert!(
        transcript.contains(r#"{\"x\":1}"#) && !transcript.contains("half"),
        "{transcript}"
    );
}

/// Begins to fill a sink, and then says that there is no file.
#[derive(Debug)]
struct Half;

#[async_trait]
impl Transport for Half {
    async fn send(&self, _: http::Request<Bytes>) -> Answer {
        answer(404, "")
    }

    fn streams(&self) -> Option<&dyn crate::Streams> {
        Some(self)
    }
}

#[async_trait]
impl crate::Streams for Half {
    async fn upload(&self, _: http::Request<std::sync::Arc<dyn crate::Source>>) -> Answer {
        answer(404, "")
    }

    async fn download(&self, _: http::Request<Bytes>, sink: &mut dyn crate::Sink) -> Answer {
        sink.write(Bytes::from_static(b"half a file")).await.unwrap();
        answer(404, r#"{"x":1}"#)
    }
}

#[tokio::test]
async fn what_is_in_the_file_is_not_in_memory_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("transcript");
    let answers = (0..10).map(|_| answer(200, "{}")).collect();
    let record = Record::to_file(script(answers), &path).unwrap();
    for number in 0..10 {
        record.send(request("GET", &format!("/{number}"), "")).await.unwrap();
    }
    assert_eq!(record.lines_in_memory(), 0);
    let text = record.transcript().unwrap();
    assert_eq!(text.lines().count(), 11);
    assert!(text.lines().last().unwrap().contains("/9"), "{text}");
}
