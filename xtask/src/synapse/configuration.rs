//! A Synapse's configuration, as a task needs it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::process;

/// Makes a key and a certificate for loopback; `cryptography` comes with Synapse.
const CERTIFICATE: &str = "
import sys, datetime
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
key = ec.generate_private_key(ec.SECP256R1())
name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, 'localhost')])
now = datetime.datetime.now(datetime.timezone.utc)
made = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
    .not_valid_after(now + datetime.timedelta(days=2))
    .add_extension(x509.SubjectAlternativeName([x509.DNSName('localhost')]), False).sign(key, hashes.SHA256()))
open(sys.argv[1], 'wb').write(key.private_bytes(serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
open(sys.argv[2], 'wb').write(made.public_bytes(serialization.Encoding.PEM))
";

/// What a homeserver of a task is like.
#[derive(Debug, Default)]
pub(crate) struct Configuration {
    /// Where it keeps everything.
    pub(crate) data: PathBuf,
    /// Where clients reach it.
    pub(crate) port: u16,
    /// What it signs and registers with: it is thrown away with the server.
    pub(crate) secret: String,
    /// Keep Synapse's own rate limits.
    pub(crate) default_limits: bool,
    /// Anybody may register, which on loopback is the task itself.
    pub(crate) open_registration: bool,
    /// A login ends after so many seconds, and its access token before that.
    pub(crate) session_seconds: Option<u32>,
    /// Where other homeservers reach it, with TLS; it is named after this port.
    pub(crate) federation: Option<u16>,
}

impl Configuration {
    /// Write it down, with the keys that it names. Returns the file.
    pub(crate) fn write(&self, python: &Path) -> anyhow::Result<PathBuf> {
        fs::create_dir_all(&self.data).with_context(|| format!("cannot make {}", self.data.display()))?;
        let file = self.data.join("homeserver.yaml");
        fs::write(self.data.join("log.yaml"), self.log())?;
        fs::write(&file, self.text())?;
        if self.federation.is_some() {
            let mut command = Command::new(python);
            command.args(["-c", CERTIFICATE]);
            process::output(command.args([self.data.join("tls.key"), self.data.join("tls.crt")]))?;
        }
        let mut command = Command::new(python);
        command.args(["-m", "synapse.app.homeserver", "--generate-keys", "-c"]);
        process::output(command.arg(&file))?;
        Ok(file)
    }

    /// Its name in ids.
    pub(crate) fn server_name(&self) -> String {
        self.federation
            .map_or_else(|| "localhost".to_owned(), |port| format!("localhost:{port}"))
    }

    fn path(&self, name: &str) -> String {
        self.data.join(name).display().to_string()
    }

    fn text(&self) -> String {
        let (path, secret) = (|name| self.path(name), &self.secret);
        // A password that is hashed as for the open Internet costs a core for a second, and every cell has new users.
        let mut text = format!(
            "server_name: '{}'\npid_file: {}\nreport_stats: false\nsuppress_key_server_warning: true\n\
             database: {{name: sqlite3, args: {{database: {}}}}}\nlog_config: {}\nmedia_store_path: {}\n\
             signing_key_path: {}\ntrusted_key_servers: []\nregistration_shared_secret: '{secret}'\n\
             macaroon_secret_key: '{secret}m'\nform_secret: '{secret}f'\nfilter_timeline_limit: 2000\n\
             bcrypt_rounds: 4\n{}",
            self.server_name(),
            path("pid"),
            path("homeserver.db"),
            path("log.yaml"),
            path("media"),
            path("signing.key"),
            self.listeners(),
        );
        if !self.default_limits {
            text.push_str(&limits());
        }
        if self.open_registration {
            text.push_str("enable_registration: true\nenable_registration_without_verification: true\n");
        }
        if let Some(seconds) = self.session_seconds {
            text.push_str(&format!(
                "session_lifetime: {seconds}s\nrefreshable_access_token_lifetime: {}s\n",
                seconds / 3
            ));
        }
        text
    }

    fn listeners(&self) -> String {
        let listener = |port: u16, tls: bool, resource: &str| {
            format!(
                "{{port: {port}, type: http, tls: {tls}, bind_addresses: ['127.0.0.1'], resources: [{{names: [{resource}]}}]}}"
            )
        };
        let clients = listener(self.port, false, "client");
        let Some(port) = self.federation else {
            return format!("listeners: [{clients}]\n");
        };
        // After an outage of the other side it is asked again within seconds, and not after ten minutes.
        format!(
            "listeners: [{clients}, {}]\ntls_certificate_path: {}\ntls_private_key_path: {}\n\
             federation_verify_certificates: false\nip_range_blacklist: []\n\
             federation: {{client_timeout: 5s, max_short_retries: 1, max_short_retry_delay: 1s, max_long_retries: 1, \
             max_long_retry_delay: 1s, destination_min_retry_interval: 1s, destination_retry_multiplier: 1, \
             destination_max_retry_interval: 2s}}\n",
            listener(port, true, "federation"),
            self.path("tls.crt"),
            self.path("tls.key"),
        )
    }

    fn log(&self) -> String {
        format!(
            "version: 1\nhandlers: {{file: {{class: logging.FileHandler, filename: {}}}}}\nroot: {{level: WARNING, handlers: [file]}}\n",
            self.path("log")
        )
    }
}

/// No test that is not about limits should meet one.
fn limits() -> String {
    let limit = "{per_second: 10000, burst_count: 10000}";
    format!(
        "rc_message: {limit}\nrc_registration: {limit}\nrc_room_creation: {limit}\n\
         rc_login: {{address: {limit}, account: {limit}, failed_attempts: {limit}}}\n\
         rc_joins: {{local: {limit}, remote: {limit}}}\nrc_joins_per_room: {limit}\n\
         rc_invites: {{per_room: {limit}, per_user: {limit}, per_issuer: {limit}}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_lifted_only_when_asked() {
        let lifted = Configuration::default();
        assert!(lifted.text().contains("rc_login"));
        let default = Configuration {
            default_limits: true,
            ..Configuration::default()
        };
        assert!(!default.text().contains("rc_"));
    }

    #[test]
    fn every_listener_is_on_loopback() {
        let federating = Configuration {
            port: 1,
            federation: Some(2),
            ..Configuration::default()
        };
        let text = federating.text();
        assert_eq!(text.matches("bind_addresses: ['127.0.0.1']").count(), 2, "{text}");
        assert_eq!(text.matches("tls: true").count(), 1, "clients come without TLS");
        assert!(text.starts_with("server_name: 'localhost:2'"));
        assert!(!text.contains("enable_registration"), "nobody asked for it");
    }
}
