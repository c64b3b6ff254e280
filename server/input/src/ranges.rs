//! Byte ranges: large files are read in pieces, so that one file can use many workers.
//!
//! A piece takes the lines that begin after its start, up to and including the line that begins at its end.
//! Whatever the cuts are, each line is thus in exactly one piece. In a compressed file cuts are the starts of
//! frames, and the same rule holds for the text.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use serde::{Deserialize, Serialize};
use trilith_proto::fault::Fault;

use crate::blocks::Compression;
use crate::format::Format;
use crate::frames;
use crate::header;
use crate::policy::Policy;
use crate::spec::ExternSpec;
use crate::splits::Split;

/// Bytes of text that a piece has at least: smaller files are not worth a second reader.
pub const RANGE_BYTES_MIN: u64 = 32 << 20;
/// Pieces that each worker gets if all are alike, so that files of different sizes still deal out evenly.
const PIECES_PER_WORKER: u64 = 4;
/// Text is about this many times larger than its compressed form.
const EXPANSION: u64 = 4;

/// A piece of a file, in bytes of the file as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByteRange {
    /// Where it begins: anywhere in a plain file, at a frame in a compressed one.
    pub start: u64,
    /// The next piece begins here; none for the last one, which reads to the end of the file.
    pub end: Option<u64>,
}

/// Cuts large files, so that `workers` workers can share them. Other splits, and their order, stay as they are.
///
/// Plain text, zstd of several frames and bgzip can be cut; a piece has at least `least_bytes` of text.
pub async fn split_ranges(
    spec: &ExternSpec,
    splits: Vec<Split>,
    policy: &Policy,
    workers: u32,
    least_bytes: u64,
) -> Result<Vec<Split>, Fault> {
    if !spec.format.is_text() {
        return Ok(splits);
    }
    let total: u64 = splits.iter().map(text_bytes).sum();
    let pieces = move |split: &Split| pieces(text_bytes(split), total, u64::from(workers), least_bytes);
    if splits.iter().all(|split| pieces(split) < 2) {
        return Ok(splits);
    }
    let (policy, format) = (policy.clone(), spec.format.clone());
    tokio::task::spawn_blocking(move || {
        let mut all = Vec::with_capacity(splits.len());
        for split in splits {
            let cuts = match (split.plain(), pieces(&split)) {
                (Split::File { path, size, .. }, count) if count > 1 => {
                    let real = policy.local(path)?;
                    cuts(&real, *size, count, &format).map_err(|error| {
                        Fault::cannot_parse(format!("cannot read file:{}: {error}", path.display()))
                    })?
                }
                _ => Vec::new(),
            };
            cut(split, &cuts, &mut all);
        }
        Ok(all)
    })
    .await
    .map_err(|error| Fault::unknown(error.to_string()))?
}

fn text_bytes(split: &Split) -> u64 {
    match split.plain() {
        Split::File { path, size, .. } => match Compression::of(&path.to_string_lossy()) {
            Compression::None => *size,
            Compression::Gzip | Compression::Zstd => size.saturating_mul(EXPANSION),
            _ => 0,
        },
        Split::Inline | Split::Http { .. } | Split::Delegate { .. } => 0,
    }
}

/// Into how many pieces a file of `size` goes when there are `total` bytes for `workers`.
fn pieces(size: u64, total: u64, workers: u64, least: u64) -> u64 {
    if workers < 2 {
        return 1;
    }
    let share = (total / (workers * PIECES_PER_WORKER)).max(1);
    let count = size.div_ceil(share).min(size / least.max(1));
    // A multiple of the workers leaves nobody with one piece more.
    if count > workers {
        count - count % workers
    } else {
        count.max(1)
    }
}

/// Pieces of one file between the given cuts, which grow.
pub(crate) fn cut(split: Split, cuts: &[u64], all: &mut Vec<Split>) {
    if let Split::Delegate { number, split } = split {
        let mut pieces = Vec::new();
        cut(*split, cuts, &mut pieces);
        all.extend(pieces.into_iter().map(|piece| piece.of_delegate(number)));
        return;
    }
    let Split::File { path, size, .. } = &split else {
        all.push(split);
        return;
    };
    if cuts.is_empty() {
        all.push(split);
        return;
    }
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().map(Some).chain([None]);
    for (start, end) in starts.zip(ends) {
        all.push(Split::File {
            path: path.clone(),
            size: end.unwrap_or(*size).saturating_sub(start),
            range: Some(ByteRange { start, end }),
        });
    }
}

/// Where a file can be cut into about `count` equal pieces.
fn cuts(path: &Path, size: u64, count: u64, format: &Format) -> io::Result<Vec<u64>> {
    let wanted = (1..count).map(|piece| (u128::from(size) * u128::from(piece) / u128::from(count)) as u64);
    usable(path, size, wanted, format)
}

/// The nearest usable cuts at or after the wanted ones, in order, each once. None is before the end of the
/// header: every piece but the first has data only.
pub(crate) fn usable(
    path: &Path,
    size: u64,
    wanted: impl Iterator<Item = u64>,
    format: &Format,
) -> io::Result<Vec<u64>> {
    let compression = Compression::of(&path.to_string_lossy());
    let header = match format {
        Format::Json { .. } | Format::Lines | Format::Regex(_) => 0,
        Format::Parquet { .. } => return Ok(Vec::new()),
        Format::Delimited(format) => {
            let mut reader = compression.reader(File::open(path)?)?;
            match header::read(reader.as_mut(), format)? {
                Some(header) => header.bytes,
                None => return Ok(Vec::new()),
            }
        }
    };
    let file = File::open(path)?;
    let mut cuts = match compression {
        Compression::None => wanted
            .filter(|at| *at > 0 && *at >= header && *at < size)
            .collect(),
        Compression::Zstd => frames::zstd_starts(&file, size, wanted)?,
        Compression::Gzip => frames::bgzip_starts(&file, size, wanted)?,
        _ => Vec::new(),
    };
    cuts.dedup();
    if compression != Compression::None && header > 0 {
        while let Some(first) = cuts.first().copied() {
            let mut before = compression.stream(part(path, 0, Some(first))?)?;
            if io::copy(&mut before.as_mut().take(header), &mut io::sink())? == header {
                break;
            }
            cuts.remove(0);
        }
    }
    Ok(cuts)
}

/// Bytes of a file, as something that decompressors read.
fn part(path: &Path, start: u64, end: Option<u64>) -> io::Result<io::Take<File>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    Ok(file.take(end.map_or(u64::MAX, |end| end.saturating_sub(start))))
}

/// The text of a piece: whole lines, each byte of the file's text in exactly one piece.
pub(crate) fn reader(
    path: &Path,
    range: ByteRange,
    compression: Compression,
) -> io::Result<Box<dyn Read + Send>> {
    if compression == Compression::None {
        let mut file = File::open(path)?;
        let start = line_after(&mut file, range.start)?;
        let end = match range.end {
            Some(end) => line_after(&mut file, end)?,
            None => u64::MAX,
        };
        file.seek(SeekFrom::Start(start))?;
        return Ok(Box::new(file.take(end.saturating_sub(start))));
    }
    let rest = match range.end {
        Some(end) => Some(compression.stream(part(path, end, None)?)?),
        None => None,
    };
    Ok(Box::new(Framed {
        own: compression.stream(part(path, range.start, range.end)?)?,
        rest,
        skipping: range.start > 0,
        own_ended: false,
    }))
}

/// Where the first line begins after `at`; 0 stays 0. The end of the file if there is none.
fn line_after(file: &mut File, at: u64) -> io::Result<u64> {
    if at == 0 {
        return Ok(0);
    }
    let mut position = file.seek(SeekFrom::Start(at))?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(position);
        }
        if let Some(found) = memchr::memchr(b'\n', &buffer[..read]) {
            return Ok(position + found as u64 + 1);
        }
        position += read as u64;
    }
}

/// Text of some frames, from the first line that begins in them to the end of the line that leaves them.
struct Framed {
    own: Box<dyn Read + Send>,
    rest: Option<Box<dyn Read + Send>>,
    /// Still in the line that the piece before this one takes.
    skipping: bool,
    own_ended: bool,
}

impl Read for Framed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while !self.own_ended {
            let read = self.own.read(buffer)?;
            if read == 0 {
                self.own_ended = true;
            } else if !self.skipping {
                return Ok(read);
            } else if let Some(found) = memchr::memchr(b'\n', &buffer[..read]) {
                self.skipping = false;
                if found + 1 < read {
                    buffer.copy_within(found + 1..read, 0);
                    return Ok(read - found - 1);
                }
            }
        }
        if self.skipping {
            // No line begins in these frames.
            return Ok(0);
        }
        let Some(rest) = &mut self.rest else { return Ok(0) };
        let read = rest.read(buffer)?;
        match memchr::memchr(b'\n', &buffer[..read]) {
            Some(found) => {
                self.rest = None;
                Ok(found + 1)
            }
            None => Ok(read),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::pieces;

    const MB: u64 = 1 << 20;

    #[test]
    fn small_files_stay_whole_and_large_ones_deal_out_evenly() {
        // (size, total, workers) → pieces, at least 32 MB each.
        for (size, total, workers, expected) in [
            (63 * MB, 63 * MB, 8, 1),
            (64 * MB, 64 * MB, 8, 2),
            (100 * MB, 100 * MB, 2, 2),
            (834 * MB, 834 * MB, 1, 1),
            (834 * MB, 834 * MB, 2, 8),
            (834 * MB, 834 * MB, 7, 21),
            (104 * MB, 8 * 104 * MB, 2, 1),
            (0, 0, 2, 1),
        ] {
            assert_eq!(
                pieces(size, total, workers, 32 * MB),
                expected,
                "{size} of {total}, {workers}"
            );
        }
    }
}
