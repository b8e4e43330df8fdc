//! The configured quantiles in the page, beside those that it estimates.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use super::*;

/// What the page says beside an estimate: nothing if that is hidden.
fn beside(browser: &mut Browser, id: &str) -> String {
    let script = format!("byId('{id}-configured').hidden ? '' : byId('{id}-configured').textContent");
    browser.evaluate(&script).as_str().unwrap().to_owned()
}

/// The configured quantiles that diamonds mark, from p99 to p50, and how far each diamond is from the left.
fn diamonds(browser: &mut Browser) -> Vec<(f64, f64)> {
    let diamonds = browser.evaluate(
        "[...document.querySelectorAll('#distribution .diamond')].map((diamond) => [Number(diamond.dataset.seconds), diamond.getBBox().x + diamond.getBBox().width / 2])",
    );
    let pairs = diamonds.as_array().unwrap().iter();
    pairs
        .map(|pair| (pair[0].as_f64().unwrap(), pair[1].as_f64().unwrap()))
        .collect()
}

/// The texts of the rows of the table of configured quantiles.
fn rows(browser: &mut Browser) -> Value {
    browser.evaluate(
        "[...document.querySelectorAll('#configured-table tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent))",
    )
}

/// Lets clients request `target` until about so many requests are answered, and waits until the page has them.
fn load(server: &Server, browser: &mut Browser, target: &str, clients: usize, seconds: u64) {
    let before = counted(server);
    let seen = client::load(server.address, target, clients, Duration::from_secs(seconds));
    settle(browser, before + seen.latencies.count() as f64);
}

#[test]
fn with_five_buckets_each_estimate_has_its_error_beside_it_in_tiles_chart_and_table() {
    let server = Server::start(&["--buckets", "exponential:0.1,1.5,5", "--access-log", "false"]);
    let mut browser = open(server.address, json!({}));
    // Before any request there is nothing to compare, but the configuration is known.
    assert_eq!(beside(&mut browser, "p99"), "configured 1.98\u{a0}s ");
    load(&server, &mut browser, "/", 100, 4);
    for (id, text) in [
        ("p50", "configured 1.00\u{a0}s error −49 %"),
        ("p90", "configured 1.80\u{a0}s error −72 %"),
        ("p99", "configured 1.98\u{a0}s error −74 %"),
    ] {
        assert_eq!(beside(&mut browser, id), text);
    }
    assert_eq!(
        rows(&mut browser),
        json!([
            ["p50", "≥\u{202f}0.506 s", "1.00 s", "−49 %"],
            ["p90", "≥\u{202f}0.506 s", "1.80 s", "−72 %"],
            ["p99", "≥\u{202f}0.506 s", "1.98 s", "−74 %"],
        ])
    );
    let labels =
        browser.evaluate("[...document.querySelectorAll('#distribution .halo')].map((text) => text.textContent)");
    let label = json!("p99 ≥\u{202f}0.506 s, configured 1.98 s");
    assert!(labels.as_array().unwrap().contains(&label), "{labels}");
    // All lie past the last bound, in the hatched bar, in their order.
    let diamonds = diamonds(&mut browser);
    let values: Vec<f64> = diamonds.iter().map(|diamond| diamond.0).collect();
    assert_eq!(values, [1.98, 1.8, 1.0]);
    let edge =
        |edge: &str| format!("(({{ x, width }}) => {edge})(document.querySelector('#distribution .open').getBBox())");
    let left = browser.evaluate(&edge("x")).as_f64().unwrap();
    let right = browser.evaluate(&edge("x + width")).as_f64().unwrap();
    assert!(
        right > diamonds[0].1 && diamonds[0].1 > diamonds[1].1 && diamonds[1].1 > diamonds[2].1 && diamonds[2].1 > left,
        "{diamonds:?} from {left} to {right}"
    );
    assert!(browser.text("#configured").ends_with("for the same requests."));
}

#[test]
fn configured_quantiles_and_errors_follow_the_flag_for_everybody() {
    let server = Server::start(&[
        "--delay-quantiles",
        "0.5=80ms,0.9=300ms,0.99=1.5s",
        "--access-log",
        "false",
    ]);
    for (q, seconds) in [("0.5", 0.08), ("0.9", 0.3), ("0.99", 1.5)] {
        assert_eq!(
            server.metric(&format!("httpserver_delay_quantile_seconds{{q=\"{q}\"}}")),
            Some(seconds)
        );
    }
    let mut browser = open(server.address, json!({}));
    load(&server, &mut browser, "/", 60, 5);
    let diamonds = diamonds(&mut browser);
    assert_eq!(
        diamonds.iter().map(|diamond| diamond.0).collect::<Vec<_>>(),
        [1.5, 0.3, 0.08]
    );
    for ((id, configured, text), (_, at)) in [
        ("p99", 1.5, "configured 1.50\u{a0}s "),
        ("p90", 0.3, "configured 0.300\u{a0}s "),
        ("p50", 0.08, "configured 0.0800\u{a0}s "),
    ]
    .into_iter()
    .zip(diamonds)
    {
        let error = (shown(&mut browser, id) / configured - 1.0) * 100.0;
        let sign = if error < 0.0 { "−" } else { "+" };
        let places = usize::from(error.abs() < 9.95);
        assert_eq!(
            beside(&mut browser, id),
            format!("{text}error {sign}{:.places$} %", error.abs())
        );
        // On the scale of the axis: 46 px at 0, and the edge of the last bar with a bound at 2.5 s.
        let scale = browser.evaluate(
            "(({ x, width }) => (x + width + 0.75 - 46) / 2.5)([...document.querySelectorAll('#distribution .bar')].at(-1).getBBox())",
        );
        assert!(
            (at - 46.0 - configured * scale.as_f64().unwrap()).abs() < 0.01,
            "{id} at {at}"
        );
    }
    for (name, scheme, width, height) in [
        ("configured-light", "light", 1180, 900),
        ("configured-dark", "dark", 1180, 900),
        ("configured-phone", "light", 390, 844),
    ] {
        browser.look(scheme, width, height);
        browser.evaluate("document.querySelector('figure details').open = false");
        browser.picture(&picture_folder().join(format!("{name}.png")));
        // By keyboard to the tables; what is open is checked, too.
        browser.evaluate("document.querySelector('figure summary').focus()");
        browser.press("Enter");
        browser.wait_for("byId('configured-table').checkVisibility()", |visible| *visible == true);
        browser.press("Tab");
        assert_eq!(
            browser.evaluate("document.activeElement.contains(byId('configured-table'))"),
            true
        );
        assert_eq!(browser.accessibility_faults(), [""; 0], "{name}");
        let overflow = browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(overflow, 0, "{name}: the page is wider than the screen");
        let outside = browser.evaluate(
            "[...document.querySelectorAll('#distribution text')].filter((text) => text.getBBox().x < 0 || text.getBBox().x + text.getBBox().width > byId('distribution').clientWidth + 1).map((text) => text.textContent)",
        );
        assert_eq!(outside, json!([]), "{name}: a label is outside of the chart");
    }
    assert_eq!(browser.traffic().complaints, [""; 0]);
}

#[test]
fn an_error_is_that_of_get_with_status_200_and_the_page_says_if_its_other_figures_are_not() {
    let server = Server::start(&["--buckets", "exponential:0.1,1.5,5", "--access-log", "false"]);
    let mut browser = open(server.address, json!({}));
    load(&server, &mut browser, "/", 100, 3);
    let (alone, estimate_alone) = (beside(&mut browser, "p50"), shown(&mut browser, "p50"));
    assert_eq!(alone, "configured 1.00\u{a0}s error −49 %");
    // Many more that do not count: by their status, and by their method.
    let before = counted(&server);
    let mut client = server.connect();
    for _ in 0..300 {
        client.request("GET", "/?delay=0s&status=404", &[]);
        assert_eq!(client.receive().unwrap().status, 404);
        assert_eq!(client.head("/?delay=0s").status, 200);
    }
    settle(&mut browser, before + 600.0);
    let estimate = shown(&mut browser, "p50");
    assert!(
        estimate < estimate_alone,
        "of all requests {estimate}, without the others {estimate_alone}"
    );
    assert_eq!(beside(&mut browser, "p50"), alone);
    let said = browser.text("#configured");
    assert!(
        said.ends_with(": p50 ≥\u{202f}0.506 s, p90 ≥\u{202f}0.506 s, p99 ≥\u{202f}0.506 s, without the 600 others."),
        "{said}"
    );
}

#[test]
fn while_requests_queue_the_page_shows_queue_and_service_apart_and_no_error() {
    let server = Server::start(&[
        "--delay-min=200ms",
        "--delay-max=200ms",
        "--concurrency=4",
        "--access-log=false",
    ]);
    let mut browser = open(server.address, json!({}));
    assert_eq!(browser.text("#in-flight-more"), "0 served, 0 queued");
    load(&server, &mut browser, "/", 4, 1);
    assert!(!browser.text("#distribution-scope").contains("queued"));
    assert!(beside(&mut browser, "p50").contains("error"));
    let lasts = Duration::from_secs(5);
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| client::load(server.address, "/", 12, lasts));
        browser.wait_for("byId('in-flight-more').textContent", |text| {
            *text == "4 served, 8 queued"
        });
        assert_eq!(clients.join().unwrap().lost, 0);
    });
    settle(&mut browser, counted(&server));
    // Each of 12 clients waits for two rounds of four, and is then served.
    let scope = browser.text("#distribution-scope");
    let (_, means) = scope.split_once(", on average ").expect(&scope);
    let (queued, served) = means.split_once(" queued and ").expect(&scope);
    let seconds = |text: &str| -> f64 {
        text.split(' ')
            .next()
            .and_then(|number| number.parse().ok())
            .expect(&scope)
    };
    let (queued, served) = (seconds(queued), seconds(served));
    let exposed = server.metric("httpserver_queue_seconds_total").unwrap() / counted(&server);
    assert!((queued / exposed - 1.0).abs() < 0.01, "{scope}; exposed {exposed}");
    assert!(queued > served && served >= 0.2, "{scope}");
    assert_eq!(beside(&mut browser, "p50"), "configured 0.200\u{a0}s ");
    assert!(browser.text("#configured").ends_with("so no error is shown."));
    assert_eq!(browser.traffic().complaints, [""; 0]);
}

/// An address in front of servers, which takes them in turn, a request each, and edits their expositions.
fn front(servers: &[&Server], edit: fn(&str) -> String) -> SocketAddr {
    let targets: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (stream, &target) in listener.incoming().map_while(Result::ok).zip(targets.iter().cycle()) {
            // A browser may connect ahead of a request.
            std::thread::spawn(move || forward(&stream, target, edit));
        }
    });
    address
}

fn forward(mut stream: &TcpStream, target: SocketAddr, edit: fn(&str) -> String) {
    let mut head = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(request) = head.next() else { return };
    // To its end, so that closing resets nothing.
    head.take_while(|line| !line.is_empty()).for_each(drop);
    let path = request.split(' ').nth(1).expect("a request line");
    let response = client::Client::connect(target).get(path);
    let kind = response.header("Content-Type").unwrap();
    let body = match path {
        "/metrics" => edit(&response.text()),
        _ => response.text(),
    };
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
}

#[test]
fn a_server_without_configured_quantiles_has_no_marks_and_no_complaint() {
    let server = Server::start(&["--delay-max", "100ms", "--access-log", "false"]);
    let without = |exposition: &str| {
        let lines = exposition
            .lines()
            .filter(|line| !line.contains("httpserver_delay_quantile_seconds"));
        lines.map(|line| format!("{line}\n")).collect()
    };
    let mut browser = open(front(&[&server], without), json!({}));
    load(&server, &mut browser, "/", 20, 1);
    assert!(shown(&mut browser, "p50") > 0.0);
    assert_eq!(diamonds(&mut browser), []);
    for id in ["p50", "p90", "p99"] {
        assert_eq!(beside(&mut browser, id), "");
    }
    assert_eq!(
        browser.evaluate("byId('configured').hidden && byId('configured-table').hidden"),
        true
    );
    assert!(
        !browser
            .evaluate("document.body.innerText")
            .as_str()
            .unwrap()
            .contains("onfigured")
    );
    browser.wait_for("byId('state').textContent", |state| *state == "live, once a second");
    assert_eq!(browser.traffic().complaints, [""; 0]);
}

#[test]
fn replicas_that_differ_are_said_to_and_the_latest_is_marked() {
    let replicas = [
        Server::start(&["--delay-max", "400ms", "--access-log", "false"]),
        Server::start(&["--delay-max", "1s", "--access-log", "false"]),
    ];
    let mut browser = open(front(&[&replicas[0], &replicas[1]], str::to_owned), json!({}));
    browser.wait_for("page.processes.size", |processes| *processes == 2);
    assert!(
        browser
            .text("#configured")
            .ends_with(" Processes with different configurations have answered: what is marked is that of the latest.")
    );
    let marked = browser.evaluate(
        "[page.scrape.configured.get(0.99), Number(document.querySelector('#distribution .diamond').dataset.seconds)]",
    );
    assert!(
        marked[0] == marked[1] && [json!(0.396), json!(0.99)].contains(&marked[0]),
        "{marked}"
    );
}
