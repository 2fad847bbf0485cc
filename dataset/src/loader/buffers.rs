//! The memory of batches, which returns to the loader and is used again.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use crate::error::Error;
use crate::loader::studies::Slot;

/// Memory of the host that the pixels of batches are written to. `Vec<f32>` implements it; a trainer may implement it for
/// memory that its device reads faster, such as pinned memory (see
/// [`LoaderBuilder::memory`](crate::loader::LoaderBuilder::memory)).
pub trait HostBuffer: Send {
    /// The whole buffer, for reading.
    fn as_slice(&self) -> &[f32];
    /// The whole buffer, for writing.
    fn as_mut_slice(&mut self) -> &mut [f32];
}

impl HostBuffer for Vec<f32> {
    fn as_slice(&self) -> &[f32] {
        self
    }

    fn as_mut_slice(&mut self) -> &mut [f32] {
        self
    }
}

/// A box of a source, in pixels of the transformed image, clipped to it.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacedBox {
    /// Position of its record within the batch.
    pub record: usize,
    /// The slot of its image among those of a study; 0 where a sample is one record.
    pub slot: usize,
    /// What the source calls it.
    pub label: Arc<str>,
    /// Left edge.
    pub x: f32,
    /// Upper edge.
    pub y: f32,
    /// Width in pixels.
    pub width: f32,
    /// Height in pixels.
    pub height: f32,
}

/// The arrays of one text of the samples of a batch.
#[derive(Default)]
pub(crate) struct TextBuffers {
    pub token_ids: Vec<i64>,
    pub target_ids: Vec<i64>,
    pub attention_mask: Vec<i64>,
    /// Empty where tokens are not weighted.
    pub weights: Vec<f32>,
}

impl TextBuffers {
    fn clear(&mut self) {
        for list in [&mut self.token_ids, &mut self.target_ids, &mut self.attention_mask] {
            list.clear();
        }
        self.weights.clear();
    }
}

/// What the slots of the studies of a batch hold.
#[derive(Default)]
pub(crate) struct ViewBuffers {
    pub mask: Vec<u8>,
    pub codes: Vec<i64>,
    pub rows: Vec<i64>,
}

impl ViewBuffers {
    /// Appends a slot.
    pub fn push(&mut self, is_seen: bool, slot: &Slot) {
        self.mask.push(u8::from(is_seen));
        self.codes.push(slot.view);
        self.rows.push(slot.row.map_or(-1, i64::from));
    }

    fn truncate(&mut self, slots: usize) {
        self.mask.truncate(slots);
        self.codes.truncate(slots);
        self.rows.truncate(slots);
    }
}

/// The buffers of a batch.
#[derive(Default)]
pub(crate) struct Buffers {
    pub rows: Vec<u32>,
    pub sources: Vec<u16>,
    /// Room for the images of a full batch, then for its crops.
    pub images: Option<Box<dyn HostBuffer>>,
    pub has_image: Vec<u8>,
    /// Empty where a sample is one record.
    pub views: ViewBuffers,
    pub masks: Vec<u8>,
    pub boxes: Vec<PlacedBox>,
    pub texts: Vec<TextBuffers>,
    pub labels: Vec<f32>,
    pub skipped: Vec<Error>,
}

impl Buffers {
    /// Removes all records and keeps the memory.
    pub fn clear(&mut self) {
        self.texts.iter_mut().for_each(TextBuffers::clear);
        self.rows.clear();
        self.sources.clear();
        self.has_image.clear();
        self.views.truncate(0);
        self.labels.clear();
        self.masks.clear();
        self.boxes.clear();
        self.skipped.clear();
    }

    /// Removes what was written of a sample that is not finished: with so many images of so many pixels each, after so many
    /// boxes.
    pub fn drop_unfinished(&mut self, slots: usize, pixels: usize, boxes: usize) {
        let images = self.rows.len() * slots;
        self.masks.truncate(images * pixels);
        self.views.truncate(images);
        self.boxes.truncate(boxes);
        self.has_image.truncate(self.rows.len());
    }
}

/// Buffers of dropped batches, to be used again.
#[derive(Clone)]
pub(crate) struct BufferPool {
    sender: Sender<Buffers>,
    receiver: Receiver<Buffers>,
}

impl BufferPool {
    /// Keeps so many buffers.
    pub fn new(buffers: usize) -> Self {
        let (sender, receiver) = crossbeam_channel::bounded(buffers);
        Self { sender, receiver }
    }

    /// Used buffers, or new ones.
    pub fn take(&self) -> Buffers {
        self.receiver.try_recv().unwrap_or_default()
    }

    /// Keeps buffers where there is room, else frees them.
    pub fn give_back(&self, buffers: Buffers) {
        let _ = self.sender.try_send(buffers);
    }

    /// The way of buffers to the pool. When the pool is dropped, they are freed.
    pub fn returns(&self) -> Sender<Buffers> {
        self.sender.clone()
    }
}
