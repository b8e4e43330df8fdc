//! The figures in the documentation, with their limits. Measure the release build while nothing else runs:
//! `cargo test --release --test figures -- --test-threads=1 --nocapture`.

mod support;

use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::client::Client;
use support::server::{Server, command, value_of};
use support::wait_for;

const CLIENTS: f64 = 1_000.0;

/// How long the load lasts. That is longer than it is measured.
const LOAD: &str = "17s";
/// Clients that start together get their responses together for a few cycles.
const SETTLE: Duration = Duration::from_secs(5);
const MEASURED: Duration = Duration::from_secs(10);

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
    wait_for("the load", Duration::from_secs(5), || {
        (server.metric("http_requests_in_flight")? > CLIENTS).then_some(())
    });
    std::thread::sleep(SETTLE);
    let (start, count_start, sum_start) = answered(&mut scraper);
    let mut scrapes: Vec<Duration> = (0..50)
        .map(|number| {
            std::thread::sleep((start + MEASURED * number / 50).saturating_duration_since(Instant::now()));
            let sent_at = Instant::now();
            assert_eq!(server.get("/metrics").status, 200);
            sent_at.elapsed()
        })
        .collect();
    let resident_mib = server.resident_bytes() as f64 / 1048576.0;
    std::thread::sleep((start + MEASURED).saturating_duration_since(Instant::now()));
    let (end, count_end, sum_end) = answered(&mut scraper);
    assert!(wrk.wait().unwrap().success());
    let rate = (count_end - count_start) / (end - start).as_secs_f64();
    let mean_s = (sum_end - sum_start) / (count_end - count_start);
    // Ideally, a client's mean cycle is the mean duration of its requests, which is the mean delay: 1 s, plus or minus
    // five standard deviations of that many draws. A longer cycle or duration means that the server was late.
    let share = rate * mean_s / CLIENTS;
    scrapes.sort_unstable();
    let (median, worst) = (scrapes[25], scrapes[49]);
    println!(
        "1,000 clients: {rate:.0} responses/s ({share:.3} of the ideal), scrape {median:?} (worst of 50 {worst:?}), {resident_mib:.1} MiB resident"
    );
    assert!(share >= 0.98, "{share}");
    assert!((mean_s - 1.0).abs() <= 0.03, "{mean_s}");
    assert!(worst <= Duration::from_millis(10), "{worst:?}, median {median:?}");
    assert!(resident_mib <= 35.0, "{resident_mib}");
}

#[test]
fn the_first_response_comes_within_20_ms_of_the_start() {
    let best = (0..10).map(|_| start_to_response()).min().unwrap();
    println!("start to first response: {best:?}, the best of 10");
    assert!(best <= Duration::from_millis(20), "{best:?}");
}

fn start_to_response() -> Duration {
    let address = support::prometheus::free_address();
    let start = Instant::now();
    let mut child = command(&["--listen", &address.to_string()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while TcpStream::connect(address).is_err() {
        assert!(start.elapsed() < Duration::from_secs(5));
        std::hint::spin_loop();
    }
    assert_eq!(Client::connect(address).get("/healthz").status, 200);
    let took = start.elapsed();
    child.kill().unwrap();
    child.wait().unwrap();
    took
}
