//! The units of input that workers share out: a file, a URI, the inline text.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trilith_proto::fault::Fault;

use crate::blocks::Compression;
use crate::policy::Policy;
use crate::ranges::ByteRange;
use crate::source::Source;
use crate::spec::ExternSpec;

/// One unit of input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Split {
    /// The text of an inline source.
    Inline,
    /// A local file.
    File {
        /// Absolute.
        path: PathBuf,
        /// Bytes on disk, of the piece if it is one.
        size: u64,
        /// The piece of the file; none for all of it.
        range: Option<ByteRange>,
    },
    /// A URI.
    Http {
        /// http or https.
        uri: String,
    },
    /// One of a source that is combined with others.
    Delegate {
        /// Number of that source, from 0.
        number: usize,
        /// The split, for itself.
        split: Box<Split>,
    },
}

/// Compressed text is weighed this many times heavier (`taskAssignment=auto`).
const GZIP_WEIGHT: u64 = 4;

impl Split {
    /// The split for itself, whatever its source is combined with.
    pub(crate) fn plain(&self) -> &Split {
        match self {
            Split::Delegate { split, .. } => split.plain(),
            plain => plain,
        }
    }

    /// The same as a split of a combined source.
    pub(crate) fn of_delegate(self, number: usize) -> Split {
        Split::Delegate {
            number,
            split: Box::new(self),
        }
    }

    /// With the source that it is a split of, when `spec` may combine several.
    pub(crate) fn resolved<'a>(
        &'a self,
        spec: &'a ExternSpec,
    ) -> Result<(Cow<'a, ExternSpec>, &'a Split), Fault> {
        let Split::Delegate { number, split } = self else {
            return Ok((Cow::Borrowed(spec), self));
        };
        let source = spec.source.delegates().get(*number);
        let source = source.ok_or_else(|| Fault::unknown("a split of a source that there is not"))?;
        let mut single = spec.clone();
        single.source = source.clone();
        Ok((Cow::Owned(single), split))
    }

    /// Bytes as stored; none if unknown.
    pub fn size_bytes(&self) -> Option<u64> {
        match self.plain() {
            Split::File { size, .. } => Some(*size),
            _ => None,
        }
    }

    /// Bytes of text as `taskAssignment=auto` weighs them; 0 if unknown.
    pub(crate) fn weighted_bytes(&self) -> u64 {
        match self.plain() {
            Split::File { path, size, .. }
                if Compression::of(&path.to_string_lossy()) == Compression::Gzip =>
            {
                size.saturating_mul(GZIP_WEIGHT)
            }
            other => other.size_bytes().unwrap_or(0),
        }
    }

    /// Where it is; none for inline data.
    pub fn uri(&self) -> Option<String> {
        match self {
            Split::Inline => None,
            Split::File { path, .. } => Some(format!("file:{}", path.display())),
            Split::Http { uri } => Some(uri.clone()),
            Split::Delegate { split, .. } => split.uri(),
        }
    }

    /// As messages call it.
    pub(crate) fn name(&self) -> String {
        self.uri().unwrap_or_else(|| "inline data".to_owned())
    }

    /// The beginning of its file: the one piece with which the file is counted.
    pub fn begins_file(&self) -> bool {
        !matches!(self.plain(), Split::File { range: Some(range), .. } if range.start > 0)
    }

    /// A piece of the same file as the other.
    pub fn shares_file(&self, other: &Split) -> bool {
        match (self, other) {
            (
                Split::File {
                    path, range: Some(_), ..
                },
                Split::File {
                    path: other,
                    range: Some(_),
                    ..
                },
            ) => path == other,
            (
                Split::Delegate { number, split },
                Split::Delegate {
                    number: other_number,
                    split: other,
                },
            ) => number == other_number && split.shares_file(other),
            _ => false,
        }
    }
}

/// Lists the splits of a source, in a fixed order. Empty files are left out.
pub async fn list_splits(spec: &ExternSpec, policy: &Policy) -> Result<Vec<Split>, Fault> {
    let Source::Combining { delegates } = &spec.source else {
        return list_source(&spec.source, policy).await;
    };
    let mut all = Vec::new();
    for (number, source) in delegates.iter().enumerate() {
        let splits = list_source(source, policy).await?;
        all.extend(splits.into_iter().map(|split| split.of_delegate(number)));
    }
    Ok(all)
}

async fn list_source(source: &Source, policy: &Policy) -> Result<Vec<Split>, Fault> {
    match source {
        Source::Combining { .. } => Err(Fault::unknown("a combined source that combines others")),
        Source::Inline { .. } => Ok(vec![Split::Inline]),
        Source::Http { uris, .. } => Ok(uris.iter().map(|uri| Split::Http { uri: uri.clone() }).collect()),
        Source::Local {
            base_dir,
            filter,
            files,
            ..
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
    let listed = files
        .iter()
        .map(|file| policy.local(Path::new(file)))
        .collect::<Result<Vec<PathBuf>, _>>()?;
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
                let path = policy.local(entry.path())?;
                if !listed.contains(&path) {
                    paths.push(path);
                }
            }
        }
    }
    // A file that is listed twice is read twice.
    paths.extend(listed);
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
                range: None,
            });
        }
    }
    Ok(splits)
}
