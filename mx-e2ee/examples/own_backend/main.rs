//! A storage engine of one's own under the whole client: here one file that is replaced by each commit.
//!
//! `cargo xtask example own_backend` runs it twice, the second time as the same device. On a homeserver of yours:
//!
//! ```sh
//! export MX_HOMESERVER=https://matrix.example.org MX_USER=bot MX_PASSWORD_FILE=password MX_DIRECTORY=/var/lib/bot
//! cargo run -p mx-e2ee --example own_backend -- '#room:example.org' hello
//! ```
//!
//! The engine sees sealed rows and nothing else. That it keeps its promises is shown by the conformance suite of
//! `mx-crypto-store` (feature `testing`), to which anybody's engine can be given.
#![expect(clippy::print_stdout, reason = "an example talks to people")]

mod snapshot;

use std::{env, fs, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use mx_e2ee::{Client, ClientBuilder, Error, store::KeySource};

use self::snapshot::Snapshot;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let (Some(room), Some(text)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: own_backend ROOM TEXT");
    };
    let directory = PathBuf::from(variable("MX_DIRECTORY")?);
    let client = match builder(&directory)?.open().await {
        Err(Error::NotLoggedIn { .. }) => {
            let password = fs::read_to_string(variable("MX_PASSWORD_FILE")?).context("cannot read MX_PASSWORD_FILE")?;
            let builder = builder(&directory)?.homeserver(variable("MX_HOMESERVER")?);
            builder.login(&variable("MX_USER")?, password.trim_end()).await?
        }
        opened => opened?,
    };
    let room = client.join(&room).await?;
    let receipt = room.send_text(text).await?;
    println!("device {} sent {}", client.device_id(), receipt.event_id);
    Ok(client.close().await?)
}

/// The login and its key stay in the directory; the rows are in the engine.
fn builder(directory: &std::path::Path) -> Result<ClientBuilder> {
    let engine = Snapshot::open(&directory.join("rows"))?;
    let key = KeySource::File(directory.join("pickle.key"));
    Ok(Client::builder().directory(directory).backend(Arc::new(engine), key))
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("set the environment variable {name}"))
}
