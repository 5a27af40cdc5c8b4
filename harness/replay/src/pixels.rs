//! Compares decoded pixels instead of file bytes, which contain the workflow and depend on library
//! versions.

use std::io::Cursor;

use image::{AnimationDecoder, DynamicImage, GenericImage, ImageFormat, Rgba, RgbaImage};

/// The space between the panels of a difference picture, in pixels.
const GAP: u32 = 4;
/// The longest side of a panel, in pixels.
const LONGEST_SIDE: u32 = 2048;

/// The difference of two pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Its description.
    pub what: String,
    /// The mean difference of all channels, from 0 to 1; `None` if unknown.
    pub mean: Option<f64>,
    /// The stored picture, the new one and their difference, side by side.
    pub picture: Option<RgbaImage>,
}

/// The suffix of a picture that can be compared; `None` for anything else.
pub fn suffix(bytes: &[u8]) -> Option<&'static str> {
    match image::guess_format(bytes).ok()? {
        ImageFormat::Png => Some("png"),
        ImageFormat::Jpeg => Some("jpg"),
        ImageFormat::WebP => Some("webp"),
        ImageFormat::Gif => Some("gif"),
        _ => None,
    }
}

/// Compares two pictures; `None` if they are the same within `tolerance`.
pub fn compare(stored: &[u8], new: &[u8], tolerance: f64) -> Option<Difference> {
    if stored == new {
        return None;
    }
    let broken = |which: &str, why: String| Difference {
        what: format!("cannot read the {which} picture: {why}"),
        mean: None,
        picture: None,
    };
    let (stored, new) = match (frames(stored), frames(new)) {
        (Err(why), _) => return Some(broken("stored", why)),
        (_, Err(why)) => return Some(broken("new", why)),
        (Ok(stored), Ok(new)) => (stored, new),
    };
    if stored.len() != new.len() {
        let what = format!("{} frames instead of {}", new.len(), stored.len());
        return Some(Difference { what, mean: None, picture: None });
    }
    stored.iter().zip(&new).enumerate().find_map(|(index, (stored, new))| {
        let mut difference = frame(stored, new, tolerance)?;
        if index > 0 {
            difference.what = format!("frame {}: {}", index + 1, difference.what);
        }
        Some(difference)
    })
}

/// A picture without metadata.
///
/// # Errors
/// Why it cannot be decoded, for example because it is animated.
pub fn bare(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let frames = frames(bytes)?;
    let [frame] = frames.as_slice() else { return Err("it is animated".to_owned()) };
    let mut out = Cursor::new(Vec::new());
    frame.write_to(&mut out, ImageFormat::Png).map_err(|e| e.to_string())?;
    Ok(out.into_inner())
}

fn frames(bytes: &[u8]) -> Result<Vec<DynamicImage>, String> {
    let says = |e: image::ImageError| e.to_string();
    let all = |frames: image::Frames<'_>| -> Result<Vec<DynamicImage>, String> {
        let frames = frames.collect_frames().map_err(says)?;
        Ok(frames.into_iter().map(|frame| frame.into_buffer().into()).collect())
    };
    match image::guess_format(bytes).map_err(says)? {
        ImageFormat::Gif => all(image::codecs::gif::GifDecoder::new(Cursor::new(bytes)).map_err(says)?.into_frames()),
        ImageFormat::WebP => {
            let decoder = image::codecs::webp::WebPDecoder::new(Cursor::new(bytes)).map_err(says)?;
            if decoder.has_animation() {
                return all(decoder.into_frames());
            }
            Ok(vec![DynamicImage::from_decoder(decoder).map_err(says)?])
        }
        ImageFormat::Png => {
            let decoder = image::codecs::png::PngDecoder::new(Cursor::new(bytes)).map_err(says)?;
            if decoder.is_apng().map_err(says)? {
                return all(decoder.apng().map_err(says)?.into_frames());
            }
            Ok(vec![DynamicImage::from_decoder(decoder).map_err(says)?])
        }
        _ => Ok(vec![image::load_from_memory(bytes).map_err(says)?]),
    }
}

fn frame(stored: &DynamicImage, new: &DynamicImage, tolerance: f64) -> Option<Difference> {
    let size = |image: &DynamicImage| format!("{} × {}", image.width(), image.height());
    if (stored.width(), stored.height()) != (new.width(), new.height()) {
        return Some(Difference {
            what: format!("the size is {} instead of {}", size(new), size(stored)),
            mean: None,
            picture: Some(panels(stored, new, None)),
        });
    }
    // More than eight bits per channel are compared as they are.
    let deep = |image: &DynamicImage| image.color().bytes_per_pixel() > image.color().channel_count();
    let found = if deep(stored) || deep(new) {
        measure(&stored.to_rgba16(), &new.to_rgba16(), stored.width(), f64::from(u16::MAX))
    } else {
        measure(&stored.to_rgba8(), &new.to_rgba8(), stored.width(), f64::from(u8::MAX))
    }?;
    if tolerance > 0.0 && found.mean <= tolerance {
        return None;
    }
    let all = u64::from(stored.width()) * u64::from(stored.height());
    let ((x, y), (right, bottom)) = found.within;
    let mut what = format!(
        "{} of {all} pixels differ, by at most {:.3} and {:.6} on average (scale 0 to 1), between ({x}, {y}) \
        and ({right}, {bottom})",
        found.count, found.most, found.mean
    );
    if tolerance > 0.0 {
        what.push_str(&format!("; the tolerance is {tolerance}"));
    }
    Some(Difference { what, mean: Some(found.mean), picture: Some(panels(stored, new, Some(found.within))) })
}

struct Found {
    count: u64,
    mean: f64,
    most: f64,
    /// The top left and bottom right corners.
    within: ((u32, u32), (u32, u32)),
}

/// Compares RGBA pixels; `None` if all are equal.
fn measure<T: Copy + PartialEq + Into<f64>>(stored: &[T], new: &[T], width: u32, scale: f64) -> Option<Found> {
    let (mut count, mut sum, mut most) = (0, 0.0, 0.0_f64);
    let mut within = ((u32::MAX, u32::MAX), (0, 0));
    let (mut x, mut y) = (0, 0);
    for (stored, new) in stored.chunks_exact(4).zip(new.chunks_exact(4)) {
        if stored != new {
            count += 1;
            for (a, b) in stored.iter().zip(new) {
                let difference = ((*a).into() - (*b).into()).abs() / scale;
                sum += difference;
                most = most.max(difference);
            }
            within.0 = (within.0.0.min(x), within.0.1.min(y));
            within.1 = (within.1.0.max(x), within.1.1.max(y));
        }
        x += 1;
        if x == width {
            (x, y) = (0, y + 1);
        }
    }
    let channels = stored.len().max(1) as f64;
    (count > 0).then_some(Found { count, mean: sum / channels, most, within })
}

/// The stored picture, the new one and the difference, side by side, with a frame around the
/// difference.
fn panels(stored: &DynamicImage, new: &DynamicImage, within: Option<((u32, u32), (u32, u32))>) -> RgbaImage {
    let small = |image: &DynamicImage| {
        image.thumbnail(image.width().min(LONGEST_SIDE), image.height().min(LONGEST_SIDE)).to_rgba8()
    };
    let (one, other) = (small(stored), small(new));
    let third = within.map(|within| marked(&one, &other, within, stored.width().max(1)));
    let shown: Vec<&RgbaImage> = [Some(&one), Some(&other), third.as_ref()].into_iter().flatten().collect();
    let width = shown.iter().map(|panel| panel.width() + GAP).sum::<u32>().saturating_sub(GAP);
    let height = shown.iter().map(|panel| panel.height()).max().unwrap_or_default();
    let mut all = RgbaImage::from_pixel(width.max(1), height.max(1), Rgba([255, 255, 255, 255]));
    let mut x = 0;
    for panel in shown {
        // Cannot fail: the picture was sized for it.
        let _fits = all.copy_from(panel, x, 0);
        x += panel.width() + GAP;
    }
    all
}

/// The difference of each channel, scaled so that the largest is white; grey where there is none.
fn marked(one: &RgbaImage, other: &RgbaImage, within: ((u32, u32), (u32, u32)), full_width: u32) -> RgbaImage {
    let most = one.iter().zip(other.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0).max(1);
    let mut panel = RgbaImage::from_fn(one.width(), one.height(), |x, y| {
        let (Rgba(a), Rgba(b)) = (one.get_pixel(x, y), other.get_pixel(x, y));
        let part = |i: usize| u8::try_from(u32::from(a[i].abs_diff(b[i])) * 255 / u32::from(most)).unwrap_or(255);
        let alpha = part(3);
        Rgba([part(0).max(alpha).max(24), part(1).max(alpha).max(24), part(2).max(alpha).max(24), 255])
    });
    let scaled = |at: u32| u32::try_from(u64::from(at) * u64::from(one.width()) / u64::from(full_width)).unwrap_or(0);
    let ((left, top), (right, bottom)) = within;
    let left_top = (scaled(left).saturating_sub(2), scaled(top).saturating_sub(2));
    let right_bottom = (
        (scaled(right) + 2).min(panel.width().saturating_sub(1)),
        (scaled(bottom) + 2).min(panel.height().saturating_sub(1)),
    );
    let red = Rgba([255, 0, 0, 255]);
    for x in left_top.0..=right_bottom.0 {
        panel.put_pixel(x, left_top.1, red);
        panel.put_pixel(x, right_bottom.1, red);
    }
    for y in left_top.1..=right_bottom.1 {
        panel.put_pixel(left_top.0, y, red);
        panel.put_pixel(right_bottom.0, y, red);
    }
    panel
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn png(image: &RgbaImage) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        image.write_to(&mut out, ImageFormat::Png).expect("it can be written");
        out.into_inner()
    }

    #[test]
    fn a_picture_in_another_file_is_the_same_picture() {
        let image = RgbaImage::from_fn(8, 8, |x, y| Rgba([x as u8, y as u8, 7, 255]));
        let opaque = DynamicImage::from(image.clone()).to_rgb8();
        let mut out = Cursor::new(Vec::new());
        opaque.write_to(&mut out, ImageFormat::Png).expect("it can be written");
        assert_ne!(out.get_ref(), &png(&image));
        assert_eq!(compare(&png(&image), out.get_ref(), 0.0), None);
    }

    #[test]
    fn a_different_size_is_reported() {
        let of = |width| png(&RgbaImage::new(width, 4));
        assert_eq!(compare(&of(4), &of(5), 1.0).map(|d| d.what), Some("the size is 5 × 4 instead of 4 × 4".to_owned()));
    }

    #[test]
    fn a_broken_picture_is_reported() {
        let good = png(&RgbaImage::new(1, 1));
        let told = compare(&good, &good[..40], 0.0).expect("it is cut off");
        assert!(told.what.starts_with("cannot read the new picture"), "{}", told.what);
    }

    proptest! {
        /// One changed channel of one pixel is found, wherever it is, and a picture is the same as itself.
        #[test]
        fn one_changed_pixel_is_found(width in 1_u32..9, height in 1_u32..9, at: (u8, u8), channel in 0_usize..4, by in 1_u8..255) {
            let image = RgbaImage::from_fn(width, height, |x, y| Rgba([x as u8 * 31, y as u8 * 31, 100, 200]));
            let (x, y) = (u32::from(at.0) % width, u32::from(at.1) % height);
            let mut other = image.clone();
            other.get_pixel_mut(x, y).0[channel] = other.get_pixel(x, y).0[channel].wrapping_add(by);
            prop_assert_eq!(compare(&png(&image), &png(&image.clone()), 0.0), None);
            let found = compare(&png(&image), &png(&other), 0.0).expect("it differs");
            prop_assert!(found.what.starts_with("1 of "), "{}", found.what);
            prop_assert!(found.what.contains(&format!("between ({x}, {y}) and ({x}, {y})")), "{}", found.what);
            let mean = found.mean.expect("it was measured");
            prop_assert_eq!(compare(&png(&image), &png(&other), mean * 1.001), None);
            prop_assert!(compare(&png(&image), &png(&other), mean * 0.999).is_some());
        }
    }
}
