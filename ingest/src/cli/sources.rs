//! The subcommands of the public data sets.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;

use super::arguments::CommonArguments;
use super::run::ingest;
use crate::sources::{Chexpert, Covid, ImageKind, Labeler, MimicCxr, Nih, OpenI, Rsna, Siim};

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
    #[command(after_help = "Example: ingest chexpert /raw/CheXpert-v1.0-small data/chexpert")]
    Chexpert(CommonArguments),
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
}

impl SourceCommand {
    /// Ingests the data set.
    pub fn run(self) -> Result<u8> {
        match self {
            Self::MimicCxr { arguments, reports, labels, images } => {
                let source = MimicCxr { no_images: arguments.no_images, images, labeler: labels, reports };
                ingest(&source, &arguments, None)
            }
            Self::Chexpert(arguments) => ingest(&Chexpert { no_images: arguments.no_images }, &arguments, None),
            Self::Nih(arguments) => ingest(&Nih { no_images: arguments.no_images }, &arguments, None),
            Self::Covid(arguments) => ingest(&Covid { no_images: arguments.no_images }, &arguments, None),
            Self::Rsna(arguments) => ingest(&Rsna, &arguments, None),
            Self::Siim(arguments) => ingest(&Siim, &arguments, None),
            Self::Openi(arguments) => ingest(&OpenI { reports_alone: arguments.no_images }, &arguments, None),
        }
    }
}
