//! One play an example: what it is asked to do, and what it must have done.

use std::slice::from_ref;

use anyhow::{Result, ensure};
use bytes::Bytes;
use mx_e2ee::Attachment;
use mx_test_homeserver::Fault;
use ruma::{OwnedUserId, UserId};
use serde_json::json;

use crate::{bot::Bot, stage::Stage};

pub(crate) async fn echo_bot(stage: &mut Stage) -> Result<()> {
    let user = stage.bot.clone();
    let mut bot = Bot::start(stage.example("echo_bot")?)?;
    let first = bot.says("is here").await?;
    let room = stage.room(from_ref(&user)).await?;
    stage.all_joined(&room).await?;
    stage.say(&room, "is anybody here?").await?;
    let echo = stage
        .hears(&user, |message| message.body() == Some("is anybody here?"))
        .await?;
    ensure!(echo.content["msgtype"] == "m.notice", "other bots would answer it");
    bot.says("answered").await?;
    bot.stop().await?;

    println!("(what is said while it is away waits for it)");
    stage.say(&room, "and now?").await?;
    let mut bot = Bot::start(stage.example("echo_bot")?)?;
    ensure!(bot.says("is here").await? == first, "it is another device");
    stage.hears(&user, |message| message.body() == Some("and now?")).await?;
    bot.stop().await
}

pub(crate) async fn alert_sender(stage: &mut Stage) -> Result<()> {
    let user = stage.bot.clone();
    let bot = stage.log_bot_in().await?;
    let room = stage.room(from_ref(&user)).await?;
    bot.join(room.id().as_str()).await?;
    bot.close().await?;
    let command = |stage: &Stage| {
        let mut command = stage.example("alert_sender")?;
        command.arg(room.id().as_str());
        anyhow::Ok(command)
    };
    let sender = Bot::start_with(command(stage)?, "disk full on db1\n").await?;
    ensure!(sender.end().await?.success(), "the alert was not sent");
    let alert = stage
        .hears(&user, |message| message.body() == Some("disk full on db1"))
        .await?;
    ensure!(alert.content["m.mentions"]["room"] == true, "nobody is woken by it");

    println!("(the homeserver takes no messages)");
    let refused = Fault::status("/send/m.room.encrypted/", 503, "{}").for_ever();
    stage.server.fault(refused);
    for (text, code) in [("disk full on db2", 0), ("disk full on db3", 75)] {
        let sender = Bot::start_with(command(stage)?, text).await?;
        let status = sender.end().await?;
        ensure!(status.code() == Some(code), "{text} ended with {status}");
    }
    println!("(it does again: what was kept goes first)");
    stage.server.behave();
    let sender = Bot::start_with(command(stage)?, "disk full on db4").await?;
    ensure!(sender.end().await?.success(), "the alert was not sent");
    for text in ["disk full on db2", "disk full on db4"] {
        stage.hears(&user, |message| message.body() == Some(text)).await?;
    }
    Ok(())
}

pub(crate) async fn moderation_bot(stage: &mut Stage) -> Result<()> {
    let user = stage.bot.clone();
    stage.log_bot_in().await?.close().await?;
    let mut command = stage.example("moderation_bot")?;
    command.args(["darn", "heck"]);
    let mut bot = Bot::start(command)?;
    bot.says("moderates").await?;
    let room = stage.room(from_ref(&user)).await?;
    stage.all_joined(&room).await?;
    let friend = room.client().user_id();
    let levels = json!({"users": {friend.as_str(): 100, user.as_str(): 50}});
    stage
        .server
        .set_state(room.id(), friend, "m.room.power_levels", "", levels);
    stage.say(&room, "Darning socks is what I like").await?;
    let sworn = stage.say(&room, "well, DARN it").await?;
    let said = bot.says("took back").await?;
    ensure!(said.ends_with(sworn.as_str()), "it should have been {sworn}");
    let warning = stage
        .hears(&user, |message| message.body() == Some("Please mind your words."))
        .await?;
    ensure!(
        warning.content["m.mentions"]["user_ids"] == json!([friend]),
        "it warns nobody"
    );
    bot.stop().await?;
    let timeline = stage.server.timeline(room.id());
    let taken = timeline
        .iter()
        .filter(|event| event["unsigned"]["redacted_because"].is_object());
    let taken: Vec<_> = taken.map(|event| &event["event_id"]).collect();
    ensure!(taken == [sworn.as_str()], "it took back {taken:?}");
    Ok(())
}

pub(crate) async fn file_drop(stage: &mut Stage) -> Result<()> {
    let user = stage.bot.clone();
    stage.log_bot_in().await?.close().await?;
    let kept = stage.directory.path().join("kept");
    let mut command = stage.example("file_drop")?;
    command.arg(&kept);
    let mut bot = Bot::start(command)?;
    bot.says("keeps files").await?;
    let room = stage.room(from_ref(&user)).await?;
    stage.all_joined(&room).await?;
    println!("friend sends a file named ../../report.txt");
    let file = Attachment::from_bytes("../../report.txt", b"all is well".to_vec());
    let sent = room.send_attachment(file).await?;
    bot.says("kept").await?;
    let reaction = stage.hears(&user, |message| message.event_type == "m.reaction").await?;
    ensure!(
        reaction.content["m.relates_to"]["event_id"] == sent.event_id.as_str(),
        "it reacts to something else"
    );
    let files = std::fs::read_dir(&kept)?.collect::<Result<Vec<_>, _>>()?;
    ensure!(
        files.len() == 1 && std::fs::read(files[0].path())? == b"all is well",
        "it kept {files:?}"
    );
    ensure!(
        !stage
            .server
            .files()
            .iter()
            .any(|(_, file)| file.as_ref() == b"all is well"),
        "it was not encrypted"
    );
    bot.stop().await
}

pub(crate) async fn fleet(stage: &mut Stage) -> Result<()> {
    stage.server.add_appservice("as-token-of-a-fleet", "fleet", "bot.");
    let token = stage.directory.path().join("as_token");
    std::fs::write(&token, "as-token-of-a-fleet\n")?;
    let users: Vec<OwnedUserId> = ["one", "two", "three"]
        .iter()
        .map(|name| UserId::parse(format!("@bot.{name}:localhost")))
        .collect::<Result<_, _>>()?;
    let mut command = stage.example("fleet")?;
    command
        .env("MX_AS_TOKEN_FILE", token)
        .args(users.iter().map(|user| user.as_str()));
    let mut bots = Bot::start(command)?;
    for user in &users {
        bots.says(user.as_str()).await?;
    }
    let room = stage.room(&users).await?;
    stage.all_joined(&room).await?;
    stage.say(&room, "who is there?").await?;
    for user in &users {
        let answer = format!("{user} is");
        stage
            .hears(user, move |message| message.body() == Some(answer.as_str()))
            .await?;
    }
    bots.stop().await
}

pub(crate) async fn own_transport(stage: &mut Stage) -> Result<()> {
    let user = stage.bot.clone();
    let bot = stage.log_bot_in().await?;
    let room = stage.room(from_ref(&user)).await?;
    bot.join(room.id().as_str()).await?;
    bot.close().await?;
    println!("(from now on a gate lets nobody on the network pass without a pass)");
    stage.server.rewrite("", |request, answer| {
        let from_outside = request.headers().contains_key("host");
        if from_outside && request.headers().get("x-gate-pass").is_none_or(|pass| pass != "sesame") {
            let mut refused = http::Response::new(Bytes::from_static(b"no pass"));
            *refused.status_mut() = http::StatusCode::FORBIDDEN;
            return refused;
        }
        answer
    });
    for (pass, may) in [("parsley", false), ("sesame", true)] {
        let file = stage.directory.path().join("pass");
        std::fs::write(&file, pass)?;
        let mut command = stage.example("own_transport")?;
        command
            .env("MX_PASS_FILE", file)
            .args([room.id().as_str(), "hello from behind the gate"]);
        let status = Bot::start(command)?.end().await?;
        ensure!(status.success() == may, "with the pass {pass:?} it ended with {status}");
    }
    stage
        .hears(&user, |message| message.body() == Some("hello from behind the gate"))
        .await?;
    Ok(())
}

pub(crate) async fn own_backend(stage: &mut Stage) -> Result<()> {
    let user = stage.bot.clone();
    let room = stage.room(from_ref(&user)).await?;
    let mut devices = Vec::new();
    for text in ["out of an engine of my own", "and again, as the same device"] {
        let mut command = stage.example("own_backend")?;
        command.args([room.id().as_str(), text]);
        let mut bot = Bot::start(command)?;
        let line = bot.says("sent").await?;
        devices.extend(line.split_whitespace().nth(1).map(str::to_owned));
        ensure!(bot.end().await?.success(), "it did not end well");
        stage.hears(&user, |message| message.body() == Some(text)).await?;
    }
    ensure!(
        devices.len() == 2 && devices[0] == devices[1],
        "they are other devices: {devices:?}"
    );
    Ok(())
}
