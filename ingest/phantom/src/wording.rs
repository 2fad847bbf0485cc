//! The sentences of the reports. Braces are filled from the finding: `{deg}` `{Deg}` degree, `{size}` size of a fluid or air
//! collection, `{opac}` density, `{side}` `{Side}` side, `{lobe}` place, `{cm}` centimeters, `{few}` a count, `{rib}`
//! and `{level}` numbers. A sentence names its own finding and no other, so that the labels follow the text.

use crate::disease::{Device, Finding, Kind, Side, Zone};

/// Sentences, and the shorter phrases of impressions, that assert this finding.
pub fn positive(finding: &Finding) -> &'static [&'static str] {
    match finding.kind {
        Kind::Atelectasis if finding.variant => &[
            "There is {deg} {side} basilar atelectasis with elevation of the hemidiaphragm.",
            "{Deg} volume loss at the {side} base, compatible with atelectasis.",
            "Elevated {side} hemidiaphragm with adjacent {deg} compressive atelectasis.",
            "The {side} hemidiaphragm is raised with {deg} relaxation atelectasis above it.",
        ],
        Kind::Atelectasis => &[
            "There is {deg} {side} basilar plate-like atelectasis.",
            "{Deg} linear bands of atelectasis are seen at the {side} base.",
            "{Deg} streaks at the {side} base reflect subsegmental atelectasis.",
            "{Deg} discoid atelectasis in the {side} lower lung.",
            "Streaky {side} lower lung atelectasis is {deg}.",
        ],
        Kind::Cardiomegaly => &[
            "There is {deg} cardiomegaly.",
            "The heart is {deg2} enlarged.",
            "Heart size is {deg2} enlarged.",
            "{Deg} enlargement of the cardiac silhouette.",
            "The cardiac silhouette is {deg2} enlarged.",
        ],
        Kind::Consolidation => &[
            "There is {opac} consolidation in the {lobe}.",
            "{Opac} focal consolidation is present in the {lobe}.",
            "Consolidation of the {lobe} is {opac}.",
            "{Opac} consolidation obscures the vessels of the {lobe}.",
        ],
        Kind::Edema => &[
            "There is {deg} pulmonary edema.",
            "{Deg} interstitial pulmonary edema with indistinct perihilar vessels.",
            "{Deg} pulmonary vascular congestion and edema.",
            "Perihilar haze and septal lines reflect {deg} edema.",
            "Findings of {deg} fluid overload with pulmonary edema.",
        ],
        Kind::EnlargedCardiomediastinum => &[
            "The mediastinum is {deg2} widened.",
            "{Deg} widening of the superior mediastinum.",
            "The cardiomediastinal silhouette is {deg2} enlarged.",
            "There is {deg} mediastinal enlargement.",
        ],
        Kind::Fracture if finding.variant => &[
            "{Few} healed {side} rib {fracture} noted.",
            "Old healed {side} rib {fracture} with callus.",
            "Chronic deformity from {few} healed {side} {rib} rib {fracture}.",
        ],
        Kind::Fracture => &[
            "{Few} displaced {side} rib {fracture} noted.",
            "Acute displaced {fracture} of the {side} {rib} rib.",
            "{Few} acute {side} lateral rib {fracture} seen.",
        ],
        Kind::LungLesion if finding.count > 1 => &[
            "{Few} pulmonary nodules measure up to {cm} cm, the largest in the {lobe}.",
            "Multiple rounded {side} predominant nodules, up to {cm} cm in the {lobe}.",
            "There are {few} well-circumscribed nodules, the largest {cm} cm in the {lobe}.",
        ],
        Kind::LungLesion if finding.centimeters >= 3.0 => &[
            "There is a {cm} cm mass in the {lobe}.",
            "A rounded mass of the {lobe} measures {cm} cm.",
            "{lobe!} mass measuring approximately {cm} cm is concerning for malignancy.",
        ],
        Kind::LungLesion => &[
            "There is a {cm} cm nodule in the {lobe}.",
            "{cm} cm nodule in the {lobe}.",
            "A {cm} cm rounded nodular lesion projects over the {lobe}.",
            "Solitary pulmonary nodule of the {lobe} measures {cm} cm.",
        ],
        Kind::LungOpacity => &[
            "There is {opac} hazy opacity in the {lobe}.",
            "{Opac} ill-defined opacity projects over the {lobe}.",
            "{Opac} ground-glass opacification of the {lobe}.",
            "{Opac} airspace opacity is seen in the {lobe}.",
        ],
        Kind::PleuralEffusion if finding.side == Side::Both => &[
            "There are {size} bilateral pleural effusions.",
            "{Size} bilateral pleural effusions.",
            "Bilateral pleural effusions are {size}.",
            "{Size} effusions are seen on both sides, blunting the costophrenic angles.",
        ],
        Kind::PleuralEffusion => &[
            "There is a {size} {side} pleural effusion.",
            "{Size} {side} pleural effusion.",
            "{Size} {side} pleural effusion blunts the costophrenic angle.",
            "{Side} pleural effusion is {size}.",
            "A {size} {side} effusion layers with a meniscus.",
        ],
        Kind::PleuralOther if finding.zone == Zone::Apex => &[
            "There is {deg} {side} apical pleural thickening.",
            "{Deg} {side} apical cap.",
            "{Deg} {side} apical pleural scarring.",
        ],
        Kind::PleuralOther => &[
            "There is {deg} {side} lateral pleural thickening.",
            "Calcified {side} pleural plaques are {deg}.",
            "{Deg} {side} pleural thickening along the chest wall.",
        ],
        Kind::Pneumonia => &[
            "Findings compatible with {opac} {lobe} pneumonia.",
            "{Opac} patchy infiltrate with air bronchograms in the {lobe} is consistent with pneumonia.",
            "{Opac} {lobe} pneumonia.",
            "There is {opac} multifocal infection of the {lobe}, consistent with bronchopneumonia.",
        ],
        Kind::Pneumothorax => &[
            "There is a {size} {side} apical pneumothorax.",
            "{Size} {side} pneumothorax.",
            "{Size} {side} pneumothorax with visible pleural line.",
            "A {size} {side} pneumothorax is present without shift.",
        ],
        Kind::SupportDevices => finding.device.map_or(&[], device),
    }
}

fn device(device: Device) -> &'static [&'static str] {
    match device {
        Device::Pacemaker => &[
            "{Side}-sided pacemaker with {leads} in place.",
            "A {side} pectoral pacemaker generator has {leads}.",
            "{Side} chest wall pacer device with {leads}.",
        ],
        Device::EndotrachealTube => &[
            "Endotracheal tube terminates {cm} cm above the carina.",
            "The ET tube tip is {cm} cm above the carina.",
            "The patient is intubated; the endotracheal tube ends {cm} cm from the carina.",
        ],
        Device::CentralLine => &[
            "{Side} internal jugular central venous catheter terminates in the SVC.",
            "{Side} IJ line ends at the cavoatrial junction.",
        ],
        Device::Picc => {
            &["{Side} PICC terminates in the lower SVC.", "A {side} PICC line ends at the cavoatrial junction."]
        }
        Device::EntericTube => {
            &["Enteric tube courses below the diaphragm into the stomach.", "Nasogastric tube tip is in the stomach."]
        }
        Device::ChestTube => &[
            "{Side} chest tube is in place.",
            "A {side} pleural drain is directed to the apex; the chest tube is in good position.",
        ],
        Device::SternalWires => {
            &["Median sternotomy wires are intact.", "Sternotomy wires and surgical clips are present."]
        }
        Device::Port => {
            &["{Side} chest wall port catheter ends in the SVC.", "A {side} Port-A-Cath is in standard position."]
        }
    }
}

/// Sentences that hedge it.
pub fn hedged(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Atelectasis => {
            &["{Side} basilar streaks may represent {deg} atelectasis.", "Possible {side} basilar atelectasis."]
        }
        Kind::Cardiomegaly => {
            &["The heart may be {deg2} enlarged.", "Possible {deg} cardiomegaly, although accentuated by technique."]
        }
        Kind::Consolidation => {
            &["Possible early consolidation in the {lobe}.", "Consolidation in the {lobe} cannot be excluded."]
        }
        Kind::Edema => &["There may be {deg} pulmonary edema.", "{Deg} edema cannot be excluded."],
        Kind::EnlargedCardiomediastinum => {
            &["The mediastinum may be {deg2} widened.", "Possible mediastinal widening, likely projectional."]
        }
        Kind::Fracture => &["Possible {side} rib fracture.", "A nondisplaced {side} rib fracture cannot be excluded."],
        Kind::LungLesion => &[
            "A {cm} cm density in the {lobe} may represent a nodule.",
            "Possible {cm} cm nodule in the {lobe}; CT may be obtained.",
        ],
        Kind::LungOpacity => {
            &["There may be {opac} opacity in the {lobe}.", "Questionable {opac} opacity over the {lobe}."]
        }
        Kind::PleuralEffusion => {
            &["A {size} {side} pleural effusion may be present.", "{Size} {side} pleural effusion cannot be excluded."]
        }
        Kind::PleuralOther => &["There may be {deg} {side} pleural thickening.", "Possible {side} pleural scarring."],
        Kind::Pneumonia => {
            &["Early {lobe} pneumonia cannot be excluded.", "Findings in the {lobe} may represent pneumonia."]
        }
        Kind::Pneumothorax => {
            &["Possible {size} {side} pneumothorax.", "A {size} {side} pneumothorax cannot be excluded."]
        }
        Kind::SupportDevices => {
            &["A {side} catheter fragment may be present.", "Possible retained {side} pacemaker lead."]
        }
    }
}

/// Sentences that deny it.
pub fn negated(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Atelectasis => &["There is no atelectasis.", "No evidence of atelectasis."],
        Kind::Cardiomegaly => &[
            "The heart is normal in size.",
            "Heart size is within normal limits.",
            "The cardiac silhouette is not enlarged.",
            "No cardiomegaly.",
        ],
        Kind::Consolidation => &["No focal consolidation.", "There is no consolidation."],
        Kind::Edema => &[
            "There is no pulmonary edema.",
            "No overt pulmonary edema.",
            "No evidence of vascular congestion or edema.",
        ],
        Kind::EnlargedCardiomediastinum => &[
            "The cardiomediastinal silhouette is normal.",
            "Mediastinal contours are unremarkable.",
            "The mediastinum is not widened.",
        ],
        Kind::Fracture => &["No displaced rib fracture.", "No acute fracture is identified."],
        Kind::LungLesion => &["No suspicious pulmonary nodule or mass.", "No nodules are seen."],
        Kind::LungOpacity => &["There is no focal opacity.", "No airspace opacity."],
        Kind::PleuralEffusion => &["There is no pleural effusion.", "No effusion is seen."],
        Kind::PleuralOther => &["No pleural thickening.", "There is no pleural scarring."],
        Kind::Pneumonia => &["No evidence of pneumonia.", "There is no pneumonia."],
        Kind::Pneumothorax => &["There is no pneumothorax.", "No pneumothorax."],
        Kind::SupportDevices => {
            &["The endotracheal tube has been removed.", "Interval removal of the central catheter."]
        }
    }
}

/// The noun in a list of what is absent ("No …, … or …").
pub fn noun(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Consolidation => "focal consolidation",
        Kind::Edema => "pulmonary edema",
        Kind::PleuralEffusion => "pleural effusion",
        Kind::Pneumonia => "pneumonia",
        Kind::Pneumothorax => "pneumothorax",
        Kind::LungOpacity => "focal opacity",
        _ => return None,
    })
}

/// Probability that a report denies an absent finding.
pub fn denial(kind: Kind) -> f64 {
    match kind {
        Kind::PleuralEffusion => 0.7,
        Kind::Pneumothorax => 0.65,
        Kind::Cardiomegaly | Kind::Consolidation => 0.5,
        Kind::EnlargedCardiomediastinum => 0.4,
        Kind::Edema => 0.35,
        Kind::Fracture | Kind::Pneumonia => 0.15,
        Kind::LungLesion | Kind::LungOpacity => 0.06,
        Kind::Atelectasis | Kind::PleuralOther => 0.02,
        Kind::SupportDevices => 0.01,
    }
}

/// Every sentence about the finding has one of these words.
#[cfg(test)]
pub fn words(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Atelectasis => &["atelectasis"],
        Kind::Cardiomegaly => &["cardiomegaly", "heart", "cardiac silhouette"],
        Kind::Consolidation => &["consolidation"],
        Kind::Edema => &["edema"],
        Kind::EnlargedCardiomediastinum => &["mediastin"],
        Kind::Fracture => &["fracture"],
        Kind::LungLesion => &["nodule", "mass", "lesion"],
        Kind::LungOpacity => &["opacity", "opacification"],
        Kind::PleuralEffusion => &["effusion"],
        Kind::PleuralOther => &["pleural thickening", "apical cap", "pleural scarring", "pleural plaques"],
        Kind::Pneumonia => &["pneumonia"],
        Kind::Pneumothorax => &["pneumothorax"],
        Kind::SupportDevices => {
            &["pacemaker", "pacer", "tube", "catheter", "line ends", "picc", "wires", "port-a-cath", "lead"]
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Every sentence of a kind, over all its forms.
    fn assertions(kind: Kind) -> Vec<&'static str> {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let mut all: Vec<&str> = Vec::new();
        for _ in 0..200 {
            let mut finding = Finding::random(kind, &mut random);
            if kind == Kind::SupportDevices {
                use Device::{
                    CentralLine, ChestTube, EndotrachealTube, EntericTube, Pacemaker, Picc, Port, SternalWires,
                };
                for device in
                    [CentralLine, ChestTube, EndotrachealTube, EntericTube, Pacemaker, Picc, Port, SternalWires]
                {
                    finding.device = Some(device);
                    all.extend(positive(&finding));
                }
            } else {
                all.extend(positive(&finding));
            }
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    #[test]
    fn each_sentence_names_its_finding_and_no_other() {
        for kind in Kind::ALL {
            let sentences =
                assertions(kind).into_iter().chain(hedged(kind).iter().copied()).chain(negated(kind).iter().copied());
            for sentence in sentences {
                let text = sentence.replace("{fracture}", "fracture").replace("{leads}", "leads").to_lowercase();
                assert!(words(kind).iter().any(|w| text.contains(w)), "{}: {sentence}", kind.name());
                for other in Kind::ALL.into_iter().filter(|&other| other != kind && other != Kind::SupportDevices) {
                    assert!(!words(other).iter().any(|w| text.contains(w)), "{} in {sentence}", other.name());
                }
            }
        }
    }

    #[test]
    fn hedges_and_denials_say_so() {
        for kind in Kind::ALL {
            let doubt = ["may ", "possible", "cannot be excluded", "questionable"];
            assert!(hedged(kind).iter().all(|s| doubt.iter().any(|d| s.to_lowercase().contains(d))), "{}", kind.name());
            let denial = ["no ", "not ", "normal", "unremarkable", "remov"];
            assert!(
                negated(kind).iter().all(|s| denial.iter().any(|d| s.to_lowercase().contains(d))),
                "{}",
                kind.name()
            );
            assert!(
                positive(&Finding::random(kind, &mut ChaCha8Rng::seed_from_u64(1)))
                    .iter()
                    .all(|s| doubt.iter().all(|d| !s.to_lowercase().contains(d)))
            );
        }
    }
}
