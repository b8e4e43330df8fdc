//! Replicas add up: what one Prometheus sums over three instances is what their clients saw, also while one of them dies.

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
/// Clients, each with one request in flight at a time.
const CLIENTS: usize = 150;
/// Every query looks this far back.
const WINDOW: Duration = Duration::from_secs(15);
/// The main series, of answers that took their delay.
const SERIES: &str = r#"method="GET",path="/",status="200""#;

/// For docs/kubernetes.md; said past the test harness, which keeps what a passing test prints to itself.
fn tell(figure: &str) {
    let line = format!("\nfigure: {figure}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// A request that was answered.
struct Answer {
    by: usize,
    at: Instant,
    latency: Duration,
}

/// A request each time the last is answered, to one instance until that goes, then to the next, as behind a Service. Gives the
/// answers and how many requests were lost.
fn client(addresses: &[SocketAddr], first: usize, stop: &AtomicBool) -> (Vec<Answer>, usize) {
    let (mut answers, mut lost) = (Vec::new(), 0);
    let mut by = first;
    while !stop.load(Ordering::Relaxed) {
        // Whoever was lost there once is sent elsewhere, as by a Service whose endpoint is gone.
        if TcpStream::connect(addresses[by]).is_err() {
            by = (by + 1) % addresses.len();
            continue;
        }
        let mut client = Client::connect(addresses[by]);
        while !stop.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let sent = client.socket().write_all(b"GET / HTTP/1.1\r\nHost: httpsvc\r\n\r\n");
            let received = sent.and_then(|()| client.receive());
            let at = Instant::now();
            let Ok(response) = received else {
                lost += 1;
                by = (by + 1) % addresses.len();
                break;
            };
            answers.push(Answer {
                by,
                at,
                latency: at - asked,
            });
            if response.header("Connection") == Some("close") {
                break;
            }
        }
    }
    (answers, lost)
}

/// What Prometheus says of the window that ends now.
struct Told {
    at: Instant,
    rate: f64,
    quantiles_s: [f64; 3],
    in_flight: f64,
}

const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

fn ask(prometheus: &Prometheus) -> Told {
    let window = format!("{}s", WINDOW.as_secs());
    let at = Instant::now();
    let value = |query: &str| {
        prometheus
            .value(query)
            .unwrap_or_else(|| panic!("{query} has no answer"))
    };
    let buckets = format!("sum by (le) (rate(http_request_duration_seconds_bucket{{{SERIES}}}[{window}]))");
    Told {
        at,
        rate: value(&format!(
            "sum(rate(http_request_duration_seconds_count{{{SERIES}}}[{window}]))"
        )),
        quantiles_s: QUANTILES.map(|q| value(&format!("histogram_quantile({q}, {buckets})"))),
        in_flight: value(&format!("sum(avg_over_time(http_requests_in_flight[{window}]))")),
    }
}

/// Compares with what the clients saw in the same window; within 5 %.
fn compare(when: &str, told: &Told, answers: &[Answer]) {
    let mut latencies: Vec<Duration> = answers
        .iter()
        .filter(|answer| answer.at <= told.at && told.at - answer.at <= WINDOW)
        .map(|answer| answer.latency)
        .collect();
    latencies.sort_unstable();
    let rate = latencies.len() as f64 / WINDOW.as_secs_f64();
    let close = |what: &str, told: f64, seen: f64| {
        let line = format!("{when}, {what}: {told:.3} by PromQL, {seen:.3} at the clients");
        tell(&line);
        assert!((told / seen - 1.0).abs() <= 0.05, "{line}");
    };
    close("requests a second", told.rate, rate);
    for (q, told_s) in QUANTILES.iter().zip(told.quantiles_s) {
        let rank = (q * latencies.len() as f64).ceil() as usize;
        close(
            &format!("p{} in seconds", q * 100.0),
            told_s,
            latencies[rank - 1].as_secs_f64(),
        );
    }
}

#[test]
fn three_instances_sum_to_what_their_clients_see_before_and_while_one_is_killed() {
    let servers: Vec<Server> = PODS.iter().map(|_| Server::start(&[])).collect();
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    let mut config = "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n\
                      scrape_configs:\n- job_name: kubernetes-pods\n  static_configs:\n"
        .to_owned();
    for (pod, address) in PODS.iter().zip(&addresses) {
        config += &format!("  - targets: ['{address}']\n    labels: {{namespace: default, pod: {pod}}}\n");
    }
    let prometheus = Prometheus::start(&config, &[]);
    // Every series is seen at zero before it counts.
    wait_for("a scrape of each", Duration::from_secs(30), || {
        (prometheus
            .query(&format!("http_request_duration_seconds_count{{{SERIES}}}"))
            .len()
            == PODS.len())
        .then_some(())
    });

    let stop = AtomicBool::new(false);
    let (answers, lost, killed_at, before, after) = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn({
                    let (addresses, stop) = (&addresses, &stop);
                    move || client(addresses, number % addresses.len(), stop)
                })
            })
            .collect();
        // The load is the condition here, and it needs its time: the window, and what the first answers take.
        thread::sleep(WINDOW + Duration::from_secs(3));
        let before = ask(&prometheus);
        an_autoscaler_would_see_each_pod(&prometheus);

        servers[1].signal("KILL");
        let killed_at = Instant::now();
        // Half a window on, the queries look back on both what was and what is.
        thread::sleep(WINDOW / 2);
        let after = ask(&prometheus);
        stop.store(true, Ordering::Relaxed);

        let (mut answers, mut lost) = (Vec::new(), 0);
        for client in clients {
            let (more, of_it_lost) = client.join().unwrap();
            answers.extend(more);
            lost += of_it_lost;
        }
        (answers, lost, killed_at, before, after)
    });

    compare("all three alive", &before, &answers);
    let in_flight = before.in_flight / CLIENTS as f64;
    assert!(
        (in_flight - 1.0).abs() <= 0.05,
        "{} in flight of {CLIENTS}",
        before.in_flight
    );
    compare("one killed in the window", &after, &answers);
    // A client loses the one request that it had in flight there, and no other.
    assert!(lost <= CLIENTS.div_ceil(PODS.len()), "{lost} lost");

    // To the last answer: the survivors' counters are the clients' counts, and the dead one's lack but what came after its last
    // scrape.
    let answered = |by: usize, until: Instant| {
        answers
            .iter()
            .filter(|answer| answer.by == by && answer.at <= until)
            .count()
    };
    let end = Instant::now();
    for survivor in [0, 2] {
        let query = format!(
            "http_request_duration_seconds_count{{{SERIES},pod=\"{}\"}}",
            PODS[survivor]
        );
        let expected = answered(survivor, end);
        wait_for("the last answers to be scraped", Duration::from_secs(20), || {
            (prometheus.value(&query)? == expected as f64).then_some(())
        });
    }
    let query = format!(
        "max_over_time(http_request_duration_seconds_count{{{SERIES},pod=\"{}\"}}[5m])",
        PODS[1]
    );
    let kept = prometheus.value(&query).unwrap() as usize;
    let scraped_by_then = answered(1, killed_at.checked_sub(Duration::from_secs(3)).unwrap());
    assert!(kept >= scraped_by_then, "{kept} of {scraped_by_then}");
    // What was counted but not yet read by its client when the process died makes the difference.
    assert!(kept <= answered(1, end) + lost, "{kept} of {}", answered(1, end));
    tell(&format!(
        "of the killed instance Prometheus keeps {kept} of {} answers; {lost} requests of {} were lost",
        answered(1, end),
        answers.len() + lost,
    ));
}

/// prometheus-adapter's query, filled in as the adapter does for the pods of a Deployment, has one number a pod.
fn an_autoscaler_would_see_each_pod(prometheus: &Prometheus) {
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
