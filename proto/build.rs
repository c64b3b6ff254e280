//! Compiles `proto/trilith` without protoc.

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("trilith");
    let files = [
        "task/v1/report.proto",
        "task/v1/task_service.proto",
        "query/v1/query_service.proto",
        "datasource/v1/datasource_service.proto",
        "worker/v1/worker_service.proto",
    ];
    let paths: Vec<PathBuf> = files.iter().map(|file| root.join(file)).collect();
    for path in &paths {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["."])?;
    compiler
        .include_source_info(true)
        .include_imports(true)
        .open_files(&paths)?;
    std::fs::write(out.join("trilith.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure().compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
