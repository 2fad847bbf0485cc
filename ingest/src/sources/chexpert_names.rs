//! What the paths and codes of CheXpert mean.

use crate::sources::shared::walk::is_inside;

/// Folders of the subsets, as the tables spell them.
pub const PARTS: [&str; 3] = ["train", "valid", "test"];

/// The projection, `LATERAL` for side views.
pub fn view(side: Option<&str>, projection: Option<&str>) -> Option<String> {
    match side {
        Some("Lateral") => Some("LATERAL".to_owned()),
        _ => projection.map(str::to_owned),
    }
}

/// `M` or `F`; `Unknown` is the source's word for one record.
pub fn sex_code(sex: Option<&str>) -> Option<String> {
    match sex {
        Some("Male") => Some("M".to_owned()),
        Some("Female") => Some("F".to_owned()),
        _ => None,
    }
}

/// The parts of a picture's path that all releases share.
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
        // CheXlocalize's word.
        let part = if *part == "val" { &"valid" } else { part };
        (is_inside(path) && PARTS.contains(part)).then_some(Self { part, patient, study, file })
    }

    fn stem(&self) -> &str {
        self.file.rsplit_once('.').map_or(self.file, |(stem, _)| stem)
    }

    /// What identifies the picture, whatever its format.
    pub fn key(&self) -> String {
        format!("{}/{}/{}/{}", self.part, self.patient, self.study, self.stem())
    }
}
