//! From the values of a file to unsigned pixels of 16 bits and their window, without a loss of steps.
//!
//! 1. Each value becomes a whole number: that of the modality transform, where its slope and intercept are whole numbers or it is
//!    a table; otherwise the value of the file, with the sign of the slope, so that rounding makes no two values one.
//! 2. Of MONOCHROME1 (and of a VOI table that falls), the number is subtracted from the sum of the smallest and the largest
//!    number that the header allows: 4095 - value for 12 bits. Larger numbers are always brighter.
//! 3. Numbers within 0 to 65,535 are stored as they are. Otherwise the smallest one of the image is subtracted. Where they
//!    still do not fit, they are scaled to 0 to 65,535 and rounded; this can only happen to files of more than 16 bits, and to
//!    slopes above 1.
//! 4. Padding is 0.
//!
//! The window of the header is brought to the same numbers. `image/intensity.rs` has the way to 8 bits.

use crate::dicom::parse::Dicom;
use crate::dicom::pixels::{Bits, Pixels, Values};
use crate::dicom::transforms::{LookUp, Modality, Voi, WindowFunction};
use crate::image::intensity::Intensity;

/// The largest pixel.
const MOST: i64 = u16::MAX as i64;

/// Largest slope and intercept that numbers are computed with.
const LARGEST: f64 = 2_147_483_648.0;

/// Writes the pixels of a DICOM image to `out`, little endian, `[height, width]`; returns center and width of their window.
/// `None` for color images, which have 8 bits.
pub fn pixels(dicom: &Dicom, intensity: Intensity, out: &mut Vec<u8>) -> Option<[f32; 2]> {
    out.clear();
    let Pixels::Gray { values, bits } = &dicom.pixels else { return None };
    let numbers = Numbers::of(dicom, *bits, intensity);
    let fit = match values {
        Values::Bytes(values) => of_words(&numbers, *bits, || values.iter().map(|&value| u16::from(value)), out),
        Values::Words(values) => of_words(&numbers, *bits, || values.iter().copied(), out),
        Values::LittleEndian(bytes) => {
            let words = || bytes.as_chunks::<2>().0.iter().map(|word| u16::from_le_bytes(*word));
            of_words(&numbers, *bits, words, out)
        }
        Values::Wide(values) => {
            let fit = Fit::of(values.iter().filter_map(|&value| numbers.get(value)));
            out.extend(values.iter().flat_map(|&value| fit.pixel(numbers.get(value)).to_le_bytes()));
            fit
        }
        Values::Unread { .. } => return None,
    };
    Some(numbers.window(&fit, intensity).unwrap_or_else(|| fit.whole_range()))
}

/// Writes the pixels of words of at most 16 bits.
fn of_words<W: Iterator<Item = u16>>(numbers: &Numbers, bits: Bits, words: impl Fn() -> W, out: &mut Vec<u8>) -> Fit {
    let mut seen = vec![false; 1 << 16];
    words().for_each(|word| seen[usize::from(word)] = true);
    let number = |word: u16| numbers.get(bits.value(word));
    let fit = Fit::of((0..=u16::MAX).filter(|word| seen[usize::from(*word)]).filter_map(number));
    let table: Vec<[u8; 2]> = (0..=u16::MAX)
        .map(|word| if seen[usize::from(word)] { fit.pixel(number(word)).to_le_bytes() } else { [0; 2] })
        .collect();
    out.resize(2 * words().count(), 0);
    let pixels = out.as_chunks_mut::<2>().0.iter_mut();
    pixels.zip(words()).for_each(|(pixel, word)| *pixel = table[usize::from(word)]);
    fit
}

/// The whole numbers of stored values; larger ones are brighter.
struct Numbers<'a> {
    dicom: &'a Dicom<'a>,
    /// What numbers are subtracted from, where larger values are darker.
    mirror: Option<i64>,
    /// A number before that is `modality value · gain + offset`.
    gain: f64,
    offset: f64,
}

impl<'a> Numbers<'a> {
    fn of(dicom: &'a Dicom, bits: Bits, intensity: Intensity) -> Self {
        let falls = matches!(&dicom.voi, Some(Voi::Table(table)) if intensity == Intensity::Voi && falls(table));
        let (gain, offset) = match &dicom.modality {
            Modality::Rescale { slope, intercept } if !is_whole(*slope, *intercept) => {
                (1.0 / slope.abs(), -intercept / slope.abs())
            }
            Modality::Rescale { .. } | Modality::Table(_) => (1.0, 0.0),
        };
        let mut numbers = Self { dicom, mirror: None, gain, offset };
        if dicom.inverted != falls {
            numbers.mirror = Some(match &dicom.modality {
                Modality::Table(table) => (1i64 << table.bits) - 1,
                Modality::Rescale { .. } => {
                    let half = 1i64 << (bits.stored.clamp(1, 62) - 1);
                    let (first, last) = if bits.signed { (-half, half - 1) } else { (0, 2 * half - 1) };
                    numbers.before_mirror(first).saturating_add(numbers.before_mirror(last))
                }
            });
        }
        numbers
    }

    fn before_mirror(&self, stored: i64) -> i64 {
        match &self.dicom.modality {
            Modality::Table(table) => table.get(stored as f64) as i64,
            Modality::Rescale { slope, intercept } if is_whole(*slope, *intercept) => {
                stored.saturating_mul(*slope as i64).saturating_add(*intercept as i64)
            }
            Modality::Rescale { slope, .. } if *slope < 0.0 => stored.saturating_neg(),
            Modality::Rescale { .. } => stored,
        }
    }

    /// The number of a stored value; `None` for padding.
    fn get(&self, stored: i64) -> Option<i64> {
        let number = self.before_mirror(stored);
        let mirrored = self.mirror.map_or(number, |sum| sum.saturating_sub(number));
        (!self.dicom.is_padding(stored)).then_some(mirrored)
    }

    /// Center and width of the window of the header in pixels; `None` without a window.
    fn window(&self, fit: &Fit, intensity: Intensity) -> Option<[f32; 2]> {
        // The modality value of the middle gray level, and the distance of those that are black and white.
        let (middle, span) = match self.dicom.voi.as_ref().filter(|_| intensity == Intensity::Voi)? {
            Voi::Window { center, width, function: WindowFunction::Linear } => (center - 0.5, width - 1.0),
            Voi::Window { center, width, .. } => (*center, *width),
            Voi::Table(table) => {
                let (black, white) = ends(table)?;
                (f64::midpoint(black, white), white - black)
            }
        };
        let number = middle * self.gain + self.offset;
        let number = self.mirror.map_or(number, |sum| sum as f64 - number);
        let center = (number - fit.least as f64) * fit.scale + 0.5;
        let width = (span * self.gain * fit.scale + 1.0).max(1.0);
        let window = [center as f32, width as f32];
        window.iter().all(|number| number.is_finite()).then_some(window)
    }
}

/// Whether values of this modality transform are whole numbers.
fn is_whole(slope: f64, intercept: f64) -> bool {
    [slope, intercept].iter().all(|number| number.fract() == 0.0 && number.abs() < LARGEST)
}

/// Whether larger values have smaller entries.
fn falls(table: &LookUp) -> bool {
    table.entries.last() < table.entries.first()
}

/// The last value that has the first entry of a table, and the first value that has the last entry; `None` where all
/// entries are the same.
fn ends(table: &LookUp) -> Option<(f64, f64)> {
    let (first, last) = (table.entries.first()?, table.entries.last()?);
    let black = table.entries.iter().position(|entry| entry != first)? - 1;
    let white = table.entries.iter().rposition(|entry| entry != last)? + 1;
    let value = |index: usize| table.first as f64 + index as f64;
    (black < white).then(|| (value(black), value(white)))
}

/// How numbers become pixels: `(number - least) · scale`.
struct Fit {
    least: i64,
    scale: f64,
    /// The smallest and the largest number.
    range: (i64, i64),
}

impl Fit {
    /// That of an image with these numbers.
    fn of(numbers: impl Iterator<Item = i64>) -> Self {
        let (low, high) = numbers.fold((i64::MAX, i64::MIN), |(low, high), n| (low.min(n), high.max(n)));
        // An image of padding only.
        let (low, high) = if low > high { (0, 0) } else { (low, high) };
        let span = high.saturating_sub(low);
        let (least, scale) = match () {
            () if low >= 0 && high <= MOST => (0, 1.0),
            () if span <= MOST => (low, 1.0),
            () => (low, MOST as f64 / span as f64),
        };
        Self { least, scale, range: (low, high) }
    }

    /// The pixel of a number; 0 for padding.
    fn pixel(&self, number: Option<i64>) -> u16 {
        // The conversion clamps; without a scale, all numbers are whole.
        number.map_or(0, |number| (number.saturating_sub(self.least) as f64 * self.scale).round() as u16)
    }

    /// The window from the smallest to the largest pixel.
    fn whole_range(&self) -> [f32; 2] {
        let [low, high] = [self.range.0, self.range.1].map(|number| f32::from(self.pixel(Some(number))));
        [(low + high + 1.0) / 2.0, high - low + 1.0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::header::Header;

    fn image(values: Values<'static>, bits: Bits) -> Dicom<'static> {
        Dicom {
            width: 3,
            height: 1,
            pixels: Pixels::Gray { values, bits },
            inverted: false,
            modality: Modality::Rescale { slope: 1.0, intercept: 0.0 },
            voi: None,
            padding: None,
            header: Header::default(),
        }
    }

    fn made(dicom: &Dicom, intensity: Intensity) -> (Vec<u16>, [f32; 2]) {
        let mut bytes = vec![9];
        let window = pixels(dicom, intensity, &mut bytes).unwrap();
        (bytes.chunks(2).map(|word| u16::from_le_bytes([word[0], word[1]])).collect(), window)
    }

    const UNSIGNED: Bits = Bits { stored: 12, shift: 0, signed: false };
    const SIGNED: Bits = Bits { stored: 12, shift: 0, signed: true };

    #[test]
    fn numbers_are_kept_shifted_or_mirrored() {
        let words = || Values::Words(vec![0, 100, 4095]);
        assert_eq!(made(&image(words(), UNSIGNED), Intensity::Voi), (vec![0, 100, 4095], [2048.0, 4096.0]));
        let inverted = Dicom { inverted: true, ..image(words(), UNSIGNED) };
        assert_eq!(made(&inverted, Intensity::Voi).0, [4095, 3995, 0]);
        let below_0 = Modality::Rescale { slope: 2.0, intercept: -1024.0 };
        let shifted = Dicom { modality: below_0, ..image(words(), UNSIGNED) };
        assert_eq!(made(&shifted, Intensity::Voi).0, [0, 200, 8190]);
        // 0xFFF is -1.
        assert_eq!(made(&image(words(), SIGNED), Intensity::Minmax), (vec![1, 101, 0], [51.0, 102.0]));
        let finer = Dicom { modality: Modality::Rescale { slope: 0.25, intercept: 0.5 }, ..image(words(), UNSIGNED) };
        assert_eq!(made(&finer, Intensity::Voi).0, [0, 100, 4095]);
        let falling = Dicom { modality: Modality::Rescale { slope: -0.5, intercept: 0.0 }, ..image(words(), UNSIGNED) };
        assert_eq!(made(&falling, Intensity::Voi).0, [4095, 3995, 0]);
        let wide = image(Values::Wide(vec![-5, 70_000, 140_000]), Bits { stored: 32, shift: 0, signed: true });
        assert_eq!(made(&wide, Intensity::Voi), (vec![0, 32_769, 65_535], [32_768.0, 65_536.0]));
        let padded = Dicom { padding: Some((4095, 4095)), ..image(words(), UNSIGNED) };
        assert_eq!(made(&padded, Intensity::Voi), (vec![0, 100, 0], [50.5, 101.0]));
        let hostile =
            Dicom { modality: Modality::Rescale { slope: f64::NAN, intercept: 1e300 }, ..image(words(), UNSIGNED) };
        assert_eq!(made(&hostile, Intensity::Voi).0, [0, 100, 4095]);
    }

    /// The window shows each value as the way to 8 bits does, before it rounds.
    #[test]
    fn windows_show_what_the_header_shows() {
        use dataset::transform::window::LinearWindow;

        let window = |function| Voi::Window { center: 700.0, width: 500.0, function };
        let table = |entries: Vec<u16>| Voi::Table(LookUp { first: 450, entries, bits: 8 });
        let ramp: Vec<u16> = [0; 50].into_iter().chain((0..=255).map(|entry| entry.min(250))).collect();
        let vois = [
            window(WindowFunction::Linear),
            window(WindowFunction::LinearExact),
            table((0..=255).collect()),
            table((0..=255).rev().collect()),
        ];
        let modalities = [(1.0, 0.0), (2.0, -900.0), (0.25, 100.5), (-1.0, 1500.0)]
            .map(|(s, i)| Modality::Rescale { slope: s, intercept: i });
        for (voi, modality) in
            vois.into_iter().flat_map(|voi| modalities.clone().map(|modality| (voi.clone(), modality)))
        {
            for inverted in [false, true] {
                let values = Values::Words((0..4096).step_by(3).collect());
                let dicom =
                    Dicom { voi: Some(voi.clone()), modality: modality.clone(), inverted, ..image(values, UNSIGNED) };
                let (pixels, [center, width]) = made(&dicom, Intensity::Voi);
                let ours = LinearWindow::new(center.into(), width.into()).gray(pixels.into_iter());
                let mut theirs = Vec::new();
                crate::image::intensity::to_gray(&dicom, Intensity::Voi, &mut theirs);
                let worst = ours.iter().zip(&theirs).map(|(a, b)| a.abs_diff(*b)).max();
                // A table rounds its input down; entries of one value follow each other where the slope is small.
                let most = if matches!(voi, Voi::Table(_)) { 2 } else { 1 };
                assert!(worst.unwrap() <= most, "{voi:?} {modality:?} {inverted}: off by {worst:?}");
            }
        }
        let curve = LookUp { first: 450, entries: ramp, bits: 8 };
        assert_eq!(ends(&curve), Some((500.0, 750.0)));
        let dicom = Dicom { voi: Some(Voi::Table(curve)), ..image(Values::Words(vec![0, 1, 4095]), UNSIGNED) };
        assert_eq!(made(&dicom, Intensity::Voi).1, [625.5, 251.0]);
        // A window without a width, and a table of one entry.
        let step = Voi::Window { center: 700.0, width: 1.0, function: WindowFunction::Linear };
        let dicom = Dicom { voi: Some(step), ..image(Values::Words(vec![0, 1, 4095]), UNSIGNED) };
        assert_eq!(made(&dicom, Intensity::Voi).1, [700.0, 1.0]);
        let flat = Voi::Table(LookUp { first: 0, entries: vec![7; 9], bits: 8 });
        let dicom = Dicom { voi: Some(flat), ..image(Values::Words(vec![0, 1, 4095]), UNSIGNED) };
        assert_eq!(made(&dicom, Intensity::Voi).1, [2048.0, 4096.0]);
    }
}
