//! Boxes and masks of the findings on a frontal image, from the values that it was drawn from.

use crate::canvas::{Frame, Point};
use crate::disease::{Finding, Kind};
use crate::patient::{Image, Patient, Study};
use crate::{findings, radiograph};

/// Narrowest gap of a pneumothorax that is marked, in body units: below it the pleural line is not visible.
const NARROWEST_GAP: f32 = 0.02;

/// The run lengths of an empty mask.
pub const NOTHING: &str = "-1";

/// Boxes (x, y, width, height, whole pixels) around pneumonia and consolidation.
pub fn opacities(patient: &Patient, study: &Study, image: &Image) -> Vec<[usize; 4]> {
    let anatomy = radiograph::anatomy(patient, study);
    let frame = radiograph::frame(patient, study, image);
    let around = |((x, y), reach): (Point, f32)| {
        // An opacity ends at the outline of the lung.
        let lung = anatomy.lung(x);
        let (left, right) = (x - reach, x + reach);
        let (left, right) = if x > 0.0 { (left, right.min(lung.width)) } else { (left.max(-lung.width), right) };
        pixels(frame, (left, right), ((y - reach).max(lung.apex), (y + reach).min(lung.dome + lung.sulcus)))
    };
    study.findings.iter().filter_map(|finding| findings::focus(&anatomy, finding)).filter_map(around).collect()
}

/// The box of pixels around a rectangle of the body; `None` where it misses the image.
fn pixels(frame: Frame, (left, right): (f32, f32), (top, bottom): (f32, f32)) -> Option<[usize; 4]> {
    let corners = [(left, top), (right, top), (left, bottom), (right, bottom)].map(|corner| frame.pixel(corner));
    let least = |values: [f32; 4]| values.into_iter().fold(f32::INFINITY, f32::min).floor().max(0.0) as usize;
    let most = |values: [f32; 4]| values.into_iter().fold(0.0, f32::max).ceil() as usize;
    let (xs, ys) = (corners.map(|corner| corner.0), corners.map(|corner| corner.1));
    let (x, y) = (least(xs), least(ys));
    let (end_x, end_y) = (most(xs).min(frame.width), most(ys).min(frame.height));
    (x < end_x && y < end_y).then(|| [x, y, end_x - x, end_y - y])
}

/// Mask of the air of a pneumothorax, row-major `[rows, columns]`; empty without one.
pub fn pneumothorax(patient: &Patient, study: &Study, image: &Image) -> Vec<bool> {
    let mut mask = vec![false; image.rows * image.columns];
    let anatomy = radiograph::anatomy(patient, study);
    let frame = radiograph::frame(patient, study, image);
    for finding in study.findings.iter().filter(|finding| finding.kind == Kind::Pneumothorax) {
        let sign = finding.side.signs()[0];
        frame.every(|i, (x, y)| {
            if x * sign > 0.0 && anatomy.depth((x, y)) > 0.0 {
                let (open, inside) = findings::collapse(&anatomy, finding, (x, y));
                mask[i] |= open > NARROWEST_GAP && inside < 0.0;
            }
        });
    }
    mask
}

/// Mask of the pixels that some findings change by a tenth of the range of values or more, row-major `[rows, columns]`; empty
/// without such a finding.
pub fn changed(patient: &Patient, study: &Study, image: &Image, is_wanted: impl Fn(&Finding) -> bool) -> Vec<bool> {
    if !study.findings.iter().any(&is_wanted) {
        return vec![false; image.rows * image.columns];
    }
    let mut without = study.clone();
    without.findings.retain(|finding| !is_wanted(finding));
    let values = |study| radiograph::render(patient, study, image).values;
    let is_marked = |(with, without): (u16, u16)| with.abs_diff(without) > radiograph::MAXIMUM / 10;
    values(study).into_iter().zip(values(&without)).map(is_marked).collect()
}

/// Masks of the patient's left and right lung, row-major `[rows, columns]`.
pub fn lungs(patient: &Patient, study: &Study, image: &Image) -> [Vec<bool>; 2] {
    let anatomy = radiograph::anatomy(patient, study);
    let mut masks = [vec![false; image.rows * image.columns], vec![false; image.rows * image.columns]];
    radiograph::frame(patient, study, image).every(|i, (x, y)| {
        masks[usize::from(x < 0.0)][i] = anatomy.depth((x, y)) > 0.0;
    });
    masks
}

/// A row-major mask as run lengths in column-major order, as SIIM-ACR's table writes them: `offset length offset length …`,
/// each offset counted from the end of the run before it; `-1` where nothing is marked.
pub fn run_lengths(mask: &[bool], width: usize, height: usize) -> String {
    let marked = |at: &usize| mask[at % height * width + at / height];
    let (mut words, mut at, mut end) = (Vec::new(), 0, 0);
    while at < width * height {
        let length = (at..width * height).take_while(marked).count();
        if length > 0 {
            words.push(format!("{} {length}", at - end));
            end = at + length;
        }
        at += length.max(1);
    }
    if words.is_empty() { NOTHING.to_owned() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patient;

    /// Images with a finding, and the same images without it.
    fn pairs(kind: Kind) -> Vec<(Patient, Study, Image, Vec<f32>)> {
        let mut pairs = Vec::new();
        for patient in patient::plan(150, 3, 128) {
            for study in patient.studies.iter().filter(|study| study.findings.iter().any(|f| f.kind == kind)) {
                let mut healthy = study.clone();
                healthy.findings.retain(|finding| finding.kind != kind);
                let image = study.images[0];
                let (ill, well) = (
                    radiograph::render(&patient, study, &image).values,
                    radiograph::render(&patient, &healthy, &image).values,
                );
                let change = ill.iter().zip(&well).map(|(a, b)| f32::from(*a) - f32::from(*b)).collect();
                pairs.push((patient.clone(), study.clone(), image, change));
            }
        }
        pairs
    }

    fn mean(values: impl Iterator<Item = f32>) -> f32 {
        let (count, sum) = values.fold((0, 0.0), |(count, sum), value| (count + 1, sum + value));
        sum / count.max(1) as f32
    }

    #[test]
    fn boxes_contain_the_change() {
        let pairs = pairs(Kind::Pneumonia);
        assert!(pairs.len() >= 5);
        for (patient, mut study, image, change) in pairs {
            study.findings.retain(|finding| finding.kind == Kind::Pneumonia);
            let boxes = opacities(&patient, &study, &image);
            assert_eq!(boxes.len(), study.findings.len());
            let inside = |i: usize| {
                let (x, y) = (i % image.columns, i / image.columns);
                boxes.iter().any(|&[left, top, width, height]| {
                    (left..left + width).contains(&x) && (top..top + height).contains(&y)
                })
            };
            let of = |wanted: bool| {
                mean(change.iter().enumerate().filter(|(i, _)| inside(*i) == wanted).map(|(_, v)| v.abs()))
            };
            assert!(of(true) > 3.0 * of(false), "{} against {}", of(true), of(false));
        }
    }

    #[test]
    fn masks_contain_the_pixels_that_got_darker() {
        let pairs = pairs(Kind::Pneumothorax);
        assert!(pairs.len() >= 3);
        for (patient, study, image, change) in pairs {
            let mask = pneumothorax(&patient, &study, &image);
            assert!(mask.contains(&true));
            let of = |wanted: bool| mean(change.iter().zip(&mask).filter(|(_, m)| **m == wanted).map(|(v, _)| *v));
            assert!(of(true) < -60.0 && of(true) < of(false) - 60.0, "{} against {}", of(true), of(false));
        }
    }
}
