//! `--concurrency`: at most so many requests to `/` are served at a time, and latency rises with load as queueing theory says.
//!
//! All times are from the access log: what the server recorded, request by request.

use std::time::{Duration, SystemTime};

use support::access_log::{Durations, Line};
use support::client::{Response, load};
use support::server::Server;

use crate::waiting_clients;

/// A request, as the access log has it.
#[derive(Debug)]
struct Served {
    arrival: SystemTime,
    start: SystemTime,
    end: SystemTime,
}

impl Served {
    fn new(line: &Line) -> Served {
        let arrival = line.at - line.duration;
        Served {
            arrival,
            start: arrival + line.queue.expect("a concurrency is set"),
            end: line.at,
        }
    }
}

/// Returns the mean number of requests between two times of each, in a part of the time.
fn mean_number(
    served: &[Served],
    (from, to): (SystemTime, SystemTime),
    between: impl Fn(&Served) -> [SystemTime; 2],
) -> f64 {
    let seconds = |from: SystemTime, to: SystemTime| to.duration_since(from).map_or(0.0, |time| time.as_secs_f64());
    let within = served.iter().map(|one| {
        let [begin, end] = between(one);
        seconds(begin.max(from), end.min(to))
    });
    within.sum::<f64>() / seconds(from, to)
}

/// Returns how long a response says that its request queued, and was delayed, in milliseconds.
fn server_timing(response: &Response) -> [f64; 2] {
    let timing = response.header("Server-Timing").expect("Server-Timing");
    let (queue, delay) = timing.split_once(", ").expect(timing);
    [("queue;dur=", queue), ("delay;dur=", delay)]
        .map(|(name, part)| part.strip_prefix(name).and_then(|ms| ms.parse().ok()).expect(timing))
}

fn assert_near(what: &str, found: f64, expected: f64) {
    println!("{what}: {found:.3}, in theory {expected}");
    assert!(
        (found / expected - 1.0).abs() < 0.03,
        "{what}: {found}, in theory {expected}"
    );
}

#[test]
fn a_closed_loop_has_the_throughput_and_the_latency_of_theory() {
    let server = Server::start(&["--delay-min=1s", "--delay-max=1s", "--concurrency=20"]);
    let seen = load(server.address, "/", 60, Duration::from_secs(12));
    let lines = server.logged(seen.latencies.count());
    let began = lines
        .iter()
        .map(|line| line.at - line.duration)
        .min()
        .expect("requests");
    // Every client has got its first response by then, and the last requests are not sent yet.
    let steady = began + Duration::from_millis(3500)..began + Duration::from_millis(11_500);
    let of_steady: Vec<&Line> = lines.iter().filter(|line| steady.contains(&line.at)).collect();
    assert_near("requests a second", of_steady.len() as f64 / 8.0, 20.0);
    let durations: Durations = of_steady.iter().map(|line| line.duration).collect();
    assert_near("mean latency", durations.mean(), 3.0);
}

#[test]
fn nothing_queues_while_there_are_as_many_places_as_clients() {
    let server = Server::start(&["--delay-max=200ms", "--concurrency=20"]);
    let seen = load(server.address, "/", 20, Duration::from_secs(1));
    let lines = server.logged(seen.latencies.count());
    assert!(lines.iter().all(|line| line.queue == Some(Duration::ZERO)), "{lines:?}");
}

#[test]
fn random_delays_keep_every_place_busy_and_requests_start_in_the_order_of_their_arrival() {
    /// The log has the end of a request a little after it, and later on a busy machine. Requests wait for two seconds.
    const PRECISION: Duration = Duration::from_millis(500);
    let server = Server::start(&["--concurrency", "20"]);
    let seen = load(server.address, "/", 60, Duration::from_secs(10));
    let lines = server.logged(seen.latencies.count());
    let mut served: Vec<Served> = lines.iter().map(Served::new).collect();
    served.sort_by_key(|one| one.arrival);
    let began = served[0].arrival;
    let steady = (began + Duration::from_secs(1), began + Duration::from_secs(9));
    // A busy machine answers a little after the end of the delay, so it seems to serve more.
    let busy = mean_number(&served, steady, |one| [one.start, one.end]) / 20.0;
    println!("share of the places that are busy: {busy:.3}");
    assert!((0.97..1.2).contains(&busy), "{busy}");
    // Of 60 clients, except those that have not yet sent their next request.
    let in_flight = mean_number(&served, steady, |one| [one.arrival, one.end]) / 60.0;
    println!("share of the clients whose request is in flight: {in_flight:.3}");
    assert!((0.9..1.01).contains(&in_flight), "{in_flight}");
    for (number, later) in served.iter().enumerate() {
        // Those that arrive at the same time may be in any order here.
        let earlier = served[..number]
            .iter()
            .filter(|one| one.arrival + PRECISION <= later.arrival);
        let last = earlier.max_by_key(|one| one.start);
        assert!(
            last.is_none_or(|last| last.start <= later.start + PRECISION),
            "{later:#?} was served before {last:#?}"
        );
    }
    let queue: f64 = lines.iter().map(|line| line.queue.unwrap().as_secs_f64()).sum();
    let exposed = server.metric("httpserver_queue_seconds_total").expect("the counter");
    assert!((queue - exposed).abs() < 0.001, "logged {queue}, exposed {exposed}");
}

#[test]
fn server_timing_the_log_and_the_histogram_split_a_duration_into_queue_and_delay() {
    let server = Server::start(&["--delay-min", "200ms", "--delay-max", "200ms", "--concurrency", "1"]);
    let mut second = server.connect();
    let mut first = waiting_clients(&server, 1);
    let response = second.get("/");
    let [queue, delay] = server_timing(&response);
    assert!(queue > 0.0 && delay >= 200.0, "queue {queue} ms, delay {delay} ms");
    first[0].receive().unwrap();
    // Probes and refusals take no place.
    let bad = second.get("/?delay=never");
    assert_eq!(bad.status, 400);
    let lines = server.logged(3);
    let logged = lines.iter().filter_map(|line| line.queue).max().unwrap();
    assert!(
        (logged.as_secs_f64() * 1e3 - queue).abs() < 0.001,
        "{logged:?} against {queue} ms"
    );
    assert!(lines.iter().any(|line| line.status == 400 && line.queue.is_none()));
    let sum = server
        .metric(r#"http_request_duration_seconds_sum{method="GET",path="/",status="200"}"#)
        .unwrap();
    let durations: f64 = lines
        .iter()
        .filter(|line| line.status == 200)
        .map(|line| line.duration.as_secs_f64())
        .sum();
    assert!((sum - durations).abs() < 0.0001, "{sum} against {durations}");
    assert_eq!(server.metric("httpserver_concurrency"), Some(1.0));
}

#[test]
fn without_a_concurrency_nothing_queues_and_nothing_says_so() {
    let server = Server::start(&["--delay-max", "10ms"]);
    let response = server.get("/");
    assert!(response.header("Server-Timing").unwrap().starts_with("delay;dur="));
    assert!(!server.metrics().contains("httpserver_concurrency") && !server.metrics().contains("httpserver_queue"));
    let lines = server.logged(1);
    assert_eq!(lines[0].queue, None);
}

#[test]
fn a_full_queue_refuses_at_once_and_a_drain_answers_all_that_wait() {
    let server = Server::start(&[
        "--delay-min=1h",
        "--delay-max=1h",
        "--concurrency=1",
        "--max-in-flight=3",
        "--drain-timeout=0s",
    ]);
    let clients = waiting_clients(&server, 3);
    for _ in 0..5 {
        assert_eq!(server.get("/").status, 503);
    }
    server.signal("TERM");
    for mut client in clients {
        let response = client.receive().expect("a response");
        assert_eq!(response.status, 200);
        let [queue, delay] = server_timing(&response);
        assert!(queue == 0.0 || delay == 0.0, "queue {queue} ms, delay {delay} ms");
    }
    let lines = server.logged(8);
    for line in lines {
        let is_refusal = line.status == 503;
        assert_eq!(line.queue.is_none(), is_refusal);
        assert!(line.queue.unwrap_or_default() <= line.duration, "{line:?}");
    }
}
