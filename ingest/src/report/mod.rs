//! Reports: reading, sections, tokenizer.

pub(crate) mod read;
pub mod sections;
pub mod tokenizer;

pub use sections::{
    CHARACTERS, Conclusion, SECTIONS, Section, Sections, main_sections, named_sections, normalize_heading, sections,
    sections_with,
};
