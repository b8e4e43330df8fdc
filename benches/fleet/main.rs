//! Measures what a fleet of servers takes, by simulation: the pods themselves, and the Prometheus that scrapes them.
//!
//! ```text
//! cargo bench --bench fleet                 # everything, about 15 minutes
//! cargo bench --bench fleet -- 100          # a fleet of that many pods
//! BENCH_SERVER=/path/to/httpserver cargo bench --bench fleet
//! ```
//!
//! A pod is one server with requests in flight. A fleet is one Prometheus 3 that scrapes one server under as many addresses of
//! 127.0.0.0/8 as there are pods, each with a pod label of its own, and has the rules and the dashboard's queries. Scrapes and
//! rules are as in yaml/, every 15 s. Needs Linux, and a hard limit of `DESCRIPTORS`. Prints Markdown.

#[allow(dead_code, reason = "the tests of the dashboard use the rest")]
#[path = "../../tests/dashboard/panels/board.rs"]
mod board;
#[allow(dead_code, reason = "the tests of the dashboard use the rest")]
#[path = "../../tests/dashboard/panels/grafana.rs"]
mod grafana;
#[path = "../release.rs"]
mod release;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use board::Board;
use grafana::Grafana;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::client::{Client, load_until};
use support::prometheus::Prometheus;
use support::server::Server;
use support::{root, wait_for};

/// The pods of a fleet that has a million requests in flight, and what one of these pods has. 8,000 are four fifths of
/// `--max-in-flight`, at which HttpserverInFlightNearLimit fires.
const PODS: [usize; 2] = [125, 1_000];
const IN_FLIGHT: [usize; 2] = [8_000, 1_000];

/// Two for each connection of a pod, and an eighth is kept free.
const DESCRIPTORS: u64 = 18_500;

/// How long before the first figure: the rules read five minutes.
const WARM_UP: Duration = Duration::from_secs(330);

/// Scrapes and evaluations, as in yaml/.
const INTERVAL: Duration = Duration::from_secs(15);

/// How many evaluations of the rules are measured, and how often the dashboard is queried. The medians are printed.
const INTERVALS: usize = 5;
const REPEATS: usize = 3;

/// The dashboard's time range by default.
const SHOWN_S: u64 = 1_800;

/// The clients of the load in yaml/.
const CLIENTS: usize = 20;

fn main() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit on descriptors");
    assert!(
        hard >= DESCRIPTORS,
        "at most {hard} descriptors, of {DESCRIPTORS} needed"
    );
    setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, hard).expect("the soft limit can be raised to the hard one");
    // Cargo itself adds --bench.
    let named: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();

    if named.is_empty() {
        println!("| in flight in a pod | resident memory | threads | descriptors |");
        println!("| --- | --- | --- | --- |");
        IN_FLIGHT.into_iter().for_each(pod);
        println!();
    }
    println!("| pods | series | resident memory of Prometheus | samples a second | all rules | slowest panel |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let fleets = if named.is_empty() { PODS.to_vec() } else { named };
    fleets.into_iter().for_each(fleet);
}

/// Starts the server on every address, as in the image.
fn start() -> Server {
    let mut command = Command::new(release::server());
    command.args(["--listen", "0.0.0.0:0", "--access-log", "false"]);
    command.env("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0");
    Server::spawn(command)
}

/// Prints what a server takes while it has so many requests in flight.
fn pod(in_flight: usize) {
    let server = start();
    let address = SocketAddr::from(([127, 0, 0, 1], server.address.port()));
    let waiting: Vec<Client> = (0..in_flight)
        .map(|_| {
            let mut client = Client::connect(address);
            client.request("GET", "/?delay=1m", &[]);
            client
        })
        .collect();
    // The scrape is in flight, too.
    let all = (in_flight + 1) as f64;
    wait_for(
        "all requests to be in flight",
        || server.metric("http_requests_in_flight"),
        |in_flight| *in_flight == Some(all),
    );
    let resident_mib = server.resident_bytes() as f64 / f64::from(1 << 20);
    let (threads, descriptors) = (server.proc_status("Threads"), server.open_fds());
    println!("| {in_flight} | {resident_mib:.0} MiB | {threads} | {descriptors} |");
    drop(waiting);
}

/// Prints what a Prometheus takes that scrapes so many pods.
fn fleet(pods: usize) {
    let server = start();
    let prometheus = Prometheus::start(&config(pods, server.address.port()), &[]);
    let address = SocketAddr::from(([127, 0, 0, 1], server.address.port()));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| load_until(address, "/", CLIENTS, 3 * WARM_UP, &stop));
        thread::sleep(WARM_UP);
        let up = prometheus.value("sum(up)");
        assert_eq!(up, Some(pods as f64), "pods that can be scraped");

        let (begun_at, before) = (Instant::now(), Figures::read(&prometheus));
        let mut after = before;
        let evaluations = (0..INTERVALS).map(|_| {
            thread::sleep(INTERVAL);
            after = Figures::read(&prometheus);
            after.rules_s
        });
        let rules_s = median(evaluations.collect());
        let samples = (after.samples - before.samples) / begun_at.elapsed().as_secs_f64();
        let (panel, panel_s) = slowest_panel(&prometheus);
        println!(
            "| {pods} | {} | {:.0} MiB | {samples:.0} | {rules_s:.2} s | {panel_s:.2} s, *{panel}* |",
            after.series,
            after.resident_bytes / f64::from(1 << 20),
        );
        stop.store(true, Ordering::Relaxed);
    });
}

/// Returns a configuration with a target for each pod, and with scrapes and rules as in yaml/.
fn config(pods: usize, port: u16) -> String {
    let interval_s = INTERVAL.as_secs();
    let targets: String = (0..pods)
        .map(|pod| {
            let address = format!("127.1.{}.{}:{port}", pod / 250, pod % 250 + 1);
            let labels = format!("{{ namespace: default, pod: httpserver-{pod} }}");
            format!("  - {{ targets: ['{address}'], labels: {labels} }}\n")
        })
        .collect();
    format!(
        "global:\n  scrape_interval: {interval_s}s\n  scrape_timeout: 10s\n  evaluation_interval: {interval_s}s\n\
         \x20 scrape_native_histograms: true\n  always_scrape_classic_histograms: true\n\
         rule_files: ['{}']\n\
         scrape_configs:\n- job_name: httpserver\n  static_configs:\n{targets}",
        root().join("yaml/monitoring/rules.yaml").display()
    )
}

/// What a Prometheus says about itself.
#[derive(Clone, Copy)]
struct Figures {
    series: f64,
    resident_bytes: f64,
    /// Since its start.
    samples: f64,
    /// The latest evaluations of all groups, one after the other.
    rules_s: f64,
}

impl Figures {
    fn read(prometheus: &Prometheus) -> Figures {
        let exposition = Client::connect(prometheus.address).get("/metrics").text();
        let sum = |name: &str| -> f64 {
            let lines = exposition.lines().filter_map(|line| line.strip_prefix(name));
            let of_it = lines.filter(|rest| rest.starts_with(['{', ' ']));
            let values = of_it.map(|rest| rest.rsplit(' ').next().expect("a value"));
            values.map(|value| value.parse::<f64>().expect("a number")).sum()
        };
        Figures {
            series: sum("prometheus_tsdb_head_series"),
            resident_bytes: sum("process_resident_memory_bytes"),
            samples: sum("prometheus_tsdb_head_samples_appended_total"),
            rules_s: sum("prometheus_rule_group_last_duration_seconds"),
        }
    }
}

/// Returns the panel of the dashboard whose queries take longest, one after the other, and how long that is.
fn slowest_panel(prometheus: &Prometheus) -> (String, f64) {
    let board = Board::read();
    let choice = [
        ("job", "httpserver"),
        ("namespace", "default"),
        ("pod", ".*"),
        ("path", "/"),
        ("target", "2"),
    ];
    let mut runs: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for _ in 0..REPEATS {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let choice = choice.into_iter().collect();
        let grafana = Grafana::open(&board, prometheus, &choice, "15s", SHOWN_S, now.as_secs_f64());
        for panel in board.panels() {
            let asked = Instant::now();
            for query in &panel.queries {
                grafana.query(panel, query);
            }
            let took_s = asked.elapsed().as_secs_f64();
            runs.entry(panel.title.clone()).or_default().push(took_s);
        }
    }
    let medians = runs.into_iter().map(|(panel, took_s)| (panel, median(took_s)));
    medians.max_by(|one, other| one.1.total_cmp(&other.1)).expect("a panel")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
