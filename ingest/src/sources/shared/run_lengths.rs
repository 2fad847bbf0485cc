//! Tables of masks as run lengths, a row for each region of an image.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::image::mask::Runs;
use crate::reject::Reject;
use crate::sources::shared::table::{Table, texts};

/// The mask of an image, the union of its rows; `None` where its only cell is blank; or why it cannot be read: a part of a
/// mask would be a wrong label.
pub type Mask = Result<Option<Runs>, String>;

/// The mask of each image of a table. `id` and `pixels` are columns. Rows without an image become rejects.
///
/// # Errors
/// When the table lacks one of the columns.
pub fn masks(table: &Table, id: &str, pixels: &str, rejects: &mut Vec<Reject>) -> Result<BTreeMap<String, Mask>> {
    let (ids, pixels) = (texts(&table.frame, id)?, texts(&table.frame, pixels)?);
    let mut rows: BTreeMap<&str, BTreeMap<Option<&str>, usize>> = BTreeMap::new();
    for row in 0..table.frame.height() {
        let Some(id) = ids[row] else {
            rejects.push(table.reject(row, format!("{id} is empty")));
            continue;
        };
        // Equal rows count once.
        rows.entry(id).or_default().entry(pixels[row]).or_insert(row);
    }
    let united = |regions: BTreeMap<Option<&str>, usize>| {
        let (mut mask, single) = (Runs::default(), regions.len() == 1);
        for (text, row) in regions {
            let message = |error: String| format!("{}: {error}", table.place(row));
            let Some(text) = text else {
                if single {
                    return Ok(None);
                }
                return Err(message("no mask beside another row of this image".to_owned()));
            };
            let region = Runs::parse(text).map_err(message)?;
            if region.is_empty() && !single {
                return Err(message("an empty mask beside another row of this image".to_owned()));
            }
            mask.unite(region);
        }
        Ok(Some(mask))
    };
    Ok(rows.into_iter().map(|(id, regions)| (id.to_owned(), united(regions))).collect())
}
