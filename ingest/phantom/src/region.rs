//! Boxes of findings, as a radiologist would draw them. The places are those of `findings`: both draw them from the finding's
//! seed.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::anatomy::Anatomy;
use crate::canvas::{CM, Frame, Point};
use crate::disease::{Finding, Kind};
use crate::patient::{Image, Patient, Study};
use crate::{findings, radiograph};

/// A box in pixels: left, top, width, height.
pub type Box = (f32, f32, f32, f32);

/// Boxes of a finding on a frontal image, one for each side that it is on; none for findings without a place.
pub fn boxes(patient: &Patient, study: &Study, image: &Image, finding: &Finding) -> Vec<Box> {
    let anatomy = radiograph::anatomy(patient, study);
    let frame = radiograph::frame(patient, study, image);
    regions(&anatomy, finding).into_iter().filter_map(|(low, high)| on_image(&frame, low, high)).collect()
}

/// Corners in body coordinates.
fn regions(anatomy: &Anatomy, finding: &Finding) -> Vec<(Point, Point)> {
    let random = &mut ChaCha8Rng::seed_from_u64(finding.seed);
    let severity = finding.severity;
    let around = |(x, y): Point, (across, down): Point| ((x - across, y - down), (x + across, y + down));
    // Between two distances from the midline and two heights, on each side.
    let beside = |out: (f32, f32), heights: &dyn Fn(f32) -> (f32, f32)| -> Vec<(Point, Point)> {
        finding
            .side
            .signs()
            .iter()
            .map(|&sign| {
                let (top, bottom) = heights(sign);
                let (a, b) = (sign * out.0, sign * out.1);
                ((a.min(b), top), (a.max(b), bottom))
            })
            .collect()
    };
    match finding.kind {
        Kind::Consolidation => {
            let radius = 0.19 + 0.2 * severity;
            vec![around(findings::place(anatomy, finding, random), (1.15 * radius, radius))]
        }
        Kind::Pneumonia => {
            let spread = 2.0 * (0.12 + 0.15 * severity);
            vec![around(findings::place(anatomy, finding, random), (spread, spread))]
        }
        Kind::LungOpacity => {
            let radius = 1.2 * (0.24 + 0.16 * severity);
            let sides = finding.side.signs().iter().take(1);
            let center = |&sign: &f32| anatomy.place(sign, finding.zone.height(), random.random_range(0.35..0.65));
            sides.map(center).map(|center| around(center, (radius, radius))).collect()
        }
        Kind::LungLesion => {
            let height = finding.zone.height() + random.random_range(-0.06..0.06);
            let out = random.random_range(0.3..0.75);
            let center = anatomy.place(finding.side.signs()[0], height.clamp(0.12, 0.88), out);
            let radius = 1.2 * finding.centimeters / 2.0 * CM;
            vec![around(center, (radius, radius))]
        }
        Kind::Cardiomegaly => heart(anatomy).into_iter().collect(),
        Kind::PleuralEffusion => beside((0.2, anatomy.lungs[0].width), &|sign| {
            let lung = anatomy.lung(sign);
            let floor = lung.dome + lung.sulcus;
            (floor - 0.2 - 0.8 * severity, floor)
        }),
        Kind::Atelectasis => beside((0.2, 0.9), &|sign| {
            let lung = anatomy.lung(sign);
            (lung.height(0.62), lung.dome + 0.5 * lung.sulcus)
        }),
        Kind::Pneumothorax => beside((0.15, anatomy.lungs[0].width), &|sign| {
            let lung = anatomy.lung(sign);
            (lung.apex - 0.05, lung.apex + (0.5 + 1.1 * severity).min(1.3))
        }),
        _ => Vec::new(),
    }
}

/// The heart's extent below the carina, read off its outline.
fn heart(anatomy: &Anatomy) -> Option<(Point, Point)> {
    const STEP: f32 = 0.02;
    let (top, bottom) = (anatomy.carina() + 0.1, anatomy.lungs[1].dome + 0.14);
    let rows = (0..((bottom - top) / STEP) as usize).map(|row| top + row as f32 * STEP);
    let points = rows.flat_map(|y| (-50..=50).map(move |column| (column as f32 * STEP, y)));
    points.filter(|&point| anatomy.heart(point) > 0.5).fold(None, |found, (x, y)| {
        let ((left, top), (right, bottom)) = found.unwrap_or(((x, y), (x, y)));
        Some(((x.min(left), y.min(top)), (x.max(right), y.max(bottom))))
    })
}

/// The upright box around a body box, cut to the image; `None` where less than a pixel of it is on the image.
fn on_image(frame: &Frame, low: Point, high: Point) -> Option<Box> {
    let corners = [low, (high.0, low.1), (low.0, high.1), high].map(|corner| frame.pixel(corner));
    let bounds = |values: [f32; 4], size: usize| {
        let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
        (low.clamp(0.0, size as f32), high.clamp(0.0, size as f32))
    };
    let (left, right) = bounds(corners.map(|corner| corner.0), frame.width);
    let (top, bottom) = bounds(corners.map(|corner| corner.1), frame.height);
    (right - left >= 1.0 && bottom - top >= 1.0).then_some((left, top, right - left, bottom - top))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disease::Side;
    use crate::patient;
    use crate::patient::View;

    /// The image without the finding is darker inside its box than with it, and hardly differs outside.
    #[test]
    fn boxes_contain_what_is_drawn() {
        let (mut boxed, mut held) = (0, 0);
        for patient in patient::plan(120, 3, 96) {
            for study in &patient.studies {
                let image = Image { rows: 128, columns: 128, ..study.images[0] };
                assert_ne!(image.view, View::Lateral);
                let kinds = [Kind::Consolidation, Kind::Pneumonia, Kind::LungLesion, Kind::LungOpacity];
                for (i, finding) in study.findings.iter().enumerate() {
                    if !kinds.contains(&finding.kind) || finding.severity < 0.3 || finding.side == Side::Both {
                        continue;
                    }
                    if finding.kind == Kind::LungLesion && finding.count > 1 {
                        continue;
                    }
                    let mut without = study.clone();
                    without.findings.remove(i);
                    let (with, without) =
                        (radiograph::render(&patient, study, &image), radiograph::render(&patient, &without, &image));
                    let (x, y, width, height) = boxes(&patient, study, &image, finding)[0];
                    assert!(x >= 0.0 && y >= 0.0 && x + width <= 128.0 && y + height <= 128.0);
                    let (mut inside, mut outside) = (0.0, 0.0);
                    for (at, (a, b)) in with.values.iter().zip(&without.values).enumerate() {
                        let (column, row) = ((at % 128) as f32 + 0.5, (at / 128) as f32 + 0.5);
                        let is_in = column >= x && column <= x + width && row >= y && row <= y + height;
                        let change = f32::from(a.abs_diff(*b));
                        *(if is_in { &mut inside } else { &mut outside }) += change;
                    }
                    boxed += 1;
                    held += usize::from(inside > outside);
                }
            }
        }
        assert!(boxed >= 20 && held * 10 >= boxed * 9, "{held} of {boxed} boxes hold most of their finding");
    }
}
