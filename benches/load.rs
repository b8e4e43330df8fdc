//! This server beside a plain pool of 64 threads on tiny_http, under the same `wrk` runs.
//!
//! ```text
//! cargo bench --bench load
//! ```
//!
//! Needs `wrk`. Runs of the two alternate, so that what else the machine does meanwhile harms both. Only ratios are worth
//! comparing between machines. Prints Markdown: delayed (0 to 2 s) and undelayed, at 64, 256, 1,000 and 5,000 clients.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

mod plain_pool {
    //! The simplest thing that could work: 64 threads that take a request, sleep and answer.

    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    const THREADS: usize = 64;

    pub fn run(address: &str, delay_max: Duration) {
        let server = Arc::new(tiny_http::Server::http(address).expect("the address is free"));
        eprintln!("plain pool listening on {address}, waiting");
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let server = Arc::clone(&server);
                thread::spawn(move || {
                    while let Ok(request) = server.recv() {
                        let delay = delay_max.mul_f64(fastrand::f64());
                        if !delay.is_zero() && request.url() == "/" {
                            thread::sleep(delay);
                        }
                        let line = format!("answered after {:.6} s\n", delay.as_secs_f64());
                        let _ = request.respond(tiny_http::Response::from_string(line));
                    }
                })
            })
            .collect();
        for thread in threads {
            let _ = thread.join();
        }
    }
}

/// The client counts of the runs.
const CLIENTS: [usize; 4] = [64, 256, 1_000, 5_000];

/// How often each run is made; the medians are shown.
const REPEATS: usize = 3;

struct Candidate {
    name: &'static str,
    child: Child,
    address: SocketAddr,
}

/// The figures of one run, in the order of the table's columns.
#[derive(Debug, Clone, Copy)]
struct Run {
    requests_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us_per_request: f64,
    resident_mib: f64,
    scrape_ms: f64,
}

impl Run {
    fn figures(&self) -> [f64; 6] {
        [
            self.requests_per_second,
            self.p50_ms,
            self.p99_ms,
            self.cpu_us_per_request,
            self.resident_mib,
            self.scrape_ms,
        ]
    }
}

impl Candidate {
    fn start(name: &'static str, delay_max: &str) -> Candidate {
        let mut command;
        if name == "httpserver" {
            command = Command::new(env!("CARGO_BIN_EXE_httpserver"));
            command.args([
                "--listen",
                "127.0.0.1:0",
                "--delay-max",
                delay_max,
                "--access-log",
                "false",
            ]);
        } else {
            command = Command::new(std::env::current_exe().unwrap());
            let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            command.args(["--plain-pool", &free.to_string(), delay_max]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split(" listening on ").nth(1)?.split(',').next()?.parse().ok())
            .expect("a start line");
        thread::spawn(move || lines.for_each(drop));
        Candidate { name, child, address }
    }

    fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        Duration::from_millis((fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10)
    }

    fn resident_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }

    /// What a fresh client waits for `/metrics`; infinite if longer than 2 s.
    fn scrape_ms(&self) -> f64 {
        let start = Instant::now();
        let asked = || -> std::io::Result<()> {
            let mut stream = TcpStream::connect(self.address)?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
            stream.read_exact(&mut [0; 12])
        };
        asked().map_or(f64::INFINITY, |()| start.elapsed().as_secs_f64() * 1e3)
    }

    fn run(&self, clients: usize, lasts_s: u64) -> Run {
        let cpu = self.cpu();
        let mut wrk = Command::new("wrk")
            .args(["-t2", "--latency", "--timeout", "10s"])
            .args([
                &format!("-c{clients}"),
                &format!("-d{lasts_s}s"),
                &format!("http://{}/", self.address),
            ])
            .stdout(Stdio::piped())
            .spawn()
            .expect("wrk is installed");
        let mut scrapes = Vec::new();
        thread::sleep(Duration::from_secs(lasts_s / 2));
        for _ in 0..9 {
            scrapes.push(self.scrape_ms());
            if wrk.try_wait().unwrap().is_some() {
                break;
            }
        }
        let resident_mib = self.resident_mib();
        let mut output = String::new();
        wrk.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        wrk.wait().unwrap();
        let field = |name: &str| -> Option<&str> {
            let line = output.lines().find(|line| line.trim_start().starts_with(name))?;
            line.split_whitespace().nth(1)
        };
        let requests: f64 = output
            .lines()
            .find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok())
            .unwrap_or(0.0);
        Run {
            requests_per_second: field("Requests/sec:").map_or(0.0, |rate| rate.parse().unwrap()),
            p50_ms: field("50%").map_or(f64::INFINITY, millis),
            p99_ms: field("99%").map_or(f64::INFINITY, millis),
            cpu_us_per_request: (self.cpu() - cpu).as_secs_f64() * 1e6 / requests.max(1.0),
            resident_mib,
            scrape_ms: median(&mut scrapes),
        }
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A latency as wrk writes it.
fn millis(text: &str) -> f64 {
    let unit_at = text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len());
    let number: f64 = text[..unit_at].parse().unwrap();
    match &text[unit_at..] {
        "us" => number / 1e3,
        "s" => number * 1e3,
        "m" => number * 6e4,
        _ => number,
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--plain-pool") {
        let delay_max = if arguments[at + 2] == "0s" {
            Duration::ZERO
        } else {
            Duration::from_secs(2)
        };
        return plain_pool::run(&arguments[at + 1], delay_max);
    }
    println!("| delay | clients | | requests/s | p50, ms | p99, ms | CPU a request, µs | resident, MiB | scrape, ms |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for (delay, delay_max, lasts_s) in [("0 to 2 s", "2s", 8), ("none", "0s", 4)] {
        for clients in CLIENTS {
            let mut runs = [Vec::new(), Vec::new()];
            for _ in 0..REPEATS {
                for (name, runs) in ["httpserver", "plain pool"].into_iter().zip(&mut runs) {
                    // Fresh each time: what a burst did to a pool stays with it.
                    let candidate = Candidate::start(name, delay_max);
                    runs.push(candidate.run(clients, lasts_s));
                    assert_eq!(candidate.name, name);
                }
            }
            let medians = runs.map(|runs| {
                std::array::from_fn(|column| {
                    median(&mut runs.iter().map(|run| run.figures()[column]).collect::<Vec<_>>())
                })
            });
            print_rows(delay, clients, medians);
        }
    }
}

fn print_rows(delay: &str, clients: usize, [ours, plain]: [[f64; 6]; 2]) {
    let ratios: [f64; 6] = std::array::from_fn(|column| ours[column] / plain[column]);
    for (name, figures, digits) in [
        ("httpserver", ours, 1),
        ("plain pool", plain, 1),
        ("**ratio**", ratios, 2),
    ] {
        let column = |figure: &f64| match figure {
            figure if figure.is_infinite() => "over 2,000".to_owned(),
            // A ratio to what did not come.
            figure if *figure == 0.0 && digits == 2 => "-".to_owned(),
            figure => format!("{figure:.digits$}"),
        };
        let columns: Vec<String> = figures.iter().map(column).collect();
        println!("| {delay} | {clients} | {name} | {} |", columns.join(" | "));
    }
}
