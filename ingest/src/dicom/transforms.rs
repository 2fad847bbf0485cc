//! Attributes of the intensity transform: modality transform, window or VOI table, padding. `image/intensity.rs` applies them.

use dicom_dictionary_std::tags;
use dicom_object::mem::InMemDicomObject;

use crate::dicom::object::{first_item, integer, number, text};

/// Modality transform: from stored values to modality values (PS3.3 C.11.1).
#[derive(Clone, Debug, PartialEq)]
pub enum Modality {
    /// value = stored · slope + intercept.
    Rescale {
        /// RescaleSlope.
        slope: f64,
        /// RescaleIntercept.
        intercept: f64,
    },
    /// A look-up table.
    Table(LookUp),
}

/// VOI transform: from modality values to displayed ones (PS3.3 C.11.2).
#[derive(Clone, Debug, PartialEq)]
pub enum Voi {
    /// A look-up table.
    Table(LookUp),
    /// The first window of the header.
    Window {
        /// WindowCenter.
        center: f64,
        /// WindowWidth, above 0.
        width: f64,
        /// VOILUTFunction.
        function: WindowFunction,
    },
}

/// Function of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowFunction {
    /// PS3.3 C.11.2.1.2.1.
    Linear,
    /// PS3.3 C.11.2.1.3.2.
    LinearExact,
    /// PS3.3 C.11.2.1.3.1.
    Sigmoid,
}

/// A look-up table of a DICOM file.
#[derive(Clone, Debug, PartialEq)]
pub struct LookUp {
    /// Input value of the first entry.
    pub first: i64,
    /// The entries; at least one.
    pub entries: Vec<u16>,
    /// Bits of an entry, 1 to 16.
    pub bits: u16,
}

impl LookUp {
    /// The entry for a value; a value outside of the table gives its first or last entry.
    pub fn get(&self, value: f64) -> f64 {
        let index = (value.floor() as i64).saturating_sub(self.first).clamp(0, self.entries.len() as i64 - 1);
        self.entries.get(index as usize).copied().map_or(0.0, f64::from)
    }
}

fn look_up(item: &InMemDicomObject, signed: bool) -> Option<LookUp> {
    let descriptor = item.element_opt(tags::LUT_DESCRIPTOR).ok()??.to_multi_int::<i64>().ok()?;
    let [entries, first, bits] = descriptor.get(..3)? else {
        return None;
    };
    // The first value is signed like the pixels, but files write it in either form.
    let first = if signed && *first > i64::from(i16::MAX) { first - 65536 } else { *first };
    let data = item.element_opt(tags::LUT_DATA).ok()??.to_multi_int::<i64>().ok()?;
    let wanted = if *entries == 0 { 65536 } else { *entries as usize };
    let entries: Vec<u16> = data.into_iter().map(|value| value as u16).take(wanted).collect();
    (!entries.is_empty()).then_some(LookUp { first, entries, bits: (*bits).clamp(1, 16) as u16 })
}

pub(super) fn modality(object: &InMemDicomObject) -> Modality {
    let signed = integer(object, tags::PIXEL_REPRESENTATION) == Some(1);
    if let Some(table) = first_item(object, tags::MODALITY_LUT_SEQUENCE).and_then(|item| look_up(&item, signed)) {
        return Modality::Table(table);
    }
    let slope = number(object, tags::RESCALE_SLOPE).filter(|slope| *slope != 0.0).unwrap_or(1.0);
    Modality::Rescale { slope, intercept: number(object, tags::RESCALE_INTERCEPT).unwrap_or(0.0) }
}

pub(super) fn voi(object: &InMemDicomObject) -> Option<Voi> {
    let signed = integer(object, tags::PIXEL_REPRESENTATION) == Some(1);
    if let Some(table) = first_item(object, tags::VOILUT_SEQUENCE).and_then(|item| look_up(&item, signed)) {
        return Some(Voi::Table(table));
    }
    let center = number(object, tags::WINDOW_CENTER)?;
    let width = number(object, tags::WINDOW_WIDTH)?;
    let function = match text(object, tags::VOILUT_FUNCTION).as_deref() {
        Some("LINEAR_EXACT") => WindowFunction::LinearExact,
        Some("SIGMOID") => WindowFunction::Sigmoid,
        _ => WindowFunction::Linear,
    };
    (width > 0.0).then_some(Voi::Window { center, width, function })
}

/// First and last padding value (PS3.3 C.7.5.1.1.2); files write them signed or unsigned.
pub(super) fn padding(object: &InMemDicomObject) -> Option<(i64, i64)> {
    let bits = integer(object, tags::BITS_ALLOCATED).filter(|bits| (1..=32).contains(bits))?;
    let signed = integer(object, tags::PIXEL_REPRESENTATION) == Some(1);
    let value = |tag| {
        let value = integer(object, tag)?.rem_euclid(1 << bits);
        Some(if signed && value >= 1 << (bits - 1) { value - (1 << bits) } else { value })
    };
    let first = value(tags::PIXEL_PADDING_VALUE)?;
    let last = value(tags::PIXEL_PADDING_RANGE_LIMIT).unwrap_or(first);
    Some((first.min(last), first.max(last)))
}
