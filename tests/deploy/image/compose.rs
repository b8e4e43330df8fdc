//! compose.yaml is valid, has the same versions as the manifests, and runs with podman-compose. Grafana does not run,
//! since its image cannot be made here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::ANSWERED;
use super::network::Network;
use super::podman::{IMAGE, Podman, stdout};
use support::manifest;
use support::prometheus::{Major, percent_encoded};
use support::server::{run, value_of};
use support::{root, wait_for};

/// The Go module that contains the schema of the Compose specification.
const COMPOSE_GO: &str = "github.com/compose-spec/compose-go/v2@v2.16.2";
/// The clients of the load, each of which has one request in flight at a time. With a mean delay of 1 s, they send as many
/// requests a second.
const CLIENTS: f64 = 20.0;

/// The services that run the server. The second is in a profile.
const SERVERS: [&str; 2] = ["httpserver", "httpserver-2"];

/// A variable that the test sets, and its value, which is not the default. All others are unset.
const VARIABLE: (&str, &str) = ("HTTPSERVER_MAX_IN_FLIGHT", "9999");

/// Set for the container: its port is the one that Compose publishes and Prometheus scrapes.
const NOT_PASSED: &str = "HTTPSERVER_LISTEN";

fn folder() -> PathBuf {
    manifest::folder().join("compose")
}

fn services() -> Value {
    manifest::documents("compose/compose.yaml").remove(0)["services"].take()
}

fn tool(name: &str) -> PathBuf {
    root().join(".tools/venv/bin").join(name)
}

#[test]
fn compose_yaml_is_valid_according_to_the_compose_specification() {
    let go = stdout(&mut Command::new(root().join("tests/tools/go")));
    let module = stdout(
        Command::new(go.trim())
            .args(["mod", "download", "-json", COMPOSE_GO])
            .current_dir(env!("CARGO_TARGET_TMPDIR")),
    );
    let module: Value = serde_json::from_str(&module).unwrap();
    let schema = Path::new(module["Dir"].as_str().unwrap()).join("schema/compose-spec.json");
    let instance = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compose.json");
    fs::write(&instance, manifest::documents("compose/compose.yaml")[0].to_string()).unwrap();
    stdout(
        Command::new(tool("jsonschema"))
            .arg("--instance")
            .args([instance, schema]),
    );
}

#[test]
fn compose_runs_the_images_of_the_manifests_on_ports_of_localhost_only() {
    let services = services();
    for server in SERVERS {
        assert_eq!(services[server]["image"], IMAGE, "{server}");
    }
    for (service, file, kind) in [
        ("prometheus", "monitoring/prometheus/deployment.yaml", "Deployment"),
        ("grafana", "monitoring/grafana/deployment.yaml", "Deployment"),
        ("load", "monitoring/load.yaml", "Job"),
    ] {
        let container = &manifest::object(file, kind)["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(services[service]["image"], container["image"], "{service}");
    }
    for (name, service) in services.as_object().unwrap() {
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}: {port}");
        }
    }
}

#[test]
fn compose_passes_every_variable_of_the_server_through() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    let variables = help
        .split("[env: ")
        .skip(1)
        .map(|rest| rest.split('=').next().unwrap())
        .filter(|variable| *variable != NOT_PASSED);
    let variables: Vec<&str> = variables.collect();
    assert!(!variables.is_empty());
    for server in SERVERS {
        let passed = services()[server]["environment"].take();
        let passed: Vec<&str> = passed
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect();
        assert!(!passed.contains(&NOT_PASSED));
        let missing: Vec<_> = variables.iter().filter(|variable| !passed.contains(variable)).collect();
        assert!(missing.is_empty(), "{server}: {missing:?}");
    }
}

#[test]
fn grafana_finds_its_data_source_the_trace_link_and_the_dashboard_where_compose_mounts_them() {
    let services = services();
    let mounts: Vec<(&str, &str)> = services["grafana"]["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|volume| {
            let mut parts = volume.as_str().unwrap().split(':');
            (parts.next().unwrap(), parts.next().unwrap())
        })
        .collect();
    let mounted_from = |path: &str| {
        let (file, _) = mounts.iter().find(|(_, mounted)| *mounted == path).expect(path);
        fs::canonicalize(folder().join(file)).expect(file)
    };
    let sources = mounted_from("/etc/grafana/provisioning/datasources/datasources.yaml");
    let sources = manifest::parse(&fs::read_to_string(sources).unwrap()).remove(0);
    let source = &sources["datasources"][0];
    assert_eq!(source["url"], "http://prometheus:9090");
    assert_eq!(services["prometheus"]["ports"][0], "127.0.0.1:9090:9090");
    // The rest is the same as in the cluster.
    let in_cluster = manifest::object("monitoring/grafana/configmap.yaml", "ConfigMap");
    let in_cluster = manifest::parse(in_cluster["data"]["datasources.yaml"].as_str().unwrap()).remove(0);
    assert_eq!(source["jsonData"], in_cluster["datasources"][0]["jsonData"]);
    assert_eq!(source["jsonData"]["exemplarTraceIdDestinations"][0]["name"], "trace_id");

    let providers = mounted_from("/etc/grafana/provisioning/dashboards/dashboards.yaml");
    let providers = manifest::parse(&fs::read_to_string(providers).unwrap()).remove(0);
    let path = providers["providers"][0]["options"]["path"].as_str().unwrap();
    let home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].as_str();
    assert_eq!(home, Some(format!("{path}/dashboard.json").as_str()));
    assert_eq!(mounted_from(home.unwrap()), root().join("dashboard.json"));
}

/// The services of compose.yaml that can run here, in their own network. Dropping it removes them.
struct Composed<'a> {
    network: &'a Network,
    podman: &'static Podman,
}

impl<'a> Composed<'a> {
    fn up(network: &'a Network, podman: &'static Podman) -> Self {
        let services = services();
        let image = |service: &str| services[service]["image"].as_str().unwrap().to_owned();
        let prometheus = Major::Three.prometheus();
        for (name, program, user, folder) in [
            (
                image("prometheus"),
                prometheus.get_program().to_str().unwrap(),
                "65534",
                "/prometheus",
            ),
            (image("load"), "/usr/bin/curl", "65532", ""),
        ] {
            let script = root().join("tests/deploy/image/stand_in.sh");
            stdout(podman.configured(script).args([&name, program, user, folder]));
        }
        let composed = Self { network, podman };
        composed.down();
        let flags = format!("--podman-build-args={}", podman.build_flags());
        let up = ["up", "--build", "--detach", "httpserver", "load", "prometheus"];
        stdout(composed.command().arg(flags).args(up));
        composed
    }

    fn down(&self) {
        let _ = self
            .command()
            .args(["--profile", "two", "down", "--volumes", "--timeout", "0"])
            .output();
    }

    fn command(&self) -> Command {
        let mut command = self.network.inside(tool("podman-compose"), self.podman);
        command.arg("--file").arg(folder().join("compose.yaml"));
        command.env(VARIABLE.0, VARIABLE.1);
        command
    }

    /// Returns the body of the response to a GET request if its status is 200.
    fn get(&self, url: &str) -> Option<String> {
        let mut curl = self.network.inside("curl", self.podman);
        let output = curl
            .args(["--silent", "--fail", "--max-time", "10", url])
            .output()
            .unwrap();
        output
            .status
            .success()
            .then(|| String::from_utf8(output.stdout).unwrap())
    }

    fn prometheus(&self, target: &str) -> Option<Value> {
        let answer = self.get(&format!("http://127.0.0.1:9090/api/v1/{target}"))?;
        Some(serde_json::from_str::<Value>(&answer).unwrap()["data"].take())
    }

    fn metric(&self, series: &str) -> Option<f64> {
        value_of(&self.get("http://127.0.0.1:19004/metrics")?, series)
    }
}

impl Drop for Composed<'_> {
    fn drop(&mut self) {
        self.down();
    }
}

#[test]
fn compose_up_starts_the_server_a_load_of_twenty_clients_and_a_prometheus_with_the_rules() {
    let network = Network::new("compose");
    let composed = Composed::up(&network, Podman::with_image());

    let limit = wait_for(
        "the server",
        || composed.metric("httpserver_max_in_flight"),
        Option::is_some,
    );
    assert_eq!(limit.map(|limit| limit.to_string()).as_deref(), Some(VARIABLE.1));
    // The scrape is in flight, too.
    wait_for(
        "all clients of the load to wait",
        || composed.metric("http_requests_in_flight"),
        |in_flight| *in_flight == Some(CLIENTS + 1.0),
    );
    wait_for(
        "answers",
        || composed.metric(ANSWERED),
        |answered| *answered >= Some(CLIENTS),
    );

    let scraped = format!(
        "query?query={}",
        percent_encoded("httpserver_build_info and on (job, instance) up == 1")
    );
    let result = wait_for(
        "a scrape",
        || composed.prometheus(&scraped),
        |result| result.as_ref().is_some_and(|result| result["result"][0].is_object()),
    );
    assert_eq!(result.expect("a result")["result"][0]["metric"]["job"], "httpserver");
    for series in ["http_request_duration_seconds", "http_request_duration_seconds_bucket"] {
        let answer = composed.prometheus(&format!("query?query={series}")).unwrap();
        assert!(!answer["result"].as_array().unwrap().is_empty(), "no {series}");
    }
    let groups = composed.prometheus("rules").unwrap()["groups"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!(
        groups,
        manifest::documents("monitoring/rules.yaml")[0]["groups"]
            .as_array()
            .unwrap()
            .len()
    );

    // The second server, as in a drill.
    let second_is = |up: f64| {
        wait_for(
            &format!("the second server's `up` to be {up}"),
            || {
                let found = composed.prometheus("query?query=up%7Binstance%3D%22httpserver-2%3A19004%22%7D")?;
                found["result"][0]["value"][1].as_str()?.parse().ok()
            },
            |found| *found == Some(up),
        )
    };
    for (arguments, up) in [
        (&["--profile", "two", "up", "--detach", "httpserver-2"][..], 1.0),
        (&["--profile", "two", "stop", "httpserver-2"], 0.0),
        (&["--profile", "two", "start", "httpserver-2"], 1.0),
    ] {
        stdout(composed.command().args(arguments));
        second_is(up);
    }
}
