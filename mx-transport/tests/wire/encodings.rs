//! Row NW-13: bodies that grow when they are unpacked, and bodies without an end.

use std::io::{self, Write};

use async_trait::async_trait;
use flate2::{Compression, write::GzEncoder};
use mx_transport::{Sink, Streams};

use super::{memory::Growth, *};

const MIB: usize = 1024 * 1024;

fn zipped(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap().into()
}

/// A body in this encoding, with its length.
fn encoded(encoding: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-encoding: {encoding}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The head of a gzip stream, and a piece of it that stands for a mebibyte, however often it comes.
fn bomb() -> (Bytes, Bytes) {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![0; MIB]).unwrap();
    encoder.flush().unwrap();
    let mut whole = Bytes::from(encoder.get_ref().clone());
    let head = whole.split_to(10);
    (head, whole)
}

/// A server that sends a gibibyte: this, and then that over and over, in this encoding.
async fn endless(encoding: &'static str, begin: Bytes, piece: Bytes) -> Server {
    server(move |_, _| {
        let head = format!("HTTP/1.1 200 OK\r\n{encoding}connection: close\r\n\r\n");
        vec![
            Step::Write(head.into()),
            Step::Write(begin.clone()),
            Step::Repeat(piece.clone(), 1024),
            Step::Close,
        ]
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nw_13_a_gibibyte_is_left_at_the_cap_whether_it_is_packed_or_not() {
    let test = "encodings::nw_13_a_gibibyte_is_left_at_the_cap_whether_it_is_packed_or_not";
    if !memory::is_alone(test).await {
        return;
    }
    let cap = 32 * MIB;
    let [client, lavish] = [cap, 4 * cap].map(|cap| ReqwestTransport::builder().max_body_bytes(cap).build().unwrap());
    let (begin, piece) = bomb();
    assert!(piece.len() < 4096, "a mebibyte in {} bytes", piece.len());
    let bomb = endless("content-encoding: gzip\r\n", begin, piece).await;
    let stream = endless("", Bytes::new(), vec![0; MIB].into()).await;
    let announced = says(&b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n{"[..]).await;
    // What a client needs for itself, whatever it is answered.
    for client in [&client, &lavish] {
        client
            .send(get(&says(encoded("gzip", &zipped(b"{}"))).await.url()))
            .await
            .unwrap();
    }
    let growth = Growth::begin();
    for (what, server) in [("bomb", &bomb), ("stream", &stream), ("announced", &announced)] {
        let error = client.send(get(&server.url())).await.unwrap_err();
        assert_eq!(error.kind(), Kind::BodyTooLarge, "{what}: {error:?}");
        let mut sink = Counting(0);
        let error = client.download(get(&server.url()), &mut sink).await.unwrap_err();
        assert_eq!(error.kind(), Kind::BodyTooLarge, "{what}: {error:?}");
        assert!(sink.0 <= 8 * MIB, "{} bytes", sink.0);
    }
    let Some(growth) = growth else { return };
    let grown = growth.bytes();
    assert!(grown <= 2 * cap, "{grown} bytes with a cap of {cap}");
    // What is measured is what is kept: with a cap that is higher it is more.
    lavish.send(get(&bomb.url())).await.unwrap_err();
    assert!(growth.bytes() > 2 * cap, "{} bytes", growth.bytes());
}

/// Takes 8 MiB, and keeps nothing.
#[derive(Debug)]
struct Counting(usize);

#[async_trait]
impl Sink for Counting {
    fn max_bytes(&self) -> u64 {
        8 * MIB as u64
    }

    async fn restart(&mut self) -> io::Result<()> {
        self.0 = 0;
        Ok(())
    }

    async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        self.0 += chunk.len();
        Ok(())
    }
}

#[tokio::test]
async fn nw_13_gzip_is_asked_for_and_undone() {
    let packed = zipped(b"{\"some\":\"body\"}");
    let server = server(move |_, _| vec![Step::Write(encoded("gzip", &packed).into()), Step::Close]).await;
    let answer = client().send(get(&server.url())).await.unwrap();
    assert_eq!(answer.body(), "{\"some\":\"body\"}");
    assert!(answer.headers().get("content-encoding").is_none());
    assert_eq!(server.seen()[0].header("accept-encoding"), Some("gzip"));
    assert_eq!(told(encoded("identity", b"{}")).await.unwrap(), "{}");
}

#[tokio::test]
async fn nw_13_what_was_not_asked_for_is_refused() {
    let packed = zipped(b"{}");
    let twice = zipped(&packed);
    for (encoding, body) in [
        ("gzip, gzip", &twice),
        ("gzip, br", &packed),
        ("br", &packed),
        ("zstd", &packed),
        ("deflate", &packed),
        ("x-unknown", &packed),
    ] {
        let kind = told(encoded(encoding, body)).await.expect_err(encoding);
        assert_eq!(kind, Kind::Malformed, "{encoding}");
    }
    let once = told(encoded("gzip\r\ncontent-encoding: gzip", &twice)).await.unwrap();
    assert_eq!(once, packed, "one is undone, and never another one");
    assert_eq!(told(encoded("gzip", b"this is not packed")).await, Err(Kind::Malformed));
    for cut in 1..packed.len() {
        let kind = told(encoded("gzip", &packed[..cut])).await.expect_err("it is cut");
        assert!(
            matches!(kind, Kind::Truncated | Kind::Malformed),
            "cut at {cut}: {kind:?}"
        );
    }
    let mut flipped = packed.to_vec();
    let crc = flipped.len() - 6;
    flipped[crc] ^= 1;
    assert!(
        told(encoded("gzip", &flipped)).await.is_err(),
        "its checksum is another one"
    );
}
