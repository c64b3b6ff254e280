//! The units of input that workers share out: a file, a URI, the inline text.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trilith_proto::fault::Fault;

use crate::policy::Policy;
use crate::spec::{ExternSpec, Source};

/// One unit of input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Split {
    /// The text of an inline source.
    Inline,
    /// A local file.
    File {
        /// Absolute.
        path: PathBuf,
        /// Bytes on disk.
        size: u64,
    },
    /// A URI.
    Http {
        /// http or https.
        uri: String,
    },
}

/// Lists the splits of a source, in a fixed order. Empty files are left out.
pub async fn list_splits(spec: &ExternSpec, policy: &Policy) -> Result<Vec<Split>, Fault> {
    match &spec.source {
        Source::Inline { .. } => Ok(vec![Split::Inline]),
        Source::Http { uris, .. } => Ok(uris.iter().map(|uri| Split::Http { uri: uri.clone() }).collect()),
        Source::Local {
            base_dir,
            filter,
            files,
        } => {
            let (base_dir, filter, files) = (base_dir.clone(), filter.clone(), files.clone());
            let policy = policy.clone();
            tokio::task::spawn_blocking(move || list_local(base_dir.as_deref(), &filter, &files, &policy))
                .await
                .map_err(|error| Fault::unknown(error.to_string()))?
        }
    }
}

fn list_local(
    base_dir: Option<&str>,
    filter: &str,
    files: &[String],
    policy: &Policy,
) -> Result<Vec<Split>, Fault> {
    let mut paths: Vec<PathBuf> = Vec::new();
    if let Some(base) = base_dir {
        let root = policy.local(Path::new(base))?;
        let pattern = globset::GlobBuilder::new(filter)
            .literal_separator(false)
            .build()
            .map_err(|error| {
                Fault::query_not_supported(format!("filter [{filter}] of the local source: {error}"))
            })?
            .compile_matcher();
        for entry in walkdir::WalkDir::new(&root).sort_by_file_name() {
            let entry = entry.map_err(|error| Fault::unknown(format!("cannot list [{base}]: {error}")))?;
            let name = Path::new(entry.file_name());
            if entry.file_type().is_file() && pattern.is_match(name) {
                paths.push(policy.local(entry.path())?);
            }
        }
    }
    for file in files {
        let path = policy.local(Path::new(file))?;
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    let mut splits = Vec::with_capacity(paths.len());
    for path in paths {
        let metadata = path
            .metadata()
            .map_err(|error| Fault::unknown(format!("cannot read [{}]: {error}", path.display())))?;
        if metadata.is_dir() {
            return Err(Fault::query_not_supported(format!(
                "[{}] is a directory; name it as baseDir of the local source",
                path.display()
            )));
        }
        if metadata.len() > 0 {
            splits.push(Split::File {
                path,
                size: metadata.len(),
            });
        }
    }
    Ok(splits)
}
