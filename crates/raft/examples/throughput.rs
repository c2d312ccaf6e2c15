//! How many durable writes a second a member's disk makes: `throughput [directory] [entries a write] [bytes an entry]`.
//! A probe to run by hand (in release mode), not a test.

use std::{
    env,
    io::{self, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use skep_raft::{Config, Dek, Disk, MemoryDisk, Node, Restored, Storage};

const PROBE: Duration = Duration::from_secs(3);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args().skip(1);
    let directory = arguments.next().map_or_else(env::temp_dir, PathBuf::from);
    let batch: u64 = arguments.next().map_or(Ok(16), |text| text.parse())?;
    let bytes: usize = arguments.next().map_or(Ok(400), |text| text.parse())?;
    let directory = directory.join(format!("skep-raft-throughput-{}", std::process::id()));
    let mut out = io::stdout().lock();
    writeln!(out, "fsync of 4 KiB: {:?}", fsync_time(&directory)?)?;
    let mut disk = Disk::open(&directory, &Dek::generate())?;
    disk.bootstrap(&Restored::new_group(1, "probe"))?;
    writeln!(out, "redb:   {}", probe(&mut disk, batch, bytes)?)?;
    drop(disk);
    std::fs::remove_dir_all(&directory)?;
    let mut disk = MemoryDisk::new();
    disk.bootstrap(&Restored::new_group(1, "probe"))?;
    writeln!(out, "memory: {}", probe(&mut disk, batch, bytes)?)?;
    Ok(())
}

/// Proposes in batches for a while; compacts as a manager would.
fn probe(
    disk: &mut dyn Storage,
    batch: u64,
    bytes: usize,
) -> Result<String, Box<dyn std::error::Error>> {
    let mut node = Node::new(Config::new(1, 0), &disk.restored()?)?;
    drain(&mut node, disk)?;
    node.campaign()?;
    drain(&mut node, disk)?;
    let start = Instant::now();
    let mut times = Vec::new();
    while start.elapsed() < PROBE {
        let begin = Instant::now();
        for _ in 0..batch {
            node.propose(vec![7; bytes])?;
        }
        drain(&mut node, disk)?;
        times.push(begin.elapsed());
        if node.applied_index() > node.snapshot_index() + 10_000 {
            let snapshot = node.snapshot_at(node.applied_index(), vec![0; 1 << 20].into())?;
            disk.save_snapshot(&snapshot)?;
            let to = skep_raft::compaction_point(snapshot.index(), 500);
            disk.compact(to)?;
            node.snapshot_saved(&snapshot.metadata, to);
        }
    }
    let rate = f64::from(u32::try_from(times.len())?) / start.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |per_mille: usize| times[times.len() * per_mille / 1000];
    Ok(format!(
        "{rate:.0} writes/s of {batch} entries of {bytes} bytes; p50 {:?}, p99 {:?}, p99.9 {:?}",
        at(500),
        at(990),
        at(999),
    ))
}

fn drain(node: &mut Node, disk: &mut dyn Storage) -> Result<(), Box<dyn std::error::Error>> {
    while let Some(ready) = node.ready() {
        disk.write(&ready)?;
        node.persisted(ready.number);
    }
    Ok(())
}

fn fsync_time(directory: &std::path::Path) -> io::Result<Duration> {
    std::fs::create_dir_all(directory)?;
    let path = directory.join("fsync");
    let mut file = std::fs::File::create(&path)?;
    file.write_all(&[0; 1 << 20])?;
    file.sync_all()?;
    let begin = Instant::now();
    for page in 0..200_u64 {
        io::Seek::seek(&mut file, io::SeekFrom::Start(page * 4096))?;
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
    }
    std::fs::remove_file(path)?;
    Ok(begin.elapsed() / 200)
}
