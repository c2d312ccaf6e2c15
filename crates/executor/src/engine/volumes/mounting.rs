//! Mounting what a volume's options say, and unmounting it.
//!
//! A server that does not answer can hold mount(2) for minutes. The call has a thread of its own, which
//! nobody waits for longer than a deadline; what it mounts after that is unmounted again.

use std::{
    fs, io,
    net::ToSocketAddrs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};
use tokio::{sync::oneshot, time::timeout};

use super::local::{MountCall, mount_call};

/// Longest wait for a mount; the kernel tries an NFS server that does not answer for minutes.
const MOUNT_TIMEOUT: Duration = Duration::from_secs(60);

/// Mounts what `options` say at `target`.
pub(super) async fn mount_options(
    options: std::collections::BTreeMap<String, String>,
    target: PathBuf,
) -> Result<(), String> {
    let (tx, rx) = oneshot::channel();
    let is_abandoned = Arc::new(AtomicBool::new(false));
    let abandoned = Arc::clone(&is_abandoned);
    let at = target.clone();
    let work = move || {
        let mounted = mount_call(&options, resolve).and_then(|call| run(&call, &at));
        if abandoned.load(Ordering::SeqCst) && mounted.is_ok() {
            let _ = unmount(&at);
        }
        let _ = tx.send(mounted);
    };
    let thread = thread::Builder::new().name("volume-mount".to_owned());
    thread.spawn(work).map_err(|error| error.to_string())?;
    match timeout(MOUNT_TIMEOUT, rx).await {
        Ok(Ok(mounted)) => mounted,
        Ok(Err(_)) => Err("the mounting thread died".to_owned()),
        Err(_) => {
            is_abandoned.store(true, Ordering::SeqCst);
            // It may have ended between the deadline and the mark.
            if is_mounted(&target) {
                let _ = unmount(&target);
            }
            let seconds = MOUNT_TIMEOUT.as_secs();
            Err(format!("no answer within {seconds} s"))
        }
    }
}

fn resolve(host: &str) -> Result<std::net::IpAddr, String> {
    let mut found = (host, 0)
        .to_socket_addrs()
        .map_err(|error| error.to_string())?;
    let first = found.next().ok_or("no such host")?;
    Ok(first.ip())
}

fn run(call: &MountCall, target: &Path) -> Result<(), String> {
    let none = None::<&str>;
    let (device, kind) = (Some(call.device.as_str()), Some(call.kind.as_str()));
    let data = Some(call.data.as_str()).filter(|data| !data.is_empty());
    mount(device, target, kind, call.flags, data)
        .map_err(|errno| explained(call, target, errno))?;
    let again = |flags| {
        let done = mount(none, target, none, flags, none);
        done.map_err(|errno| {
            let _ = unmount(target);
            explained(call, target, errno)
        })
    };
    // The kernel heeds no other flags while it binds.
    let others = call.flags.difference(MsFlags::MS_BIND | MsFlags::MS_REC);
    if call.flags.contains(MsFlags::MS_BIND) && !others.is_empty() {
        again(MsFlags::MS_REMOUNT | MsFlags::MS_BIND | others)?;
    }
    if let Some(propagation) = call.propagation {
        again(propagation)?;
    }
    Ok(())
}

fn explained(call: &MountCall, target: &Path, errno: Errno) -> String {
    let (kind, device) = (&call.kind, &call.device);
    let hint = if errno == Errno::ENODEV {
        format!(" (this node's kernel has no file system `{kind}`)")
    } else {
        String::new()
    };
    let reason = errno.desc().to_lowercase();
    format!(
        "mount {device}:{}, type: {kind}: {reason}{hint}",
        target.display()
    )
}

/// Takes away what is mounted at `target`, at once, whoever still uses it.
pub(super) fn unmount(target: &Path) -> io::Result<()> {
    match umount2(target, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether something is mounted at `target`.
pub(super) fn is_mounted(target: &Path) -> bool {
    let target = fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
    mount_points().contains(&target)
}

/// Places of this mount namespace where something is mounted below `dir` or at it, innermost first.
pub(super) fn mounted_below(dir: &Path) -> Vec<PathBuf> {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let mut found = mount_points();
    found.retain(|point| point.starts_with(&dir));
    found.reverse();
    found
}

fn mount_points() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .map(|point| PathBuf::from(unescaped(point)))
        .collect()
}

/// Blanks and the like are octal in the table.
fn unescaped(text: &str) -> String {
    let codes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    codes.iter().fold(text.to_owned(), |text, (code, plain)| {
        text.replace(code, plain)
    })
}
