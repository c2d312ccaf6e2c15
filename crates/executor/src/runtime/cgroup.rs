//! The host's cgroup hierarchies: where a container's cgroup lies in each, what it says, and how it is removed.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    fs::{AtFlags, unlinkat},
    io::Errno,
};

/// Processes killed at the end take this long at most to leave a cgroup.
const EMPTY_WAIT_MAX: Duration = Duration::from_secs(5);

/// Between two looks at a cgroup that is not empty yet.
const EMPTY_POLL: Duration = Duration::from_millis(2);

/// A cgroup without processes and of no container may be one that is just being made, by another daemon perhaps, for seconds.
const DEBRIS_AGE_MIN: Duration = Duration::from_secs(600);

/// Cgroups removed in one sweep; each costs the kernel some ten microseconds, and the next start goes on.
const SWEEP_MAX: usize = 20_000;

/// Digits of a container's id.
const CONTAINER_ID_LENGTH: usize = 64;

/// Which hierarchies a host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    V1,
    V2,
    /// v1 controllers with a v2 hierarchy beside them.
    Hybrid,
}

/// The mounted hierarchies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchies {
    /// v1 mount points with their controllers (`name=systemd` included).
    pub v1: Vec<(Vec<String>, PathBuf)>,
    /// The v2 mount point.
    pub v2: Option<PathBuf>,
}

impl Hierarchies {
    /// Reads `/proc/self/mountinfo`.
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/mountinfo")?))
    }

    /// Finds cgroup mounts in the text of a `mountinfo`; the first of each hierarchy counts.
    pub fn parse(mountinfo: &str) -> Self {
        let (mut v1, mut v2) = (Vec::<(Vec<String>, PathBuf)>::new(), None);
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let Some(point) = left.split(' ').nth(4).map(PathBuf::from) else {
                continue;
            };
            let mut right = right.split(' ');
            match right.next() {
                Some("cgroup2") if v2.is_none() => v2 = Some(point),
                Some("cgroup") => {
                    let options = right.nth(1).unwrap_or_default();
                    let is_controller = |option: &&str| {
                        option.starts_with("name=") || V1_CONTROLLERS.contains(option)
                    };
                    let controllers: Vec<String> = options
                        .split(',')
                        .filter(is_controller)
                        .map(str::to_owned)
                        .collect();
                    if !v1.iter().any(|(known, _)| *known == controllers) {
                        v1.push((controllers, point));
                    }
                }
                _ => {}
            }
        }
        Self { v1, v2 }
    }

    /// Which kind of host this is.
    pub fn mode(&self) -> Mode {
        match (self.v1.is_empty(), &self.v2) {
            (true, _) => Mode::V2,
            (false, Some(_)) => Mode::Hybrid,
            (false, None) => Mode::V1,
        }
    }

    /// The directory of `cgroup` (an absolute cgroup path) for a v1 controller, or in the v2 hierarchy.
    pub fn dir_of(&self, controller: &str, cgroup: &str) -> Option<PathBuf> {
        let relative = cgroup.trim_start_matches('/');
        let found = self
            .v1
            .iter()
            .find(|(names, _)| names.iter().any(|name| name == controller));
        match (found, self.mode()) {
            (Some((_, point)), _) => Some(point.join(relative)),
            (None, Mode::V2) => self.v2.as_ref().map(|point| point.join(relative)),
            (None, _) => None,
        }
    }

    /// Whether the kernel can limit swap.
    pub fn has_swap_limit(&self) -> bool {
        match (self.dir_of("memory", "/"), self.mode()) {
            (Some(dir), Mode::V1 | Mode::Hybrid) => {
                dir.join("memory.memsw.limit_in_bytes").exists()
            }
            // The root group has no such file: its children do, if swap is compiled in.
            (Some(_), Mode::V2) => Path::new("/proc/swaps").exists(),
            (None, _) => false,
        }
    }

    /// The directories of the cgroup that monitors and the tunnel's process join, below `parent`: stopping the daemon's unit must not stop
    /// them. systemd tracks units by these two; the others do not matter to anyone.
    pub fn monitor_dirs(&self, parent: &str) -> Vec<PathBuf> {
        let own = format!("{}/monitor", parent.trim_end_matches('/'));
        let unified = self.v2.as_ref();
        let unified = unified.map(|point| point.join(own.trim_start_matches('/')));
        let named = self.dir_of("name=systemd", &own);
        named.into_iter().chain(unified).collect()
    }

    /// The directories of `cgroup` in all hierarchies.
    pub fn dirs(&self, cgroup: &str) -> Vec<PathBuf> {
        let relative = cgroup.trim_start_matches('/');
        let v1 = self.v1.iter().map(|(_, point)| point);
        v1.chain(&self.v2)
            .map(|point| point.join(relative))
            .collect()
    }
}

/// Mount options that name a v1 controller.
const V1_CONTROLLERS: [&str; 14] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "net_cls",
    "net_prio",
    "perf_event",
    "hugetlb",
    "rdma",
    "misc",
];

/// Whether the kernel killed a process of this cgroup for want of memory. v1: `memory.oom_control`; v2: `memory.events`.
pub(crate) fn was_oom_killed(dirs: &[PathBuf]) -> bool {
    dirs.iter().any(|dir| {
        ["memory.oom_control", "memory.events"].iter().any(|name| {
            fs::read_to_string(dir.join(name))
                .ok()
                .and_then(|text| value_of(&text, "oom_kill"))
                .is_some_and(|count| count > 0)
        })
    })
}

/// The number after `key` in a flat keyed file.
pub(crate) fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        line.strip_prefix(key)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}

/// The processes of one cgroup directory, its children included.
pub(crate) fn pids(dir: &Path) -> io::Result<Vec<i32>> {
    let text = fs::read_to_string(dir.join("cgroup.procs"))?;
    let mut found: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for child in children(dir) {
        found.extend(pids(&child).unwrap_or_default());
    }
    Ok(found)
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Kills every process in these cgroups.
pub(crate) fn kill_all(dirs: &[PathBuf]) {
    for dir in dirs {
        // Opened, never created: below a hierarchy that is not mounted it would become a plain file.
        let file = OpenOptions::new().write(true).open(dir.join("cgroup.kill"));
        if file.and_then(|mut file| file.write_all(b"1")).is_ok() {
            continue;
        }
        for pid in pids(dir).unwrap_or_default() {
            let _ = crate::monitor::kill(pid, 9);
        }
    }
}

/// Kills and removes these cgroups with all below them; blocks until they are empty, a few milliseconds as a rule. Gone is success.
pub(crate) fn destroy(dirs: &[PathBuf]) -> io::Result<()> {
    let deadline = Instant::now() + EMPTY_WAIT_MAX;
    let mut first_error = None;
    for dir in dirs {
        while let Err(error) = remove_tree(dir) {
            if Instant::now() >= deadline {
                first_error.get_or_insert(error);
                break;
            }
            kill_all(std::slice::from_ref(dir));
            std::thread::sleep(EMPTY_POLL);
        }
    }
    first_error.map_or(Ok(()), Err)
}

/// Removes the empty cgroup `name` in `parent`, which this process may not reach by its path. Blocks as [`destroy`] does, until the
/// processes that have been killed have left it; with cgroups of its own below it stays for the daemon.
pub(crate) fn remove_in(parent: impl AsFd, name: &str) {
    let deadline = Instant::now() + EMPTY_WAIT_MAX;
    while unlinkat(&parent, name, AtFlags::REMOVEDIR) == Err(Errno::BUSY)
        && Instant::now() < deadline
    {
        std::thread::sleep(EMPTY_POLL);
    }
}

/// Removes cgroups below `parents` that a container has left: named like one, not of one that `is_known`, older than [`DEBRIS_AGE_MIN`].
/// Several daemons may share a machine; the kernel refuses what is not empty, so that nothing that runs is touched. Returns how many
/// went.
pub(crate) fn sweep(parents: &[PathBuf], is_known: impl Fn(&str) -> bool) -> usize {
    let is_old = |dir: &Path| {
        let modified = fs::metadata(dir).and_then(|meta| meta.modified());
        modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age >= DEBRIS_AGE_MIN))
    };
    let is_named = |name: &str| {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        name.len() == CONTAINER_ID_LENGTH && name.bytes().all(is_hex) && !is_known(name)
    };
    let all = parents.iter().flat_map(|parent| children(parent));
    let debris = all.filter(|dir| {
        let name = dir.file_name().and_then(|name| name.to_str());
        name.is_some_and(is_named) && is_old(dir)
    });
    let removed = debris
        .take(SWEEP_MAX)
        .filter(|dir| remove_tree(dir).is_ok());
    removed.count()
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for child in children(dir) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    /// Plain directories: what is not empty cannot be removed there either.
    #[test]
    fn only_old_empty_cgroups_of_unknown_containers_are_swept() {
        let root = tempfile::tempdir().unwrap();
        let name = |digit: &str| digit.repeat(CONTAINER_ID_LENGTH);
        let make = |name: &str, age: Duration| {
            let dir = root.path().join(name);
            fs::create_dir(&dir).unwrap();
            let file = fs::File::open(&dir).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
            dir
        };
        let old = DEBRIS_AGE_MIN * 2;
        let gone = make(&name("a"), old);
        let known = make(&name("b"), old);
        let fresh = make(&name("c"), Duration::ZERO);
        let other = make("monitor", old);
        let used = make(&name("d"), old);
        fs::write(used.join("task"), "1").unwrap();
        fs::File::open(&used)
            .and_then(|dir| dir.set_modified(SystemTime::now() - old))
            .unwrap();
        let parents = [root.path().to_owned(), root.path().join("missing")];
        let removed = sweep(&parents, |id| id == name("b"));
        assert_eq!(removed, 1);
        assert!(!gone.exists());
        for kept in [known, fresh, other, used] {
            assert!(kept.exists(), "{}", kept.display());
        }
    }
}
