//! A name for a file, out of one that somebody else chose.
//!
//! # Why so much is taken out
//! The name comes from the sender. As a path it could lead out of the directory; with marks that change the direction of
//! text, or that nobody sees, it could show another extension than it has; some names are devices, and some are options
//! of the programs that they are given to.

/// No file system takes more than 255 bytes; what is left is for a number that makes it unlike its neighbours.
const MAX_BYTES: usize = 200;
/// More than this is no extension, in bytes.
const MAX_EXTENSION_BYTES: usize = 16;
/// Names of devices on Windows, with or without an extension.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "conin$", "conout$"];

/// A name that stays in its directory and shows what it is.
pub(crate) fn safe(claimed: &str) -> String {
    let last = claimed.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain: String = last
        .chars()
        .filter(|char| !is_invisible(*char))
        .map(|char| if "<>:\"|?*".contains(char) { '_' } else { char })
        .collect();
    let plain = plain.trim_matches(|char: char| char.is_whitespace() || char == '.');
    let cut = shortened(plain);
    let cut = cut.trim_end_matches(|char: char| char.is_whitespace() || char == '.');
    if cut.is_empty() {
        "file".to_owned()
    } else if cut.starts_with('-') || is_device(cut) {
        format!("_{cut}")
    } else {
        cut.to_owned()
    }
}

/// The `number`-th name of a file whose first names are taken: `a.png`, `a-1.png`, `a-2.png`.
pub(crate) fn numbered(name: &str, number: u32) -> String {
    if number == 0 {
        return name.to_owned();
    }
    let (stem, extension) = split(name);
    format!("{stem}-{number}{extension}")
}

/// Stem, and extension with its point.
fn split(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(point) if point > 0 && name.len() - point <= MAX_EXTENSION_BYTES => name.split_at(point),
        _ => (name, ""),
    }
}

/// At most so many bytes, with the extension kept.
fn shortened(name: &str) -> String {
    let (stem, extension) = split(name);
    let mut end = stem.len().min(MAX_BYTES.saturating_sub(extension.len()));
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{extension}", stem.get(..end).unwrap_or_default())
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_lowercase();
    let numbered = |port: &str| {
        let number = stem.strip_prefix(port);
        number.is_some_and(|number| {
            number.chars().count() == 1 && number.chars().all(|digit| "0123456789¹²³".contains(digit))
        })
    };
    DEVICES.contains(&stem.as_str()) || numbered("com") || numbered("lpt")
}

/// Controls, marks that change the direction of text, and what nobody sees.
fn is_invisible(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_in_its_directory() {
        for (claimed, name) in [
            ("photo.png", "photo.png"),
            ("Übersicht 2026 – Q1 (neu).pdf", "Übersicht 2026 – Q1 (neu).pdf"),
            ("../../etc/passwd", "passwd"),
            ("/etc/passwd", "passwd"),
            ("..\\..\\windows\\system.ini", "system.ini"),
            ("C:evil.txt", "C_evil.txt"),
            ("a/..", "file"),
            ("..", "file"),
            (".", "file"),
            ("", "file"),
            ("   ", "file"),
            ("directory/", "file"),
            (".bashrc", "bashrc"),
            ("...hidden", "hidden"),
            ("nul\u{0}.txt", "_nul.txt"),
            ("a\u{0}b\nc\u{1b}[31m", "abc[31m"),
            ("stream.txt:hidden", "stream.txt_hidden"),
            ("trailing. . .", "trailing"),
        ] {
            assert_eq!(safe(claimed), name, "{claimed:?}");
        }
    }

    #[test]
    fn a_name_shows_its_extension_and_is_no_device_and_no_option() {
        for (claimed, name) in [
            ("invoice\u{202e}gpj.exe", "invoicegpj.exe"),
            ("a\u{2066}b\u{2069}\u{200f}.txt", "ab.txt"),
            ("a\u{200b}\u{feff}\u{e0041}.txt", "a.txt"),
            ("CON", "_CON"),
            ("aux.png", "_aux.png"),
            ("Com1.txt", "_Com1.txt"),
            ("LPT¹", "_LPT¹"),
            ("com10.txt", "com10.txt"),
            ("console.txt", "console.txt"),
            ("-rf", "_-rf"),
            ("--help", "_--help"),
        ] {
            assert_eq!(safe(claimed), name, "{claimed:?}");
        }
    }

    #[test]
    fn a_long_name_is_cut_between_characters_and_keeps_its_extension() {
        let name = safe(&format!("{}.png", "ä".repeat(500)));
        assert!(name.len() <= MAX_BYTES && name.ends_with("ä.png"), "{name}");
        let name = safe(&format!("a.{}", "x".repeat(500)));
        assert_eq!(name.len(), MAX_BYTES);
        assert_eq!(safe(&safe(&name)), safe(&name), "a safe name stays as it is");
    }

    #[test]
    fn names_are_numbered_before_their_extension() {
        let names: Vec<String> = (0..3).map(|number| numbered("a.tar.gz", number)).collect();
        assert_eq!(names, ["a.tar.gz", "a.tar-1.gz", "a.tar-2.gz"]);
        assert_eq!(numbered("file", 1), "file-1");
        assert_eq!(numbered(".x", 1), ".x-1");
    }
}
