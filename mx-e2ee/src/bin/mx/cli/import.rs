//! What can be typed about devices of other clients.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum ImportCommand {
    /// The device of the R packages mx.client and mx.crypto: same device id, keys, sessions and room keys.
    ///
    /// Its files are only read. It must never run again: two that use one device lose messages of both.
    MxClient {
        /// The directory with pickle.key, account.pickle and sessions.json.
        #[arg(value_name = "DIRECTORY")]
        from: PathBuf,
        /// The file with its login. Left out: matrix.json in the directory. R keeps it as
        /// ~/.config/R/APP/matrix.json.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Go on although servers cannot be reached whose users gave room keys: those stay marked as imported for good.
        #[arg(long)]
        without_unreachable: bool,
    },
    /// The device of matrix-nio: same device id, keys, sessions and room keys.
    ///
    /// Its file is only read. It must never run again: two that use one device lose messages of both.
    Nio {
        /// The file USER_DEVICE.db of its store.
        database: PathBuf,
        #[command(flatten)]
        login: ImportedLogin,
        /// Read the pickle key that nio was given from the first line of this file. Left out: nio was given none.
        #[arg(long, value_name = "PATH")]
        pickle_key_file: Option<PathBuf>,
    },
    /// The device of matrix-rust-sdk with its SQLite store: same device id, keys, sessions, room keys and identity.
    ///
    /// Its file is only read. It must never run again: two that use one device lose messages of both. What it has read of
    /// the newest messages is read again.
    MatrixSdk {
        /// The directory with matrix-sdk-crypto.sqlite3.
        #[arg(value_name = "DIRECTORY")]
        from: PathBuf,
        #[command(flatten)]
        login: ImportedLogin,
        /// Read the passphrase of the store from the first line of this file. Left out: it has none.
        #[arg(long, value_name = "PATH")]
        passphrase_file: Option<PathBuf>,
    },
}

/// The login of a device whose store does not hold it.
#[derive(Debug, Args)]
pub(crate) struct ImportedLogin {
    /// The address of the homeserver (`https://matrix.example.org`).
    #[arg(long, env = "MX_HOMESERVER", value_name = "URL")]
    pub(crate) homeserver: String,

    /// Read the access token of the device from the first line of this file. Left out: from the environment variable
    /// MX_TOKEN, or a prompt.
    #[arg(long, value_name = "PATH")]
    pub(crate) token_file: Option<PathBuf>,
}
