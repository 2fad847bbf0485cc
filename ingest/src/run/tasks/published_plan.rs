//! The plan that tasks share: one task makes it, all read it.
//!
//! `.ingest/plan-DIGEST.jsonl.gz` has the records, one a line and a gzip member for each shard, and last the rejects of the
//! plan. A task reads the members of its own shards only. `.ingest/plan.json`, which is written last, says where they are.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use dataset::format::grade::GradeScale;
use dataset::format::manifest::TOKENIZER;
use dataset::store::files;
use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::reject::Reject;
use crate::run::changed_options::Arguments;
use crate::run::keys::TOOL;
use crate::run::note_store::NoteStore;
use crate::run::path_names::PathNames;
use crate::run::plan::{Plan, PlannedRecord};

/// Name of the head of a plan among the notes.
pub const HEAD: &str = "plan.json";

/// Prefix of the name of its records.
const RECORDS: &str = "plan-";

/// Hexadecimal digits of the digest that identifies a plan.
const DIGITS: usize = 16;

/// The lines of a part of a plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Member {
    /// Number of lines.
    lines: u64,
    /// First byte in the file, and the one after the last.
    bytes: (u64, u64),
    /// Digest of these bytes.
    sha256: String,
}

/// What a task must know of a plan besides its records.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Head {
    /// Program and version that made the plan.
    pub tool: String,
    /// Number of tasks.
    pub tasks: usize,
    /// The arguments of the manifest.
    pub arguments: Arguments,
    /// [`crate::run::plan::Source::options`].
    pub source_options: Arguments,
    /// [`Plan::findings`].
    findings: Vec<String>,
    /// [`Plan::grades`].
    grades: Vec<GradeScale>,
    /// [`Plan::masks`].
    masks: Vec<String>,
    /// [`Plan::report_root`].
    report_root: Option<PathBuf>,
    /// [`PathNames::hashed`].
    hash_paths: bool,
    /// [`crate::run::Summary::uncounted_rejects`].
    pub uncounted_rejects: u64,
    /// Digest of `tokenizer.json`; `None` where the dataset has no tokenizer.
    pub tokenizer_sha256: Option<String>,
    /// Name of the file with the records.
    file: String,
    /// The records of each shard.
    shards: Vec<Member>,
    /// The rejects of the plan.
    rejects: Member,
}

/// A plan that was made for so many tasks, before it is published.
pub struct Planned<'a> {
    pub tasks: usize,
    pub plan: &'a Plan,
    pub arguments: &'a Arguments,
    pub source_options: Arguments,
    pub uncounted_rejects: u64,
    pub rows_per_shard: usize,
    pub tokenizer_sha256: Option<String>,
}

/// A plan that all tasks read.
pub struct PublishedPlan {
    pub head: Head,
    /// Identifies the plan: a shard that was made by another plan does not count.
    pub id: String,
}

/// JSON values, one a line, packed.
fn packed<T: Serialize>(values: &[T]) -> std::io::Result<Vec<u8>> {
    // The encoder is slow at many small writes.
    let mut text = Vec::new();
    for value in values {
        serde_json::to_writer(&mut text, value)?;
        text.push(b'\n');
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&text)?;
    encoder.finish()
}

impl Planned<'_> {
    /// Writes the plan to the notes, by way of a folder of this process.
    pub fn publish(self, notes: &NoteStore, private: &Path) -> Result<()> {
        let plan = self.plan;
        let failed = |cause: serde_json::Error| Error::io(&notes.path(HEAD))(cause.into());
        let path = private.join("plan.jsonl.gz");
        let write = || -> std::io::Result<(Vec<Member>, Member, String)> {
            let mut file = BufWriter::new(File::create(&path)?);
            let (mut digest, mut end) = (Sha256::new(), 0);
            let mut add = |bytes: &[u8], lines: usize| {
                file.write_all(bytes)?;
                digest.update(bytes);
                let start = end;
                end += bytes.len() as u64;
                let sha256 = files::hex(&Sha256::digest(bytes));
                Ok::<_, std::io::Error>(Member { lines: lines as u64, bytes: (start, end), sha256 })
            };
            let chunks: Vec<&[PlannedRecord]> = plan.records.chunks(self.rows_per_shard).collect();
            let mut shards = Vec::with_capacity(chunks.len());
            for some in chunks.chunks(rayon::current_num_threads().max(1) * 4) {
                let members: Vec<Vec<u8>> = some.par_iter().map(|records| packed(records)).collect::<Result<_, _>>()?;
                for (bytes, records) in members.iter().zip(some) {
                    shards.push(add(bytes, records.len())?);
                }
            }
            let rejects = add(&packed(&plan.rejects)?, plan.rejects.len())?;
            file.flush()?;
            file.get_ref().sync_all()?;
            Ok((shards, rejects, files::hex(&digest.finalize())))
        };
        let (shards, rejects, digest) = write().map_err(Error::io(&path))?;
        let head = Head {
            tool: TOOL.to_owned(),
            tasks: self.tasks,
            arguments: self.arguments.clone(),
            source_options: self.source_options,
            findings: plan.findings.clone(),
            grades: plan.grades.clone(),
            masks: plan.masks.clone(),
            report_root: plan.report_root.clone(),
            hash_paths: plan.path_names.hashed,
            uncounted_rejects: self.uncounted_rejects,
            tokenizer_sha256: self.tokenizer_sha256,
            file: format!("{RECORDS}{}.jsonl.gz", &digest[..DIGITS]),
            shards,
            rejects,
        };
        let text = files::json(&head).map_err(failed)?;
        notes.take(&path, &head.file)?;
        notes.write(HEAD, &text)
    }
}

impl PublishedPlan {
    /// Reads the head of a plan; `None` where none is published (yet).
    ///
    /// # Errors
    /// When another version made the plan, or it cannot be read.
    pub fn read(notes: &NoteStore) -> Result<Option<Self>> {
        let Some(text) = notes.read(HEAD)? else { return Ok(None) };
        let refused = |message: String| Error::Output { path: notes.path(HEAD), message };
        let damaged = |cause: serde_json::Error| refused(format!("the plan of the tasks is damaged ({cause})"));
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(damaged)?;
        let tool = value.get("tool").and_then(|tool| tool.as_str()).unwrap_or("another version");
        if tool != TOOL {
            return Err(refused(format!(
                "{tool} made this plan, and this is {TOOL}, which may write other bytes; finish the dataset with that version, \
                 or take another OUT"
            )));
        }
        let head: Head = serde_json::from_value(value).map_err(damaged)?;
        let mut id = files::hex(&Sha256::digest(&text));
        id.truncate(DIGITS);
        Ok(Some(Self { head, id }))
    }

    /// Number of shards of the dataset.
    pub fn shards(&self) -> usize {
        self.head.shards.len()
    }

    /// Number of records of a shard.
    pub fn records(&self, shard: usize) -> u64 {
        self.head.shards.get(shard).map_or(0, |member| member.lines)
    }

    /// Reads the records of some shards, in ascending order of their numbers. The plan has no rejects.
    pub fn part(&self, notes: &NoteStore, shards: &[usize]) -> Result<Plan> {
        let file = notes.open(&self.head.file)?;
        let read = |shard: &usize| self.member::<PlannedRecord>(notes, &file, &self.head.shards[*shard]);
        let read: Vec<Vec<PlannedRecord>> = shards.par_iter().map(read).collect::<Result<_>>()?;
        Ok(Plan {
            records: read.into_iter().flatten().collect(),
            findings: self.head.findings.clone(),
            grades: self.head.grades.clone(),
            masks: self.head.masks.clone(),
            report_root: self.head.report_root.clone(),
            path_names: PathNames { hashed: self.head.hash_paths },
            ..Plan::default()
        })
    }

    /// Reads the whole plan, with its rejects.
    pub fn whole(&self, notes: &NoteStore) -> Result<Plan> {
        let all: Vec<usize> = (0..self.shards()).collect();
        let file = notes.open(&self.head.file)?;
        let rejects: Vec<Reject> = self.member(notes, &file, &self.head.rejects)?;
        Ok(Plan { rejects, ..self.part(notes, &all)? })
    }

    fn member<T: DeserializeOwned>(
        &self,
        notes: &NoteStore,
        file: &dataset::store::storage::StoredFile,
        member: &Member,
    ) -> Result<Vec<T>> {
        let path = notes.path(&self.head.file);
        let bytes = file.read(member.bytes.0..member.bytes.1)?;
        if files::hex(&Sha256::digest(&bytes)) != member.sha256 {
            let message =
                "the plan of the tasks is damaged: its records have another digest than plan.json says".to_owned();
            return Err(Error::Output { path, message });
        }
        let lines = BufReader::new(GzDecoder::new(bytes.as_ref())).lines();
        let parse = |line: std::io::Result<String>| line.and_then(|line| Ok(serde_json::from_str(&line)?));
        lines.map(parse).collect::<Result<_, _>>().map_err(Error::io(&path))
    }

    /// Copies the tokenizer of the plan to a folder of this process; `None` where there is none.
    pub fn fetch_tokenizer(&self, notes: &NoteStore, private: &Path) -> Result<Option<PathBuf>> {
        let Some(expected) = &self.head.tokenizer_sha256 else { return Ok(None) };
        let bytes = notes.read(TOKENIZER)?.unwrap_or_default();
        if files::hex(&Sha256::digest(&bytes)) != *expected {
            let message = "the plan of the tasks is damaged: this is not its tokenizer".to_owned();
            return Err(Error::Output { path: notes.path(TOKENIZER), message });
        }
        let path = private.join(TOKENIZER);
        std::fs::write(&path, &bytes).map_err(Error::io(&path))?;
        Ok(Some(path))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dataset::Storage;
    use dataset::format::record::BoundingBox;

    use super::*;
    use crate::image::mask::Runs;
    use crate::reject::Stage;
    use crate::report::sections::Conclusion;
    use crate::run::plan::{MaskSource, PlannedMask, PlannedReading, ReportSource};

    #[test]
    fn a_published_plan_has_the_digest_of_the_one_that_was_made() {
        let reports = [
            ReportSource::None,
            ReportSource::File("files/a.txt".into()),
            ReportSource::Text(Arc::from("clear ü\n\"lungs\"")),
            ReportSource::Sections { text: Arc::from("a"), sections: vec![("findings".to_owned(), Arc::from("b"))] },
        ];
        let conclusions = [Conclusion::Usual, Conclusion::Section("history"), Conclusion::Characters(3, 9)];
        let mask = |name: &str, pixels| PlannedMask { name: name.to_owned(), pixels };
        let runs = mask("left", MaskSource::Runs(Runs::parse("1 2 3 4").expect("runs")));
        let masks = [vec![], vec![runs.clone()], vec![runs, mask("right", MaskSource::File("masks/ü.png".into()))]];
        let record = |number: usize| PlannedRecord {
            record_id: format!("made/{number:03}"),
            source_bytes: number.is_multiple_of(2).then_some(u64::MAX),
            age_years: Some(0.1 + number as f32 / 3.0),
            labels: vec![Some(1), None, Some(-1)],
            boxes: vec![BoundingBox {
                label: "x".to_owned(),
                x: 0.1,
                y: 1e-7,
                width: 3.3e8,
                height: number as f32 / 7.0,
                score: Some(0.3),
                ..BoundingBox::default()
            }],
            study_datetime: Some("2110-03-07T14:05:09".to_owned()),
            study_order: Some(number as u32),
            pixel_spacing: Some([0.139, 1.0 / 3.0]),
            spacing_size: Some([20, 30]),
            label_origin: Some("consensus".to_owned()),
            grades: vec![Some(1)],
            readings: vec![PlannedReading { reader: "R1".to_owned(), labels: vec![None, Some(0), Some(1)] }],
            relative_boxes: number.is_multiple_of(2),
            masks: masks[number % 3].clone(),
            language: Some("en".to_owned()),
            report: reports[number % 4].clone(),
            conclusion: conclusions[number % 3],
            view: Some("PA".to_owned()),
            ..PlannedRecord::default()
        };
        let reject = |number: usize| Reject {
            source_path: format!("{number}.png"),
            record_id: None,
            stage: Stage::Plan,
            error: "no table lists this file".to_owned(),
        };
        let plan = Plan {
            records: (0..50).map(record).collect(),
            rejects: (0..3).map(reject).collect(),
            findings: vec!["A".to_owned(), "B".to_owned(), "C".to_owned()],
            grades: vec![GradeScale { name: "g".to_owned(), values: vec!["none".to_owned(), "+".to_owned()] }],
            masks: vec!["left".to_owned(), "right".to_owned()],
            report_root: Some("/reports".into()),
            ..Plan::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let private = folder.path().join("private");
        std::fs::create_dir_all(folder.path().join(".ingest")).unwrap();
        std::fs::create_dir(&private).unwrap();
        let notes = NoteStore::shared(&Storage::folder(folder.path()), &private);
        assert!(PublishedPlan::read(&notes).unwrap().is_none());
        let arguments = Arguments::new();
        let planned = || Planned {
            tasks: 3,
            plan: &plan,
            arguments: &arguments,
            source_options: Arguments::new(),
            uncounted_rejects: 2,
            rows_per_shard: 16,
            tokenizer_sha256: None,
        };
        planned().publish(&notes, &private).unwrap();
        let before = std::fs::read(folder.path().join(".ingest/plan.json")).unwrap();
        planned().publish(&notes, &private).unwrap();
        assert_eq!(
            before,
            std::fs::read(folder.path().join(".ingest/plan.json")).unwrap(),
            "two makers give the same bytes"
        );
        let read = PublishedPlan::read(&notes).unwrap().unwrap();
        assert_eq!((read.shards(), read.records(3), read.head.tasks), (4, 2, 3));
        let whole = read.whole(&notes).unwrap();
        assert_eq!(whole.sha256(), plan.sha256());
        assert_eq!((whole.report_root, whole.rejects), (plan.report_root.clone(), plan.rejects.clone()));
        let part = read.part(&notes, &[1, 3]).unwrap();
        let ids: Vec<&str> = part.records.iter().map(|record| record.record_id.as_str()).collect();
        assert_eq!((ids[0], ids[15], ids[16], ids.len()), ("made/016", "made/031", "made/048", 18));
        // Damage is found.
        let file = notes.path(&read.head.file);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert!(read.whole(&notes).err().unwrap().to_string().contains("the plan of the tasks is damaged"));
        assert!(read.part(&notes, &[3]).is_ok(), "the other shards are not read");
    }
}
