//! Somebody's integration test: a homeserver in the process, and a client that speaks to it over a socket.
#![expect(clippy::print_stdout, reason = "an example talks to people")]

use std::sync::Arc;

use anyhow::Result;
use mx_test_homeserver::{Fault, Homeserver};
use mx_transport::{AccessToken, ReqwestTransport};
use ruma::api::client::{account::whoami, keys::upload_keys};

#[tokio::main]
async fn main() -> Result<()> {
    // The homeserver, an account on it, and a device that is logged in.
    let server = Homeserver::new();
    let alice = server.register("alice", "password");
    let token = server.token(&alice, "DEVICE");
    let listening = server.listen().await;
    println!("listening on {}", listening.uri());

    // The client under test: anything that speaks HTTP.
    let transport = ReqwestTransport::builder().build()?;
    let client = mx_transport::Homeserver::new(&listening.uri(), Arc::new(transport))?;
    client.set_access_token(AccessToken::new(token)?);
    let who = client.send(whoami::v3::Request::new()).await?;
    println!("logged in as {}", who.user_id);

    // A fault by name, and what the client makes of it.
    server.fault(Fault::status(
        "/keys/upload",
        429,
        r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":5}"#,
    ));
    match client.send(upload_keys::v3::Request::new()).await {
        Err(error) => println!("as planned: {error}"),
        Ok(_) => anyhow::bail!("the fault did not happen"),
    }

    // What went over the wire.
    for exchange in server.log() {
        println!("{} {} → {:?}", exchange.method, exchange.path, exchange.status);
    }
    Ok(())
}
