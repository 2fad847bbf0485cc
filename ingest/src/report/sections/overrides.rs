//! Studies of MIMIC-CXR whose conclusion is not under its usual heading. The lists were made by hand by MIT-LCP, and the
//! published section files follow them.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Deserializer, Serialize};

/// Where the conclusion of a report is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Conclusion {
    /// Under its usual heading.
    #[default]
    Usual,
    /// In the last section of this normalized name.
    Section(&'static str),
    /// The characters from the first index to before the second, in the text with line ends `\n`; an empty range means that
    /// there is no conclusion.
    Characters(usize, usize),
}

/// A conclusion as it is read from a stored plan.
#[derive(Deserialize)]
enum StoredConclusion {
    Usual,
    Section(String),
    Characters(usize, usize),
}

impl<'de> Deserialize<'de> for Conclusion {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(match StoredConclusion::deserialize(from)? {
            StoredConclusion::Usual => Self::Usual,
            StoredConclusion::Section(name) => Self::Section(kept(name)),
            StoredConclusion::Characters(start, end) => Self::Characters(start, end),
        })
    }
}

/// The name of a section for the rest of the process. Each distinct name is kept once; there are a handful.
fn kept(name: String) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name.as_str()) {
        return known;
    }
    let kept: &'static str = Box::leak(name.into_boxed_str());
    names.insert(kept);
    kept
}

impl Conclusion {
    /// The place of the conclusion of a MIMIC-CXR study; `study_id` is its number without `s`.
    pub fn of_mimic_study(study_id: &str) -> Self {
        let section = SECTIONS.binary_search_by_key(&study_id, |(study, _)| study).map(|at| SECTIONS[at].1);
        let range = CHARACTERS.binary_search_by_key(&study_id, |(study, _)| study).map(|at| CHARACTERS[at].1);
        match (section, range) {
            (_, Ok((start, end))) => Self::Characters(start, end),
            (Ok(section), _) => Self::Section(section),
            _ => Self::Usual,
        }
    }
}

/// Conclusions under another heading, by study.
pub const SECTIONS: [(&str, &str); 23] = [
    ("50058765", "indication"),
    ("50743547", "examination"),
    ("50808053", "technique"),
    ("50913680", "recommendations"),
    ("51491012", "history"),
    ("51966317", "indication"),
    ("53202765", "technique"),
    ("53356173", "examination"),
    ("54365831", "indication"),
    ("54654948", "indication"),
    ("55124749", "indication"),
    ("55157853", "examination"),
    ("56451190", "note"),
    ("56482935", "recommendations"),
    ("57936451", "indication"),
    ("58157373", "recommendations"),
    ("58375018", "recommendations"),
    ("59067458", "recommendations"),
    ("59087630", "recommendations"),
    ("59215320", "examination"),
    ("59279892", "technique"),
    ("59363654", "examination"),
    ("59768032", "recommendations"),
];

/// Conclusions without any heading, as character ranges, by study.
pub const CHARACTERS: [(&str, (usize, usize)); 31] = [
    ("50196495", (59, 399)),
    ("50525523", (201, 349)),
    ("50798377", (0, 0)),
    ("51410602", (47, 320)),
    ("52035334", (0, 0)),
    ("52119491", (179, 454)),
    ("52648681", (292, 631)),
    ("52674888", (145, 296)),
    ("53071062", (0, 0)),
    ("53182247", (59, 412)),
    ("53488209", (149, 475)),
    ("53514462", (73, 377)),
    ("53607029", (0, 0)),
    ("54168089", (0, 0)),
    ("54231141", (0, 0)),
    ("54875119", (234, 988)),
    ("54986978", (59, 306)),
    ("55258338", (192, 568)),
    ("56412866", (522, 822)),
    ("56579911", (59, 218)),
    ("56724958", (0, 0)),
    ("56760320", (219, 457)),
    ("57150433", (61, 394)),
    ("57564132", (233, 554)),
    ("58235663", (0, 0)),
    ("59003148", (262, 505)),
    ("59330497", (140, 655)),
    ("59505494", (59, 450)),
    ("59562049", (158, 348)),
    ("59889364", (172, 453)),
    ("59982525", (313, 717)),
];
