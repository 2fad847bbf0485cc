//! Where labels are from, as the column `label_origin` says it. Labels that a program took from reports are `nlp:` and the
//! name of the program.

/// One radiologist, or several that each read a part of the images.
pub const RADIOLOGIST: &str = "radiologist";
/// Physicians of whom the source does not say that they are radiologists.
pub const PHYSICIAN: &str = "physician";
/// Several radiologists who agreed.
pub const CONSENSUS: &str = "consensus";
/// People who indexed the reports by their findings.
pub const INDEXER: &str = "indexer";
/// The article or website that the image is from.
pub const PUBLICATION: &str = "publication";
/// The labeler of CheXpert.
pub const CHEXPERT: &str = "nlp:chexpert";
/// `NegBio`.
pub const NEGBIO: &str = "nlp:negbio";
/// `CheXbert`.
pub const CHEXBERT: &str = "nlp:chexbert";
/// The recurrent network of PadChest's authors.
pub const PADCHEST: &str = "nlp:padchest";
/// The labeler of ChestX-ray14.
pub const NIH: &str = "nlp:nih";
