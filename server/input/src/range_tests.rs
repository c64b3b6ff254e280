//! A file read in pieces gives what the whole file gives: rows in order, warnings word by word, counters.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use serde_json::{Value, json};

use crate::ranges::{cut, usable};
use crate::tests::{Kept, rows, signature};
use crate::*;

/// Files that are tried; each at many cuts.
const FILES: u64 = 400;

/// Numbers that look random: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

#[derive(Debug, PartialEq)]
struct Found {
    rows: Vec<Vec<String>>,
    warnings: Vec<String>,
    counted: u64,
    bytes: u64,
    files: usize,
}

fn read(spec: &ExternSpec, splits: &[Split], policy: &Policy) -> Found {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (kept, counters) = (Kept::default(), ReadCounters::default());
    let projection: Vec<usize> = (0..spec.signature().len()).collect();
    let options = ReadOptions {
        batch_rows: 4,
        ..ReadOptions::default()
    };
    let mut batches = Vec::new();
    for split in splits {
        let mut emit = |batch| {
            batches.push(batch);
            ControlFlow::Continue(())
        };
        let handle = runtime.handle();
        read_split(
            spec,
            split,
            &projection,
            policy,
            &options,
            &counters,
            &kept,
            handle,
            &mut emit,
        )
        .unwrap();
    }
    Found {
        rows: rows(&batches),
        warnings: kept.0.into_inner(),
        counted: counters.rows(),
        bytes: counters.bytes(),
        files: splits.iter().filter(|split| split.begins_file()).count(),
    }
}

fn text(random: &mut Random, kind: &str) -> Vec<u8> {
    let mut text = Vec::new();
    if random.below(4) == 0 {
        text.extend_from_slice("\u{feff}".as_bytes());
    }
    let lines = random.below(30);
    for line in 0..lines {
        let word = random.of(&[
            "a",
            "ä€𝄞",
            "\u{feff}",
            "",
            "x\u{2028}y",
            "long enough to cross some cuts",
        ]);
        let record = match (kind, random.below(8)) {
            (_, 0) => String::new(),
            ("json", 1) => "{\"x\": ".to_owned(),
            ("json", 2) => format!("{{\"x\":{line},\"w\":\"{word}\"}}{{\"x\":-1}}"),
            ("json", 3) => "{\"__time\":\"never\",\"x\":1}".to_owned(),
            ("json", _) => format!("{{\"__time\":{line},\"x\":{line},\"w\":\"{word}\"}}"),
            ("tsv", _) => format!("{line}\t{word}\t\"{line}"),
            (_, 1) => format!("{line},\"open {word}"),
            (_, 2) => format!("{line},\"{word}\",\"not the end\nof the record\""),
            (_, 3) => format!("{line},\"{word} \"\"quoted\"\"\",z"),
            (_, _) => format!("{line},{word},{}", line * 7),
        };
        text.extend_from_slice(record.as_bytes());
        if random.below(20) == 0 {
            text.push(0xff);
        }
        let last = line + 1 == lines;
        if !last || random.below(2) == 0 {
            text.extend_from_slice(random.of(&["\n", "\n", "\r\n"]).as_bytes());
        }
    }
    text
}

/// Text in several frames, cut anywhere.
fn packed(random: &mut Random, text: &[u8], suffix: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (frame, after) = rest.split_at((1 + random.below(60)).min(rest.len()));
        rest = after;
        match suffix {
            "" => out.extend_from_slice(frame),
            ".zst" => {
                if random.below(4) == 0 {
                    // A frame to skip, as pzstd writes them.
                    out.extend_from_slice(&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
                }
                let mut encoder = zstd::Encoder::new(&mut out, 1).unwrap();
                encoder.include_checksum(random.below(2) == 0).unwrap();
                encoder.include_contentsize(random.below(2) == 0).unwrap();
                encoder.write_all(frame).unwrap();
                encoder.finish().unwrap();
            }
            _ => out.extend_from_slice(&bgzip_block(frame)),
        }
    }
    if suffix == ".gz" {
        out.extend_from_slice(&bgzip_block(b""));
    }
    out
}

fn bgzip_block(text: &[u8]) -> Vec<u8> {
    let mut deflated = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    deflated.write_all(text).unwrap();
    let deflated = deflated.finish().unwrap();
    let mut checksum = flate2::Crc::new();
    checksum.update(text);
    let last = (12 + 6 + deflated.len() + 8 - 1) as u16;
    let mut block = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 6, 0, b'B', b'C', 2, 0];
    block.extend_from_slice(&last.to_le_bytes());
    block.extend_from_slice(&deflated);
    block.extend_from_slice(&checksum.sum().to_le_bytes());
    block.extend_from_slice(&(text.len() as u32).to_le_bytes());
    block
}

fn spec(path: &Path, format: &Value, columns: &[(&str, &str)]) -> ExternSpec {
    let source = json!({"type": "local", "files": [path]});
    ExternSpec::parse(&source, format, &signature(columns)).unwrap()
}

#[test]
fn any_pieces_of_any_file_give_what_the_whole_file_gives() {
    let directory = tempfile::tempdir().unwrap();
    let policy = Policy {
        allow_local: vec![directory.path().to_owned()],
        ..Policy::default()
    };
    let (mut cut_files, mut warned) = ([0, 0, 0], 0);
    for seed in 0..FILES {
        let random = &mut Random(seed);
        let kind = random.of(&["json", "csv", "tsv"]);
        let skip = random.below(3);
        let format = match (kind, random.below(2)) {
            ("json", _) => json!({"type": "json"}),
            (_, 0) => json!({"type": kind, "columns": ["x", "w"], "skipHeaderRows": skip}),
            _ => json!({"type": kind, "findColumnsFromHeader": true, "skipHeaderRows": skip}),
        };
        let mut content = text(random, kind);
        if format["findColumnsFromHeader"] == true {
            let separator = if kind == "csv" { "," } else { "\t" };
            let mut all = format!("skipped {skip}\n").repeat(skip).into_bytes();
            all.extend_from_slice(format!("x{separator}w\n").as_bytes());
            all.append(&mut content);
            content = all;
        }
        let place = random.below(3);
        let suffix = ["", ".zst", ".gz"][place];
        if content.is_empty() {
            // An empty file is left out of the list.
            continue;
        }
        let packed = packed(random, &content, suffix);
        let path = directory.path().join(format!("{seed}.{kind}{suffix}"));
        std::fs::write(&path, &packed).unwrap();
        let columns: &[_] = match kind {
            "json" => &[("__time", "long"), ("x", "string"), ("w", "string")],
            _ => &[("x", "string"), ("w", "string")],
        };
        let spec = spec(&path, &format, columns);
        let size = packed.len() as u64;
        let whole = Split::File {
            path: path.clone(),
            size,
            range: None,
        };
        let expected = read(&spec, std::slice::from_ref(&whole), &policy);
        assert_eq!(expected.bytes, content.len() as u64);
        warned += usize::from(!expected.warnings.is_empty());
        for round in 0..6 {
            let mut wanted: Vec<u64> = match round {
                0 => (1..size).collect(),
                _ => (0..1 + random.below(6))
                    .map(|_| random.below(packed.len().max(1)) as u64)
                    .collect(),
            };
            wanted.sort_unstable();
            let cuts = usable(&path, size, wanted.into_iter(), &spec.format).unwrap();
            assert!(cuts.is_sorted_by(|a, b| a < b), "seed {seed}: {cuts:?}");
            cut_files[place] += usize::from(!cuts.is_empty());
            let mut splits = Vec::new();
            cut(whole.clone(), &cuts, &mut splits);
            assert_eq!(splits.len(), cuts.len() + 1);
            let sizes: u64 = splits.iter().filter_map(Split::size_bytes).sum();
            assert_eq!(sizes, size);
            assert_eq!(
                read(&spec, &splits, &policy),
                expected,
                "seed {seed}, cuts {cuts:?}"
            );
        }
        std::fs::remove_file(&path).unwrap();
    }
    // The cases must not be void.
    assert!(cut_files.iter().all(|count| *count > 100), "{cut_files:?}");
    assert!(warned > 100, "{warned}");
}

#[test]
fn a_null_byte_in_a_later_piece_is_named_by_its_record_in_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let policy = Policy {
        allow_local: vec![directory.path().to_owned()],
        ..Policy::default()
    };
    let path = directory.path().join("x.json");
    let text = "{\"w\":\"a\"}\n".repeat(20) + "broken\n{\"w\":\"\\u0000\"}\n";
    std::fs::write(&path, &text).unwrap();
    let spec = spec(&path, &json!({"type": "json"}), &[("w", "string")]);
    let size = text.len() as u64;
    let mut splits = Vec::new();
    cut(
        Split::File {
            path,
            size,
            range: None,
        },
        &[95],
        &mut splits,
    );
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (kept, counters) = (Kept::default(), ReadCounters::default());
    let fault = read_split(
        &spec,
        &splits[1],
        &[0],
        &policy,
        &ReadOptions::default(),
        &counters,
        &kept,
        runtime.handle(),
        &mut |_| ControlFlow::Continue(()),
    )
    .unwrap_err();
    assert_eq!(fault.to_json()["rowNumber"], 21, "{fault}");
    let warnings = kept.0.into_inner();
    assert!(warnings[0].contains("Record: 21, Line: 21)"), "{warnings:?}");
}
