//! Contrast-limited adaptive histogram equalization (Zuiderveld, Graphics Gems IV, 1994), with the details of OpenCV.

use super::tone::WHITE;
use crate::transform::vectorized::rounded;

/// Gray levels of a histogram.
const BINS: usize = 256;

/// The equalized gray level of each one, for a tile.
type Table = [f32; BINS];

/// Memory of [`equalize`].
#[derive(Default)]
pub(super) struct Tiles {
    /// The image in whole gray levels.
    pixels: Vec<u8>,
    tables: Vec<Table>,
    /// The share of the right tile at each column.
    shares: Vec<f32>,
}

/// Equalizes gray levels `[size, size]` in place, with `count` × `count` tiles. `clip` limits a bin, in multiples of the mean
/// count of a bin.
pub(super) fn equalize(levels: &mut [f32], size: usize, clip: f64, count: usize, memory: &mut Tiles) {
    let Tiles { pixels, tables, shares } = memory;
    pixels.clear();
    pixels.extend(levels.iter().map(|&level| rounded(level).1 as u8));
    // The tiles of a side that cannot be divided evenly reach beyond the image, which is reflected there.
    let side = if size.is_multiple_of(count) { size / count } else { size / count + 1 };
    let limit = ((clip * (side * side) as f64 / BINS as f64) as usize).max(1);
    tables.clear();
    for tile in 0..count * count {
        let (top, left) = (tile / count * side, tile % count * side);
        tables.push(table(pixels, size, (top, left), side, limit));
    }
    shares.clear();
    shares.extend((0..size).map(|at| neighbors(at, side, count).2));
    // The columns between the centers of two tiles.
    let mut segments = Vec::with_capacity(count + 1);
    let tiles_of = |column: usize| (neighbors(column, side, count).0, neighbors(column, side, count).1);
    let mut start = 0;
    for column in 1..=size {
        if column == size || tiles_of(column) != tiles_of(start) {
            segments.push((start..column, tiles_of(start)));
            start = column;
        }
    }
    for (row, (levels, pixels)) in levels.chunks_exact_mut(size).zip(pixels.chunks_exact(size)).enumerate() {
        let (above, below, lower_share) = neighbors(row, side, count);
        let (above, below) = (&tables[above * count..][..count], &tables[below * count..][..count]);
        for (columns, (left, right)) in &segments {
            let tables = [&above[*left], &above[*right], &below[*left], &below[*right]];
            let levels = levels[columns.clone()].iter_mut();
            for ((level, &pixel), &share) in levels.zip(&pixels[columns.clone()]).zip(&shares[columns.clone()]) {
                let [upper_left, upper_right, lower_left, lower_right] = tables.map(|table| table[usize::from(pixel)]);
                let upper = upper_left * (1.0 - share) + upper_right * share;
                let lower = lower_left * (1.0 - share) + lower_right * share;
                *level = upper * (1.0 - lower_share) + lower * lower_share;
            }
        }
    }
}

/// The tiles whose centers are before and after a pixel of an axis, and the share of the latter.
fn neighbors(at: usize, side: usize, count: usize) -> (usize, usize, f32) {
    let place = at as f32 / side as f32 - 0.5;
    let before = place.floor();
    let index = |tile: f32| (tile.max(0.0) as usize).min(count - 1);
    (index(before), index(before + 1.0), place - before)
}

/// The table of one tile: the cumulative histogram, after the counts above the limit were spread over all bins.
fn table(pixels: &[u8], size: usize, (top, left): (usize, usize), side: usize, limit: usize) -> Table {
    // Two histograms: neighbors are often equal, and counting one twice would wait for memory.
    let mut halves = [[0u32; BINS]; 2];
    for row in top..top + side {
        let line = &pixels[reflected(row, size) * size..][..size];
        let inside = &line[left.min(size)..(left + side).min(size)];
        for pair in inside.chunks(2) {
            pair.iter().zip(&mut halves).for_each(|(&pixel, counts)| counts[usize::from(pixel)] += 1);
        }
        for column in left.max(size)..left + side {
            halves[0][usize::from(line[reflected(column, size)])] += 1;
        }
    }
    let mut counts: [usize; BINS] = std::array::from_fn(|level| (halves[0][level] + halves[1][level]) as usize);
    let mut clipped = 0;
    for count in &mut counts {
        clipped += count.saturating_sub(limit);
        *count = (*count).min(limit);
    }
    let (each, rest) = (clipped / BINS, clipped % BINS);
    counts.iter_mut().for_each(|count| *count += each);
    let step = BINS.checked_div(rest).unwrap_or(BINS).max(1);
    counts.iter_mut().step_by(step).take(rest).for_each(|count| *count += 1);
    let scale = WHITE / (side * side) as f32;
    let mut sum = 0;
    counts.map(|count| {
        sum += count;
        (sum as f32 * scale).round_ties_even().min(WHITE)
    })
}

/// The pixel of a reflected axis: 0 1 2 1 0 1 2 … of three.
fn reflected(at: usize, size: usize) -> usize {
    let period = (2 * size - 2).max(1);
    let at = at % period;
    if at < size { at } else { period - at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unlimited_tile_is_equalized_by_its_cumulative_histogram() {
        let mut levels: Vec<f32> = [10.0, 10.0, 20.0, 30.0].repeat(4);
        equalize(&mut levels, 4, 1e6, 1, &mut Tiles::default());
        assert_eq!(levels[..4], [128.0, 128.0, 191.0, 255.0]);
    }

    #[test]
    fn any_size_and_number_of_tiles_works() {
        for size in [1, 2, 3, 5, 17, 40] {
            for count in [1, 2, 3, 8, 64] {
                let mut levels: Vec<f32> = (0..size * size).map(|at| (at * 37 % 256) as f32).collect();
                equalize(&mut levels, size, 2.0, count, &mut Tiles::default());
                assert!(levels.iter().all(|level| (0.0..=255.0).contains(level)), "{size} {count}");
            }
        }
    }
}
