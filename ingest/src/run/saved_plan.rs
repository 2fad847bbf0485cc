//! The list of a plan's records, stored among the notes of a run. When the input of an unfinished dataset changed, the next
//! run compares its plan with the list and says what changed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use dataset::store::files;

use crate::error::{Error, Result};
use crate::run::hashing_reader::count_and_names;
use crate::run::plan::Plan;

/// A record: identifier, path, size of its file where it was found, first eight bytes of its digest.
type Line = (String, String, Option<u64>, u64);

fn lines(plan: &Plan) -> impl Iterator<Item = Line> + '_ {
    plan.records.iter().map(|record| {
        let [a, b, c, d, e, f, g, h, ..] = record.sha256();
        let digest = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        (record.record_id.clone(), record.source_path.clone(), record.source_bytes, digest)
    })
}

/// Writes the list of a plan's records.
pub fn save(path: &Path, plan: &Plan) -> Result<()> {
    let temporary = files::temporary(path);
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(&temporary)?);
        for line in lines(plan) {
            serde_json::to_writer(&mut file, &line)?;
            file.write_all(b"\n")?;
        }
        file.flush()?;
        file.get_ref().sync_all()
    };
    write().map_err(Error::io(path))?;
    Ok(files::publish(&temporary, path)?)
}

/// How a plan differs from the stored one, in words; `None` where the list cannot be read.
pub fn difference(path: &Path, plan: &Plan) -> Option<String> {
    let mut before = HashMap::new();
    for line in BufReader::new(File::open(path).ok()?).lines() {
        let (record, path, bytes, digest): Line = serde_json::from_str(&line.ok()?).ok()?;
        before.insert(record, (path, bytes, digest));
    }
    let (mut added, mut resized, mut removed, mut other) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (record, path, bytes, digest) in lines(plan) {
        match before.remove(&record) {
            None => added.push(path),
            Some((_, None, _)) if bytes.is_some() => added.push(path),
            Some((_, Some(_), _)) if bytes.is_none() => removed.push(path),
            Some((_, found, _)) if found != bytes => resized.push(path),
            Some((_, _, found)) if found != digest => other.push(record),
            Some(_) => {}
        }
    }
    let mut gone: Vec<String> = before.into_values().map(|(path, _, _)| path).collect();
    gone.sort_unstable();
    removed.extend(gone);
    let differences: Vec<String> = [
        (added, "input", " added"),
        (removed, "input", " removed"),
        (resized, "file", " of another size"),
        (other, "record", " with other entries in the tables"),
    ]
    .into_iter()
    .filter(|(names, _, _)| !names.is_empty())
    .map(|(names, noun, what)| count_and_names(&names, noun) + what)
    .collect();
    Some(if differences.is_empty() { "other files or rows are rejected".to_owned() } else { differences.join("; ") })
}
