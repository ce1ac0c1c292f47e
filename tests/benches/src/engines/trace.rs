//! Reads what `strace` wrote down: which bytes a process wrote where, and which barriers it asked for.

use anyhow::{Context as _, bail};

/// One system call that matters to a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Open {
        file: File,
        truncate: bool,
        append: bool,
    },
    Write {
        file: File,
        bytes: Vec<u8>,
        at: Option<u64>,
    },
    Seek {
        file: File,
        to: u64,
    },
    Truncate {
        file: File,
        length: u64,
    },
    Rename {
        from: String,
        to: String,
    },
    Remove {
        path: String,
    },
    /// A real barrier: `fsync` or `fdatasync`.
    Sync {
        file: File,
    },
    /// A call that asks the kernel to write, and is no barrier: `sync_file_range` or `msync`.
    WeakSync,
}

/// A descriptor, and the path that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) descriptor: u32,
    pub(super) path: String,
}

/// What `strace` is asked to write down.
pub(super) const CALLS: &str = "openat,open,creat,write,pwrite64,writev,pwritev,pwritev2,lseek,ftruncate,truncate,\
                                fallocate,rename,renameat,renameat2,unlink,unlinkat,fsync,fdatasync,sync,syncfs,\
                                sync_file_range,msync,copy_file_range,sendfile";

/// When a call took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It began, and others may go on meanwhile.
    Begun,
    /// It has returned.
    Done,
}

/// Joins the two halves of calls that another thread interrupted.
#[derive(Debug, Default)]
pub(super) struct Reader {
    begun: Vec<(String, String)>,
}

impl Reader {
    /// The call of a line, if it is one. A line that is one call from beginning to end counts as done.
    pub(super) fn read(&mut self, line: &str) -> anyhow::Result<Option<(Phase, Call)>> {
        let Some((thread, rest)) = line.split_once(' ') else {
            return Ok(None);
        };
        let rest = rest.trim_start();
        if let Some(start) = rest.strip_suffix(" <unfinished ...>") {
            self.begun.push((thread.to_owned(), start.to_owned()));
            // Its result is not known yet; what a barrier covers is.
            let whole = format!("{start}) = 0");
            let call = call(&whole).ok().flatten();
            return Ok(call.map(|call| (Phase::Begun, call)));
        }
        if let Some(end) = rest.strip_prefix("<... ") {
            let (_, end) = end.split_once(" resumed>").context("a resumed call has no end")?;
            let position = self.begun.iter().position(|(begun, _)| begun == thread);
            let (_, start) = self
                .begun
                .swap_remove(position.context("a call goes on that never began")?);
            return Ok(call(&format!("{start}{end}"))?.map(|call| (Phase::Done, call)));
        }
        Ok(call(rest)?.map(|call| (Phase::Done, call)))
    }
}

/// The call of a whole line, without its thread; `None` for what failed or changes nothing.
fn call(line: &str) -> anyhow::Result<Option<Call>> {
    let Some((name, rest)) = line.split_once('(') else {
        return Ok(None);
    };
    // Strings are hexadecimal, so that no bracket and no comma is part of one.
    let Some((arguments, result)) = rest.rsplit_once(") = ").or_else(|| rest.rsplit_once(") ")) else {
        return Ok(None);
    };
    let result = result.trim_start_matches(['=', ' ']);
    if result.starts_with('-') || result.starts_with('?') {
        return Ok(None);
    }
    let arguments: Vec<&str> = arguments.split(", ").map(str::trim).collect();
    effect(name, &arguments, result).map_err(|error| error.context(format!("a call of {name}")))
}

/// What a call did that did not fail.
fn effect(name: &str, arguments: &[&str], result: &str) -> anyhow::Result<Option<Call>> {
    let argument = |index: usize| arguments.get(index).copied().context("an argument is missing");
    let target = || file(argument(0)?);
    let returned = || Ok::<u64, anyhow::Error>(result.split(' ').next().unwrap_or_default().parse()?);
    Ok(Some(match name {
        "openat" => Call::Open {
            file: file(result)?,
            truncate: argument(2)?.contains("O_TRUNC"),
            append: argument(2)?.contains("O_APPEND"),
        },
        "write" | "pwrite64" => {
            let mut bytes = string(argument(1)?)?;
            bytes.truncate(usize::try_from(returned()?)?);
            let at = match name {
                "pwrite64" => Some(argument(3)?.parse()?),
                _ => None,
            };
            let file = target()?;
            Call::Write { file, bytes, at }
        }
        "lseek" => Call::Seek {
            file: target()?,
            to: returned()?,
        },
        "ftruncate" => Call::Truncate {
            file: target()?,
            length: argument(1)?.parse()?,
        },
        "rename" => Call::Rename {
            from: path(argument(0)?)?,
            to: path(argument(1)?)?,
        },
        "renameat" | "renameat2" => Call::Rename {
            from: path(argument(1)?)?,
            to: path(argument(3)?)?,
        },
        "unlink" => Call::Remove {
            path: path(argument(0)?)?,
        },
        "unlinkat" => Call::Remove {
            path: path(argument(1)?)?,
        },
        "fsync" | "fdatasync" => Call::Sync { file: target()? },
        "sync_file_range" | "msync" => Call::WeakSync,
        // Reserves blocks; whether the length changes shows in what is written there.
        "fallocate" => return Ok(None),
        _ => bail!("it cannot be played back"),
    }))
}

/// `7<\x2f\x74>`: a descriptor and its path.
fn file(text: &str) -> anyhow::Result<File> {
    let (descriptor, rest) = text.split_once('<').context("a descriptor has no path")?;
    let path = rest.split_once('>').map_or(rest, |(path, _)| path);
    Ok(File {
        descriptor: descriptor.parse()?,
        path: String::from_utf8(bytes(path)?)?,
    })
}

fn path(text: &str) -> anyhow::Result<String> {
    Ok(String::from_utf8(string(text)?)?)
}

/// `"\x2f\x74"`: bytes between quotes. A string that was cut short is refused.
fn string(text: &str) -> anyhow::Result<Vec<u8>> {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    bytes(inner.context("strace cut a string short")?)
}

/// `\x2f\x74`, or text as it is.
fn bytes(text: &str) -> anyhow::Result<Vec<u8>> {
    if !text.starts_with("\\x") {
        return Ok(text.as_bytes().to_vec());
    }
    let codes = text.split("\\x").skip(1);
    Ok(codes
        .map(|code| u8::from_str_radix(code, 16))
        .collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(descriptor: u32) -> File {
        File {
            descriptor,
            path: "/a".to_owned(),
        }
    }

    fn read(lines: &[&str]) -> Vec<(Phase, Call)> {
        let mut reader = Reader::default();
        lines.iter().filter_map(|line| reader.read(line).unwrap()).collect()
    }

    #[test]
    fn calls_are_read() {
        let lines = [
            r#"17 openat(AT_FDCWD<\x2f>, "\x2f\x61", O_RDWR|O_CREAT|O_TRUNC, 0600) = 4<\x2f\x61>"#,
            r#"17 openat(AT_FDCWD<\x2f>, "\x2f\x62", O_RDONLY) = -1 ENOENT (No such file or directory)"#,
            r#"17 pwrite64(4<\x2f\x61>, "\x00\x01\x02", 3, 4096) = 2"#,
            r"17 fdatasync(4<\x2f\x61>) = 0",
            r"17 +++ exited with 0 +++",
        ];
        let write = Call::Write {
            file: file(4),
            bytes: vec![0, 1],
            at: Some(4096),
        };
        let expected = [
            Call::Open {
                file: file(4),
                truncate: true,
                append: false,
            },
            write,
            Call::Sync { file: file(4) },
        ];
        assert_eq!(read(&lines), expected.map(|call| (Phase::Done, call)));
    }

    #[test]
    fn a_call_that_was_interrupted_begins_and_ends() {
        let lines = [
            r"17 fsync(4<\x2f\x61> <unfinished ...>",
            r#"18 write(5<\x2f\x61>, "\x00", 1) = 1"#,
            r"17 <... fsync resumed>) = 0",
        ];
        let sync = Call::Sync { file: file(4) };
        let write = Call::Write {
            file: file(5),
            bytes: vec![0],
            at: None,
        };
        let expected = [(Phase::Begun, sync.clone()), (Phase::Done, write), (Phase::Done, sync)];
        assert_eq!(read(&lines), expected);
    }

    #[test]
    fn what_cannot_be_played_back_is_refused() {
        let mut reader = Reader::default();
        assert!(reader.read(r"17 pwritev(4<\x2f\x61>, [], 0, 0) = 3").is_err());
        assert!(reader.read(r#"17 write(4<\x2f\x61>, "\x00"..., 3) = 3"#).is_err());
    }
}
