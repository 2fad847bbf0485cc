//! Several crops of an image beside the image itself, such as the global and local ones of student and teacher.

use crate::error::{Error, Result};
use crate::random::Stream;
use crate::transform::augment::MAX_SIZE;
use crate::transform::choices::Workspace;
use crate::transform::pipeline::Transform;
use crate::transform::windowed::StoredImage;

/// Largest number of crops of an image with one transform.
const MAX_COUNT: usize = 1024;

/// The crops of an image: for each group a transform and how many crops it makes.
///
/// The crops of a batch are in the memory of its images, after the room for the images of a full batch: one group after the
/// other, each `[B, n, 1, S, S]`, or `[B, V+P, n, 1, S, S]` of studies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crops {
    groups: Vec<(Transform, usize)>,
    /// Where each group is.
    places: Vec<CropPlace>,
}

/// Where a group of crops is in the memory of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CropPlace {
    /// First float.
    pub start: usize,
    /// Crops of an image.
    pub count: usize,
    /// Side of a crop in pixels.
    pub size: usize,
}

impl CropPlace {
    /// Floats of an image.
    pub fn floats(&self) -> usize {
        self.count * self.size * self.size
    }
}

impl Crops {
    /// Places groups of crops of at most so many images after the floats of the images.
    ///
    /// # Errors
    /// When a group has no crop or too many, or its transform is impossible.
    pub fn new(groups: Vec<(Transform, usize)>, images: usize, floats: usize) -> Result<Self> {
        let (mut places, mut start) = (Vec::with_capacity(groups.len()), floats);
        for (transform, count) in &groups {
            transform.check()?;
            if !(1..=MAX_COUNT).contains(count) || !(1..=MAX_SIZE).contains(&transform.size) {
                return Err(Error::Invalid(format!(
                    "loader: {count} crops of {0}×{0} pixels: give 1 to {MAX_COUNT} crops of at most {MAX_SIZE} pixels a side",
                    transform.size
                )));
            }
            let place = CropPlace { start, count: *count, size: transform.size as usize };
            start += images * place.floats();
            places.push(place);
        }
        Ok(Self { groups, places })
    }

    /// Where each group is.
    pub fn places(&self) -> &[CropPlace] {
        &self.places
    }

    /// Floats of the crops of one image.
    pub fn floats(&self) -> usize {
        self.places.iter().map(CropPlace::floats).sum()
    }

    /// Writes the crops of an image into the memory of its batch, where the image has this position. `stream` gives random
    /// numbers by the name of their use.
    ///
    /// # Errors
    /// When the image has no pixel.
    pub fn make(
        &self,
        source: StoredImage,
        position: usize,
        stream: impl Fn(&str) -> Stream,
        workspace: &mut Workspace,
        memory: &mut [f32],
    ) -> Result<()> {
        for (group, ((transform, count), place)) in self.groups.iter().zip(&self.places).enumerate() {
            let (start, pixels) = (place.start + position * place.floats(), place.size * place.size);
            for number in 0..*count {
                let named = |name: &str| stream(&format!("crop {group} {number} {name}"));
                let choices = transform.choose(source.width, source.height, named)?;
                let out = &mut memory[start + number * pixels..][..pixels];
                transform.apply_stored(source, &choices, workspace, out)?;
            }
        }
        Ok(())
    }
    /// Clears the crops of a position that has no image.
    pub fn clear(&self, position: usize, memory: &mut [f32]) {
        for place in &self.places {
            memory[place.start + position * place.floats()..][..place.floats()].fill(0.0);
        }
    }
}
