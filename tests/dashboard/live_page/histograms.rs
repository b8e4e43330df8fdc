//! Histograms of all kinds, served as an exposition for Prometheus to scrape.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};

/// Buckets as an exposition has them: bound and cumulative count.
pub type Histogram = Vec<(String, f64)>;

/// Every edge of `histogram_quantile`, then a hundred drawn at random with a fixed seed.
pub fn cases() -> Vec<Histogram> {
    let edges: &[&[(&str, f64)]] = &[
        // nothing observed
        &[("0.1", 0.0), ("1", 0.0), ("+Inf", 0.0)],
        // all in the first bucket, in a middle one, in the one without a bound
        &[("0.1", 7.0), ("1", 7.0), ("+Inf", 7.0)],
        &[("0.1", 0.0), ("1", 7.0), ("2", 7.0), ("+Inf", 7.0)],
        &[("0.1", 0.0), ("1", 0.0), ("+Inf", 7.0)],
        // a rank just at a bound
        &[("0.1", 5.0), ("1", 9.0), ("2", 10.0), ("+Inf", 10.0)],
        // no bucket without a bound; no other bucket; one other
        &[("0.1", 1.0), ("1", 2.0)],
        &[("+Inf", 3.0)],
        &[("1", 2.0), ("+Inf", 3.0)],
        // a first bound at zero, and below
        &[("0", 2.0), ("1", 3.0), ("+Inf", 4.0)],
        &[("-1", 2.0), ("0", 3.0), ("+Inf", 4.0)],
        &[("-1", 0.0), ("0", 3.0), ("+Inf", 4.0)],
        // scraped without consistency: a bucket behind a smaller one
        &[("0.1", 4.0), ("1", 3.0), ("2", 9.0), ("+Inf", 8.0)],
        // one bound written in two ways, as two versions of a program do
        &[("1", 2.0), ("1.0", 3.0), ("2", 4.0), ("2.0", 5.0), ("+Inf", 9.0)],
        // counts as rate() gives them
        &[("0.1", 0.033_333), ("1", 0.7), ("2.5", 1.1), ("+Inf", 1.25)],
    ];
    let mut cases: Vec<Histogram> = edges
        .iter()
        .map(|case| {
            case.iter()
                .map(|(bound, count)| ((*bound).to_owned(), *count))
                .collect()
        })
        .collect();
    let mut random = fastrand::Rng::with_seed(6);
    for _ in 0..100 {
        let (mut bound, mut count) = (0.0, 0.0);
        let mut case: Histogram = (0..random.usize(1..20))
            .map(|_| {
                bound += random.f64() + 0.001;
                // Empty buckets are frequent.
                count += if random.bool() {
                    f64::from(random.u32(0..1000))
                } else {
                    0.0
                };
                (bound.to_string(), count)
            })
            .collect();
        case.push(("+Inf".to_owned(), count + f64::from(random.u32(0..10))));
        cases.push(case);
    }
    cases
}

/// Serves the histograms as `cases_bucket{case,le}` at `/metrics` to whoever connects, until the test's process ends.
pub fn serve(cases: &[Histogram]) -> SocketAddr {
    let mut page = String::from("# TYPE cases_bucket untyped\n");
    for (case, buckets) in cases.iter().enumerate() {
        for (bound, count) in buckets {
            let _ = writeln!(page, "cases_bucket{{case=\"{case}\",le=\"{bound}\"}} {count}");
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let head = BufReader::new(&stream)
                .lines()
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .count();
            if head > 0 {
                let length = page.len();
                let _ = write!(
                    &stream,
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
                );
            }
        }
    });
    address
}
