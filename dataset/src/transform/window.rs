//! Windows of 16-bit pixels: which values become black and white, and the linear function between them.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::random::Stream;
use crate::transform::vectorized::vectorized;

/// The brightest gray level.
const WHITE: f32 = 255.0;

/// Center and width of the window of 8-bit pixels, which shows them as they are.
pub const OF_8_BITS: [f32; 2] = [128.0, 256.0];

/// Largest center, either way, and largest width.
const MOST: f64 = 1e9;

/// The window of an image, as text `stored`, `full` or `CENTER,WIDTH`. Images of 8 bits are stored with their window applied;
/// theirs is (128, 256) here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Window {
    /// The one that is stored with the image: the column `window`.
    #[default]
    Stored,
    /// The same for all images, in stored values.
    Fixed {
        /// Its middle.
        center: f64,
        /// Its width, at least 1.
        width: f64,
    },
    /// The smallest stored value of the image is black, the largest one white.
    Full,
}

impl Window {
    /// Whether it is the default.
    pub(crate) fn is_stored(&self) -> bool {
        *self == Self::Stored
    }

    /// An error that says what is impossible.
    ///
    /// # Errors
    /// When a fixed window has a width below 1, or numbers that no window has.
    pub fn check(self) -> Result<(), String> {
        match self {
            Self::Fixed { center, width } if !(center.abs() <= MOST && (1.0..=MOST).contains(&width)) => {
                Err(format!("center {center}, width {width}: give a width of at least 1"))
            }
            _ => Ok(()),
        }
    }

    /// Center and width for an image of little-endian 16-bit pixels with this stored window.
    pub fn of(self, pixels: &[u8], stored: [f32; 2]) -> (f64, f64) {
        match self {
            Self::Stored => (stored[0].into(), stored[1].into()),
            Self::Fixed { center, width } => (center, width),
            Self::Full => {
                let (low, high) =
                    words(pixels).fold((u16::MAX, 0), |(low, high), word| (low.min(word), high.max(word)));
                let (low, high) = (f64::from(low.min(high)), f64::from(high));
                ((low + high + 1.0) / 2.0, high - low + 1.0)
            }
        }
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = || -> Option<Self> {
            let (center, width) = text.split_once(',')?;
            Some(Self::Fixed { center: center.trim().parse().ok()?, width: width.trim().parse().ok()? })
        };
        let window = match text {
            "stored" => Self::Stored,
            "full" => Self::Full,
            _ => pair().ok_or_else(|| format!("`{text}`: give stored, full, or CENTER,WIDTH such as 2048,4096"))?,
        };
        window.check().map(|()| window)
    }
}

impl TryFrom<String> for Window {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl Display for Window {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Self::Stored => f.write_str("stored"),
            Self::Full => f.write_str("full"),
            Self::Fixed { center, width } => write!(f, "{center},{width}"),
        }
    }
}

impl From<Window> for String {
    fn from(window: Window) -> Self {
        window.to_string()
    }
}

/// How much windows are changed at random: the largest shift of the center, in widths, and the largest relative change of the
/// width. Both directions.
pub type WindowJitter = (f64, f64);

/// An error that says what is impossible.
///
/// # Errors
/// When the center would move by more than ten widths, or the width could become 0.
pub fn check_jitter((center, width): WindowJitter) -> Result<(), String> {
    if (0.0..=10.0).contains(&center) && (0.0..1.0).contains(&width) {
        return Ok(());
    }
    Err(format!(
        "({center}, {width}): give shares of the width: from 0 to 10 for the center, from 0 to below 1 for the width"
    ))
}

/// A random change of a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowChange {
    /// Added to the center, in widths.
    shift: f64,
    /// Multiplies the width.
    factor: f64,
}

impl WindowChange {
    /// None.
    pub const NONE: Self = Self { shift: 0.0, factor: 1.0 };

    /// Draws a change: the shift uniformly within the first share either way, then the factor within the second one of 1.
    pub fn draw((center, width): WindowJitter, random: &mut Stream) -> Self {
        Self { shift: random.range(-center, center), factor: random.range(1.0 - width, 1.0 + width) }
    }

    /// The changed window; its width stays at least 1.
    pub fn of(self, (center, width): (f64, f64)) -> (f64, f64) {
        (center + self.shift * width, (width * self.factor).max(1.0))
    }
}

/// The linear window function of DICOM PS3.3 C.11.2.1.2.1 to gray levels from 0 to 255 that are not rounded:
/// `((value - (center - 0.5)) / (width - 1) + 0.5) · 255`, clamped to 0 and 255. With a width of 1, values above
/// `center - 0.5` are white, the others black.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearWindow {
    /// The value of the middle gray level.
    middle: f32,
    /// Gray levels of one value; 0 for a width of 1.
    gain: f32,
}

impl LinearWindow {
    /// Of a center and width.
    pub fn new(center: f64, width: f64) -> Self {
        let gain = if width > 1.0 { (f64::from(WHITE) / (width - 1.0)) as f32 } else { 0.0 };
        Self { middle: (center - 0.5) as f32, gain }
    }

    /// The gray level of a value.
    #[inline(always)]
    pub fn level(self, value: f32) -> f32 {
        if self.gain > 0.0 {
            ((value - self.middle) * self.gain + WHITE / 2.0).clamp(0.0, WHITE)
        } else if value > self.middle {
            WHITE
        } else {
            0.0
        }
    }

    /// Replaces values by their gray levels.
    pub fn levels(self, values: &mut [f32]) {
        levels(self, values);
    }

    /// Pixels as gray levels, rounded.
    pub fn gray(self, pixels: impl Iterator<Item = u16>) -> Vec<u8> {
        pixels.map(|pixel| (self.level(f32::from(pixel)) + 0.5) as u8).collect()
    }
}

/// The pixels in little-endian bytes; a byte that is left over is ignored.
pub fn words(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes.as_chunks::<2>().0.iter().map(|word| u16::from_le_bytes(*word))
}

vectorized!(fn levels(window: LinearWindow, values: &mut [f32]) = levels_portable);

#[inline(always)]
fn levels_portable(window: LinearWindow, values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = window.level(*value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_the_standard() {
        for (center, width) in [(2048.0, 4096.0), (600.25, 350.5), (128.0, 256.0), (60_000.0, 2.0), (9.0, 1.0)] {
            let window = LinearWindow::new(center, width);
            for value in (0..=u16::MAX).step_by(7) {
                // The three cases of PS3.3 C.11.2.1.2.1.
                let x = f64::from(value);
                let expected = if x <= center - 0.5 - (width - 1.0) / 2.0 {
                    0.0
                } else if x > center - 0.5 + (width - 1.0) / 2.0 {
                    255.0
                } else {
                    ((x - (center - 0.5)) / (width - 1.0) + 0.5) * 255.0
                };
                let found = f64::from(window.level(f32::from(value)));
                assert!((found - expected).abs() < 2e-4, "{value} in {center}, {width}: {found}, not {expected}");
            }
        }
        let shown =
            |(center, width): (f64, f64), words: &[u16]| LinearWindow::new(center, width).gray(words.iter().copied());
        let bytes = |words: &[u16]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let all = [0, 1, 127, 255];
        assert_eq!(shown((128.0, 256.0), &all), [0, 1, 127, 255]);
        assert!(words(&bytes(&all)).eq(all));
        assert_eq!(shown(Window::Full.of(&bytes(&[1, 127, 255]), OF_8_BITS), &all), [0, 0, 126, 255]);
        let one = Window::Full.of(&bytes(&[1799, 1799]), OF_8_BITS);
        assert_eq!((one.1, shown(one, &[1799])), (1.0, vec![0]), "one value is black");
    }

    #[test]
    fn changes_are_relative_to_the_width_and_bounded() {
        let mut random = Stream::new(&[5]);
        let drawn: Vec<(f64, f64)> =
            (0..2000).map(|_| WindowChange::draw((0.1, 0.5), &mut random).of((1000.0, 400.0))).collect();
        let (centers, widths): (Vec<f64>, Vec<f64>) = drawn.into_iter().unzip();
        let ends = |values: &[f64]| values.iter().fold((f64::MAX, f64::MIN), |(a, b), &v| (a.min(v), b.max(v)));
        let (low, high) = ends(&centers);
        assert!((960.0..961.0).contains(&low) && (1039.0..=1040.0).contains(&high), "{low} {high}");
        let (low, high) = ends(&widths);
        assert!((200.0..202.0).contains(&low) && (598.0..=600.0).contains(&high), "{low} {high}");
        assert_eq!(WindowChange::NONE.of((3.0, 9.0)), (3.0, 9.0));
        assert!(check_jitter((0.2, 0.3)).is_ok());
        assert!(
            [(f64::NAN, 0.0), (0.0, 1.0), (-0.1, 0.0), (11.0, 0.0)].into_iter().all(|it| check_jitter(it).is_err())
        );
        assert!(Window::Fixed { center: 0.0, width: 0.5 }.check().unwrap_err().contains("at least 1"));
        assert!(Window::Fixed { center: f64::NAN, width: 9.0 }.check().is_err());
    }

    #[test]
    fn a_window_is_read_by_its_name() {
        for window in [Window::Stored, Window::Full, Window::Fixed { center: -20.5, width: 1000.0 }] {
            let text = serde_json::to_string(&window).unwrap();
            assert_eq!(serde_json::from_str::<Window>(&text).unwrap(), window, "{text}");
        }
        assert_eq!("2048, 4096".parse(), Ok(Window::Fixed { center: 2048.0, width: 4096.0 }));
        for (text, mistake) in
            [("2048", "CENTER,WIDTH"), ("a,b", "CENTER,WIDTH"), ("3,0.5", "at least 1"), ("", "stored")]
        {
            let error = serde_json::from_str::<Window>(&format!("\"{text}\"")).unwrap_err().to_string();
            assert!(error.contains(mistake), "{error}");
        }
    }
}
