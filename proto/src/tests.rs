use std::path::{Path, PathBuf};

fn protos(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            protos(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
}

/// Clients are generated from these files; their comments are all the documentation a client has.
#[test]
fn every_message_field_and_method_is_documented() {
    let mut files = Vec::new();
    protos(&Path::new(env!("CARGO_MANIFEST_DIR")).join("trilith"), &mut files);
    assert!(files.len() >= 5, "{files:?}");
    let mut bare = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut before = "";
        for line in text.lines().map(str::trim) {
            let declares = ["message ", "enum ", "service ", "rpc ", "oneof "]
                .iter()
                .any(|word| line.starts_with(word));
            let setting = line.starts_with("syntax ") || line.starts_with("option ");
            let field = line.ends_with(';') && line.contains(" = ") && !setting;
            if (declares || field) && !before.starts_with("//") {
                bare.push(format!("{}: {line}", file.display()));
            }
            before = line;
        }
    }
    assert!(bare.is_empty(), "{bare:#?}");
}
