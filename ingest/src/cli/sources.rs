//! The subcommands of the sources.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use super::arguments::CommonArguments;
use super::folder::{self, FolderArguments};
use super::request::Request;
use crate::run::plan::Source;
use crate::sources::{Chexpert, Covid, ImageKind, LabeledPart, Labeler, MimicCxr, Nih, OpenI, Rsna, Siim};

#[expect(clippy::large_enum_variant, reason = "there is one value, parsed once")]
#[derive(Subcommand)]
pub enum SourceCommand {
    /// MIMIC-CXR or MIMIC-CXR-JPG: `files/`, reports, metadata, split and label tables.
    #[command(after_help = "Examples:
  ingest mimic-cxr /raw/mimic-cxr data/mimic
  ingest mimic-cxr /raw/mimic-cxr data/mimic --intensity mimic-cxr-jpg --report-text findings+impression --jobs 16
  ingest mimic-cxr /raw/mimic-cxr s3://bucket/mimic --reports /raw/mimic-cxr-reports")]
    MimicCxr {
        #[command(flatten)]
        arguments: CommonArguments,
        /// Folder of the reports (with files/pNN/pNNNNNNNN/sNNNNNNNN.txt), where they are not below RAW_DIR.
        #[arg(long, value_name = "DIR")]
        reports: Option<PathBuf>,
        /// The label table. Default: that of CheXpert if there is one, else that of NegBio.
        #[arg(long, value_enum)]
        labels: Option<Labeler>,
        /// The kind of image files. Default: the kind with files of more radiographs; JPG at a tie.
        #[arg(long, value_enum)]
        images: Option<ImageKind>,
    },
    /// CheXpert v1.0, v1.0-small or Plus: `train.csv`, `valid.csv` and the images that they list.
    #[command(after_help = "Examples:
  ingest chexpert /raw/CheXpert-v1.0-small data/chexpert
  ingest chexpert /raw/chexpert-plus data/chexpert --images dicom --labels impression")]
    Chexpert {
        #[command(flatten)]
        arguments: CommonArguments,
        /// The part of the reports of CheXpert Plus that the labels of training images are from: `*_fixed.json`. Default:
        /// those of train.csv.
        #[arg(long, value_enum)]
        labels: Option<LabeledPart>,
        /// The kind of image files. Default: JPG where an image has both.
        #[arg(long, value_enum)]
        images: Option<ImageKind>,
    },
    /// NIH ChestX-ray14: `Data_Entry_2017*.csv`, PNGs, lists and boxes.
    #[command(after_help = "Example: ingest nih /raw/nih data/nih --image-encoding png")]
    Nih(CommonArguments),
    /// COVID-19 Image Data Collection: `metadata.csv` and `images/`.
    #[command(after_help = "Example: ingest covid /raw/covid-chestxray-dataset data/covid --max-reject-rate 0.2")]
    Covid(CommonArguments),
    /// RSNA Pneumonia Detection Challenge: `stage_2_train_images/`, `stage_2_train_labels.csv`, boxes and classes.
    #[command(after_help = "Example: ingest rsna /raw/rsna data/rsna")]
    Rsna(CommonArguments),
    /// SIIM-ACR Pneumothorax: `dicom-images-train/`, `train-rle.csv`; masks.
    #[command(after_help = "Example: ingest siim /raw/siim data/siim")]
    Siim(CommonArguments),
    /// Open-i, Indiana University: XML reports and the images that they list.
    #[command(after_help = "Example: ingest openi /raw/openi data/openi")]
    Openi(CommonArguments),
    /// Any directory of DICOM, PNG and JPEG files, with or without a table.
    #[command(after_help = folder::EXAMPLES)]
    Folder(FolderArguments),
}

impl SourceCommand {
    /// The source and its arguments. `table` is the text of the table of `folder` where it is in no file.
    pub fn request(self, table: Option<Vec<u8>>) -> Request {
        let (source, arguments): (Box<dyn Source>, _) = match self {
            Self::Folder(arguments) => return arguments.request(table),
            Self::MimicCxr { arguments, reports, labels, images } => {
                let no_images = arguments.no_images;
                (Box::new(MimicCxr { no_images, images, labeler: labels, reports }), arguments)
            }
            Self::Chexpert { arguments, labels, images } => {
                let no_images = arguments.no_images;
                (Box::new(Chexpert { no_images, images, labels }), arguments)
            }
            Self::Nih(arguments) => (Box::new(Nih { no_images: arguments.no_images }), arguments),
            Self::Covid(arguments) => (Box::new(Covid { no_images: arguments.no_images }), arguments),
            Self::Rsna(arguments) => (Box::new(Rsna), arguments),
            Self::Siim(arguments) => (Box::new(Siim), arguments),
            Self::Openi(arguments) => (Box::new(OpenI { reports_alone: arguments.no_images }), arguments),
        };
        Request { source: Arc::from(source), arguments, path_map: None }
    }
}

/// The part of the command line that Python takes.
#[derive(Parser)]
#[command(name = "ingest")]
struct Sources {
    #[command(subcommand)]
    command: SourceCommand,
}

impl Request {
    /// Parses `ingest SOURCE RAW_DIR OUT …`. `table` is the text of the table of the source `folder` where it is in no file;
    /// `--table` only names it then.
    ///
    /// # Errors
    /// As the command line; a dry run and a check of the input are errors, too.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>, table: Option<Vec<u8>>) -> Result<Self, clap::Error> {
        let matches = Sources::command().try_get_matches_from(arguments)?;
        let request = Sources::from_arg_matches(&matches)?.command.request(table);
        let CommonArguments { dry_run, check_input, .. } = request.arguments;
        match [("--dry-run", dry_run), ("--check-input", check_input)].iter().find(|(_, given)| *given) {
            Some((name, _)) => {
                let message = format!("{name} is an option of the command line only");
                Err(Sources::command().error(clap::error::ErrorKind::ArgumentConflict, message))
            }
            None => Ok(request),
        }
    }
}
