//! The intensity transform: from decoded values to the 8-bit gray that is stored. The manifest of a dataset records it.

use serde::{Deserialize, Serialize};

use crate::dicom::parse::Dicom;
use crate::dicom::pixels::{Bits, Pixels, Values};
use crate::dicom::transforms::{Modality, Voi, WindowFunction};
use crate::image::shades::Shades;

/// How the stored values of a file become 8-bit gray. Every choice inverts MONOCHROME1 and makes padding black.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Intensity {
    /// Modality transform, then the VOI look-up table or the first window; without either, smallest to largest value.
    #[default]
    Voi,
    /// Modality transform, then smallest to largest value.
    Minmax,
    /// As in MIMIC-CXR-JPG: stored values, smallest to largest, then global histogram equalization.
    MimicCxrJpg,
}

impl Intensity {
    /// Name in the manifest and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Voi => "voi",
            Self::Minmax => "minmax",
            Self::MimicCxrJpg => "mimic-cxr-jpg",
        }
    }
}

/// Writes the 8-bit gray of a DICOM image to `gray`, row-major `[height, width]`.
pub fn to_gray(dicom: &Dicom, intensity: Intensity, gray: &mut Vec<u8>) {
    gray.clear();
    match &dicom.pixels {
        Pixels::Rgb(rgb) => gray.extend(rgb.chunks_exact(3).map(|pixel| luma(pixel[0], pixel[1], pixel[2]))),
        Pixels::Gray { values, bits } => match values {
            Values::Bytes(values) => {
                shades_of(dicom, intensity, *bits, || values.iter().map(|&v| u16::from(v))).of_bytes(values, gray);
            }
            Values::Words(values) => {
                shades_of(dicom, intensity, *bits, || values.iter().copied()).of_words(values, gray);
            }
            Values::LittleEndian(bytes) => {
                let words = || bytes.as_chunks::<2>().0.iter().map(|word| u16::from_le_bytes(*word));
                shades_of(dicom, intensity, *bits, words).of_little_endian(bytes, gray);
            }
            Values::Wide(values) => {
                let range = extremes(values.iter().copied().filter(|value| !dicom.is_padding(*value)));
                gray.extend(values.iter().map(|&value| shade(dicom, intensity, value, range)));
            }
            Values::Unread { .. } => {}
        },
    }
    if intensity == Intensity::MimicCxrJpg {
        equalize(gray);
    }
}

/// Luma of a color by ITU-R BT.601, in Pillow's fixed-point arithmetic.
pub fn luma(red: u8, green: u8, blue: u8) -> u8 {
    ((u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471 + 0x8000) >> 16) as u8
}

fn extremes(values: impl Iterator<Item = i64>) -> (i64, i64) {
    values.fold((i64::MAX, i64::MIN), |(low, high), value| (low.min(value), high.max(value)))
}

/// The shades of an image with these words, of at most 16 bits.
fn shades_of<W: Iterator<Item = u16>>(
    dicom: &Dicom,
    intensity: Intensity,
    bits: Bits,
    words: impl Fn() -> W,
) -> Shades {
    let windowed = intensity == Intensity::Voi && dicom.voi.is_some();
    let range = if windowed {
        (0, 0)
    } else {
        let mut seen = vec![false; 1 << 16];
        words().for_each(|word| seen[usize::from(word)] = true);
        let seen = (0..=u16::MAX).filter(|word| seen[usize::from(*word)]).map(|word| bits.value(word));
        extremes(seen.filter(|value| !dicom.is_padding(*value)))
    };
    shades(dicom, intensity, bits, range)
}

/// The shade of every 16-bit word, unused bits included. Without a window, the smallest and largest stored value (`range`)
/// become black and white.
pub fn shades(dicom: &Dicom, intensity: Intensity, bits: Bits, range: (i64, i64)) -> Shades {
    let values = 1u32 << bits.stored;
    let value = |pattern: u32| bits.value((pattern << bits.shift) as u16);
    let shades: Vec<u8> = (0..values).map(|pattern| shade(dicom, intensity, value(pattern), range)).collect();
    #[expect(clippy::large_stack_arrays, reason = "64 KiB, once for each file")]
    let mut table = Box::new([0; 1 << 16]);
    for (word, entry) in (0..=u16::MAX).zip(table.iter_mut()) {
        *entry = shades[usize::from(bits.pattern(word))];
    }
    let level = |pattern: u32| level(dicom, intensity, value(pattern), range);
    let line = (bits.shift == 0 && !bits.signed).then(|| ((values - 1) as u16, [0, values - 1].map(level)));
    Shades::new(table, line)
}

/// The shade of one stored value.
fn shade(dicom: &Dicom, intensity: Intensity, stored: i64, range: (i64, i64)) -> u8 {
    if dicom.is_padding(stored) { 0 } else { level(dicom, intensity, stored, range).clamp(0.0, 255.0) as u8 }
}

/// The shade before it is rounded down and clamped: modality transform, VOI transform, inversion, in this order.
fn level(dicom: &Dicom, intensity: Intensity, stored: i64, range: (i64, i64)) -> f64 {
    let modality = |stored: i64| match (&dicom.modality, intensity) {
        (_, Intensity::MimicCxrJpg) => stored as f64,
        (Modality::Rescale { slope, intercept }, _) => stored as f64 * slope + intercept,
        (Modality::Table(table), _) => table.get(stored as f64),
    };
    let value = modality(stored);
    let share = match (&dicom.voi, intensity) {
        (Some(Voi::Table(table)), Intensity::Voi) => table.get(value) / (f64::from(1u32 << table.bits) - 1.0),
        (Some(Voi::Window { center, width, function }), Intensity::Voi) => window(value, *center, *width, *function),
        _ => {
            // A modality table or a negative slope may reverse the order, so the range is that of the transformed values.
            let (a, b) = (modality(range.0), modality(range.1));
            let (low, high) = (a.min(b), a.max(b));
            if high > low { (value - low) / (high - low) } else { 0.0 }
        }
    };
    let share = if dicom.inverted { 1.0 - share } else { share };
    255.0 * share + 0.5
}

/// The window function, 0..1: DICOM PS3.3 C.11.2.1.2 (linear), C.11.2.1.3.2 (linear exact), C.11.2.1.3.1 (sigmoid).
fn window(value: f64, center: f64, width: f64, function: WindowFunction) -> f64 {
    match function {
        WindowFunction::Linear if width <= 1.0 => f64::from(u8::from(value > center - 0.5)),
        WindowFunction::Linear => (value - (center - 0.5)) / (width - 1.0) + 0.5,
        WindowFunction::LinearExact => (value - center) / width + 0.5,
        WindowFunction::Sigmoid => 1.0 / (1.0 + (-4.0 * (value - center) / width).exp()),
    }
}

/// Global histogram equalization: the darkest shade becomes 0, every other one the share of pixels at or below it.
fn equalize(gray: &mut [u8]) {
    let mut counts = [0u64; 256];
    gray.iter().for_each(|&shade| counts[usize::from(shade)] += 1);
    let Some(darkest) = counts.iter().position(|&count| count > 0) else {
        return;
    };
    let rest = gray.len() as u64 - counts[darkest];
    if rest == 0 {
        return;
    }
    let mut table = [0u8; 256];
    let mut below = 0u64;
    for shade in darkest + 1..256 {
        below += counts[shade];
        table[shade] = (255.0 * below as f64 / rest as f64).round_ties_even() as u8;
    }
    gray.iter_mut().for_each(|shade| *shade = table[usize::from(*shade)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::header::Header;

    fn image(values: Vec<u16>, voi: Option<Voi>, inverted: bool) -> Dicom<'static> {
        Dicom {
            width: values.len() as u32,
            height: 1,
            pixels: Pixels::Gray { values: Values::Words(values), bits: Bits { stored: 12, shift: 0, signed: false } },
            inverted,
            modality: Modality::Rescale { slope: 1.0, intercept: 0.0 },
            voi,
            padding: None,
            header: Header::default(),
        }
    }

    fn gray(dicom: &Dicom, intensity: Intensity) -> Vec<u8> {
        let mut gray = Vec::new();
        to_gray(dicom, intensity, &mut gray);
        gray
    }

    #[test]
    fn windows_and_inversion() {
        let window = |function| Some(Voi::Window { center: 2048.0, width: 4096.0, function });
        let shown = |voi, inverted| gray(&image(vec![0, 2048, 4095], voi, inverted), Intensity::Voi);
        assert_eq!(shown(window(WindowFunction::Linear), false), [0, 128, 255]);
        assert_eq!(shown(window(WindowFunction::Linear), true), [255, 127, 0]);
        assert_eq!(shown(window(WindowFunction::LinearExact), false), [0, 128, 255]);
        // 255 / (1 + e²), 255 / 2, 255 / (1 + e⁻²).
        assert_eq!(shown(window(WindowFunction::Sigmoid), false), [30, 128, 225]);
        // A window off the middle of the range, of another width: (v - 699.5) / 499 + 0.5, and so on.
        let narrow = |function, values: &[u16]| {
            let voi = Some(Voi::Window { center: 700.0, width: 500.0, function });
            gray(&image(values.to_vec(), voi, false), Intensity::Voi)
        };
        let values = [0, 449, 450, 600, 700, 949, 950, 4095];
        assert_eq!(narrow(WindowFunction::Linear, &values), [0, 0, 0, 77, 128, 255, 255, 255]);
        assert_eq!(narrow(WindowFunction::LinearExact, &values), [0, 0, 0, 77, 128, 254, 255, 255]);
        assert_eq!(narrow(WindowFunction::Sigmoid, &values), [1, 30, 30, 79, 128, 224, 225, 255]);
        assert_eq!(gray(&image(vec![100, 200, 300], None, false), Intensity::Voi), [0, 128, 255]);
        assert_eq!(gray(&image(vec![7, 7], None, false), Intensity::Minmax), [0, 0]);
    }

    #[test]
    fn unused_bits_are_ignored_and_signs_extended() {
        let mut dicom = image(vec![0xF001, 0x0003, 0xF005], None, false);
        assert_eq!(gray(&dicom, Intensity::Minmax), [0, 128, 255]);
        let signed = Bits { stored: 12, shift: 0, signed: true };
        dicom.pixels = Pixels::Gray { values: Values::Words(vec![0xFFF, 0, 1]), bits: signed };
        assert_eq!(gray(&dicom, Intensity::Minmax), [0, 128, 255]);
        let high = Bits { stored: 12, shift: 4, signed: false };
        let bytes = [0x1F, 0x00, 0x3F, 0x00, 0x5F, 0x00];
        dicom.pixels = Pixels::Gray { values: Values::LittleEndian(&bytes), bits: high };
        assert_eq!(gray(&dicom, Intensity::Minmax), [0, 128, 255]);
    }

    #[test]
    fn padding_is_black_and_is_left_out_of_the_range() {
        for inverted in [false, true] {
            let mut dicom = image(vec![4000, 100, 300, 4001], None, inverted);
            dicom.padding = Some((4000, 4095));
            let ends = if inverted { [0, 255, 0, 0] } else { [0, 0, 255, 0] };
            assert_eq!(gray(&dicom, Intensity::Voi), ends);
        }
    }

    #[test]
    fn equalization_spreads_the_shades() {
        let spread = gray(&image(vec![0, 1, 1, 1000], None, false), Intensity::MimicCxrJpg);
        assert_eq!(spread, [0, 0, 0, 255]);
        let mut even: Vec<u8> = vec![10, 20, 30, 40];
        equalize(&mut even);
        assert_eq!(even, [0, 85, 170, 255]);
    }
}
