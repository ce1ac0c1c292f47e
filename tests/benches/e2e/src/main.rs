//! Ours against matrix-sdk with its SQLite store, on the same homeserver in the same run.
#![expect(clippy::print_stdout, reason = "a measurement talks to people and to its processes")]

mod contender;
mod crowd;
mod ours;
mod process;
mod sdk;
mod server;

use anyhow::{Result, bail};

use contender::{Contender, Task};
use process::Figures;
use server::Server;

const USAGE: &str = "usage: e2e --homeserver URL [--quick]   (start it as `cargo xtask bench e2e`)";

/// What is measured, in which unit, and what came out.
type Rows = Vec<(String, &'static str, f64)>;

/// How much is done.
#[derive(Clone, Copy, Debug)]
struct Size {
    messages: usize,
    rooms: usize,
    devices: usize,
    rounds: usize,
}

const FULL: Size = Size {
    messages: 500,
    rooms: 20,
    devices: 200,
    rounds: 5,
};
const QUICK: Size = Size {
    messages: 40,
    rooms: 4,
    devices: 20,
    rounds: 1,
};

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["--homeserver", url] => compare(url, FULL).await,
        ["--homeserver", url, "--quick"] => compare(url, QUICK).await,
        ["--child", task] => process::child(serde_json::from_str(task)?).await,
        _ => bail!("{USAGE}"),
    }
}

/// Both in turns, and a table of medians: of the values, and of the ratios within a round.
async fn compare(url: &str, size: Size) -> Result<()> {
    let server = Server::new(url)?;
    let mut rounds = Vec::new();
    for round in 0..size.rounds {
        // Whoever is first finds the homeserver colder.
        let (ours, sdk) = if round % 2 == 0 {
            let ours = measure(&server, Contender::Ours, size).await?;
            (ours, measure(&server, Contender::Sdk, size).await?)
        } else {
            let sdk = measure(&server, Contender::Sdk, size).await?;
            (measure(&server, Contender::Ours, size).await?, sdk)
        };
        rounds.push((ours, sdk));
    }
    println!(
        "Medians of {} rounds.\n\n| | mx-e2ee | matrix-sdk 0.18 | ratio |\n|---|---:|---:|---:|",
        size.rounds
    );
    let Some((rows, _)) = rounds.first() else { return Ok(()) };
    for (row, (name, unit, _)) in rows.iter().enumerate() {
        let value = |of: &dyn Fn(&(Rows, Rows)) -> f64| median(rounds.iter().map(of).collect());
        let mine = value(&|(ours, _)| ours[row].2);
        let theirs = value(&|(_, sdk)| sdk[row].2);
        let ratio = value(&|(ours, sdk)| ours[row].2 / sdk[row].2);
        println!("| {name}, {unit} | {mine:.1} | {theirs:.1} | {ratio:.2} |");
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What one of them does, in a process of its own for each thing.
async fn measure(server: &Server, who: Contender, size: Size) -> Result<Rows> {
    let directory = tempfile::tempdir()?;
    let user = server.user("measured").await?;
    let one = |task: Task| process::run(server, who, &user.name, directory.path(), task);
    let login = one(Task::Login).await?;
    let token = login.token.clone();
    // Somebody listens in every room: one device.
    let listener = crowd::gather(server, 1, 1).await?;
    let room = crowd::room(server, &token, &listener).await?;
    let settle = one(Task::Sync).await?;
    let first = one(Task::Send {
        rooms: vec![room.clone()],
        messages: 1,
    })
    .await?;
    let again = one(Task::Send {
        rooms: vec![room.clone()],
        messages: 1,
    })
    .await?;
    let single = one(Task::Send {
        rooms: vec![room.clone()],
        messages: size.messages,
    })
    .await?;
    let mut rooms = Vec::new();
    for _ in 0..size.rooms {
        rooms.push(crowd::room(server, &token, &listener).await?);
    }
    one(Task::Sync).await?;
    let many = one(Task::Send {
        rooms,
        messages: size.messages / size.rooms,
    })
    .await?;
    crowd::flood(server, &token, &room, size.messages).await?;
    let received = one(Task::Receive {
        messages: size.messages,
    })
    .await?;
    let everybody = crowd::gather(server, size.devices / 10, 10).await?;
    let large = crowd::room(server, &token, &everybody).await?;
    one(Task::Sync).await?;
    let crowded = one(Task::Send {
        rooms: vec![large],
        messages: 1,
    })
    .await?;
    println!(
        "{who:?}: login {:.0} ms, first sync {:.0} ms",
        login.total_ms, settle.total_ms
    );
    Ok(table(
        size,
        [&first, &again, &single, &many, &received, &crowded],
        process::size(directory.path()),
    ))
}

fn table(size: Size, figures: [&Figures; 6], store_bytes: f64) -> Rows {
    let [first, again, single, many, received, crowded] = figures;
    vec![
        ("start to first message of all".to_owned(), "ms", first.total_ms),
        (
            "start to first message after a restart".to_owned(),
            "ms",
            again.total_ms,
        ),
        ("sent in one room".to_owned(), "messages/s", single.rate),
        (format!("sent in {} rooms at once", size.rooms), "messages/s", many.rate),
        ("received".to_owned(), "messages/s", received.rate),
        (
            format!("first send into a room of {} devices", size.devices),
            "ms",
            crowded.total_ms,
        ),
        ("resident after sending".to_owned(), "MiB", single.rss_mib),
        ("resident after receiving".to_owned(), "MiB", received.rss_mib),
        ("store at the end".to_owned(), "KiB", store_bytes / 1024.0),
    ]
}
