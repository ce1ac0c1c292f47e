//! Codes as pictures: what is drawn is what is read, as a PNG of any kind, as text in a terminal, and between processes.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::Stdio,
};

use mx_e2ee::{
    Event, Verification, VerificationOutcome, VerificationState, qr_from_picture, qr_to_png, qr_to_text,
    write_private_file,
};
use png::{BitDepth, ColorType};
use serde_json::{Value, json};

use crate::{
    cli::Shell,
    verification_cast::{settle, two, with, with_identity},
    world::Device,
};

fn png(wide: usize, colour: ColorType, bytes: &[u8]) -> Vec<u8> {
    let mut picture = Vec::new();
    let side = u32::try_from(wide).unwrap();
    let mut encoder = png::Encoder::new(&mut picture, side, side);
    encoder.set_color(colour);
    encoder.set_depth(BitDepth::Eight);
    if colour == ColorType::Indexed {
        encoder.set_palette(vec![20, 30, 40, 250, 240, 245]);
    }
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(bytes).unwrap();
    writer.finish().unwrap();
    picture
}

/// What a photo of a terminal shows: each character is two modules, one above the other.
fn photo(text: &str) -> Vec<u8> {
    const SCALE: usize = 6;
    let rows: Vec<Vec<bool>> = text
        .lines()
        .flat_map(|line| {
            let upper = line.chars().map(|letter| matches!(letter, '█' | '▀')).collect();
            let lower = line.chars().map(|letter| matches!(letter, '█' | '▄')).collect();
            [upper, lower]
        })
        .collect();
    let wide = rows[0].len();
    let pixels = (0..wide * SCALE).flat_map(|y| (0..wide * SCALE).map(move |x| (x / SCALE, y / SCALE)));
    let levels: Vec<u8> = pixels.map(|(x, y)| if rows[y][x] { 235 } else { 15 }).collect();
    png(wide * SCALE, ColorType::Grayscale, &levels)
}

#[tokio::test]
async fn what_is_drawn_is_what_is_read_whatever_kind_of_picture_it_is() {
    let two = two().await;
    let alice = two.alice.client.orchestrator();
    let (user, device) = (two.bob.client.user_id(), two.bob.client.device_id());
    let asked = alice.verify_device(user, device).await.unwrap();
    settle(&[&two.bob]).await;
    let answered = with(&two.bob, two.alice.client.user_id());
    two.bob
        .client
        .orchestrator()
        .accept_verification(&answered)
        .await
        .unwrap();
    settle(&[&two.alice, &two.bob]).await;
    let code = alice.show_verification_qr(&asked).await.unwrap();

    let drawn = qr_to_png(&code).unwrap();
    assert_eq!(qr_from_picture(&drawn).unwrap(), code.bytes());
    assert_eq!(qr_from_picture(&photo(&qr_to_text(&code))).unwrap(), code.bytes());

    let scale = 5;
    let wide = (code.width() + 8) * scale;
    let dark: Vec<bool> = (0..wide * wide)
        .map(|at| {
            let [x, y] = [at % wide, at / wide].map(|place| (place / scale).checked_sub(4));
            x.zip(y).is_some_and(|(x, y)| code.is_dark(x, y))
        })
        .collect();
    let with = |colour, dark_pixel: &[u8], light_pixel: &[u8]| {
        let bytes: Vec<u8> = dark
            .iter()
            .flat_map(|dark| if *dark { dark_pixel } else { light_pixel })
            .copied()
            .collect();
        qr_from_picture(&png(wide, colour, &bytes)).unwrap()
    };
    for (colour, dark_pixel, light_pixel) in [
        (ColorType::Rgb, &[90, 0, 0][..], &[255, 255, 200][..]),
        // What is clear is as light as paper, whatever colour it would have.
        (ColorType::Rgba, &[0, 0, 0, 255], &[0, 0, 0, 0]),
        (ColorType::GrayscaleAlpha, &[0, 255], &[9, 10]),
        (ColorType::Indexed, &[0], &[1]),
    ] {
        assert_eq!(with(colour, dark_pixel, light_pixel), code.bytes(), "{colour:?}");
    }

    // Two codes in one picture: which is meant is not guessed.
    let bob = two
        .bob
        .client
        .orchestrator()
        .show_verification_qr(&answered)
        .await
        .unwrap();
    let beside: Vec<u8> = (0..2 * wide * 2 * wide)
        .map(|at| {
            let (x, y) = (at % (2 * wide), at / (2 * wide));
            let shown = if x < wide { &code } else { &bob };
            let [x, y] = [x % wide, y].map(|place| (place / scale).checked_sub(4));
            let is_dark = y.is_some_and(|y| y < code.width()) && x.zip(y).is_some_and(|(x, y)| shown.is_dark(x, y));
            if is_dark { 0 } else { 255 }
        })
        .collect();
    let error = qr_from_picture(&png(2 * wide, ColorType::Grayscale, &beside)).unwrap_err();
    assert!(error.to_string().contains("more than one code"), "{error}");
}

async fn until(carol: &Device, wanted: impl Fn(&VerificationState) -> bool) -> Verification {
    loop {
        carol.client.sync().await.unwrap();
        if let Some(one) = carol.client.verifications().into_iter().next()
            && wanted(&one.state().unwrap())
        {
            return one;
        }
    }
}

/// What is in a picture, as soon as it is there: a moment before, it may not be whole.
async fn in_picture(picture: &Path) -> Vec<u8> {
    loop {
        let code = std::fs::read(picture).ok().map(|bytes| qr_from_picture(&bytes));
        if let Some(Ok(code)) = code {
            return code;
        }
        tokio::task::yield_now().await;
    }
}

/// Read on to a line with these words.
fn said(lines: &mut impl Iterator<Item = std::io::Result<String>>, words: &str) {
    let mut lines = lines.map(Result::unwrap);
    lines.find(|line| line.contains(words)).unwrap();
}

async fn outcome(carol: &Device) -> VerificationOutcome {
    loop {
        carol.client.sync().await.unwrap();
        for event in carol.events().await {
            if let Event::VerificationEnded(ended) = event {
                return ended.outcome;
            }
        }
    }
}

/// `mx verify` of alice with carol, whose device is in this process.
async fn processes(carol_scans: bool) {
    let shell = Shell::new().await;
    shell.new_device("alice", "alice").await;
    let keyfile = shell.data.path().join("recovery.txt");
    let setup = ["identity", "setup", "--recovery-key-file", keyfile.to_str().unwrap()];
    shell.ok("alice", &setup).await;
    let carol = with_identity(Device::new(&shell.server, "carol").await).await;
    let picture = shell.data.path().join("code.png");
    let path = picture.to_str().unwrap();
    let device = carol.client.device_id().as_str();
    let mut arguments = vec!["--json", "verify", "user", "@carol:localhost", "--device", device];
    if carol_scans {
        arguments.push("--qr");
    }
    arguments.extend([if carol_scans { "--qr-png" } else { "--scan" }, path]);
    let mut mx = shell
        .command("alice", &arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = mx.stdin.take().unwrap();
    until(&carol, |state| *state == VerificationState::Requested)
        .await
        .accept()
        .await
        .unwrap();
    let mut lines = BufReader::new(mx.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let mut notes = BufReader::new(mx.stderr.take().unwrap()).lines();
    let one = until(&carol, |state| matches!(state, VerificationState::Ready { .. })).await;
    if carol_scans {
        lines.find(|line| line["qr_modules"].is_array()).unwrap();
        one.scan(&in_picture(&picture).await).await.unwrap();
        lines.find(|line| line["state"] == "qr_scanned").unwrap();
        writeln!(stdin, "{}", json!({"do": "confirm"})).unwrap();
    } else {
        lines.find(|line| line["state"] == "ready").unwrap();
        // What cannot be read, or is no picture, is said and passed over.
        std::fs::create_dir(&picture).unwrap();
        said(&mut notes, "cannot be read");
        std::fs::remove_dir(&picture).unwrap();
        write_private_file(&picture, b"not yet", false).unwrap();
        said(&mut notes, "is no PNG");
        let code = qr_to_png(&one.show_qr().await.unwrap()).unwrap();
        write_private_file(&picture, &code, true).unwrap();
        let scanned = until(&carol, |state| *state == VerificationState::QrScanned).await;
        scanned.confirm().await.unwrap();
    }
    let outcome = outcome(&carol).await;
    assert!(
        matches!(outcome, VerificationOutcome::Done { user: true, .. }),
        "{outcome:?}"
    );
    let last = lines.last().unwrap();
    assert_eq!((&last["state"], &last["outcome"]), (&json!("ended"), &json!("done")));
    let status = tokio::task::spawn_blocking(move || mx.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn mx_shows_a_code_as_a_picture_that_another_scans() {
    processes(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mx_scans_a_picture_of_a_code_that_another_shows() {
    processes(false).await;
}

/// What is drawn on a terminal is scanned from it, and whoever sits there is asked whether the other side says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_drawn_on_a_terminal_and_confirmed_there() {
    let shell = Shell::new().await;
    shell.new_device("alice", "alice").await;
    shell.ok("alice", &["identity", "setup"]).await;
    let carol = with_identity(Device::new(&shell.server, "carol").await).await;
    let device = carol.client.device_id().as_str();
    let verify = ["verify", "user", "@carol:localhost", "--device", device, "--qr"];
    for (keys, code, words) in [
        ("no\r", 11, "cancelled here"),
        ("\u{4}", 11, "nobody is there to answer"),
        ("yes\r", 0, "and the identity"),
    ] {
        let mut terminal = shell.sit_at("alice", &verify);
        let asked = until(&carol, |state| *state == VerificationState::Requested).await;
        asked.accept().await.unwrap();
        let one = until(&carol, |state| matches!(state, VerificationState::Ready { .. })).await;
        terminal.until("takes part");
        let shown = terminal.until("the code waits to be scanned");
        let is_drawn = |line: &&str| !line.is_empty() && line.chars().all(|char| " █▀▄".contains(char));
        let drawn: Vec<&str> = shown.lines().filter(is_drawn).collect();
        let scanned = qr_from_picture(&photo(&drawn.join("\n"))).unwrap();
        one.scan(&scanned).await.unwrap();
        terminal.until("does the other side say that it has scanned this code? [yes/no]");
        terminal.presses(keys);
        let outcome = outcome(&carol).await;
        let is_done = matches!(outcome, VerificationOutcome::Done { user: true, .. });
        assert_eq!(is_done, code == 0, "{outcome:?}");
        let (ended, shown) = terminal.end();
        assert_eq!(ended, Some(code), "{shown}");
        assert!(shown.contains(words), "{words}: {shown}");
    }
}
