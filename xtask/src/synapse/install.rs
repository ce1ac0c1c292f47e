//! Installing Synapse, once, into a virtual environment under `target/`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::python;

/// The version that our facts were measured with.
pub(crate) const VERSION: &str = "1.163.2";

/// The Python of a virtual environment with Synapse.
pub(crate) fn install(home: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(home)?;
    let environment = home.join(format!("venv-{VERSION}"));
    python::environment(&environment, "synapse", &[&format!("matrix-synapse=={VERSION}")])
}
