//! What the words of the column `view` say about the direction of the beam.

/// The kind of a view, in the order in which the views of a study come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ViewKind {
    /// From behind (`PA`).
    PosteroAnterior,
    /// From the front (`AP`, `AP SUPINE`).
    AnteroPosterior,
    /// One of both (`FRONTAL`).
    Frontal,
    /// From the side (`LATERAL`, `LL`, `RL`).
    Lateral,
    /// Another direction, such as `LAO`, `LLD` or `COSTAL`; also words that contradict each other.
    Other,
    /// Not stated.
    #[default]
    Unknown,
}

impl ViewKind {
    /// The kind of a view as sources write it (`PA`, `LATERAL`, `AP_SUPINE`).
    pub fn of(view: &str) -> Self {
        let (mut found, mut has_words, mut is_other) = (Vec::new(), false, false);
        for word in view.to_ascii_uppercase().split([' ', '_', '/', '-']) {
            has_words |= !word.is_empty();
            match word {
                "PA" | "POSTEROANTERIOR" => found.push(Self::PosteroAnterior),
                "AP" | "ANTEROPOSTERIOR" => found.push(Self::AnteroPosterior),
                "FRONTAL" => found.push(Self::Frontal),
                "LATERAL" | "LAT" | "LL" | "RL" => found.push(Self::Lateral),
                // Decubitus: the patient lies on the side; the beam is frontal in most cases.
                "DECUBITUS" | "DECUB" | "LLD" | "RLD" | "OBLIQUE" | "OBL" | "LAO" | "RAO" | "LPO" | "RPO" | "RLO"
                | "LLO" | "AXIAL" | "LORDOTIC" => is_other = true,
                _ => {}
            }
        }
        match found.as_slice() {
            _ if !has_words => Self::Unknown,
            _ if is_other => Self::Other,
            [first, rest @ ..] if rest.iter().all(|other| other == first) => *first,
            all if !all.is_empty() && !all.contains(&Self::Lateral) => Self::Frontal,
            _ => Self::Other,
        }
    }

    /// Its number in batches: 1 PA, 2 AP, 3 frontal without saying which, 4 lateral, 5 another; 0 where none is stated.
    pub fn code(self) -> i64 {
        match self {
            Self::Unknown => 0,
            Self::PosteroAnterior => 1,
            Self::AnteroPosterior => 2,
            Self::Frontal => 3,
            Self::Lateral => 4,
            Self::Other => 5,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_the_words_of_sources() {
        for (view, expected) in [
            ("PA", ViewKind::PosteroAnterior),
            ("AP", ViewKind::AnteroPosterior),
            ("AP_HORIZONTAL", ViewKind::AnteroPosterior),
            ("ap supine", ViewKind::AnteroPosterior),
            ("AP/PA", ViewKind::Frontal),
            ("FRONTAL", ViewKind::Frontal),
            ("LL", ViewKind::Lateral),
            ("XTABLE LATERAL", ViewKind::Lateral),
            ("AP LATERAL", ViewKind::Other),
            ("LATERAL DECUBITUS", ViewKind::Other),
            ("LAO", ViewKind::Other),
            ("COSTAL", ViewKind::Other),
            ("", ViewKind::Unknown),
            (" _", ViewKind::Unknown),
        ] {
            assert_eq!(ViewKind::of(view), expected, "{view}");
        }
        assert!(ViewKind::PosteroAnterior < ViewKind::Lateral && ViewKind::Other < ViewKind::Unknown);
    }
}
