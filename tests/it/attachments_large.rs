//! A file that is larger than the memory that it may take, through a socket and back.
//!
//! It is told in a process of its own, whose memory is its own too: this test's, started again. The homeserver's side is a
//! socket with a file behind it, since the homeserver of the tests keeps its files in memory.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use mx_crypto_store::backend::{Memory, MemoryDisk};
use mx_e2ee::{Attachment, Client, Options, ReceivedFile};
use mx_test_homeserver::Homeserver;
use mx_transport::{ReqwestTransport, Streams, Transport, TransportError};

use crate::world::key;

/// How large the file is, in mebibytes: three times what it may cost, unless this says more.
const SIZE: &str = "MX_LARGE_FILE_MIB";
/// Tells the process that it is the one that tells the story.
const CHILD: &str = "MX_LARGE_FILE_CHILD";
/// What the file may cost in memory, in bytes, whatever its size: buffers of sockets and of files, and their pages.
const MOST: u64 = 8 * 1024 * 1024;
const MEBIBYTE: u64 = 1024 * 1024;

/// Where the system says how much memory a process takes.
#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_a_file() {
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(story());
        return;
    }
    let told = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "attachments_large::memory_does_not_grow_with_a_file",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&told.stdout);
    assert!(
        told.status.success() && words.contains("grew by"),
        "{words}{}",
        String::from_utf8_lossy(&told.stderr)
    );
}

async fn story() {
    let size = std::env::var(SIZE).map_or(24, |size| size.parse().unwrap());
    let place = tempfile::tempdir().unwrap();
    let client = client(place.path()).await;
    // What is made once is not the file's.
    round_trip(&client, place.path(), "small", MEBIBYTE).await;
    let before = most_memory();
    let began = std::time::Instant::now();
    round_trip(&client, place.path(), "large", size * MEBIBYTE).await;
    let grown = most_memory() - before;
    // What the process that started this one reads, and who measures.
    let mut stdout = std::io::stdout();
    writeln!(
        stdout,
        "{size} MiB sent and received in {:.1} s; memory grew by {} KiB",
        began.elapsed().as_secs_f64(),
        grown / 1024
    )
    .unwrap();
    assert!(grown < MOST, "memory grew by {grown} bytes");
}

async fn round_trip(client: &Client, place: &Path, name: &str, bytes: u64) {
    let path = place.join(name);
    write_pattern(&path, bytes);
    let room = client.create_room(None, &[]).await.unwrap();
    room.send_attachment(Attachment::from_path(&path)).await.unwrap();
    let events = client.receive(std::time::Duration::ZERO).await.unwrap();
    let message = events.into_iter().find_map(|event| match event {
        mx_e2ee::Event::Message(message) => Some(message),
        _ => None,
    });
    let file = ReceivedFile::of(&message.unwrap()).unwrap().unwrap();
    let back = place.join(format!("{name}.back"));
    let received = client.files().max_bytes(bytes).download(&file, &back).await.unwrap();
    assert_eq!(received, bytes);
    assert!(same(&path, &back));
}

async fn client(place: &Path) -> Client {
    let server = Homeserver::new();
    let _user = server.register("alice", "password");
    let files = place.join("homeserver");
    std::fs::create_dir(&files).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let files = files.clone();
            std::thread::spawn(move || serve(connection.unwrap(), &files));
        }
    });
    let way = Split {
        rest: server.transport(),
        files: ReqwestTransport::builder().build().unwrap(),
    };
    let mut options = Options::default();
    options.deliver_own = true;
    Client::builder()
        .homeserver(url)
        .transport(Arc::new(way))
        .backend(Arc::new(Memory::open(&MemoryDisk::new()).unwrap()), key())
        .directory(place.join("client"))
        .options(options)
        .login("alice", "password")
        .await
        .unwrap()
}

/// Files over a socket, everything else in the process.
#[derive(Debug)]
struct Split {
    rest: Arc<dyn Transport>,
    files: ReqwestTransport,
}

#[async_trait]
impl Transport for Split {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        if request.uri().path().ends_with("/media/config") {
            return Ok(http::Response::new(Bytes::from_static(b"{}")));
        }
        self.rest.send(request).await
    }

    fn streams(&self) -> Option<&dyn Streams> {
        Some(&self.files)
    }
}

/// One request of one connection: a file is kept under the number of those before it, or given.
fn serve(mut socket: TcpStream, files: &Path) {
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    if first.starts_with("POST ") {
        let id = std::fs::read_dir(files).unwrap().count();
        let mut file = File::create(files.join(id.to_string())).unwrap();
        std::io::copy(&mut reader.take(length), &mut file).unwrap();
        let answer = format!(r#"{{"content_uri":"mxc://localhost/{id}"}}"#);
        head(&mut socket, answer.len() as u64);
        socket.write_all(answer.as_bytes()).unwrap();
    } else {
        let path = first.split(['?', ' ']).nth(1).unwrap();
        let id = path.rsplit('/').next().unwrap();
        let mut file = File::open(files.join(id)).unwrap();
        head(&mut socket, file.metadata().unwrap().len());
        std::io::copy(&mut file, &mut socket).unwrap();
    }
}

fn head(socket: &mut TcpStream, length: u64) {
    write!(
        socket,
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    )
    .unwrap();
}

/// No two of its pieces are alike.
fn write_pattern(path: &PathBuf, bytes: u64) {
    let mut file = File::create(path).unwrap();
    let mut piece = vec![0x5a; 4096];
    for number in 0..bytes / 4096 {
        piece[..8].copy_from_slice(&number.to_le_bytes());
        file.write_all(&piece).unwrap();
    }
}

fn same(one: &Path, other: &Path) -> bool {
    let (mut one, mut other) = (File::open(one).unwrap(), File::open(other).unwrap());
    let (mut ours, mut theirs) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        let read = one.read(&mut ours).unwrap();
        if read == 0 {
            return other.read(&mut theirs).unwrap() == 0;
        }
        if other.read_exact(&mut theirs[..read]).is_err() || ours[..read] != theirs[..read] {
            return false;
        }
    }
}

/// The most that the process ever held in memory, in bytes.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
