//! The contents of a dataset as text: counts, prevalence, lengths, rejects, single records.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use arrow_array::{Array, Float32Array, Int8Array, ListArray, StringArray, StructArray, UInt16Array};
use sha2::{Digest, Sha256};

use crate::commands::reject_reasons;
use crate::commands::wording::counted;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::format::label::Label;
use crate::format::manifest::REJECTS;
use crate::format::table::{self, from_parquet};

/// A page of text: counts, views, label prevalence, token lengths, sizes, rejects, splits.
///
/// # Errors
/// When a column cannot be read.
pub fn summary(dataset: &Dataset) -> Result<String> {
    let manifest = dataset.manifest();
    let mut page = String::new();
    let mut line = |text: String| {
        let _ = writeln!(page, "{text}");
    };
    let totals = &manifest.totals;
    line(format!("{} — {} (format {})", dataset.storage(), manifest.source, manifest.format_version));
    line(format!(
        "records   {} of {}, {}; {} with a report",
        totals.records,
        counted(totals.studies as usize, "study"),
        counted(totals.patients as usize, "patient"),
        totals.reports
    ));
    line(format!("shards    {}, {:.1} MB", counted(manifest.shards.len(), "file"), totals.bytes as f64 / 1e6));
    let image = &manifest.image;
    line(format!(
        "images    {}, compression {}, intensity {}, resize {} {}; mean {:.4}, std {:.4}",
        image.encoding.name(),
        image.compression,
        image.intensity,
        image.resize,
        image.size,
        image.mean,
        image.std
    ));
    line(format!(
        "rejects   {}",
        if manifest.rejects.is_empty() {
            "none".to_owned()
        } else {
            format!("{} (see --rejects)", counts(manifest.rejects.iter().map(|(k, v)| (k.clone(), *v))))
        }
    ));

    let (mut heights, mut widths, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
    let mut ages = Vec::new();
    for batch in dataset.columns(&["height", "width", "token_ids", "age_years"])? {
        let side = |name| table::column::<UInt16Array>(&batch, name);
        if let (Some(h), Some(w)) = (side("height"), side("width")) {
            heights.extend(h.values().iter().map(|&v| f64::from(v)));
            widths.extend(w.values().iter().map(|&v| f64::from(v)));
        }
        if let Some(tokens) = table::column::<ListArray>(&batch, "token_ids") {
            lengths.extend((0..tokens.len()).map(|row| tokens.value(row).len() as f64));
        }
        if let Some(age) = table::column::<Float32Array>(&batch, "age_years") {
            ages.extend((0..age.len()).filter(|&row| age.is_valid(row)).map(|row| f64::from(age.value(row))));
        }
    }
    line(format!("height    {}", five_numbers(heights)));
    line(format!("width     {}", five_numbers(widths)));
    line(format!(
        "tokens    {} (vocabulary {}, cut at {})",
        five_numbers(lengths),
        manifest.text.vocabulary,
        manifest.text.max_tokens
    ));
    line(format!("age       {}", five_numbers(ages)));
    for name in ["view", "sex", "subset", "language"] {
        line(format!("{name:<9} {}", counts(value_counts(&dataset.texts(name)?))));
    }
    named_items(dataset)?.into_iter().for_each(&mut line);
    let labels = dataset.labels()?;
    if !dataset.findings().is_empty() {
        let labeled = labels.iter().filter(|row| row.iter().any(Option::is_some)).count();
        line(format!(
            "\nlabels    {labeled} of {} records have some ({}); blank: none for this finding in a record that has some;\n          \
             prevalence: positives among the records where this finding is labeled",
            labels.len(),
            counts(value_counts(&dataset.texts("label_origin")?))
        ));
        line(format!(
            "{:<34}{:>9}{:>9}{:>9}{:>10}{:>9}{:>12}",
            "finding", "labeled", "positive", "negative", "uncertain", "blank", "prevalence"
        ));
        for (index, finding) in dataset.findings().iter().enumerate() {
            let count = |label: Option<Label>| labels.iter().filter(|row| row[index] == label).count();
            let (positive, stated) = (count(Some(Label::Positive)), labels.len() - count(None));
            let prevalence =
                if stated == 0 { "–".to_owned() } else { format!("{:.1}%", 100.0 * positive as f64 / stated as f64) };
            line(format!(
                "{finding:<34}{stated:>9}{positive:>9}{:>9}{:>10}{:>9}{prevalence:>12}",
                count(Some(Label::Negative)),
                count(Some(Label::Uncertain)),
                labeled - stated,
            ));
        }
    }
    joins(dataset)?.into_iter().for_each(&mut line);
    let splits = crate::split::stored::known_splits(dataset.storage())?;
    line(format!(
        "splits    {}",
        match splits.join(", ") {
            _ if dataset.storage().is_read_only() => "not listed (a web server cannot list files)".to_owned(),
            none if none.is_empty() => "none (make one with `dataset split`)".to_owned(),
            names => names,
        }
    ));
    Ok(page)
}

/// A line for each join, or why there is none.
fn joins(dataset: &Dataset) -> Result<Vec<String>> {
    let names = dataset.joins()?;
    if dataset.storage().is_read_only() {
        return Ok(vec!["\njoins     not listed (a web server cannot list files)".to_owned()]);
    }
    let seen = dataset.joined_names();
    let of = |(at, name): (usize, &String)| {
        let facts = dataset.join(name).map(|join| join.facts().to_string());
        let facts = facts.unwrap_or_else(|error| format!("unusable: {error}"));
        let (before, head) = if at == 0 { ("\n", "joins") } else { ("", "") };
        let here = if seen.contains(name) { " (shown here)" } else { "" };
        format!("{before}{head:<9} {name}: {facts}{here}")
    };
    let lines: Vec<String> = names.iter().enumerate().map(of).collect();
    Ok(if lines.is_empty() { vec!["\njoins     none (make one with `ingest join`)".to_owned()] } else { lines })
}

/// Lines about sections, studies, grades, readers and masks, for those that the dataset has.
fn named_items(dataset: &Dataset) -> Result<Vec<String>> {
    let (mut dated, mut texts, mut readers) = (0, BTreeMap::new(), BTreeMap::new());
    let scales = &dataset.manifest().grades;
    let mut grades: Vec<BTreeMap<i8, u64>> = vec![BTreeMap::new(); scales.len()];
    for batch in dataset.columns(&["study_datetime", "study_order", "texts", "grades", "readings"])? {
        let times = ["study_datetime", "study_order"].map(|name| batch.column_by_name(name));
        let is_dated = |row: &usize| times.iter().flatten().any(|times| times.is_valid(*row));
        dated += (0..batch.num_rows()).filter(is_dated).count();
        for (column, field, counted) in [("texts", "name", &mut texts), ("readings", "reader", &mut readers)] {
            let items = table::column::<ListArray>(&batch, column).map(|lists| lists.values().clone());
            let items = items.as_ref().and_then(|items| items.as_any().downcast_ref::<StructArray>());
            let names = items.and_then(|items| items.column_by_name(field)?.as_any().downcast_ref::<StringArray>());
            for name in names.into_iter().flatten().flatten() {
                *counted.entry(name.to_owned()).or_insert(0u64) += 1;
            }
        }
        let columns = table::column::<StructArray>(&batch, "grades").map_or(&[][..], StructArray::columns);
        for (column, counted) in columns.iter().zip(&mut grades) {
            for grade in column.as_any().downcast_ref::<Int8Array>().into_iter().flatten().flatten() {
                *counted.entry(grade).or_default() += 1;
            }
        }
    }
    let mut lines = Vec::new();
    if dated > 0 {
        lines.push(format!("studies   {dated} records with a date or an order in time"));
    }
    for (name, counted) in [("sections", texts), ("readers", readers)] {
        if !counted.is_empty() {
            lines.push(format!("{name:<9} {}", counts(counted.into_iter())));
        }
    }
    let masks = dataset.mask_names();
    if !masks.is_empty() {
        lines.push(format!("masks     named {}", masks.join(", ")));
    }
    for (scale, counted) in scales.iter().zip(grades) {
        let value = |grade: i8| usize::try_from(grade).ok().and_then(|at| scale.values.get(at)).cloned();
        let counted =
            counted.into_iter().map(|(grade, count)| (value(grade).unwrap_or_else(|| grade.to_string()), count));
        lines.push(format!("grade     {}: {}", scale.name, counts(counted)));
    }
    Ok(lines)
}

/// How often a text column has each of its values, the most frequent one first; among equals the last in the alphabet.
fn value_counts(values: &[Option<String>]) -> impl Iterator<Item = (String, u64)> {
    let mut counted: BTreeMap<Option<&str>, u64> = BTreeMap::new();
    values.iter().for_each(|value| *counted.entry(value.as_deref()).or_default() += 1);
    let mut counted: Vec<_> = counted.into_iter().rev().collect();
    counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counted.into_iter().map(|(value, count)| (value.unwrap_or("not stated").to_owned(), count))
}

/// How many inputs were rejected for each reason, the most frequent one first, with an example.
///
/// # Errors
/// When the table of rejects cannot be read.
pub fn reject_reasons(dataset: &Dataset) -> Result<String> {
    let listed = rejects(dataset)?;
    let mut by_stage: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for line in listed.lines() {
        let mut cells = line.splitn(4, '\t').map(|cell| if cell.is_empty() { "(no path)" } else { cell });
        if let (Some(stage), Some(path), _, Some(error)) = (cells.next(), cells.next(), cells.next(), cells.next()) {
            by_stage.entry(stage).or_default().push((error, path));
        }
    }
    let groups = by_stage.iter().flat_map(|(stage, rows)| {
        reject_reasons::group(rows.iter().copied()).into_iter().map(move |group| (*stage, group))
    });
    let mut groups: Vec<_> = groups.collect();
    groups.sort_by(|(_, a), (_, b)| b.count.cmp(&a.count).then_with(|| a.reason.cmp(&b.reason)));
    if groups.is_empty() {
        return Ok("no input was left out\n".to_owned());
    }
    let mut page = format!(
        "{} left out, {} (--all lists every one)\n",
        match listed.lines().count() {
            1 => "1 input was".to_owned(),
            inputs => format!("{inputs} inputs were"),
        },
        counted(groups.len(), "reason")
    );
    for (stage, group) in groups {
        let _ = writeln!(page, "{:>8}  {stage:<7} {}\n{:18}example: {}", group.count, group.reason, "", group.example);
    }
    Ok(page)
}

/// Every rejected input on a line of its own: stage, file, record and reason, separated by tabs.
///
/// # Errors
/// When the table of rejects cannot be read.
pub fn rejects(dataset: &Dataset) -> Result<String> {
    let storage = dataset.storage();
    let mut page = String::new();
    let bytes = storage.read(REJECTS)?;
    let expected = &dataset.manifest().rejects_sha256;
    if !expected.is_empty() && crate::store::files::hex(&Sha256::digest(&bytes)) != *expected {
        let message = "its SHA-256 is not the manifest's; restore it from a copy, or ingest again with --overwrite";
        return Err(Error::Invalid(format!("{}: {message}", storage.path(REJECTS).display())));
    }
    for batch in from_parquet(&storage.path(REJECTS), bytes)? {
        let columns: Vec<&StringArray> = ["stage", "source_path", "record_id", "error"]
            .iter()
            .map(|name| {
                table::column(&batch, name).ok_or_else(|| Error::Invalid(format!("{REJECTS}: no text column `{name}`")))
            })
            .collect::<Result<_>>()?;
        for row in 0..batch.num_rows() {
            let cell = |column: &&StringArray| {
                let text = if column.is_valid(row) { column.value(row) } else { "" };
                text.replace(['\t', '\n', '\r'], " ")
            };
            let _ = writeln!(page, "{}", columns.iter().map(cell).collect::<Vec<_>>().join("\t"));
        }
    }
    Ok(page)
}

fn counts(pairs: impl Iterator<Item = (String, u64)>) -> String {
    pairs.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

fn five_numbers(mut values: Vec<f64>) -> String {
    if values.is_empty() {
        return "none".to_owned();
    }
    values.sort_by(f64::total_cmp);
    let quantile = |q: f64| values[((values.len() - 1) as f64 * q).round() as usize];
    format!(
        "min {} · quartiles {} {} {} · max {}",
        quantile(0.0),
        quantile(0.25),
        quantile(0.5),
        quantile(0.75),
        quantile(1.0)
    )
}

/// One record as text.
///
/// # Errors
/// When there is no such record, or it cannot be read.
pub fn row(dataset: &Dataset, record_id: &str) -> Result<String> {
    let record = dataset.record(dataset.row_of(record_id)?)?;
    let mut page = String::new();
    let mut field = |name: &str, value: String| {
        let _ = writeln!(page, "{name:<17}{value}");
    };
    let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "—".to_owned());
    field("record_id", record.record_id.clone());
    // The studies of some sources begin with the patient: `patient/study`.
    let patient = record.patient_id.as_str();
    let study =
        record.study_id.strip_prefix(patient).and_then(|rest| rest.strip_prefix('/')).unwrap_or(&record.study_id);
    field("patient / study", format!("{patient} / {study} / image {}", record.image_id));
    field(
        "source",
        format!(
            "{} ({}×{}), {} {}",
            record.source_path,
            record.source_width,
            record.source_height,
            dataset.manifest().source_digest,
            crate::store::files::hex(&record.source_digest)
        ),
    );
    field("stored", format!("{}×{}, {} bytes", record.width, record.height, record.image.len()));
    field("subset, view", format!("{}, {}", or_none(&record.subset), or_none(&record.view)));
    field(
        "sex, age",
        format!("{}, {}", or_none(&record.sex), record.age_years.map_or("—".to_owned(), |age| age.to_string())),
    );
    let order = record.study_order.map_or(String::new(), |order| format!("number {order} of the patient"));
    let time = [record.study_datetime.clone().unwrap_or_default(), order];
    field("study time", or_none(&Some(time.join(" ").trim().to_owned()).filter(|time| !time.is_empty())));
    let spacing = record.pixel_spacing.map(|[row, column]| format!("{row} × {column} mm (rows, columns, raw image)"));
    field("pixel spacing", or_none(&spacing));
    if let Some([center, width]) = record.window {
        field("window", format!("center {center}, width {width} (stored values)"));
    }
    let labeled = |labels: &[Option<Label>]| {
        let named = dataset.findings().iter().zip(labels);
        named.filter_map(|(name, label)| Some(format!("{name}={}", (*label)?))).collect::<Vec<_>>().join(", ")
    };
    field("labels", labeled(&record.labels));
    field("label origin", or_none(&record.label_origin));
    for reading in &record.readings {
        field("reader", format!("{}: {}", reading.reader, labeled(&reading.labels)));
    }
    for (scale, grade) in dataset.manifest().grades.iter().zip(&record.grades) {
        let value = grade.and_then(|grade| scale.values.get(usize::try_from(grade).ok()?)).cloned();
        field("grade", format!("{}: {}", scale.name, or_none(&value)));
    }
    for b in &record.boxes {
        let score = b.score.map_or(String::new(), |score| format!(", score {score}"));
        let reader = b.reader.as_ref().map_or(String::new(), |reader| format!(", reader {reader}"));
        let sentence = b.sentence.as_ref().map_or(String::new(), |sentence| format!(": {sentence}"));
        let place = format!("at {:.0},{:.0} size {:.0}×{:.0}", b.x, b.y, b.width, b.height);
        field("box", format!("{} {place}{score}{reader}{sentence}", b.label));
    }
    for mask in &record.masks {
        field("mask", format!("{}: PNG of {} bytes", mask.name, mask.png.len()));
    }
    field("language", or_none(&record.language));
    field("tokens", format!("{:?}", record.token_ids));
    field("report", format!("\n{}", or_none(&record.report)));
    field("findings", format!("\n{}", or_none(&record.findings)));
    field("impression", format!("\n{}", or_none(&record.impression)));
    let sections = record.texts.iter().map(|text| format!("{} ({} tokens)", text.name, text.token_ids.len()));
    field("sections", sections.collect::<Vec<_>>().join(", "));
    Ok(page)
}
