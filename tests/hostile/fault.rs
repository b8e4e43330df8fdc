//! The assertions that every case shares, and the table row that it prints.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::support::client::Client;
use crate::support::server::Server;
use crate::support::wait_for;

/// How soon a fresh client must have its response, connecting included.
///
/// Other programs run on the machine too, so the slowest twentieth of some hundred probes does not count. Even of
/// those, none may be closed unanswered.
pub const PROBE_MAX: Duration = Duration::from_millis(100);

/// The share of the probes that must meet [`PROBE_MAX`].
const PROBES_IN_TIME: f64 = 0.95;

/// How often a case is run at most if only the probes are too slow.
const ATTEMPTS_MAX: u32 = 3;

/// How soon after the fault the numbers of threads and descriptors must be as before. tiny_http keeps idle connection
/// threads for 5 s.
const BACK_WITHIN: Duration = Duration::from_secs(20);

/// How many more threads and descriptors than before the fault are allowed: those that a probe or the doorbell happens
/// to use.
const SLACK: usize = 6;

/// Held while a case has clients, so that those of one case do not take the processors from another's.
static TURN: Mutex<()> = Mutex::new(());

/// Whether the table has been begun.
static TABLE: Mutex<bool> = Mutex::new(false);

/// A fault and its limits.
pub struct Fault {
    /// The fault, as the table names it.
    pub name: &'static str,
    /// What the client did.
    pub did: &'static str,
    /// The limit of resident memory, in MiB.
    pub resident_max_mib: u64,
    pub flags: &'static [&'static str],
}

/// The results of the probes.
#[derive(Default)]
struct Probes {
    /// How long each took, in ascending order.
    took: Vec<Duration>,
    resident_max: u64,
}

/// Blocks until no other case has clients.
pub fn turn() -> MutexGuard<'static, ()> {
    // A case holds thousands of connections.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fault {
    /// Runs `attack`, which returns what the clients saw. Asserts that fresh clients are served meanwhile, that memory
    /// stays bounded, and that afterwards everything is as before.
    ///
    /// If only the probes are too slow, the case is run again, up to [`ATTEMPTS_MAX`] times in all: a busy machine is
    /// not the server's fault, and a fault of the server shows each time.
    pub fn survived(self, attack: impl Fn(&Server) -> String) {
        for attempt in 1..=ATTEMPTS_MAX {
            let (row, share_in_time) = self.run(&attack);
            if share_in_time >= PROBES_IN_TIME {
                return write_row(&row);
            }
            assert!(attempt < ATTEMPTS_MAX, "fresh clients waited too long: {row}");
            println!("fresh clients waited too long, trying again: {row}");
        }
    }

    /// Runs `attack` once. Returns the table's row and the share of the probes that were in time.
    fn run(&self, attack: &impl Fn(&Server) -> String) -> (String, f64) {
        let turn = turn();
        let mut server = Server::start(self.flags);
        server.get("/healthz");
        let before = (server.proc_status("Threads") as usize, server.open_fds());
        let stop = AtomicBool::new(false);
        let (seen, probes) = std::thread::scope(|scope| {
            let prober = scope.spawn(|| probe(&server, &stop));
            let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| attack(&server)));
            stop.store(true, Ordering::Relaxed);
            (seen, prober.join().expect("the probes are answered"))
        });
        let seen = seen.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(server.is_alive(), "{}", server.stderr());
        // The next case need not wait while this one's server recovers.
        drop(turn);
        let start = Instant::now();
        wait_for("threads and descriptors to be as before", BACK_WITHIN, || {
            let now = (server.proc_status("Threads") as usize, server.open_fds());
            (now.0 <= before.0 + SLACK && now.1 <= before.1 + SLACK).then_some(())
        });
        let back = start.elapsed();
        assert_eq!(server.get("/?delay=10ms").status, 200);
        server.signal("TERM");
        let (status, _) = server.wait_exit(Duration::from_secs(5));
        assert!(status.success(), "{status}: {}", server.stderr());

        let resident_max_mib = probes.resident_max >> 20;
        let in_time = probes.took.partition_point(|took| *took <= PROBE_MAX);
        let sent = probes.took.len();
        let row = format!(
            "| {} | {} | {seen} | {} of {} within 100 ms, median {:.1}, worst {:.0} | {resident_max_mib} MiB | {:.1} s |",
            self.name,
            self.did,
            in_time,
            sent,
            millis(probes.took[probes.took.len() / 2]),
            millis(*probes.took.last().unwrap()),
            back.as_secs_f64(),
        );
        assert!(resident_max_mib <= self.resident_max_mib, "memory: {row}");
        (row, in_time as f64 / sent as f64)
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn probe(server: &Server, stop: &AtomicBool) -> Probes {
    let mut probes = Probes::default();
    let mut targets = ["/metrics", "/healthz"].into_iter().cycle();
    while !stop.load(Ordering::Relaxed) || probes.took.len() < 20 {
        let start = Instant::now();
        let status = fetch_status(server.address, targets.next().unwrap());
        assert_eq!(
            status,
            Some(200),
            "a fresh client was closed unanswered after {:?}: {}",
            start.elapsed(),
            server.stderr()
        );
        probes.took.push(start.elapsed());
        probes.resident_max = probes.resident_max.max(server.resident_bytes());
        std::thread::sleep(Duration::from_millis(10));
    }
    probes.took.sort_unstable();
    probes
}

/// Returns the status that a fresh client gets, if any.
pub fn fetch_status(address: SocketAddr, target: &str) -> Option<u16> {
    let mut client = Client::connect(address);
    client.request("GET", target, &[("Connection", "close")]);
    client.receive().ok().map(|response| response.status)
}

/// Writes a row of the table to standard output and to the file `faults.md` in `CARGO_TARGET_TMPDIR`.
pub fn write_row(row: &str) {
    let mut begun = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults.md");
    let mut file = if *begun {
        File::options().append(true).open(path).unwrap()
    } else {
        File::create(path).unwrap()
    };
    let head = "| fault | what the clients did | what they saw | `/metrics` and `/healthz` for a fresh client, ms | largest memory | recovered after |\n\
                | --- | --- | --- | --- | --- | --- |\n";
    let text = if std::mem::replace(&mut *begun, true) {
        format!("{row}\n")
    } else {
        format!("{head}{row}\n")
    };
    print!("{text}");
    file.write_all(text.as_bytes()).unwrap();
}
