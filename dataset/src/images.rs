//! The images of a dataset: their sizes, pages and pixels.

use std::sync::OnceLock;

use arrow_array::UInt16Array;
use bytes::Bytes;

use crate::dataset::Dataset;
use crate::error::Result;
use crate::format::image_codec::{self, Gray16Pixels, GrayPixels};
use crate::format::record_checks::NO_WINDOW;
use crate::format::table;
use crate::store::stored_file::StoredFile;
use crate::transform::window::{LinearWindow, words};

impl Dataset {
    /// One decoded image with 8 bits a pixel. Images of 16 bits are shown with their window and rounded; [`Dataset::image16`]
    /// gives their stored pixels.
    ///
    /// # Errors
    /// When it cannot be read or decoded, differs from what was written, or has another size than its columns state.
    pub fn image(&self, row: usize) -> Result<GrayPixels> {
        let mut pixels = Vec::new();
        let (height, width) = self.image_into(row, &mut pixels)?;
        if self.has_16_bits() && !pixels.is_empty() {
            let [center, span] = self.window(row)?;
            pixels = LinearWindow::new(center.into(), span.into()).gray(words(&pixels));
        }
        Ok(GrayPixels { width: width.into(), height: height.into(), pixels })
    }

    /// The stored pixels of one image, 16 bits each; those of a dataset of 8 bits are from 0 to 255.
    ///
    /// # Errors
    /// As [`Dataset::image`].
    pub fn image16(&self, row: usize) -> Result<Gray16Pixels> {
        let mut bytes = Vec::new();
        let (height, width) = self.image_into(row, &mut bytes)?;
        let pixels =
            if self.has_16_bits() { words(&bytes).collect() } else { bytes.into_iter().map(u16::from).collect() };
        Ok(Gray16Pixels { width: width.into(), height: height.into(), pixels })
    }

    /// Whether stored pixels have 16 bits.
    pub fn has_16_bits(&self) -> bool {
        self.manifest().image.encoding.bits() == 16
    }

    /// Center and width of the window of an image of 16 bits.
    ///
    /// # Errors
    /// When its columns cannot be read, or it has no window.
    pub fn window(&self, row: usize) -> Result<[f32; 2]> {
        let window = self.record_without_image(row)?.window;
        let (shard, local) = self.locate(row)?;
        window.ok_or_else(|| shard.row_error(local, NO_WINDOW))
    }

    /// Decodes one image into a buffer that is used again; returns its height and width.
    pub(crate) fn image_into(&self, row: usize, pixels: &mut Vec<u8>) -> Result<(u16, u16)> {
        let size = self.image_size(row)?;
        self.decode_image(None, row, size, pixels)?;
        Ok(size)
    }

    /// Height and width of an image, by its columns.
    pub(crate) fn image_size(&self, row: usize) -> Result<(u16, u16)> {
        let (index, row) = self.place(row)?;
        let shard = self.shard(index)?;
        let group = shard.group_of(row)?;
        let groups = self.sizes[index].get_or_init(|| (0..shard.groups()).map(|_| OnceLock::new()).collect());
        let sizes = if let Some(sizes) = groups[group].get() {
            sizes
        } else {
            let batch = match self.cache.peek((index, group)) {
                Some(batch) => batch,
                None => shard.group_columns(group, &["height", "width"])?.into(),
            };
            let side = |name| table::column::<UInt16Array>(&batch, name).map(|sides| sides.values().to_vec());
            let (Some(heights), Some(widths)) = (side("height"), side("width")) else {
                return Err(shard.row_error(row, "a column has another type than the format's"));
            };
            groups[group].get_or_init(|| heights.into_iter().zip(widths).collect())
        };
        let at = row - shard.group(group).start;
        sizes.get(at).copied().ok_or_else(|| shard.row_error(row, "its row group is too short"))
    }

    /// The pages of some images, fetched at the same time from an object store. `None` for those that are on this machine, in a
    /// folder or in the cache of the store: they are best read one by one.
    pub(crate) fn image_pages(&self, rows: &[u32]) -> Result<Vec<Option<Bytes>>> {
        if self.storage().as_folder().is_some() {
            return Ok(vec![None; rows.len()]);
        }
        let located: Vec<_> = rows.iter().map(|&row| self.locate(row as usize)).collect::<Result<_>>()?;
        let pages: Vec<_> =
            located.iter().map(|(shard, row)| Ok((shard.file(), shard.image_page(*row)?))).collect::<Result<_>>()?;
        StoredFile::fetch_each(&pages)
    }

    /// The pixels of one image of a height and width that its columns state: a byte for each, or two in little-endian order where
    /// pixels have 16 bits, row-major. They are in its page, where that was fetched before ([`Dataset::image_pages`]) and has
    /// them as they are, or are decoded into a buffer that is used again.
    pub(crate) fn decode_image<'a>(
        &self,
        page: Option<&'a Bytes>,
        row: usize,
        (height, width): (u16, u16),
        buffer: &'a mut Vec<u8>,
    ) -> Result<&'a [u8]> {
        let (shard, local) = self.locate(row)?;
        let page = shard.intact(local, page)?;
        let encoding = shard.encoding();
        let length = usize::from(height) * usize::from(width) * usize::from(encoding.bits() / 8);
        if let Some(length) = encoding.raw_bytes(height, width) {
            if let Some(page) = page
                && let Some(pixels) = shard.pixels_in_page(local, length, page)?
            {
                return Ok(pixels);
            }
            shard.image_bytes(local, Some(length), page, buffer)?;
        } else {
            let mut encoded = Vec::new();
            buffer.clear();
            shard.image_bytes(local, None, page, &mut encoded)?;
            // A dataset that was ingested without images has none.
            if !(encoded.is_empty() && length == 0) {
                let decoded = image_codec::decode_stored(&encoded, encoding, (height.into(), width.into()));
                *buffer = decoded.map_err(|error| shard.row_error(local, error))?;
            }
        }
        if buffer.len() == length {
            return Ok(buffer);
        }
        let message = format!("image of {} bytes, its columns say {height}×{width}", buffer.len());
        Err(shard.row_error(local, message))
    }
}
