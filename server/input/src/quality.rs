//! Values that became null because they do not convert.

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unconverted {
    /// The file or URI; none for inline data.
    pub file: Option<String>,
    /// Number of its record in the file, from 1; none where nobody counted the records before it.
    pub record: Option<u64>,
    /// As it stands in the record, shortened.
    pub value: String,
}

/// Bytes of a value that an example shows.
const SHOWN_BYTES: usize = 100;

impl Unconverted {
    /// The beginning of a value.
    pub(crate) fn shortened(value: &str) -> String {
        match value.floor_char_boundary(SHOWN_BYTES) {
            end if end < value.len() => format!("{}…", &value[..end]),
            _ => value.to_owned(),
        }
    }
}
