//! The Deployment, run by podman in place of a cluster and in its own network, is probed, scraped and drained.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use super::container;
use super::network::Network;
use super::podman::{Podman, stdout};
use support::manifest;
use support::prometheus::{Major, percent_encoded};
use support::wait_for;

/// The Deployment's pod, run by `podman kube play`. Dropping it removes it.
struct Pod<'a> {
    network: &'a Network,
    podman: &'static Podman,
    file: PathBuf,
}

impl<'a> Pod<'a> {
    /// Runs the Deployment as one pod, since it does not set a number of replicas.
    fn play(network: &'a Network, podman: &'static Podman) -> Self {
        let file = manifest::folder().join("deployment.yaml");
        let pod = Self { network, podman, file };
        pod.down();
        stdout(network.inside("podman", podman).args(["kube", "play"]).arg(&pod.file));
        pod
    }

    fn down(&self) {
        let _ = self
            .network
            .inside("podman", self.podman)
            .args(["kube", "down"])
            .arg(&self.file)
            .output();
    }

    /// Sends a GET request to the pod from its own network. Returns the status code and the body.
    fn get(&self, target: &str) -> Option<(String, String)> {
        let answer = self
            .network
            .inside("curl", self.podman)
            .args(["--silent", "--max-time", "10", "--write-out", "\n%{http_code}"])
            .arg(format!("http://127.0.0.1:19004{target}"))
            .output()
            .unwrap();
        let answer = String::from_utf8(answer.stdout).unwrap();
        let (body, status) = answer.rsplit_once('\n')?;
        Some((status.to_owned(), body.to_owned()))
    }

    fn inspect(&self) -> Value {
        let text = self.podman.run(&["inspect", "httpserver-pod-0-httpserver"]);
        let mut list: Vec<Value> = serde_json::from_str(&text).unwrap();
        list.remove(0)
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        self.down();
    }
}

/// Prometheus beside the pod, with the scrape configuration of the manifests.
struct Prometheus<'a> {
    child: Child,
    folder: PathBuf,
    network: &'a Network,
    podman: &'static Podman,
}

impl<'a> Prometheus<'a> {
    fn start(network: &'a Network, podman: &'static Podman, discovered: &Value) -> Self {
        let folder = std::env::temp_dir().join(format!("httpserver-pod-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let targets = folder.join("discovered.json");
        fs::write(&targets, discovered.to_string()).unwrap();
        let config = manifest::scrape_config(&targets).replace("scrape_interval: 15s", "scrape_interval: 1s");
        let config = config.replace("scrape_timeout: 10s", "scrape_timeout: 1s");
        fs::write(folder.join("prometheus.yml"), config).unwrap();
        let child = network
            .inside(Major::Three.prometheus().get_program(), podman)
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg("--web.listen-address=127.0.0.1:9090")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .unwrap();
        Self {
            child,
            folder,
            network,
            podman,
        }
    }

    /// Returns the first series in the result of a query, if there is one.
    fn query(&self, promql: &str) -> Option<Value> {
        let url = format!("http://127.0.0.1:9090/api/v1/query?query={}", percent_encoded(promql));
        let output = self
            .network
            .inside("curl", self.podman)
            .args(["--silent", "--max-time", "10", &url])
            .output()
            .unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
        answer["data"]["result"].as_array()?.first().cloned()
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn the_deployment_is_probed_and_scraped_as_its_manifest_says_and_exits_within_its_grace_period() {
    const REQUESTS: usize = 20;
    let podman = Podman::with_image();
    let network = Network::new("pod");
    let pod = Pod::play(&network, podman);
    let template = &manifest::object("deployment.yaml", "Deployment")["spec"]["template"];
    let container = &template["spec"]["containers"][0];

    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let request = &container[probe]["httpGet"];
        assert_eq!(request["port"], container["ports"][0]["name"]);
        let path = request["path"].as_str().unwrap();
        wait_for(
            probe,
            || pod.get(path),
            |answer| answer.as_ref().is_some_and(|(status, _)| status == "200"),
        );
    }

    let inspected = pod.inspect();
    let pid = u32::try_from(inspected["State"]["Pid"].as_u64().unwrap()).unwrap();
    assert_eq!(container::status(pid, "Uid").split_whitespace().next(), Some("65532"));
    assert_eq!(container::status(pid, "CapBnd"), "0000000000000000");
    assert_eq!(container::status(pid, "NoNewPrivs"), "1");
    assert_eq!(inspected["HostConfig"]["ReadonlyRootfs"], true);
    assert_eq!(container["resources"]["limits"]["memory"], "512Mi");
    assert_eq!(inspected["HostConfig"]["Memory"], 512 << 20);

    for _ in 0..REQUESTS {
        assert_eq!(pod.get("/?delay=1ms").unwrap().0, "200");
    }
    let discovered = json!([{
        "targets": ["127.0.0.1:19004"],
        "labels": manifest::discovered_labels(template, "httpserver-0", "127.0.0.1", 19004),
    }]);
    let prometheus = Prometheus::start(&network, podman, &discovered);
    let counted = r#"http_request_duration_seconds_count{method="GET",path="/",status="200"}"#;
    let series = wait_for("a scrape", || prometheus.query(counted), Option::is_some).expect("a series");
    assert_eq!(series["value"][1], REQUESTS.to_string());
    for (label, value) in [
        ("job", "kubernetes-pods"),
        ("instance", "127.0.0.1:19004"),
        ("namespace", "default"),
        ("pod", "httpserver-0"),
        ("node", "node-1"),
        ("app", "httpserver"),
    ] {
        assert_eq!(series["metric"][label], value, "{label}");
    }
    assert_eq!(prometheus.query("up").unwrap()["value"][1], "1");

    let grace_s = template["spec"]["terminationGracePeriodSeconds"].to_string();
    podman.run(&["stop", "--time", &grace_s, "httpserver-pod-0-httpserver"]);
    assert_eq!(pod.inspect()["State"]["ExitCode"], 0);
}
