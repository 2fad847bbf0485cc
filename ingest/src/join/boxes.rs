//! Boxes of a table, one in a row.

use dataset::format::record::BoundingBox;
use dataset::format::record_checks;

use crate::error::Result;
use crate::join::geometry::{Geometry, size};
use crate::join::options::{BoxForm, BoxUnit, JoinOptions};
use crate::join::table::Block;
use crate::sources::folder::labels::{Values, shortened};

/// The columns of boxes.
pub(super) struct Boxes<'a> {
    numbers: [(&'a str, Values<'a>); 4],
    form: BoxForm,
    unit: BoxUnit,
    label: (&'a str, Values<'a>),
    sentence: Option<Values<'a>>,
    score: Option<(&'a str, Values<'a>)>,
    size: Option<(&'a [String; 2], [Values<'a>; 2])>,
}

/// Which columns have what.
pub(super) struct BoxColumns<'a> {
    pub numbers: &'a [String; 4],
    pub label: &'a str,
    pub sentence: Option<&'a str>,
    pub score: Option<&'a str>,
}

impl<'a> Boxes<'a> {
    /// Reads the columns.
    ///
    /// # Errors
    /// When one is missing.
    pub fn new(
        table: &'a Block,
        options: &'a JoinOptions,
        columns: &BoxColumns<'a>,
        (form, unit): (BoxForm, BoxUnit),
    ) -> Result<Self> {
        let named = |name: &'a str| -> Result<(&'a str, Values<'a>)> { Ok((name, table.values(name)?)) };
        let [a, b, c, d] = columns.numbers;
        let size = match &options.size_columns {
            Some(names) => Some((names, [table.values(&names[0])?, table.values(&names[1])?])),
            None => None,
        };
        Ok(Self {
            numbers: [named(a)?, named(b)?, named(c)?, named(d)?],
            form,
            unit,
            label: named(columns.label)?,
            sentence: columns.sentence.map(|name| table.values(name)).transpose()?,
            score: columns.score.map(named).transpose()?,
            size,
        })
    }

    /// The box of a row in the stored image of a record; `None` where all its numbers are blank.
    ///
    /// # Errors
    /// A sentence that names the column, or says why the box does not fit the image.
    pub fn row(&self, row: usize, geometry: &Geometry) -> Result<Option<BoundingBox>, String> {
        let cells = [0, 1, 2, 3].map(|at| self.numbers[at].1[row]);
        if cells.iter().all(Option::is_none) {
            return Ok(None);
        }
        let mut numbers = [0f64; 4];
        for (number, (column, values)) in numbers.iter_mut().zip(&self.numbers) {
            *number = parse(column, values[row])?;
        }
        let [x, y, third, fourth] = numbers;
        let (width, height) = match self.form {
            BoxForm::Size => (third, fourth),
            BoxForm::Corners => (third - x, fourth - y),
        };
        let label = self.label.1[row].ok_or_else(|| format!("column `{}` is empty", self.label.0))?;
        let raw = BoundingBox {
            label: label.to_owned(),
            x: x as f32,
            y: y as f32,
            width: width as f32,
            height: height as f32,
            score: match &self.score {
                Some((column, values)) if values[row].is_some() => Some(parse(column, values[row])? as f32),
                _ => None,
            },
            sentence: self.sentence.as_ref().and_then(|values| values[row]).map(str::to_owned),
            reader: None,
        };
        let unit = match (self.unit, &self.size) {
            (BoxUnit::Pixels, None) => (1.0, 1.0),
            (BoxUnit::Pixels, Some((names, [height, width]))) => {
                geometry.unit(size([height[row], width[row]], names)?)?
            }
            (BoxUnit::Shares, _) => (f64::from(geometry.source.0), f64::from(geometry.source.1)),
            (BoxUnit::Stored, _) => {
                record_checks::boxed(&raw, geometry.sides())?;
                return Ok(Some(raw));
            }
        };
        let placed = geometry.place.boxed(&raw, unit);
        record_checks::boxed(&placed, geometry.sides())?;
        Ok(Some(placed))
    }
}

fn parse(column: &str, cell: Option<&str>) -> Result<f64, String> {
    let text = cell.ok_or_else(|| format!("column `{column}` is empty"))?;
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| format!("column `{column}`: `{}` is no number", shortened(text)))
}
