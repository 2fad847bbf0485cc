//! Sentences of a report beside the findings: volumes, aorta, rotation, habitus, bones.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::anatomy::Anatomy;
use crate::disease::Kind;
use crate::patient::Study;

/// Sentences beside the findings; all of them describe what is visible.
pub fn remarks(anatomy: &Anatomy, study: &Study, random: &mut ChaCha8Rng) -> Vec<&'static str> {
    let mut texts: Vec<&'static str> = Vec::new();
    let mut add = |chance: f64, choice: &[&'static str], random: &mut ChaCha8Rng| {
        if random.random_bool(chance) {
            texts.push(choice.choose(random).expect("choices"));
        }
    };
    if anatomy.low_volumes {
        add(0.85, &["Lung volumes are low.", "Low lung volumes with crowding of the vessels."], random);
    }
    if anatomy.hyperinflated {
        add(
            0.85,
            &["The lungs are hyperinflated.", "Hyperinflated lungs with flattened diaphragms suggest COPD."],
            random,
        );
    }
    if anatomy.tortuous_aorta {
        add(0.8, &["The aorta is tortuous.", "Tortuous thoracic aorta.", "Unfolded, prominent aortic knob."], random);
    }
    if anatomy.turn.abs() > 0.035 {
        let left = anatomy.turn > 0.0;
        add(
            0.6,
            if left { &["The patient is rotated to the left."] } else { &["The patient is rotated to the right."] },
            random,
        );
    }
    if anatomy.wall > 0.25 {
        add(0.4, &["Evaluation is limited by body habitus.", "Large body habitus limits the assessment."], random);
    }
    if anatomy.spine_bend.abs() > 0.03 {
        add(0.5, &["Mild scoliosis of the thoracic spine.", "There is slight curvature of the spine."], random);
    }
    if anatomy.stomach > 0.18 {
        add(0.3, &["The stomach is distended with gas.", "Gas-filled stomach under the left hemidiaphragm."], random);
    }
    if study.findings.iter().all(|f| f.kind == Kind::SupportDevices) {
        add(
            0.6,
            &["The lungs are clear.", "Lungs are well expanded and clear.", "Both lungs are clear bilaterally."],
            random,
        );
    }
    if study.findings.iter().all(|f| f.kind != Kind::Fracture) {
        let bones =
            &["Osseous structures are intact.", "Bony structures are unremarkable.", "Imaged upper abdomen is normal."];
        add(0.3, bones, random);
    }
    add(
        0.12,
        &["The hilar contours are normal.", "Hila are unremarkable.", "Pulmonary vasculature is normal."],
        random,
    );
    if texts.is_empty() {
        texts.push(if study.portable() {
            "Portable view of the chest was reviewed."
        } else {
            "Frontal view was reviewed."
        });
    }
    texts
}
