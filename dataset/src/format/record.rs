//! One row of a dataset: a radiograph with its report and labels.

use serde::{Deserialize, Serialize};

use crate::format::label::Label;

/// Version of the format that this build writes, as in the manifest.
pub const FORMAT_VERSION: u32 = 2;
/// The oldest version that this build reads.
pub const OLDEST_VERSION: u32 = 1;

/// Encoding of the bytes in the `image` column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum ImageEncoding {
    /// 8-bit gray, row-major, `height · width` bytes.
    Raw,
    /// PNG, 8-bit gray.
    Png,
    /// JPEG, 8-bit gray, quality 95.
    Jpeg,
    /// 16-bit gray, row-major, little endian, `2 · height · width` bytes. On the command line: `raw` with 16 bits.
    #[cfg_attr(feature = "cli", value(skip))]
    Raw16,
    /// PNG, 16-bit gray. On the command line: `png` with 16 bits.
    #[cfg_attr(feature = "cli", value(skip))]
    Png16,
}

impl ImageEncoding {
    /// Name in the schema metadata, in the manifest and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Raw16 => "raw16",
            Self::Png16 => "png16",
        }
    }

    /// The encoding of a name.
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Raw, Self::Png, Self::Jpeg, Self::Raw16, Self::Png16].into_iter().find(|it| it.name() == name)
    }

    /// Bits of a pixel.
    pub fn bits(self) -> u8 {
        match self {
            Self::Raw | Self::Png | Self::Jpeg => 8,
            Self::Raw16 | Self::Png16 => 16,
        }
    }

    /// The same way to store pixels of 16 bits; `None` for JPEG, which has none.
    pub fn with_16_bits(self) -> Option<Self> {
        match self {
            Self::Raw | Self::Raw16 => Some(Self::Raw16),
            Self::Png | Self::Png16 => Some(Self::Png16),
            Self::Jpeg => None,
        }
    }

    /// Bytes of an image of this height and width that is stored without a file format; `None` for files.
    pub fn raw_bytes(self, height: u16, width: u16) -> Option<usize> {
        let pixels = usize::from(height) * usize::from(width);
        match self {
            Self::Raw => Some(pixels),
            Self::Raw16 => Some(2 * pixels),
            Self::Png | Self::Jpeg | Self::Png16 => None,
        }
    }

    /// Whether images are stored as files of an image format.
    pub fn is_file(self) -> bool {
        matches!(self, Self::Png | Self::Jpeg | Self::Png16)
    }
}

/// The rectangle of a finding, in pixels of the stored image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BoundingBox {
    /// What the source calls it.
    pub label: String,
    /// Left edge.
    pub x: f32,
    /// Upper edge.
    pub y: f32,
    /// Width in pixels.
    pub width: f32,
    /// Height in pixels.
    pub height: f32,
    /// Confidence of a detector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
    /// The sentence that the rectangle belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentence: Option<String>,
    /// Who drew the rectangle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<String>,
}

/// A section of a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamedText {
    /// Lower-case name: `findings`, `impression`, `indication`, `comparison`, `history`, `technique`, …
    pub name: String,
    /// The text.
    pub text: String,
    /// Ids of the tokenizer, as [`Record::token_ids`].
    pub token_ids: Vec<i32>,
}

/// The labels of one of several readers of an image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Identifier of the reader.
    pub reader: String,
    /// As [`Record::labels`].
    pub labels: Vec<Option<Label>>,
}

/// A segmentation mask.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamedMask {
    /// What is marked; one of the manifest's `masks`.
    pub name: String,
    /// 1-bit PNG of the stored size; all zero where the source states that there is nothing.
    pub png: Vec<u8>,
}

/// One radiograph with its report. `docs/format.md` specifies each column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Unique in the dataset, and the same when the source is ingested again: `SOURCE/…`.
    pub record_id: String,
    /// Identifier of the patient in the source.
    pub patient_id: String,
    /// Identifier of the study; unique together with the patient.
    pub study_id: String,
    /// Identifier of the image in the source.
    pub image_id: String,
    /// Path of the raw file, relative to the raw directory.
    pub source_path: String,
    /// Digest of the raw file, by the algorithm that the manifest names.
    pub source_digest: [u8; 32],
    /// The source's own subset: `train`, `validate` or `test`.
    pub subset: Option<String>,
    /// Date, or date and time, of the study as de-identified: `2110-03-07`, `2110-03-07T14:05:09`.
    pub study_datetime: Option<String>,
    /// Number by which the patient's studies are ordered in time, where the source states only that.
    pub study_order: Option<u32>,
    /// View: `PA`, `AP`, `LATERAL`, …
    pub view: Option<String>,
    /// `M`, `F` or `O`.
    pub sex: Option<String>,
    /// Age in years.
    pub age_years: Option<f32>,
    /// Height of the stored image in pixels; 0 where images were left out.
    pub height: u16,
    /// Width of the stored image in pixels.
    pub width: u16,
    /// Height of the raw image in pixels.
    pub source_height: u32,
    /// Width of the raw image in pixels.
    pub source_width: u32,
    /// Distance of rows and of columns of the raw image in millimeters.
    pub pixel_spacing: Option<[f32; 2]>,
    /// Center and width of the default window of stored pixels of more than 8 bits.
    pub window: Option<[f32; 2]>,
    /// Encoded as the dataset's [`ImageEncoding`] says; empty where images were left out.
    pub image: Vec<u8>,
    /// Language of the report, as BCP 47 writes it: `en`, `es`, `pt-BR`.
    pub language: Option<String>,
    /// The text that was tokenized.
    pub report: Option<String>,
    /// The section "findings" of the report.
    pub findings: Option<String>,
    /// The section "impression" of the report.
    pub impression: Option<String>,
    /// Ids of the tokenizer, `[CLS]` first; neither padded nor masked.
    pub token_ids: Vec<i32>,
    /// All named sections of the report, in its order.
    pub texts: Vec<NamedText>,
    /// One label for each finding of the dataset, in their order; `None` where it is not mentioned.
    pub labels: Vec<Option<Label>>,
    /// Where the labels are from: `radiologist`, `consensus`, `nlp:chexpert`, …
    pub label_origin: Option<String>,
    /// One grade for each of the dataset's scales, in their order: the number of a value, counted from 0.
    pub grades: Vec<Option<i8>>,
    /// The labels of each reader, where several read the image.
    pub readings: Vec<Reading>,
    /// Boxes of findings.
    pub boxes: Vec<BoundingBox>,
    /// Masks, each of another name.
    pub masks: Vec<NamedMask>,
}

impl Record {
    /// The identifiers and the path, with the names of their columns.
    pub(crate) fn identifiers(&self) -> [(&str, &str); 5] {
        [
            ("record_id", &self.record_id),
            ("patient_id", &self.patient_id),
            ("study_id", &self.study_id),
            ("image_id", &self.image_id),
            ("source_path", &self.source_path),
        ]
    }
}
