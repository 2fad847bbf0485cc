//! JPEG-LS (ITU-T T.87), lossless and near-lossless, one component, 2 to 16 bits.

use super::{DecodeError, Result};

const ENDS: DecodeError = DecodeError::Malformed("the JPEG-LS stream ends early");

/// Orders of the Golomb code of a run by run index (A.7.1).
const RUN_ORDERS: [u32; 32] =
    [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// A decoded image.
pub struct Image {
    pub width: usize,
    pub height: usize,
    /// The samples, row-major `[height, width]`.
    pub samples: Vec<u16>,
}

/// Decodes a stream; one with more than `max_pixels` is an error before memory is allocated.
pub fn decode(file: &[u8], max_pixels: u64) -> Result<Image> {
    if file.get(..2) != Some(&[0xFF, 0xD8]) {
        return Err(DecodeError::Malformed("not a JPEG-LS stream"));
    }
    let mut frame = None;
    let mut preset = [0u16; 5];
    let mut at = 2;
    loop {
        while file.get(at) == Some(&0xFF) && file.get(at + 1) == Some(&0xFF) {
            at += 1;
        }
        let &[0xFF, marker, high, low] = file.get(at..at + 4).and_then(|m| m.first_chunk()).ok_or(ENDS)? else {
            return Err(DecodeError::Malformed("a marker is missing"));
        };
        let length = usize::from(u16::from_be_bytes([high, low])).max(2);
        let segment = file.get(at + 4..at + 2 + length).ok_or(ENDS)?;
        at += 2 + length;
        match marker {
            0xF7 => {
                let &[precision, h1, h0, w1, w0, components] = segment.first_chunk().ok_or(ENDS)?;
                if components != 1 {
                    return Err(DecodeError::Unsupported("a JPEG-LS stream of several components"));
                }
                let [height, width] = [[h1, h0], [w1, w0]].map(|side| usize::from(u16::from_be_bytes(side)));
                if width == 0 || height == 0 || !(2..=16).contains(&precision) {
                    return Err(DecodeError::Malformed("a JPEG-LS stream with impossible parameters"));
                }
                if width as u64 * height as u64 > max_pixels {
                    return Err(DecodeError::Malformed("more pixels than a radiograph has"));
                }
                frame = Some((precision, width, height));
            }
            0xF8 if segment.first() == Some(&1) => {
                let values = segment.get(1..11).ok_or(ENDS)?;
                preset = std::array::from_fn(|i| u16::from_be_bytes([values[2 * i], values[2 * i + 1]]));
            }
            0xF8 => return Err(DecodeError::Unsupported("a JPEG-LS stream with mapping tables")),
            0xDD => return Err(DecodeError::Unsupported("a JPEG-LS stream with restart markers")),
            0xDA => {
                let Some((precision, width, height)) = frame else {
                    return Err(DecodeError::Malformed("a JPEG-LS scan without a frame"));
                };
                let &[1, _, 0, near, _, shift] = segment.first_chunk().ok_or(ENDS)? else {
                    return Err(DecodeError::Unsupported("a JPEG-LS scan of several components, or with a table"));
                };
                if shift & 15 != 0 {
                    return Err(DecodeError::Unsupported("a JPEG-LS scan with a point transform"));
                }
                let code = Code::new(precision, near.into(), preset)?;
                return Scan::new(code, &file[at..]).image(width, height);
            }
            0xD8 | 0xD9 | 0xC0..=0xCF => return Err(DecodeError::Malformed("not a JPEG-LS stream")),
            _ => {}
        }
    }
}

/// The parameters of the code (C.2.4.1, A.2.1).
struct Code {
    largest: i32,
    near: i32,
    thresholds: [i32; 3],
    reset: i32,
    range: i32,
    /// Bits of a mapped error that is written without a Golomb code.
    plain_bits: u32,
    limit: u32,
}

impl Code {
    fn new(precision: u8, near: i32, preset: [u16; 5]) -> Result<Self> {
        let given = preset.map(i32::from);
        let whole = (1i32 << precision) - 1;
        let largest = if given[0] == 0 { whole } else { given[0] };
        if largest > whole || near > (largest / 2).min(255) {
            return Err(DecodeError::Malformed("a JPEG-LS stream with impossible parameters"));
        }
        let bounded = |value: i32, low: i32| if value > largest || value < low { low } else { value };
        let factor = if largest >= 128 { (largest.min(4095) + 128) / 256 } else { 256 / (largest + 1) };
        let defaults = if largest >= 128 {
            [factor + 2 + 3 * near, factor * 4 + 3 + 5 * near, factor * 17 + 4 + 7 * near]
        } else {
            [(3 / factor + 3 * near).max(2), (7 / factor + 5 * near).max(3), (21 / factor + 7 * near).max(4)]
        };
        let mut thresholds = [0; 3];
        let mut low = near + 1;
        for i in 0..3 {
            low = if given[i + 1] == 0 { bounded(defaults[i], low) } else { given[i + 1].max(low) };
            thresholds[i] = low;
        }
        let range = if near == 0 { largest + 1 } else { (largest + 2 * near) / (2 * near + 1) + 1 };
        let bits = |count: i32| (count as u32).next_power_of_two().trailing_zeros();
        let sample_bits = bits(largest + 1).max(2);
        Ok(Self {
            largest,
            near,
            thresholds,
            reset: if given[4] == 0 { 64 } else { given[4].max(3) },
            range,
            plain_bits: bits(range),
            limit: 2 * (sample_bits + sample_bits.max(8)),
        })
    }

    /// The region of a gradient between the thresholds, -4 to 4.
    fn region(&self, gradient: i32) -> i32 {
        let [low, middle, high] = self.thresholds;
        let size = gradient.abs();
        let region = match size {
            _ if size <= self.near => 0,
            _ if size < low => 1,
            _ if size < middle => 2,
            _ if size < high => 3,
            _ => 4,
        };
        if gradient < 0 { -region } else { region }
    }

    /// A sample from its prediction and error, wrapped to the range of the samples (A.4.5).
    fn sample(&self, prediction: i32, error: i32) -> i32 {
        let step = 2 * self.near + 1;
        let mut value = prediction + error * step;
        if value < -self.near {
            value += self.range * step;
        } else if value > self.largest + self.near {
            value -= self.range * step;
        }
        value.clamp(0, self.largest)
    }
}

/// Statistics of one context.
#[derive(Clone, Copy)]
struct Context {
    /// Sum of the errors' sizes.
    sizes: i32,
    bias: i32,
    correction: i32,
    count: i32,
}

impl Context {
    /// Order of the Golomb code.
    fn order(sizes: i32, count: i32) -> u32 {
        let mut order = 0;
        while order < 24 && (count << order) < sizes {
            order += 1;
        }
        order
    }
}

/// Statistics of an interrupted run (A.7.2).
#[derive(Clone, Copy)]
struct RunContext {
    sizes: i32,
    count: i32,
    negatives: i32,
}

struct Scan<'a> {
    code: Code,
    bits: Bits<'a>,
    contexts: [Context; 365],
    runs: [RunContext; 2],
    run_index: usize,
}

impl<'a> Scan<'a> {
    fn new(code: Code, bytes: &'a [u8]) -> Self {
        let sizes = ((code.range + 32) / 64).max(2);
        Self {
            code,
            bits: Bits { bytes, at: 0, buffer: 0, count: 0, filler: 0 },
            contexts: [Context { sizes, bias: 0, correction: 0, count: 1 }; 365],
            runs: [RunContext { sizes, count: 1, negatives: 0 }; 2],
            run_index: 0,
        }
    }

    fn image(mut self, width: usize, height: usize) -> Result<Image> {
        let mut samples = Vec::with_capacity(width * height);
        // A line has one more value at each end (A.2.1): on the left the first value of the line above, on the right a copy of
        // the last value.
        let mut above = vec![0i32; width + 2];
        let mut line = vec![0i32; width + 2];
        for _ in 0..height {
            line[0] = above[1];
            above[width + 1] = above[width];
            self.line(&above, &mut line)?;
            if self.bits.filler > self.bits.count {
                return Err(ENDS);
            }
            samples.extend(line[1..=width].iter().map(|&value| value as u16));
            std::mem::swap(&mut above, &mut line);
        }
        Ok(Image { width, height, samples })
    }

    fn line(&mut self, above: &[i32], line: &mut [i32]) -> Result<()> {
        let width = line.len() - 2;
        let mut x = 1;
        while x <= width {
            let (a, b, c, d) = (line[x - 1], above[x], above[x - 1], above[x + 1]);
            let [q1, q2, q3] = [d - b, b - c, c - a].map(|gradient| self.code.region(gradient));
            if (q1, q2, q3) != (0, 0, 0) {
                line[x] = self.regular(q1 * 81 + q2 * 9 + q3, [a, b, c])?;
                x += 1;
                continue;
            }
            let length = self.run_length(width + 1 - x)?;
            line[x..x + length].fill(a);
            x += length;
            if x <= width {
                line[x] = self.interruption(a, above[x])?;
                x += 1;
            }
        }
        Ok(())
    }

    fn regular(&mut self, context: i32, [a, b, c]: [i32; 3]) -> Result<i32> {
        let negative = context < 0;
        let sign = if negative { -1 } else { 1 };
        let context = &mut self.contexts[context.unsigned_abs() as usize];
        let edge = if c >= a.max(b) {
            a.min(b)
        } else if c <= a.min(b) {
            a.max(b)
        } else {
            a + b - c
        };
        let prediction = (edge + sign * context.correction).clamp(0, self.code.largest);
        let order = Context::order(context.sizes, context.count);
        let mapped = self.bits.golomb(order, self.code.limit, self.code.plain_bits)? as i32;
        let turned = self.code.near == 0 && order == 0 && 2 * context.bias <= -context.count;
        let odd = mapped & 1 == 1;
        let error = if odd == turned { mapped / 2 } else { -(mapped / 2) - 1 };
        context.bias += error * (2 * self.code.near + 1);
        context.sizes += error.abs();
        if context.count == self.code.reset {
            context.sizes >>= 1;
            context.bias >>= 1;
            context.count >>= 1;
        }
        context.count += 1;
        if context.bias <= -context.count {
            context.bias = (context.bias + context.count).max(1 - context.count);
            context.correction = (context.correction - 1).max(-128);
        } else if context.bias > 0 {
            context.bias = (context.bias - context.count).min(0);
            context.correction = (context.correction + 1).min(127);
        }
        Ok(self.code.sample(prediction, sign * error))
    }

    /// The number of samples that repeat the one to their left, at most `rest`.
    fn run_length(&mut self, rest: usize) -> Result<usize> {
        let mut length = 0;
        loop {
            let order = RUN_ORDERS[self.run_index];
            if self.bits.take(1)? == 0 {
                let part = self.bits.take(order)? as usize;
                return if length + part < rest {
                    Ok(length + part)
                } else {
                    Err(DecodeError::Malformed("a run is longer than its line"))
                };
            }
            let whole = 1 << order;
            if length + whole <= rest {
                self.run_index = (self.run_index + 1).min(31);
            }
            length = (length + whole).min(rest);
            if length == rest {
                return Ok(length);
            }
        }
    }

    /// The sample that ends a run.
    fn interruption(&mut self, left: i32, above: i32) -> Result<i32> {
        let same = (left - above).abs() <= self.code.near;
        let kind = i32::from(same);
        let order_of_run = RUN_ORDERS[self.run_index];
        let context = &mut self.runs[usize::from(same)];
        let sizes = if same { context.sizes + (context.count >> 1) } else { context.sizes };
        let order = Context::order(sizes, context.count);
        let limit = self.code.limit - order_of_run - 1;
        let mapped = self.bits.golomb(order, limit, self.code.plain_bits)? as i32;
        let turned = mapped + kind;
        let odd = turned & 1 == 1;
        let size = (turned + 1) / 2;
        let often_negative = order != 0 || 2 * context.negatives >= context.count;
        let error = if often_negative == odd { -size } else { size };
        if error < 0 {
            context.negatives += 1;
        }
        context.sizes += (mapped + 1 - kind) >> 1;
        if context.count == self.code.reset {
            context.sizes >>= 1;
            context.count >>= 1;
            context.negatives >>= 1;
        }
        context.count += 1;
        self.run_index = self.run_index.saturating_sub(1);
        Ok(if same {
            self.code.sample(left, error)
        } else if left > above {
            self.code.sample(above, -error)
        } else {
            self.code.sample(above, error)
        })
    }
}

/// The bits of a scan; after a byte 0xFF one stuffed bit is skipped.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next bits, left-aligned.
    buffer: u64,
    count: u32,
    /// Zero bits in the buffer from after the end of the scan.
    filler: u32,
}

impl Bits<'_> {
    fn load(&mut self) {
        while self.count <= 48 {
            let stuffed = self.at > 0 && self.bytes.get(self.at - 1) == Some(&0xFF);
            let (byte, bits) = match self.bytes.get(self.at) {
                // At a marker and at the end, the bits are zeros.
                Some(&byte) if stuffed && byte >= 0x80 => (None, 8),
                Some(&byte) if stuffed => (Some(byte << 1), 7),
                Some(&byte) => (Some(byte), 8),
                None => (None, 8),
            };
            match byte {
                Some(byte) => {
                    self.at += 1;
                    self.buffer |= u64::from(byte) << (56 - self.count);
                }
                None => self.filler += bits,
            }
            self.count += bits;
        }
    }

    /// The next `count` bits, at most 32.
    fn take(&mut self, count: u32) -> Result<u32> {
        if count == 0 {
            return Ok(0);
        }
        self.load();
        let value = (self.buffer >> (64 - count)) as u32;
        self.buffer <<= count;
        self.count -= count;
        if self.filler > self.count { Err(ENDS) } else { Ok(value) }
    }

    /// A number in the limited Golomb code (A.5.3).
    fn golomb(&mut self, order: u32, limit: u32, plain_bits: u32) -> Result<u32> {
        let most = limit - plain_bits - 1;
        let mut zeros = 0;
        loop {
            self.load();
            let run = self.buffer.leading_zeros().min(self.count);
            if run < self.count {
                zeros += run;
                self.take(run)?;
                self.take(1)?;
                break;
            }
            zeros += run;
            self.buffer = 0;
            self.count = 0;
            if zeros > limit || self.filler > 0 {
                return Err(ENDS);
            }
        }
        match zeros.cmp(&most) {
            std::cmp::Ordering::Less => Ok((zeros << order) | self.take(order)?),
            std::cmp::Ordering::Equal => Ok(self.take(plain_bits)? + 1),
            std::cmp::Ordering::Greater => Err(DecodeError::Malformed("a JPEG-LS code is longer than its limit")),
        }
    }
}
