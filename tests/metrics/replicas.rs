//! Replicas add up: one Prometheus over three instances counts and estimates what their access logs have, even while
//! one is killed.

use httpserver::metrics::Bounds;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{LABELS, durations, samples};
use support::access_log::Line;
use support::client::Client;
use support::manifest;
use support::prometheus::Prometheus;
use support::server::Server;
use support::wait_for;

const PODS: [&str; 3] = ["httpserver-a", "httpserver-b", "httpserver-c"];
/// The number of clients, each with one request in flight at a time.
const CLIENTS: usize = 300;
/// How far back every query looks.
const WINDOW: Duration = Duration::from_secs(10);

/// Prints a figure for the documentation, bypassing the test harness, which hides the output of a test that passes.
fn report(figure: &str) {
    let line = format!("\nfigure: {figure}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

fn unix_time(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Sends a request each time the last one is answered: to one instance until that fails, then to the next, as a Service
/// would. Returns the number of answered requests by instance, and that of lost ones.
fn client(addresses: &[SocketAddr], first: usize, stop: &AtomicBool) -> ([usize; PODS.len()], usize) {
    let (mut answered, mut lost) = ([0; PODS.len()], 0);
    let mut by = first;
    while !stop.load(Ordering::Relaxed) {
        // A Service sends new connections elsewhere once an endpoint is gone.
        if TcpStream::connect(addresses[by]).is_err() {
            by = (by + 1) % addresses.len();
            continue;
        }
        let mut client = Client::connect(addresses[by]);
        while !stop.load(Ordering::Relaxed) {
            let sent = client.socket().write_all(b"GET / HTTP/1.1\r\nHost: httpsvc\r\n\r\n");
            let Ok(response) = sent.and_then(|()| client.receive()) else {
                lost += 1;
                by = (by + 1) % addresses.len();
                break;
            };
            answered[by] += 1;
            if response.header("Connection") == Some("close") {
                break;
            }
        }
    }
    (answered, lost)
}

/// What Prometheus and the access log have of an instance.
struct Pod {
    /// The counts of answered requests, by time of the scrape.
    scraped: Vec<(f64, f64)>,
    /// The lines of the log, in the order of their times.
    log: Vec<Line>,
}

impl Pod {
    fn of(prometheus: &Prometheus, pod: usize, mut log: Vec<Line>) -> Pod {
        log.sort_by_key(|line| line.at);
        Pod {
            scraped: samples(prometheus, &count_of(pod)),
            log,
        }
    }

    /// Returns the number of requests that were logged by then.
    fn logged(&self, by: f64) -> usize {
        self.log.partition_point(|line| unix_time(line.at) <= by)
    }

    /// Returns the first and the last sample in a window.
    fn edges(&self, window: &std::ops::RangeInclusive<f64>) -> [(f64, f64); 2] {
        let mut within = self.scraped.iter().filter(|(at, _)| window.contains(at)).copied();
        let first = within.next().expect("a sample in the window");
        [first, within.next_back().unwrap_or(first)]
    }

    /// Asserts that each scrape counts the requests that the log has at some time of the scrape. The time of a sample is
    /// that of the scrape's beginning. The log is complete until `complete_until`.
    fn assert_scrapes_agree_with_the_log(&self, pod: usize, scrapes: &[(f64, f64)], complete_until: f64) {
        /// Prometheus moves a sample's time by up to 2 ms, and the log truncates its times to 1 ms.
        const ROUNDING_S: f64 = 0.01;
        /// A request is logged after it is counted, and a busy machine may do something else in between.
        const LATER_S: f64 = 0.5;
        for &(at, count) in &self.scraped {
            let (_, took) = scrapes.iter().find(|(scrape, _)| *scrape == at).expect("a duration");
            let end = at + took + LATER_S;
            let least = self.logged(at - ROUNDING_S);
            let most = if end < complete_until {
                self.logged(end)
            } else {
                usize::MAX
            };
            assert!(
                (least..=most).contains(&(count as usize)),
                "{} at {at}: {count} by Prometheus, {least} to {most} in the log",
                PODS[pod]
            );
        }
    }
}

/// Returns the series of an instance's delayed responses.
fn count_of(pod: usize) -> String {
    let labels = LABELS.trim_end_matches('}');
    format!("http_request_duration_seconds_count{labels},pod=\"{}\"}}", PODS[pod])
}

/// Asserts that the sums over all instances, over the window that ends at a time, agree with the logs.
fn compare(when: &str, prometheus: &Prometheus, pods: &[Pod], at: f64) {
    let length = WINDOW.as_secs_f64();
    let window = at - length..=at;
    let value = |query: &str| {
        prometheus
            .value(query)
            .unwrap_or_else(|| panic!("{query} has no result"))
    };
    let range = format!("[{length}s] @ {at}");

    // `rate` extrapolates what the samples in the window count, at most to the whole window.
    let rate = value(&format!(
        "sum(rate(http_request_duration_seconds_count{LABELS}{range}))"
    ));
    let counted = |per: &dyn Fn(f64) -> f64| -> f64 {
        let of_pod = |pod: &Pod| {
            let [first, last] = pod.edges(&window);
            (last.1 - first.1) / per(last.0 - first.0)
        };
        pods.iter().map(of_pod).sum()
    };
    let (least, most) = (counted(&|_| length), counted(&|sampled| sampled));
    let logged = |pod: &Pod| pod.logged(*window.end()) - pod.logged(*window.start());
    let logged = pods.iter().map(logged).sum::<usize>() as f64 / length;
    let line = format!(
        "{when}, requests a second: {rate:.1} by PromQL, {logged:.1} in the logs, {least:.1} to {most:.1} in the samples"
    );
    report(&line);
    assert!((least * 0.999..=most * 1.001).contains(&rate), "{line}");

    // The requests that the samples in the window count.
    let lines = pods.iter().flat_map(|pod| {
        let [first, last] = pod.edges(&window).map(|(_, count)| count as usize);
        &pod.log[first.min(pod.log.len())..last.min(pod.log.len())]
    });
    let recorded = durations(lines);
    let buckets = format!("sum by (le) (rate(http_request_duration_seconds_bucket{LABELS}{range}))");
    for q in [0.5, 0.9, 0.99] {
        let estimate = value(&format!("histogram_quantile({q}, {buckets})"));
        let truth = recorded.quantile(q);
        report(&format!(
            "{when}, p{} in seconds: {estimate:.3} by PromQL, {truth:.3} in the logs",
            q * 100.0
        ));
        recorded.assert_estimate(when, estimate, q, Bounds::default().upper_ns());
    }
}

#[test]
fn the_sums_over_three_instances_agree_with_their_logs_before_and_after_one_is_killed() {
    let mut servers: Vec<Server> = PODS.iter().map(|_| Server::start(&[])).collect();
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    let mut config = "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n\
                      scrape_configs:\n- job_name: kubernetes-pods\n  static_configs:\n"
        .to_owned();
    for (pod, address) in PODS.iter().zip(&addresses) {
        config += &format!("  - targets: ['{address}']\n    labels: {{namespace: default, pod: {pod}}}\n");
    }
    let prometheus = Prometheus::start(&config, &[]);
    wait_for(
        "a scrape of each",
        || prometheus.query("up == 1").len(),
        |up| *up == PODS.len(),
    );

    let stop = AtomicBool::new(false);
    let (answered, lost, before, killed_at, after) = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (addresses, stop) = (&addresses, &stop);
                scope.spawn(move || client(addresses, number % addresses.len(), stop))
            })
            .collect();
        // Prometheus has times in milliseconds.
        let now = || (unix_time(SystemTime::now()) * 1e3).floor() / 1e3;
        // Let the load last for the window and for the first responses.
        thread::sleep(WINDOW + Duration::from_secs(3));
        let before = now();
        assert_autoscaler_sees_each_pod(&prometheus);

        let killed_at = now();
        servers[1].signal("KILL");
        // Then the window has as much of the time before as of the time after.
        thread::sleep(WINDOW / 2);
        let after = now();
        stop.store(true, Ordering::Relaxed);

        let (mut answered, mut lost) = ([0; PODS.len()], 0);
        for client in clients {
            let (of_client, lost_by_it) = client.join().unwrap();
            answered
                .iter_mut()
                .zip(of_client)
                .for_each(|(sum, count)| *sum += count);
            lost += lost_by_it;
        }
        (answered, lost, before, killed_at, after)
    });
    // A client loses the one request that it had in flight there, and no other.
    assert!(lost <= CLIENTS.div_ceil(PODS.len()), "{lost} lost");

    // Nothing is missing of the survivors. SIGKILL takes along the lines that the log had not written yet.
    servers[1].wait_exit();
    for survivor in [0, 2] {
        assert_eq!(servers[survivor].logged(answered[survivor]).len(), answered[survivor]);
        let series = count_of(survivor);
        wait_for(
            "the last requests to be scraped",
            || samples(&prometheus, &series).last().map(|(_, count)| *count),
            |count| *count == Some(answered[survivor] as f64),
        );
    }
    let pods: Vec<Pod> = (0..PODS.len())
        .map(|pod| Pod::of(&prometheus, pod, servers[pod].logged(0)))
        .collect();
    for (number, pod) in pods.iter().enumerate() {
        let scrapes = samples(
            &prometheus,
            &format!("scrape_duration_seconds{{pod=\"{}\"}}", PODS[number]),
        );
        let complete_until = if number == 1 { killed_at } else { f64::INFINITY };
        pod.assert_scrapes_agree_with_the_log(number, &scrapes, complete_until);
    }

    compare("all three alive", &prometheus, &pods, before);
    let range = format!("[{}s] @ {before}", WINDOW.as_secs());
    // Each scrape is in flight itself.
    let in_flight = prometheus.value(&format!("sum(avg_over_time(http_requests_in_flight{range}) - 1)"));
    let in_flight = in_flight.expect("a gauge");
    // What the requests that ended in the window took, over its length. What its start cuts off is made up for at its
    // end, but for chance: 0.4 % of the sum (one standard deviation).
    let recorded = pods.iter().flat_map(|pod| {
        let [start, end] = [before - WINDOW.as_secs_f64(), before].map(|time| pod.logged(time));
        &pod.log[start..end]
    });
    let recorded = durations(recorded).sum() / WINDOW.as_secs_f64();
    let line = format!("in flight: {in_flight:.1} by PromQL, {recorded:.1} in the logs, of {CLIENTS} clients");
    report(&line);
    assert!((in_flight / recorded - 1.0).abs() <= 0.05, "{line}");
    compare("one killed in the window", &prometheus, &pods, after);

    let kept = pods[1].scraped.last().expect("a scrape").1 as usize;
    // The difference is requests that were counted but whose clients had not read the response when the process died.
    assert!(kept <= answered[1] + lost, "{kept} of {}", answered[1]);
    report(&format!(
        "Prometheus keeps {kept} of the killed instance's {} answered requests; {lost} requests of {} were lost",
        answered[1],
        answered.iter().sum::<usize>() + lost,
    ));
}

/// Asserts that prometheus-adapter's query, interpolated as the adapter does, returns one number for each pod.
fn assert_autoscaler_sees_each_pod(prometheus: &Prometheus) {
    let values = manifest::documents("monitoring/autoscaling/prometheus-adapter-values.yaml").remove(0);
    let rule = &values["rules"]["custom"][0];
    let series = rule["seriesQuery"].as_str().unwrap();
    // A scrape that timed out leaves a pod out until the next one.
    wait_for(
        "a series of each pod",
        || prometheus.query(series).len(),
        |count| *count == PODS.len(),
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
