//! Files of the tests: reading and writing them, packed or not, copies, and damage.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use dataset::format::image_codec::GrayPixels;
use dataset::format::record::ImageEncoding;
use tempfile::TempDir;

/// A folder that is removed at the end of the test.
pub fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    tests_folder().join("..")
}

/// The folder `tests` of the repository.
pub fn tests_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Path and bytes of every file below a folder.
pub fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("below the folder").to_string_lossy().into_owned();
                found.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

/// Sorted paths, relative to a folder, of the files whose name has this ending.
pub fn files_with(folder: &Path, ending: &str) -> Vec<String> {
    contents(folder).into_keys().filter(|path| path.ends_with(ending)).collect()
}

/// Copies all files of a folder into another one.
pub fn copy_folder(from: &Path, to: &Path) {
    for (name, bytes) in contents(from) {
        write_plain(&to.join(name), &bytes);
    }
}

/// Makes a folder, or removes all that is in it; it may be the root of a file system.
pub fn empty_folder(folder: &Path) {
    fs::create_dir_all(folder).expect("a folder");
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let is_folder = path.is_dir() && !path.is_symlink();
        if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.expect("removed");
    }
}

/// Moves a file, and makes the folder it goes to.
pub fn rename(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
    fs::rename(from, to).expect("moved");
}

/// The text of a file, unpacked if its name ends with `.gz`.
pub fn read_text(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if path.extension().is_some_and(|extension| extension == "gz") {
        let mut text = String::new();
        flate2::read::GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).expect("gzip");
        return text;
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// Bytes packed by gzip.
pub fn gzip(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes.as_ref()).expect("gzip");
    encoder.finish().expect("gzip")
}

/// Writes a file and the folders above it; packed if its name ends with `.gz`.
pub fn write_file(path: &Path, bytes: impl AsRef<[u8]>) {
    if path.extension().is_some_and(|extension| extension == "gz") {
        write_plain(path, &gzip(bytes));
    } else {
        write_plain(path, bytes.as_ref());
    }
}

fn write_plain(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, bytes).expect("written");
}

/// Writes a PNG file of one gray, and the folders above it.
pub fn write_png(path: &Path, width: u32, height: u32) {
    let gray = GrayPixels { width, height, pixels: vec![90; (width * height) as usize] };
    write_plain(path, &gray.encode(ImageEncoding::Png).expect("a PNG"));
}

/// Changes the bytes of a file.
pub fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("a file");
    change(&mut bytes);
    fs::write(path, bytes).expect("written");
}

/// Flips a bit of a file; the same again puts it back.
pub fn flip_bit(path: &Path, byte: usize, bit: u32) {
    edit(path, |bytes| bytes[byte] ^= 1 << bit);
}
