//! The assertions that every case shares, and the table row that it prints.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use support::access_log::Durations;
use support::client::Client;
use support::server::Server;
use support::wait_for;

/// How soon a fresh client must have its response, connecting included.
pub const PROBE_MAX: Duration = Duration::from_millis(100);

/// The share of the probes that may take longer, beside as many as take longer at a server without the fault in the same
/// seconds: a machine with other work keeps a client waiting, too. On a quiet machine, none does there.
const LATE_MAX: f64 = 0.05;

/// The least number of probes. Of fewer, a single late one would be more than [`LATE_MAX`] beside other work.
const PROBES_MIN: usize = 100;

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
pub struct Probes {
    /// How long each took.
    pub took: Durations,
    /// How long the same took at the reference, a server without the fault, right after each.
    pub beside: Durations,
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
    /// stays bounded, and that afterwards everything is as before. Returns the probes.
    pub fn survived(self, attack: impl FnOnce(&Server) -> String) -> Probes {
        let turn = turn();
        let mut server = Server::start(self.flags);
        let reference = Server::start(self.flags);
        server.get("/healthz");
        let before = threads_and_descriptors(&server);
        let stop = AtomicBool::new(false);
        let (seen, probes) = std::thread::scope(|scope| {
            let prober = scope.spawn(|| probe(&server, &reference, &stop));
            let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| attack(&server)));
            stop.store(true, Ordering::Relaxed);
            (seen, prober.join().expect("the probes are answered"))
        });
        let seen = seen.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(server.is_alive(), "{}", server.stderr());
        // The next case need not wait while this one's server recovers.
        drop((turn, reference));
        let start = Instant::now();
        wait_for(
            &format!("threads and descriptors to be as before, {before:?}"),
            || {
                // The next case has its turn: leave the processors to it.
                std::thread::sleep(Duration::from_millis(50));
                threads_and_descriptors(&server)
            },
            |now| are_as_before(*now, before),
        );
        let back = start.elapsed();
        wait_for(
            "no connection to count as stuck",
            || server.metric("httpserver_connections_stuck"),
            |stuck| *stuck == Some(0.0),
        );
        assert_eq!(fetch_status(server.address, "/?delay=10ms").unwrap(), 200);
        ends_well(server);

        let resident_max_mib = probes.resident_max >> 20;
        let in_time = probes.took.at_most(PROBE_MAX.as_secs_f64());
        let sent = probes.took.count();
        let row = format!(
            "| {} | {} | {seen} | {} of {} within 100 ms, median {:.1}, worst {:.0} | {resident_max_mib} MiB | {:.1} s |",
            self.name,
            self.did,
            in_time,
            sent,
            probes.took.quantile(0.5) * 1e3,
            probes.took.quantile(1.0) * 1e3,
            back.as_secs_f64(),
        );
        let late_beside = sent - probes.beside.at_most(PROBE_MAX.as_secs_f64());
        let late_max = LATE_MAX * sent as f64 + late_beside as f64;
        assert!(
            (sent - in_time) as f64 <= late_max,
            "fresh clients waited too long, {late_beside} of them at a server without the fault: {row}"
        );
        write_row(&row);
        assert!(resident_max_mib <= self.resident_max_mib, "memory: {row}");
        probes
    }
}

/// Ends the server as Kubernetes does, and asserts that it exits with success.
pub fn ends_well(mut server: Server) {
    server.signal("TERM");
    let (status, _) = server.wait_exit();
    assert!(status.success(), "{status}: {}", server.stderr());
}

/// Returns whether the numbers of threads and descriptors are back to those before a fault.
pub fn are_as_before(now: (usize, usize), before: (usize, usize)) -> bool {
    now.0 <= before.0 + SLACK && now.1 <= before.1 + SLACK
}

/// Returns the numbers of threads and descriptors.
pub fn threads_and_descriptors(server: &Server) -> (usize, usize) {
    (server.proc_status("Threads") as usize, server.open_fds())
}

/// Probes a server and right afterwards the reference, in turn, until `stop` is set, and at least [`PROBES_MIN`] times.
fn probe(server: &Server, reference: &Server, stop: &AtomicBool) -> Probes {
    let (mut took, mut beside) = (Vec::new(), Vec::new());
    let mut resident_max = 0;
    let mut targets = ["/metrics", "/healthz"].into_iter().cycle();
    while !stop.load(Ordering::Relaxed) || took.len() < PROBES_MIN {
        let target = targets.next().unwrap();
        for (server, took) in [(server, &mut took), (reference, &mut beside)] {
            let start = Instant::now();
            let status = fetch_status(server.address, target);
            let elapsed = start.elapsed();
            if !matches!(status, Ok(200)) {
                // What the server says of it may come a little later.
                std::thread::sleep(Duration::from_secs(1));
                panic!(
                    "{target} for a fresh client: {status:?} after {elapsed:?}, {} answered before; the server says {}\n{}",
                    took.len(),
                    server.stderr(),
                    server.metrics()
                );
            }
            took.push(elapsed);
        }
        resident_max = resident_max.max(server.resident_bytes());
        std::thread::sleep(Duration::from_millis(10));
    }
    Probes {
        took: took.into_iter().collect(),
        beside: beside.into_iter().collect(),
        resident_max,
    }
}

/// The address of fresh clients. Those of the fault have another one, 127.0.0.1.
const PROBES_FROM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Returns the status that a fresh client gets.
///
/// # Errors
///
/// Returns the error of the connection if it gets none.
pub fn fetch_status(address: SocketAddr, target: &str) -> std::io::Result<u16> {
    let mut client = Client::connect_from(PROBES_FROM, address);
    client.request("GET", target, &[("Connection", "close")]);
    Ok(client.receive()?.status)
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
