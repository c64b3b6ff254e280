//! The allocator of the process. The memory limit counts what is in use; what an allocator keeps beyond that is
//! resident as well, so freed pages go back to the system soon.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Read by jemalloc before `main`: one arena for each core, freed pages are returned after half a second.
#[allow(unsafe_code, reason = "jemalloc finds its settings by the name of a symbol")]
#[allow(non_upper_case_globals, reason = "the name is jemalloc's")]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static malloc_conf: &[u8; 56] = b"percpu_arena:percpu,dirty_decay_ms:500,muzzy_decay_ms:0\0";
