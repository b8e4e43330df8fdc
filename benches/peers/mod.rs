//! The same histogram in this crate and in three others: `http_request_duration_seconds{method,path,status}` with the
//! twelve default bounds.

use httpserver::metrics::{Bounds, Config, Labels, Method, Metrics, Path, Recorder, Status};
use metrics::Recorder as _;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use prometheus::Encoder as _;
use prometheus_client::encoding::EncodeLabelSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const NAME: &str = "http_request_duration_seconds";
pub const HELP: &str = "A histogram of the HTTP request durations in seconds.";

/// Returns the label sets of `series` series.
pub fn label_sets(series: usize) -> Vec<Labels> {
    Status::ALL
        .into_iter()
        .flat_map(|status| {
            Path::ALL.map(|path| Labels {
                method: Method::Get,
                path,
                status,
            })
        })
        .take(series)
        .collect()
}

/// Returns the bounds in seconds, as the peers take them.
pub fn bounds() -> Vec<f64> {
    Bounds::default().upper_ns().iter().map(|&ns| ns as f64 / 1e9).collect()
}

/// Returns durations between 0 and 2 s, uniformly distributed and the same in every run. With a large `count`, no
/// branch predictor can learn them.
pub fn durations_ns(count: usize) -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(19_004);
    (0..count).map(|_| random.u64(0..2_000_000_000)).collect()
}

pub struct Ours {
    pub metrics: Arc<Metrics>,
}

impl Ours {
    pub fn new() -> Ours {
        Ours {
            metrics: Arc::new(Metrics::new(Config {
                bounds: Bounds::default(),
                concurrency: 0,
                max_in_flight: 10_000,
                delay_quantiles: [Duration::from_secs(1); 3],
            })),
        }
    }

    pub fn recorder(&self) -> Recorder {
        self.metrics.recorder()
    }

    pub fn fill(&self, series: &[Labels], durations_ns: &[u64]) {
        let (mut recorder, now) = (self.recorder(), Instant::now());
        for &labels in series {
            for &duration_ns in durations_ns {
                recorder.record(labels, duration_ns, None, now);
            }
        }
    }
}

/// `prometheus`
pub struct RustPrometheus {
    registry: prometheus::Registry,
    family: prometheus::HistogramVec,
}

impl RustPrometheus {
    pub fn new() -> RustPrometheus {
        let options = prometheus::HistogramOpts::new(NAME, HELP).buckets(bounds());
        let family = prometheus::HistogramVec::new(options, &["method", "path", "status"]).expect("valid options");
        let registry = prometheus::Registry::new();
        registry.register(Box::new(family.clone())).expect("the only family");
        RustPrometheus { registry, family }
    }

    pub fn series(&self, labels: Labels) -> prometheus::Histogram {
        self.family
            .with_label_values(&[labels.method.as_str(), labels.path.as_str(), labels.status.as_str()])
    }

    pub fn fill(&self, series: &[Labels], durations_ns: &[u64]) {
        for &labels in series {
            let histogram = self.series(labels);
            for &duration_ns in durations_ns {
                histogram.observe(duration_ns as f64 / 1e9);
            }
        }
    }

    pub fn render(&self, out: &mut Vec<u8>) {
        prometheus::TextEncoder::new()
            .encode(&self.registry.gather(), out)
            .expect("a Vec takes all");
    }
}

#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
struct ClientLabels {
    method: &'static str,
    path: &'static str,
    status: &'static str,
}

type ClientFamily = prometheus_client::metrics::family::Family<
    ClientLabels,
    prometheus_client::metrics::histogram::Histogram,
    fn() -> prometheus_client::metrics::histogram::Histogram,
>;

/// `prometheus-client`
pub struct PrometheusClient {
    registry: prometheus_client::registry::Registry,
    family: ClientFamily,
}

impl PrometheusClient {
    pub fn new() -> PrometheusClient {
        let family =
            ClientFamily::new_with_constructor(|| prometheus_client::metrics::histogram::Histogram::new(bounds()));
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register(NAME, HELP, family.clone());
        PrometheusClient { registry, family }
    }

    pub fn series(&self, labels: Labels) -> prometheus_client::metrics::histogram::Histogram {
        self.family.get_or_create_owned(&ClientLabels {
            method: labels.method.as_str(),
            path: labels.path.as_str(),
            status: labels.status.as_str(),
        })
    }

    pub fn fill(&self, series: &[Labels], durations_ns: &[u64]) {
        for &labels in series {
            let histogram = self.series(labels);
            for &duration_ns in durations_ns {
                histogram.observe(duration_ns as f64 / 1e9);
            }
        }
    }

    pub fn render(&self, out: &mut String) {
        prometheus_client::encoding::text::encode(out, &self.registry).expect("a String takes all");
    }
}

/// `metrics-exporter-prometheus`
pub struct MetricsExporter {
    recorder: PrometheusRecorder,
    pub handle: PrometheusHandle,
}

impl MetricsExporter {
    pub fn new() -> MetricsExporter {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&bounds())
            .expect("bounds were given")
            .build_recorder();
        recorder.describe_histogram(NAME.into(), None, HELP.into());
        let handle = recorder.handle();
        MetricsExporter { recorder, handle }
    }

    pub fn series(&self, labels: Labels) -> metrics::Histogram {
        const METADATA: metrics::Metadata<'static> =
            metrics::Metadata::new(module_path!(), metrics::Level::INFO, Some(module_path!()));
        let labels = vec![
            metrics::Label::new("method", labels.method.as_str()),
            metrics::Label::new("path", labels.path.as_str()),
            metrics::Label::new("status", labels.status.as_str()),
        ];
        self.recorder
            .register_histogram(&metrics::Key::from_parts(NAME, labels), &METADATA)
    }

    pub fn fill(&self, series: &[Labels], durations_ns: &[u64]) {
        for &labels in series {
            let histogram = self.series(labels);
            for &duration_ns in durations_ns {
                histogram.record(duration_ns as f64 / 1e9);
            }
        }
        self.handle.run_upkeep();
    }

    /// It cannot write into an existing buffer.
    pub fn render(&self) -> String {
        self.handle.render()
    }
}
