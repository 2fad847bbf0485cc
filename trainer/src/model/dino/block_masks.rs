//! Block masks: rectangles of patches that the student does not see (BEiT, Bao et al. 2022; iBOT and DINOv2 use the same).

use dataset::random::Stream;

/// Fewest patches of a rectangle, before rounding.
const SMALLEST: f64 = 4.0;

/// Smallest aspect ratio of a rectangle; the largest is its inverse.
const ASPECT: f64 = 0.3;

/// Largest share of an image that one rectangle adds.
const LARGEST: f64 = 0.5;

/// Attempts at a rectangle before the mask is complete as it is.
const ATTEMPTS: usize = 10;

/// Masks of `crops` square grids: for each, `grid²` flags row by row, true where a patch is hidden.
///
/// `probability` of the crops (rounded), drawn at random, have a mask. Their shares of masked patches are spread over `ratio`: the
/// i-th is uniform in the i-th of as many equal parts of it.
pub fn block_masks(
    crops: usize,
    grid: usize,
    probability: f64,
    ratio: (f64, f64),
    random: &mut Stream,
) -> Vec<Vec<bool>> {
    let masked = (crops as f64 * probability).round() as usize;
    let part = (ratio.1 - ratio.0) / masked.max(1) as f64;
    let mut masks: Vec<Vec<bool>> = (0..crops)
        .map(|crop| {
            if crop >= masked {
                return vec![false; grid * grid];
            }
            let low = ratio.0 + part * crop as f64;
            let wanted = (grid * grid) as f64 * random.range(low, low + part);
            block_mask(grid, wanted as usize, random)
        })
        .collect();
    random.shuffle(&mut masks);
    masks
}

/// A mask of at most `wanted` patches of a grid, and close to it: rectangles until no further one fits.
fn block_mask(grid: usize, wanted: usize, random: &mut Stream) -> Vec<bool> {
    let mut mask = vec![false; grid * grid];
    let mut hidden = 0;
    while hidden < wanted {
        let most = (wanted - hidden).min(((grid * grid) as f64 * LARGEST) as usize);
        let added = (0..ATTEMPTS).find_map(|_| add_rectangle(&mut mask, grid, most, random));
        let Some(added) = added else { break };
        hidden += added;
    }
    mask
}

/// Adds a random rectangle of 1 to `most` patches that were visible; none if the one that was drawn is larger, does not fit into
/// the grid, or adds nothing.
fn add_rectangle(mask: &mut [bool], grid: usize, most: usize, random: &mut Stream) -> Option<usize> {
    let area = random.range(SMALLEST.min(most as f64), most as f64);
    let aspect = random.range(ASPECT.ln(), -ASPECT.ln()).exp();
    let (height, width) = ((area * aspect).sqrt().round() as usize, (area / aspect).sqrt().round() as usize);
    if !(1..grid).contains(&height) || !(1..grid).contains(&width) {
        return None;
    }
    let top = random.below((grid - height) as u64 + 1) as usize;
    let left = random.below((grid - width) as u64 + 1) as usize;
    let places = || (top..top + height).flat_map(|row| (left..left + width).map(move |column| row * grid + column));
    let added = places().filter(|&place| !mask[place]).count();
    if !(1..=most).contains(&added) {
        return None;
    }
    places().for_each(|place| mask[place] = true);
    Some(added)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_crops_are_masked_with_shares_over_the_whole_range() {
        let mut random = Stream::new(&[1]);
        let masks = block_masks(64, 14, 0.5, (0.1, 0.5), &mut random);
        let mut shares: Vec<f64> =
            masks.iter().map(|mask| mask.iter().filter(|&&hidden| hidden).count() as f64 / 196.0).collect();
        shares.sort_by(f64::total_cmp);
        assert!(shares[..32].iter().all(|share| *share == 0.0));
        assert!(shares[32] > 0.05 && shares[32] < 0.15 && shares[63] > 0.4 && shares[63] <= 0.5, "{shares:?}");
        let mean = shares[32..].iter().sum::<f64>() / 32.0;
        assert!((0.25..0.31).contains(&mean), "{mean}");
        assert!(
            masks[..32].iter().any(|mask| mask.contains(&true)) && masks[32..].iter().any(|mask| mask.contains(&true))
        );
        let again = block_masks(64, 14, 0.5, (0.1, 0.5), &mut Stream::new(&[1]));
        assert_eq!(masks, again);
    }

    #[test]
    fn hidden_patches_are_blocks() {
        let mut random = Stream::new(&[2]);
        let mask = block_mask(14, 80, &mut random);
        // Most masked patches have a masked one to their right; of single patches at this share, two of five would.
        let hidden = |row: usize, column: usize| mask[row * 14 + column];
        let (mut all, mut followed) = (0, 0);
        for (row, column) in (0..14).flat_map(|row| (0..13).map(move |column| (row, column))) {
            all += usize::from(hidden(row, column));
            followed += usize::from(hidden(row, column) && hidden(row, column + 1));
        }
        assert!(followed * 10 > all * 6, "{followed} of {all}");
    }

    #[test]
    fn small_grids_and_small_shares_end() {
        let mut random = Stream::new(&[3]);
        for (grid, wanted) in [(1, 1), (2, 1), (2, 3), (4, 0), (4, 16)] {
            let hidden = block_mask(grid, wanted, &mut random).iter().filter(|&&hidden| hidden).count();
            assert!(hidden <= wanted);
        }
        assert_eq!(block_masks(1, 4, 0.0, (0.1, 0.5), &mut random), [vec![false; 16]]);
    }
}
