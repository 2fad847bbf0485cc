//! The direction of the beam that a view, a header or the shape of an image suggests, to detect views that are wrong.

use std::fmt::{self, Display, Formatter};

use dataset::format::view::ViewKind;

/// Width divided by height above which an image is hardly a lateral one: the chest is taller than deep.
const WIDEST_LATERAL: f64 = 1.25;

/// Height divided by width above which an image is hardly a frontal one: the chest is nearly as wide as tall.
const TALLEST_FRONTAL: f64 = 1.6;

/// Direction of the beam.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    /// From behind.
    PosteroAnterior,
    /// From the front.
    AnteroPosterior,
    /// One of both.
    Frontal,
    /// From the side.
    Lateral,
}

impl Projection {
    /// The projection of a view (`PA`, `LATERAL`, `AP SUPINE`); `None` for views of other directions and other words.
    pub fn of_view(view: &str) -> Option<Self> {
        match ViewKind::of(view) {
            ViewKind::PosteroAnterior => Some(Self::PosteroAnterior),
            ViewKind::AnteroPosterior => Some(Self::AnteroPosterior),
            ViewKind::Frontal => Some(Self::Frontal),
            ViewKind::Lateral => Some(Self::Lateral),
            ViewKind::Other | ViewKind::Unknown => None,
        }
    }

    /// The projection by the direction of a row of pixels (PatientOrientation of DICOM): towards the left or right of the
    /// patient in a frontal image, towards the front or back in a lateral one.
    pub fn of_orientation(orientation: &str) -> Option<Self> {
        match orientation.trim_start().as_bytes().first()? {
            b'L' | b'R' => Some(Self::Frontal),
            b'A' | b'P' => Some(Self::Lateral),
            _ => None,
        }
    }

    /// Whether an image cannot have both projections.
    pub fn contradicts(self, other: Self) -> bool {
        let either = |one: Self| self == one || other == one;
        self != other && (either(Self::Lateral) || !either(Self::Frontal))
    }

    /// Whether an image of this width and height hardly has this projection.
    pub fn contradicts_shape(self, width: u32, height: u32) -> bool {
        let (width, height) = (f64::from(width), f64::from(height));
        if self == Self::Lateral { width > WIDEST_LATERAL * height } else { height > TALLEST_FRONTAL * width }
    }
}

impl Display for Projection {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::PosteroAnterior => "PA",
            Self::AnteroPosterior => "AP",
            Self::Frontal => "frontal",
            Self::Lateral => "lateral",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Projection::{AnteroPosterior, Frontal, Lateral, PosteroAnterior};
    use super::*;

    #[test]
    fn views_and_their_contradictions() {
        for (view, expected) in [
            ("PA", Some(PosteroAnterior)),
            ("ap_supine", Some(AnteroPosterior)),
            ("AP/PA", Some(Frontal)),
            ("FRONTAL", Some(Frontal)),
            ("LL", Some(Lateral)),
            ("XTABLE LATERAL", Some(Lateral)),
            ("AP LATERAL", None),
            ("AP LLD", None),
            ("LATERAL DECUBITUS", None),
            ("LAO", None),
            ("AP AXIAL", None),
            ("SWIMMERS", None),
            ("", None),
        ] {
            assert_eq!(Projection::of_view(view), expected, "{view}");
        }
        for (a, b, contradicts) in [
            (PosteroAnterior, AnteroPosterior, true),
            (PosteroAnterior, Frontal, false),
            (Frontal, Lateral, true),
            (AnteroPosterior, Lateral, true),
            (Lateral, Lateral, false),
        ] {
            assert_eq!((a.contradicts(b), b.contradicts(a)), (contradicts, contradicts), "{a} {b}");
        }
        assert_eq!(Projection::of_orientation("L\\F"), Some(Frontal));
        assert_eq!(Projection::of_orientation("PR\\F"), Some(Lateral));
        assert_eq!(Projection::of_orientation(""), None);
        assert!(Lateral.contradicts_shape(3056, 2000) && !Lateral.contradicts_shape(3056, 2544));
        assert!(PosteroAnterior.contradicts_shape(1000, 2000) && !PosteroAnterior.contradicts_shape(2544, 3056));
    }
}
