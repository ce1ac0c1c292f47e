//! `mx completions`, `mx man`: both from what can be typed, so that neither is ever out of date.

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;

use crate::{
    cli::{Cli, Man},
    output::Output,
};

pub(crate) fn completions(shell: Shell) -> Result<()> {
    // Whole before the first byte: a reader that goes away is a success, and not a panic of the generator.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "mx", &mut script);
    let mut stdout = io::stdout().lock();
    stdout.write_all(&script)?;
    Ok(stdout.flush()?)
}

pub(crate) fn pages(man: &Man, output: Output) -> Result<()> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| mx_e2ee::Error::File { path, source }
    };
    std::fs::create_dir_all(&man.to).map_err(failed(&man.to))?;
    let mut command = Cli::command();
    command.build();
    let mut written = 0;
    for (name, page) in all(&command)? {
        let path = man.to.join(name);
        std::fs::write(&path, page).map_err(failed(&path))?;
        written += 1;
    }
    let shown = man.to.display().to_string();
    let line = format!("{written} page(s) in {shown}");
    Ok(output.show(&json!({"directory": shown, "pages": written}), &line)?)
}

/// A page for each command, by the name of its file.
fn all(command: &clap::Command) -> Result<Vec<(String, Vec<u8>)>> {
    let mut pages = Vec::new();
    let mut left = vec![command.clone()];
    while let Some(command) = left.pop() {
        let name = command
            .get_display_name()
            .unwrap_or_else(|| command.get_name())
            .to_owned();
        let mut page = Vec::new();
        clap_mangen::Man::new(command.clone())
            .title(name.clone())
            .render(&mut page)?;
        pages.push((format!("{name}.1"), page));
        let below = command.get_subcommands().filter(|below| below.get_name() != "help");
        left.extend(below.cloned());
    }
    pages.sort();
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_the_first_one_lists_the_exit_codes() {
        let mut command = Cli::command();
        command.build();
        let pages = all(&command).unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in [
            "mx.1",
            "mx-send.1",
            "mx-room.1",
            "mx-room-show.1",
            "mx-doctor.1",
            "mx-store-rekey.1",
        ] {
            assert!(names.contains(&name), "{name} is not among {names:?}");
        }
        let first = pages.iter().find(|(name, _)| name == "mx.1").unwrap();
        let text = String::from_utf8(first.1.clone()).unwrap();
        assert!(text.contains("Exit codes") && text.contains("MX_PROFILE"), "{text}");
    }
}
