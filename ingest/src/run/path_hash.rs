//! Hashes in place of paths, for raw directories whose folder or file names identify patients.
//!
//! A hash is the SHA-256 of a path relative to the raw directory, cut to 96 bits. It has no key: whoever has a list of
//! possible paths can find the path of a hash. So the hashes are pseudonyms; they do not anonymize a dataset.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use dataset::store::files;

use crate::error::{Error, Result};
use crate::run::path_names::hash;
use crate::run::plan::{Plan, ReportSource};

/// Header of a path map.
const HEADER: &str = "hash,path\n";

/// Replaces the identifiers of a plan that are made of paths by hashes: those of records and images, and those of patients
/// and studies as the pair of flags says. `source_path` stays plain, since the files are read by it; it is hashed when the
/// record is stored.
pub fn hash_identifiers(plan: &mut Plan, source: &str, (patients, studies): (bool, bool)) {
    plan.path_names.hashed = true;
    let mut parts = BTreeMap::new();
    let mut hashed = |id: &mut String| {
        let digits = hash(id);
        parts.insert(digits.clone(), std::mem::replace(id, digits));
    };
    for record in &mut plan.records {
        record.image_id = hash(&record.source_path);
        record.record_id = format!("{source}/{}", record.image_id);
        if patients {
            hashed(&mut record.patient_id);
        }
        if studies {
            hashed(&mut record.study_id);
        }
    }
    for reject in plan.rejects.iter_mut().filter(|reject| reject.record_id.is_some()) {
        reject.record_id = Some(format!("{source}/{}", hash(&reject.source_path)));
    }
    plan.hashed_parts = parts;
}

/// Writes a CSV table of each hash of a plan and its path, sorted by path, readable by its owner only.
///
/// # Errors
/// When the path is inside the dataset, is another file, or cannot be written.
pub fn write_map(path: &Path, out: &Path, plan: &Plan) -> Result<()> {
    let refused = |message: &str| Error::Output { path: path.to_path_buf(), message: message.to_owned() };
    let real = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_default();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if real(folder).starts_with(real(out)) {
        return Err(refused("the path map would be part of the dataset; give a --path-map outside of OUT"));
    }
    match fs::read(path) {
        Ok(bytes) if !bytes.starts_with(HEADER.as_bytes()) => {
            return Err(refused("is something else than a path map and is not overwritten; give another --path-map"));
        }
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::io(path)(error)),
        _ => {}
    }
    let file = |path: &str| (path.to_owned(), hash(path));
    let mut lines: BTreeMap<String, String> =
        plan.hashed_parts.iter().map(|(hash, part)| (part.clone(), hash.clone())).collect();
    lines.extend(plan.records.iter().map(|record| file(&record.source_path)));
    lines.extend(plan.rejects.iter().map(|reject| file(&reject.source_path)));
    lines.extend(plan.records.iter().filter_map(|record| match &record.report {
        ReportSource::File(path) => Some(file(&path.to_string_lossy())),
        _ => None,
    }));
    let mut text = HEADER.to_owned();
    for (path, hash) in lines {
        let _ = writeln!(text, "{hash},\"{}\"", path.replace('"', "\"\""));
    }
    files::write_atomic(path, text.as_bytes())?;
    // The paths may name patients.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(Error::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::path_names::PathNames;
    use crate::run::plan::PlannedRecord;

    #[test]
    fn a_stored_path_keeps_nothing_but_its_extension() {
        let names = PathNames { hashed: true };
        // printf 'a/b.PNG' | sha256sum | cut -c1-24
        assert_eq!(names.stored("a/b.PNG"), format!("{}.png", hash("a/b.PNG")));
        assert_eq!(hash("abc"), "ba7816bf8f01cfea414140de");
        assert_eq!(names.stored("scan.Smith"), hash("scan.Smith"));
        assert_eq!(PathNames::default().stored("a/b.PNG"), "a/b.PNG");
    }

    #[test]
    fn a_map_is_written_outside_of_the_dataset_and_over_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        fs::create_dir(&out).unwrap();
        let record = |path: &str, patient: &str| PlannedRecord {
            source_path: path.to_owned(),
            patient_id: patient.to_owned(),
            study_id: patient.to_owned(),
            ..PlannedRecord::default()
        };
        let mut plan = Plan { records: vec![record("p/\"1\".png", "p"), record("p/2.png", "p")], ..Plan::default() };
        hash_identifiers(&mut plan, "folder", (true, true));
        assert_eq!(plan.records[0].patient_id, plan.records[1].study_id, "records of one folder keep one identifier");
        let map = folder.path().join("map.csv");
        write_map(&map, &out, &plan).unwrap();
        write_map(&map, &out, &plan).unwrap();
        assert_eq!(fs::metadata(&map).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&map).unwrap();
        let expected = ["p", "p/\"\"1\"\".png", "p/2.png"]
            .map(|path| format!("{},\"{path}\"\n", hash(&path.replace("\"\"", "\""))));
        assert_eq!(text, format!("{HEADER}{}", expected.concat()));
        assert!(write_map(&out.join("map.csv"), &out, &plan).unwrap_err().to_string().contains("outside of OUT"));
        fs::write(&map, "my thesis").unwrap();
        assert!(write_map(&map, &out, &plan).unwrap_err().to_string().contains("something else"));
    }
}
