//! The `process_*` metrics: what the kernel reports about this process.
//!
//! Names and meanings follow Prometheus's "Standard and runtime collectors"; proc(5) describes the sources. A value
//! that cannot be read is `None` and left out of the exposition, never guessed.
//!
//! There is a thread for each connection, so nothing here may look at every thread. Reading /proc/self/stat does, and takes a
//! millisecond for 5,000 threads.

use super::record::unix_time_ms;
use nix::libc::{RLIM_INFINITY, rlim_t};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// A limit on the process's CPU time that it never reaches: 100 years, seconds.
const CPU_LIMIT_SECONDS: rlim_t = 100 * 365 * 24 * 3_600;

/// The links of an empty directory: its own and its parent's.
const LINKS_OF_EMPTY: u64 = 2;

/// The properties of the process that never change.
#[derive(Debug)]
pub(super) struct Process {
    page_size_bytes: Option<u64>,
    started_at_ms: u64,
}

/// The resource usage of the process, as of one scrape.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// The CPU time of all threads, in user and kernel mode.
    pub cpu_ns: Option<u64>,
    pub resident_memory_bytes: Option<u64>,
    pub virtual_memory_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    /// The soft limit, at which `open` fails.
    pub max_fds: Option<u64>,
    pub threads: Option<u64>,
}

impl Process {
    pub(super) fn new() -> Process {
        keep_cpu_time_summed();
        let page_size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
        Process {
            page_size_bytes: page_size.and_then(|bytes| bytes.try_into().ok()),
            started_at_ms: unix_time_ms(),
        }
    }

    /// Returns the Unix time at which the process started, as read from the clock then. Setting the clock does not change it. That
    /// of /proc has whole ticks of 10 ms, which replicas may share. So this identifies the process.
    pub(super) fn started_at_ms(&self) -> u64 {
        self.started_at_ms
    }

    pub(super) fn usage(&self) -> Usage {
        let (virtual_bytes, resident_bytes) = self.memory_bytes().unzip();
        Usage {
            cpu_ns: cpu_ns(),
            resident_memory_bytes: resident_bytes,
            virtual_memory_bytes: virtual_bytes,
            open_fds: open_fds(),
            max_fds: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _hard)| soft),
            threads: threads(),
        }
    }

    /// Returns the virtual and the resident memory: the first two fields of /proc/self/statm, in pages.
    fn memory_bytes(&self) -> Option<(u64, u64)> {
        let page_size_bytes = self.page_size_bytes?;
        let mut buffer = [0; STATM_MAX_BYTES];
        let len = File::open("/proc/self/statm").ok()?.read(&mut buffer).ok()?;
        let mut fields = str::from_utf8(&buffer[..len]).ok()?.split_ascii_whitespace();
        let mut field_bytes = || Some(fields.next()?.parse::<u64>().ok()? * page_size_bytes);
        Some((field_bytes()?, field_bytes()?))
    }
}

/// More than the largest size of /proc/self/statm: 7 numbers.
const STATM_MAX_BYTES: usize = 256;

/// Has the kernel keep the CPU time of all threads in one sum, as it does while there is a limit on it. Otherwise it adds
/// up the threads whenever the time is read.
fn keep_cpu_time_summed() {
    if let Ok((RLIM_INFINITY, hard)) = getrlimit(Resource::RLIMIT_CPU) {
        // If it fails, reading the time takes longer.
        let _ = setrlimit(Resource::RLIMIT_CPU, CPU_LIMIT_SECONDS, hard);
    }
}

fn cpu_ns() -> Option<u64> {
    let time = Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).ok()?);
    u64::try_from(time.as_nanos()).ok()
}

/// Returns the number of threads: each has a directory in /proc/self/task, and so a link to it. Its metadata costs a tenth of
/// reading /proc/self/status, and no descriptor.
pub fn threads() -> Option<u64> {
    fs::metadata("/proc/self/task")
        .ok()?
        .nlink()
        .checked_sub(LINKS_OF_EMPTY)
}

/// Returns the number of open descriptors.
///
/// Since Linux 6.2 this is the size of /proc/self/fd. Older kernels report a size of 0, which is never the number,
/// since the server always has open descriptors. There the entries are counted, except the descriptor that is open for
/// counting.
pub fn open_fds() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => (fs::read_dir("/proc/self/fd").ok()?.count() as u64).checked_sub(1),
        size => Some(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_descriptors_is_the_number_of_entries() {
        // Other tests of this process open and close files at the same time, so wait for a moment without changes.
        let counted = || fs::read_dir("/proc/self/fd").unwrap().count() as u64 - 1;
        let steady = (0..10_000).any(|_| {
            let before = counted();
            let reported = open_fds().unwrap();
            before == reported && reported == counted()
        });
        assert!(steady);
    }

    #[test]
    fn every_value_is_read() {
        let usage = Process::new().usage();
        assert!(usage.cpu_ns.is_some());
        assert!(
            usage.resident_memory_bytes > Some(100_000) && usage.resident_memory_bytes <= usage.virtual_memory_bytes
        );
        assert!(usage.open_fds >= Some(3) && usage.open_fds <= usage.max_fds);
        assert!(usage.threads >= Some(1));
    }
}
