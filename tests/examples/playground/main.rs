//! A homeserver to play with, one of the examples of `mx-e2ee` on it as a process, and somebody who talks to it.
//!
//! `cargo xtask example NAME` builds both and plays; `cargo xtask homeserver` is the homeserver alone.
#![expect(clippy::print_stdout, reason = "a play is watched")]

mod bot;
mod plays;
mod stage;

use anyhow::{Result, bail};
use mx_test_homeserver::Homeserver;

use self::stage::Stage;

#[tokio::main]
async fn main() -> Result<()> {
    let name = std::env::args().nth(1).unwrap_or_default();
    if name == "homeserver" {
        let port = std::env::args().nth(2).map_or(Ok(0), |port| port.parse())?;
        return serve(port).await;
    }
    let mut stage = Stage::new().await?;
    match name.as_str() {
        "alert_sender" => plays::alert_sender(&mut stage).await?,
        "echo_bot" => plays::echo_bot(&mut stage).await?,
        "file_drop" => plays::file_drop(&mut stage).await?,
        "fleet" => plays::fleet(&mut stage).await?,
        "moderation_bot" => plays::moderation_bot(&mut stage).await?,
        "own_backend" => plays::own_backend(&mut stage).await?,
        "own_transport" => plays::own_transport(&mut stage).await?,
        _ => bail!(
            "name one of the examples: alert_sender, echo_bot, file_drop, fleet, moderation_bot, own_backend, own_transport"
        ),
    }
    println!("the end");
    Ok(())
}

/// A homeserver alone, until Ctrl-C.
async fn serve(port: u16) -> Result<()> {
    let server = Homeserver::new();
    for name in ["alice", "bob", "carol"] {
        let _user = server.register(name, &format!("{name}-password"));
    }
    let listening = server.listen_on(port).await;
    println!("{}", listening.uri());
    println!("users: alice (alice-password), bob (bob-password), carol (carol-password)");
    println!(
        "Ctrl-C ends it, and it forgets everything: log in anew then, with other profiles or after mx logout --forget"
    );
    tokio::signal::ctrl_c().await?;
    Ok(())
}
