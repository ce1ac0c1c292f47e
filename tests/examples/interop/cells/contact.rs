//! Cell 1: first contact.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::{
    peer::{Kind, Peer},
    stage::{self, PASSWORD, Stage},
};

pub(super) async fn both_ways(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let (ours, theirs) = (stage.peer(Kind::Ours, "ours").await?, stage.peer(kind, "theirs").await?);
    let room = stage.room(&ours, &[&theirs]).await?;
    stage.talk(&room, &[&ours, &theirs]).await?;
    let second = stage.room(&theirs, &[&ours]).await?;
    stage.talk(&second, &[&theirs, &ours]).await?;
    // Devices that never met, and theirs speaks first.
    let (ours, theirs) = (stage.peer(Kind::Ours, "ours").await?, stage.peer(kind, "theirs").await?);
    let third = stage.room(&theirs, &[&ours]).await?;
    stage.talk(&third, &[&theirs, &ours]).await?;
    let messages = stage::sound(&stage.server, &third, &ours).await?;
    Ok(format!("3 rooms, {messages} messages in the last"))
}

pub(super) async fn three(stage: &Stage<'_>) -> Result<String> {
    let ours = stage.peer(Kind::Ours, "ours").await?;
    let (js, nio) = (stage.peer(Kind::Js, "js").await?, stage.peer(Kind::Nio, "nio").await?);
    let room = stage.room(&ours, &[&js, &nio]).await?;
    stage.talk(&room, &[&ours, &js, &nio, &nio, &js, &ours]).await?;
    let messages = stage::sound(&stage.server, &room, &ours).await?;
    Ok(format!("{messages} messages, each read by the two others"))
}

/// What the first line of `mx` says under this name.
pub(super) fn text(lines: &[Value], name: &str) -> Result<String> {
    let found = lines.first().and_then(|line| line[name].as_str());
    found
        .map(str::to_owned)
        .with_context(|| format!("mx printed no {name}"))
}

/// `mx`, as a shell starts it.
pub(super) struct Mx {
    program: PathBuf,
    directory: PathBuf,
}

impl Mx {
    pub(super) fn new(stage: &Stage<'_>) -> Result<Self> {
        let example = std::env::current_exe()?;
        let built = example
            .parent()
            .and_then(std::path::Path::parent)
            .context("built nowhere")?;
        let program = built.join(format!("mx{}", std::env::consts::EXE_SUFFIX));
        ensure!(
            program.exists(),
            "there is no mx: build it with `cargo build -p mx-e2ee --bin mx`"
        );
        Ok(Self {
            program,
            directory: stage.directory(),
        })
    }

    pub(super) async fn run(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let output = Command::new(&self.program)
            .args(["--json", "--directory"])
            .arg(&self.directory)
            .args(arguments)
            .env("MX_PASSWORD", PASSWORD)
            .stdin(Stdio::null())
            .output()
            .await?;
        let what = arguments.first().copied().unwrap_or_default();
        ensure!(
            output.status.success(),
            "mx {what}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let lines = String::from_utf8(output.stdout)?;
        lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}

pub(super) async fn binary(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let (mx, theirs) = (Mx::new(stage)?, stage.peer(kind, "theirs").await?);
    let user = stage.user(&stage.server, "mx").await?;
    mx.run(&["login", "--homeserver", stage.server.url(), "--user", &user])
        .await?;
    let who = mx.run(&["whoami"]).await?;
    let made = mx.run(&["room", "create", "--invite", &theirs.user]).await?;
    let (room, device) = (text(&made, "room_id")?, text(&who, "device_id")?);
    stage::go(&stage.server, "join", &room, &theirs).await?;
    let said = stage.text("mx");
    let sent = mx.run(&["send", &room, &said]).await?;
    let read = theirs.reads(&text(&sent, "event_id")?).await?;
    ensure!(
        read["content"]["body"] == said.as_str() && read["encrypted"] == true,
        "it read {read}"
    );
    answered(stage, &mx, &theirs, &room, &device).await
}

/// The peer answers, and `mx listen` prints it, once.
async fn answered(stage: &Stage<'_>, mx: &Mx, theirs: &Peer, room: &str, device: &str) -> Result<String> {
    let answer = stage.text("answer");
    let event = theirs.say(room, &answer).await?;
    let printed = |lines: &[Value]| lines.iter().filter(|line| line["event_id"] == event.as_str()).count();
    let mut times = 0;
    for _ in 0..20 {
        let lines = mx.run(&["listen", "--once"]).await?;
        times += printed(&lines);
        let same = lines
            .iter()
            .any(|line| line["content"]["body"] == answer.as_str() && !line["encryption"].is_null());
        ensure!(times == 0 || same, "mx printed something else");
        if times > 0 {
            break;
        }
    }
    times += printed(&mx.run(&["listen", "--once"]).await?);
    ensure!(times == 1, "mx printed the answer {times} times");
    Ok(format!("device {device} of mx sent and listened"))
}
