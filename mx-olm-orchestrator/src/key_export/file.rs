//! The outside of a key file: what can be said of it before any work is done.

use matrix_sdk_crypto::vodozemac::{base64_decode, base64_encode};

use super::KeyFileError;

const BEGIN: &str = "-----BEGIN MEGOLM SESSION DATA-----";
const END: &str = "-----END MEGOLM SESSION DATA-----";

/// Ten times what Element writes: a second or a few.
const MAX_ROUNDS: u32 = 5_000_000;

/// Some 400,000 room keys.
const MAX_BYTES: usize = 256 * 1024 * 1024;

const VERSION: usize = 0;
const ROUNDS: std::ops::Range<usize> = 33..37;
/// Version, salt, initialization vector, rounds; the MAC.
const LEAST: usize = 37 + 32;

/// A key file whose header may be believed, written as the engine reads it.
pub(super) fn checked(text: &str) -> Result<String, KeyFileError> {
    if text.len() > MAX_BYTES {
        return Err(rejected("it is larger than 256 MiB"));
    }
    let mut lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.len() < 3 || lines.first() != Some(&BEGIN) || lines.pop() != Some(END) {
        return Err(rejected("it does not begin and end as key files do"));
    }
    let payload: String = lines.into_iter().skip(1).collect();
    let bytes = base64_decode(&payload).map_err(|_| rejected("it is not base64"))?;
    if bytes.len() < LEAST {
        return Err(rejected("it is too short"));
    }
    if bytes.get(VERSION) != Some(&1) {
        return Err(rejected("its version is not known here"));
    }
    let rounds = bytes.get(ROUNDS).and_then(|rounds| rounds.try_into().ok());
    match rounds.map(u32::from_be_bytes) {
        Some(1..=MAX_ROUNDS) => {}
        _ => {
            return Err(rejected(
                "it wants a number of rounds of key derivation that nobody honest asks for",
            ));
        }
    }
    Ok(format!("{BEGIN}\n{}\n{END}", base64_encode(bytes)))
}

const fn rejected(reason: &'static str) -> KeyFileError {
    KeyFileError::Rejected { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(rounds: u32, change: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut bytes = vec![0; LEAST + 16];
        bytes[VERSION] = 1;
        bytes[ROUNDS].copy_from_slice(&rounds.to_be_bytes());
        change(&mut bytes);
        format!("{BEGIN}\n{}\n{END}\n", base64_encode(bytes))
    }

    #[test]
    fn only_the_honest_are_worked_on() {
        for rounds in [1, 500_000, MAX_ROUNDS] {
            checked(&file(rounds, |_| ())).unwrap();
        }
        for rounds in [0, MAX_ROUNDS + 1, u32::MAX] {
            checked(&file(rounds, |_| ())).unwrap_err();
        }
        for version in [0, 2, 255] {
            checked(&file(9, |bytes| bytes[VERSION] = version)).unwrap_err();
        }
        checked(&file(9, |bytes| bytes.truncate(LEAST))).unwrap();
        checked(&file(9, |bytes| bytes.truncate(LEAST - 1))).unwrap_err();
    }

    #[test]
    fn every_way_to_write_the_same_is_read() {
        let plain = file(9, |_| ());
        let same = checked(&plain).unwrap();
        assert_eq!(checked(&same).unwrap(), same);
        assert_eq!(checked(&plain.replace('\n', "\r\n")).unwrap(), same);
        let payload = plain.lines().nth(1).unwrap();
        let (one, two) = payload.split_at(76);
        assert_eq!(
            checked(&format!("\n{BEGIN}\n{one}\n{two}==\n\n{END}\n\n")).unwrap(),
            same
        );
        for broken in [
            String::new(),
            payload.to_owned(),
            format!("{BEGIN}\n{END}"),
            format!("{BEGIN}x\n{payload}\n{END}"),
            format!("{BEGIN}\n{payload}\n{END}x"),
            format!("{BEGIN}\n{one}\n{BEGIN}\n{two}\n{END}"),
            format!("{BEGIN}\n{payload}!\n{END}"),
        ] {
            checked(&broken).unwrap_err();
        }
    }
}
