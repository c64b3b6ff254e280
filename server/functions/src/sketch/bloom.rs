//! Bloom filters in the form of Druid's extension: k bits of a value in one block of eight words.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{DataType, Float32Type};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datafusion::common::{DataFusionError, ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;

use super::binary;
use crate::aggregate::{Aggregate, Call};
use crate::function::{Args, Function, is_text, returns_boolean};
use crate::{multiple, number, text};

/// COMPLEX of this name.
const KIND: &str = "bloom";
/// Words of a block.
const BLOCK: usize = 8;
/// Share of values that are found though they were never added.
const FALSE_POSITIVES: f32 = 0.05;
/// More values need a filter of several megabytes, which no row can hold.
const VALUES_MAX: i64 = 10_000_000;
/// Number of hashes, and number of words.
const HEADER: usize = 5;

pub(super) fn aggregates() -> Vec<Aggregate> {
    vec![
        Aggregate::new(
            "bloom_filter",
            (2, 2),
            |_| Ok(DataType::Binary),
            |_| vec![DataType::Binary],
            make,
        )
        .complex(|_| KIND),
    ]
}

pub(super) fn functions() -> Vec<Function> {
    vec![
        Function::new("bloom_filter_test", (2, 2), returns_boolean, test).check(|call, scalars| {
            let Some(Some(ScalarValue::Utf8(Some(text)))) = scalars.get(1) else {
                return Ok(());
            };
            match decode(text) {
                Some(_) => Ok(()),
                None => call.wrong("argument 2 is no bloom filter in base64"),
            }
        }),
    ]
}

/// A filter: bits that values have set.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bloom {
    hashes: u8,
    words: Vec<u64>,
}

impl Bloom {
    /// For so many values.
    fn new(values: i64) -> Bloom {
        let ln2 = std::f64::consts::LN_2;
        let bits = (-values as f64 * f64::from(FALSE_POSITIVES).ln() / (ln2 * ln2)) as i64;
        let hashes = (bits as f64 / values as f64 * ln2).round().max(1.0) as u8;
        let words = (bits as f64 / 64.0).ceil() as usize;
        // There is always some padding, up to a whole block.
        let words = words + BLOCK - words % BLOCK;
        Bloom {
            hashes,
            words: vec![0; words],
        }
    }

    fn read(bytes: &[u8]) -> Option<Bloom> {
        let (head, rest) = bytes.split_at_checked(HEADER)?;
        let count = u32::from_be_bytes(head[1..].try_into().ok()?) as usize;
        if rest.len() != count * 8 || count == 0 || !count.is_multiple_of(BLOCK) || head[0] == 0 {
            return None;
        }
        let words = rest.chunks_exact(8).filter_map(|word| word.try_into().ok());
        Some(Bloom {
            hashes: head[0],
            words: words.map(u64::from_be_bytes).collect(),
        })
    }

    fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.words.len() * 8);
        bytes.push(self.hashes);
        bytes.extend((self.words.len() as u32).to_be_bytes());
        bytes.extend(self.words.iter().flat_map(|word| word.to_be_bytes()));
        bytes
    }

    /// The word and the bit of each hash of a value.
    fn places(&self, hash: u64) -> impl Iterator<Item = (usize, u64)> + use<> {
        let (low, high) = (hash as i32, (hash >> 32) as i32);
        // Without the sign: what is negative is turned over.
        let positive = |hash: i32| (if hash < 0 { !hash } else { hash }) as usize;
        let blocks = self.words.len() / BLOCK;
        let block = positive(low.wrapping_add(high)) % blocks * BLOCK;
        (1..=i32::from(self.hashes)).map(move |round| {
            let mixed = positive(low.wrapping_add(high.wrapping_mul(round + 1)));
            (block + mixed % BLOCK, 1 << (mixed / BLOCK % 64))
        })
    }

    fn add(&mut self, hash: u64) {
        for (word, bit) in self.places(hash) {
            self.words[word] |= bit;
        }
    }

    fn has(&self, hash: u64) -> bool {
        self.places(hash).all(|(word, bit)| self.words[word] & bit != 0)
    }
}

/// The 64-bit form of Murmur3 that Hive has.
mod murmur {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    const SEED: u64 = 104_729;
    /// What NULL counts as.
    pub(super) const NULL: u64 = 2_862_933_555_777_941_757;

    fn scramble(word: u64) -> u64 {
        word.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2)
    }

    fn mix(hash: u64, word: u64) -> u64 {
        (hash ^ scramble(word))
            .rotate_left(27)
            .wrapping_mul(5)
            .wrapping_add(0x52dc_e729)
    }

    fn finish(mut hash: u64) -> u64 {
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ (hash >> 33)
    }

    pub(super) fn bytes(bytes: &[u8]) -> u64 {
        let mut hash = SEED;
        let (blocks, tail) = bytes.as_chunks::<8>();
        for block in blocks {
            hash = mix(hash, u64::from_le_bytes(*block));
        }
        if !tail.is_empty() {
            let mut last = [0; 8];
            last[..tail.len()].copy_from_slice(tail);
            hash ^= scramble(u64::from_le_bytes(last));
        }
        finish(hash ^ bytes.len() as u64)
    }

    pub(super) fn long(value: u64) -> u64 {
        finish(mix(SEED, value.swap_bytes()) ^ 8)
    }
}

/// Calls `take` with the hashes of each row: one, or those of all values of a multi-value string.
fn each_hash(array: &ArrayRef, mut take: impl FnMut(&mut dyn Iterator<Item = u64>)) -> Result<()> {
    let mut one = |hash: Option<u64>| take(&mut std::iter::once(hash.unwrap_or(murmur::NULL)));
    match array.data_type() {
        DataType::Float32 => array
            .as_primitive::<Float32Type>()
            .iter()
            .for_each(|value| one(value.map(|value| murmur::bytes(&value.to_bits().to_le_bytes())))),
        DataType::Float64 => number::doubles(array)?
            .iter()
            .for_each(|value| one(value.map(|value| murmur::long(value.to_bits())))),
        data_type if is_text(data_type) => {
            let texts = text::of(array)?;
            for value in &texts {
                match value.and_then(multiple::split) {
                    Some(items) => take(&mut items.iter().map(|item| match item {
                        Some(item) => murmur::bytes(item.as_bytes()),
                        None => murmur::NULL,
                    })),
                    None => take(&mut std::iter::once(
                        value.map_or(murmur::NULL, |value| murmur::bytes(value.as_bytes())),
                    )),
                }
            }
        }
        _ => number::longs(array)?
            .iter()
            .for_each(|value| one(value.map(|value| murmur::long(value as u64)))),
    }
    Ok(())
}

fn decode(text: &str) -> Option<Bloom> {
    // A filter that was selected comes as JSON text.
    let bytes = STANDARD.decode(text.trim_matches('"')).ok()?;
    Bloom::read(&bytes)
}

fn damaged() -> DataFusionError {
    DataFusionError::Execution("a bloom filter cannot be read".to_owned())
}

/// True for values that the filter has, and for a few others.
fn test(args: &Args) -> Result<ArrayRef> {
    let filters: Vec<Option<Bloom>> = match binary(&args.array(1)?)? {
        Some(bytes) => bytes
            .iter()
            .map(|bytes| {
                bytes
                    .map(|bytes| Bloom::read(bytes).ok_or_else(damaged))
                    .transpose()
            })
            .collect::<Result<_>>()?,
        None => match args.literal(1)? {
            Some(text) => vec![Some(decode(&text).ok_or_else(damaged)?)],
            None => args
                .text(1)?
                .iter()
                .map(|text| text.map(|text| decode(text).ok_or_else(damaged)).transpose())
                .collect::<Result<_>>()?,
        },
    };
    let mut found: Vec<Option<bool>> = Vec::with_capacity(args.rows);
    each_hash(&args.array(0)?, |hashes| {
        let filter = match filters.as_slice() {
            [one] => one.as_ref(),
            many => many.get(found.len()).and_then(Option::as_ref),
        };
        // Of an unsized iterator only `next` can be called.
        found.push(filter.map(|filter| std::iter::from_fn(|| hashes.next()).any(|hash| filter.has(hash))));
    })?;
    Ok(Arc::new(BooleanArray::from(found)))
}

fn make(call: &Call<'_>) -> Result<Box<dyn Accumulator>> {
    let values = call.number(1, 0)?;
    if !(1..=VALUES_MAX).contains(&values) {
        return plan_err!(
            "Aggregation [BLOOM_FILTER] needs between 1 and {VALUES_MAX} as maxNumEntries, not [{values}]"
        );
    }
    let merges = match call.complex(0).as_deref() {
        Some(KIND) => true,
        Some(_) => return call.cannot_apply(),
        None => false,
    };
    Ok(Box::new(Filter {
        values,
        merges,
        bloom: None,
    }))
}

#[derive(Debug)]
struct Filter {
    values: i64,
    /// The values are filters.
    merges: bool,
    bloom: Option<Bloom>,
}

impl Filter {
    fn merge(&mut self, filters: &ArrayRef) -> Result<()> {
        for bytes in filters.as_binary::<i32>().iter().flatten() {
            let other = Bloom::read(bytes).ok_or_else(damaged)?;
            let bloom = self.bloom.get_or_insert_with(|| Bloom::new(self.values));
            if (bloom.hashes, bloom.words.len()) != (other.hashes, other.words.len()) {
                return Err(DataFusionError::Execution(
                    "bloom filters of different sizes cannot be merged; give BLOOM_FILTER the maxNumEntries that they were made with"
                        .to_owned(),
                ));
            }
            for (word, bits) in bloom.words.iter_mut().zip(&other.words) {
                *word |= bits;
            }
        }
        Ok(())
    }
}

impl Accumulator for Filter {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if self.merges {
            return self.merge(&values[0]);
        }
        let bloom = self.bloom.get_or_insert_with(|| Bloom::new(self.values));
        each_hash(&values[0], |hashes| hashes.for_each(|hash| bloom.add(hash)))
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.merge(&states[0])
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Binary(self.bloom.as_ref().map(Bloom::write))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let bloom = self.bloom.get_or_insert_with(|| Bloom::new(self.values));
        Ok(ScalarValue::Binary(Some(bloom.write())))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.bloom.as_ref().map_or(0, |bloom| bloom.words.len() * 8)
    }
}
