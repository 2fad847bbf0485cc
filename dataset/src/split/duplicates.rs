//! Records with equal images: found by a digest of the stored pixels, and kept together in one subset.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::dataset::Dataset;
use crate::error::Result;
use crate::progress::{OnProgress, Progress};
use crate::split::index_table::IndexTable;
use crate::split::types::{Member, Unit};

/// Images that are fetched at once from an object store.
const BLOCK: usize = 64;

/// The rows of records whose stored pixels are equal, ascending; groups in the order of their first rows. Images of one gray
/// level and records without an image are in no group. Every image is read.
///
/// # Errors
/// When an image cannot be read or decoded, or `progress` cancels.
pub fn groups(dataset: &Dataset, progress: &OnProgress) -> Result<Vec<Vec<u32>>> {
    let rows = dataset.all_rows()?;
    progress(Progress::Started { records: rows.len() as u64, done: 0 })?;
    let digests = |block: &[u32]| -> Result<Vec<Option<[u8; 32]>>> {
        let pages = dataset.image_pages(block)?;
        let mut buffer = Vec::new();
        let of_row = |(at, &row): (usize, &u32)| {
            let size = dataset.image_size(row as usize)?;
            let pixels = dataset.decode_image(pages[at].as_ref(), row as usize, size, &mut buffer)?;
            Ok(digest(size, pixels, dataset.has_16_bits()))
        };
        let digests: Result<_> = block.iter().enumerate().map(of_row).collect();
        progress(Progress::Advanced(block.len() as u64))?;
        digests
    };
    let digests: Vec<Vec<Option<[u8; 32]>>> = rows.par_chunks(BLOCK).map(digests).collect::<Result<_>>()?;
    let mut group_of: HashMap<[u8; 32], usize> = HashMap::new();
    let mut groups: Vec<Vec<u32>> = Vec::new();
    for (digest, row) in digests.into_iter().flatten().zip(rows) {
        let Some(digest) = digest else { continue };
        let group = *group_of.entry(digest).or_insert(groups.len());
        if group == groups.len() {
            groups.push(Vec::new());
        }
        groups[group].push(row);
    }
    groups.retain(|rows| rows.len() > 1);
    Ok(groups)
}

/// Digest of an image of one or two bytes a pixel; `None` where all pixels have one value, or there are none.
fn digest((height, width): (u16, u16), pixels: &[u8], has_16_bits: bool) -> Option<[u8; 32]> {
    let first = pixels.first()?;
    let is_constant = if has_16_bits {
        pixels.as_chunks::<2>().0.windows(2).all(|pair| pair[0] == pair[1])
    } else {
        pixels.iter().all(|pixel| pixel == first)
    };
    if is_constant {
        return None;
    }
    let sides = [height.to_le_bytes(), width.to_le_bytes()];
    Some(Sha256::new().chain_update(sides.as_flattened()).chain_update(pixels).finalize().into())
}

/// Numbers of the groups of records that stay together: the units, where those with a record in the same one of `groups`
/// count as one.
pub(crate) fn joined(index_table: &IndexTable, unit: Unit, groups: &[Vec<u32>]) -> Vec<u32> {
    let units: Vec<u32> = (0..index_table.len()).map(|row| index_table.group(unit, row)).collect();
    let mut parents: Vec<u32> = (0..units.iter().max().map_or(0, |last| last + 1)).collect();
    for rows in groups {
        for pair in rows.windows(2) {
            let [a, b] = [pair[0], pair[1]].map(|row| root(&mut parents, units[row as usize]));
            // The smaller number becomes the root, so that the order of the groups does not matter.
            parents[a.max(b) as usize] = a.min(b);
        }
    }
    units.into_iter().map(|unit| root(&mut parents, unit)).collect()
}

/// The root of a unit; halves the path to it.
fn root(parents: &mut [u32], mut unit: u32) -> u32 {
    while parents[unit as usize] != unit {
        parents[unit as usize] = parents[parents[unit as usize] as usize];
        unit = parents[unit as usize];
    }
    unit
}

/// What a split did with equal images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptDuplicates {
    /// Groups of records with equal images.
    pub groups: u64,
    /// Records in them.
    pub records: u64,
    /// Groups with records of several patients.
    pub of_several_patients: u64,
    /// Groups with records in more than one subset: the source's subsets or published lists divide them.
    pub shared: u64,
}

impl KeptDuplicates {
    pub(crate) fn measure(members: &[Member], index_table: &IndexTable, groups: &[Vec<u32>]) -> Self {
        let patients = |rows: &[u32]| distinct(rows.iter().map(|&row| index_table.patients[row as usize]));
        let subsets = |rows: &[u32]| distinct(rows.iter().filter_map(|&row| members[row as usize].subset));
        let count = |holds: &dyn Fn(&[u32]) -> bool| groups.iter().filter(|rows| holds(rows)).count() as u64;
        Self {
            groups: groups.len() as u64,
            records: groups.iter().map(Vec::len).sum::<usize>() as u64,
            of_several_patients: count(&|rows| patients(rows) > 1),
            shared: count(&|rows| subsets(rows) > 1),
        }
    }
}

fn distinct<T: Eq + std::hash::Hash>(values: impl Iterator<Item = T>) -> usize {
    values.collect::<HashSet<T>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::index_table::Entry;
    use crate::split::types::Subset;

    #[test]
    fn units_that_share_an_image_are_joined_in_chains() {
        let entry = |record, patient, study| Entry { record, patient, study, positives: Vec::new(), labeled: false };
        let entries = vec![
            entry("a", "1", "x"),
            entry("b", "2", "x"),
            entry("c", "2", "y"),
            entry("d", "3", "x"),
            entry("e", "4", "x"),
            entry("f", "5", "x"),
        ];
        let index_table = IndexTable::new(0, entries);
        // Patients 1 and 3 are joined by 2's images; 4 and 5 share none.
        let groups = vec![vec![2, 3], vec![0, 1]];
        assert_eq!(joined(&index_table, Unit::Patient, &groups), [0, 0, 0, 0, 3, 4]);
        assert_eq!(joined(&index_table, Unit::Study, &groups), [0, 0, 2, 2, 4, 5]);
        assert_eq!(joined(&index_table, Unit::Image, &groups), [0, 0, 2, 2, 4, 5]);
        assert_eq!(joined(&index_table, Unit::Patient, &[]), [0, 1, 1, 2, 3, 4]);
        let member = |subset| Member { record_id: String::new(), subset: Some(subset), ratio: None, ratios: None };
        let members =
            [Subset::Train, Subset::Test, Subset::Test, Subset::Validate, Subset::Train, Subset::Train].map(member);
        let found = KeptDuplicates::measure(&members, &index_table, &[vec![1, 2], vec![0, 3]]);
        assert_eq!(found, KeptDuplicates { groups: 2, records: 4, of_several_patients: 1, shared: 1 });
        assert_eq!(digest((1, 2), &[7, 7], false), None);
        assert_ne!(digest((1, 2), &[7, 8], false), digest((2, 1), &[7, 8], false), "other sides");
        assert_eq!(digest((1, 2), &[7, 8, 7, 8], true), None, "16 bits");
        assert!(digest((1, 2), &[7, 8, 8, 7], true).is_some());
    }
}
