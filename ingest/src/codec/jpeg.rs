//! Common parts of the JPEG processes (ITU-T T.81): markers, Huffman codes, bits of a scan.

use super::{DecodeError, Result};

/// The decoder that a file needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// Huffman-coded DCT in one scan: baseline (8 bit) and extended (8 or 12 bit).
    Sequential,
    /// Huffman-coded prediction: process 14, any selection value.
    Lossless,
}

/// Header of a file with one component in one scan.
pub struct Header<'a> {
    pub process: Process,
    /// Bits of a sample.
    pub precision: u8,
    pub width: usize,
    pub height: usize,
    /// Units (blocks, or samples in a lossless scan) between two restart markers; 0 without them.
    pub restart: usize,
    /// Quantization steps in zigzag order.
    pub steps: [u16; 64],
    pub dc: Huffman,
    pub ac: Huffman,
    /// Start of the spectral selection; in a lossless scan, the predictor.
    pub predictor: u8,
    /// Approximation low; in a lossless scan, the point transform.
    pub shift: u8,
    /// The scan and all bytes after it.
    pub scan: &'a [u8],
}

/// Reads the markers up to the first scan.
pub fn header(file: &[u8]) -> Result<Header<'_>> {
    const ENDS: DecodeError = DecodeError::Malformed("the JPEG stream ends in its header");
    if file.get(..2) != Some(&[0xFF, 0xD8]) {
        return Err(DecodeError::Malformed("not a JPEG stream"));
    }
    let mut steps: [Option<[u16; 64]>; 4] = [None; 4];
    let mut tables: [[Option<Huffman>; 4]; 2] = Default::default();
    let mut frame = None;
    let mut restart = 0;
    let mut at = 2;
    loop {
        while file.get(at) == Some(&0xFF) && file.get(at + 1) == Some(&0xFF) {
            at += 1;
        }
        let &[0xFF, marker, high, low] = file.get(at..at + 4).and_then(|m| m.first_chunk()).ok_or(ENDS)? else {
            return Err(DecodeError::Malformed("a marker is missing"));
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let mut segment = file.get(at + 4..at + 2 + length.max(2)).ok_or(ENDS)?;
        at += 2 + length.max(2);
        match marker {
            0xDB => {
                while let Some((&kind, rest)) = segment.split_first() {
                    let wide = kind >> 4 != 0;
                    let bytes = if wide { 128 } else { 64 };
                    let values = rest.get(..bytes).ok_or(ENDS)?;
                    let wide_step = |i: usize| u16::from_be_bytes([values[2 * i], values[2 * i + 1]]);
                    let step = |i: usize| if wide { wide_step(i) } else { values[i].into() };
                    steps[usize::from(kind & 3)] = Some(std::array::from_fn(step));
                    segment = &rest[bytes..];
                }
            }
            0xC4 => {
                while let Some((&kind, rest)) = segment.split_first() {
                    let counts: &[u8; 16] = rest.first_chunk().ok_or(ENDS)?;
                    let symbols = counts.iter().map(|&count| usize::from(count)).sum::<usize>();
                    let values = rest.get(16..16 + symbols).ok_or(ENDS)?;
                    let class = usize::from(kind >> 4 & 1);
                    tables[class][usize::from(kind & 3)] = Some(Huffman::new(counts, values)?);
                    segment = &rest[16 + symbols..];
                }
            }
            0xDD => restart = segment.first_chunk().map_or(0, |&value| usize::from(u16::from_be_bytes(value))),
            0xC0 | 0xC1 | 0xC3 => {
                let &[precision, h1, h0, w1, w0, components] = segment.first_chunk().ok_or(ENDS)?;
                let process = if marker == 0xC3 { Process::Lossless } else { Process::Sequential };
                let [height, width] = [[h1, h0], [w1, w0]].map(|side| usize::from(u16::from_be_bytes(side)));
                if components != 1 {
                    return Err(DecodeError::Unsupported("a JPEG stream of several components"));
                }
                if width == 0 || height == 0 {
                    return Err(DecodeError::Unsupported("a JPEG stream without its size"));
                }
                let quantization = segment.get(8).ok_or(ENDS)? & 3;
                frame = Some((process, precision, width, height, usize::from(quantization)));
            }
            0xC2 | 0xC5..=0xC7 | 0xC9..=0xCF => {
                return Err(DecodeError::Unsupported("a progressive, hierarchical or arithmetic JPEG stream"));
            }
            0xDA => {
                let Some((process, precision, width, height, quantization)) = frame else {
                    return Err(DecodeError::Malformed("a JPEG scan without a frame"));
                };
                let &[1, _, selector, predictor, _, approximation] = segment.first_chunk().ok_or(ENDS)? else {
                    return Err(DecodeError::Unsupported("a JPEG scan of several components"));
                };
                let missing = DecodeError::Malformed("a JPEG scan without its tables");
                let mut table = |class: usize, index: u8| tables[class][usize::from(index & 3)].take();
                let (dc, ac) = (table(0, selector >> 4).ok_or(missing.clone())?, table(1, selector));
                let (ac, steps) = match process {
                    Process::Lossless => (ac.unwrap_or_default(), [1; 64]),
                    Process::Sequential => (ac.ok_or(missing.clone())?, steps[quantization].ok_or(missing)?),
                };
                let shift = approximation & 15;
                let scan = &file[at..];
                return Ok(Header {
                    process,
                    precision,
                    width,
                    height,
                    restart,
                    steps,
                    dc,
                    ac,
                    predictor,
                    shift,
                    scan,
                });
            }
            0xD8 | 0xD9 => return Err(DecodeError::Malformed("a JPEG stream without a scan")),
            _ => {}
        }
    }
}

/// Bits that one look-up decides.
const LOOKUP_BITS: u32 = 12;

/// A Huffman code. One look-up finds most symbols together with the number that follows them.
#[derive(Clone)]
pub struct Huffman {
    /// By the next `LOOKUP_BITS` bits.
    entries: Box<[Entry; 1 << LOOKUP_BITS]>,
    /// For each code length: the first code after those of this length (left-aligned to 16 bits), and the difference between
    /// the index of a symbol and its code.
    ends: [(u32, i32); 17],
    symbols: Vec<u8>,
}

/// Result of a look-up, packed into one word: the number that follows the code (16 bits), the symbol (8 bits), and the
/// length of both (7 bits). Where `PART` is set, the length is that of the code alone, or 0 for a code that is longer than a
/// look-up.
#[derive(Clone, Copy)]
struct Entry(u32);

const PART: u32 = 0x80;

impl Default for Huffman {
    fn default() -> Self {
        Self { entries: Box::new([Entry(PART); 1 << LOOKUP_BITS]), ends: [(0, 0); 17], symbols: Vec::new() }
    }
}

impl Huffman {
    /// Builds the code from the number of codes of each length, and the symbols.
    fn new(counts: &[u8; 16], symbols: &[u8]) -> Result<Self> {
        let mut table = Self { symbols: symbols.to_vec(), ..Self::default() };
        let (mut code, mut index) = (0u32, 0usize);
        for (length, &count) in (1u32..).zip(counts) {
            table.ends[length as usize].1 = index as i32 - code as i32;
            for _ in 0..count {
                if code >= 1 << length {
                    return Err(DecodeError::Malformed("a Huffman table with too many codes"));
                }
                if length <= LOOKUP_BITS {
                    let spare = LOOKUP_BITS - length;
                    let first = (code << spare) as usize;
                    for (tail, entry) in table.entries[first..first + (1 << spare)].iter_mut().enumerate() {
                        *entry = Entry::new(symbols[index], length, tail as u32, spare);
                    }
                }
                code += 1;
                index += 1;
            }
            table.ends[length as usize].0 = code << (16 - length);
            code <<= 1;
        }
        Ok(table)
    }

    /// Symbol and length of a code that is longer than a look-up.
    #[cold]
    fn long(&self, bits: &Bits) -> Option<(u8, u32)> {
        let next = bits.peek(16);
        let length = (1..=16).find(|&length| next < self.ends[length as usize].0)?;
        let index = (next >> (16 - length)) as i32 + self.ends[length as usize].1;
        Some((*self.symbols.get(index as usize)?, length))
    }

    /// The next symbol, and the number of `symbol & 15` bits after it. At least 32 bits must be loaded.
    #[inline(always)]
    pub fn next(&self, bits: &mut Bits) -> Result<(u8, i32)> {
        let entry = self.entries[bits.peek(LOOKUP_BITS) as usize];
        if entry.0 & PART == 0 {
            bits.skip(entry.0 & 0x7F);
            return Ok(((entry.0 >> 8) as u8, entry.0 as i32 >> 16));
        }
        self.in_parts(entry, bits)
    }

    /// As [`Self::next`], for a code and number that are too long for one look-up.
    fn in_parts(&self, entry: Entry, bits: &mut Bits) -> Result<(u8, i32)> {
        let (symbol, length) = match entry.0 & 0x7F {
            0 => self.long(bits).ok_or(DecodeError::Malformed("a JPEG scan with an unknown code"))?,
            length => ((entry.0 >> 8) as u8, length),
        };
        bits.skip(length);
        // Category 16 of a lossless scan has one value, which has no bits.
        if symbol == 16 {
            return Ok((symbol, 32768));
        }
        let size = u32::from(symbol & 15);
        if size == 0 {
            return Ok((symbol, 0));
        }
        let value = extend(bits.peek(size), size);
        bits.skip(size);
        Ok((symbol, value))
    }
}

impl Entry {
    /// The entry of a code after which the look-up has `spare` more bits, which are `tail`.
    fn new(symbol: u8, length: u32, tail: u32, spare: u32) -> Self {
        let size = u32::from(symbol & 15);
        if symbol == 16 || size > spare {
            return Self(u32::from(symbol) << 8 | length | PART);
        }
        let value = if size == 0 { 0 } else { extend(tail >> (spare - size), size) as i16 };
        Self(u32::from(value as u16) << 16 | u32::from(symbol) << 8 | (length + size))
    }
}

/// The signed number that `size` bits represent (F.2.2.1).
fn extend(bits: u32, size: u32) -> i32 {
    if bits < 1 << (size - 1) { bits as i32 - (1 << size) + 1 } else { bits as i32 }
}

/// The bits of a scan without stuffed bytes. After the end, and at a marker, they are zeros.
pub struct Bits<'a> {
    scan: &'a [u8],
    at: usize,
    /// The next bits, left-aligned.
    buffer: u64,
    count: u32,
    /// Zero bits in the buffer from after the end of the scan.
    filler: u32,
}

impl<'a> Bits<'a> {
    /// From the start of a scan.
    pub fn new(scan: &'a [u8]) -> Self {
        Self { scan, at: 0, buffer: 0, count: 0, filler: 0 }
    }

    /// Loads at least 32 bits: enough for the longest code and its number.
    #[inline(always)]
    pub fn load(&mut self) {
        if self.count >= 32 {
            return;
        }
        if let Some(next) = self.scan.get(self.at..self.at + 8) {
            let next = u64::from_be_bytes(next.try_into().unwrap_or_default());
            // If no byte is 0xFF, eight bytes are loaded at once. Bits after `count` are already the next ones.
            let ones = 0x0101_0101_0101_0101;
            if (!next).wrapping_sub(ones) & next & (ones << 7) == 0 {
                self.buffer |= next >> self.count;
                self.at += ((63 - self.count) >> 3) as usize;
                self.count |= 0x38;
                return;
            }
        }
        self.load_bytes();
    }

    #[cold]
    fn load_bytes(&mut self) {
        while self.count <= 56 {
            let byte = match (self.scan.get(self.at), self.scan.get(self.at + 1)) {
                (Some(0xFF), Some(0)) => {
                    self.at += 2;
                    0xFF
                }
                (Some(0xFF) | None, _) => {
                    self.filler += 8;
                    0
                }
                (Some(&byte), _) => {
                    self.at += 1;
                    byte
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// The next `count` bits, 1 to 32.
    #[inline(always)]
    pub fn peek(&self, count: u32) -> u32 {
        (self.buffer >> (64 - count)) as u32
    }

    #[inline(always)]
    fn skip(&mut self, count: u32) {
        self.buffer <<= count;
        self.count -= count;
    }

    /// Whether more bits were taken than the scan has.
    pub fn is_beyond_the_end(&self) -> bool {
        self.filler > self.count
    }

    /// Skips the restart marker that must follow.
    pub fn restart(&mut self) -> Result<()> {
        let broken = DecodeError::Malformed("a restart marker is missing in the JPEG scan");
        match self.scan.get(self.at..self.at + 2) {
            Some([0xFF, 0xD0..=0xD7]) if !self.is_beyond_the_end() => {}
            _ => return Err(broken),
        }
        *self = Self { scan: self.scan, at: self.at + 2, buffer: 0, count: 0, filler: 0 };
        Ok(())
    }
}
