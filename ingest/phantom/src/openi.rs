//! The layout of Open-i: `ecgen-radiology/N.xml` with the report and its index terms, `NLMCXR_png/` with the images.
//! Each study counts as a patient, as in that collection.

use std::fmt::Write;
use std::path::Path;

use dataset::progress::OnProgress;

use crate::disease::{Kind, Side};
use crate::files::{each_study, png_file};
use crate::patient::{Patient, Study};
use crate::report::{self, Report};
use crate::{Error, Summary, radiograph, write_file};

/// Sections of the XML files, in their order.
const SECTIONS: [&str; 4] = ["comparison", "indication", "findings", "impression"];

/// Writes the whole set. Files that exist are complete and are kept.
pub(crate) fn write(out: &Path, plan: &[Patient], progress: &OnProgress) -> Result<Summary, Error> {
    let images = each_study(plan, progress, |patient, study| {
        let number = study.index + 1;
        let mut names = Vec::new();
        for (i, image) in study.images.iter().enumerate() {
            let name = format!("CXR{number}_1_IM-{number:04}-{}001", i + 1);
            let path = out.join("NLMCXR_png").join(format!("{name}.png"));
            png_file(&path, || radiograph::render(patient, study, image))?;
            names.push(name);
        }
        let path = out.join("ecgen-radiology").join(format!("{number}.xml"));
        if !path.is_file() {
            let report = report::write(patient, study, &radiograph::anatomy(patient, study));
            write_file(&path, xml(number, study, &report, &names).as_bytes())?;
        }
        Ok(names.len())
    })?;
    Ok(Summary { patients: images.len(), studies: images.len(), images: images.iter().sum() })
}

fn xml(number: usize, study: &Study, report: &Report, images: &[String]) -> String {
    let mut xml =
        format!("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<eCitation>\n<uId id=\"CXR{number}\"/>\n<Abstract>\n");
    for (name, text) in abstracts(report) {
        let label = name.to_uppercase();
        let _ = match text.as_str() {
            "" => writeln!(xml, "<AbstractText Label=\"{label}\"/>"),
            text => writeln!(xml, "<AbstractText Label=\"{label}\">{}</AbstractText>", escaped(text)),
        };
    }
    xml.push_str("</Abstract>\n<MeSH>\n");
    let mut terms: Vec<String> =
        Kind::ALL.into_iter().filter(|kind| report.label(*kind) == Some(1)).map(|kind| term(study, kind)).collect();
    if terms.is_empty() {
        terms.push("normal".to_owned());
    }
    terms.iter().for_each(|term| xml.push_str(&format!("<major>{}</major>\n", escaped(term))));
    xml.push_str("</MeSH>\n");
    images.iter().for_each(|image| xml.push_str(&format!("<parentImage id=\"{image}\"/>\n")));
    xml.push_str("</eCitation>\n");
    xml
}

/// The four sections of a report, each on one line; a report without headings is all findings.
fn abstracts(report: &Report) -> [(&'static str, String); 4] {
    let line = |text: &str| {
        let words = text.split_whitespace().map(|word| word.replace("___", "XXXX"));
        words.collect::<Vec<_>>().join(" ")
    };
    SECTIONS.map(|name| {
        let text = match report.section(name) {
            None if report.sections.is_empty() && name == "findings" => {
                line(report.text.trim_start().trim_start_matches("FINAL REPORT"))
            }
            own => line(own.unwrap_or_default()),
        };
        (name, text)
    })
}

/// The index term of a kind, with the side where it is drawn on one.
fn term(study: &Study, kind: Kind) -> String {
    let name = match kind {
        Kind::Atelectasis => "Pulmonary Atelectasis",
        Kind::Edema => "Pulmonary Edema",
        Kind::EnlargedCardiomediastinum => "Mediastinum",
        Kind::Fracture => "Fractures, Bone",
        Kind::LungLesion => "Nodule",
        Kind::LungOpacity => "Opacity",
        Kind::PleuralOther => "Thickening",
        Kind::SupportDevices => "Implanted Medical Device",
        other => other.name(),
    };
    match study.findings.iter().find(|finding| finding.kind == kind).map(|finding| finding.side) {
        Some(Side::Right) => format!("{name}/right"),
        Some(Side::Left) => format!("{name}/left"),
        _ => name.to_owned(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
