//! `interop`: our facade and `mx` with real peers on a real Synapse.

mod peers;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{
    process,
    synapse::{self, Configuration},
};

/// Install Synapse, matrix-nio and matrix-js-sdk under target/, and run the matrix of cells: one line each.
///
/// A cell whose peer cannot do what it is about is shown as n/a, with the reason, from a table in the code; everything
/// else that does not work is a failure, and so is a peer that cannot be installed. It needs python3 with its venv
/// module, and npm; the Node that runs the peer is installed with it.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Only cells of these numbers, such as 2 or 10b, or with these words in their names; several with commas.
    #[arg(value_name = "TEXT")]
    filter: Option<String>,
    /// Show what the peers log.
    #[arg(long)]
    peer_log: bool,
}

/// What is installed, and the homeservers that may be started: for the example that runs the matrix.
#[derive(Debug)]
pub(crate) struct Plan {
    /// It is removed with this.
    directory: PathBuf,
    /// The file.
    pub(crate) file: PathBuf,
}

impl Drop for Plan {
    fn drop(&mut self) {
        let _left_behind = fs::remove_dir_all(&self.directory);
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let root = process::root()?;
    let plan = plan(&root)?;
    let mut command = example(&root, &plan)?;
    command.arg("matrix");
    command.args(&options.filter);
    if options.peer_log {
        command.env("MX_PEER_LOG", "1");
    }
    process::run(&mut command)
}

/// The example that talks to the peers, with `mx` beside it.
///
/// Both are built as everything else of the workspace is: asked for alone, they would have other features of the
/// engine, and it would be compiled once more.
pub(crate) fn example(root: &Path, plan: &Plan) -> anyhow::Result<std::process::Command> {
    let mut build = process::cargo(root);
    process::run(build.args(["build", "--workspace", "--bin", "mx", "--example", "interop"]))?;
    // They stand where this one stands.
    let task = std::env::current_exe()?;
    let built = task.parent().context("built nowhere")?;
    let name = format!("interop{}", std::env::consts::EXE_SUFFIX);
    let mut command = std::process::Command::new(built.join("examples").join(name));
    command.current_dir(root).arg(&plan.file);
    Ok(command)
}

/// Install everything, and write down the homeservers.
pub(crate) fn plan(root: &Path) -> anyhow::Result<Plan> {
    let target = root.join("target");
    let python = synapse::install(&target.join("synapse"))?;
    let peers = peers::install(&root.join("tests/interop"), &target.join("interop"))?;
    let directory = target.join("interop").join(format!("run-{}", std::process::id()));
    let plan = Plan {
        file: directory.join("plan.json"),
        directory,
    };
    fs::create_dir_all(&plan.directory).with_context(|| format!("cannot make {}", plan.directory.display()))?;
    let mut servers = serde_json::Map::new();
    for (name, configuration) in homeservers(&plan.directory)? {
        let file = configuration.write(&python)?;
        let about = json!({
            "config": file, "data": configuration.data, "name": configuration.server_name(),
            "url": format!("http://127.0.0.1:{}", configuration.port),
        });
        servers.insert(name.to_owned(), about);
    }
    let all = json!({
        "synapse": {"version": synapse::VERSION, "python": python}, "peers": peers, "servers": servers,
    });
    fs::write(&plan.file, Value::to_string(&all))?;
    Ok(plan)
}

/// One without limits, one that is restarted, one with Synapse's own limits, one whose logins end soon, and two that
/// federate.
fn homeservers(directory: &Path) -> anyhow::Result<Vec<(&'static str, Configuration)>> {
    let with = |name: &'static str| -> anyhow::Result<(&'static str, Configuration)> {
        let configuration = Configuration {
            data: directory.join(name),
            port: synapse::free_port()?,
            secret: synapse::random(),
            open_registration: true,
            ..Configuration::default()
        };
        Ok((name, configuration))
    };
    let mut all = Vec::new();
    all.push(with("main")?);
    all.push(with("restarted")?);
    let (name, mut limited) = with("limited")?;
    limited.default_limits = true;
    all.push((name, limited));
    let (name, mut ending) = with("ending")?;
    ending.session_seconds = Some(60);
    all.push((name, ending));
    for name in ["left", "right"] {
        let (name, mut federating) = with(name)?;
        federating.federation = Some(synapse::free_port()?);
        all.push((name, federating));
    }
    Ok(all)
}
