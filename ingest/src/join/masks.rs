//! Masks of a table: run lengths, or paths of image files.

use std::path::{Path, PathBuf};

use dataset::format::record::NamedMask;

use crate::dicom::limits::MAX_FILE_BYTES;
use crate::error::Result;
use crate::file_system::retry;
use crate::image::mask::{self, RunForm, RunOrder, Runs};
use crate::image::mask_file;
use crate::join::geometry::{Geometry, size};
use crate::join::options::JoinOptions;
use crate::join::table::Block;
use crate::run::hashing_reader::{self, Hashing};
use crate::sources::NamedColumn;
use crate::sources::folder::labels::{Values, shortened};

/// Most pixels of a mask.
const MOST_PIXELS: u64 = 1 << 28;

/// The columns of masks.
pub(super) struct Masks<'a> {
    /// The columns of each name.
    named: Vec<(&'a str, Vec<(&'a str, Values<'a>)>)>,
    form: RunForm,
    order: RunOrder,
    folder: PathBuf,
    size: Option<(&'a [String; 2], [Values<'a>; 2])>,
}

impl<'a> Masks<'a> {
    /// Reads the columns.
    ///
    /// # Errors
    /// When one is missing.
    pub fn new(
        table: &'a Block,
        options: &'a JoinOptions,
        columns: &'a [NamedColumn],
        (form, order): (RunForm, RunOrder),
        folder: Option<&Path>,
    ) -> Result<Self> {
        let mut named: Vec<(&str, Vec<(&str, Values)>)> = Vec::new();
        for NamedColumn { name, column } in columns {
            let values = (column.as_str(), table.values(column)?);
            match named.iter_mut().find(|(known, _)| *known == name.as_str()) {
                Some((_, columns)) => columns.push(values),
                None => named.push((name.as_str(), vec![values])),
            }
        }
        let size = match &options.size_columns {
            Some(names) => Some((names, [table.values(&names[0])?, table.values(&names[1])?])),
            None => None,
        };
        Ok(Self { named, form, order, folder: folder.unwrap_or_else(|| table.folder()).to_path_buf(), size })
    }

    /// The masks of a row, of the size of a record's stored image: of each name the union of its columns; none where one of
    /// their cells is empty, since a part of a mask would be a wrong one.
    ///
    /// # Errors
    /// A sentence that names the column and the cause.
    pub fn row(&self, row: usize, geometry: &Geometry) -> Result<Vec<NamedMask>, String> {
        let size = match &self.size {
            Some((names, [height, width])) => {
                let size = size([height[row], width[row]], names)?;
                // Refuses masks of another shape.
                geometry.unit(size)?;
                size
            }
            None => geometry.source,
        };
        if u64::from(size.0) * u64::from(size.1) > MOST_PIXELS {
            return Err(format!("a mask of {}×{} pixels, which is too large", size.0, size.1));
        }
        let mut masks = Vec::new();
        for (name, columns) in &self.named {
            let mut drawn: Vec<u8> = Vec::new();
            for (column, values) in columns.iter().filter(|_| columns.iter().all(|(_, values)| values[row].is_some())) {
                let pixels = self.pixels(values[row].unwrap_or_default(), size);
                let pixels = pixels.map_err(|error| format!("column `{column}`: {error}"))?;
                if drawn.is_empty() {
                    drawn = pixels;
                } else {
                    drawn.iter_mut().zip(pixels).for_each(|(marked, also)| *marked |= also);
                }
            }
            if !drawn.is_empty() {
                let stored = (geometry.stored.0.into(), geometry.stored.1.into());
                let png = mask::scaled(&drawn, size, geometry.source, stored, geometry.place);
                masks
                    .push(NamedMask { name: (*name).to_owned(), png: png.map_err(|e| format!("mask `{name}`: {e}"))? });
            }
        }
        Ok(masks)
    }

    /// The pixels of a cell, row-major, 1 where marked, of an image of the size (width, height).
    fn pixels(&self, text: &str, size: (u32, u32)) -> Result<Vec<u8>, String> {
        let is_runs = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b' ' || byte == b'-');
        if is_runs {
            return Runs::parse_as(text, self.form)?.draw_along(self.order, size.0, size.1);
        }
        let path = self.folder.join(text);
        let read = retry(|| hashing_reader::read(&path, MAX_FILE_BYTES, Hashing::default()));
        let (bytes, _) = read.map_err(|error| format!("the file of the mask, `{}`: {error}", shortened(text)))?;
        mask_file::decode(&bytes, size).map_err(|error| format!("the mask `{}`: {error}", shortened(text)))
    }
}
