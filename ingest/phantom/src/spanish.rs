//! The findings in the words of PadChest and PadChest-GR: labels, and short sentences in English, in Spanish, and in stemmed
//! Spanish without accents.

use crate::disease::{Finding, Kind, Side};

/// A finding in PadChest's words.
pub struct Sentence {
    /// The label.
    pub label: &'static str,
    /// The sentence of PadChest-GR in English.
    pub english: String,
    /// The same in Spanish.
    pub spanish: String,
    /// The same as PadChest's reports write it.
    pub stemmed: String,
}

/// The sentence of a finding; `None` where the sets have no label for it.
pub fn sentence(finding: &Finding) -> Option<Sentence> {
    let (label, spanish, stem) = match finding.kind {
        Kind::Atelectasis => ("laminar atelectasis", "Atelectasia laminar", "atelectasi lamin"),
        Kind::Cardiomegaly => ("cardiomegaly", "Cardiomegalia", "cardiomegali"),
        Kind::Consolidation => ("consolidation", "Consolidación", "consolid"),
        Kind::Edema => ("pulmonary edema", "Edema pulmonar", "edem pulmon"),
        Kind::Fracture => ("rib fracture", "Fractura costal", "fractur costal"),
        Kind::LungLesion => ("nodule", "Nódulo", "nodul"),
        Kind::LungOpacity => ("alveolar pattern", "Patrón alveolar", "patron alveol"),
        Kind::PleuralEffusion => ("pleural effusion", "Derrame pleural", "derram pleural"),
        Kind::PleuralOther => ("pleural thickening", "Engrosamiento pleural", "engros pleural"),
        Kind::Pneumonia => ("pneumonia", "Neumonía", "neumon"),
        Kind::Pneumothorax => ("pneumothorax", "Neumotórax", "neumotorax"),
        Kind::EnlargedCardiomediastinum | Kind::SupportDevices => return None,
    };
    let (side, lado, lad) = match finding.side {
        Side::Left => (" on the left", " izquierdo", " izquierd"),
        Side::Right => (" on the right", " derecho", " derech"),
        Side::Both => ("", "", ""),
    };
    let (first, rest) = label.split_at(1);
    Some(Sentence {
        label,
        english: format!("{}{rest}{side}.", first.to_uppercase()),
        spanish: format!("{spanish}{lado}."),
        stemmed: format!("{stem}{lad} ."),
    })
}
