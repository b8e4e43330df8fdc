//! Another program that Prometheus scrapes beside ours. It has the same metric with the same labels, as podinfo does,
//! and the metrics that most programs have.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// A path, and a bucket bound, that only the neighbour has.
pub const PATH: &str = "/neighbour";
pub const BOUND: &str = "7.0";

/// Serves the neighbour's metrics while the test program runs. Its counters increase with each scrape.
pub fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (scrapes, stream) in listener.incoming().enumerate() {
            let _ = answer(stream.unwrap(), &exposition(1000 * scrapes as u64));
        }
    });
    address
}

fn answer(mut stream: TcpStream, body: &str) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => head.extend(&buffer[..read]),
        }
    }
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Returns its exposition after `requests` requests of each status, half of which took longer than 2 s.
pub fn exposition(requests: u64) -> String {
    let mut text = String::from("# TYPE http_request_duration_seconds histogram\n");
    for path in ["/", PATH] {
        for status in ["200", "500", "503"] {
            let labels = format!("method=\"GET\",path=\"{path}\",status=\"{status}\"");
            for (bound, count) in [("1.0", 0), ("2.0", requests / 2), (BOUND, requests), ("+Inf", requests)] {
                let series = format!("http_request_duration_seconds_bucket{{{labels},le=\"{bound}\"}}");
                writeln!(text, "{series} {count}").unwrap();
            }
            writeln!(text, "http_request_duration_seconds_sum{{{labels}}} {}", 3 * requests).unwrap();
            writeln!(text, "http_request_duration_seconds_count{{{labels}}} {requests}").unwrap();
        }
    }
    for (name, value) in [
        ("http_requests_in_flight", 9e6),
        ("process_cpu_seconds_total", requests as f64),
        ("process_resident_memory_bytes", 9e12),
        ("process_virtual_memory_bytes", 9e12),
        ("process_open_fds", 9e6),
        ("process_max_fds", 1.0),
        ("process_threads", 9e6),
        ("process_start_time_seconds", 1.0),
    ] {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        writeln!(text, "# TYPE {name} {kind}\n{name} {value}").unwrap();
    }
    text
}
