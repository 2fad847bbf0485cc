//! Cuts a radiology report into its sections, by the rules of MIT-LCP's section parser for MIMIC-CXR
//! (<https://github.com/MIT-LCP/mimic-cxr>, `txt/section_parser.py`).
//!
//! A heading is a line that starts with one space, followed by capitals, spaces and `( ) / , -`, a colon and white space. The
//! text before the first heading is the preamble; a text without headings is one section, `full report`. A few studies of
//! MIMIC-CXR have their conclusion in another place: see [`Conclusion`].

mod overrides;

pub use overrides::{CHARACTERS, Conclusion, SECTIONS};

/// Name of a text without headings.
const FULL_REPORT: &str = "full report";

/// One section of a report.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Section {
    /// Name, normalized by [`normalize_heading`].
    pub name: String,
    /// Text, unchanged.
    pub text: String,
}

/// The sections of a report that are used later: of each kind the last one, trimmed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sections {
    /// IMPRESSION, or what [`Conclusion`] replaces it by.
    pub impression: Option<String>,
    /// FINDINGS.
    pub findings: Option<String>,
    /// The last paragraph of a report without these two.
    pub last_paragraph: Option<String>,
    /// COMPARISON.
    pub comparison: Option<String>,
}

impl Sections {
    /// The radiologist's conclusion: the first that exists of impression, findings, last paragraph, comparison.
    pub fn conclusion(&self) -> Option<&str> {
        [&self.impression, &self.findings, &self.last_paragraph, &self.comparison]
            .into_iter()
            .find_map(Option::as_deref)
    }
}

/// Frequent headings, misspelled ones included, and the section that each means.
const HEADINGS: [(&str, &str); 56] = [
    ("addendum", "addendum"),
    ("clinical history", "history"),
    ("clinical indication", "indication"),
    ("clinical information", "history"),
    ("comment", "comment"),
    ("comparision", "comparison"),
    ("comparisions", "comparison"),
    ("comparison exam", "comparison"),
    ("comparison film", "comparison"),
    ("comparisons", "comparison"),
    ("comparrison", "comparison"),
    ("comparsion", "comparison"),
    ("conclusion", "impression"),
    ("exam", "examination"),
    ("findgings", "findings"),
    ("findindgs", "findings"),
    ("finding", "findings"),
    ("findings and impression", "impression"),
    ("findings/ impression", "impression"),
    ("findings/impression", "impression"),
    ("findins", "findings"),
    ("findnings", "findings"),
    ("findngs", "findings"),
    ("finidngs", "findings"),
    ("idication", "indication"),
    ("imoression", "impression"),
    ("imperssion", "impression"),
    ("impession", "impression"),
    ("impresion", "impression"),
    ("impressoin", "impression"),
    ("impresson", "impression"),
    ("imprression", "impression"),
    ("imprssion", "impression"),
    ("mpression", "impression"),
    ("ndication", "impression"),
    ("notification", "notification"),
    ("patient history", "history"),
    ("pfi", "history"),
    ("reason for exam", "indication"),
    ("reason for examination", "indication"),
    ("recommendation", "recommendations"),
    ("recommendation(s)", "recommendations"),
    ("recommendations", "recommendations"),
    ("reference exam", "comparison"),
    ("reference findings", "findings"),
    ("technique", "technique"),
    ("type of examination", "examination"),
    ("wet read", "wet read"),
    ("wetread", "wet read"),
    ("examination", "examination"),
    ("indication", "indication"),
    ("date", "date"),
    ("chest, two views", "findings"),
    ("preamble", "preamble"),
    ("history", "history"),
    ("comparison", "comparison"),
];

/// Sections that an unknown heading means if it contains their name; the first match counts.
const MAIN: [&str; 5] = ["impression", "findings", "history", "comparison", "addendum"];

/// Words of headings that name the study; the text after such a heading are the findings.
const STUDY_WORDS: [&str; 18] = [
    "chest",
    "portable",
    "pa and lateral",
    "lateral and pa",
    "ap and lateral",
    "lateral and ap",
    "frontal and",
    "two views",
    "frontal view",
    "pa view",
    "ap view",
    "one view",
    "lateral view",
    "bone window",
    "frontal upright",
    "frontal semi-upright",
    "ribs",
    "pa and lat",
];

/// The section that a heading means.
pub fn normalize_heading(heading: &str) -> String {
    let heading = heading.trim().to_lowercase();
    let known = HEADINGS.iter().find(|(name, _)| *name == heading).map(|(_, section)| *section);
    let main = || MAIN.into_iter().find(|section| heading.contains(section));
    let study = || STUDY_WORDS.iter().any(|word| heading.contains(word)).then_some("findings");
    known.or_else(main).or_else(study).map_or_else(|| heading.clone(), str::to_owned)
}

/// The next heading at or after byte `from`: (start of the line end before it, start and end of its name, end).
fn next_heading(text: &str, from: usize) -> Option<(usize, std::ops::Range<usize>, usize)> {
    let bytes = text.as_bytes();
    let mut at = from;
    while let Some(found) = bytes.get(at..)?.iter().position(|&byte| byte == b'\n') {
        let line = at + found;
        let start = line + 2;
        if bytes.get(line + 1) == Some(&b' ') {
            let is_name = |byte: &u8| byte.is_ascii_uppercase() || b" ()/,-".contains(byte);
            let length = bytes[start..].iter().take_while(|byte| is_name(byte)).count();
            let end = start + length;
            if length > 0 && bytes.get(end) == Some(&b':') && bytes.get(end + 1).is_some_and(u8::is_ascii_whitespace) {
                return Some((line, start..end, end + 2));
            }
        }
        at = line + 1;
    }
    None
}

/// Cuts a report (line ends `\n`) into its sections, in order.
pub fn sections(text: &str) -> Vec<Section> {
    let mut found: Vec<Section> = Vec::new();
    let mut heading = next_heading(text, 0);
    match &heading {
        None => found.push(Section { name: FULL_REPORT.to_owned(), text: text.to_owned() }),
        Some((_, name, _)) => {
            found.push(Section { name: "preamble".to_owned(), text: text[..name.start].to_owned() });
        }
    }
    while let Some((_, name, start)) = heading {
        // The next heading is looked for behind the line of this one.
        let rest = text[start..].find('\n').map_or(start, |line| start + line);
        let next = next_heading(text, rest);
        let end = next.as_ref().map_or(text.len(), |(line, _, _)| *line);
        found.push(Section { name: normalize_heading(&text[name]), text: text[start..end.max(start)].to_owned() });
        heading = next;
    }
    let is_main = |section: &Section| section.name == "impression" || section.name == "findings";
    found.retain(|section| !(is_main(section) && section.text.trim().is_empty()));
    if !found.iter().any(is_main)
        && let Some(last) = found.last_mut()
        && let Some((first, rest)) = last.text.clone().split_once("\n \n")
    {
        first.clone_into(&mut last.text);
        found.push(Section { name: "last_paragraph".to_owned(), text: rest.to_owned() });
    }
    found
}

/// The sections of a report that are used later.
pub fn main_sections(text: &str) -> Sections {
    let found = sections(text);
    let last = |name: &str| {
        found.iter().rev().find(|section| section.name == name).map(|section| section.text.trim().to_owned())
    };
    Sections {
        impression: last("impression"),
        findings: last("findings"),
        last_paragraph: last("last_paragraph"),
        comparison: last("comparison"),
    }
}

/// The sections of a report that have a heading, trimmed, in its order, without empty ones. Where [`Conclusion`] gives the
/// impression another place, that text is the only impression, and the last section.
pub fn named_sections(text: &str, conclusion: Conclusion) -> Vec<Section> {
    let mut found = sections(text);
    // The first part has no heading; where no part has one, there is no section.
    let parts = if found.iter().any(|section| section.name == FULL_REPORT) { found.len() } else { found.len().min(1) };
    found.drain(..parts);
    if conclusion != Conclusion::Usual
        && let Some(impression) = sections_with(text, conclusion).impression
    {
        found.retain(|section| section.name != "impression");
        found.push(Section { name: "impression".to_owned(), text: impression });
    }
    let trimmed = found.into_iter().map(|section| Section { text: section.text.trim().to_owned(), ..section });
    trimmed.filter(|section| !section.text.is_empty() && !section.name.is_empty()).collect()
}

/// As [`main_sections`], with the impression replaced by the text at the place of this study's conclusion. A study without a
/// conclusion has no sections; a place that the text does not have is ignored.
pub fn sections_with(text: &str, conclusion: Conclusion) -> Sections {
    let found = main_sections(text);
    let part = match conclusion {
        Conclusion::Usual => return found,
        Conclusion::Characters(start, end) if start >= end => return Sections::default(),
        Conclusion::Characters(start, end) => text.chars().skip(start).take(end - start).collect(),
        Conclusion::Section(name) => {
            let last = sections(text).into_iter().rev().find(|section| section.name == name);
            last.map_or_else(String::new, |section| section.text)
        }
    };
    match part.trim() {
        "" => found,
        part => Sections { impression: Some(part.to_owned()), ..found },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_heading_is_one_section() {
        let found = sections("The lungs are clear.\n \n No effusion.");
        let names: Vec<_> = found.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["full report", "last_paragraph"]);
    }

    #[test]
    fn named_sections_are_those_with_a_heading() {
        let text =
            " FINAL REPORT\n INDICATION: Cough.\n \n FINDINGS:\n Clear lungs.\n TECHNIQUE: \n IMPRESSION: Normal.";
        let named = |conclusion| -> Vec<(String, String)> {
            named_sections(text, conclusion).into_iter().map(|section| (section.name, section.text)).collect()
        };
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
        };
        let usual = [("indication", "Cough."), ("findings", "Clear lungs."), ("impression", "Normal.")];
        assert_eq!(named(Conclusion::Usual), pairs(&usual));
        let moved = [usual[0], usual[1], ("impression", "Cough.")];
        assert_eq!(named(Conclusion::Section("indication")), pairs(&moved));
        assert_eq!(
            named(Conclusion::Characters(0, 0)),
            pairs(&usual),
            "the text has them, though it has no conclusion"
        );
        assert!(named_sections("No heading.\n \n At all.", Conclusion::Usual).is_empty());
    }

    #[test]
    fn an_empty_impression_is_dropped() {
        let found = main_sections(" FINAL REPORT\n FINDINGS: Clear lungs.\n IMPRESSION:  \n ");
        assert_eq!(found.findings.as_deref(), Some("Clear lungs."));
        assert_eq!(found.impression, None);
        assert_eq!(found.conclusion(), Some("Clear lungs."));
    }
}
