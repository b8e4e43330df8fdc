//! Three drills for real: a server, clients and Prometheus 3 with the rules, in which a minute lasts a second.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::client::load_until;
use support::prometheus::{Prometheus, free_address};
use support::root;
use support::server::{Server, command};

/// The clients of the load, as in yaml/.
const CLIENTS: usize = 20;

/// How long an alert may take to fire or to end: many times what docs/drills.md has, in seconds.
const PATIENCE: Duration = Duration::from_secs(180);

/// The durations of the rules, and what they are if a minute lasts a second: windows, and how long an alert waits.
const DURATIONS: [(&str, &str); 11] = [
    ("[5m]", "[5s]"),
    ("[30m]", "[30s]"),
    ("[1h]", "[1m]"),
    ("[2h]", "[2m]"),
    ("[6h]", "[6m]"),
    ("[1d]", "[24m]"),
    ("[3d]", "[72m]"),
    ("for: 2m", "for: 2s"),
    ("for: 5m", "for: 5s"),
    ("for: 10m", "for: 10s"),
    ("for: 15m", "for: 15s"),
];

/// Returns the path of the rules with every duration divided by 60.
fn quick_rules() -> PathBuf {
    let rules = fs::read_to_string(root().join("yaml/monitoring/rules.yaml")).unwrap();
    let replaced = |with: fn((&'static str, &'static str)) -> (&'static str, &'static str)| {
        DURATIONS
            .into_iter()
            .map(with)
            .fold(rules.clone(), |text, (from, to)| text.replace(from, to))
    };
    let others = replaced(|(slow, _)| (slow, ""));
    let forgotten = ["m]", "h]", "d]", "for: "].iter().find(|end| others.contains(**end));
    assert_eq!(forgotten, None, "the rules have another duration");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("quick-rules.yaml");
    fs::write(&file, replaced(|pair| pair)).unwrap();
    file
}

/// Blocks until an alert fires, or does not.
fn await_alert(prometheus: &Prometheus, alert: &str, fires: bool) {
    let begun = Instant::now();
    let firing = format!("count(ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}) or vector(0)");
    loop {
        let found = prometheus.value(&firing);
        if found.is_some_and(|found| (found > 0.0) == fires) {
            println!(
                "{alert} {} after {:?}",
                if fires { "fires" } else { "ends" },
                begun.elapsed()
            );
            return;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "waited {PATIENCE:?} for {alert} to {}; {:?}",
            if fires { "fire" } else { "end" },
            prometheus.query("ALERTS")
        );
        thread::sleep(Duration::from_millis(200));
    }
}

fn start(address: SocketAddr, flags: &[&str]) -> Server {
    let listen = address.to_string();
    let all = [&["--listen", &listen, "--delay-max=1s", "--access-log=false"], flags].concat();
    Server::spawn(command(&all))
}

#[test]
fn errors_a_server_down_and_requests_near_the_limit_raise_their_alerts_which_end_when_that_does() {
    let address = free_address();
    let config = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\nrule_files: ['{}']\n\
         scrape_configs: [{{ job_name: httpserver, static_configs: [{{ targets: ['{address}'] }}] }}]\n",
        quick_rules().display()
    );
    let prometheus = Prometheus::start(&config, &[]);
    let stop = AtomicBool::new(false);
    let with_load = |server: &Server, drill: &dyn Fn()| {
        stop.store(false, Ordering::Relaxed);
        thread::scope(|scope| {
            scope.spawn(|| load_until(server.address, "/", CLIENTS, PATIENCE * 2, &stop));
            drill();
            stop.store(true, Ordering::Relaxed);
        });
    };
    let healthy = |alert: &str| {
        let server = start(address, &[]);
        with_load(&server, &|| await_alert(&prometheus, alert, false));
    };
    let drill = |alert: &str, flags: &[&str]| {
        let server = start(address, flags);
        with_load(&server, &|| await_alert(&prometheus, alert, true));
    };

    drill("HttpserverErrorBudgetBurnsFast", &["--error-rate=0.2"]);
    healthy("HttpserverErrorBudgetBurnsFast");
    drill("HttpserverInFlightNearLimit", &["--max-in-flight=24"]);
    healthy("HttpserverInFlightNearLimit");
    await_alert(&prometheus, "HttpserverTargetDown", true);
    healthy("HttpserverTargetDown");
}
