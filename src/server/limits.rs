//! The limits that the system sets on the process: how many descriptors and threads it may have. A connection takes two
//! descriptors and a thread.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Mutex;
use std::thread;

use nix::libc::RLIM_INFINITY;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::metrics;

/// Threads that are not for connections, unless a quarter of all is more than what is left: some ten at rest, six for each reopening of
/// the acceptor, and those of workers in place of stalled ones.
const THREADS_RESERVED: u64 = 40;

/// Beside them, one thread in this many is not: those of connections that have just ended.
const THREADS_ENDING: u64 = 32;

/// Threads that are left when the limit on descriptors is fitted to the others.
const THREADS_SPARE: u64 = 16;

/// Descriptors that are not for connections: some ten at rest, and those of reopened acceptors.
const DESCRIPTORS_RESERVED: u64 = 24;

/// Descriptors that a connection takes.
pub const DESCRIPTORS_EACH: u64 = 2;

/// The stack of a thread that is started only to see whether it can be.
const TRIAL_STACK_BYTES: usize = 16 * 1024;

/// The capabilities that lift RLIMIT_NPROC, as bits of `CapEff` in /proc/self/status.
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_SYS_RESOURCE: u64 = 1 << 24;

/// Returns how many descriptors may be open: the soft limit.
pub fn descriptors() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

/// The limits on threads.
#[derive(Debug, Clone, Copy)]
pub struct Threads {
    /// What RLIMIT_NPROC leaves to this process: it counts all threads of the user.
    of_user: u64,
}

impl Threads {
    /// Reads RLIMIT_NPROC, and how many threads the user's other processes have now.
    pub fn read() -> Threads {
        Threads {
            of_user: of_user().unwrap_or(u64::MAX),
        }
    }

    /// Returns how many threads this process may have beside those of other processes: the least that RLIMIT_NPROC, the control groups
    /// and the system leave to it. A limit that cannot be read is none.
    pub fn max(&self) -> u64 {
        let own = metrics::threads().unwrap_or(0);
        self.of_user.min(of_control_groups(own)).min(of_system(own))
    }
}

/// How many connections the limits allow at a time.
#[derive(Debug, Clone, Copy)]
pub struct Connections {
    max: u64,
    limit: u64,
    /// Whether the limit on threads allows the fewest; else that on descriptors.
    pub of_threads: bool,
    /// The limits on threads.
    pub threads: Threads,
}

impl Connections {
    /// Reads the limits.
    pub fn read() -> Connections {
        let threads = Threads::read();
        let threads_max = threads.max();
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard);
        let reserved = THREADS_RESERVED + threads_max / THREADS_ENDING;
        let of_threads = threads_max.saturating_sub(reserved).max(threads_max / 4);
        let of_descriptors = descriptors.saturating_sub(DESCRIPTORS_RESERVED) / DESCRIPTORS_EACH;
        let is_of_threads = of_threads < of_descriptors;
        Connections {
            max: of_threads.min(of_descriptors),
            limit: if is_of_threads { threads_max } else { descriptors },
            of_threads: is_of_threads,
            threads,
        }
    }

    /// Sets the limit on descriptors to what these connections take: up to the hard limit, and so low that descriptors run out before
    /// threads do, if few come at once. A connection that finds no descriptor waits in the kernel. But if tiny_http cannot start a
    /// thread, its accept thread panics, and the connections that it has parked are lost.
    ///
    /// # Errors
    ///
    /// Returns the error of the system call; the server works with the limit as it was, too.
    pub fn set_descriptors(&self) -> io::Result<()> {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let soft = if self.of_threads { self.needed() } else { hard };
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
        Ok(())
    }

    fn needed(&self) -> u64 {
        self.max.saturating_mul(DESCRIPTORS_EACH) + DESCRIPTORS_RESERVED
    }

    /// Sets the limit on descriptors to what the connections take for which there are threads now, if there may be `threads_max`; unless
    /// `lowers`, only raises it.
    ///
    /// # Errors
    ///
    /// Returns the error of the system call.
    pub fn fit_descriptors(&self, threads_max: u64, lowers: bool) -> io::Result<()> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        if !lowers && soft >= self.needed() {
            return Ok(());
        }
        let (Some(open), Some(threads)) = (metrics::open_fds(), metrics::threads()) else {
            return Ok(());
        };
        // At least one, or a new acceptor would end at once.
        let connections = threads_max.saturating_sub(threads + THREADS_SPARE).max(1);
        let fitting = self.needed().min(open + DESCRIPTORS_EACH * connections.min(self.max));
        if lowers || fitting > soft {
            setrlimit(Resource::RLIMIT_NOFILE, fitting, hard)?;
        }
        Ok(())
    }

    /// Returns a warning in one line if they are fewer than `wanted`.
    pub fn warning(&self, wanted: usize) -> Option<String> {
        let Connections { max, limit, .. } = *self;
        let what = if self.of_threads { "threads" } else { "descriptors" };
        (max < wanted as u64).then(|| {
            format!("a limit of {limit} {what} allows {max} connections at a time; --max-in-flight is {wanted}")
        })
    }
}

/// Starts `count` threads at once, and ends them, to see whether that many can be had.
///
/// # Errors
///
/// Returns the error of the system call.
pub fn try_threads(count: usize) -> io::Result<()> {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        // Each waits for the lock, so that all exist at the same time.
        let _held = gate.lock();
        for _ in 0..count {
            thread::Builder::new()
                .stack_size(TRIAL_STACK_BYTES)
                .spawn_scoped(scope, || drop(gate.lock()))?;
        }
        Ok(())
    })
}

/// Returns what RLIMIT_NPROC leaves to this process, if it applies: root and some capabilities are exempt.
fn of_user() -> Option<u64> {
    let (limit, _) = getrlimit(Resource::RLIMIT_NPROC).ok()?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()
    };
    let capabilities = u64::from_str_radix(field("CapEff:")?, 16).ok()?;
    let user: u32 = field("Uid:")?.parse().ok()?;
    if limit == RLIM_INFINITY || user == 0 || capabilities & (CAP_SYS_ADMIN | CAP_SYS_RESOURCE) != 0 {
        return None;
    }
    let own = std::process::id();
    let others = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| {
        let process: u32 = entry.file_name().to_str()?.parse().ok()?;
        let is_other = process != own && entry.metadata().ok()?.uid() == user;
        // Each thread is a folder, beside the links of the folder itself and of its parent.
        is_other.then(|| fs::metadata(entry.path().join("task")).ok()?.nlink().checked_sub(2))?
    });
    Some(limit.saturating_sub(others.sum()))
}

/// Returns what the control groups leave to this process, if it has `own` threads now. A group counts those of its children.
fn of_control_groups(own: u64) -> u64 {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of_line = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        // Version 2 has no controllers in this line.
        let mounted = if controllers.is_empty() {
            "/sys/fs/cgroup"
        } else {
            controllers.split(',').find(|controller| *controller == "pids")?;
            "/sys/fs/cgroup/pids"
        };
        let folders = Path::new(path).ancestors();
        // In a container, the path may be the host's, and only its last ancestor is mounted.
        let limits = folders.filter_map(|folder| {
            let folder = Path::new(mounted).join(folder.strip_prefix("/").ok()?);
            let max: u64 = number(&folder.join("pids.max"))?;
            Some(max.saturating_sub(number::<u64>(&folder.join("pids.current"))?.saturating_sub(own)))
        });
        limits.min()
    };
    groups.lines().filter_map(of_line).min().unwrap_or(u64::MAX)
}

/// Returns what the system leaves to this process, if it has `own` threads now.
fn of_system(own: u64) -> u64 {
    let loads = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    // The fourth field is the number of threads that run, and of all.
    let all = loads
        .split(' ')
        .nth(3)
        .and_then(|field| field.split('/').nth(1)?.parse().ok());
    let limits = ["/proc/sys/kernel/threads-max", "/proc/sys/kernel/pid_max"];
    let max = limits
        .into_iter()
        .filter_map(|file| number::<u64>(Path::new(file)))
        .min();
    max.unwrap_or(u64::MAX)
        .saturating_sub(all.unwrap_or(own).saturating_sub(own))
}

/// Returns the number in a file, unless it has something else, as `max`.
fn number<T: FromStr>(file: &Path) -> Option<T> {
    fs::read_to_string(file).ok()?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_can_be_had_are_had_at_once_and_end() {
        try_threads(50).unwrap();
    }

    #[test]
    fn the_limit_on_threads_leaves_room_for_those_that_run() {
        let max = Threads::read().max();
        assert!(max > metrics::threads().unwrap(), "{max}");
    }
}
