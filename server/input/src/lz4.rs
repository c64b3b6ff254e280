//! LZ4 files: the block stream that Java's library writes, or the standard frames of the lz4 tool.

use std::io::{self, BufRead, Read};

const BLOCK_MAGIC: &[u8; 8] = b"LZ4Block";
/// Magic, method, compressed length, length, checksum.
const HEADER_BYTES: usize = 21;
const METHOD_STORED: u8 = 0x10;
const METHOD_LZ4: u8 = 0x20;
/// Java's library writes blocks of at most 32 MiB.
const BLOCK_BYTES_MAX: usize = 32 << 20;

/// The text of a stream, whichever of the two it is.
pub(crate) fn reader(mut bytes: impl BufRead + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    if bytes.fill_buf()?.first() == BLOCK_MAGIC.first() {
        return Ok(Box::new(Blocks {
            bytes,
            block: Vec::new(),
            at: 0,
        }));
    }
    Ok(Box::new(lz4_flex::frame::FrameDecoder::new(bytes)))
}

struct Blocks<R> {
    bytes: R,
    block: Vec<u8>,
    at: usize,
}

impl<R: BufRead> Blocks<R> {
    /// Reads the next block; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let broken =
            |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("lz4 block stream: {why}"));
        loop {
            if self.bytes.fill_buf()?.is_empty() {
                return Ok(false);
            }
            let mut header = [0; HEADER_BYTES];
            self.bytes.read_exact(&mut header)?;
            let (magic, rest) = header.split_at(BLOCK_MAGIC.len());
            if magic != BLOCK_MAGIC {
                return Err(broken("a block does not begin with its mark"));
            }
            let length = |at: usize| {
                let mut number = [0; 4];
                number.copy_from_slice(&rest[at..at + 4]);
                u32::from_le_bytes(number) as usize
            };
            let (compressed, full) = (length(1), length(5));
            if compressed.max(full) > BLOCK_BYTES_MAX {
                return Err(broken("a block is too large"));
            }
            let mut stored = vec![0; compressed];
            self.bytes.read_exact(&mut stored)?;
            self.block = match rest[0] & 0xf0 {
                METHOD_STORED => stored,
                METHOD_LZ4 => {
                    lz4_flex::block::decompress(&stored, full).map_err(|error| broken(&error.to_string()))?
                }
                _ => return Err(broken("unknown method")),
            };
            if self.block.len() != full {
                return Err(broken("a block has another length than it says"));
            }
            self.at = 0;
            // An empty block ends a stream; another one may follow.
            if full > 0 {
                return Ok(true);
            }
        }
    }
}

impl<R: BufRead> Read for Blocks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() && !self.fill()? {
            return Ok(0);
        }
        let rest = &self.block[self.at..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.at += length;
        Ok(length)
    }
}
