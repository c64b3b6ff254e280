//! Cases of Druid's behaviour, run against a live server by `tests/conformance/run.py`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Server, edits_file};

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests")
}

#[test]
fn cases_pass() {
    let server = Server::start(&["--worker-slots", "4"]);
    let cases = tests().join("data/conformance");
    for entry in std::fs::read_dir(cases.join("input")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        server.input(&name, &std::fs::read(&path).unwrap());
    }
    server.input("wikiticker-2015-09-12-sampled.json.gz", edits_file());
    let output = Command::new("python3")
        .arg(tests().join("conformance/run.py"))
        .args([
            "--base-url",
            &server.url(""),
            "--load-timeout",
            "5",
            "--parallel",
            "3",
        ])
        .arg("--data-dir")
        .arg(server.directory.join("input"))
        .arg("--cases")
        .arg(&cases)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}\n{}\n{}",
        String::from_utf8_lossy(&output.stderr),
        server.process.log()
    );
    let last = text.lines().last().unwrap_or_default();
    let passed: u32 = last.split_whitespace().next().unwrap().parse().unwrap();
    assert!(passed >= 200, "only {last}");
}
