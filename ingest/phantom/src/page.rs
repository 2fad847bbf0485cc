//! The page of a report: the headings before the findings, and sections in short lines.

use std::fmt::Write;

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::disease::Kind;
use crate::patient::{Patient, Sex, Study};

/// Widest line, its leading space included.
pub const WIDTH: usize = 77;

/// A report that is being written.
#[derive(Default)]
pub struct Page {
    pub text: String,
    /// Name and content of each section that has a heading, in order.
    pub sections: Vec<(&'static str, String)>,
}

/// Appends the sections that come before the findings.
pub fn head(page: &mut Page, patient: &Patient, study: &Study, random: &mut ChaCha8Rng) {
    let examination = if study.portable() {
        "CHEST (PORTABLE AP)"
    } else if study.has_lateral() {
        "CHEST (PA AND LAT)"
    } else {
        "CHEST (SINGLE VIEW)"
    };
    page.section("examination", examination);
    if random.random_bool(0.9) {
        let kinds: Vec<Kind> = study.findings.iter().map(|f| f.kind).collect();
        let complaint = complaint(&kinds).choose(random).expect("complaints");
        let (short, long) = if patient.sex == Sex::Female { ("F", "woman") } else { ("M", "man") };
        let who =
            if random.random_bool(0.5) { format!("___{short} with") } else { format!("___ year old {long} with") };
        page.section("indication", &format!("{who} {complaint}"));
    }
    if random.random_bool(0.6) {
        let technique = match (study.portable(), study.has_lateral()) {
            (true, _) => "Portable AP view of the chest was obtained.",
            (_, true) => "PA and lateral views of the chest.",
            _ => "Frontal view of the chest.",
        };
        page.section("technique", technique);
    }
    let before = if study.day == 0 {
        "None."
    } else {
        ["Chest radiograph from ___.", "___.", "Prior study of ___ at ___."].choose(random).expect("three")
    };
    page.section("comparison", before);
}

impl Page {
    /// Appends a section under its name as heading.
    pub fn section(&mut self, name: &'static str, content: &str) {
        self.headed(name, &name.to_uppercase(), content);
    }

    /// Appends a section under another heading than its name.
    pub fn headed(&mut self, name: &'static str, heading: &str, content: &str) {
        self.paragraph(&format!(" {heading}: "), content);
        self.sections.push((name, content.to_owned()));
    }

    /// Appends `start` and a text in lines of at most `WIDTH`, each after one space.
    pub fn paragraph(&mut self, start: &str, content: &str) {
        let mut line = start.to_owned();
        for word in content.split(' ').filter(|word| !word.is_empty()) {
            if line.len() + word.len() + 1 > WIDTH {
                let _ = writeln!(self.text, "{}", line.trim_end());
                line.clear();
            }
            line.push(' ');
            line.push_str(word);
        }
        let _ = writeln!(self.text, "{}\n ", line.trim_end());
    }
}

/// Reasons for the examination.
fn complaint(kinds: &[Kind]) -> &'static [&'static str] {
    let has = |kind| kinds.contains(&kind);
    if has(Kind::Fracture) || has(Kind::Pneumothorax) {
        &[
            "fall",
            "chest trauma",
            "motor vehicle collision",
            "pleuritic chest pain",
            "pain after a fall // eval for injury",
        ]
    } else if has(Kind::Edema) {
        &["dyspnea", "shortness of breath", "CHF exacerbation", "hypoxia // volume status", "worsening leg swelling"]
    } else if has(Kind::Pneumonia) || has(Kind::Consolidation) {
        &["fever and cough", "productive cough", "leukocytosis and fever", "sepsis // source", "cough for ___ days"]
    } else if has(Kind::LungLesion) {
        &[
            "weight loss",
            "history of ___ cancer",
            "hemoptysis",
            "known malignancy // interval change",
            "smoking history",
        ]
    } else if has(Kind::SupportDevices) {
        &["line placement", "respiratory failure", "status post ___ // tube position", "postoperative day ___"]
    } else {
        &["cough", "chest pain", "preoperative evaluation", "positive PPD", "dizziness", "abdominal pain", "syncope"]
    }
}
