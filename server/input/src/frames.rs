//! Where the frames of a compressed file begin.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A zstd frame that is longer has no end worth looking for: the search would read the file for nothing.
const ZSTD_FRAME_BYTES_MAX: u64 = 64 << 20;
/// Longest block of bgzip.
const BGZIP_BLOCK_BYTES_MAX: usize = 64 << 10;
/// Blocks that must follow each other before a place counts as the start of a block.
const BGZIP_CHAIN: usize = 3;

/// First frame at or after each wanted place, as far as there is one.
///
/// Follows frames and blocks from the beginning by their lengths. Stops early at anything unusual, which the
/// reader of the last piece then meets.
pub(crate) fn zstd_starts(
    file: &File,
    size: u64,
    mut wanted: impl Iterator<Item = u64>,
) -> io::Result<Vec<u64>> {
    let mut starts = Vec::new();
    let mut next = wanted.next();
    let mut at = 0;
    while let (Some(place), Some(end)) = (next, zstd_frame_end(file, at, size)?) {
        at = end;
        if at >= size {
            break;
        }
        if at >= place {
            starts.push(at);
            next = wanted.find(|place| *place > at);
        }
    }
    Ok(starts)
}

/// As many bytes as there are, up to the length of `buffer`.
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// End of the frame at `at`; none if there is no whole frame of bearable length (RFC 8878, section 3).
fn zstd_frame_end(file: &File, at: u64, size: u64) -> io::Result<Option<u64>> {
    let mut head = [0; 8];
    if read_at(file, &mut head, at)? < head.len() {
        return Ok(None);
    }
    let word =
        |index: usize| u32::from_le_bytes([head[index], head[index + 1], head[index + 2], head[index + 3]]);
    if word(0) & 0xffff_fff0 == 0x184d_2a50 {
        let end = at + 8 + u64::from(word(4));
        return Ok((end <= size).then_some(end));
    }
    if word(0) != 0xfd2f_b528 {
        return Ok(None);
    }
    let descriptor = head[4];
    let single_segment = descriptor & 0x20 != 0;
    let window = u64::from(!single_segment);
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let content_size = [u64::from(single_segment), 2, 4, 8][usize::from(descriptor >> 6)];
    let mut end = at + 5 + window + dictionary + content_size;
    loop {
        let mut block = [0; 3];
        if read_at(file, &mut block, end)? < block.len() || end - at > ZSTD_FRAME_BYTES_MAX {
            return Ok(None);
        }
        let block = u32::from_le_bytes([block[0], block[1], block[2], 0]);
        end += 3 + match (block >> 1) & 3 {
            // One byte, repeated.
            1 => 1,
            3 => return Ok(None),
            _ => u64::from(block >> 3),
        };
        if block & 1 == 1 {
            break;
        }
    }
    let checksum = if descriptor & 4 != 0 { 4 } else { 0 };
    end += checksum;
    Ok((end <= size).then_some(end))
}

/// First block of bgzip at or after each wanted place; none at all for other gzip files.
pub(crate) fn bgzip_starts(
    file: &File,
    size: u64,
    wanted: impl Iterator<Item = u64>,
) -> io::Result<Vec<u64>> {
    let mut starts: Vec<u64> = Vec::new();
    if !is_chain(file, 0, size)? {
        return Ok(starts);
    }
    for place in wanted {
        if starts.last().is_some_and(|last| *last >= place) {
            continue;
        }
        let mut window = vec![0; 2 * BGZIP_BLOCK_BYTES_MAX];
        let filled = read_at(file, &mut window, place)?;
        for found in memchr::memmem::find_iter(&window[..filled], &[0x1f, 0x8b, 8, 4]) {
            let at = place + found as u64;
            if at > 0 && is_chain(file, at, size)? {
                starts.push(at);
                break;
            }
        }
    }
    Ok(starts)
}

/// Several blocks follow each other here, or fewer up to the end of the file.
fn is_chain(file: &File, mut at: u64, size: u64) -> io::Result<bool> {
    for _ in 0..BGZIP_CHAIN {
        match bgzip_block_bytes(file, at)? {
            Some(bytes) => at += bytes,
            None => return Ok(false),
        }
        if at >= size {
            break;
        }
    }
    Ok(at <= size)
}

/// Length of the block at `at`, from its extra field "BC" (SAM specification, section 4.1).
fn bgzip_block_bytes(file: &File, at: u64) -> io::Result<Option<u64>> {
    let mut head = [0; 12];
    if read_at(file, &mut head, at)? < head.len() || head[..4] != [0x1f, 0x8b, 8, 4] {
        return Ok(None);
    }
    let mut extra = vec![0; usize::from(u16::from_le_bytes([head[10], head[11]]))];
    if read_at(file, &mut extra, at + 12)? < extra.len() {
        return Ok(None);
    }
    let mut fields = extra.as_slice();
    while let [first, second, low, high, rest @ ..] = fields {
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        if let (b'B', b'C', [low, high, ..]) = (*first, *second, rest)
            && length == 2
        {
            return Ok(Some(u64::from(u16::from_le_bytes([*low, *high])) + 1));
        }
        fields = rest.get(length..).unwrap_or_default();
    }
    Ok(None)
}
