//! What the kernel tells of this process, for the `process_*` metrics.
//!
//! The names and meanings are those of Prometheus' "Standard and runtime collectors", the sources those of
//! proc(5). What cannot be read is `None` and left off the page, never guessed. Reading allocates nothing.

use super::decimal::NS_PER_SECOND;
use nix::sys::resource::{Resource, getrlimit};
use std::fs::{self, File};
use std::io::Read;

/// The unit of the times in /proc/self/stat. `sysconf(_SC_CLK_TCK)` is 100 on every architecture that Rust
/// has a Linux target for: it is the kernel's ABI, whatever its tick.
const TICKS_PER_SECOND: u64 = 100;

/// What stays the same while the process lives.
#[derive(Debug)]
pub(crate) struct Process {
    page_size_bytes: Option<u64>,
    start_time_ms: Option<u64>,
}

/// What the process uses at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Of all threads, in user and in kernel mode.
    pub cpu_ns: Option<u64>,
    pub resident_memory_bytes: Option<u64>,
    pub virtual_memory_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    /// The soft limit: the one that `open` fails by.
    pub max_fds: Option<u64>,
    pub threads: Option<u64>,
}

impl Process {
    pub(crate) fn new() -> Process {
        let start_ticks = Stat::read().map(|stat| stat.start_ticks);
        let boot_time_seconds = boot_time_seconds();
        Process {
            page_size_bytes: page_size_bytes(),
            start_time_ms: start_ticks
                .zip(boot_time_seconds)
                .map(|(ticks, boot)| boot * 1_000 + ticks * (1_000 / TICKS_PER_SECOND)),
        }
    }

    /// When the process started, in Unix time, to the tick.
    pub(super) fn start_time_ms(&self) -> Option<u64> {
        self.start_time_ms
    }

    /// How much memory is resident.
    pub(crate) fn resident_memory_bytes(&self) -> Option<u64> {
        self.resident_bytes(Stat::read()?)
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
            threads: stat.map(|stat| stat.threads),
        }
    }
}

/// More than /proc/self/stat can hold: 52 numbers of at most 20 digits, and a name of at most 64 bytes.
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
    fn read() -> Option<Stat> {
        let mut buffer = [0; STAT_MAX_BYTES];
        read("/proc/self/stat", &mut buffer).and_then(Stat::parse)
    }

    fn parse(stat: &[u8]) -> Option<Stat> {
        // Field 2 is the program's name in parentheses and may hold anything, parentheses and spaces included.
        let name_end = stat.iter().rposition(|&byte| byte == b')')?;
        let after_name = str::from_utf8(&stat[name_end + 1..]).ok()?;
        let mut fields = after_name.split_ascii_whitespace();
        // Field 3 is the first after the name. Each call goes on from the field after the last one asked for.
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

/// Reads a file of /proc, as much of it as the buffer holds.
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

/// The time of boot in Unix time: the line `btime` of /proc/stat. Asked for once.
fn boot_time_seconds() -> Option<u64> {
    fs::read_to_string("/proc/stat")
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

/// The page size, which differs between arm64 kernels, from the auxiliary vector: pairs of a type and a value, each
/// a native word (getauxval(3)). Asked for once.
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

/// How many descriptors are open.
///
/// Since Linux 6.2 that is the size that /proc/self/fd reports of itself. Before, it reports 0 (the process has at
/// least one descriptor, so that is never the answer) and the entries are counted, less the one that counts.
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
    fn a_program_name_of_any_characters_does_not_shift_the_fields() {
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
    fn a_cut_off_line_is_no_answer() {
        let whole = b"7 (a) S 1 7 7 0 -1 4194304 5 0 0 0 11 22 0 0 20 0 33 0 44 55 66";
        assert!(Stat::parse(whole).is_some());
        for len in 0..whole.len() - 2 {
            assert_eq!(Stat::parse(&whole[..len]), None, "{len}");
        }
    }

    #[test]
    fn counting_and_asking_give_the_same_number_of_descriptors() {
        // Other tests of this process open and close files meanwhile, so only a steady moment counts.
        let counted = || fs::read_dir("/proc/self/fd").unwrap().count() as u64 - 1;
        let steady = (0..10_000).any(|_| {
            let before = counted();
            let asked = open_fds().unwrap();
            before == asked && asked == counted()
        });
        assert!(steady);
    }

    #[test]
    fn everything_can_be_read_here() {
        let process = Process::new();
        let usage = process.usage();
        assert!(process.start_time_ms().is_some());
        assert!(usage.cpu_ns.is_some());
        assert!(
            usage.resident_memory_bytes > Some(100_000) && usage.resident_memory_bytes <= usage.virtual_memory_bytes
        );
        assert!(usage.open_fds >= Some(3) && usage.open_fds <= usage.max_fds);
        assert!(usage.threads >= Some(1));
    }
}
