//! Which place the right report has among all reports for an image, and the right image among all images for a report.

use anyhow::Result;
use tch::{Kind, Tensor};

/// Similarities that differ by less are tied.
const TIE: f64 = 1e-6;

/// Queries that are compared at a time.
const BLOCK: i64 = 256;

/// Ranks from 1, in the order of the queries.
///
/// Ties count against the right answer, so that vectors that are all the same retrieve nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranks {
    /// Of each image's report among all distinct reports, `[N]`.
    pub of_reports: Vec<i64>,
    /// Of the best image of each distinct report among the images of other reports, `[R]`.
    pub of_images: Vec<i64>,
}

/// The ranks of images `[N, P]` and distinct reports `[R, P]`, where image `i` is of report `report_of[i]`. Vectors have length 1.
///
/// # Errors
/// When torch fails, such as for vectors of different lengths.
pub fn ranks(images: &Tensor, reports: &Tensor, report_of: &[usize]) -> Result<Ranks> {
    let [images, reports] = [images, reports].map(|vectors| vectors.to_kind(Kind::Double));
    let report_of: Vec<i64> = report_of.iter().map(|&report| report as i64).collect();
    let report_of = Tensor::from_slice(&report_of); // [N]
    let (mut of_reports, mut of_images) = (Vec::new(), Vec::new());
    let blocks = |count: i64| (0..count).step_by(BLOCK as usize).map(move |start| (start, BLOCK.min(count - start)));
    for (start, length) in blocks(images.size()[0]) {
        let similar = images.narrow(0, start, length).f_matmul(&reports.transpose(0, 1))?; // [b, R]
        let right = similar.f_gather(1, &report_of.narrow(0, start, length).unsqueeze(1), false)?; // [b, 1]
        // The right one itself is one of those counted.
        let rank = similar.ge_tensor(&(right - TIE)).sum_dim_intlist([1_i64].as_slice(), false, Kind::Int64);
        of_reports.extend(Vec::<i64>::try_from(rank)?);
    }
    for (start, length) in blocks(reports.size()[0]) {
        let similar = reports.narrow(0, start, length).f_matmul(&images.transpose(0, 1))?; // [b, N]
        let numbers = Tensor::arange_start(start, start + length, (Kind::Int64, images.device()));
        let is_right = report_of.unsqueeze(0).eq_tensor(&numbers.unsqueeze(1)); // [b, N]
        let (best, _) = similar.masked_fill(&is_right.logical_not(), f64::NEG_INFINITY).max_dim(1, true); // [b, 1]
        let before = similar.ge_tensor(&(best - TIE)).logical_and(&is_right.logical_not());
        let rank = before.sum_dim_intlist([1_i64].as_slice(), false, Kind::Int64) + 1;
        of_images.extend(Vec::<i64>::try_from(rank)?);
    }
    Ok(Ranks { of_reports, of_images })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors(rows: &[[f32; 2]]) -> Tensor {
        Tensor::from_slice(&rows.concat()).view([rows.len() as i64, 2])
    }

    #[test]
    fn a_report_of_two_images_counts_once_and_its_best_image_counts() {
        let reports = vectors(&[[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]);
        // Images 0 and 3 are of report 0; image 3 looks like report 2.
        let images = vectors(&[[1.0, 0.0], [0.1, 0.99], [0.8, 0.6], [0.6, 0.8]]);
        let ranks = ranks(&images, &reports, &[0, 1, 2, 0]).unwrap();
        // Image 2: 0.8 (report 0), 0.6, 0.96 (its own). Image 3: 0.6 (its own), 0.8, 1.0.
        assert_eq!(ranks.of_reports, [1, 1, 1, 3]);
        // Report 2: 0.6, 0.852, 0.96 (its own), 1.0 (an image of report 0).
        assert_eq!(ranks.of_images, [1, 1, 2]);
    }

    #[test]
    fn equal_vectors_retrieve_nothing() {
        let same = vectors(&[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]);
        let ranks = ranks(&same, &same, &[0, 1, 2]).unwrap();
        assert_eq!((ranks.of_reports, ranks.of_images), (vec![3, 3, 3], vec![3, 3, 3]));
    }
}
