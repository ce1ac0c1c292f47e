//! What `cargo xtask interop` installed and wrote down.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

/// What may be started.
#[derive(Debug)]
pub(crate) struct Plan(Value);

/// A homeserver that may be started.
#[derive(Clone, Debug)]
pub(crate) struct Configured {
    pub(crate) python: PathBuf,
    pub(crate) config: PathBuf,
    /// All that it keeps.
    pub(crate) data: PathBuf,
    /// Its name in ids.
    pub(crate) name: String,
    pub(crate) url: String,
}

/// A peer that may be started.
#[derive(Clone, Debug)]
pub(crate) struct Driver {
    pub(crate) version: String,
    pub(crate) program: PathBuf,
    pub(crate) script: PathBuf,
}

impl Plan {
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Self(serde_json::from_slice(&text)?))
    }

    fn text(&self, pointer: &str) -> Result<String> {
        let found = self.0.pointer(pointer).and_then(Value::as_str);
        found
            .map(str::to_owned)
            .with_context(|| format!("the plan has no {pointer}"))
    }

    pub(crate) fn synapse(&self) -> Result<String> {
        self.text("/synapse/version")
    }

    pub(crate) fn server(&self, name: &str) -> Result<Configured> {
        let text = |field: &str| self.text(&format!("/servers/{name}/{field}"));
        Ok(Configured {
            python: self.text("/synapse/python")?.into(),
            config: text("config")?.into(),
            data: text("data")?.into(),
            name: text("name")?,
            url: text("url")?,
        })
    }

    pub(crate) fn driver(&self, name: &str) -> Result<Driver> {
        let text = |field: &str| self.text(&format!("/peers/{name}/{field}"));
        Ok(Driver {
            version: text("version")?,
            program: text("program")?.into(),
            script: text("script")?.into(),
        })
    }
}
