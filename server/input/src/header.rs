//! The header of a delimited file, read ahead for those who read a later piece of it.

use std::io::{self, Read};

use crate::delimited;
use crate::format::Delimited;
use crate::json;
use crate::rows::BYTE_ORDER_MARK;

/// Text in which the header must end if a file is to be read in pieces.
const HEADER_BYTES_MAX: u64 = 1 << 20;

/// What comes before the data.
pub(crate) struct Header {
    /// Columns of the file.
    pub names: Vec<String>,
    /// Bytes of text before the first line of data.
    pub bytes: u64,
}

/// Skipped lines and the header line, if the format has them. None if they have no end in sight, or are broken:
/// the reader of the first piece says why.
pub(crate) fn read(reader: &mut dyn Read, format: &Delimited) -> io::Result<Option<Header>> {
    if !format.header && format.skip_rows == 0 {
        let names = format.columns.clone().unwrap_or_default();
        return Ok(Some(Header { names, bytes: 0 }));
    }
    let mut bytes = Vec::new();
    reader.take(HEADER_BYTES_MAX).read_to_end(&mut bytes)?;
    let mut skip = format.skip_rows;
    let mut at = 0;
    while let Some(length) = memchr::memchr(b'\n', &bytes[at..]) {
        let lossy = String::from_utf8_lossy(&bytes[at..=at + length]);
        let text = match at {
            0 => lossy.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&lossy),
            _ => &lossy,
        };
        let (line, _) = json::line(text, 0);
        at += length + 1;
        if skip > 0 {
            skip -= 1;
            if skip > 0 || format.header {
                continue;
            }
            let names = format.columns.clone().unwrap_or_default();
            return Ok(Some(Header {
                names,
                bytes: at as u64,
            }));
        }
        // Lines that cannot be read are not the header; the reader of the first piece warns of them.
        if line.is_empty() {
            continue;
        }
        if let Ok(cells) = delimited::cells(line, format) {
            let header = delimited::header(cells).ok();
            return Ok(header.map(|names| Header {
                names,
                bytes: at as u64,
            }));
        }
    }
    Ok(None)
}
