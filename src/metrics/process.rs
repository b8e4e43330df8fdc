//! The `process_*` metrics: what the kernel reports about this process.
//!
//! Names and meanings follow Prometheus's "Standard and runtime collectors"; proc(5) describes the sources. A value
//! that cannot be read is `None` and left out of the exposition, never guessed.

use super::expose::decimal::NS_PER_SECOND;
use super::record::unix_time_ms;
use nix::sys::resource::{Resource, getrlimit};
use std::fs::{self, File};
use std::io::Read;

/// The unit of the times in /proc/self/stat: `sysconf(_SC_CLK_TCK)`. It is part of the kernel's ABI, independent of the
/// kernel's timer frequency, and is 100 on every architecture for which Rust has a Linux target.
const TICKS_PER_SECOND: u64 = 100;

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
    /// The Unix time at which the process started. It changes if the clock is set, since the kernel counts from the
    /// time of boot and then changes that.
    pub start_time_ms: Option<u64>,
    pub threads: Option<u64>,
}

impl Process {
    pub(super) fn new() -> Process {
        Process {
            page_size_bytes: page_size_bytes(),
            started_at_ms: Stat::read().and_then(Stat::start_time_ms).unwrap_or_else(unix_time_ms),
        }
    }

    /// Returns the Unix time at which the process started, as read then. Setting the clock does not change it, so it
    /// identifies the process.
    pub(super) fn started_at_ms(&self) -> u64 {
        self.started_at_ms
    }

    fn resident_bytes(&self, stat: Stat) -> Option<u64> {
        Some(stat.resident_pages * self.page_size_bytes?)
    }

    pub(super) fn usage(&self) -> Usage {
        let stat = Stat::read();
        Usage {
            cpu_ns: stat.map(|stat| stat.cpu_ticks * (NS_PER_SECOND / TICKS_PER_SECOND)),
            resident_memory_bytes: stat.and_then(|stat| self.resident_bytes(stat)),
            virtual_memory_bytes: stat.map(|stat| stat.virtual_memory_bytes),
            open_fds: open_fds(),
            max_fds: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _hard)| soft),
            start_time_ms: stat.and_then(Stat::start_time_ms),
            threads: stat.map(|stat| stat.threads),
        }
    }
}

/// More than the largest size of /proc/self/stat: 52 numbers of at most 20 digits, and a name of at most 64 bytes.
const STAT_MAX_BYTES: usize = 2_048;

/// The fields of /proc/self/stat that are used, by their numbers in proc(5).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stat {
    /// 14 (utime) and 15 (stime)
    cpu_ticks: u64,
    /// 20 (num_threads)
    threads: u64,
    /// 22 (starttime), since boot
    start_ticks: u64,
    /// 23 (vsize)
    virtual_memory_bytes: u64,
    /// 24 (rss)
    resident_pages: u64,
}

impl Stat {
    /// Returns the Unix time at which the process started, to the tick.
    fn start_time_ms(self) -> Option<u64> {
        Some(boot_time_seconds()? * 1_000 + self.start_ticks * (1_000 / TICKS_PER_SECOND))
    }

    fn read() -> Option<Stat> {
        let mut buffer = [0; STAT_MAX_BYTES];
        read("/proc/self/stat", &mut buffer).and_then(Stat::parse)
    }

    fn parse(stat: &[u8]) -> Option<Stat> {
        // Field 2 is the program's name in parentheses. It may contain anything, parentheses and spaces included.
        let name_end = stat.iter().rposition(|&byte| byte == b')')?;
        let after_name = str::from_utf8(&stat[name_end + 1..]).ok()?;
        let mut fields = after_name.split_ascii_whitespace();
        // Field 3 is the first after the name. Each call continues after the field of the last one.
        let mut next = 3;
        let mut field = |number: usize| {
            let value = fields.nth(number - next)?.parse::<u64>().ok();
            next = number + 1;
            value
        };
        Some(Stat {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_memory_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// Reads as much of a file of /proc as fits into the buffer.
fn read<'a>(path: &str, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut file = File::open(path).ok()?;
    let mut len = 0;
    while len < buffer.len() {
        match file.read(&mut buffer[len..]).ok()? {
            0 => break,
            more => len += more,
        }
    }
    Some(&buffer[..len])
}

/// Returns the Unix time of boot from the line `btime` of /proc/stat, as Prometheus's client for Go does.
///
/// The file grows with the number of processors and interrupts, so it is read in parts rather than into one large
/// buffer.
fn boot_time_seconds() -> Option<u64> {
    const NAME: &[u8] = b"\nbtime ";
    // `btime 18446744073709551615` between two newlines.
    const LINE_MAX_BYTES: usize = 28;
    let mut file = File::open("/proc/stat").ok()?;
    let (mut buffer, mut len) = ([0; 4_096], 0);
    loop {
        match file.read(&mut buffer[len..]).ok()? {
            0 => return None,
            more => len += more,
        }
        if let Some(start) = buffer[..len].windows(NAME.len()).position(|window| window == NAME) {
            let value = &buffer[start + NAME.len()..len];
            if let Some(end) = value.iter().position(|&byte| byte == b'\n') {
                return str::from_utf8(&value[..end]).ok()?.parse().ok();
            }
        }
        // The line may be split between two parts.
        let kept = len.min(LINE_MAX_BYTES);
        buffer.copy_within(len - kept..len, 0);
        len = kept;
    }
}

/// Returns the page size, which differs between arm64 kernels, from the auxiliary vector: pairs of a type and a value,
/// each a native word (getauxval(3)).
fn page_size_bytes() -> Option<u64> {
    const AT_PAGESZ: usize = 6;
    const WORD: usize = size_of::<usize>();
    let vector = fs::read("/proc/self/auxv").ok()?;
    let word = |bytes: &[u8]| bytes.try_into().ok().map(usize::from_ne_bytes);
    vector
        .chunks_exact(2 * WORD)
        .find(|pair| word(&pair[..WORD]) == Some(AT_PAGESZ))
        .and_then(|pair| word(&pair[WORD..]))
        .map(|size| size as u64)
}

/// Returns the number of open descriptors.
///
/// Since Linux 6.2 this is the size of /proc/self/fd. Older kernels report a size of 0, which is never the number,
/// since the server always has open descriptors. There the entries are counted, except the descriptor that is open for
/// counting.
fn open_fds() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => (fs::read_dir("/proc/self/fd").ok()?.count() as u64).checked_sub(1),
        size => Some(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_in_the_program_name_do_not_shift_the_fields() {
        let line = b"7 (a) R 1 (b) S 1 7 7 0 -1 4194304 5 0 0 0 11 22 0 0 20 0 33 0 44 55 66 18446744073709551615 1\n";
        assert_eq!(
            Stat::parse(line),
            Some(Stat {
                cpu_ticks: 33,
                threads: 33,
                start_ticks: 44,
                virtual_memory_bytes: 55,
                resident_pages: 66
            })
        );
    }

    #[test]
    fn a_truncated_line_is_not_parsed() {
        let whole = b"7 (a) S 1 7 7 0 -1 4194304 5 0 0 0 11 22 0 0 20 0 33 0 44 55 66";
        assert!(Stat::parse(whole).is_some());
        for len in 0..whole.len() - 2 {
            assert_eq!(Stat::parse(&whole[..len]), None, "{len}");
        }
    }

    #[test]
    fn the_time_of_boot_is_the_value_of_the_line_btime() {
        let stat = fs::read_to_string("/proc/stat").unwrap();
        let btime = stat.lines().find_map(|line| line.strip_prefix("btime ")).unwrap();
        assert_eq!(boot_time_seconds(), btime.parse().ok());
    }

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
        let process = Process::new();
        let usage = process.usage();
        assert_eq!(usage.start_time_ms, Some(process.started_at_ms()));
        assert!(usage.cpu_ns.is_some());
        assert!(
            usage.resident_memory_bytes > Some(100_000) && usage.resident_memory_bytes <= usage.virtual_memory_bytes
        );
        assert!(usage.open_fds >= Some(3) && usage.open_fds <= usage.max_fds);
        assert!(usage.threads >= Some(1));
    }
}
