//! Parses a DICOM data set within limits; reads the values of its elements.

use dicom_core::Tag;
use dicom_object::file::ReadPreamble;
use dicom_object::mem::InMemDicomObject;
use dicom_object::{FileDicomObject, OpenFileOptions};

use crate::dicom::limits::{self, guarded};

pub(crate) type Object = FileDicomObject<InMemDicomObject>;

/// Parses a data set up to the element `end`, from the beginning `bytes` of a file of `total` bytes.
///
/// # Errors
/// A sentence that names the cause and contains no value of the header; also where `bytes` end before `end`.
pub(crate) fn read_until(bytes: &[u8], total: usize, end: Tag) -> Result<Object, String> {
    guarded(|| {
        limits::dicom::data_set(bytes, total)?;
        parse(bytes, OpenFileOptions::new().read_until(end))
    })
}

pub(super) fn parse(bytes: &[u8], options: OpenFileOptions) -> Result<Object, String> {
    options
        .read_preamble(ReadPreamble::Auto)
        .from_reader(bytes)
        .map_err(|error| format!("the DICOM data set cannot be parsed: {}", cause(&error)))
}

/// The outermost message of an error. dicom-rs puts values of the data set into the inner ones only.
pub(crate) fn cause(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    message.truncate(message.char_indices().nth(200).map_or(message.len(), |(at, _)| at));
    message
}

pub(crate) fn integer(object: &InMemDicomObject, tag: Tag) -> Option<i64> {
    object.element_opt(tag).ok()??.to_int().ok()
}

pub(super) fn number(object: &InMemDicomObject, tag: Tag) -> Option<f64> {
    object.element_opt(tag).ok()??.to_multi_float64().ok()?.first().copied().filter(|value| value.is_finite())
}

/// The text of an element, if it exists and is not empty.
pub(crate) fn text(object: &InMemDicomObject, tag: Tag) -> Option<String> {
    let value = object.element_opt(tag).ok()??.to_str().ok()?.trim_matches(['\0', ' ']).to_owned();
    (!value.is_empty()).then_some(value)
}

pub(super) fn first_item(object: &InMemDicomObject, tag: Tag) -> Option<InMemDicomObject> {
    object.element_opt(tag).ok()??.items()?.first().cloned()
}
