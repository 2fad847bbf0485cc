//! The subcommand `join`: labels, boxes, masks, texts or subsets of a table about a dataset that exists. Python takes the same
//! arguments.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, CommandFactory, Parser, ValueEnum};
use dataset::commands::cli::count;
use dataset::commands::progress::Meter;
use dataset::format::record_checks;
use dataset::join::{JoinKind, Unmatched};
use dataset::progress::OnProgress;

use crate::error::Error;
use crate::image::mask::{RunForm, RunOrder};
use crate::join::options::{BoxForm, BoxUnit, Duplicates, Least, Rename};
use crate::join::{JoinOptions, JoinReport, JoinSource, KeyColumn, join};
use crate::sources::{LabelWord, NamedColumn};

pub const EXAMPLES: &str = "Examples:\n  \
    ingest join data/mimic --table cxr-lt.csv --key dicom_id --as labels\n  \
    ingest join data/mimic --table ms-cxr.csv --key dicom_id --as boxes \\\n    \
    --box-columns x,y,w,h --box-label category_name\n\n\
    `dataset inspect` lists joins; `dataset split --labels`, `trainer --join` and mrm.Loader(join=…) use them.";

/// Write labels, boxes, masks, texts or subsets of a table beside a dataset that exists; its shards stay as they are.
#[derive(Args)]
pub struct JoinArguments {
    /// Directory or URL of the dataset.
    pub dataset: PathBuf,
    /// The table: text separated by commas, semicolons or tabs, JSON lines (.jsonl), each plain or gzipped, or Parquet.
    #[arg(long, value_name = "FILE")]
    table: PathBuf,
    /// Column of the table that says which records a row is about.
    #[arg(long, value_name = "C")]
    key: String,
    /// Column of the records that it is compared with [default: the one with the most matches]. A row is about all images of a
    /// study or patient.
    #[arg(long, value_enum)]
    on: Option<KeyColumn>,
    /// What the table has.
    #[arg(long = "as", value_name = "KIND", value_enum)]
    kind: JoinKind,
    /// Name of the join [default: that of the table's file].
    #[arg(long, value_parser = join_name)]
    name: Option<String>,
    /// Rows with a smaller number in a column are left out, and those without one; may be repeated.
    #[arg(long, value_name = "C=NUMBER")]
    min: Vec<Least>,
    /// Where two rows about one record differ: write nothing, or take the first one.
    #[arg(long, value_enum, default_value_t)]
    duplicates: Duplicates,
    /// What readers see in a record that no row is about: nothing, or what the dataset itself has.
    #[arg(long, value_enum, default_value_t)]
    unmatched: Unmatched,
    /// Leave out rows with a value that cannot be read, and count them.
    #[arg(long)]
    skip_unreadable: bool,
    /// labels: columns of findings: 1, 0, -1 (uncertain) or blank, or words for them [default: all columns with such cells].
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    label_columns: Vec<String>,
    /// labels: columns of class names: each class becomes a finding.
    #[arg(long, value_name = "C", value_delimiter = ',')]
    class_column: Vec<String>,
    /// labels: meaning of other words: 1, 0, -1 or blank. COLUMN:WORD=CODE is for one column.
    #[arg(long, value_name = "WORD=CODE,…", value_delimiter = ',', allow_hyphen_values = true)]
    label_map: Vec<LabelWord>,
    /// labels: another name for a finding; may be repeated.
    #[arg(long, value_name = "OLD=NEW", value_delimiter = ',')]
    rename: Vec<Rename>,
    /// labels: where they are from: radiologist, consensus, nlp:PROGRAM …
    #[arg(long, value_name = "TEXT", value_parser = origin)]
    label_origin: Option<String>,
    /// boxes: columns of left and upper edge, width and height.
    #[arg(long, value_name = "X,Y,W,H", value_delimiter = ',', required_if_eq("kind", "boxes"))]
    box_columns: Vec<String>,
    /// boxes: the third and fourth number are sizes, or the right and lower edge.
    #[arg(long, value_enum, default_value_t)]
    box_form: BoxForm,
    /// boxes: pixels of the raw image (or of the size in --size-columns), shares of its sides, or pixels of the stored image.
    #[arg(long, value_enum, default_value_t)]
    box_unit: BoxUnit,
    /// boxes: column of what a box shows.
    #[arg(long, value_name = "C", required_if_eq("kind", "boxes"))]
    box_label: Option<String>,
    /// boxes: column of the sentence that a box belongs to.
    #[arg(long, value_name = "C")]
    sentence: Option<String>,
    /// boxes: column of the score of a detector.
    #[arg(long, value_name = "C")]
    box_score: Option<String>,
    /// masks: columns, each with its name: run lengths, or paths of PNG or JPEG files. Columns of one name are united.
    #[arg(long, value_name = "NAME=C,…", value_delimiter = ',', required_if_eq("kind", "masks"))]
    mask_columns: Vec<NamedColumn>,
    /// masks: what the run lengths mean.
    #[arg(long, value_enum, default_value_t)]
    mask_runs: RunForm,
    /// masks: the order of pixels that run lengths go along.
    #[arg(long, value_enum, default_value_t)]
    mask_order: RunOrder,
    /// masks: folder of the files [default: that of the table].
    #[arg(long, value_name = "DIR")]
    mask_folder: Option<PathBuf>,
    /// boxes, masks: columns of height and width of the image that they are about, where it is not the raw one, but of its
    /// shape.
    #[arg(long, value_name = "HEIGHT,WIDTH", value_delimiter = ',')]
    size_columns: Vec<String>,
    /// texts: columns, each with its name.
    #[arg(long, value_name = "NAME=C,…", value_delimiter = ',', required_if_eq("kind", "texts"))]
    text_columns: Vec<NamedColumn>,
    /// subset: column of train, validate, test, or other words for them.
    #[arg(long, value_name = "C", required_if_eq("kind", "subset"))]
    subset_column: Option<String>,
    /// Threads; they do not change the bytes. Default: one for each core.
    #[arg(long, value_parser = count::<1024>)]
    jobs: Option<usize>,
    /// Replace the join of this name.
    #[arg(long)]
    overwrite: bool,
}

/// The command line of `ingest join` alone, as Python gives it.
#[derive(Parser)]
#[command(name = "join")]
struct JoinCommand {
    #[command(flatten)]
    arguments: JoinArguments,
}

/// A name of an origin of labels.
fn origin(text: &str) -> Result<String, String> {
    record_checks::name("label_origin", text).map(|()| text.to_owned())
}

/// The name of a join, which is a part of file names.
fn join_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(['/', '\\', '.']) {
        return Err("give a name without `/`, `\\` and `.`".to_owned());
    }
    Ok(text.to_owned())
}

/// The name of a table's file, as far as it may be the name of a join.
fn name_of(table: &Path) -> String {
    let name = table.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem = name.split('.').next().unwrap_or_default();
    let name: String = stem.chars().map(|c| if c.is_alphanumeric() || c == '_' { c } else { '-' }).collect();
    if name.is_empty() { "join".to_owned() } else { name }
}

/// An argument that clap refuses in this combination.
fn usage(message: impl std::fmt::Display) -> clap::Error {
    JoinCommand::command().error(clap::error::ErrorKind::ArgumentConflict, message)
}

impl JoinArguments {
    /// The options of the join. `text` is the text of the table where it is in no file.
    ///
    /// # Errors
    /// A usage error: an option of another kind, or another number of columns.
    pub fn options(&self, text: Option<Vec<u8>>) -> Result<JoinOptions, clap::Error> {
        let given = self.given();
        let belongs = |of: Option<JoinKind>| of.is_none_or(|kind| kind == self.kind);
        let is_placed = matches!(self.kind, JoinKind::Boxes | JoinKind::Masks);
        if let Some((option, ..)) =
            given.iter().find(|(option, of, _)| !belongs(*of) || (*option == "--size-columns" && !is_placed))
        {
            return Err(usage(format!("{option} is no option of --as {}", self.kind.name())));
        }
        let size_columns = match self.size_columns.as_slice() {
            [] => None,
            [height, width] => Some([height.clone(), width.clone()]),
            other => return Err(usage(format!("--size-columns: give two columns, not {}", other.len()))),
        };
        let words = given.into_iter().flat_map(|(option, _, values)| {
            let quoted = values.join(",");
            if quoted.is_empty() { vec![option.to_owned()] } else { vec![option.to_owned(), quote(&quoted)] }
        });
        Ok(JoinOptions {
            name: self.name.clone().unwrap_or_else(|| name_of(&self.table)),
            table: self.table.clone(),
            text,
            key: self.key.clone(),
            on: self.on,
            source: self.source()?,
            size_columns,
            least: self.min.clone(),
            duplicates: self.duplicates,
            unmatched: self.unmatched,
            skip_unreadable: self.skip_unreadable,
            overwrite: self.overwrite,
            words: words.collect(),
        })
    }

    fn source(&self) -> Result<JoinSource, clap::Error> {
        let columns = |named: &[NamedColumn]| named.to_vec();
        Ok(match self.kind {
            JoinKind::Labels => JoinSource::Labels {
                columns: self.label_columns.clone(),
                class_columns: self.class_column.clone(),
                map: self.label_map.clone(),
                rename: self.rename.clone(),
                origin: self.label_origin.clone(),
            },
            JoinKind::Boxes => JoinSource::Boxes {
                columns: self.box_columns.clone().try_into().map_err(|given: Vec<String>| {
                    usage(format!("--box-columns: give four columns, not {}", given.len()))
                })?,
                form: self.box_form,
                unit: self.box_unit,
                label: self.box_label.clone().unwrap_or_default(),
                sentence: self.sentence.clone(),
                score: self.box_score.clone(),
            },
            JoinKind::Masks => JoinSource::Masks {
                columns: columns(&self.mask_columns),
                runs: self.mask_runs,
                order: self.mask_order,
                folder: self.mask_folder.clone(),
            },
            JoinKind::Texts => JoinSource::Texts { columns: columns(&self.text_columns) },
            JoinKind::Subset => JoinSource::Subset { column: self.subset_column.clone().unwrap_or_default() },
        })
    }

    /// The options that were given and decide the contents, in a fixed order: their names, the kind that they belong to, and
    /// their values.
    fn given(&self) -> Vec<(&'static str, Option<JoinKind>, Vec<String>)> {
        let one = |value: &Option<String>| value.iter().cloned().collect::<Vec<_>>();
        let named = |columns: &[NamedColumn]| columns.iter().map(ToString::to_string).collect::<Vec<_>>();
        let shown = |is_default: bool, name: &str| if is_default { Vec::new() } else { vec![name.to_owned()] };
        let (labels, boxes, masks) = (Some(JoinKind::Labels), Some(JoinKind::Boxes), Some(JoinKind::Masks));
        let value = |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
        let name = |found: Option<String>| found.unwrap_or_default();
        let folder = self.mask_folder.iter().map(|folder| folder.to_string_lossy().into_owned());
        let all = [
            ("--key", None, vec![self.key.clone()]),
            ("--as", None, vec![self.kind.name().to_owned()]),
            ("--name", None, one(&self.name)),
            ("--on", None, self.on.iter().map(|on| on.name().to_owned()).collect()),
            ("--min", None, self.min.iter().map(ToString::to_string).collect()),
            ("--duplicates", None, shown(self.duplicates == Duplicates::Error, "first")),
            ("--unmatched", None, shown(self.unmatched == Unmatched::Blank, self.unmatched.name())),
            ("--label-columns", labels, self.label_columns.clone()),
            ("--class-column", labels, self.class_column.clone()),
            ("--label-map", labels, self.label_map.iter().map(ToString::to_string).collect()),
            ("--rename", labels, self.rename.iter().map(ToString::to_string).collect()),
            ("--label-origin", labels, one(&self.label_origin)),
            ("--box-columns", boxes, self.box_columns.clone()),
            ("--box-form", boxes, shown(self.box_form == BoxForm::Size, "corners")),
            (
                "--box-unit",
                boxes,
                shown(self.box_unit == BoxUnit::Pixels, &name(value(self.box_unit.to_possible_value()))),
            ),
            ("--box-label", boxes, one(&self.box_label)),
            ("--sentence", boxes, one(&self.sentence)),
            ("--box-score", boxes, one(&self.box_score)),
            ("--mask-columns", masks, named(&self.mask_columns)),
            ("--mask-runs", masks, shown(self.mask_runs == RunForm::Relative, self.mask_runs.name())),
            ("--mask-order", masks, shown(self.mask_order == RunOrder::Columns, "rows")),
            ("--mask-folder", masks, folder.collect()),
            ("--size-columns", None, self.size_columns.clone()),
            ("--text-columns", Some(JoinKind::Texts), named(&self.text_columns)),
            ("--subset-column", Some(JoinKind::Subset), one(&self.subset_column)),
        ];
        let flags = self.skip_unreadable.then(|| ("--skip-unreadable", None, Vec::new()));
        all.into_iter().filter(|(.., values)| !values.is_empty()).chain(flags).collect()
    }

    /// Makes the join.
    ///
    /// # Errors
    /// As [`join()`].
    pub fn make(&self, options: &JoinOptions, progress: &OnProgress) -> Result<JoinReport, Error> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.jobs.unwrap_or(0)).build();
        let pool = pool.map_err(|error| Error::Threads(error.to_string()))?;
        pool.install(|| join(&self.dataset, options, progress))
    }

    /// Makes the join, and prints what was found.
    pub(super) fn run(&self) -> Result<u8> {
        let options = self.options(None)?;
        let meter = Meter::new("rows");
        let report = self.make(&options, &|step| meter.step(step));
        meter.finish();
        let report = report?;
        report.warnings.iter().for_each(|warning| dataset::cli_eprintln!("warning: {warning}"));
        dataset::cli_println!("{report}");
        Ok(0)
    }
}

/// A word as a shell takes it.
fn quote(word: &str) -> String {
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:=+,".contains(c));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}
