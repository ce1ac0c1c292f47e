//! Codes as pictures: PNG and text out, PNG and JPEG in.
//!
//! # Why
//! `png`, `zune-jpeg` and `rqrr` (all maintained, none with C code) are about ten crates; `image`, which joins the first two,
//! brings as many again. They are behind the feature `pictures`, which the binary needs and a bot need not have.

use std::io::Cursor;

use mx_olm_orchestrator::VerificationQr;
use zune_jpeg::{
    JpegDecoder,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

use crate::{Error, Result};

/// Light modules around the code, as its standard asks for.
const MARGIN: usize = 4;
/// Pixels of a module.
const SCALE: usize = 8;
/// A photo of today's telephones is half as wide.
const MOST_PIXELS_WIDE: usize = 16_384;
/// What reading a picture may take, in bytes.
const MOST_MEMORY: usize = 256 * 1024 * 1024;

/// A picture in shades of grey.
struct Grey {
    wide: usize,
    high: usize,
    pixels: Vec<u8>,
}

/// A code as a PNG.
///
/// ```no_run
/// # async fn example(verification: mx_e2ee::Verification) -> Result<(), Box<dyn std::error::Error>> {
/// use mx_e2ee::{qr_to_png, qr_to_text, write_private_file};
///
/// let code = verification.show_qr().await?;
/// println!("{}", qr_to_text(&code));
/// // It holds a secret of this verification.
/// write_private_file("code.png", &qr_to_png(&code)?, true)?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`Error::Configuration`] when it cannot be drawn.
pub fn qr_to_png(code: &VerificationQr) -> Result<Vec<u8>> {
    let wide = (code.width() + 2 * MARGIN) * SCALE;
    let module = |pixel: usize| (pixel / SCALE).checked_sub(MARGIN);
    let pixels: Vec<u8> = (0..wide * wide)
        .map(|place| {
            let at = module(place % wide).zip(module(place / wide));
            if at.is_some_and(|(x, y)| code.is_dark(x, y)) {
                0
            } else {
                255
            }
        })
        .collect();
    let wide = u32::try_from(wide).map_err(|_| unreadable("it is too large"))?;
    grey_to_png(wide, &pixels).map_err(|_| unreadable("it cannot be drawn"))
}

fn grey_to_png(wide: u32, pixels: &[u8]) -> Result<Vec<u8>, png::EncodingError> {
    let high = u32::try_from(pixels.len()).unwrap_or(u32::MAX) / wide.max(1);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, wide, high);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}

/// A code as lines of text, two modules a character, for a terminal with light text on a dark ground.
///
/// ```no_run
/// # async fn example(verification: mx_e2ee::Verification) -> mx_e2ee::Result<()> {
/// // For whoever sits at the other device, and sees this terminal.
/// println!("{}", mx_e2ee::qr_to_text(&verification.show_qr().await?));
/// # Ok(()) }
/// ```
#[must_use]
pub fn qr_to_text(code: &VerificationQr) -> String {
    let wide = code.width() + 2 * MARGIN;
    let is_light = |x: usize, y: usize| {
        let inside = x.checked_sub(MARGIN).zip(y.checked_sub(MARGIN));
        y < wide && !inside.is_some_and(|(x, y)| code.is_dark(x, y))
    };
    let line = |y: usize| -> String {
        (0..wide)
            .map(|x| match (is_light(x, y), is_light(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            })
            .collect()
    };
    (0..wide).step_by(2).map(line).collect::<Vec<_>>().join("\n")
}

/// The bytes of the one code in a picture, PNG or JPEG.
///
/// ```no_run
/// # async fn example(verification: mx_e2ee::Verification) -> Result<(), Box<dyn std::error::Error>> {
/// let photo = std::fs::read("photo.jpg")?;
/// verification.scan(&mx_e2ee::qr_from_picture(&photo)?).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`Error::Configuration`] when it is no such picture, or there is no code in it, or more than one.
pub fn qr_from_picture(picture: &[u8]) -> Result<Vec<u8>> {
    let read = if picture.starts_with(b"\x89PNG") {
        from_png(picture)
    } else if picture.starts_with(&[0xff, 0xd8]) {
        from_jpeg(picture)
    } else {
        None
    };
    let grey = read.ok_or_else(|| unreadable("it is no PNG or JPEG, or is too large"))?;
    let level = |x: usize, y: usize| grey.pixels.get(y * grey.wide + x).copied().unwrap_or(255);
    let mut prepared = rqrr::PreparedImage::prepare_from_greyscale(grey.wide, grey.high, level);
    let mut codes: Vec<Vec<u8>> = prepared
        .detect_grids()
        .iter()
        .filter_map(|grid| {
            let mut bytes = Vec::new();
            grid.decode_to(&mut bytes).ok().map(|_| bytes)
        })
        .collect();
    codes.dedup();
    match (codes.pop(), codes.is_empty()) {
        (Some(code), true) => Ok(code),
        (None, _) => Err(unreadable("there is no code in it that can be read")),
        (Some(_), false) => Err(unreadable("there is more than one code in it")),
    }
}

fn from_png(picture: &[u8]) -> Option<Grey> {
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(picture), png::Limits { bytes: MOST_MEMORY });
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().ok()?;
    let size = reader.output_buffer_size().filter(|size| *size <= MOST_MEMORY)?;
    let mut bytes = vec![0; size];
    let info = reader.next_frame(&mut bytes).ok()?;
    bytes.truncate(info.buffer_size());
    let (colours, alpha) = match info.color_type {
        png::ColorType::Grayscale => (1, false),
        png::ColorType::GrayscaleAlpha => (1, true),
        png::ColorType::Rgb => (3, false),
        png::ColorType::Rgba => (3, true),
        png::ColorType::Indexed => return None,
    };
    let pixels = bytes
        .chunks_exact(colours + usize::from(alpha))
        .map(|pixel| {
            let sum: u32 = pixel.iter().take(colours).map(|colour| u32::from(*colour)).sum();
            let level = sum / u32::try_from(colours).unwrap_or(1);
            // What shows through is as light as paper.
            let opaque = if alpha {
                u32::from(pixel.last().copied().unwrap_or(255))
            } else {
                255
            };
            u8::try_from((level * opaque + 255 * (255 - opaque)) / 255).unwrap_or(255)
        })
        .collect();
    let (wide, high) = (usize::try_from(info.width).ok()?, usize::try_from(info.height).ok()?);
    Some(Grey { wide, high, pixels })
}

fn from_jpeg(picture: &[u8]) -> Option<Grey> {
    let options = DecoderOptions::default()
        .set_max_width(MOST_PIXELS_WIDE)
        .set_max_height(MOST_PIXELS_WIDE)
        .jpeg_set_out_colorspace(ColorSpace::Luma);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(picture), options);
    let pixels = decoder.decode().ok()?;
    let info = decoder.info()?;
    let (wide, high) = (usize::from(info.width), usize::from(info.height));
    (pixels.len() == wide * high).then_some(Grey { wide, high, pixels })
}

fn unreadable(why: &str) -> Error {
    Error::Configuration {
        what: format!("the picture of a code cannot be used: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_picture_or_has_no_code_is_refused() {
        for (bytes, why) in [(&b""[..], "no P"), (b"\x89PNG\r\n\x1a\n", "no P"), (b"GIF89a", "no P")] {
            let error = qr_from_picture(bytes).unwrap_err();
            assert_eq!(error.code(), "configuration");
            assert!(error.to_string().contains(why), "{error}");
        }
        let png = grey_to_png(64, &[255; 64 * 64]).unwrap();
        let error = qr_from_picture(&png).unwrap_err();
        assert!(error.to_string().contains("there is no code"), "{error}");
    }
}
