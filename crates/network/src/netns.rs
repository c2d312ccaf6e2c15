//! The companion thread that enters network namespaces, so that no other thread ever leaves the node's.
//!
//! A namespace is made with `lo` up and then bind-mounted, so a mounted one is complete. After each job the thread goes back
//! to the node's namespace: staying would keep a container's alive.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::apply::await_local;
use crate::netlink::{NetlinkError, RouteSocket};
use crate::plan::Way;
use crate::sysctl;

/// The interface in the container.
pub(crate) const CONTAINER_INTERFACE: &str = "eth0";

/// What `eth0` needs for IPv6, in order: no address of its own making, which it would first have to look for in others' hands; no
/// routers but the one it is given; and IPv6 at all, which namespaces are made without.
const V6_SWITCHES: [(&str, &str); 3] = [
    ("addr_gen_mode", "1"),
    ("accept_ra", "0"),
    ("disable_ipv6", "0"),
];

/// `f_type` of a namespace file (`NSFS_MAGIC`, linux/magic.h).
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// The calling thread's namespace.
const SELF_NETNS: &str = "/proc/thread-self/ns/net";

/// Why a namespace cannot be made or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetnsError {
    /// A system call failed.
    #[error("failed to {operation} for namespace `{}`", .path.display())]
    System {
        /// What was done.
        operation: &'static str,
        /// The mount point.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A netlink request inside failed.
    #[error("failed to configure namespace `{}`", .path.display())]
    Netlink {
        /// The mount point.
        path: PathBuf,
        /// The cause.
        #[source]
        source: NetlinkError,
    },
    /// The thread is gone.
    #[error("the namespace thread has ended")]
    Thread,
}

enum Job {
    Create(PathBuf),
    Configure(PathBuf, Vec<Way>),
    /// Work that sends its own result.
    Inside(PathBuf, Box<dyn FnOnce() + Send>),
}

/// Handle of the companion thread; it ends when the handle is dropped.
#[derive(Debug)]
pub(crate) struct NetnsThread {
    jobs: SyncSender<Job>,
    done: Receiver<Result<(), NetnsError>>,
}

/// Whether a namespace is mounted at `path`.
pub(crate) fn is_mounted(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == NSFS_MAGIC)
}

/// Unmounts a namespace and removes its mount point. A missing one is fine.
pub(crate) fn delete(path: &Path) -> Result<(), NetnsError> {
    // Each attempt to make the namespace may have left a mount of its own.
    while is_mounted(path) {
        umount2(path, MntFlags::MNT_DETACH)
            .map_err(|errno| system("unmount", path, errno.into()))?;
    }
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(system("remove the mount point", path, error)),
    }
}

fn system(operation: &'static str, path: &Path, source: io::Error) -> NetnsError {
    NetnsError::System {
        operation,
        path: path.to_owned(),
        source,
    }
}

// === impl Job ===

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, path) = match self {
            Job::Create(path) => ("Create", path),
            Job::Configure(path, _) => ("Configure", path),
            Job::Inside(path, _) => ("Inside", path),
        };
        f.debug_tuple(name).field(path).finish()
    }
}

// === impl NetnsThread ===

impl NetnsThread {
    /// Starts the thread in the calling thread's namespace.
    pub(crate) fn spawn() -> io::Result<NetnsThread> {
        let (jobs, inbox) = sync_channel(1);
        let (outbox, done) = sync_channel(1);
        let home = File::open(SELF_NETNS)?;
        std::thread::Builder::new()
            .name("skep-netns".to_owned())
            .spawn(move || {
                for job in inbox {
                    let outcome = perform(job);
                    // A thread that cannot go home must not do another job; its handle then reports that it ended.
                    let is_home = setns(home.as_fd(), CloneFlags::CLONE_NEWNET).is_ok();
                    if outbox.send(outcome).is_err() || !is_home {
                        return;
                    }
                }
            })?;
        Ok(NetnsThread { jobs, done })
    }

    /// Makes a namespace with `lo` up and mounts it at `path`. One that is mounted is fine.
    pub(crate) fn create(&self, path: &Path) -> Result<(), NetnsError> {
        self.perform(Job::Create(path.to_owned()))
    }

    /// Gives `eth0` its addresses, puts it up, and sets the default routes. What is there already is fine.
    pub(crate) fn configure(&self, path: &Path, ways: Vec<Way>) -> Result<(), NetnsError> {
        self.perform(Job::Configure(path.to_owned(), ways))
    }

    /// Does short work inside a mounted namespace: opens sockets, reads and sets sysctls, runs programs.
    pub(crate) fn inside<T: Send + 'static>(
        &self,
        path: &Path,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NetnsError> {
        let (outbox, result) = sync_channel(1);
        let work = Box::new(move || {
            // The receiver lives until this job is done.
            let _ = outbox.send(work());
        });
        self.perform(Job::Inside(path.to_owned(), work))?;
        result.recv().map_err(|_| NetnsError::Thread)
    }

    fn perform(&self, job: Job) -> Result<(), NetnsError> {
        self.jobs.send(job).map_err(|_| NetnsError::Thread)?;
        self.done.recv().map_err(|_| NetnsError::Thread)?
    }
}

fn perform(job: Job) -> Result<(), NetnsError> {
    match job {
        Job::Create(path) => create(&path),
        Job::Configure(path, ways) => configure(&path, &ways),
        Job::Inside(path, work) => {
            enter(&path)?;
            work();
            Ok(())
        }
    }
}

fn enter(path: &Path) -> Result<(), NetnsError> {
    let netns = File::open(path).map_err(|source| system("open", path, source))?;
    setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)
        .map_err(|errno| system("enter", path, errno.into()))
}

fn create(path: &Path) -> Result<(), NetnsError> {
    if is_mounted(path) {
        return Ok(());
    }
    File::create(path).map_err(|source| system("make the mount point", path, source))?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| system("unshare", path, errno.into()))?;
    // Interfaces that get IPv6 addresses have it turned on; without this each of the others would cost the detection of a
    // link-local address. A kernel without IPv6 has no such file.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    RouteSocket::open()
        .and_then(|mut socket| socket.set_up("lo"))
        .map_err(|source| NetnsError::Netlink {
            path: path.to_owned(),
            source,
        })?;
    let none: Option<&str> = None;
    mount(Some(SELF_NETNS), path, none, MsFlags::MS_BIND, none)
        .map_err(|errno| system("mount", path, errno.into()))
}

fn configure(path: &Path, ways: &[Way]) -> Result<(), NetnsError> {
    enter(path)?;
    let has_v6 = ways.iter().any(|way| way.gateway.is_ipv6());
    for (key, value) in V6_SWITCHES.iter().filter(|_| has_v6) {
        let key = format!("ipv6/conf/{CONTAINER_INTERFACE}/{key}");
        sysctl::set(&key, value).map_err(|error| system("set a switch", path, error.into()))?;
    }
    let inside = || {
        let mut socket = RouteSocket::open()?;
        let index = socket.link_index(CONTAINER_INTERFACE)?;
        for way in ways {
            socket.add_unique_address(index, way.address)?;
        }
        socket.set_up(CONTAINER_INTERFACE)?;
        for way in ways {
            socket.set_default_route(index, way.gateway)?;
            await_local(&mut socket, way.address.addr())?;
        }
        Ok(())
    };
    inside().map_err(|source| NetnsError::Netlink {
        path: path.to_owned(),
        source,
    })
}
