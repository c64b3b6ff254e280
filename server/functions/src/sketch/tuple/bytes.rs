//! The binary form of tuple sketches, which is that of Java's compact ArrayOfDoublesSketch.

use datasketches::codec::{SketchBytes, SketchSlice};
use datasketches::error::{Error, ErrorKind};
use datasketches::tuple::CompactTupleSketch;

use super::{Doubles, Sketch};

const SERIAL_VERSION: u8 = 1;
/// The family of tuple sketches.
const FAMILY: u8 = 9;
/// A compact sketch of arrays of doubles.
const TYPE: u8 = 3;
const IS_BIG_ENDIAN: u8 = 1;
const IS_EMPTY: u8 = 1 << 2;
const HAS_ENTRIES: u8 = 1 << 3;

/// A sketch and how many values each of its keys has.
pub(super) struct Stored {
    pub values: u8,
    pub sketch: Sketch,
}

impl Stored {
    pub(super) fn read(bytes: &[u8]) -> Result<Stored, Error> {
        let mut cursor = SketchSlice::new(bytes);
        let short = |_| invalid("it is too short");
        let head = [(); 6].map(|()| cursor.read_u8());
        let [_, Ok(version), Ok(family), Ok(kind), Ok(flags), Ok(values)] = head else {
            return Err(invalid("it is too short"));
        };
        if (version, family, kind) != (SERIAL_VERSION, FAMILY, TYPE) || flags & IS_BIG_ENDIAN != 0 {
            return Err(invalid("it is no compact sketch of arrays of doubles"));
        }
        let seed = cursor.read_u16_le().map_err(short)?;
        let theta = cursor.read_u64_le().map_err(short)?;
        let mut entries = Vec::new();
        if flags & HAS_ENTRIES != 0 {
            let count = cursor.read_u32_le().map_err(short)? as usize;
            cursor.read_u32_le().map_err(short)?;
            let needed = count.saturating_mul(8 + 8 * usize::from(values));
            if cursor.remaining().len() < needed {
                return Err(invalid("it is too short"));
            }
            for _ in 0..count {
                entries.push((cursor.read_u64_le().map_err(short)?, Vec::new()));
            }
            for (_, sums) in &mut entries {
                for _ in 0..values {
                    sums.push(cursor.read_f64_le().map_err(short)?);
                }
            }
        }
        let sketch = sketch_of(flags & IS_EMPTY != 0, seed, theta, entries)?;
        Ok(Stored { values, sketch })
    }

    pub(super) fn written(&self) -> Vec<u8> {
        let entries: Vec<_> = self.sketch.iter().collect();
        let each = 8 + 8 * usize::from(self.values);
        let mut bytes = SketchBytes::with_capacity(24 + each * entries.len());
        let flags = [
            (self.sketch.is_empty(), IS_EMPTY),
            (!entries.is_empty(), HAS_ENTRIES),
        ];
        let flags = flags.iter().filter(|(is, _)| *is).map(|(_, flag)| flag).sum();
        for byte in [1, SERIAL_VERSION, FAMILY, TYPE, flags, self.values] {
            bytes.write_u8(byte);
        }
        bytes.write_u16_le(self.sketch.seed_hash());
        bytes.write_u64_le(self.sketch.theta64());
        if !entries.is_empty() {
            bytes.write_u32_le(u32::try_from(entries.len()).unwrap_or(u32::MAX));
            bytes.write_u32_le(0);
        }
        for entry in &entries {
            bytes.write_u64_le(entry.hash());
        }
        for entry in &entries {
            let sums = &entry.summary().0;
            for place in 0..usize::from(self.values) {
                bytes.write_f64_le(sums.get(place).copied().unwrap_or(0.0));
            }
        }
        bytes.into_bytes()
    }
}

/// A sketch of its parts, by way of the form in which the library reads sketches.
fn sketch_of(empty: bool, seed: u16, theta: u64, entries: Vec<(u64, Vec<f64>)>) -> Result<Sketch, Error> {
    use datasketches::tuple::TupleSummaryValue;
    const COMPACT: u8 = 1 << 1 | 1 << 3;
    let mut bytes = SketchBytes::with_capacity(24 + 32 * entries.len());
    let flags = if empty { COMPACT | IS_EMPTY } else { COMPACT };
    for byte in [3, 3, FAMILY, 1, 0, flags] {
        bytes.write_u8(byte);
    }
    bytes.write_u16_le(seed);
    bytes.write_u32_le(u32::try_from(entries.len()).unwrap_or(u32::MAX));
    bytes.write_u32_le(0);
    bytes.write_u64_le(theta);
    for (hash, sums) in entries {
        bytes.write_u64_le(hash);
        Doubles(sums).serialize_value(&mut bytes);
    }
    CompactTupleSketch::deserialize(&bytes.into_bytes())
}

fn invalid(why: &str) -> Error {
    Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use base64::Engine as _;

    #[test]
    fn java_bytes_come_back() {
        let decode = |text| base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        let empty = decode("AQEJAwQBzJP/////////fw==");
        let one = decode("AQEJAwgBzJP/////////fwEAAAAAAAAAjFnadZuMrkgAAAAAAAAAAA==");
        for bytes in [&empty, &one] {
            assert_eq!(Stored::read(bytes).unwrap().written(), *bytes);
        }
        assert!(Stored::read(&empty).unwrap().sketch.is_empty());
        for length in 0..one.len() {
            assert!(Stored::read(&one[..length]).is_err(), "{length}");
        }
        let mut other = one.clone();
        other[3] = 2;
        assert!(Stored::read(&other).is_err());
    }
}
