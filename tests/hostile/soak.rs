//! A mix of faults for three minutes, run by hand.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::fault::{fetch_status, turn};
use crate::resets::reset;
use support::client::load_until;
use support::server::Server;
use support::wait_for;

const LASTS: Duration = Duration::from_secs(180);

/// The number of well-behaved clients, none of whose requests may be lost.
const CLIENTS: usize = 200;

/// The other clients: what they send, how many connect at a time, whether they read, and how long they stay, in
/// seconds.
const FAULTS: [(&[u8], usize, bool, u64); 9] = [
    (b"", 200, false, 5),
    (b"GET / HTTP/1.1\r\nHost: test\r\nX-Dribble: ", 100, false, 5),
    (b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2000\r\n\r\n", 50, true, 1),
    (
        b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /ui HTTP/1.1\r\nHost: test\r\n\r\n",
        50,
        true,
        1,
    ),
    (
        b"GET / HTTP/1.1\r\nHost: test\r\n\r\nGET /metrics HTTP/1.1\r\nHost: test\r\n\r\nGET / HTTP/1.1\r\nHost: test\r\n\r\n",
        100,
        true,
        4,
    ),
    (b"GET /ui HTTP/1.1\r\nHost: test\r\n\r\n", 20, false, 2),
    (b"\x16\x03\x01\x00\xa5\x01\x00\x00\r\n\r\n", 50, true, 1),
    (b"GET /?delay=NaN HTTP/1.1\r\nHost: test\r\n\r\n", 50, true, 1),
    (
        b"BREW / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 18446744073709551615\r\n\r\n",
        20,
        true,
        1,
    ),
];

#[test]
#[ignore = "takes three minutes; run by hand"]
fn three_minutes_of_mixed_faults_lose_and_leak_nothing() {
    let _turn = turn();
    let server = Server::start(&["--access-log", "false"]);
    server.get("/healthz");
    let figures = || {
        (
            server.resident_bytes() >> 20,
            server.open_fds(),
            server.proc_status("Threads"),
        )
    };
    let before = figures();
    let begun = Instant::now();
    let stop = AtomicBool::new(false);
    let (seen, mut probes) = std::thread::scope(|scope| {
        let stop = &stop;
        let address = server.address;
        let clients = scope.spawn(move || load_until(address, "/", CLIENTS, LASTS, &AtomicBool::new(false)));
        for (sent, count, reading, stays_s) in FAULTS {
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut crowd = Crowd::connect(address, count);
                    crowd.send(&if sent.starts_with(b"GET /ui") {
                        sent.repeat(100)
                    } else {
                        sent.to_vec()
                    });
                    crowd.run_for(Duration::from_secs(stays_s), reading);
                }
            });
        }
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..50 {
                    reset(address, b"GET / HTTP/1.1\r\nHost: test\r\n\r\n", 0);
                }
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        let mut probes = Vec::new();
        let mut resident = Vec::new();
        while begun.elapsed() < LASTS {
            let start = Instant::now();
            assert_eq!(fetch_status(address, "/metrics").unwrap(), 200);
            probes.push(start.elapsed());
            if resident.len() as u64 <= begun.elapsed().as_secs() / 20 {
                resident.push(server.resident_bytes() >> 20);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        stop.store(true, Ordering::Relaxed);
        println!("resident memory every 20 s: {resident:?} MiB");
        (clients.join().unwrap(), probes)
    });
    let exposition = server.metrics();
    let served: f64 = exposition
        .lines()
        .filter(|line| line.starts_with("http_request_duration_seconds_count"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    probes.sort_unstable();
    println!(
        "requests served {served}, those of {CLIENTS} well-behaved clients {}, lost {}; probes: median {:?}, 99th percentile {:?}, worst {:?}",
        seen.latencies.count(),
        seen.lost,
        probes[probes.len() / 2],
        probes[probes.len() * 99 / 100],
        probes.last().unwrap()
    );
    println!(
        "MiB, descriptors, threads: before {before:?}, right after {:?}",
        figures()
    );
    wait_for("descriptors and threads to be as before", figures, |now| {
        now.1 <= before.1 + 6 && now.2 <= before.2 + 6
    });
    println!("recovered {:?}", figures());
    assert_eq!(seen.lost, 0);
}
