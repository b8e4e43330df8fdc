//! Measures this server under load beside two peers: the Go program that it replaces, and a plain pool of 64 threads on
//! tiny_http.
//!
//! ```text
//! cargo bench --bench load                 # everything, about 6 minutes
//! cargo bench --bench load -- 5000 idle    # some rows: 1000, 5000, 64, 256, idle; delayed, undelayed
//! BENCH_SERVER=/path/to/httpserver cargo bench --bench load -- undelayed
//! ```
//!
//! Needs `wrk` and `go`. The two servers of a row take turns, with a fresh process for each run, so that other work on
//! the machine affects both. Only the ratios are comparable between machines. Prints Markdown.

mod candidate;
#[path = "../peers/plain_pool.rs"]
mod plain_pool;
#[path = "../release.rs"]
mod release;

use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use candidate::{Candidate, Peer};

/// How often each run is repeated. The medians are printed.
const DELAYED_REPEATS: usize = 5;
const UNDELAYED_REPEATS: usize = 9;

/// How long the clients connect and fall out of step before anything is measured. The longest delay is 2 s.
const WARM_UP: Duration = Duration::from_millis(2_500);

/// How long a run is measured.
const DELAYED_FOR: Duration = Duration::from_secs(4);
const UNDELAYED_FOR: Duration = Duration::from_secs(2);
const IDLE_FOR: Duration = Duration::from_secs(15);

/// The pause between two scrapes.
const SCRAPE_INTERVAL: Duration = Duration::from_millis(50);

/// The argument by which this program starts itself as the plain pool.
const PLAIN_POOL: &str = "plain-pool";

/// A figure of this server and of the peer, in each run.
struct Figure {
    name: &'static str,
    unit: &'static str,
    runs: Vec<[f64; 2]>,
}

impl Figure {
    fn new(name: &'static str, unit: &'static str) -> Figure {
        Figure {
            name,
            unit,
            runs: Vec::new(),
        }
    }

    fn print(&self, load: &str) {
        let [ours, peer] = [0, 1].map(|side| median(self.runs.iter().map(|run| run[side]).collect()));
        // Each run of ours is divided by the peer's run right after it, so that drift cancels out.
        let mut ratios: Vec<f64> = self.runs.iter().map(|[ours, peer]| ours / peer).collect();
        ratios.sort_by(f64::total_cmp);
        println!(
            "| {load} | {} | {ours:.2} {unit} | {peer:.2} {unit} | **{:.2}** | {:.2} to {:.2} |",
            self.name,
            ratios[ratios.len() / 2],
            ratios[0],
            ratios[ratios.len() - 1],
            unit = self.unit,
        );
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == PLAIN_POOL) {
        return plain_pool::run();
    }
    // 5,000 clients need more descriptors than the usual soft limit.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit on descriptors");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the soft limit can be raised to the hard one");
    // Cargo itself adds --bench.
    let rows: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let wanted = |names: &[&str]| rows.is_empty() || names.iter().any(|name| rows.contains(name));

    println!("| load | figure | httpserver | peer | ratio | its runs |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for clients in [1_000, 5_000] {
        if wanted(&["delayed", &clients.to_string()]) {
            delayed(clients);
        }
    }
    for clients in [64, 256] {
        if wanted(&["undelayed", &clients.to_string()]) {
            undelayed(clients);
        }
    }
    if wanted(&["idle"]) {
        idle();
    }
}

/// Beside the Go program: the cost of a request, the cost of the clients, and the time of a scrape meanwhile.
fn delayed(clients: usize) {
    let mut figures = [
        Figure::new("CPU a request", "µs"),
        Figure::new("CPU of the machine", "%"),
        Figure::new("resident memory", "MiB"),
        Figure::new("scrape, median", "ms"),
        Figure::new("scrape, worst", "ms"),
        Figure::new("requests/s", ""),
    ];
    let processors = thread::available_parallelism().expect("a number of processors").get() as f64;
    let mut lateness_ms = Vec::new();
    for _ in 0..DELAYED_REPEATS {
        let runs = [Candidate::ours("2s"), Candidate::peer(Peer::NetHttp, "2s")].map(|start| {
            let candidate = start();
            let load = candidate.load(clients, WARM_UP + DELAYED_FOR + Duration::from_secs(1));
            thread::sleep(WARM_UP);
            let (begun_at, cpu, [answered, in_time]) =
                (std::time::Instant::now(), candidate.cpu(), candidate.answered());
            let mut scrapes_ms = Vec::new();
            while begun_at.elapsed() < DELAYED_FOR {
                scrapes_ms.push(candidate.scrape().as_secs_f64() * 1e3);
                thread::sleep(SCRAPE_INTERVAL);
            }
            let lasted = begun_at.elapsed();
            let [answered_now, in_time_now] = candidate.answered();
            let (cpu, answered, in_time) = (candidate.cpu() - cpu, answered_now - answered, in_time_now - in_time);
            // The peer has no bucket of 2 s.
            if in_time > 0.0 {
                // Delays are uniform, so the share of requests over 2 s is the mean lateness's share of 2 s.
                lateness_ms.push((1.0 - in_time / answered) * 2e3);
            }
            let resident_mib = candidate.resident_mib();
            load.requests_per_second();
            let worst_ms = scrapes_ms.iter().copied().fold(0.0, f64::max);
            [
                cpu.as_secs_f64() * 1e6 / answered,
                cpu.as_secs_f64() * 100.0 / lasted.as_secs_f64() / processors,
                resident_mib,
                median(scrapes_ms),
                worst_ms,
                answered / lasted.as_secs_f64(),
            ]
        });
        for (place, figure) in figures.iter_mut().enumerate() {
            figure.runs.push(runs.map(|run| run[place]));
        }
    }
    for figure in figures {
        figure.print(&format!("{clients} clients, 0 to 2 s, beside net/http"));
    }
    println!(
        "| {clients} clients, 0 to 2 s | mean lateness | {:.2} ms | - | - | - |",
        median(lateness_ms)
    );
}

/// Beside each peer: requests a second, and the cost of one.
fn undelayed(clients: usize) {
    for (peer, name) in [(Peer::NetHttp, "net/http"), (Peer::PlainPool, "the plain pool")] {
        let mut figures = [Figure::new("requests/s", ""), Figure::new("CPU a request", "µs")];
        for _ in 0..UNDELAYED_REPEATS {
            let runs = [Candidate::ours("0s"), Candidate::peer(peer, "0s")].map(|start| {
                let candidate = start();
                let cpu = candidate.cpu();
                let per_second = candidate.load(clients, UNDELAYED_FOR).requests_per_second();
                let answered = per_second * UNDELAYED_FOR.as_secs_f64();
                [per_second, (candidate.cpu() - cpu).as_secs_f64() * 1e6 / answered]
            });
            for (place, figure) in figures.iter_mut().enumerate() {
                figure.runs.push(runs.map(|run| run[place]));
            }
        }
        for figure in figures {
            figure.print(&format!("{clients} clients, no delay, beside {name}"));
        }
    }
}

/// The cost of an idle server, beside the Go program, which does nothing while idle.
fn idle() {
    let [ours, peer] = [Candidate::ours("2s"), Candidate::peer(Peer::NetHttp, "2s")].map(|start| start());
    thread::sleep(WARM_UP);
    let before = [&ours, &peer].map(Candidate::cpu);
    thread::sleep(IDLE_FOR);
    let percent = |candidate: &Candidate, before: Duration| {
        (candidate.cpu() - before).as_secs_f64() * 100.0 / IDLE_FOR.as_secs_f64()
    };
    println!(
        "| idle | CPU | {:.3} % | {:.3} % | - | - |",
        percent(&ours, before[0]),
        percent(&peer, before[1])
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
