//! `synapse`: a real homeserver on this machine, installed under `target/`, gone with the task.

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

use crate::process;

/// The version that our facts were measured with.
const VERSION: &str = "1.163.2";
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
}

impl Default for Options {
    fn default() -> Self {
        let users = ["alice:alice-password", "bob:bob-password"].map(str::to_owned).to_vec();
        Self {
            port: None,
            users,
            default_limits: false,
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
        None => TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(),
    };
    let data = home.join(format!("run-{}-{port}", std::process::id()));
    fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
    let config = data.join("homeserver.yaml");
    let secret = random();
    fs::write(data.join("log.yaml"), log_configuration(&data))?;
    fs::write(&config, configuration(&data, port, &secret, options.default_limits))?;
    process::output(
        Command::new(&python)
            .args(["-m", "synapse.app.homeserver", "--generate-keys", "-c"])
            .arg(&config),
    )?;
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

/// A secret for a homeserver that is thrown away: the standard library's hashers are seeded by the operating system.
fn random() -> String {
    let part = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", part(), part())
}

/// A virtual environment with Synapse; a marker says that it is complete.
fn install(home: &Path) -> anyhow::Result<PathBuf> {
    let environment = home.join(format!("venv-{VERSION}"));
    let python = environment.join("bin").join("python");
    let marker = environment.join("complete");
    if marker.exists() {
        return Ok(python);
    }
    println!("installing synapse {VERSION} into {}", environment.display());
    fs::create_dir_all(home)?;
    process::output(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&environment),
    )
    .context(
        "python3 cannot make a virtual environment: install python3 and its venv (Debian: apt install python3-venv)",
    )?;
    let package = format!("matrix-synapse=={VERSION}");
    let pip = || {
        process::output(Command::new(&python).args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            &package,
        ]))
    };
    // Once more: an index that is busy for a moment is the usual reason.
    if pip().is_err() {
        pip()?;
    }
    fs::write(marker, VERSION)?;
    Ok(python)
}

fn configuration(data: &Path, port: u16, secret: &str, default_limits: bool) -> String {
    let path = |name: &str| data.join(name).display().to_string();
    let limit = "{per_second: 10000, burst_count: 10000}";
    let limits = format!(
        "rc_message: {limit}\nrc_registration: {limit}\nrc_room_creation: {limit}\n\
         rc_login: {{address: {limit}, account: {limit}, failed_attempts: {limit}}}\n\
         rc_joins: {{local: {limit}, remote: {limit}}}\n\
         rc_invites: {{per_room: {limit}, per_user: {limit}, per_issuer: {limit}}}\n"
    );
    format!(
        "server_name: localhost\npid_file: {}\nreport_stats: false\nsuppress_key_server_warning: true\n\
         listeners: [{{port: {port}, type: http, tls: false, bind_addresses: ['127.0.0.1'], resources: [{{names: [client]}}]}}]\n\
         database: {{name: sqlite3, args: {{database: {}}}}}\nlog_config: {}\nmedia_store_path: {}\n\
         signing_key_path: {}\ntrusted_key_servers: []\nregistration_shared_secret: '{secret}'\n\
         macaroon_secret_key: '{secret}m'\nform_secret: '{secret}f'\n{}",
        path("pid"),
        path("homeserver.db"),
        path("log.yaml"),
        path("media"),
        path("signing.key"),
        if default_limits { "" } else { &limits },
    )
}

fn log_configuration(data: &Path) -> String {
    format!(
        "version: 1\nhandlers: {{file: {{class: logging.FileHandler, filename: {}}}}}\nroot: {{level: WARNING, handlers: [file]}}\n",
        data.join("log").display()
    )
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
    let tool = python.with_file_name("register_new_matrix_user");
    process::output(Command::new(tool).args(["-u", name, "-p", password, "--no-admin", "-k", secret, url]))
        .with_context(|| format!("cannot register {name}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_lifted_only_when_asked() {
        let data = Path::new("data");
        assert!(configuration(data, 1, "s", false).contains("rc_login"));
        let default = configuration(data, 1, "s", true);
        assert!(!default.contains("rc_"));
        assert!(default.contains("bind_addresses: ['127.0.0.1']"), "loopback only");
    }
}
