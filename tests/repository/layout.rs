//! The layout of the sources: the server does not depend on the guard, and few files are directly in `src`.

use std::fs;
use std::path::{Path, PathBuf};

use support::root;

/// How many files may be directly in `src`.
const TOP_LEVEL_MAX: usize = 5;

/// Returns the files and the folders in `folder`.
pub fn entries(folder: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .partition(|path| path.is_file())
}

pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut files, folders) = entries(folder);
    files.extend(folders.iter().flat_map(|folder| files_below(folder)));
    files
}

#[test]
fn the_server_never_names_the_guard_and_few_files_are_directly_in_src() {
    let src = root().join("src");
    let server = files_below(&src.join("server"));
    assert!(!server.is_empty());
    for file in server {
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("crate::guard"), "{} names the guard", file.display());
    }
    let (top_level, _) = entries(&src);
    assert!(top_level.len() <= TOP_LEVEL_MAX, "{top_level:?}");
}
