//! The figures in the documentation, with their limits. Measure the release build while nothing else runs:
//! `cargo test --release --test hostile figures -- --test-threads=1 --nocapture`.
//!
//! On a machine with other work, the limits are those of a reference: the same scrapes of a server without load, right beside.

use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::access_log::Durations;
use support::client::Client;
use support::server::{Server, command, run, value_of};
use support::{PATIENCE, wait_for};

const CLIENTS: f64 = 1_000.0;

/// How long the load lasts. That is longer than it is measured.
const LOAD: &str = "17s";
/// Clients that start together get their responses together for a few cycles.
const SETTLE: Duration = Duration::from_secs(5);
const MEASURED: Duration = Duration::from_secs(10);

const SCRAPES: u32 = 50;
/// The longest that a scrape may take, beside what it takes without load, seconds.
const SCRAPE_MAX: f64 = 0.01;

#[test]
fn a_thousand_clients_are_served_while_scrapes_stay_fast() {
    let server = Server::start(&[]);
    let mut wrk = Command::new("wrk")
        .args(["-t1", &format!("-c{CLIENTS}"), &format!("-d{LOAD}"), "--timeout", "10s"])
        .arg(format!("http://{}/", server.address))
        .stdout(Stdio::null())
        .spawn()
        .expect("wrk is installed");
    let mut scraper = server.connect();
    let answered = |scraper: &mut Client| {
        let exposition = scraper.get("/metrics").text();
        let of_root = |suffix: &str| {
            let series = format!(r#"http_request_duration_seconds_{suffix}{{method="GET",path="/",status="200"}}"#);
            value_of(&exposition, &series).unwrap()
        };
        (Instant::now(), of_root("count"), of_root("sum"))
    };
    wait_for(
        "the load",
        || server.metric("http_requests_in_flight"),
        |in_flight| *in_flight > Some(CLIENTS),
    );
    std::thread::sleep(SETTLE);
    let (start, count_start, sum_start) = answered(&mut scraper);
    let reference = Server::start(&[]);
    let (mut scrapes, mut beside) = (Vec::new(), Vec::new());
    for number in 0..SCRAPES {
        std::thread::sleep((start + MEASURED * number / SCRAPES).saturating_duration_since(Instant::now()));
        for (server, took) in [(&server, &mut scrapes), (&reference, &mut beside)] {
            let sent_at = Instant::now();
            assert_eq!(server.get("/metrics").status, 200);
            took.push(sent_at.elapsed());
        }
    }
    let [scrapes, beside] = [scrapes, beside].map(Durations::from_iter);
    let resident_mib = server.resident_bytes() as f64 / 1048576.0;
    std::thread::sleep((start + MEASURED).saturating_duration_since(Instant::now()));
    let (end, count_end, sum_end) = answered(&mut scraper);
    assert!(wrk.wait().unwrap().success());
    let rate = (count_end - count_start) / (end - start).as_secs_f64();
    let mean_s = (sum_end - sum_start) / (count_end - count_start);
    // A client's mean cycle is ideally the mean duration of its requests. wrk itself is late on a busy machine.
    let share = rate * mean_s / CLIENTS;
    let (median, worst, worst_beside) = (scrapes.quantile(0.5), scrapes.quantile(1.0), beside.quantile(1.0));
    println!(
        "1,000 clients: {rate:.0} responses/s ({share:.3} of the ideal), mean duration {mean_s:.3} s, scrape median {:.2} ms, \
         worst of {SCRAPES} {:.2} ms ({:.2} ms without load), {resident_mib:.1} MiB resident",
        median * 1e3,
        worst * 1e3,
        worst_beside * 1e3
    );
    // The mean delay is 1 s, plus or minus seven standard deviations of 8,000 draws.
    assert!(
        (-0.045..=0.045 + beside.mean() * 3.0).contains(&(mean_s - 1.0)),
        "{mean_s}"
    );
    // On a machine with other work, a scrape or two wait for a processor.
    let most = scrapes.quantile(0.95);
    assert!(
        most <= SCRAPE_MAX + worst_beside * 3.0,
        "{most} s, {worst_beside} s without load"
    );
    assert!(resident_mib <= 35.0, "{resident_mib}");
}

#[test]
fn the_first_response_comes_within_20_ms_of_the_start() {
    let (mut best, mut beside) = (Duration::MAX, Duration::MAX);
    for _ in 0..10 {
        best = best.min(start_to_response());
        // What the machine takes to start the program at all, in the same seconds.
        let begun = Instant::now();
        run(&["--version"]);
        beside = beside.min(begun.elapsed());
    }
    println!("start to first response: {best:?}, the best of 10; {beside:?} to start and end at once");
    assert!(best <= Duration::from_millis(20) + beside * 3, "{best:?}, {beside:?}");
}

fn start_to_response() -> Duration {
    let address = support::prometheus::free_address();
    let start = Instant::now();
    let mut child = command(&["--listen", &address.to_string()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while TcpStream::connect(address).is_err() {
        assert!(start.elapsed() < PATIENCE);
        std::hint::spin_loop();
    }
    assert_eq!(Client::connect(address).get("/healthz").status, 200);
    let took = start.elapsed();
    child.kill().unwrap();
    child.wait().unwrap();
    took
}
