//! Which groups the records of an evaluation belong to: by a column of the dataset, or by what a join adds to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, bail};
use arrow_array::{
    Array, ArrayRef, Float32Array, Int8Array, ListArray, StringArray, StructArray, UInt16Array, UInt32Array,
};
use dataset::name_suggestion::did_you_mean;

use super::DataSource;
use crate::eval::subgroups::Grouping;

/// A column to group records by.
#[derive(Debug, Clone, PartialEq)]
pub struct SubgroupColumn {
    /// A column of the dataset (`age` is `age_years`), a finding, a grade, or a section of texts.
    pub name: String,
    /// Lower edges of the bands of a column of numbers; empty: the default of the column.
    pub bands: Vec<f64>,
}

/// The place of a group among the others of its column, and its name.
type Place = (usize, String);

/// Default bands of the age in years.
const AGE_BANDS: [f64; 5] = [0.0, 18.0, 40.0, 60.0, 80.0];

/// Most groups of a column; with more, a group has too few records to say anything.
const MAX_GROUPS: usize = 50;

/// The group of records without a value.
const UNSTATED: &str = "not stated";

impl SubgroupColumn {
    /// Parses a list such as `sex,age=0,18,40,view`: a number belongs to the column before it.
    ///
    /// # Errors
    /// When a name is empty or repeated, or edges are not ascending.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        let mut columns: Vec<Self> = Vec::new();
        for word in text.split(',').map(str::trim) {
            let edge = word.parse::<f64>().ok().filter(|edge| edge.is_finite());
            match (columns.last_mut(), edge) {
                (Some(column), Some(edge)) if !column.bands.is_empty() => column.bands.push(edge),
                _ => {
                    let (name, first) = word.split_once('=').map_or((word, None), |(name, edge)| (name, Some(edge)));
                    let first =
                        first.map(|edge| edge.trim().parse::<f64>().map_err(|_| format!("`{edge}` is no number")));
                    columns
                        .push(Self { name: name.trim().to_owned(), bands: first.transpose()?.into_iter().collect() });
                }
            }
        }
        for (at, Self { name, bands }) in columns.iter().enumerate() {
            if name.is_empty() || columns[..at].iter().any(|other| other.name == *name) {
                return Err("give each column once, as sex,view,age=0,18,40,60,80".to_owned());
            }
            if bands.iter().any(|edge| !edge.is_finite()) || bands.windows(2).any(|pair| pair[0] >= pair[1]) {
                return Err(format!("the edges of `{name}` must be finite and ascending, as age=0,18,40,60,80"));
            }
        }
        Ok(columns)
    }

    /// The groups of some rows of a dataset, in their order.
    ///
    /// # Errors
    /// When the dataset has no such column, it has too many values, or it is one of numbers and has no bands.
    pub fn grouping(&self, source: &DataSource, rows: &[u32]) -> Result<Grouping> {
        let Some(values) = self.stored(source)? else { bail!("--subgroups: {}", self.unknown(source)?) };
        self.groups(&rows.iter().map(|&row| values[row as usize].clone()).collect::<Vec<_>>())
    }

    /// The groups of rows with these places, in the order of bands and codes, else by name; rows without one are the last group.
    fn groups(&self, of_rows: &[Option<Place>]) -> Result<Grouping> {
        let mut names: BTreeMap<Place, u32> = of_rows.iter().flatten().map(|value| (value.clone(), 0)).collect();
        if names.len() > MAX_GROUPS {
            bail!(
                "--subgroups: `{}` has {} values among these records, more than {MAX_GROUPS}: choose another column, or bands of \
                 numbers (age=0,18,40)",
                self.name,
                names.len()
            );
        }
        names.values_mut().enumerate().for_each(|(at, position)| *position = at as u32);
        let unstated = of_rows.iter().any(Option::is_none).then_some(names.len() as u32);
        let position = |value: &Option<Place>| match value {
            Some(value) => names[value],
            None => names.len() as u32,
        };
        let of_row = of_rows.iter().map(position).collect();
        let mut groups: Vec<String> = names.into_keys().map(|(_, name)| name).collect();
        groups.extend(unstated.map(|_| UNSTATED.to_owned()));
        Ok(Grouping { column: self.name.clone(), groups, of_row, unstated })
    }

    /// Order and name of the group of each record of the dataset; none for a name that it does not know.
    fn stored(&self, source: &DataSource) -> Result<Option<Vec<Option<Place>>>> {
        let (dataset, name) = (&source.dataset, self.name.as_str());
        let column = if name == "age" { "age_years" } else { name };
        let own = if NESTED.contains(&column) { Vec::new() } else { columns(source, column)? };
        if !own.is_empty() {
            let mut values = Vec::with_capacity(dataset.len());
            for array in own {
                self.read(column, &array, &mut values)?;
            }
            return Ok(Some(values));
        }
        if let Some(finding) = dataset.findings().iter().position(|finding| finding == name) {
            let group = |code: Option<i8>| {
                let names = [(0, "negative"), (1, "uncertain"), (2, "positive")];
                let (order, name) = names[match code? {
                    1 => 2,
                    0 => 0,
                    _ => 1,
                }];
                Some((order, name.to_owned()))
            };
            return Ok(Some(source.labels()?.iter().map(|codes| group(codes[finding])).collect()));
        }
        if let Some(scale) = dataset.manifest().grades.iter().find(|scale| scale.name == name) {
            let mut values = Vec::with_capacity(dataset.len());
            for array in columns(source, "grades")? {
                let grades =
                    array.as_any().downcast_ref::<StructArray>().and_then(|grades| grades.column_by_name(name));
                let Some(codes) = grades.and_then(|codes| codes.as_any().downcast_ref::<Int8Array>()) else {
                    bail!("`grades` is not of the format's type");
                };
                let group = |code: Option<i8>| {
                    let at = usize::try_from(code?).ok()?;
                    Some((at, scale.values.get(at)?.clone()))
                };
                values.extend(codes.iter().map(group));
            }
            return Ok(Some(values));
        }
        sections(source, name)
    }

    /// Reads texts, or numbers by band.
    fn read(&self, column: &str, array: &ArrayRef, values: &mut Vec<Option<Place>>) -> Result<()> {
        let any = array.as_any();
        if let Some(texts) = any.downcast_ref::<StringArray>() {
            if !self.bands.is_empty() {
                bail!("--subgroups: `{}` is a column of texts, which have no bands", self.name);
            }
            values
                .extend(texts.iter().map(|text| text.filter(|text| !text.is_empty()).map(|text| (0, text.to_owned()))));
            return Ok(());
        }
        let numbers: Vec<Option<f64>> = if let Some(numbers) = any.downcast_ref::<Float32Array>() {
            numbers.iter().map(|number| number.filter(|number| !number.is_nan()).map(f64::from)).collect()
        } else if let Some(numbers) = any.downcast_ref::<UInt16Array>() {
            numbers.iter().map(|number| number.map(f64::from)).collect()
        } else if let Some(numbers) = any.downcast_ref::<UInt32Array>() {
            numbers.iter().map(|number| number.map(f64::from)).collect()
        } else {
            bail!("--subgroups: `{}` has neither texts nor numbers", self.name);
        };
        let bands = match (self.bands.as_slice(), column) {
            ([], "age_years") => &AGE_BANDS[..],
            ([], _) => bail!(
                "--subgroups: `{0}` is a column of numbers: give the edges of its bands, as {0}=0,1000,2000",
                self.name
            ),
            (bands, _) => bands,
        };
        values.extend(numbers.into_iter().map(|number| number.map(|number| band(bands, number))));
        Ok(())
    }

    /// What the dataset has instead.
    fn unknown(&self, source: &DataSource) -> Result<String> {
        let dataset = &source.dataset;
        let mut known: Vec<String> = vec!["age".to_owned()];
        if let Some(batch) = dataset.columns(&COLUMNS)?.first() {
            known.extend(batch.schema().fields().iter().map(|field| field.name().clone()));
        }
        known.extend(dataset.findings().iter().cloned());
        known.extend(dataset.manifest().grades.iter().map(|scale| scale.name.clone()));
        let mut text = format!("this dataset has no column `{}`; it has: {}", self.name, known.join(", "));
        write!(text, ", and the names of its texts{}", did_you_mean(&self.name, known.iter().map(String::as_str)))?;
        Ok(text)
    }
}

/// Columns that records are usually grouped by, for messages.
const COLUMNS: [&str; 8] =
    ["sex", "view", "age_years", "language", "subset", "label_origin", "source_height", "source_width"];

/// Columns of lists and structs, whose items are named instead, and of bytes.
const NESTED: [&str; 11] = [
    "labels",
    "grades",
    "texts",
    "boxes",
    "masks",
    "readings",
    "token_ids",
    "pixel_spacing",
    "window",
    "image",
    "source_digest",
];

/// The arrays of a column of all shards; empty where there is none of this name.
fn columns(source: &DataSource, name: &str) -> Result<Vec<ArrayRef>> {
    let batches = source.dataset.columns(&[name])?;
    Ok(batches.iter().filter_map(|batch| batch.column_by_name(name).cloned()).collect())
}

/// The texts of the sections of a name; none where no record has one.
fn sections(source: &DataSource, name: &str) -> Result<Option<Vec<Option<Place>>>> {
    // Names of texts are in lower case.
    let wanted = name.to_lowercase();
    let mut values = Vec::with_capacity(source.dataset.len());
    for array in columns(source, "texts")? {
        let parts = || {
            let lists = array.as_any().downcast_ref::<ListArray>()?;
            let items = lists.values().as_any().downcast_ref::<StructArray>()?;
            let texts = |field: &str| items.column_by_name(field)?.as_any().downcast_ref::<StringArray>();
            Some((lists, texts("name")?, texts("text")?))
        };
        let Some((lists, names, texts)) = parts() else { bail!("`texts` is not of the format's type") };
        let offsets = lists.value_offsets();
        for row in 0..lists.len() {
            let mut of_row = offsets[row] as usize..offsets[row + 1] as usize;
            // Of several of a name the last one, as the loader takes it.
            let text = of_row.rfind(|&at| names.value(at) == wanted).map(|at| texts.value(at).trim());
            values.push(text.filter(|text| !text.is_empty()).map(|text| (0, text.to_owned())));
        }
    }
    Ok(values.iter().any(Option::is_some).then_some(values))
}

/// Position and name of the band of a number.
fn band(edges: &[f64], number: f64) -> Place {
    let above = edges.partition_point(|edge| *edge <= number);
    let name = match (above.checked_sub(1).map(|at| edges[at]), edges.get(above)) {
        (None, Some(high)) => format!("below {high}"),
        (Some(low), Some(high)) => format!("{low} to below {high}"),
        (Some(low), None) => format!("{low} and above"),
        (None, None) => String::new(),
    };
    (above, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_belong_to_the_column_before_them() {
        let columns = SubgroupColumn::parse_list("sex, age=0,18,65.5,view").unwrap();
        let shown: Vec<_> = columns.iter().map(|column| (column.name.as_str(), column.bands.as_slice())).collect();
        assert_eq!(shown, [("sex", &[][..]), ("age", &[0.0, 18.0, 65.5]), ("view", &[])]);
        for (text, words) in [
            ("sex,,view", "give each column once"),
            ("sex,sex", "give each column once"),
            ("age=old", "`old` is no number"),
            ("age=40,18", "must be finite and ascending"),
            ("age=nan", "must be finite and ascending"),
        ] {
            let error = SubgroupColumn::parse_list(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn groups_are_in_order_and_not_too_many() {
        let column = SubgroupColumn { name: "site".to_owned(), bands: Vec::new() };
        let place = |order: usize, name: &str| Some((order, name.to_owned()));
        let grouping = column.groups(&[place(1, "a"), None, place(0, "b"), place(1, "a")]).unwrap();
        assert_eq!(
            (grouping.groups, grouping.of_row, grouping.unstated),
            (["b", "a", UNSTATED].map(str::to_owned).to_vec(), vec![1, 2, 0, 1], Some(2))
        );
        assert_eq!(column.groups(&[place(0, "b")]).unwrap().unstated, None);
        let many: Vec<Option<Place>> = (0..=MAX_GROUPS).map(|at| place(0, &format!("{at:03}"))).collect();
        assert_eq!(column.groups(&many[1..]).unwrap().groups.len(), MAX_GROUPS);
        let error = column.groups(&many).unwrap_err().to_string();
        assert!(error.contains("`site` has 51 values among these records, more than 50"), "{error}");
    }

    #[test]
    fn a_band_begins_at_its_edge() {
        let names: Vec<String> = [-1.0, 0.0, 17.9, 18.0, 90.0].map(|age| band(&AGE_BANDS, age).1).to_vec();
        assert_eq!(names, ["below 0", "0 to below 18", "0 to below 18", "18 to below 40", "80 and above"]);
        assert!((0..5).all(|at| band(&AGE_BANDS, AGE_BANDS[at]).0 == at + 1));
    }
}
