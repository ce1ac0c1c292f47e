//! Every example of `mx-e2ee`, run to its end against the homeserver, with what it did checked.

use std::{path::PathBuf, process::Command};

use anyhow::{Result, ensure};
use mx_crypto_store::{backend::Backend, conformance};

mod by_hand;
mod guide;
#[path = "../../mx-e2ee/examples/own_backend/snapshot.rs"]
mod snapshot;
mod your_tests;

use snapshot::Snapshot;

/// A program that was built for an example.
fn built(example: &str) -> Result<PathBuf> {
    let mut path = std::env::current_exe()?;
    path.pop();
    path.pop();
    let path = path.join(format!("examples/{example}{}", std::env::consts::EXE_SUFFIX));
    ensure!(
        path.exists(),
        "build the examples first: cargo build --workspace --examples"
    );
    Ok(path)
}

/// The playground checks what the bot did, and ends well only where all of it was right. What it shows is returned.
fn played(example: &str) -> Result<String> {
    let output = Command::new(built("playground")?).arg(example).output()?;
    let (told, errors) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(
        output.status.success() && told.ends_with("the end\n"),
        "{told}\n{errors}"
    );
    Ok(told)
}

#[test]
fn the_echo_bot_answers_and_goes_on_after_a_restart() {
    let told = played("echo_bot").unwrap();
    assert!(
        told.contains("friend hears from @bot:localhost: m.room.message and now?"),
        "{told}"
    );
    assert_eq!(told.matches("  bot: stopped").count(), 2, "{told}");
}

#[test]
fn the_alert_sender_sends_once_or_says_when_to_try_again() {
    let told = played("alert_sender").unwrap();
    assert_eq!(told.matches("can be read by 1 device(s)").count(), 2, "{told}");
    assert_eq!(told.matches("m.room.message disk full on db2").count(), 1, "{told}");
    assert!(!told.contains("m.room.message disk full on db3"), "{told}");
}

#[test]
fn the_moderation_bot_takes_back_what_is_forbidden_and_nothing_else() {
    assert_eq!(
        played("moderation_bot").unwrap().matches("  bot: took back $").count(),
        1
    );
}

#[test]
fn the_file_drop_keeps_a_file_under_a_name_that_leads_nowhere() {
    let told = played("file_drop").unwrap();
    assert!(told.contains("m.reaction"), "{told}");
    assert!(!told.contains("kept/.."), "{told}");
}

#[test]
fn a_fleet_answers_with_one_voice_each() {
    let told = played("fleet").unwrap();
    for name in ["one", "two", "three"] {
        assert!(
            told.contains(&format!("friend hears from @bot.{name}:localhost")),
            "{told}"
        );
    }
}

#[test]
fn an_own_transport_is_the_way_of_every_request() {
    assert_eq!(
        played("own_transport")
            .unwrap()
            .matches("went through the gate")
            .count(),
        1
    );
}

#[test]
fn an_own_backend_carries_the_whole_client() {
    let told = played("own_backend").unwrap();
    assert!(told.contains("and again, as the same device"), "{told}");
}

#[test]
fn the_playground_says_what_it_can_play() {
    let output = Command::new(built("playground").unwrap())
        .arg("nothing")
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("echo_bot"));
}

#[tokio::test]
async fn the_own_backend_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let open = || async { Snapshot::open(directory.path()).map(|engine| Box::new(engine) as Box<dyn Backend>) };
    conformance::all(&open).await;
}

#[test]
fn the_own_backend_survives_its_process() {
    conformance::killed::survives(
        "the_own_backend_survives_its_process",
        20,
        |directory: PathBuf| async move { Snapshot::open(&directory).map(|engine| Box::new(engine) as Box<dyn Backend>) },
    );
}

#[test]
fn half_a_file_is_damage_and_not_fewer_rows() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let engine = Snapshot::open(directory.path()).unwrap();
        let batch = mx_crypto_store::backend::Batch::new().put("a", "1").put("b", "2");
        engine.commit(batch).await.unwrap();
        engine.close().await.unwrap();
    });
    let file = directory.path().join("rows");
    let whole = std::fs::read(&file).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&file, &whole[..length]).unwrap();
        let kind = Snapshot::open(directory.path()).unwrap_err().kind();
        assert_eq!(
            kind,
            mx_crypto_store::backend::BackendErrorKind::Corrupt,
            "{length} bytes"
        );
    }
    std::fs::write(&file, &whole).unwrap();
    assert!(Snapshot::open(directory.path()).is_ok());
}
