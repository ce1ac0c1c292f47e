//! Devices that are only there: they publish keys, are in rooms, and one of them speaks.

use anyhow::{Context, Result};
use matrix_sdk_crypto::{OlmMachine, types::requests::AnyOutgoingRequest};
use mx_e2ee::Client;
use ruma::{OwnedDeviceId, UserId};
use serde_json::json;

use crate::server::{Login, PASSWORD, Server};

/// Devices with their keys on the homeserver: so many users, with so many devices each. Returns one login a user.
pub(crate) async fn gather(server: &Server, users: usize, each: usize) -> Result<Vec<Login>> {
    let mut logins = Vec::new();
    for _ in 0..users {
        let user = server.user("crowd").await?;
        let mut last = None;
        for _ in 0..each {
            let login = server.login(&user).await?;
            publish(server, &login).await?;
            last = Some(login);
        }
        logins.extend(last);
    }
    Ok(logins)
}

/// Put a new device's keys there. Nobody ever reads with it.
async fn publish(server: &Server, login: &Login) -> Result<()> {
    let device = OwnedDeviceId::from(login.device.as_str());
    let machine = OlmMachine::new(&UserId::parse(&login.user)?, &device).await;
    for request in machine.outgoing_requests().await? {
        if let AnyOutgoingRequest::KeysUpload(upload) = request.request() {
            let body = json!({"device_keys": upload.device_keys, "one_time_keys": upload.one_time_keys});
            server.call("POST", "/keys/upload", Some(&login.token), &body).await?;
        }
    }
    Ok(())
}

/// An encrypted room of whoever has this token, with all of these in it.
pub(crate) async fn room(server: &Server, owner: &str, members: &[Login]) -> Result<String> {
    let body = json!({
        "preset": "private_chat",
        "initial_state": [{
            "type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"},
        }],
    });
    let made = server.call("POST", "/createRoom", Some(owner), &body).await?;
    let room = made["room_id"].as_str().context("no room id")?.to_owned();
    for member in members {
        join(server, owner, &room, &member.user, &member.token).await?;
    }
    Ok(room)
}

async fn join(server: &Server, owner: &str, room: &str, user: &str, token: &str) -> Result<()> {
    let invite = json!({"user_id": user});
    server
        .call("POST", &format!("/rooms/{room}/invite"), Some(owner), &invite)
        .await?;
    server
        .call("POST", &format!("/rooms/{room}/join"), Some(token), &json!({}))
        .await
        .map(drop)
}

/// Somebody says so much in a room that its owner will have to read.
pub(crate) async fn flood(server: &Server, owner: &str, room: &str, messages: usize) -> Result<()> {
    let user = server.user("speaker").await?;
    let speaker = Client::builder()
        .homeserver(server.url())
        .in_memory()
        .login(&user.name, PASSWORD)
        .await?;
    let login = server.login(&user).await?;
    join(server, owner, room, speaker.user_id().as_str(), &login.token).await?;
    let room = speaker.room(&ruma::OwnedRoomId::try_from(room)?);
    for number in 0..messages {
        room.send_text(format!("message {number}")).await?;
    }
    Ok(())
}
