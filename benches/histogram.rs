//! Measures recording and rendering beside other crates, and prints a table of the ratios at the end.
//!
//! `cargo bench --bench histogram`
//!
//! One benchmark iteration records [`BATCH`] durations, so that the loop and the clock around it do not count. In
//! `record` the series is known before the clock starts: peers have a handle to it, and our labels do not change. Each
//! of two threads has a handle (or a recorder) of its own for the same series, and the time of the slower one counts.

#[path = "peers/classic_only.rs"]
mod classic_only;
#[path = "peers/mod.rs"]
mod peers;

use classic_only::ClassicOnly;
use criterion::{BatchSize, Criterion, SamplingMode};
use httpserver::metrics::{Format, Labels, Method, Path, Status, TraceContext};
use peers::{MetricsExporter, Ours, PrometheusClient, RustPrometheus, durations_ns, label_sets};
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Observations in one iteration.
const BATCH: usize = 16_384;

/// The series that observations go to.
const ROOT_OK: Labels = Labels {
    method: Method::Get,
    path: Path::Root,
    status: Status::OK,
};

/// The number of series in the rendered exposition.
const SERIES: usize = 20;

/// Runs `iterations` of the work that `make` returns on each of `threads` threads at once. Returns the time of the
/// slowest.
fn on_threads<W: FnMut()>(threads: usize, iterations: u64, make: impl Fn() -> W + Sync) -> Duration {
    let barrier = Barrier::new(threads);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut work = make();
                    barrier.wait();
                    let start = Instant::now();
                    for _ in 0..iterations {
                        work();
                    }
                    start.elapsed()
                })
            })
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .max()
            .unwrap_or_default()
    })
}

fn record(criterion: &mut Criterion) {
    let durations_ns = durations_ns(BATCH);
    let durations: Vec<f64> = durations_ns.iter().map(|&ns| ns as f64 / 1e9).collect();
    for threads in [1, 2] {
        let mut group = criterion.benchmark_group(format!("record_{threads}"));
        // Flat, so that each sample is long enough for the threads to contend.
        group.sampling_mode(SamplingMode::Flat);
        group.bench_function("httpserver", |bencher| {
            let ours = Ours::new();
            bencher.iter_custom(|iterations| {
                on_threads(threads, iterations, || {
                    let (mut recorder, labels, now) = (ours.recorder(), black_box(ROOT_OK), Instant::now());
                    let durations_ns = &durations_ns;
                    move || {
                        durations_ns
                            .iter()
                            .for_each(|&duration_ns| recorder.record(labels, duration_ns, None, black_box(now)))
                    }
                })
            });
        });
        group.bench_function("classic_only", |bencher| {
            bencher.iter_custom(|iterations| {
                on_threads(threads, iterations, || {
                    let (mut recorder, series) = (ClassicOnly::new(), black_box(0));
                    let durations_ns = &durations_ns;
                    move || {
                        durations_ns
                            .iter()
                            .for_each(|&duration_ns| recorder.record(series, duration_ns, None))
                    }
                })
            });
        });
        group.bench_function("prometheus", |bencher| {
            let peer = RustPrometheus::new();
            bencher.iter_custom(|iterations| {
                on_threads(threads, iterations, || {
                    let series = peer.series(ROOT_OK);
                    let durations = &durations;
                    move || durations.iter().for_each(|&duration| series.observe(duration))
                })
            });
        });
        group.bench_function("prometheus-client", |bencher| {
            let peer = PrometheusClient::new();
            bencher.iter_custom(|iterations| {
                on_threads(threads, iterations, || {
                    let series = peer.series(ROOT_OK);
                    let durations = &durations;
                    move || durations.iter().for_each(|&duration| series.observe(duration))
                })
            });
        });
        group.bench_function("metrics-exporter-prometheus", |bencher| {
            let peer = MetricsExporter::new();
            bencher.iter_custom(|iterations| {
                // It keeps every value until its upkeep, which another thread would do and which is not timed. With
                // more iterations between two upkeeps, memory would dominate the time.
                const ITERATIONS_MAX: u64 = 64;
                let (mut left, mut total) = (iterations, Duration::ZERO);
                while left > 0 {
                    let now = left.min(ITERATIONS_MAX);
                    total += on_threads(threads, now, || {
                        let series = peer.series(ROOT_OK);
                        let durations = &durations;
                        move || durations.iter().for_each(|&duration| series.record(duration))
                    });
                    peer.handle.run_upkeep();
                    left -= now;
                }
                total
            });
        });
        group.finish();
    }
}

/// The same, but each observation looks up the series by its labels, as a server has to do if requests differ. The last
/// peer allocates a key for that.
fn record_by_labels(criterion: &mut Criterion) {
    let durations_ns = durations_ns(BATCH);
    let mut group = criterion.benchmark_group("record_by_labels");
    group.bench_function("httpserver", |bencher| {
        let (mut recorder, now) = (Ours::new().recorder(), Instant::now());
        bencher.iter(|| {
            for &duration_ns in &durations_ns {
                recorder.record(black_box(ROOT_OK), duration_ns, None, black_box(now));
            }
        });
    });
    group.bench_function("prometheus", |bencher| {
        let peer = RustPrometheus::new();
        bencher.iter(|| {
            for &duration_ns in &durations_ns {
                peer.series(black_box(ROOT_OK)).observe(duration_ns as f64 / 1e9);
            }
        });
    });
    group.bench_function("prometheus-client", |bencher| {
        let peer = PrometheusClient::new();
        bencher.iter(|| {
            for &duration_ns in &durations_ns {
                peer.series(black_box(ROOT_OK)).observe(duration_ns as f64 / 1e9);
            }
        });
    });
    group.bench_function("metrics-exporter-prometheus", |bencher| {
        let peer = MetricsExporter::new();
        bencher.iter_batched(
            || peer.handle.run_upkeep(),
            |()| {
                for &duration_ns in &durations_ns {
                    peer.series(black_box(ROOT_OK)).record(duration_ns as f64 / 1e9);
                }
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// The cost of an exemplar written on every observation, as happens if every request has a sampled trace.
fn record_traced(criterion: &mut Criterion) {
    let durations_ns = durations_ns(BATCH);
    let trace = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let ours = Ours::new();
    let (mut recorder, now) = (ours.recorder(), Instant::now());
    criterion.bench_function("record_traced/httpserver", |bencher| {
        bencher.iter(|| {
            for &duration_ns in &durations_ns {
                recorder.record(black_box(ROOT_OK), duration_ns, trace, black_box(now));
            }
        });
    });
}

fn render(criterion: &mut Criterion) {
    let (series, durations_ns) = (label_sets(SERIES), durations_ns(1_000));
    let mut group = criterion.benchmark_group("render");
    group.bench_function("httpserver", |bencher| {
        let ours = Ours::new();
        ours.fill(&series, &durations_ns);
        let mut out = Vec::new();
        bencher.iter(|| {
            out.clear();
            // Unlike the peers, with the other families, process_* and its system calls included.
            ours.metrics.render(Format::Text004, 0, &mut out);
            black_box(out.len())
        });
    });
    group.bench_function("prometheus", |bencher| {
        let peer = RustPrometheus::new();
        peer.fill(&series, &durations_ns);
        let mut out = Vec::new();
        bencher.iter(|| {
            out.clear();
            peer.render(&mut out);
            black_box(out.len())
        });
    });
    group.bench_function("prometheus-client", |bencher| {
        let peer = PrometheusClient::new();
        peer.fill(&series, &durations_ns);
        let mut out = String::new();
        bencher.iter(|| {
            out.clear();
            peer.render(&mut out);
            black_box(out.len())
        });
    });
    group.bench_function("metrics-exporter-prometheus", |bencher| {
        let peer = MetricsExporter::new();
        peer.fill(&series, &durations_ns);
        bencher.iter(|| black_box(peer.render().len()));
    });
    group.finish();
}

/// The whole exposition in every format, `process_*` and its system calls included, and the additional cost of gzip.
fn whole_exposition(criterion: &mut Criterion) {
    let ours = Ours::new();
    ours.fill(&label_sets(SERIES), &durations_ns(1_000));
    let mut out = Vec::new();
    for format in Format::ALL {
        criterion.bench_function(&format!("whole_exposition/{format:?}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                ours.metrics.render(format, 0, &mut out);
                black_box(out.len())
            });
        });
    }
    let gzip = |text: &[u8]| {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).expect("a Vec takes all");
        encoder.finish().expect("a Vec takes all")
    };
    criterion.bench_function("whole_exposition/text_gzip_alone", |bencher| {
        bencher.iter(|| black_box(gzip(&out).len()));
    });
}

/// Returns the time of an iteration in each sample of a benchmark, of this run or an earlier one, in nanoseconds and
/// ascending order.
fn samples_ns(group: &str, name: &str) -> Option<Vec<f64>> {
    // Cargo runs a bench in the folder of its package.
    let of_workspace = || concat!(env!("CARGO_MANIFEST_DIR"), "/../target").into();
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(of_workspace);
    let path = std::path::Path::new(&target)
        .join("criterion")
        .join(group)
        .join(name)
        .join("new/sample.json");
    let sample: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
    let (times, iterations) = (sample["times"].as_array()?, sample["iters"].as_array()?);
    let each = times
        .iter()
        .zip(iterations)
        .map(|(time, count)| Some(time.as_f64()? / count.as_f64()?));
    let mut each = each.collect::<Option<Vec<_>>>()?;
    each.sort_by(f64::total_cmp);
    Some(each)
}

/// For one thread: other work on the machine only adds to a time, so the fastest sample is the one to compare.
fn fastest_ns(group: &str, name: &str) -> Option<f64> {
    samples_ns(group, name)?.first().copied()
}

/// For two threads: the fastest sample would be the one with the least contention.
fn median_ns(group: &str, name: &str) -> Option<f64> {
    let samples = samples_ns(group, name)?;
    samples.get(samples.len() / 2).copied()
}

/// Prints the table. Ratios are to the fastest peer, so they are below 1 if this crate is faster.
fn table() -> Option<()> {
    const PEERS: [&str; 3] = ["prometheus", "prometheus-client", "metrics-exporter-prometheus"];
    type Row = (&'static str, &'static str, fn(&str, &str) -> Option<f64>, f64);
    let rows: [Row; 4] = [
        ("record, one thread, ns", "record_1", fastest_ns, BATCH as f64),
        ("record, two threads, ns each", "record_2", median_ns, BATCH as f64),
        ("record by labels, ns", "record_by_labels", fastest_ns, BATCH as f64),
        ("render 20 series, µs", "render", fastest_ns, 1_000.0),
    ];
    println!("\n| | to the fastest peer | httpserver | {} |", PEERS.join(" | "));
    println!("| --- | --- | --- | --- | --- | --- |");
    for (title, group, time_ns, per) in rows {
        let ours = time_ns(group, "httpserver")? / per;
        let peers = PEERS
            .iter()
            .map(|name| Some(time_ns(group, name)? / per))
            .collect::<Option<Vec<_>>>()?;
        let fastest = peers.iter().copied().fold(f64::INFINITY, f64::min);
        let peers: Vec<_> = peers.iter().map(|value| format!("{value:.1}")).collect();
        println!(
            "| {title} | **{:.2}** | {ours:.1} | {} |",
            ours / fastest,
            peers.join(" | ")
        );
    }
    let (alone, each_of_two) = (
        fastest_ns("record_1", "httpserver")?,
        fastest_ns("record_2", "httpserver")?,
    );
    let classic_only = fastest_ns("record_1", "classic_only")?;
    println!(
        "\nWith native buckets {:.1} ns, with classic ones alone {:.1} ns: {:.2}",
        alone / BATCH as f64,
        classic_only / BATCH as f64,
        alone / classic_only
    );
    println!(
        "\nEach of two threads compared with one alone: {:.2}",
        each_of_two / alone
    );
    Some(())
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .sample_size(100)
        .without_plots()
        .configure_from_args();
    record(&mut criterion);
    record_by_labels(&mut criterion);
    record_traced(&mut criterion);
    render(&mut criterion);
    whole_exposition(&mut criterion);
    criterion.final_summary();
    if table().is_none() {
        println!("no table: not every benchmark has been run yet");
    }
}
