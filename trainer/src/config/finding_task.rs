//! Classification tasks by name: their findings, and the published recipes for them.

use anyhow::{Result, bail};

use crate::task::Missing;

/// A classification task.
#[derive(Debug, Clone, PartialEq)]
pub struct FindingTask {
    /// The name on the command line.
    pub name: String,
    /// The findings to learn.
    pub findings: Vec<String>,
    /// Records count only where one of these findings is positive; empty: all records.
    pub only_with: Vec<String>,
}

const NIH14: [&str; 14] = [
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
];
const CHEXPERT5: [&str; 5] = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"];

/// What names of tasks with the user's own findings begin with.
const OWN: &str = "labels:";

impl FindingTask {
    /// Names of the tasks; in the last one, `A,B` are any findings.
    pub const NAMES: [&str; 6] = ["nih14", "chexpert5", "rsna", "covid", "viral", "labels:A,B"];

    /// Whether a name is that of a classification task.
    pub fn is_name(name: &str) -> bool {
        name.starts_with(OWN) || Self::NAMES.contains(&name)
    }

    /// `nih14`, `chexpert5`, `rsna`, `covid`, `viral`, or `labels:A,B`.
    ///
    /// # Errors
    /// When the name is another one, or a finding in it is empty or repeated.
    pub fn parse(name: &str) -> Result<Self> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (findings, only_with) = match name {
            "nih14" => (owned(&NIH14), Vec::new()),
            "chexpert5" => (owned(&CHEXPERT5), Vec::new()),
            "rsna" => (owned(&["Pneumonia"]), Vec::new()),
            "covid" => (owned(&["Pneumonia/Viral/COVID-19"]), owned(&["Pneumonia"])),
            "viral" => (owned(&["Pneumonia/Viral"]), owned(&["Pneumonia/Viral", "Pneumonia/Bacterial"])),
            other => match other.strip_prefix(OWN) {
                Some(list) => {
                    let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
                    if let Some(at) =
                        (0..names.len()).find(|&at| names[at].is_empty() || names[..at].contains(&names[at]))
                    {
                        bail!(
                            "`{other}`: give each finding once, as labels:A,B (finding {} is empty or repeated)",
                            at + 1
                        );
                    }
                    (names, Vec::new())
                }
                None => bail!("no task `{other}`; there are: {}", Self::NAMES.join(", ")),
            },
        };
        Ok(Self { name: name.to_owned(), findings, only_with })
    }

    /// Whether the findings are the user's own, for which no recipe is published.
    pub fn has_no_recipe(&self) -> bool {
        self.name.starts_with(OWN)
    }

    /// What a blank label counts as by default: the convention of the data that the task is defined on.
    ///
    /// CheXpert's labels leave findings blank that the report does not mention, which the field counts as negative. The
    /// COVID-19 collection leaves the finer findings of a plain `Pneumonia` blank, which MRM's lists count as another
    /// pneumonia. In the data of all other built-in tasks no record with labels has a blank one. A blank label in other
    /// data means that nobody looked.
    pub(crate) fn missing(&self) -> Missing {
        match self.name.as_str() {
            "chexpert5" | "covid" => Missing::Zeros,
            _ => Missing::Ignore,
        }
    }
}
