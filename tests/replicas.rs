//! Replicas add up: the sums of one Prometheus over three instances equal what their clients measured, even while one
//! is killed.

#[path = "manifests/manifest.rs"]
mod manifest;
mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::client::Client;
use support::prometheus::Prometheus;
use support::server::Server;
use support::wait_for;

const PODS: [&str; 3] = ["httpserver-a", "httpserver-b", "httpserver-c"];
/// The number of clients, each with one request in flight at a time.
const CLIENTS: usize = 150;
/// How far back every query looks.
const WINDOW: Duration = Duration::from_secs(15);
/// The series of delayed responses.
const SERIES: &str = r#"method="GET",path="/",status="200""#;

/// Prints a figure for the documentation, bypassing the test harness, which hides the output of a test that passes.
fn report(figure: &str) {
    let line = format!("\nfigure: {figure}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// A request that was answered.
struct Answered {
    /// The number of the instance.
    by: usize,
    at: Instant,
    latency: Duration,
}

/// Sends a request each time the last one is answered: to one instance until that fails, then to the next, as a Service
/// would. Returns the answered requests and the number of lost ones.
fn client(addresses: &[SocketAddr], first: usize, stop: &AtomicBool) -> (Vec<Answered>, usize) {
    let (mut answered, mut lost) = (Vec::new(), 0);
    let mut by = first;
    while !stop.load(Ordering::Relaxed) {
        // A Service sends new connections elsewhere once an endpoint is gone.
        if TcpStream::connect(addresses[by]).is_err() {
            by = (by + 1) % addresses.len();
            continue;
        }
        let mut client = Client::connect(addresses[by]);
        while !stop.load(Ordering::Relaxed) {
            let sent_at = Instant::now();
            let sent = client.socket().write_all(b"GET / HTTP/1.1\r\nHost: httpsvc\r\n\r\n");
            let received = sent.and_then(|()| client.receive());
            let at = Instant::now();
            let Ok(response) = received else {
                lost += 1;
                by = (by + 1) % addresses.len();
                break;
            };
            answered.push(Answered {
                by,
                at,
                latency: at - sent_at,
            });
            if response.header("Connection") == Some("close") {
                break;
            }
        }
    }
    (answered, lost)
}

/// The query results for the window that ends at `at`.
struct QueryResults {
    at: Instant,
    rate: f64,
    quantiles_s: [f64; 3],
    in_flight: f64,
}

const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

fn query(prometheus: &Prometheus) -> QueryResults {
    let window = format!("{}s", WINDOW.as_secs());
    let at = Instant::now();
    let value = |query: &str| {
        prometheus
            .value(query)
            .unwrap_or_else(|| panic!("{query} has no result"))
    };
    let buckets = format!("sum by (le) (rate(http_request_duration_seconds_bucket{{{SERIES}}}[{window}]))");
    QueryResults {
        at,
        rate: value(&format!(
            "sum(rate(http_request_duration_seconds_count{{{SERIES}}}[{window}]))"
        )),
        quantiles_s: QUANTILES.map(|q| value(&format!("histogram_quantile({q}, {buckets})"))),
        in_flight: value(&format!("sum(avg_over_time(http_requests_in_flight[{window}]))")),
    }
}

/// Asserts that the results are within 5 % of what the clients measured in the same window.
fn compare(when: &str, results: &QueryResults, answered: &[Answered]) {
    let mut latencies: Vec<Duration> = answered
        .iter()
        .filter(|request| request.at <= results.at && results.at - request.at <= WINDOW)
        .map(|request| request.latency)
        .collect();
    latencies.sort_unstable();
    let rate = latencies.len() as f64 / WINDOW.as_secs_f64();
    let assert_close = |what: &str, promql: f64, measured: f64| {
        let line = format!("{when}, {what}: {promql:.3} by PromQL, {measured:.3} by the clients");
        report(&line);
        assert!((promql / measured - 1.0).abs() <= 0.05, "{line}");
    };
    assert_close("requests a second", results.rate, rate);
    for (q, promql_s) in QUANTILES.iter().zip(results.quantiles_s) {
        let rank = (q * latencies.len() as f64).ceil() as usize;
        assert_close(
            &format!("p{} in seconds", q * 100.0),
            promql_s,
            latencies[rank - 1].as_secs_f64(),
        );
    }
}

#[test]
fn the_sums_over_three_instances_agree_with_the_clients_before_and_after_one_is_killed() {
    let servers: Vec<Server> = PODS.iter().map(|_| Server::start(&[])).collect();
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    let mut config = "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n\
                      scrape_configs:\n- job_name: kubernetes-pods\n  static_configs:\n"
        .to_owned();
    for (pod, address) in PODS.iter().zip(&addresses) {
        config += &format!("  - targets: ['{address}']\n    labels: {{namespace: default, pod: {pod}}}\n");
    }
    let prometheus = Prometheus::start(&config, &[]);
    // Scrape every series at zero before it counts.
    wait_for("a scrape of each", Duration::from_secs(30), || {
        (prometheus
            .query(&format!("http_request_duration_seconds_count{{{SERIES}}}"))
            .len()
            == PODS.len())
        .then_some(())
    });

    let stop = AtomicBool::new(false);
    let (answered, lost, killed_at, before, after) = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn({
                    let (addresses, stop) = (&addresses, &stop);
                    move || client(addresses, number % addresses.len(), stop)
                })
            })
            .collect();
        // Wait until the load has lasted for the window and for the first responses.
        thread::sleep(WINDOW + Duration::from_secs(3));
        let before = query(&prometheus);
        assert_autoscaler_sees_each_pod(&prometheus);

        servers[1].signal("KILL");
        let killed_at = Instant::now();
        // After half a window, the queries cover the time before and after the kill.
        thread::sleep(WINDOW / 2);
        let after = query(&prometheus);
        stop.store(true, Ordering::Relaxed);

        let (mut answered, mut lost) = (Vec::new(), 0);
        for client in clients {
            let (more, of_it_lost) = client.join().unwrap();
            answered.extend(more);
            lost += of_it_lost;
        }
        (answered, lost, killed_at, before, after)
    });

    compare("all three alive", &before, &answered);
    let in_flight = before.in_flight / CLIENTS as f64;
    assert!(
        (in_flight - 1.0).abs() <= 0.05,
        "{} in flight of {CLIENTS}",
        before.in_flight
    );
    compare("one killed in the window", &after, &answered);
    // A client loses the one request that it had in flight there, and no other.
    assert!(lost <= CLIENTS.div_ceil(PODS.len()), "{lost} lost");

    // The survivors' counters equal the clients' counts exactly. Those of the killed instance lack only what came after
    // its last scrape.
    let answered_by = |by: usize, until: Instant| {
        answered
            .iter()
            .filter(|request| request.by == by && request.at <= until)
            .count()
    };
    let end = Instant::now();
    for survivor in [0, 2] {
        let query = format!(
            "http_request_duration_seconds_count{{{SERIES},pod=\"{}\"}}",
            PODS[survivor]
        );
        let expected = answered_by(survivor, end);
        wait_for("the last requests to be scraped", Duration::from_secs(20), || {
            (prometheus.value(&query)? == expected as f64).then_some(())
        });
    }
    let query = format!(
        "max_over_time(http_request_duration_seconds_count{{{SERIES},pod=\"{}\"}}[5m])",
        PODS[1]
    );
    let kept = prometheus.value(&query).unwrap() as usize;
    let scraped_by_then = answered_by(1, killed_at.checked_sub(Duration::from_secs(3)).unwrap());
    assert!(kept >= scraped_by_then, "{kept} of {scraped_by_then}");
    // The difference is requests that were counted but whose clients had not read the response when the process died.
    assert!(kept <= answered_by(1, end) + lost, "{kept} of {}", answered_by(1, end));
    report(&format!(
        "Prometheus keeps {kept} of the killed instance's {} answered requests; {lost} requests of {} were lost",
        answered_by(1, end),
        answered.len() + lost,
    ));
}

/// Asserts that prometheus-adapter's query, interpolated as the adapter does, returns one number for each pod.
fn assert_autoscaler_sees_each_pod(prometheus: &Prometheus) {
    let values = manifest::documents("monitoring/autoscaling/prometheus-adapter-values.yaml").remove(0);
    let rule = &values["rules"]["custom"][0];
    assert_eq!(
        prometheus.query(rule["seriesQuery"].as_str().unwrap()).len(),
        PODS.len()
    );
    let query = rule["metricsQuery"]
        .as_str()
        .unwrap()
        .replace("<<.Series>>", rule["name"]["as"].as_str().unwrap())
        .replace(
            "<<.LabelMatchers>>",
            &format!("namespace=\"default\",pod=~\"{}\"", PODS.join("|")),
        )
        .replace("<<.GroupBy>>", "pod");
    let mut pods: Vec<String> = prometheus
        .query(&query)
        .iter()
        .map(|series| series["metric"]["pod"].as_str().unwrap().to_owned())
        .collect();
    pods.sort_unstable();
    assert_eq!(pods, PODS, "{query}");
}
