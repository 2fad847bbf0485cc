//! Fills the braces of a sentence from a finding: degree, size, side, place, number.

use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::disease::{Degree, Device, Finding, Side, Zone};

/// Fills a sentence's braces from the finding.
pub fn fill(template: &str, finding: &Finding, random: &mut ChaCha8Rng) -> String {
    let mut pick = |words: &[&'static str]| *words.choose(random).expect("words");
    let degree = finding.degree();
    let adjective = match degree {
        Degree::Subtle => pick(&["minimal", "subtle", "slight"]),
        Degree::Mild => "mild",
        Degree::Moderate => "moderate",
        Degree::Severe => pick(&["severe", "marked", "extensive"]),
    };
    let adverb = match degree {
        Degree::Subtle => pick(&["minimally", "slightly", "borderline"]),
        Degree::Mild => "mildly",
        Degree::Moderate => "moderately",
        Degree::Severe => pick(&["severely", "markedly"]),
    };
    let size = match degree {
        Degree::Subtle => pick(&["trace", "tiny", "minimal"]),
        Degree::Mild => "small",
        Degree::Moderate => pick(&["moderate", "moderate-sized"]),
        Degree::Severe => "large",
    };
    let density = match degree {
        Degree::Subtle => pick(&["faint", "subtle"]),
        Degree::Mild => pick(&["mild", "patchy"]),
        Degree::Moderate => pick(&["moderate", "confluent"]),
        Degree::Severe => pick(&["dense", "extensive"]),
    };
    let side = match finding.side {
        Side::Right => "right",
        Side::Left => "left",
        Side::Both => "bilateral",
    };
    let lobe = lobe(finding, &mut pick);
    let few = match finding.count {
        1 => "a single",
        2 => "two",
        3 => "three",
        _ => "several",
    };
    let rib = match finding.zone {
        Zone::Apex | Zone::Upper => "upper",
        Zone::Middle => "mid",
        Zone::Lower | Zone::Base => "lower",
    };
    let leads = match (finding.device, finding.variant) {
        (Some(Device::Pacemaker), true) => "leads in the right atrium and right ventricle",
        _ => "a single lead in the right ventricle",
    };
    let text = template
        .replace("{deg}", adjective)
        .replace("{Deg}", &capital(adjective))
        .replace("{deg2}", adverb)
        .replace("{size}", size)
        .replace("{Size}", &capital(size))
        .replace("{opac}", density)
        .replace("{Opac}", &capital(density))
        .replace("{side}", side)
        .replace("{Side}", &capital(side))
        .replace("{lobe!}", &capital(lobe))
        .replace("{lobe}", lobe)
        .replace("{few}", few)
        .replace("{Few}", &capital(few))
        .replace("{rib}", rib)
        .replace("{fracture}", if finding.count == 1 { "fracture" } else { "fractures" })
        .replace("{leads}", leads)
        .replace("{cm}", &finding.centimeters.to_string());
    text.replace("at the bilateral base", "at both bases").replace("the bilateral lower lung", "both lower lungs")
}

fn lobe(finding: &Finding, pick: &mut impl FnMut(&[&'static str]) -> &'static str) -> &'static str {
    match (finding.side, finding.zone) {
        (Side::Right, Zone::Apex | Zone::Upper) => pick(&["right upper lobe", "right upper lung"]),
        (Side::Right, Zone::Middle) => pick(&["right middle lobe", "right mid lung"]),
        (Side::Right, _) => pick(&["right lower lobe", "right lung base"]),
        (Side::Left, Zone::Apex | Zone::Upper) => pick(&["left upper lobe", "left upper lung"]),
        (Side::Left, Zone::Middle) => pick(&["lingula", "left mid lung"]),
        (Side::Left, _) => pick(&["left lower lobe", "left lung base"]),
        (Side::Both, Zone::Apex | Zone::Upper) => "both upper lobes",
        (Side::Both, Zone::Middle) => "both mid lungs",
        (Side::Both, _) => "both lung bases",
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
