//! Batches whose arrays are lent to Python.

use std::sync::Arc;

use dataset::PlacedBox;
use dataset::loader::BatchTextMut;
use pyo3::prelude::*;

use crate::array::{Array, Element};
use crate::errors::or_raise;
use crate::process::Process;

/// What the arrays of a batch keep alive. When the last of them is gone, the buffers go back to the loader.
struct Owned {
    /// Never read: the arrays point into it.
    batch: Option<dataset::Batch>,
    process: Process,
}

// SAFETY: nothing of the batch is used through a shared reference; it is only dropped, which may happen on any thread.
unsafe impl Sync for Owned {}

impl Drop for Owned {
    fn drop(&mut self) {
        if !self.process.is_this() {
            // The pool's locks may be held by threads that are not in this process.
            std::mem::forget(self.batch.take());
        }
    }
}

/// Where an array is.
#[derive(Clone, Copy)]
struct Place(usize);

impl Place {
    fn of<T>(elements: &mut [T]) -> Self {
        Self(elements.as_mut_ptr() as usize)
    }
}

/// Where the arrays of a text are, with its number of tokens.
#[derive(Clone, Copy)]
struct TextPlaces {
    tokens: usize,
    token_ids: Place,
    target_ids: Place,
    attention_mask: Place,
    /// None where tokens are not weighted.
    token_weights: Option<Place>,
}

struct Places {
    images: Place,
    /// With the number and the side of the crops of each group.
    crops: Vec<(Place, usize, usize)>,
    has_image: Place,
    /// Mask, codes and rows of the slots of studies.
    views: [Place; 3],
    masks: Option<Place>,
    texts: Vec<TextPlaces>,
    labels: Place,
}

impl TextPlaces {
    fn of(text: BatchTextMut<'_>, has_weights: bool) -> Self {
        Self {
            tokens: text.tokens,
            token_ids: Place::of(text.token_ids),
            target_ids: Place::of(text.target_ids),
            attention_mask: Place::of(text.attention_mask),
            token_weights: has_weights.then(|| Place::of(text.token_weights)),
        }
    }
}

/// What all batches of a loader have in common.
pub struct Origin {
    /// The datasets, in the order of their numbers in a mixture.
    datasets: Vec<Arc<dataset::Dataset>>,
    /// Names of the columns of the labels.
    pub findings: Vec<String>,
    /// What a loader loads.
    loaded: Loaded,
    /// Whether some datasets were ingested without images.
    lacks_images: bool,
}

/// What a loader loads besides images and labels.
#[derive(Clone, Copy)]
pub struct Loaded {
    pub boxes: bool,
    pub masks: bool,
    /// Whether a sample is a study.
    pub studies: bool,
    /// Whether the tokens of texts are weighted.
    pub weights: bool,
}

impl Origin {
    /// That of the batches of a loader.
    pub fn new(
        datasets: Vec<Arc<dataset::Dataset>>,
        findings: &[String],
        loaded: Loaded,
        lacks_images: bool,
    ) -> Arc<Self> {
        Arc::new(Self { datasets, findings: findings.to_vec(), loaded, lacks_images })
    }
}

/// One batch. In shapes, ``B`` is ``len(batch)``, ``S`` the size of the transform, ``L`` the number of tokens, ``C`` the
/// number of findings. Where a sample is a study (``studies=mrm.Studies(views=V, prior=P)``), images, crops and masks have the
/// dimension ``V+P`` after ``B``, with zeros (masks: 255) in empty slots. Arrays are row-major, in memory of the host, and may be written to. The memory is used again by the
/// loader once nothing uses any array of the batch, and not before.
#[pyclass(frozen, module = "mrm")]
pub struct Batch {
    owned: Arc<Owned>,
    origin: Arc<Origin>,
    places: Places,
    rows: Vec<u32>,
    sources: Vec<u16>,
    boxes: Option<Vec<PlacedBox>>,
    size: usize,
    slots: usize,
    with_report: Vec<usize>,
    skipped: Vec<String>,
    /// Epoch that the batch belongs to, from 0 on.
    #[pyo3(get)]
    epoch: u64,
    /// Number of the batch within its epoch, from 0 on.
    #[pyo3(get)]
    number: u64,
}

impl Batch {
    /// Lends a batch. Boxes are those of the loader's records where it loads boxes.
    pub fn new(mut batch: dataset::Batch, origin: &Arc<Origin>) -> Self {
        let (size, epoch, number) = (batch.size(), batch.epoch, batch.number);
        let boxes = origin.loaded.boxes.then(|| batch.boxes().to_vec());
        let (rows, sources, with_report) = (batch.rows().to_vec(), batch.sources().to_vec(), batch.with_report());
        let skipped = batch.skipped().iter().map(ToString::to_string).collect();
        let (slots, shapes): (_, Vec<_>) = (batch.slots(), batch.crop_shapes().collect());
        let arrays = batch.arrays_mut();
        let crops = arrays.crops.into_iter().zip(shapes);
        let places = Places {
            images: Place::of(arrays.images),
            crops: crops.map(|(crops, (count, size))| (Place::of(crops), count, size)).collect(),
            has_image: Place::of(arrays.has_image),
            views: [Place::of(arrays.view_mask), Place::of(arrays.view_codes), Place::of(arrays.view_rows)],
            masks: origin.loaded.masks.then(|| Place::of(arrays.masks)),
            texts: arrays.texts.into_iter().map(|text| TextPlaces::of(text, origin.loaded.weights)).collect(),
            labels: Place::of(arrays.labels),
        };
        let owned = Arc::new(Owned { batch: Some(batch), process: Process::this() });
        let origin = origin.clone();
        Self { owned, origin, places, rows, sources, boxes, size, slots, with_report, skipped, epoch, number }
    }

    fn array<T: Element>(&self, place: Place, shape: &[usize]) -> Array {
        // SAFETY: the place is that of an array of the batch with this shape. It stays there while the owner lives, and only
        // the consumers of the array use it.
        unsafe { Array::lent(place.0 as *mut T, shape, self.owned.clone()) }
    }

    /// The first dimensions of what each image has: the samples, and the slots of studies.
    fn shape(&self, rest: &[usize]) -> Vec<usize> {
        let slots = self.origin.loaded.studies.then_some(self.slots);
        [self.rows.len()].into_iter().chain(slots).chain(rest.iter().copied()).collect()
    }

    fn view<T: Element>(&self, place: Place) -> Option<Array> {
        self.origin.loaded.studies.then(|| self.array::<T>(place, &self.shape(&[])))
    }

    fn text(&self, number: usize) -> Option<Text> {
        let places = *self.places.texts.get(number)?;
        Some(Text { owned: self.owned.clone(), places, shape: [self.rows.len(), places.tokens] })
    }
}

#[pymethods]
impl Batch {
    /// Number of samples, B: records or studies. It is 0 where all were skipped, or where the last batch of an epoch has none for this rank.
    fn __len__(&self) -> usize {
        self.rows.len()
    }

    /// Normalized gray pixels: ``float32 [B, 1, S, S]``; of studies ``[B, V+P, 1, S, S]``.
    #[getter]
    fn images(&self) -> Array {
        self.array::<f32>(self.places.images, &self.shape(&[1, self.size, self.size]))
    }

    /// Normalized gray pixels of each group of crops: ``float32 [B, n, 1, S, S]``, of studies ``[B, V+P, n, 1, S, S]``; an
    /// empty list where the loader makes none.
    #[getter]
    fn crops(&self) -> Vec<Array> {
        let groups = self.places.crops.iter();
        groups.map(|&(place, count, size)| self.array::<f32>(place, &self.shape(&[count, 1, size, size]))).collect()
    }

    /// 1 for samples with an image, 0 for those of datasets that were ingested without: ``uint8 [B]``; ``None`` where all
    /// datasets have images.
    #[getter]
    fn has_image(&self) -> Option<Array> {
        self.origin.lacks_images.then(|| self.array::<u8>(self.places.has_image, &[self.rows.len()]))
    }

    /// 1 for slots with an image, 0 for empty ones: ``uint8 [B, V+P]``; ``None`` unless samples are studies.
    #[getter]
    fn view_mask(&self) -> Option<Array> {
        self.view::<u8>(self.places.views[0])
    }

    /// The view of the image in each slot: ``int64 [B, V+P]``: 1 PA, 2 AP, 3 frontal, 4 lateral, 5 another, 0 not stated or
    /// empty; ``None`` unless samples are studies.
    #[getter]
    fn view_codes(&self) -> Option<Array> {
        self.view::<i64>(self.places.views[1])
    }

    /// The row of the image in each slot, -1 where it is empty: ``int64 [B, V+P]``; ``None`` unless samples are studies.
    #[getter]
    fn view_rows(&self) -> Option<Array> {
        self.view::<i64>(self.places.views[2])
    }

    /// Labels: ``float32 [B, C]``; 1 positive, 0 negative, -1 uncertain, NaN not mentioned.
    #[getter]
    fn labels(&self) -> Array {
        self.array::<f32>(self.places.labels, &[self.rows.len(), self.origin.findings.len()])
    }

    /// Token ids of the first text after masking, the input of a model: ``int64 [B, L]``; ``None`` without texts.
    #[getter]
    fn token_ids(&self) -> Option<Array> {
        Some(self.text(0)?.token_ids())
    }

    /// Token ids of the first text before masking, the reconstruction targets: ``int64 [B, L]``; ``None`` without texts.
    #[getter]
    fn target_ids(&self) -> Option<Array> {
        Some(self.text(0)?.target_ids())
    }

    /// 1 for tokens of the first text, 0 for padding: ``int64 [B, L]``; ``None`` without texts.
    #[getter]
    fn attention_mask(&self) -> Option<Array> {
        Some(self.text(0)?.attention_mask())
    }

    /// Weights of the tokens of the first text before masking, 0 at padding: ``float32 [B, L]``; ``None`` unless the loader has
    /// ``token_weights``.
    #[getter]
    fn token_weights(&self) -> Option<Array> {
        self.text(0)?.token_weights()
    }

    /// The arrays of each text, in the order of the loader's ``text``; an empty list without texts.
    #[getter]
    fn texts(&self) -> Vec<Text> {
        (0..self.places.texts.len()).filter_map(|number| self.text(number)).collect()
    }

    /// Segmentation masks: ``uint8 [B, S, S]``, of studies ``[B, V+P, S, S]``; 1 inside, 0 outside, 255 beside the image and for
    /// records without a mask; ``None`` where the loader does not load them.
    #[getter]
    fn masks(&self) -> Option<Array> {
        self.places.masks.map(|place| self.array::<u8>(place, &self.shape(&[self.size, self.size])))
    }

    /// Boxes of all records, in pixels of the transformed images: ``float32 [N, 4]`` of x, y, width, height; ``None`` where
    /// the loader does not load them.
    #[getter]
    fn boxes(&self) -> Option<Array> {
        let boxes = self.boxes.as_ref()?;
        let edges = boxes.iter().flat_map(|placed| [placed.x, placed.y, placed.width, placed.height]).collect();
        Some(Array::owned::<f32>(edges, &[boxes.len(), 4]))
    }

    /// Position within the batch of the record of each box: ``int64 [N]``.
    #[getter]
    fn box_records(&self) -> Option<Array> {
        let boxes = self.boxes.as_ref()?;
        Some(Array::owned::<i64>(boxes.iter().map(|placed| placed.record as i64).collect(), &[boxes.len()]))
    }

    /// The slot of each box: ``int64 [N]``; ``None`` unless samples are studies.
    #[getter]
    fn box_slots(&self) -> Option<Array> {
        let boxes = self.boxes.as_ref().filter(|_| self.origin.loaded.studies)?;
        Some(Array::owned::<i64>(boxes.iter().map(|placed| placed.slot as i64).collect(), &[boxes.len()]))
    }

    /// What the source calls the finding of each box.
    #[getter]
    fn box_labels(&self) -> Option<Vec<String>> {
        Some(self.boxes.as_ref()?.iter().map(|placed| placed.label.to_string()).collect())
    }

    /// The dataset of each record of a mixture, by its number: ``int64 [B]``; None for batches of one dataset.
    #[getter]
    fn sources(&self) -> Option<Array> {
        let numbers = || self.sources.iter().map(|&source| source.into()).collect();
        (self.origin.datasets.len() > 1).then(|| Array::owned::<i64>(numbers(), &[self.sources.len()]))
    }

    /// Rows of the dataset: ``int64 [B]``; in a mixture each is a row of its dataset. Of a study, that of its first view.
    #[getter]
    fn rows(&self) -> Array {
        Array::owned::<i64>(self.rows.iter().map(|&row| i64::from(row)).collect(), &[self.rows.len()])
    }

    /// The ``record_id`` of each row of ``rows``. The first access reads those of a whole shard.
    #[getter]
    fn record_ids(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let id = |(&source, &row): (&u16, &u32)| {
            Ok(self.origin.datasets[usize::from(source)].record_id(row as usize)?.to_owned())
        };
        let ids = || self.sources.iter().zip(&self.rows).map(id).collect();
        or_raise(py, py.detach(ids))
    }

    /// Positions within the batch of the records with a report (the first text), ascending.
    #[getter]
    fn with_report(&self) -> Vec<usize> {
        self.with_report.clone()
    }

    /// Why records were left out of this batch (``on_error="skip"``), a sentence each.
    #[getter]
    fn skipped(&self) -> Vec<String> {
        self.skipped.clone()
    }

    fn __repr__(&self) -> String {
        let (samples, size) = (self.rows.len(), self.size);
        let kind =
            if self.origin.loaded.studies { format!("studies with {} images", self.slots) } else { "images".into() };
        format!("mrm.Batch({samples} {kind} of {size}×{size}, epoch {}, number {})", self.epoch, self.number)
    }
}

/// The arrays of one text of the samples of a batch. A sample without it has padding only.
#[pyclass(frozen, module = "mrm", name = "BatchText")]
pub struct Text {
    owned: Arc<Owned>,
    places: TextPlaces,
    /// B, L.
    shape: [usize; 2],
}

impl Text {
    fn array<T: Element>(&self, place: Place) -> Array {
        // SAFETY: as in `Batch::array`.
        unsafe { Array::lent(place.0 as *mut T, &self.shape, self.owned.clone()) }
    }
}

#[pymethods]
impl Text {
    /// Token ids after masking, the input of a model: ``int64 [B, L]``.
    #[getter]
    fn token_ids(&self) -> Array {
        self.array::<i64>(self.places.token_ids)
    }

    /// Token ids before masking, the reconstruction targets: ``int64 [B, L]``.
    #[getter]
    fn target_ids(&self) -> Array {
        self.array::<i64>(self.places.target_ids)
    }

    /// 1 for tokens, 0 for padding: ``int64 [B, L]``.
    #[getter]
    fn attention_mask(&self) -> Array {
        self.array::<i64>(self.places.attention_mask)
    }

    /// Weights of the tokens before masking, 0 at padding: ``float32 [B, L]``; ``None`` unless the loader has
    /// ``token_weights``.
    #[getter]
    fn token_weights(&self) -> Option<Array> {
        self.places.token_weights.map(|place| self.array::<f32>(place))
    }

    fn __repr__(&self) -> String {
        format!("mrm.BatchText({} texts of {} tokens)", self.shape[0], self.shape[1])
    }
}
