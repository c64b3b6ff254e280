//! What the machine, or the control group that holds this process, has to offer.

use std::fs;
use std::path::Path;

/// Used when nothing tells.
const UNKNOWN_BYTES: u64 = 4 << 30;

/// Cores of the machine.
pub fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as u32)
}

/// Bytes of memory that this process may use: the least of the machine and its control groups.
pub fn memory_bytes() -> u64 {
    memory_below(Path::new("/"))
}

fn memory_below(root: &Path) -> u64 {
    let machine = read(&root.join("proc/meminfo")).and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kilobytes * 1024)
    });
    let groups = read(&root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(|line| group_limit(root, line));
    limits.chain(machine).min().unwrap_or(UNKNOWN_BYTES)
}

/// The least limit of a control group and the groups around it. `line` is "number:controllers:path"; version 2 has no
/// controllers.
fn group_limit(root: &Path, line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let (mount, file) = if controllers.is_empty() {
        ("sys/fs/cgroup", "memory.max")
    } else if controllers.split(',').any(|name| name == "memory") {
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
    } else {
        return None;
    };
    let mount = root.join(mount);
    // In a container the path is often that of the host, and only the mount itself is there.
    let path = Path::new(path.trim_start_matches('/'));
    path.ancestors()
        .filter_map(|group| read(&mount.join(group).join(file))?.trim().parse::<u64>().ok())
        .filter(|bytes| *bytes > 0)
        .min()
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> u64 {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        memory_below(root.path())
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:        1000 kB\nMemFree: 1 kB\n");

    #[test]
    fn the_machine_counts_where_no_group_limits() {
        assert_eq!(machine(&[]), UNKNOWN_BYTES);
        assert_eq!(machine(&[MEMINFO]), 1_024_000);
        let unlimited = [
            MEMINFO,
            ("proc/self/cgroup", "0::/a\n"),
            ("sys/fs/cgroup/a/memory.max", "max\n"),
        ];
        assert_eq!(machine(&unlimited), 1_024_000);
    }

    #[test]
    fn nested_groups_of_version_2() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("sys/fs/cgroup/outer/memory.max", "5000\n"),
            ("sys/fs/cgroup/outer/inner/memory.max", "7000\n"),
        ];
        assert_eq!(machine(&files), 5_000);
    }

    #[test]
    fn the_group_at_the_mount_of_a_container() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "0::/kubepods/pod/elsewhere\n"),
            ("sys/fs/cgroup/memory.max", "6000\n"),
        ];
        assert_eq!(machine(&files), 6_000);
    }

    #[test]
    fn groups_of_version_1() {
        let files = [
            MEMINFO,
            (
                "proc/self/cgroup",
                "9:cpu,cpuacct:/x\n5:memory,hugetlb:/docker/id\n0::/\n",
            ),
            (
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
            ("sys/fs/cgroup/memory/docker/id/memory.limit_in_bytes", "8000\n"),
        ];
        assert_eq!(machine(&files), 8_000);
    }
}
