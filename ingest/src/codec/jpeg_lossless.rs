//! JPEG lossless (ITU-T T.81 annex H), one component, 2 to 16 bits, all seven predictors.

use super::jpeg::{Bits, Header};
use super::{DecodeError, Result};

/// Decodes the samples, row-major, into `samples`.
pub fn decode(header: &Header, samples: &mut Vec<u16>) -> Result<()> {
    let &Header { width, height, precision, predictor, shift, restart, .. } = header;
    if !(2..=16).contains(&precision) || shift >= precision || !(1..=7).contains(&predictor) {
        return Err(DecodeError::Malformed("a lossless JPEG scan with impossible parameters"));
    }
    // A restart in the middle of a row would start a prediction there; no known encoder does so.
    if restart % width != 0 {
        return Err(DecodeError::Unsupported("restart intervals that are no whole rows"));
    }
    let restart_rows = restart / width;
    let first = 1u16 << (precision - shift - 1);
    samples.clear();
    samples.resize(width * height, 0);
    let mut bits = Bits::new(header.scan);
    let mut above: &[u16] = &[];
    for (y, row) in samples.chunks_exact_mut(width).enumerate() {
        if restart_rows > 0 && y > 0 && y % restart_rows == 0 {
            bits.restart()?;
            above = &[];
        }
        // The first row of an interval is always predicted from the left.
        match (above.is_empty(), predictor) {
            (true, _) => from_left(header, &mut bits, first, row)?,
            (false, 1) => from_left(header, &mut bits, above[0], row)?,
            _ => from_all(header, &mut bits, above, row)?,
        }
        if bits.is_beyond_the_end() {
            return Err(DecodeError::Malformed("the JPEG scan ends early"));
        }
        above = row;
    }
    if shift > 0 {
        samples.iter_mut().for_each(|sample| *sample <<= shift);
    }
    Ok(())
}

widest! {
    /// Decodes a row in which each sample is predicted by the one to its left, the first one by `first`.
    fn from_left(header: &Header, bits: &mut Bits, first: u16, row: &mut [u16]) -> Result<()> = each_from_left
}

#[inline(always)]
fn each_from_left(header: &Header, bits: &mut Bits, first: u16, row: &mut [u16]) -> Result<()> {
    let mut left = first;
    for sample in row {
        bits.load();
        left = left.wrapping_add(header.dc.next(bits)?.1 as u16);
        *sample = left;
    }
    Ok(())
}

fn from_all(header: &Header, bits: &mut Bits, above: &[u16], row: &mut [u16]) -> Result<()> {
    let (mut left, mut corner) = (above[0], above[0]);
    for (x, (sample, &up)) in row.iter_mut().zip(above).enumerate() {
        bits.load();
        let difference = header.dc.next(bits)?.1;
        let [a, b, c] = [left, up, corner].map(i32::from);
        let prediction = match header.predictor {
            _ if x == 0 => b,
            2 => b,
            3 => c,
            4 => a + b - c,
            5 => a + ((b - c) >> 1),
            6 => b + ((a - c) >> 1),
            _ => (a + b) >> 1,
        };
        left = (prediction + difference) as u16;
        corner = up;
        *sample = left;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::jpeg::header;
    use super::*;

    /// Encodes samples with a Huffman table that gives every category eight bits; restarts after every `rows` rows.
    fn encode(samples: &[u16], width: usize, precision: u32, predictor: u8, shift: u8, rows: usize) -> Vec<u8> {
        let height = samples.len() / width;
        let [h1, h0] = (height as u16).to_be_bytes();
        let [w1, w0] = (width as u16).to_be_bytes();
        let [r1, r0] = ((rows * width) as u16).to_be_bytes();
        let mut file = vec![0xFF, 0xD8, 0xFF, 0xC3, 0, 11, precision as u8, h1, h0, w1, w0, 1, 1, 0x11, 0];
        file.extend([0xFF, 0xDD, 0, 4, r1, r0, 0xFF, 0xC4, 0, 19 + 17, 0]);
        file.extend([0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0]);
        file.extend(0..17);
        file.extend([0xFF, 0xDA, 0, 8, 1, 1, 0, predictor, 0, shift]);
        let at = |x: usize, y: usize| i32::from(samples[y * width + x] >> shift);
        let (mut bits, mut marker) = (Vec::new(), 0u8);
        for y in 0..height {
            let first_row = y == 0 || rows > 0 && y % rows == 0;
            if first_row && y > 0 {
                flush(&mut bits, &mut file);
                file.extend([0xFF, 0xD0 + marker]);
                marker = (marker + 1) % 8;
            }
            for x in 0..width {
                let prediction = match (first_row, x) {
                    (true, 0) => 1 << (precision - u32::from(shift) - 1),
                    (true, _) => at(x - 1, y),
                    (false, 0) => at(0, y - 1),
                    _ => {
                        let (a, b, c) = (at(x - 1, y), at(x, y - 1), at(x - 1, y - 1));
                        [0, a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1]
                            [usize::from(predictor)]
                    }
                };
                let difference = (at(x, y) - prediction) as i16;
                let size = if difference == i16::MIN { 16 } else { 16 - difference.unsigned_abs().leading_zeros() };
                bits.extend((0..8).rev().map(|bit| size >> bit & 1 == 1));
                let value = if difference < 0 { i32::from(difference) - 1 } else { difference.into() };
                bits.extend((0..size % 16).rev().map(|bit| value >> bit & 1 == 1));
            }
        }
        flush(&mut bits, &mut file);
        file.extend([0xFF, 0xD9]);
        file
    }

    fn flush(bits: &mut Vec<bool>, file: &mut Vec<u8>) {
        bits.resize(bits.len().next_multiple_of(8), true);
        for byte in bits.chunks_exact(8) {
            let byte = byte.iter().fold(0, |byte, &bit| byte << 1 | u8::from(bit));
            file.push(byte);
            if byte == 0xFF {
                file.push(0);
            }
        }
        bits.clear();
    }

    #[test]
    fn every_predictor_decodes_to_the_same_samples() {
        let (width, height) = (37, 23);
        let mut state = 7u32;
        for (predictor, precision, shift, rows) in [
            (1, 16, 0, 0),
            (1, 12, 0, 4),
            (2, 8, 0, 0),
            (3, 16, 0, 5),
            (4, 12, 2, 0),
            (5, 10, 0, 1),
            (6, 16, 0, 0),
            (7, 2, 0, 7),
        ] {
            let samples: Vec<u16> = (0..width * height)
                .map(|i| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let noisy = if i % 3 == 0 { state >> 16 } else { (i as u32) * 900 };
                    ((noisy as u16) >> (16 - precision)) >> shift << shift
                })
                .collect();
            let file = encode(&samples, width, precision, predictor, shift, rows);
            let mut ours = Vec::new();
            decode(&header(&file).unwrap(), &mut ours).unwrap();
            assert_eq!(ours, samples, "predictor {predictor}");
            // A truncated file is an error.
            for cut in [file.len() / 3, file.len() / 2, file.len() - 30] {
                let truncated = header(&file[..cut]).and_then(|header| decode(&header, &mut ours));
                assert!(matches!(truncated, Err(DecodeError::Malformed(_))), "predictor {predictor}, cut at {cut}");
            }
        }
    }
}
