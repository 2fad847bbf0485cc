//! Fixed two-dimensional sine-cosine position tables, and their resize to another grid.
//!
//! The first half of a vector encodes the column of a patch, the second half its row; each half is
//! `[sin(position · ω₀), …, cos(position · ω₀), …]`. Row 0, for the class token, is zero.
//! Formula: MAE (He et al. 2022, `util/pos_embed.py`); the MRM release changed the frequencies.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::error::{ModelError, check_shape};

/// Longest wavelength of a table, in units of 2π patches.
const LONGEST_WAVELENGTH: f64 = 10_000.0;

/// The frequencies ωᵢ of a position table of `embed_dim` `D`, i from 0 to below D/4.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PosEmbed {
    /// The MRM release: `10000^(-i / D)`.
    #[default]
    Release,
    /// MAE: `10000^(-4i / D)`.
    Mae,
}

impl PosEmbed {
    /// The `embed_dim / 4` frequencies of a table.
    fn frequencies(self, embed_dim: i64) -> Vec<f64> {
        let step = match self {
            Self::Release => 1.0 / embed_dim as f64,
            Self::Mae => 4.0 / embed_dim as f64,
        };
        (0..embed_dim / 4).map(|i| LONGEST_WAVELENGTH.powf(-(i as f64) * step)).collect()
    }
}

/// The table of a square grid: `[1 + grid², embed_dim]`, float32, computed in double precision. Row 0 (class token) is zero.
///
/// # Errors
/// When `embed_dim` is not a multiple of 4, or the grid is empty.
pub fn sin_cos_table(embed_dim: i64, grid: i64, formula: PosEmbed) -> Result<Tensor, ModelError> {
    if embed_dim < 4 || embed_dim % 4 != 0 {
        return Err(ModelError::config(
            "embed_dim",
            format!("a position table needs a multiple of 4, not {embed_dim}"),
        ));
    }
    crate::error::check_positive("grid", grid)?;
    let omegas = formula.frequencies(embed_dim);
    let half = |table: &mut Vec<f64>, position: i64| {
        table.extend(omegas.iter().map(|omega| (position as f64 * omega).sin()));
        table.extend(omegas.iter().map(|omega| (position as f64 * omega).cos()));
    };
    let mut table = vec![0.0; embed_dim as usize];
    for row in 0..grid {
        for column in 0..grid {
            half(&mut table, column);
            half(&mut table, row);
        }
    }
    Ok(Tensor::f_from_slice(&table)?.f_view([1 + grid * grid, embed_dim])?.f_to_kind(Kind::Float)?)
}

/// How a position table is resized to another grid; all are bicubic (a = -0.75) with corners not aligned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PosResize {
    /// Without antialiasing: MRM, MAE, CLIP, transformers' DINOv2.
    #[default]
    Bicubic,
    /// With antialiasing where the grid becomes smaller: DINOv2 with registers.
    Antialias,
    /// With the scale `(grid + 0.1) / g` in place of `grid / g`: DINOv2's own code for models without registers.
    Offset,
}

/// What [`PosResize::Offset`] adds to the grid.
const SCALE_OFFSET: f64 = 0.1;

/// Resizes a table `[1, 1 + g², D]` to another square grid: `[1, 1 + grid², D]`. The class token's row is copied. The same grid
/// gives a copy. Gradients flow to the table.
///
/// # Errors
/// When the table is not one of a class token and a square grid.
pub fn resize_table(table: &Tensor, grid: i64, resize: PosResize) -> Result<Tensor, ModelError> {
    check_shape("position table", table, &[1, -1, -1])?;
    let (_, rows, embed_dim) = table.size3()?;
    let from = square_root(rows - 1).ok_or_else(|| ModelError::Shape {
        tensor: "position table".to_owned(),
        expected: "[1, 1 + a square number, embed_dim]".to_owned(),
        got: table.size(),
    })?;
    if from == grid {
        return Ok(table.copy());
    }
    let cls = table.f_narrow(1, 0, 1)?; // [1, 1, D]
    let patches = table.f_narrow(1, 1, rows - 1)?.f_transpose(1, 2)?.f_reshape([1, embed_dim, from, from])?;
    let side = [grid, grid];
    let scale = (grid as f64 + SCALE_OFFSET) / from as f64;
    let patches = match resize {
        PosResize::Bicubic => patches.f_upsample_bicubic2d(side, false, None, None)?,
        PosResize::Antialias => patches.f_internal_upsample_bicubic2d_aa(side, false, None, None)?,
        PosResize::Offset => patches.f_upsample_bicubic2d(side, false, scale, scale)?,
    }; // [1, D, grid, grid]
    let patches = patches.f_flatten(2, 3)?.f_transpose(1, 2)?; // [1, grid², D]
    Ok(Tensor::f_cat(&[cls, patches], 1)?)
}

/// The square root of `area`, if it is a whole number.
fn square_root(area: i64) -> Option<i64> {
    let side = (area as f64).sqrt().round() as i64;
    (area > 0 && side * side == area).then_some(side)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_before_rows_and_sines_before_cosines() {
        let table = sin_cos_table(8, 3, PosEmbed::Mae).unwrap();
        assert_eq!(table.size(), [10, 8]);
        assert_eq!(table.get(0).abs().sum(Kind::Float).double_value(&[]), 0.0);
        // Patch (row 1, column 2) is row 1 + 1·3 + 2 of the table; frequencies 1 and 0.01.
        let row = Vec::<f32>::try_from(table.get(6)).unwrap();
        let expected = [2.0_f64.sin(), 0.02_f64.sin(), 2.0_f64.cos(), 0.02_f64.cos()];
        let expected = expected.into_iter().chain([1.0_f64.sin(), 0.01_f64.sin(), 1.0_f64.cos(), 0.01_f64.cos()]);
        for (got, want) in row.into_iter().zip(expected) {
            assert_eq!(got, want as f32);
        }
    }

    #[test]
    fn the_two_formulas_differ_by_a_factor_in_the_exponent() {
        let (release, mae) = (PosEmbed::Release.frequencies(16), PosEmbed::Mae.frequencies(16));
        assert_eq!(release[0], mae[0]);
        assert!((release[3].powi(4) - mae[3]).abs() < 1e-12);
    }

    #[test]
    fn resize_keeps_the_class_row_and_the_same_grid() {
        let table = sin_cos_table(8, 4, PosEmbed::Release).unwrap().unsqueeze(0) + 1.0;
        let same = resize_table(&table, 4, PosResize::Bicubic).unwrap();
        assert_eq!((&same - &table).abs().max().double_value(&[]), 0.0);
        for resize in [PosResize::Bicubic, PosResize::Antialias, PosResize::Offset] {
            let larger = resize_table(&table, 7, resize).unwrap();
            assert_eq!(larger.size(), [1, 50, 8]);
            assert_eq!(larger.get(0).get(0), table.get(0).get(0));
        }
    }

    #[test]
    fn impossible_tables_are_refused() {
        assert!(sin_cos_table(10, 4, PosEmbed::Release).is_err());
        assert!(sin_cos_table(8, 0, PosEmbed::Release).is_err());
        let table = Tensor::zeros([1, 12, 8], (Kind::Float, tch::Device::Cpu));
        assert!(resize_table(&table, 4, PosResize::Bicubic).is_err());
    }
}
