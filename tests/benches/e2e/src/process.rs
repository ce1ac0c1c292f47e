//! A process for each thing that is measured: so that nothing is warm, and memory is its own.

use std::{
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    contender::{Contender, Order, Task},
    ours, sdk,
    server::Server,
};

/// What a process came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// From its first instruction to the end of the task.
    pub(crate) total_ms: f64,
    /// Messages a second, without opening the store.
    pub(crate) rate: f64,
    pub(crate) rss_mib: f64,
    pub(crate) token: String,
}

/// Do a task in a new process.
pub(crate) async fn run(server: &Server, who: Contender, user: &str, directory: &Path, task: Task) -> Result<Figures> {
    let order = Order {
        who,
        url: server.url().to_owned(),
        user: user.to_owned(),
        directory: directory.to_owned(),
        task,
    };
    let output = Command::new(std::env::current_exe()?)
        .args(["--child", &order.to_json().to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .await?;
    ensure!(output.status.success(), "{who:?} could not do {:?}", order.task);
    let figures: Value = serde_json::from_slice(&output.stdout)?;
    let number = |name: &str| figures[name].as_f64().unwrap_or_default();
    Ok(Figures {
        total_ms: number("total_ms"),
        rate: number("rate"),
        rss_mib: number("rss_mib"),
        token: figures["token"].as_str().unwrap_or_default().to_owned(),
    })
}

/// The other side of it.
pub(crate) async fn child(order: Value) -> Result<()> {
    let started = Instant::now();
    let order = Order::of_json(&order)?;
    let done = match order.who {
        Contender::Ours => Box::pin(ours::run(&order)).await?,
        Contender::Sdk => Box::pin(sdk::run(&order)).await?,
    };
    let total = started.elapsed();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = done.messages as f64 / done.took.max(Duration::from_micros(1)).as_secs_f64();
    let figures = json!({
        "total_ms": total.as_secs_f64() * 1_000.0, "rate": rate, "rss_mib": resident_mib(), "token": done.token,
    });
    println!("{figures}");
    Ok(())
}

fn resident_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or_default();
    line.trim()
        .trim_end_matches("kB")
        .trim()
        .parse::<f64>()
        .unwrap_or_default()
        / 1024.0
}

/// How many bytes a directory's files have.
#[expect(clippy::cast_precision_loss, reason = "a size for people")]
pub(crate) fn size(directory: &Path) -> f64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(about) if about.is_dir() => size(&entry.path()),
            Ok(about) => about.len() as f64,
            Err(_) => 0.0,
        })
        .sum()
}
