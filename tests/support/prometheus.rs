//! A real Prometheus, on a free port with its own data folder, and promtool.
//!
//! `tests/tools/prometheus` finds or builds both.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::client::Client;
use crate::{root, wait_for};

/// A major version of Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Major {
    /// Debian's version. The loki-stack chart runs 2.41, so the rules and the dashboard must work with it.
    Two,
    /// The version in the manifests. Tests use it unless they say otherwise.
    Three,
}

impl Major {
    pub const BOTH: [Major; 2] = [Major::Two, Major::Three];

    /// Returns a command for `prometheus`, without flags.
    pub fn prometheus(self) -> Command {
        Command::new(self.folder().join("prometheus"))
    }

    /// Returns a command for `promtool`, without arguments.
    pub fn promtool(self) -> Command {
        Command::new(self.folder().join("promtool"))
    }

    /// Returns the folder of both programs. The first call may build them, which takes minutes.
    fn folder(self) -> &'static Path {
        static FOLDERS: [OnceLock<PathBuf>; 2] = [OnceLock::new(), OnceLock::new()];
        let (folder, number) = match self {
            Major::Two => (&FOLDERS[0], "2"),
            Major::Three => (&FOLDERS[1], "3"),
        };
        folder.get_or_init(|| {
            let output = Command::new(root().join("tests/tools/prometheus"))
                .arg(number)
                .output()
                .expect("tests/tools/prometheus starts");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "tests/tools/prometheus {number}:\n{errors}");
            PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
        })
    }
}

/// A running Prometheus. Dropping it kills it and removes its data.
pub struct Prometheus {
    child: Child,
    pub address: SocketAddr,
    folder: PathBuf,
}

impl Prometheus {
    /// Starts Prometheus 3 with a configuration in YAML and further flags, and waits until it is ready.
    pub fn start(config: &str, flags: &[&str]) -> Prometheus {
        Prometheus::start_major(Major::Three, config, flags)
    }

    /// Starts a major version of Prometheus, as `start` does.
    pub fn start_major(major: Major, config: &str, flags: &[&str]) -> Prometheus {
        Prometheus::start_in(new_folder(), major, config, flags)
    }

    /// Starts a major version of Prometheus that has past samples, given in OpenMetrics with timestamps, and scrapes
    /// nothing.
    pub fn start_on_samples(major: Major, samples: &str) -> Prometheus {
        let folder = new_folder();
        let file = folder.join("samples");
        fs::write(&file, samples).unwrap();
        let output = major
            .promtool()
            .args(["tsdb", "create-blocks-from", "openmetrics"])
            .args([file, folder.join("data")])
            .output()
            .expect("promtool starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        Prometheus::start_in(folder, major, "global: {}", &[])
    }

    fn start_in(folder: PathBuf, major: Major, config: &str, flags: &[&str]) -> Prometheus {
        let address = free_address();
        let config_file = folder.join("prometheus.yml");
        fs::write(&config_file, config).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let child = major
            .prometheus()
            .arg(format!("--config.file={}", config_file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Prometheus starts");
        let prometheus = Prometheus { child, address, folder };
        wait_for(
            "Prometheus to be ready",
            || {
                TcpStream::connect(address).ok()?;
                Some(Client::connect(address).get("/-/ready").status)
            },
            |status| *status == Some(200),
        );
        prometheus
    }

    /// Starts Prometheus 3 with one job, `httpserver`, that scrapes `targets` every second.
    pub fn scraping(targets: &[SocketAddr]) -> Prometheus {
        Prometheus::start(&scrape_config(targets), &[])
    }

    /// Runs an instant query and returns `data.result`.
    pub fn query(&self, promql: &str) -> Vec<Value> {
        let answer = self.api(&format!("/api/v1/query?query={}", percent_encoded(promql)));
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }

    /// Returns the value of an instant query whose result is one series.
    pub fn value(&self, promql: &str) -> Option<f64> {
        let result = self.query(promql);
        assert!(result.len() <= 1, "{promql} has {} series", result.len());
        result.first()?["value"][1].as_str()?.parse().ok()
    }

    /// Sends a GET request to the API. Panics if the API reports an error.
    pub fn api(&self, target: &str) -> Value {
        let response = Client::connect(self.address).get(target);
        let answer: Value = serde_json::from_slice(&response.body).expect("JSON");
        assert_eq!(answer["status"], "success", "{target}: {answer}");
        answer
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Returns a configuration with one job, `httpserver`, that scrapes `targets` every second.
pub fn scrape_config(targets: &[SocketAddr]) -> String {
    let targets: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
    format!(
        "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\nscrape_configs:\n- job_name: httpserver\n  static_configs:\n  - targets: [{}]\n",
        targets.join(", ")
    )
}

/// Creates a folder for one Prometheus.
fn new_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("httpserver-prometheus-{}-{number}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Returns an address that was free a moment ago. Below the ephemeral ports, so that no client gets it meanwhile.
pub fn free_address() -> SocketAddr {
    loop {
        let address = SocketAddr::from(([127, 0, 0, 1], fastrand::u16(20_000..32_768)));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Percent-encodes a text for a query.
pub fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
