//! The subcommands of the sources.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use dataset::commands::cli::count;

use super::arguments::CommonArguments;
use super::folder::{self, FolderArguments};
use super::request::Request;
use crate::run::plan::Source;
use crate::sources::{
    CandidPtx, Chexpert, Covid, ImageKind, Kermany, LabeledPart, Labeler, Language, MimicCxr, Nih, NlmTb, OpenI,
    Padchest, PadchestGr, ReaderRule, Rexgradient, Rsna, Siim, SiimCovid, TaixRay, VindrCxr, VindrPcxr,
};

#[expect(clippy::large_enum_variant, reason = "there is one value, parsed once")]
#[derive(Subcommand)]
pub enum SourceCommand {
    /// MIMIC-CXR or MIMIC-CXR-JPG: `files/`, reports, metadata, split and label tables.
    #[command(after_help = "Examples:
  ingest mimic-cxr /raw/mimic-cxr data/mimic
  ingest mimic-cxr /raw/mimic-cxr data/mimic --intensity mimic-cxr-jpg --jobs 16
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
    /// VinDr-CXR: `train/`, `test/`, labels and boxes of three readers.
    #[command(after_help = "Examples:
  ingest vindr-cxr /raw/vindr-cxr/1.0.0 data/vindr
  ingest vindr-cxr /raw/vindr-cxr/1.0.0 data/vindr --readers union")]
    VindrCxr {
        #[command(flatten)]
        arguments: CommonArguments,
        /// How the labels of the readers of an image become its labels: positive if any reader says so, if more than half
        /// say so, or only what all say. The labels of each reader are stored in any case.
        #[arg(long, value_enum, default_value_t)]
        readers: ReaderRule,
    },
    /// VinDr-PCXR, radiographs of children: `train/`, `test/`, labels and boxes.
    #[command(after_help = "Example: ingest vindr-pcxr /raw/vindr-pcxr/1.0.0 data/vindr-children")]
    VindrPcxr(CommonArguments),
    /// PadChest: `PADCHEST_chest_x_ray_images_labels_160K_*.csv.gz` and folders of 16-bit PNGs; Spanish reports.
    #[command(after_help = "Examples:
  ingest padchest /raw/padchest data/padchest
  ingest padchest /raw/padchest data/padchest --min-label-count 100")]
    Padchest {
        #[command(flatten)]
        arguments: CommonArguments,
        /// Leave out labels of fewer images than N; the images are kept.
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = count::<{ u32::MAX as usize }>)]
        min_label_count: usize,
    },
    /// PadChest-GR: sentences with boxes, `master_table.csv`, PNGs.
    #[command(after_help = "Examples:
  ingest padchest-gr /raw/padchest-gr data/padchest-gr
  ingest padchest-gr /raw/padchest-gr data/padchest-gr --language es")]
    PadchestGr {
        #[command(flatten)]
        arguments: CommonArguments,
        /// The language of the sentences: the English translation or the Spanish original.
        #[arg(long, value_enum, default_value_t)]
        language: Language,
    },
    /// ReXGradient-160K: `metadata/*_metadata_view_position.json`, `deid_png/`; reports in sections.
    #[command(after_help = "Example: ingest rexgradient /raw/rexgradient data/rexgradient")]
    Rexgradient(CommonArguments),
    /// TAIX-Ray: the published Parquet files, or `data/` and `metadata/annotation.csv`; `split.csv`; grades by radiologists.
    #[command(after_help = "Examples:
  ingest taix-ray /raw/taix-ray data/taix-ray
  ingest taix-ray /raw/taix-ray data/taix-ray --fold 3 --threshold 2")]
    TaixRay {
        #[command(flatten)]
        arguments: CommonArguments,
        /// The fold of `split.csv`, or of the Parquet files, whose subsets are taken.
        #[arg(long, value_name = "N", default_value_t = 0)]
        fold: u8,
        /// The lowest grade that is a positive label: 1 is (+), 2 is + (of the heart: borderline, enlarged). The grades
        /// themselves are stored in any case.
        #[arg(long, value_name = "GRADE", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=4))]
        threshold: u8,
    },
    /// CANDID-PTX: `Pneumothorax_reports.csv`, `dataset/`; reports, masks of three kinds.
    #[command(after_help = "Example: ingest candid-ptx /raw/candid-ptx data/candid-ptx")]
    CandidPtx(CommonArguments),
    /// SIIM-FISABIO-RSNA COVID-19 Detection: `train/`, `test/`, appearances and boxes.
    #[command(after_help = "Example: ingest siim-covid /raw/siim-covid19-detection data/siim-covid")]
    SiimCovid(CommonArguments),
    /// Tuberculosis sets of the National Library of Medicine: Montgomery County, Shenzhen; readings, masks of the lungs.
    #[command(after_help = "Example: ingest nlm-tb /raw/nlm-tb data/nlm-tb")]
    NlmTb(CommonArguments),
    /// Children's pneumonia (Kermany et al. 2018): `chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}/`.
    #[command(after_help = "Example: ingest kermany /raw/chest-xray-pneumonia data/kermany")]
    Kermany(CommonArguments),
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
            Self::VindrCxr { arguments, readers } => {
                (Box::new(VindrCxr { no_images: arguments.no_images, readers }), arguments)
            }
            Self::VindrPcxr(arguments) => (Box::new(VindrPcxr { no_images: arguments.no_images }), arguments),
            Self::Padchest { arguments, min_label_count } => {
                (Box::new(Padchest { no_images: arguments.no_images, min_label_count }), arguments)
            }
            Self::PadchestGr { arguments, language } => {
                (Box::new(PadchestGr { no_images: arguments.no_images, language }), arguments)
            }
            Self::Rexgradient(arguments) => (Box::new(Rexgradient { no_images: arguments.no_images }), arguments),
            Self::TaixRay { arguments, fold, threshold } => {
                (Box::new(TaixRay { no_images: arguments.no_images, fold, threshold }), arguments)
            }
            Self::CandidPtx(arguments) => (Box::new(CandidPtx { no_images: arguments.no_images }), arguments),
            Self::SiimCovid(arguments) => (Box::new(SiimCovid), arguments),
            Self::NlmTb(arguments) => (Box::new(NlmTb { no_images: arguments.no_images }), arguments),
            Self::Kermany(arguments) => (Box::new(Kermany), arguments),
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
