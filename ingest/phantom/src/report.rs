//! Writes a study's report from the values that its image was drawn from, and the labels by the text of the report.

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::anatomy::Anatomy;
use crate::disease::{Degree, Finding, Kind};
use crate::page::{Page, head};
use crate::patient::{Patient, Study};
use crate::phrase::fill;
use crate::remarks::remarks;
use crate::wording;

/// A report and the labels that a reader would take from it.
#[derive(Clone, Debug)]
pub struct Report {
    /// The whole text, laid out as in MIMIC-CXR.
    pub text: String,
    /// Name and content of each section that has a heading, in order.
    pub sections: Vec<(&'static str, String)>,
    /// By kind, in the order of `Kind::ALL`: 1 positive, 0 negative, -1 uncertain, `None` not mentioned.
    pub labels: [Option<i8>; Kind::ALL.len()],
}

impl Report {
    /// The content of a section.
    pub fn section(&self, name: &str) -> Option<&str> {
        self.sections.iter().find(|(found, _)| *found == name).map(|(_, content)| content.as_str())
    }

    /// The label of a kind.
    pub fn label(&self, kind: Kind) -> Option<i8> {
        self.labels[kind as usize]
    }

    /// Whether nothing but devices is found or suspected.
    pub fn no_finding(&self) -> bool {
        Kind::ALL.iter().all(|&kind| kind == Kind::SupportDevices || !matches!(self.label(kind), Some(1 | -1)))
    }
}

/// Share of the findings that the report omits.
const OMITTED: f64 = 0.03;
/// Share of the findings that the report hedges: of the subtle ones, and of the others.
const HEDGED: (f64, f64) = (0.3, 0.05);
/// Share of the reports that suspect a finding that the image does not have.
const SUSPECTED: f64 = 0.025;

/// A sentence and its labels by kind.
struct Statement {
    text: String,
    labels: Vec<(Kind, i8)>,
}

impl Statement {
    fn new(text: String, kind: Kind, label: i8) -> Self {
        Self { text, labels: vec![(kind, label)] }
    }

    fn plain(text: &str) -> Self {
        Self { text: text.to_owned(), labels: Vec::new() }
    }
}

/// Writes the report of one study.
pub fn write(patient: &Patient, study: &Study, anatomy: &Anatomy) -> Report {
    let random = &mut ChaCha8Rng::seed_from_u64(study.wording);
    let found = findings(study, random);
    let mut body = absent(study, random);
    body.extend(found.iter().map(|(finding, label)| statement(finding, *label, random)));
    body.extend(remarks(anatomy, study, random).into_iter().map(Statement::plain));
    body.shuffle(random);
    // Devices come first, as in real reports.
    body.sort_by_key(|s| s.labels.first().is_none_or(|(kind, _)| *kind != Kind::SupportDevices));
    let summary = impression(&found, random);

    let text = String::from("                                 FINAL REPORT\n");
    let mut page = Page { text, ..Page::default() };
    let form = random.random_range(0.0..1.0);
    let mut said: Vec<&Statement> = Vec::new();
    if form < 0.06 {
        // One paragraph without headings.
        let view = if study.portable() { "Portable AP view of the chest." } else { "Frontal view of the chest." };
        body.insert(0, Statement::plain(view));
        page.paragraph("", &join(&body));
        said.extend(&body);
    } else {
        head(&mut page, patient, study, random);
        if form < 0.22 {
            let mut all = summary;
            all.extend(body.into_iter().filter(|s| s.labels.iter().any(|(_, label)| *label == 0)));
            let heading = if random.random_bool(0.2) { "CONCLUSION" } else { "IMPRESSION" };
            page.headed("impression", heading, &join(&all));
            return finish(page, &all.iter().collect::<Vec<_>>());
        }
        page.section("findings", &join(&body));
        said.extend(&body);
        if form < 0.9 {
            let listed = if summary.len() > 1 && random.random_bool(0.5) {
                summary.iter().enumerate().fold(String::new(), |list, (i, s)| format!("{list}{}. {}  ", i + 1, s.text))
            } else {
                join(&summary)
            };
            page.section("impression", &listed);
            said.extend(&summary);
        }
    }
    finish(page, &said)
}

/// Labels of the statements: positive before uncertain before negative.
fn finish(page: Page, said: &[&Statement]) -> Report {
    let mut labels = [None; Kind::ALL.len()];
    for &(kind, label) in said.iter().flat_map(|s| &s.labels) {
        let weight = |label: Option<i8>| match label {
            Some(1) => 3,
            Some(-1) => 2,
            Some(_) => 1,
            None => 0,
        };
        let cell = &mut labels[kind as usize];
        if weight(Some(label)) > weight(*cell) {
            *cell = Some(label);
        }
    }
    Report { text: page.text, sections: page.sections, labels }
}

/// The findings that the report mentions with their labels; sometimes one that the image does not have.
fn findings(study: &Study, random: &mut ChaCha8Rng) -> Vec<(Finding, i8)> {
    let mut found = Vec::new();
    for finding in &study.findings {
        let doubt = if finding.degree() == Degree::Subtle { HEDGED.0 } else { HEDGED.1 };
        let unsure = finding.kind != Kind::SupportDevices && random.random_bool(doubt);
        if !random.random_bool(OMITTED) {
            found.push((finding.clone(), if unsure { -1 } else { 1 }));
        }
    }
    if random.random_bool(SUSPECTED) {
        let kind = *Kind::ALL.choose(random).expect("there are kinds");
        if kind != Kind::SupportDevices && study.findings.iter().all(|f| f.kind != kind) {
            found.push((Finding { severity: 0.15, ..Finding::random(kind, random) }, -1));
            found.last_mut().expect("pushed").0.centimeters = 1.0;
        }
    }
    found
}

fn statement(finding: &Finding, label: i8, random: &mut ChaCha8Rng) -> Statement {
    let templates = if label == 1 { wording::positive(finding) } else { wording::hedged(finding.kind) };
    let template = templates.choose(random).expect("every kind has sentences");
    Statement::new(fill(template, finding, random), finding.kind, label)
}

/// Sentences about absent findings: one for each, or several in a list.
fn absent(study: &Study, random: &mut ChaCha8Rng) -> Vec<Statement> {
    let healthy = |kind: &Kind| study.findings.iter().all(|f| f.kind != *kind);
    let denied: Vec<Kind> =
        Kind::ALL.into_iter().filter(healthy).filter(|&kind| random.random_bool(wording::denial(kind))).collect();
    let (mut listed, mut single): (Vec<Kind>, Vec<Kind>) =
        denied.into_iter().partition(|&kind| wording::noun(kind).is_some());
    if listed.len() < 2 || random.random_bool(0.2) {
        single.append(&mut listed);
    }
    let mut statements: Vec<Statement> = single
        .into_iter()
        .map(|kind| Statement::new((*wording::negated(kind).choose(random).expect("every kind")).to_owned(), kind, 0))
        .collect();
    if let Some((last, rest)) = listed.split_last() {
        let nouns: Vec<&str> = rest.iter().filter_map(|&kind| wording::noun(kind)).collect();
        let opening = ["No ", "There is no ", "No evidence of "].choose(random).expect("three");
        let joint = if listed.len() > 2 && random.random_bool(0.5) { ", or " } else { " or " };
        let text = format!("{opening}{}{joint}{}.", nouns.join(", "), wording::noun(*last).unwrap_or_default());
        statements.push(Statement { text, labels: listed.iter().map(|&kind| (kind, 0)).collect() });
    }
    statements
}

/// The sentences of the impression.
fn impression(found: &[(Finding, i8)], random: &mut ChaCha8Rng) -> Vec<Statement> {
    let mut summary: Vec<Statement> = found.iter().map(|(finding, label)| statement(finding, *label, random)).collect();
    if found.iter().all(|(finding, _)| finding.kind == Kind::SupportDevices) {
        let clear = [
            "No acute cardiopulmonary process.",
            "No acute cardiopulmonary abnormality.",
            "Normal chest radiograph.",
            "No acute intrathoracic process.",
            "Unremarkable examination of the chest.",
        ];
        summary.push(Statement::plain(clear.choose(random).expect("five")));
    }
    summary
}

fn join(statements: &[Statement]) -> String {
    statements.iter().map(|s| s.text.as_str()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{page, patient, radiograph};

    fn reports(count: usize) -> Vec<(Study, Report)> {
        let mut reports = Vec::new();
        for patient in patient::plan(count, 11, 64) {
            for study in &patient.studies {
                reports.push((study.clone(), write(&patient, study, &radiograph::anatomy(&patient, study))));
            }
        }
        reports
    }

    #[test]
    fn labels_follow_the_text() {
        for (_, report) in reports(600) {
            let text = report.text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
            for kind in Kind::ALL {
                let named = wording::words(kind).iter().any(|word| text.contains(word));
                match report.label(kind) {
                    Some(_) => assert!(named, "{} labeled, not named in {}", kind.name(), report.text),
                    // The technique, the indication and remarks may use the words of devices, never of others.
                    None => assert!(!named || kind == Kind::SupportDevices, "{} in {}", kind.name(), report.text),
                }
            }
        }
    }

    #[test]
    fn nearly_every_finding_is_reported_and_none_denied() {
        let (mut reported, mut all) = (0, 0);
        for (study, report) in reports(1500) {
            for finding in study.findings {
                all += 1;
                assert_ne!(report.label(finding.kind), Some(0), "{}", report.text);
                reported += usize::from(report.label(finding.kind).is_some());
            }
        }
        assert!((0.95..0.995).contains(&(reported as f64 / all as f64)), "{reported} of {all}");
    }

    #[test]
    fn no_brace_is_left_and_lines_are_short() {
        let mut words = std::collections::BTreeSet::new();
        for (_, report) in reports(1500) {
            assert!(!report.text.contains(['{', '}']), "{}", report.text);
            assert!(
                report.text.lines().all(|line| line.len() <= page::WIDTH + 1 && line.starts_with(' ')),
                "{}",
                report.text
            );
            words.extend(report.text.split_whitespace().map(|w| w.trim_matches(['.', ',', ';']).to_lowercase()));
        }
        assert!(words.len() > 350, "{} words", words.len());
    }

    #[test]
    fn sections_come_and_go() {
        let reports = reports(500);
        let with = |heading: &str| reports.iter().filter(|(_, r)| r.text.contains(heading)).count();
        assert!((300..500).contains(&with(" FINDINGS:")) && (300..500).contains(&with(" IMPRESSION:")));
        assert_eq!(with(" FINAL REPORT"), 500);
    }
}
