//! `synapse`: a real homeserver on this machine, installed under `target/`, gone with the task.

mod configuration;
mod install;

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::{BuildHasher, Hasher},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

pub(crate) use self::{
    configuration::Configuration,
    install::{VERSION, install},
};
use crate::process;

const READY: Duration = Duration::from_secs(120);

/// Install (once, under target/synapse) and start a real Synapse on 127.0.0.1, until Ctrl-C.
///
/// It keeps its data in a fresh directory under target/synapse, has no federation, and registers the users that you
/// name. It needs python3 with its venv module.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Listen on this port instead of a free one.
    #[arg(long)]
    port: Option<u16>,
    /// Register this user (name:password); may be given several times.
    #[arg(long = "user", value_name = "NAME:PASSWORD", default_values = ["alice:alice-password", "bob:bob-password"])]
    users: Vec<String>,
    /// Keep Synapse's own rate limits, which a test run meets within seconds.
    #[arg(long)]
    default_limits: bool,
    /// Let anybody register.
    #[arg(long)]
    open_registration: bool,
}

impl Default for Options {
    fn default() -> Self {
        let users = ["alice:alice-password", "bob:bob-password"].map(str::to_owned).to_vec();
        Self {
            port: None,
            users,
            default_limits: false,
            open_registration: false,
        }
    }
}

impl Options {
    /// Without users: the task registers its own.
    pub(crate) fn open() -> Self {
        Self {
            users: Vec::new(),
            open_registration: true,
            ..Self::default()
        }
    }
}

/// A Synapse that runs as long as this is held.
#[derive(Debug)]
pub(crate) struct Synapse {
    child: Child,
    /// Where it listens.
    pub(crate) url: String,
    data: PathBuf,
}

impl Drop for Synapse {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
        let _left_behind = fs::remove_dir_all(&self.data);
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let mut synapse = start(options)?;
    println!("homeserver  {}", synapse.url);
    for user in &options.users {
        println!("user        {user}");
    }
    println!("Ctrl-C ends it");
    let status = synapse.child.wait().context("cannot wait for synapse")?;
    if status.success() {
        Ok(())
    } else {
        bail!("synapse ended with {status}")
    }
}

/// Install where needed, start, wait until it answers, register the users.
pub(crate) fn start(options: &Options) -> anyhow::Result<Synapse> {
    let home = process::root()?.join("target").join("synapse");
    let python = install(&home)?;
    let port = match options.port {
        Some(port) => port,
        None => free_port()?,
    };
    let data = home.join(format!("run-{}-{port}", std::process::id()));
    let secret = random();
    let configuration = Configuration {
        data: data.clone(),
        port,
        secret: secret.clone(),
        default_limits: options.default_limits,
        open_registration: options.open_registration,
        ..Configuration::default()
    };
    let config = configuration.write(&python)?;
    println!("starting synapse {VERSION}");
    let child = Command::new(&python)
        .args(["-m", "synapse.app.homeserver", "-c"])
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start synapse")?;
    let mut synapse = Synapse {
        child,
        url: format!("http://127.0.0.1:{port}"),
        data,
    };
    wait_until_ready(&mut synapse, port)?;
    for user in &options.users {
        register(&python, &synapse.url, &secret, user)?;
    }
    Ok(synapse)
}

/// A port of loopback that nobody listens on, and that no connection is given as its own end before a server starts there:
/// below the range that Linux takes those from.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    let offset = RandomState::new().build_hasher().finish() % 10_000;
    let first = 20_000 + u16::try_from(offset)?;
    let free = (first..32_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.context("no port of loopback is free")
}

/// A secret for a homeserver that is thrown away: the standard library's hashers are seeded by the operating system.
pub(crate) fn random() -> String {
    let part = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", part(), part())
}

fn wait_until_ready(synapse: &mut Synapse, port: u16) -> anyhow::Result<()> {
    let end = Instant::now() + READY;
    while Instant::now() < end {
        if let Some(status) = synapse.child.try_wait()? {
            bail!("synapse ended with {status} while it started");
        }
        if answers(port).unwrap_or(false) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(200));
    }
    bail!("synapse did not answer within {} seconds", READY.as_secs())
}

/// One request by hand: no HTTP client is worth its build time here.
fn answers(port: u16) -> std::io::Result<bool> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.write_all(b"GET /_matrix/client/versions HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut start = [0; 12];
    socket.read_exact(&mut start)?;
    Ok(start.ends_with(b" 200"))
}

fn register(python: &Path, url: &str, secret: &str, user: &str) -> anyhow::Result<()> {
    let (name, password) = user
        .split_once(':')
        .with_context(|| format!("{user:?} is not name:password"))?;
    // Not by its script, which holds the path at which it was installed: a checkout may be moved.
    let mut tool = Command::new(python);
    tool.args(["-m", "synapse._scripts.register_new_matrix_user"]);
    process::output(tool.args(["-u", name, "-p", password, "--no-admin", "-k", secret, url]))
        .with_context(|| format!("cannot register {name}"))?;
    Ok(())
}
