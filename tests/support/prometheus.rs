//! A real Prometheus, Debian's, on a free port with a data folder of its own.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::client::Client;
use super::wait_for;

/// A running Prometheus. It is killed, and its data removed, when it is dropped.
pub struct Prometheus {
    child: Child,
    pub address: SocketAddr,
    folder: PathBuf,
}

impl Prometheus {
    /// Starts it on a configuration (YAML), with further flags, and waits until it is ready.
    pub fn start(config: &str, flags: &[&str]) -> Prometheus {
        let address = free_address();
        let folder = std::env::temp_dir().join(format!("httpserver-prometheus-{}", address.port()));
        fs::create_dir_all(&folder).unwrap();
        let config_file = folder.join("prometheus.yml");
        fs::write(&config_file, config).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config_file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus is installed");
        let prometheus = Prometheus { child, address, folder };
        wait_for("Prometheus to be ready", Duration::from_secs(30), || {
            let stream = std::net::TcpStream::connect(address).ok()?;
            drop(stream);
            (Client::connect(address).get("/-/ready").status == 200).then_some(())
        });
        prometheus
    }

    /// Starts it on one job, `httpserver`, that scrapes `targets` every second.
    pub fn scraping(targets: &[SocketAddr]) -> Prometheus {
        Prometheus::start(&scrape_config(targets), &[])
    }

    /// Returns its data folder. Its log is in `log`.
    pub fn folder(&self) -> &Path {
        &self.folder
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

    /// Requests any GET of its API. Panics if that reports an error.
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

/// Returns an address that was free just now.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
}

/// Percent-encodes for a query.
pub fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
