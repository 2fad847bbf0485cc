//! The end of a run: the table of rejects, the cards and, last of all, the manifest.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, StringArray};
use dataset::Storage;
use dataset::format::manifest::{CARD, CROISSANT, ImageSpec, MANIFEST, Manifest, REJECTS, TOKENIZER, TextSpec, Totals};
use dataset::format::pixel_sums::PixelSums;
use dataset::format::record::FORMAT_VERSION;
use dataset::store::files;

use crate::error::Result;
use crate::reject::{Reject, Stage};
use crate::run::job::Job;
use crate::run::keys::TOOL;
use crate::run::notes::ShardNote;
use crate::run::path_names::PathNames;

impl Job<'_> {
    /// Writes the rejects and, last of all, the manifest: where there is a manifest, the dataset is complete.
    pub fn finish(
        &self,
        source: &str,
        arguments: &BTreeMap<String, serde_json::Value>,
        notes: &[ShardNote],
    ) -> Result<Manifest> {
        let rejects: Vec<&Reject> =
            self.plan.rejects.iter().chain(notes.iter().flat_map(|note| &note.rejects)).collect();
        // Everything is written to the run's own folder first.
        write_rejects(&self.out.folder.join(REJECTS), &rejects, self.plan.path_names)?;
        let mut pixels = PixelSums::default();
        notes.iter().for_each(|note| pixels.add(note.pixels));
        let (mean, std) = pixels.moments();
        let mut by_stage: BTreeMap<String, u64> = BTreeMap::new();
        for reject in &rejects {
            *by_stage.entry(reject.stage.name().to_owned()).or_default() += 1;
        }
        let path = self.out.folder.join(TOKENIZER);
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            source: source.to_owned(),
            tool: TOOL.to_owned(),
            arguments: arguments.clone(),
            image: ImageSpec {
                encoding: self.options.stored_encoding(),
                bits: self.options.stored_encoding().bits(),
                compression: self.options.compression.name().to_owned(),
                intensity: self.options.intensity.name().to_owned(),
                resize: self.options.resize.name().to_owned(),
                size: self.options.size,
                mean,
                std,
            },
            text: TextSpec {
                report_text: self.options.report_text.name().to_owned(),
                max_tokens: self.options.max_tokens,
                vocabulary: self.tokenizer.map_or(0, |tokenizer| tokenizer.get_vocab_size(true)),
                tokenizer_sha256: if self.tokenizer.is_some() { files::sha256(&path)? } else { String::new() },
            },
            labels: self.plan.findings.clone(),
            grades: self.plan.grades.clone(),
            masks: self.plan.masks.clone(),
            source_digest: self.options.source_digest.name().to_owned(),
            totals: self.totals(&rejects, notes),
            shards: notes.iter().map(|note| note.info.clone()).collect(),
            rejects: by_stage,
            rejects_sha256: files::sha256(&self.out.folder.join(REJECTS))?,
        };
        let own = Storage::folder(&self.out.folder);
        dataset::format::card::write(&own, &manifest)?;
        dataset::format::croissant::write(&own, &manifest)?;
        if self.tokenizer.is_some() {
            self.out.complete(TOKENIZER)?;
        }
        [REJECTS, CARD, CROISSANT].into_iter().try_for_each(|name| self.out.complete(name))?;
        // A manifest in the staging folder could be taken for that of a finished dataset.
        if self.out.is_shared() {
            manifest.save(&own)?;
            self.out.complete(MANIFEST)?;
        } else {
            self.out.check_lock()?;
            manifest.save(&self.out.storage)?;
        }
        Ok(manifest)
    }

    fn totals(&self, rejects: &[&Reject], notes: &[ShardNote]) -> Totals {
        let lost: HashSet<&str> = rejects
            .iter()
            .filter(|reject| !matches!(reject.stage, Stage::Report | Stage::Plan))
            .filter_map(|reject| reject.record_id.as_deref())
            .collect();
        let kept = || self.plan.records.iter().filter(|record| !lost.contains(record.record_id.as_str()));
        Totals {
            records: notes.iter().map(|note| note.info.rows).sum(),
            studies: kept().map(|record| (&record.patient_id, &record.study_id)).collect::<HashSet<_>>().len() as u64,
            patients: kept().map(|record| &record.patient_id).collect::<HashSet<_>>().len() as u64,
            reports: notes.iter().map(|note| note.reports).sum(),
            bytes: notes.iter().map(|note| note.info.bytes).sum(),
        }
    }
}

fn write_rejects(path: &Path, rejects: &[&Reject], names: PathNames) -> Result<()> {
    let column = |get: fn(&Reject) -> Option<&str>| -> ArrayRef {
        Arc::new(rejects.iter().map(|reject| get(reject)).collect::<StringArray>())
    };
    let paths = rejects.iter().map(|reject| Some(names.stored(&reject.source_path)));
    let paths: ArrayRef = Arc::new(paths.collect::<StringArray>());
    let columns = vec![
        ("source_path", paths, false),
        ("record_id", column(|reject| reject.record_id.as_deref()), true),
        ("stage", column(|reject| Some(reject.stage.name())), false),
        ("error", column(|reject| Some(&reject.error)), false),
    ];
    Ok(dataset::format::table::write_table(path, columns)?)
}
