//! Clauses about bodies that do not fit into memory.

use std::{io, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{answer, clause::Clause};
use crate::{Chunks, Sink, Source, Transport, TransportErrorKind as Kind};

/// More than any buffer on its way, in bytes, and no multiple of one.
const LONG: usize = 700_001;

fn long() -> Bytes {
    (0..LONG)
        .map(|number| number.to_le_bytes()[0])
        .collect::<Vec<u8>>()
        .into()
}

/// A file in memory, which breaks in its middle if it is told to.
#[derive(Debug)]
pub(super) struct Given {
    content: Bytes,
    breaks: bool,
}

impl Given {
    pub(super) const fn whole(content: Bytes) -> Self {
        Self { content, breaks: false }
    }
}

impl Source for Given {
    fn bytes(&self) -> u64 {
        self.content.len() as u64
    }

    fn open(&self) -> Chunks {
        let half = self.content.len() / 2;
        let second = if self.breaks {
            Err(io::Error::other("the disk is gone"))
        } else {
            Ok(self.content.slice(half..))
        };
        stream::iter([Ok(self.content.slice(..half)), second]).boxed()
    }
}

/// A file in memory, whose disk is full if it is told to.
#[derive(Debug, Default)]
pub(super) struct Taken {
    content: Vec<u8>,
    max_bytes: u64,
    full: bool,
}

impl Taken {
    pub(super) const fn up_to(max_bytes: u64) -> Self {
        Self {
            content: Vec::new(),
            max_bytes,
            full: false,
        }
    }
}

#[async_trait]
impl Sink for Taken {
    fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    async fn restart(&mut self) -> io::Result<()> {
        self.content.clear();
        Ok(())
    }

    async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        if self.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.content.extend_from_slice(&chunk);
        Ok(())
    }
}

/// An upload arrives whole, with its length announced.
pub async fn a_file_is_sent_whole(transport: &dyn Transport) {
    let clause = Clause("a_file_is_sent_whole");
    let server = clause.server(|_, _| vec![answer(200, "", b"{}")]).await;
    for content in [long(), Bytes::new()] {
        let given: Arc<dyn Source> = Arc::new(Given::whole(content.clone()));
        let request = clause.request_with("POST", &format!("{}/upload", server.url()), given);
        let got = clause.ok(clause.soon(clause.streams(transport).upload(request)).await);
        clause.holds(got.body() == &b"{}"[..], "the answer is another one");
        let Some(seen) = server.seen().pop() else {
            clause.broken("nothing arrived")
        };
        clause.holds(seen.body == content, "another file arrived");
        let length = content.len().to_string();
        clause.holds(
            seen.header("content-length") == Some(length.as_str()),
            "its length was not announced",
        );
    }
}

/// A download is in the sink whole, and nowhere else.
pub async fn a_file_arrives_whole(transport: &dyn Transport) {
    let clause = Clause("a_file_arrives_whole");
    let server = clause
        .server(|_, seen| match seen.target() {
            "/empty" => vec![answer(200, "", b"")],
            _ => vec![answer(200, "", &long())],
        })
        .await;
    for (path, content) in [("long", long()), ("empty", Bytes::new())] {
        let mut sink = Taken::up_to(content.len() as u64);
        sink.content.extend_from_slice(b"of an earlier attempt");
        let request = clause.request("GET", &format!("{}/{path}", server.url()));
        let got = clause.ok(clause
            .soon(clause.streams(transport).download(request, &mut sink))
            .await);
        clause.holds(
            got.status().is_success() && got.body().is_empty(),
            "the file is in the answer",
        );
        clause.holds(sink.content == content, "another file is in the sink");
    }
}

/// A file that is larger than the sink takes is refused, whether its length was announced or not.
pub async fn a_file_over_the_cap_is_refused(transport: &dyn Transport) {
    let clause = Clause("a_file_over_the_cap_is_refused");
    for head in ["content-length: 700001", "connection: close"] {
        let whole: Bytes = [format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes(), &long()]
            .concat()
            .into();
        let server = clause
            .server(move |_, _| vec![super::Step::Write(whole.clone()), super::Step::Close])
            .await;
        let mut sink = Taken::up_to(LONG as u64 - 1);
        let request = clause.request("GET", &server.url());
        let got = clause
            .soon(clause.streams(transport).download(request, &mut sink))
            .await;
        clause.fails(got, "a file that is too large", |kind| kind == Kind::BodyTooLarge);
        clause.holds(
            (sink.content.len() as u64) < LONG as u64,
            "more was written than the sink takes",
        );
    }
}

/// What a server says instead of a file is in the answer, and not in the sink.
pub async fn a_refusal_is_no_file(transport: &dyn Transport) {
    let clause = Clause("a_refusal_is_no_file");
    let server = clause
        .server(|_, _| vec![answer(404, "", b"{\"errcode\":\"M_NOT_FOUND\"}")])
        .await;
    let mut sink = Taken::up_to(LONG as u64);
    let request = clause.request("GET", &server.url());
    let got = clause.ok(clause
        .soon(clause.streams(transport).download(request, &mut sink))
        .await);
    clause.holds(
        got.status().as_u16() == 404 && got.body().starts_with(b"{\"errcode\""),
        "a refusal came as something else",
    );
    clause.holds(sink.content.is_empty(), "a refusal is in the sink");
}

/// A source that cannot be read is our fault, and is told so.
pub async fn a_broken_source_is_told(transport: &dyn Transport) {
    let clause = Clause("a_broken_source_is_told");
    let server = clause.server(|_, _| vec![answer(200, "", b"{}")]).await;
    let given: Arc<dyn Source> = Arc::new(Given {
        content: long(),
        breaks: true,
    });
    let request = clause.request_with("POST", &server.url(), given);
    let got = clause.soon(clause.streams(transport).upload(request)).await;
    clause.fails(got, "a source that breaks", |kind| kind == Kind::LocalBody);
}

/// A sink that cannot be written is our fault, and is told so.
pub async fn a_broken_sink_is_told(transport: &dyn Transport) {
    let clause = Clause("a_broken_sink_is_told");
    let server = clause.server(|_, _| vec![answer(200, "", &long())]).await;
    let mut sink = Taken {
        max_bytes: LONG as u64,
        full: true,
        ..Taken::default()
    };
    let request = clause.request("GET", &server.url());
    let got = clause
        .soon(clause.streams(transport).download(request, &mut sink))
        .await;
    clause.fails(got, "a sink that is full", |kind| kind == Kind::LocalBody);
}
