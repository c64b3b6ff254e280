//! Removes files that no record speaks of.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use crate::error::SegmentError;

/// Removes every file below `directory` whose relative path is not in `referenced`, and empty folders.
/// Returns how many files went. Only safe while nobody writes segments.
pub fn sweep(directory: &Path, referenced: &HashSet<String>) -> Result<u64, SegmentError> {
    fs::create_dir_all(directory).map_err(|error| SegmentError::io(directory, error))?;
    sweep_below(directory, directory, referenced)
}

fn sweep_below(root: &Path, directory: &Path, referenced: &HashSet<String>) -> Result<u64, SegmentError> {
    let mut removed = 0;
    for entry in fs::read_dir(directory).map_err(|error| SegmentError::io(directory, error))? {
        let entry = entry.map_err(|error| SegmentError::io(directory, error))?;
        let path = entry.path();
        // A link is a file here: what it points to is not ours.
        if entry
            .file_type()
            .map_err(|error| SegmentError::io(&path, error))?
            .is_dir()
        {
            removed += sweep_below(root, &path, referenced)?;
            // Fails while something is left inside, as it should.
            let _not_empty = fs::remove_dir(&path);
            continue;
        }
        let relative = path
            .strip_prefix(root)
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default();
        if !referenced.contains(&relative) {
            fs::remove_file(&path).map_err(|error| SegmentError::io(&path, error))?;
            removed += 1;
        }
    }
    Ok(removed)
}
