//! Paths and codes of CheXpert.

use crate::sources::shared::walk::is_inside;

/// Folders of the subsets.
pub const PARTS: [&str; 3] = ["train", "valid", "test"];

/// The view: the projection, or `LATERAL`.
pub fn view(side: Option<&str>, projection: Option<&str>) -> Option<String> {
    match side {
        Some("Lateral") => Some("LATERAL".to_owned()),
        _ => projection.map(str::to_owned),
    }
}

/// `M`, `F`, or `None` for `Unknown`, which one record has.
pub fn sex_code(sex: Option<&str>) -> Option<String> {
    match sex {
        Some("Male") => Some("M".to_owned()),
        Some("Female") => Some("F".to_owned()),
        _ => None,
    }
}

/// The parts of an image's path that are the same in all releases.
pub struct Name<'a> {
    pub part: &'a str,
    pub patient: &'a str,
    pub study: &'a str,
    pub file: &'a str,
}

impl<'a> Name<'a> {
    /// `FOLDER/train/patient00001/study1/view1_frontal.jpg`; `None` for another form.
    pub fn parse(path: &'a str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').collect();
        let [.., part, patient, study, file] = parts.as_slice() else { return None };
        // CheXlocalize calls the folder `val`.
        let part = if *part == "val" { &"valid" } else { part };
        (is_inside(path) && PARTS.contains(part)).then_some(Self { part, patient, study, file })
    }

    fn stem(&self) -> &str {
        self.file.rsplit_once('.').map_or(self.file, |(stem, _)| stem)
    }

    /// Identifier of the image, without the extension of its format.
    pub fn key(&self) -> String {
        format!("{}/{}/{}/{}", self.part, self.patient, self.study, self.stem())
    }
}
