//! Bytes of a split, decompressed, in blocks that end with a line.

use std::fs::File;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use crate::lz4;

const BLOCK_BYTES: usize = 1 << 20;
/// Bytes of a line: more would not fit into memory beside everything else.
pub(crate) const LINE_BYTES_MAX: usize = 128 << 20;
/// Blocks between the decompressing thread and the parser.
const QUEUED_BLOCKS: usize = 3;

/// How a file is compressed, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
    /// Snappy in frames.
    Snappy,
    Lz4,
    Zip,
}

impl Compression {
    /// By suffix, case-sensitive.
    pub(crate) fn of(name: &str) -> Compression {
        match name.rsplit_once('.').map(|(_, suffix)| suffix) {
            Some("gz") => Compression::Gzip,
            Some("zst") => Compression::Zstd,
            Some("bz2") => Compression::Bzip2,
            Some("xz") => Compression::Xz,
            Some("sz") => Compression::Snappy,
            Some("lz4") => Compression::Lz4,
            Some("zip") => Compression::Zip,
            _ => Compression::None,
        }
    }

    /// The text of a file.
    pub(crate) fn reader(self, file: File) -> io::Result<Box<dyn Read + Send>> {
        if self != Compression::Zip {
            return self.stream(file);
        }
        let mut archive = zip::ZipArchive::new(file).map_err(io::Error::other)?;
        if archive.is_empty() {
            return Ok(Box::new(io::empty()));
        }
        // Only the first entry counts. It is spooled, since an entry borrows its archive.
        let mut entry = archive.by_index(0).map_err(io::Error::other)?;
        let mut spooled = tempfile::tempfile()?;
        io::copy(&mut entry, &mut spooled)?;
        io::Seek::rewind(&mut spooled)?;
        Ok(Box::new(spooled))
    }

    /// The text of a stream, or of whole frames of one. A zip archive is no stream.
    pub(crate) fn stream(self, bytes: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
        let buffered = |bytes| io::BufReader::with_capacity(256 * 1024, bytes);
        Ok(match self {
            Compression::None => Box::new(bytes),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered(bytes))),
            Compression::Zstd => Box::new(zstd::Decoder::with_buffer(buffered(bytes))?),
            Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(buffered(bytes))),
            Compression::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(buffered(bytes))),
            Compression::Snappy => Box::new(snap::read::FrameDecoder::new(bytes)),
            Compression::Lz4 => lz4::reader(buffered(bytes))?,
            Compression::Zip => return Err(io::Error::from(io::ErrorKind::Unsupported)),
        })
    }
}

/// Where blocks come from.
pub(crate) enum Blocks<'scope> {
    /// Read by the parser itself.
    Direct {
        reader: Box<dyn Read + Send>,
        spare: Vec<u8>,
    },
    /// Decompressed by a thread of its own.
    Threaded {
        full: Receiver<io::Result<Vec<u8>>>,
        empty: SyncSender<Vec<u8>>,
        _thread: ScopedJoinHandle<'scope, ()>,
    },
}

impl<'scope> Blocks<'scope> {
    /// Blocks of text that is already there.
    pub(crate) fn text(text: String) -> Blocks<'scope> {
        Blocks::Direct {
            reader: Box::new(io::Cursor::new(text.into_bytes())),
            spare: Vec::new(),
        }
    }

    /// Blocks of a file's text. Decompression runs beside the parser.
    pub(crate) fn file<'env>(
        mut reader: Box<dyn Read + Send>,
        compression: Compression,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Blocks<'scope> {
        if compression == Compression::None || compression == Compression::Zip {
            return Blocks::Direct {
                reader,
                spare: Vec::new(),
            };
        }
        let (full_sender, full) = sync_channel(QUEUED_BLOCKS);
        let (empty, empty_receiver) = sync_channel::<Vec<u8>>(QUEUED_BLOCKS + 2);
        let thread = scope.spawn(move || {
            loop {
                let mut block = empty_receiver.try_recv().unwrap_or_default();
                let result = fill(reader.as_mut(), &mut block);
                let last = !matches!(result, Ok(read) if read > 0);
                // The parser has stopped when nobody receives.
                if full_sender.send(result.map(|_| block)).is_err() || last {
                    break;
                }
            }
        });
        Blocks::Threaded {
            full,
            empty,
            _thread: thread,
        }
    }

    /// The next block; empty at the end.
    fn next(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Blocks::Direct { reader, spare } => {
                let mut block = std::mem::take(spare);
                fill(reader.as_mut(), &mut block)?;
                Ok(block)
            }
            Blocks::Threaded { full, .. } => match full.recv() {
                Ok(block) => block,
                Err(_ended) => Ok(Vec::new()),
            },
        }
    }

    fn recycle(&mut self, block: Vec<u8>) {
        match self {
            Blocks::Direct { spare, .. } => *spare = block,
            Blocks::Threaded { empty, .. } => {
                // Full: one block less to reuse.
                let _dropped = empty.try_send(block);
            }
        }
    }
}

fn fill(reader: &mut dyn Read, block: &mut Vec<u8>) -> io::Result<usize> {
    block.clear();
    reader.take(BLOCK_BYTES as u64).read_to_end(block)
}

/// Whole lines out of blocks.
pub(crate) struct Lines<'scope> {
    blocks: Blocks<'scope>,
    /// The beginning of a line whose end has not come yet.
    carry: Vec<u8>,
    ended: bool,
}

impl<'scope> Lines<'scope> {
    pub(crate) fn new(blocks: Blocks<'scope>) -> Lines<'scope> {
        Lines {
            blocks,
            carry: Vec::new(),
            ended: false,
        }
    }

    /// Hands whole lines to `each`, many at a time, until it says stop or the input ends. Returns false when
    /// it was stopped. `each` also hears how many bytes were read for it.
    pub(crate) fn for_each<E>(
        &mut self,
        mut each: impl FnMut(&[u8], u64) -> Result<bool, E>,
        wrong: impl Fn(io::Error) -> E,
    ) -> Result<bool, E> {
        while !self.ended {
            let block = self.blocks.next().map_err(&wrong)?;
            if block.is_empty() {
                self.ended = true;
                let rest = std::mem::take(&mut self.carry);
                return if rest.is_empty() { Ok(true) } else { each(&rest, 0) };
            }
            let read = block.len() as u64;
            let Some(last) = memchr::memrchr(b'\n', &block) else {
                if self.carry.len() + block.len() > LINE_BYTES_MAX {
                    return Err(wrong(io::ErrorKind::FileTooLarge.into()));
                }
                self.carry.extend_from_slice(&block);
                self.blocks.recycle(block);
                if !each(&[], read)? {
                    return Ok(false);
                }
                continue;
            };
            let mut start = 0;
            if !self.carry.is_empty() {
                let first = memchr::memchr(b'\n', &block).unwrap_or(last);
                self.carry.extend_from_slice(&block[..=first]);
                let line = std::mem::take(&mut self.carry);
                if !each(&line, 0)? {
                    return Ok(false);
                }
                start = first + 1;
            }
            let more = each(&block[start..=last], read)?;
            self.carry.extend_from_slice(&block[last + 1..]);
            self.blocks.recycle(block);
            if !more {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
