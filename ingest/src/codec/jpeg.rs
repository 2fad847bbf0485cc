//! What the JPEG processes share (ITU-T T.81): markers, Huffman codes, and the bits of a scan.

use super::{Refusal, Result};

/// Which decoder a file needs.
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
    /// Low bit: the point transform of a lossless scan.
    pub shift: u8,
    /// The scan and what follows.
    pub scan: &'a [u8],
}

/// Reads the markers up to the first scan.
pub fn header(file: &[u8]) -> Result<Header<'_>> {
    const ENDS: Refusal = Refusal::Broken("the JPEG stream ends in its header");
    if file.get(..2) != Some(&[0xFF, 0xD8]) {
        return Err(Refusal::Broken("not a JPEG stream"));
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
            return Err(Refusal::Broken("no marker where one must stand"));
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
                    return Err(Refusal::Unsupported("a JPEG stream of several components"));
                }
                if width == 0 || height == 0 {
                    return Err(Refusal::Unsupported("a JPEG stream without its size"));
                }
                let quantization = segment.get(8).ok_or(ENDS)? & 3;
                frame = Some((process, precision, width, height, usize::from(quantization)));
            }
            0xC2 | 0xC5..=0xC7 | 0xC9..=0xCF => {
                return Err(Refusal::Unsupported("a progressive, hierarchical or arithmetic JPEG stream"));
            }
            0xDA => {
                let Some((process, precision, width, height, quantization)) = frame else {
                    return Err(Refusal::Broken("a JPEG scan without a frame"));
                };
                let &[1, _, selector, predictor, _, approximation] = segment.first_chunk().ok_or(ENDS)? else {
                    return Err(Refusal::Unsupported("a JPEG scan of several components"));
                };
                let missing = Refusal::Broken("a JPEG scan without its tables");
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
            0xD8 | 0xD9 => return Err(Refusal::Broken("a JPEG stream without a scan")),
            _ => {}
        }
    }
}

/// Bits that one look-up decides.
const LOOKUP_BITS: u32 = 12;

/// A Huffman code. Most symbols, and the number that follows them, are found by one look-up.
#[derive(Clone)]
pub struct Huffman {
    /// By the next `LOOKUP_BITS` bits.
    entries: Box<[Entry; 1 << LOOKUP_BITS]>,
    /// For codes of each length: the first code behind them (left-aligned to 16 bits), and what turns such a code into
    /// the index of its symbol.
    ends: [(u32, i32); 17],
    symbols: Vec<u8>,
}

/// What the next bits say, packed for one load: the number that follows the code (16 bits), the symbol (8 bits), and the
/// bits of both (7 bits). Where `PART` is set, they are those of the code alone, and 0 where the code is longer than a
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
    /// Builds the code from the number of codes of each length and their symbols.
    fn new(counts: &[u8; 16], symbols: &[u8]) -> Result<Self> {
        let mut table = Self { symbols: symbols.to_vec(), ..Self::default() };
        let (mut code, mut index) = (0u32, 0usize);
        for (length, &count) in (1u32..).zip(counts) {
            table.ends[length as usize].1 = index as i32 - code as i32;
            for _ in 0..count {
                if code >= 1 << length {
                    return Err(Refusal::Broken("a Huffman table with too many codes"));
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

    /// A code longer than a look-up: its symbol and length.
    #[cold]
    fn long(&self, bits: &Bits) -> Option<(u8, u32)> {
        let next = bits.peek(16);
        let length = (1..=16).find(|&length| next < self.ends[length as usize].0)?;
        let index = (next >> (16 - length)) as i32 + self.ends[length as usize].1;
        Some((*self.symbols.get(index as usize)?, length))
    }

    /// The next symbol and the number of `symbol & 15` bits that follows it. At least 32 bits must be loaded.
    #[inline(always)]
    pub fn next(&self, bits: &mut Bits) -> Result<(u8, i32)> {
        let entry = self.entries[bits.peek(LOOKUP_BITS) as usize];
        if entry.0 & PART == 0 {
            bits.skip(entry.0 & 0x7F);
            return Ok(((entry.0 >> 8) as u8, entry.0 as i32 >> 16));
        }
        self.in_parts(entry, bits)
    }

    /// A code and its number that are too long for one look-up.
    fn in_parts(&self, entry: Entry, bits: &mut Bits) -> Result<(u8, i32)> {
        let (symbol, length) = match entry.0 & 0x7F {
            0 => self.long(bits).ok_or(Refusal::Broken("a JPEG scan with an unknown code"))?,
            length => ((entry.0 >> 8) as u8, length),
        };
        bits.skip(length);
        // 16 is a lossless scan's category of one value, written without bits.
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
    /// The entry of a code whose last `spare` bits of the look-up are `tail`.
    fn new(symbol: u8, length: u32, tail: u32, spare: u32) -> Self {
        let size = u32::from(symbol & 15);
        if symbol == 16 || size > spare {
            return Self(u32::from(symbol) << 8 | length | PART);
        }
        let value = if size == 0 { 0 } else { extend(tail >> (spare - size), size) as i16 };
        Self(u32::from(value as u16) << 16 | u32::from(symbol) << 8 | (length + size))
    }
}

/// The signed number that `size` bits stand for (F.2.2.1).
fn extend(bits: u32, size: u32) -> i32 {
    if bits < 1 << (size - 1) { bits as i32 - (1 << size) + 1 } else { bits as i32 }
}

/// The bits of a scan, without stuffed bytes. Behind the end, and at a marker, there are zeros.
pub struct Bits<'a> {
    scan: &'a [u8],
    at: usize,
    /// The next bits, left-aligned.
    buffer: u64,
    count: u32,
    /// Bits in the buffer that are not in the scan.
    made_up: u32,
}

impl<'a> Bits<'a> {
    /// From the start of a scan.
    pub fn new(scan: &'a [u8]) -> Self {
        Self { scan, at: 0, buffer: 0, count: 0, made_up: 0 }
    }

    /// Makes at least 32 bits available: the longest code and its number.
    #[inline(always)]
    pub fn load(&mut self) {
        if self.count >= 32 {
            return;
        }
        if let Some(next) = self.scan.get(self.at..self.at + 8) {
            let next = u64::from_be_bytes(next.try_into().unwrap_or_default());
            // No byte is 0xFF: eight bytes at once. Bits behind the count are the next ones already.
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
                    self.made_up += 8;
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

    /// More bits were taken than the scan has.
    pub fn is_beyond_the_end(&self) -> bool {
        self.made_up > self.count
    }

    /// Goes on behind the restart marker that must follow.
    pub fn restart(&mut self) -> Result<()> {
        let broken = Refusal::Broken("a restart marker is missing in the JPEG scan");
        match self.scan.get(self.at..self.at + 2) {
            Some([0xFF, 0xD0..=0xD7]) if !self.is_beyond_the_end() => {}
            _ => return Err(broken),
        }
        *self = Self { scan: self.scan, at: self.at + 2, buffer: 0, count: 0, made_up: 0 };
        Ok(())
    }
}
