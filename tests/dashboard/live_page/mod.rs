//! The live page /ui in a real browser: its arithmetic beside a real Prometheus', its figures beside the server's, its
//! manners when the server goes away, and whether everybody can use it.

mod browser;
mod configured;
mod histograms;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use browser::Browser;
use serde_json::{Value, json};
use support::access_log::{self, Durations};
use support::client;
use support::prometheus::{Prometheus, free_address, percent_encoded, scrape_config};
use support::server::{Server, command};
use support::{root, wait_for};

fn ui(address: SocketAddr) -> String {
    format!("http://{address}/ui")
}

/// Opens the page and waits for its first figures.
fn open(address: SocketAddr, options: Value) -> Browser {
    let mut browser = Browser::open(&ui(address), options);
    browser.wait_for("page.scrape !== null", |has_polled| *has_polled == true);
    browser
}

/// Chooses which requests the page shows, by the value of its radio button.
fn choose(browser: &mut Browser, window: &str) {
    browser.evaluate(&format!("document.querySelector('#windows [value={window}]').click()"));
}

/// The bound and the requests of each bar, from the left.
fn bars(browser: &mut Browser) -> Vec<(f64, f64)> {
    let bars = browser.evaluate(
        "[...document.querySelectorAll('#distribution [data-requests]')].map((bar) => [bar.dataset.bound, bar.dataset.requests])",
    );
    let number = |text: &Value| text.as_str().unwrap().parse().unwrap();
    let bars = bars.as_array().unwrap().iter();
    bars.map(|bar| (number(&bar[0]), number(&bar[1]))).collect()
}

/// The requests of all bars.
fn requests_of(bars: &[(f64, f64)]) -> f64 {
    bars.iter().map(|(_, requests)| requests).sum()
}

/// The value behind a figure of the page: "NaN" is one.
fn shown(browser: &mut Browser, id: &str) -> f64 {
    let text = browser.evaluate(&format!("document.getElementById('{id}').dataset.value"));
    text.as_str().unwrap().parse().unwrap()
}

/// How many requests for `/` the exposition has counted.
fn counted(server: &Server) -> f64 {
    let page = server.metrics();
    let counts = page
        .lines()
        .filter(|line| line.starts_with("http_request_duration_seconds_count{") && line.contains("path=\"/\""));
    counts
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

/// Waits until the server's log has as many requests for `/`, and returns their durations.
fn logged(server: &Server, requests: usize) -> Durations {
    let durations = || -> Durations {
        let lines = access_log::parse(&server.stdout()).into_iter();
        lines
            .filter(|line| line.path == "/")
            .map(|line| line.duration)
            .collect()
    };
    wait_for(
        &format!("{requests} requests for / in the log"),
        || durations().count(),
        |count| *count == requests,
    );
    durations()
}

/// Waits until the page has polled what the server has counted once the load is over. What is still in flight then is the
/// page's own reading.
fn settle(browser: &mut Browser, requests: f64) {
    browser.wait_for("[countOf(viewOf('started').totals), page.scrape.inFlight]", |counted| {
        counted[0].as_f64() == Some(requests) && counted[1].as_f64() <= Some(1.0)
    });
}

/// Sets a flag when dropped, so that a failure ends the load, too.
struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn picture_folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ui");
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn quantiles_are_those_of_promql_for_any_histogram() {
    let cases = histograms::cases();
    let exposition = histograms::serve(&cases);
    let prometheus = Prometheus::scraping(&[exposition]);
    let present = format!("count(cases_bucket{{case=\"{}\"}}) > 0", cases.len() - 1);
    wait_for(
        "the histograms to be scraped",
        || prometheus.value(&present),
        Option::is_some,
    );
    let server = Server::start(&[]);
    let mut browser = open(server.address, json!({}));
    let quantiles = ["0", "0.001", "0.5", "0.9", "0.99", "1", "-0.1", "1.1", "NaN"];
    let mut compared = 0;
    for q in quantiles {
        let answers = prometheus.query(&format!("histogram_quantile({q}, cases_bucket)"));
        let cases_json = json!(
            cases
                .iter()
                .map(|case| case
                    .iter()
                    .map(|(bound, count)| json!({ "bound": bound, "count": count }))
                    .collect::<Vec<_>>())
                .collect::<Vec<_>>()
        );
        let script = format!(
            "{cases_json}.map((buckets) => String(histogramQuantile({q}, buckets.map(({{ bound, count }}) => ({{ bound: parseNumber(bound), count }})))))"
        );
        let pages = browser.evaluate(&script);
        for (case, page) in pages.as_array().unwrap().iter().enumerate() {
            let page: f64 = page.as_str().unwrap().replace("Infinity", "inf").parse().unwrap();
            let label = case.to_string();
            let labelled = answers
                .iter()
                .find(|answer| answer["metric"]["case"].as_str() == Some(&label));
            let promql: f64 = labelled.expect("an answer for each case")["value"][1]
                .as_str()
                .unwrap()
                .parse()
                .unwrap();
            let same =
                page == promql || (page.is_nan() && promql.is_nan()) || (page - promql).abs() <= promql.abs() * 1e-12;
            assert!(
                same,
                "quantile {q} of {:?}: {page} on the page, {promql} in PromQL",
                cases[case]
            );
            compared += 1;
        }
    }
    assert_eq!(compared, quantiles.len() * cases.len());
}

#[test]
fn increases_over_a_reset_are_those_of_rate_and_a_new_series_counts_from_zero() {
    let server = Server::start(&[]);
    let mut browser = open(server.address, json!({}));
    let total = browser.evaluate(
        "(() => {
            const series = (...counts) => ({ queueSeconds: counts[1] / 2, series: new Map([['GET 200', { status: '200', seconds: counts[0], buckets: new Map([[1, counts[0]], [Infinity, counts[1]]]) }]]) });
            const totals = zeroTotals([1, Infinity]);
            addIncrease(totals, [1, Infinity], series(5, 9), series(7, 12));
            addIncrease(totals, [1, Infinity], series(7, 12), series(2, 3));
            addIncrease(totals, [1, Infinity], undefined, series(1, 1));
            return [...totals.buckets, totals.statuses.get('200'), totals.seconds, totals.queueSeconds];
        })()",
    );
    // 2 and 3 at first, then 2 and 3 since the reset, then 1 and 1.
    assert_eq!(total, json!([5, 7, 7, 5, 3.5]));
}

#[test]
fn the_page_reads_every_line_that_the_format_allows_and_refuses_what_is_none() {
    let server = Server::start(&[]);
    let mut browser = open(server.address, json!({}));
    let read = browser.evaluate(
        r#"parseExposition('# HELP a b\n\na 1\nb{} 2e3 1395066363000\nc{x="\\"\\\\\\n}",y=""} +Inf # {t="1"} 1\nd\t-3.5\n').map((s) => [s.name, [...s.labels], String(s.value)])"#,
    );
    assert_eq!(
        read,
        json!([
            ["a", [], "1"],
            ["b", [], "2000"],
            ["c", [["x", "\"\\\n}"], ["y", ""]], "Infinity"],
            ["d", [], "-3.5"]
        ])
    );
    for no_sample in ["<html>", "a", "a{ 1", "a one", "1a 1"] {
        let script = format!(
            "(() => {{ try {{ parseExposition({}); return 'read'; }} catch (error) {{ return 'refused'; }} }})()",
            json!(no_sample)
        );
        assert_eq!(browser.evaluate(&script), "refused", "{no_sample}");
    }
}

#[test]
fn under_load_bars_are_those_of_the_log_quantiles_match_promql_nothing_complains_and_nothing_leaves_the_host() {
    const BURST: usize = 100;
    const LONGEST_DELAY: f64 = 2.0;
    let server = Server::start(&[]);
    let prometheus = Prometheus::scraping(&[server.address]);
    let mut browser = open(server.address, json!({}));
    assert_eq!(browser.text("#p50"), "–", "a fresh server has no quantile");

    let folder = picture_folder();
    let stop = AtomicBool::new(false);
    let answered: usize = std::thread::scope(|scope| {
        // Errors are asked for by clients alone: the browser would note those of its own burst in its console.
        let loads = [("/", 90), ("/?status=503", 10)].map(|(target, clients)| {
            let (address, stop) = (server.address, &stop);
            scope.spawn(move || client::load_until(address, target, clients, Duration::MAX, stop))
        });
        let over = SetWhenDropped(&stop);
        // By keyboard: from the chosen window to the button, which sends its burst beside the load.
        browser.wait_for("page.scrape.inFlight", |requests| requests.as_f64() > Some(50.0));
        browser.evaluate("document.querySelector('#windows :checked').focus()");
        browser.press("Tab");
        assert_eq!(browser.evaluate("document.activeElement.id"), "burst");
        browser.press("Enter");
        browser.wait_for("byId('burst').textContent", |text| *text == "Stop");
        for (name, scheme, width, height) in [
            ("light", "light", 1180, 900),
            ("dark", "dark", 1180, 900),
            ("phone", "light", 390, 844),
        ] {
            browser.look(scheme, width, height);
            let picture = browser.picture(&folder.join(format!("{name}.png")));
            assert!(
                fs::metadata(picture).unwrap().len() > 20_000,
                "{name}: the picture is empty"
            );
            let overflow =
                browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth");
            assert_eq!(overflow, 0, "{name}: the page is wider than the screen");
            assert_eq!(browser.accessibility_faults(), [""; 0], "{name}");
        }
        browser.look("light", 1180, 900);
        browser.wait_for("burst === null ? 'over' : byId('progress').textContent", |burst| {
            *burst == "over"
        });
        drop(over);
        loads.map(|load| load.join().unwrap().latencies.count()).iter().sum()
    });

    // The server records a request just after its client has the response. The log has each once.
    let durations = logged(&server, answered + BURST);
    let requests = durations.count() as f64;
    assert_eq!(counted(&server), requests, "the exposition has each once");
    settle(&mut browser, requests);
    wait_for(
        "the last answers to be scraped",
        || prometheus.value("sum(http_request_duration_seconds_count{path=\"/\"})"),
        |count| *count == Some(requests),
    );
    for window in ["minutes", "opened", "started"] {
        choose(&mut browser, window);
        let bars = bars(&mut browser);
        assert_eq!(requests_of(&bars), requests, "bars of {window}");
        let mut sum = 0.0;
        for (bound, requests) in &bars {
            sum += requests;
            // The log rounds to the microsecond.
            let logged = durations.at_most(bound - 1e-6)..=durations.at_most(bound + 1e-6);
            assert!(
                logged.contains(&(sum as usize)),
                "up to {bound}: {sum} here, {logged:?} in the log"
            );
        }
        for (id, q) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
            let promql =
                format!("histogram_quantile({q}, sum by (le) (http_request_duration_seconds_bucket{{path=\"/\"}}))");
            let (page, promql) = (shown(&mut browser, id), prometheus.value(&promql).unwrap());
            assert!(
                (page - promql).abs() <= promql * 1e-12,
                "{id} of {window}: {page} here, {promql} in PromQL"
            );
            let truth = durations.quantile(q);
            println!("{id}: page {page:.4} s, PromQL {promql:.4} s, log {truth:.4} s");
            // Delays fill the buckets evenly up to the longest. What a busy machine adds to that lies somewhere in the next
            // bucket.
            assert!(
                truth > LONGEST_DELAY || (page / truth - 1.0).abs() < 0.05,
                "{id}: {page} here, {truth} in the log"
            );
        }
    }
    let table = browser.evaluate("[...document.querySelectorAll('#distribution-table tbody tr')].map((row) => Number(row.cells[1].textContent.replace(/\\D/g, '')))");
    let bars = bars(&mut browser);
    assert_eq!(
        table,
        json!(bars.iter().map(|(_, requests)| *requests as u64).collect::<Vec<_>>()),
        "the table says the same"
    );
    let errors = prometheus
        .value("sum(http_request_duration_seconds_count{path=\"/\",status=~\"5..\"})")
        .unwrap();
    assert!(errors > 0.0);
    assert_eq!(
        browser.evaluate("errorsOf(viewOf('started').totals)").as_f64().unwrap(),
        errors
    );

    let traffic = browser.traffic();
    assert_eq!(traffic.complaints, [""; 0]);
    let ours = format!("http://{}/", server.address);
    let mut others = traffic.requests;
    for (path, least) in [("", BURST), ("ui", 1), ("metrics", 1)] {
        let watched = others
            .extract_if(.., |request| *request == format!("{ours}{path}"))
            .count();
        assert!(watched >= least, "{watched} requests for /{path} were watched");
    }
    assert_eq!(others, [""; 0]);
}

#[test]
fn a_burst_leaves_a_connection_for_the_polls() {
    // Whatever the burst takes is never free again.
    let server = Server::start(&["--delay-min", "1h", "--delay-max", "1h"]);
    let mut browser = open(server.address, json!({}));
    browser.evaluate("byId('burst').click()");
    browser.wait_for("page.scrape.inFlight", |requests| requests.as_f64() > Some(1.0));
    for _ in 0..3 {
        browser.wait_for_drawing();
    }
    browser.wait_for("page.scrape.inFlight", |requests| *requests == 6.0);
    browser.evaluate("byId('burst').click()");
    browser.wait_for("byId('announcement').textContent", |said| {
        *said == "0 of 5 requests answered, 0 failed."
    });
}

#[test]
fn five_buckets_are_shown_as_hiding_what_is_above_them() {
    let server = Server::start(&["--buckets", "exponential:0.1,1.5,5", "--access-log", "false"]);
    let mut browser = open(server.address, json!({}));
    let clients = client::load(server.address, "/", 100, Duration::from_secs(4));
    settle(&mut browser, clients.latencies.count() as f64);
    for id in ["p50", "p90", "p99"] {
        assert_eq!(shown(&mut browser, id), 0.50625, "{id} is clamped as PromQL clamps it");
        assert_eq!(browser.text(&format!("#{id}")), "≥\u{202f}0.506s");
    }
    let bucket = |le: &str| {
        let series = r#"http_request_duration_seconds_bucket{method="GET",path="/",status="200",le="LE"}"#;
        server.metric(&series.replace("LE", le)).unwrap()
    };
    let above = bucket("+Inf") - bucket("0.50625");
    assert_eq!(
        bars(&mut browser)[5],
        (f64::INFINITY, above),
        "the requests that are hatched"
    );
    assert_eq!(browser.evaluate("bars.unknown.getAttribute('visibility')"), "visible");
}

#[test]
fn a_server_that_goes_away_is_announced_once_and_one_that_comes_back_counts_on() {
    // Nobody takes this address while the server is away.
    let address = free_address();
    let start = || Server::spawn(command(&["--listen", &address.to_string(), "--access-log", "false"]));
    let load = || client::load(address, "/", 20, Duration::from_secs(2)).latencies.count() as f64;
    let server = start();
    let mut browser = open(address, json!({}));
    let first = load();
    settle(&mut browser, first);
    choose(&mut browser, "opened");
    browser.evaluate("globalThis.announced = []; new MutationObserver(() => announced.push(byId('announcement').textContent)).observe(byId('announcement'), { childList: true, characterData: true, subtree: true })");

    drop(server);
    browser.wait_for("document.body.className", |class| *class == "stale");
    // Long enough for some polls in vain.
    browser.wait_for("Number(/, (\\d+) s ago/.exec(byId('away').textContent)[1])", |age| {
        age.as_f64() >= Some(6.0)
    });
    assert!(
        browser
            .text("#away")
            .contains("No answer from the server: it cannot be reached. The figures below are from ")
    );
    assert!(browser.text("#state").starts_with("away for "));
    assert_eq!(browser.evaluate("byId('away').hidden"), false);
    assert_eq!(requests_of(&bars(&mut browser)), first, "what was seen is still shown");
    assert_eq!(browser.accessibility_faults(), [""; 0]);
    browser.picture(&picture_folder().join("away.png"));

    let server = start();
    browser.wait_for("document.body.className", |class| *class == "");
    assert_eq!(browser.evaluate("byId('away').hidden"), true);
    // A screen reader heard of it when it went and when it came, not every second.
    assert_eq!(
        browser.evaluate("announced"),
        json!([
            "The server does not answer. What is shown is old.",
            "The server was restarted and answers. Counts go on from before."
        ])
    );
    let second = load();
    settle(&mut browser, second);
    assert_eq!(counted(&server), second, "the new process counts from zero");
    assert_eq!(requests_of(&bars(&mut browser)), first + second);
    choose(&mut browser, "started");
    assert_eq!(requests_of(&bars(&mut browser)), second);
    // The browser itself notes each poll in vain; the page adds nothing to that.
    for complaint in browser.traffic().complaints {
        assert!(
            complaint.starts_with("Failed to load resource: net::ERR_"),
            "{complaint}"
        );
    }
}

#[test]
fn the_page_is_served_with_its_policy_and_for_head_too() {
    let server = Server::start(&[]);
    let response = server.get("/ui");
    assert_eq!(response.status, 200);
    assert_eq!(response.header("Content-Type"), Some("text/html; charset=utf-8"));
    let policy = response.header("Content-Security-Policy").expect("a policy");
    assert!(
        policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert_eq!(response.header("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(
        response.body,
        fs::read(root().join("src/server/endpoint/live_page.html")).unwrap()
    );
    let head = server.connect().head("/ui");
    assert_eq!(
        (head.status, head.header("Content-Security-Policy")),
        (200, Some(policy))
    );
}

/// Makes the pictures of the README, which shows the page after five minutes:
/// `cargo test --test dashboard pictures_for_the_readme -- --ignored`. They are kept small by `pngquant --quality 85-100 --ext .png --force docs/*.png && optipng docs/*.png`.
#[test]
#[ignore = "takes five minutes and writes to docs/"]
fn pictures_for_the_readme() {
    const BASE: Duration = Duration::from_secs(310);
    const WAVE: Duration = Duration::from_secs(80);
    let docs = root().join("docs");
    fs::create_dir_all(&docs).unwrap();
    let twelve = Server::start(&["--access-log", "false"]);
    let five = Server::start(&["--buckets", "exponential:0.1,1.5,5", "--access-log", "false"]);
    let mut browsers = [&twelve, &five].map(|server| open(server.address, json!({})));
    std::thread::scope(|scope| {
        for address in [twelve.address, five.address] {
            scope.spawn(move || client::load(address, "/", 120, BASE));
            scope.spawn(move || {
                // A wave of more load, then some errors.
                std::thread::sleep(BASE / 4);
                client::load(address, "/", 120, WAVE);
                std::thread::sleep(WAVE / 2);
                client::load(address, "/?status=503", 12, WAVE / 4)
            });
        }
        // The pictures show the last five minutes.
        std::thread::sleep(BASE - Duration::from_secs(8));
        let [twelve, five] = &mut browsers;
        twelve.look("light", 1180, 900);
        twelve.picture(&docs.join("ui-light.png"));
        twelve.look("dark", 1180, 900);
        twelve.picture(&docs.join("ui-dark.png"));
        twelve.look("light", 390, 844);
        twelve.picture(&docs.join("ui-phone.png"));
        for (name, browser) in [("twelve", twelve), ("five", five)] {
            browser.look("light", 900, 700);
            browser.evaluate(
                "document.querySelectorAll('figure')[1].hidden = document.querySelector('footer').hidden = true",
            );
            browser.picture(&docs.join(format!("buckets-{name}.png")));
        }
    });
}

/// Makes docs/native.png: `cargo test --test dashboard picture_of_a_native -- --ignored`. The first Prometheus 3 on the PATH has to have its own
/// page, as a release has; one that tests/tools/prometheus builds from the Go module has none.
#[test]
#[ignore = "takes two minutes, writes to docs/ and needs the page of a Prometheus 3"]
fn picture_of_a_native_histogram_in_prometheus() {
    const LOAD: Duration = Duration::from_secs(75);
    const QUERIES: [&str; 4] = [
        r#"sum(rate(http_request_duration_seconds{path="/"}[1m]))"#,
        r#"histogram_quantile(0.99, sum(rate(http_request_duration_seconds{path="/"}[1m])))"#,
        r#"histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket{path="/"}[1m])))"#,
        r#"httpserver_delay_quantile_seconds{q="0.99"}"#,
    ];
    let server = Server::start(&["--buckets", "exponential:0.1,1.5,5", "--access-log", "false"]);
    let scrape = scrape_config(&[server.address]).replace(
        "scrape_configs:",
        "  scrape_native_histograms: true\n  always_scrape_classic_histograms: true\nscrape_configs:",
    );
    let prometheus = Prometheus::start(&scrape, &[]);
    client::load(server.address, "/", 120, LOAD);
    let panels = QUERIES.iter().enumerate();
    let panels = panels.map(|(panel, query)| format!("g{panel}.expr={}&g{panel}.tab=table", percent_encoded(query)));
    let page = format!(
        "http://{}/query?{}",
        prometheus.address,
        panels.collect::<Vec<_>>().join("&")
    );
    let mut browser = Browser::open(&page, json!({ "width": 1180, "height": 900 }));
    browser.wait_for("document.body.innerText", |text| {
        text.as_str().unwrap().contains("q=\"0.99\"")
    });
    // Without the long list of its buckets.
    browser.evaluate("[...document.querySelectorAll('th')].find((cell) => cell.textContent === 'Bucket range').closest('table').hidden = true");
    browser.picture(&root().join("docs/native.png"));
}
