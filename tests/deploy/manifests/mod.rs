//! The manifests: Kubernetes, kubectl and Prometheus accept them, and they agree with the binary and with each other.

mod autoscaling;
mod platforms;
mod restricted;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use support::manifest::{self, discovered_labels, documents, folder, object, scrape_config};
use support::prometheus::{Major, Prometheus};
use support::server::{Server, run};
use support::wait_for;

/// The versions that the documentation names. The oldest is the first that enables the sleep action of preStop.
const KUBERNETES_OLDEST: &str = "1.30";
const KUBERNETES_NEWEST: &str = "1.37";

/// The files in yaml/ that are not for kubectl, or that need custom resources.
const NOT_OF_KUBERNETES: [&str; 10] = [
    "compose/compose.yaml",
    "compose/grafana/dashboards.yaml",
    "compose/grafana/datasources.yaml",
    "monitoring/autoscaling/prometheus-adapter-values.yaml",
    "monitoring/autoscaling/scaledobject.yaml",
    "monitoring/loki-stack-values.yaml",
    "monitoring/prometheusrule.yaml",
    "monitoring/rules-native.yaml",
    "monitoring/rules.yaml",
    "monitoring/servicemonitor.yaml",
];

/// Returns every .yaml file below a folder of yaml/, by its path from yaml/.
fn files_below(part: &str) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder().join(part)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(folder()).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            files.extend(files_below(&name));
        } else if name.ends_with(".yaml") {
            files.push(name);
        }
    }
    files.sort();
    files
}

/// Returns every file with objects that any cluster supports.
fn manifests() -> Vec<String> {
    let mut files = files_below("");
    for other in NOT_OF_KUBERNETES {
        let position = files.iter().position(|file| file == other);
        files.remove(position.unwrap_or_else(|| panic!("{other} does not exist")));
    }
    files
}

/// Returns the names of the objects of these files that run pods, with their pod templates.
fn templates() -> Vec<(String, Value)> {
    let mut templates = Vec::new();
    for file in manifests() {
        for object in documents(&file) {
            if object["spec"]["template"].is_object() {
                templates.push((
                    format!("{file}: {}", object["kind"]),
                    object["spec"]["template"].clone(),
                ));
            }
        }
    }
    templates
}

/// Returns the standard output of kubectl. Panics if it fails.
fn kubectl(arguments: &[&str]) -> String {
    let output = Command::new("kubectl")
        .args(arguments)
        .output()
        .expect("kubectl is installed");
    assert!(
        output.status.success(),
        "kubectl {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Returns whether a label selector matches an object with these labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().unwrap();
    !selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value)
}

#[test]
fn every_manifest_is_valid_in_the_oldest_and_newest_supported_kubernetes() {
    let validator = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/venv/bin/kubernetes-validate");
    let files: Vec<PathBuf> = manifests().iter().map(|file| folder().join(file)).collect();
    let objects: usize = manifests().iter().map(|file| documents(file).len()).sum();
    for version in [KUBERNETES_OLDEST, KUBERNETES_NEWEST] {
        let output = Command::new(&validator)
            .args(["--kubernetes-version", version, "--strict"])
            .args(&files)
            .output()
            .expect("kubernetes-validate is installed");
        let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "Kubernetes {version}: {printed}");
        let passed = printed
            .lines()
            .filter(|line| line.contains(" passed ") && line.ends_with(&format!("against version {version}")));
        assert_eq!(passed.count(), objects, "Kubernetes {version}: {printed}");
    }
}

#[test]
fn kubectl_finds_the_same_objects_by_file_and_by_kustomization() {
    let yaml = folder();
    // Reads the same files as `apply -f`, but needs no cluster.
    let by_file = kubectl(&[
        "annotate",
        "--local",
        "--filename",
        &format!("{}/", yaml.display()),
        "a=b",
        "--output=name",
    ]);
    let by_file: BTreeSet<String> = by_file.lines().map(str::to_owned).collect();
    let by_kustomization: BTreeSet<String> = manifest::parse(&kubectl(&["kustomize", yaml.to_str().unwrap()]))
        .iter()
        .map(|object| {
            let kind = object["kind"].as_str().unwrap().to_lowercase();
            let group = object["apiVersion"]
                .as_str()
                .unwrap()
                .rsplit_once('/')
                .map(|(group, _)| group);
            let name = object["metadata"]["name"].as_str().unwrap();
            group.map_or_else(|| format!("{kind}/{name}"), |group| format!("{kind}.{group}/{name}"))
        })
        .collect();
    assert_eq!(by_file, by_kustomization);
    assert_eq!(
        by_file.into_iter().collect::<Vec<_>>(),
        [
            "deployment.apps/httpserver",
            "horizontalpodautoscaler.autoscaling/httpserver",
            "networkpolicy.networking.k8s.io/httpserver",
            "poddisruptionbudget.policy/httpserver",
            "service/httpsvc",
        ]
    );
}

#[test]
fn every_pod_meets_the_restricted_pod_security_standard_and_more() {
    let templates = templates();
    assert_eq!(templates.len(), 4);
    for (which, template) in templates {
        assert_eq!(
            restricted::violations(&template["spec"]),
            Vec::<String>::new(),
            "{which}"
        );
    }
}

#[test]
fn every_selector_matches_the_pods_that_it_is_meant_for() {
    let deployment = object("deployment.yaml", "Deployment");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    let service = object("service.yaml", "Service");
    let budget = object("poddisruptionbudget.yaml", "PodDisruptionBudget");
    let policy = object("networkpolicy.yaml", "NetworkPolicy");
    let monitor = object("monitoring/servicemonitor.yaml", "ServiceMonitor");
    assert!(selects(&deployment["spec"]["selector"]["matchLabels"], labels));
    assert!(selects(&service["spec"]["selector"], labels));
    assert!(selects(&budget["spec"]["selector"]["matchLabels"], labels));
    assert!(selects(&policy["spec"]["podSelector"]["matchLabels"], labels));
    for constraint in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        .as_array()
        .unwrap()
    {
        assert!(selects(&constraint["labelSelector"]["matchLabels"], labels));
    }
    for file in [
        "horizontalpodautoscaler.yaml",
        "monitoring/autoscaling/horizontalpodautoscaler.yaml",
    ] {
        let target = &object(file, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"];
        assert_eq!(target["kind"], deployment["kind"]);
        assert_eq!(target["apiVersion"], deployment["apiVersion"]);
        assert_eq!(target["name"], deployment["metadata"]["name"]);
    }
    // The operator's ServiceMonitor selects the Service by labels, and one of its ports by name.
    assert!(selects(
        &monitor["spec"]["selector"]["matchLabels"],
        &service["metadata"]["labels"]
    ));
    assert_eq!(
        monitor["spec"]["endpoints"][0]["port"],
        service["spec"]["ports"][0]["name"]
    );
    // The Service must send no requests to the load's pods.
    let load = object("monitoring/load.yaml", "Job");
    assert!(!selects(
        &service["spec"]["selector"],
        &load["spec"]["template"]["metadata"]["labels"]
    ));

    for part in ["prometheus", "grafana"] {
        let deployment = object(&format!("monitoring/{part}/deployment.yaml"), "Deployment");
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        let service = object(&format!("monitoring/{part}/service.yaml"), "Service");
        let policy = object(&format!("monitoring/{part}/networkpolicy.yaml"), "NetworkPolicy");
        assert!(selects(&deployment["spec"]["selector"]["matchLabels"], labels));
        assert!(selects(&service["spec"]["selector"], labels));
        assert!(selects(&policy["spec"]["podSelector"]["matchLabels"], labels));
    }
}

#[test]
fn the_manifests_agree_with_the_binary_on_port_version_and_drain_timeout() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    let default = |flag: &str| {
        let (_, rest) = help.split_once(&format!("{flag} ")).unwrap();
        let (_, rest) = rest.split_once("[default: ").unwrap();
        rest.lines().next().unwrap().strip_suffix(']').unwrap().to_owned()
    };
    let deployment = object("deployment.yaml", "Deployment");
    let template = &deployment["spec"]["template"];
    let container = &template["spec"]["containers"][0];

    let listen = default("--listen");
    let (_, port) = listen.rsplit_once(':').unwrap();
    assert_eq!(container["ports"][0]["containerPort"].to_string(), port);
    assert_eq!(
        template["metadata"]["annotations"],
        json!({"prometheus.io/scrape": "true", "prometheus.io/port": port, "prometheus.io/path": "/metrics"})
    );
    let service = object("service.yaml", "Service");
    assert_eq!(service["metadata"]["name"], "httpsvc");
    assert_eq!(service["spec"]["type"], "ClusterIP");
    assert_eq!(service["spec"]["ports"][0]["port"], 80);
    for target in [
        &service["spec"]["ports"][0]["targetPort"],
        &object("networkpolicy.yaml", "NetworkPolicy")["spec"]["ingress"][0]["ports"][0]["port"],
    ] {
        assert_eq!(*target, container["ports"][0]["name"]);
    }

    let drain_s: u64 = default("--drain-timeout").strip_suffix('s').unwrap().parse().unwrap();
    let sleep_s = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
    let grace_s = template["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(sleep_s + drain_s < grace_s, "{sleep_s} + {drain_s} < {grace_s}");

    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(container["image"], format!("localhost/httpserver:{version}"));
    for file in manifests() {
        for object in documents(&file) {
            if object["metadata"]["labels"]["app.kubernetes.io/name"] == "httpserver" {
                assert_eq!(
                    object["metadata"]["labels"]["app.kubernetes.io/version"], version,
                    "{file}"
                );
            }
        }
    }
}

#[test]
fn applying_again_does_not_change_the_number_of_pods() {
    let deployment = object("deployment.yaml", "Deployment");
    assert!(deployment["spec"].get("replicas").is_none());
    let autoscaler = object("horizontalpodautoscaler.yaml", "HorizontalPodAutoscaler");
    assert_eq!(autoscaler["spec"]["minReplicas"], 2);
}

#[test]
fn the_manifests_use_the_prometheus_version_that_the_tests_build() {
    let release = include_str!("../../tools/prometheus")
        .lines()
        .find_map(|line| line.strip_prefix("release="))
        .unwrap();
    let deployment = object("monitoring/prometheus/deployment.yaml", "Deployment");
    let template = &deployment["spec"]["template"];
    assert_eq!(
        template["spec"]["containers"][0]["image"],
        format!("docker.io/prom/prometheus:v{release}")
    );
    for metadata in [&deployment["metadata"], &template["metadata"]] {
        assert_eq!(metadata["labels"]["app.kubernetes.io/version"], release);
    }
}

#[test]
fn promtool_accepts_the_scrape_configuration_and_its_rules() {
    let folder = std::env::temp_dir().join(format!("httpserver-promtool-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let discovered = folder.join("discovered.json");
    fs::write(&discovered, "[]").unwrap();
    // In the pod, the rules are mounted in a folder of the root file system.
    let rules = folder.join("rules.yaml");
    fs::copy(manifest::folder().join("monitoring/rules.yaml"), &rules).unwrap();
    let config = scrape_config(&discovered);
    assert_eq!(config.matches("/etc/prometheus-rules/*.yaml").count(), 1);
    let mounts = &object("monitoring/prometheus/deployment.yaml", "Deployment")["spec"]["template"]["spec"]["containers"]
        [0]["volumeMounts"];
    let mounts = mounts.as_array().unwrap();
    assert!(mounts.iter().any(|mount| mount["mountPath"] == "/etc/prometheus-rules"));
    let file = folder.join("prometheus.yml");
    fs::write(
        &file,
        config.replace("/etc/prometheus-rules/*.yaml", rules.to_str().unwrap()),
    )
    .unwrap();
    let output = Major::Three
        .promtool()
        .args(["check", "config"])
        .arg(&file)
        .output()
        .expect("promtool starts");
    let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    fs::remove_dir_all(folder).unwrap();
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("1 rule files found"), "{printed}");
}

#[test]
fn promtool_accepts_the_configuration_of_compose() {
    let output = Major::Three
        .promtool()
        .args(["check", "config", "--syntax-only"])
        .arg(folder().join("compose/prometheus.yml"))
        .output()
        .expect("promtool starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn relabelling_keeps_annotated_pods_with_their_port_and_path_and_drops_the_others() {
    let template = &object("deployment.yaml", "Deployment")["spec"]["template"];
    let pod = |name: &str, ip: &str, port: u16, changes: Value| {
        let mut labels = discovered_labels(template, name, ip, port);
        for (label, value) in changes.as_object().unwrap() {
            if value.is_null() {
                labels.as_object_mut().unwrap().remove(label);
            } else {
                labels[label] = value.clone();
            }
        }
        let address = if ip.contains(':') {
            format!("[{ip}]:{port}")
        } else {
            format!("{ip}:{port}")
        };
        json!({"targets": [address], "labels": labels})
    };
    const SCRAPE: &str = "__meta_kubernetes_pod_annotation_prometheus_io_scrape";
    const PORT: &str = "__meta_kubernetes_pod_annotation_prometheus_io_port";
    const PATH: &str = "__meta_kubernetes_pod_annotation_prometheus_io_path";
    const SCHEME: &str = "__meta_kubernetes_pod_annotation_prometheus_io_scheme";
    const PHASE: &str = "__meta_kubernetes_pod_phase";
    // Nothing listens on these loopback addresses and ports: only the URLs that Prometheus would scrape matter.
    let discovered = json!([
        pod("as-deployed", "127.0.0.11", 19004, json!({})),
        pod("of-two-ports", "127.0.0.12", 19004, json!({})),
        pod("of-two-ports", "127.0.0.12", 9, json!({})),
        pod(
            "elsewhere",
            "127.0.0.13",
            9,
            json!({PORT: "10", PATH: "/deep/metrics", SCHEME: "https"})
        ),
        pod("without-port", "127.0.0.14", 11, json!({PORT: null, PATH: null})),
        pod("version-6", "::1", 9, json!({})),
        pod("not-annotated", "127.0.0.15", 9, json!({SCRAPE: null})),
        pod("declined", "127.0.0.16", 9, json!({SCRAPE: "false"})),
        pod("almost", "127.0.0.17", 9, json!({SCRAPE: "truely"})),
        pod("finished", "127.0.0.18", 9, json!({PHASE: "Succeeded"})),
        pod("crashed", "127.0.0.19", 9, json!({PHASE: "Failed"})),
    ]);
    let file = std::env::temp_dir().join(format!("httpserver-discovered-{}.json", std::process::id()));
    fs::write(&file, discovered.to_string()).unwrap();
    let prometheus = Prometheus::start(&scrape_config(&file), &[]);
    let targets = wait_for(
        "the targets",
        || prometheus.api("/api/v1/targets")["data"].take(),
        |targets| targets["activeTargets"][0].is_object(),
    );
    fs::remove_file(file).unwrap();

    let mut active: Vec<(&str, &str)> = targets["activeTargets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|target| {
            assert_eq!(target["labels"]["namespace"], "default");
            assert_eq!(target["labels"]["node"], "node-1");
            assert_eq!(target["labels"]["app"], "httpserver");
            (
                target["labels"]["pod"].as_str().unwrap(),
                target["scrapeUrl"].as_str().unwrap(),
            )
        })
        .collect();
    active.sort_unstable();
    assert_eq!(
        active,
        [
            ("as-deployed", "http://127.0.0.11:19004/metrics"),
            ("elsewhere", "https://127.0.0.13:10/deep/metrics"),
            ("of-two-ports", "http://127.0.0.12:19004/metrics"),
            ("version-6", "http://[::1]:19004/metrics"),
            ("without-port", "http://127.0.0.14:11/metrics"),
        ]
    );
    let dropped: BTreeSet<&str> = targets["droppedTargets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|target| {
            target["discoveredLabels"]["__meta_kubernetes_pod_name"]
                .as_str()
                .unwrap()
        })
        .collect();
    assert_eq!(
        dropped,
        BTreeSet::from(["almost", "crashed", "declined", "finished", "not-annotated"])
    );
}

#[test]
fn grafana_is_configured_with_the_prometheus_and_the_dashboard_of_the_manifests() {
    let provisioning = object("monitoring/grafana/configmap.yaml", "ConfigMap")["data"].clone();
    let parse = |file: &str| manifest::parse(provisioning[file].as_str().unwrap()).remove(0);
    let service = object("monitoring/prometheus/service.yaml", "Service");
    let url = format!(
        "http://{}:{}",
        service["metadata"]["name"].as_str().unwrap(),
        service["spec"]["ports"][0]["port"]
    );
    assert_eq!(parse("datasources.yaml")["datasources"][0]["url"], url);

    let pod = &object("monitoring/grafana/deployment.yaml", "Deployment")["spec"]["template"]["spec"];
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    let mounted = |path: &str| {
        let mount = mounts.iter().find(|mount| mount["mountPath"] == path).unwrap();
        let volumes = pod["volumes"].as_array().unwrap();
        volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap()
    };
    let path = parse("dashboards.yaml")["providers"][0]["options"]["path"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(mounted(&path)["configMap"]["name"], "httpserver-dashboard");
    for file in ["datasources", "dashboards"] {
        let path = format!("/etc/grafana/provisioning/{file}/{file}.yaml");
        assert_eq!(mounted(&path)["configMap"]["name"], "grafana-provisioning");
    }
    assert_eq!(mounted("/etc/grafana-admin")["secret"]["secretName"], "grafana-admin");
}

#[test]
fn the_values_for_loki_stack_enable_grafana_and_prometheus_without_persistence() {
    let values = documents("monitoring/loki-stack-values.yaml").remove(0);
    assert_eq!(values["grafana"]["enabled"], true);
    assert_eq!(values["grafana"]["service"]["type"], "NodePort");
    assert_eq!(values["grafana"]["sidecar"]["dashboards"]["enabled"], true);
    assert_eq!(values["prometheus"]["enabled"], true);
    assert_eq!(values["grafana"]["persistence"]["enabled"], false);
    assert_eq!(values["loki"]["persistence"]["enabled"], false);
    assert_eq!(values["prometheus"]["server"]["persistentVolume"]["enabled"], false);
    // Grafana does not start with two default data sources.
    assert_eq!(values["prometheus"]["isDefault"], true);
    assert_eq!(values["loki"]["isDefault"], false);
    // Without a label the sidecar copies every ConfigMap and Secret of the namespace.
    for kind in ["datasources", "dashboards"] {
        let sidecar = &values["grafana"]["sidecar"][kind];
        assert_eq!(sidecar["label"], format!("grafana_{}", kind.trim_end_matches('s')));
        assert_eq!(sidecar["labelValue"], "1");
    }
}

#[test]
fn every_prometheus_scrapes_every_15_s_and_every_data_source_has_that_interval() {
    let parse = |text: &Value| manifest::parse(text.as_str().unwrap()).remove(0);
    let in_cluster = parse(&object("monitoring/prometheus/configmap.yaml", "ConfigMap")["data"]["prometheus.yml"]);
    let composed = manifest::parse(&fs::read_to_string(folder().join("compose/prometheus.yml")).unwrap()).remove(0);
    let values = documents("monitoring/loki-stack-values.yaml").remove(0);
    let loki_stack = &values["prometheus"]["server"];
    for config in [&in_cluster, &composed, loki_stack] {
        assert_eq!(config["global"]["scrape_interval"], "15s");
        assert_eq!(config["global"]["evaluation_interval"], "15s");
    }
    let monitor = object("monitoring/servicemonitor.yaml", "ServiceMonitor");
    assert_eq!(monitor["spec"]["endpoints"][0]["interval"], "15s");

    let grafana = parse(&object("monitoring/grafana/configmap.yaml", "ConfigMap")["data"]["datasources.yaml"]);
    let composed = documents("compose/grafana/datasources.yaml").remove(0);
    for sources in [grafana, composed] {
        assert_eq!(sources["datasources"][0]["jsonData"]["timeInterval"], "15s");
    }
    // The chart's template expects a string.
    assert_eq!(
        parse(&values["prometheus"]["datasource"]["jsonData"]),
        json!({"timeInterval": "15s"})
    );
}

#[test]
fn every_prometheus_3_stores_classic_and_native_histograms_exemplars_and_start_timestamps() {
    let in_cluster = object("monitoring/prometheus/configmap.yaml", "ConfigMap")["data"]["prometheus.yml"].clone();
    let in_cluster = manifest::parse(in_cluster.as_str().unwrap()).remove(0);
    let composed = manifest::parse(&fs::read_to_string(folder().join("compose/prometheus.yml")).unwrap()).remove(0);
    for config in [in_cluster, composed] {
        assert_eq!(config["global"]["scrape_native_histograms"], true);
        assert_eq!(config["global"]["always_scrape_classic_histograms"], true);
    }
    let monitor = &object("monitoring/servicemonitor.yaml", "ServiceMonitor")["spec"];
    assert_eq!(monitor["scrapeNativeHistograms"], true);
    assert_eq!(monitor["scrapeClassicHistograms"], true);

    let pod = object("monitoring/prometheus/deployment.yaml", "Deployment")["spec"]["template"]["spec"].clone();
    let services = documents("compose/compose.yaml").remove(0)["services"].clone();
    for arguments in [&pod["containers"][0]["args"], &services["prometheus"]["command"]] {
        for feature in ["exemplar-storage", "created-timestamp-zero-ingestion"] {
            let flag = json!(format!("--enable-feature={feature}"));
            assert!(arguments.as_array().unwrap().contains(&flag), "{flag}");
        }
    }
}

/// Returns curl with the load Job's arguments, except for the address and number of requests.
fn load_job(server: &Server, requests: u32) -> Command {
    let container = object("monitoring/load.yaml", "Job")["spec"]["template"]["spec"]["containers"][0].clone();
    let url = format!("http://{}/#[1-{requests}]", server.address);
    let mut arguments: Vec<String> = serde_json::from_value(container["args"].clone()).unwrap();
    let target = arguments
        .iter_mut()
        .find(|argument| *argument == "http://httpsvc/#[1-36000]")
        .expect("the Service's address");
    *target = url;
    let mut curl = Command::new("curl");
    curl.args(arguments);
    curl
}

const ANSWERED: &str = "http_request_duration_seconds_count{method=\"GET\",path=\"/\",status=\"200\"}";

#[test]
fn the_load_job_sends_each_request_and_prints_nothing() {
    const REQUESTS: u32 = 40;
    let server = Server::start(&["--delay-max", "10ms"]);
    let curl = load_job(&server, REQUESTS).output().expect("curl is installed");
    assert!(curl.status.success(), "{curl:?}");
    assert_eq!((curl.stdout.len(), curl.stderr.len()), (0, 0), "{curl:?}");
    wait_for(
        "the last request to be recorded",
        || server.metric(ANSWERED),
        |answered| *answered == Some(f64::from(REQUESTS)),
    );
}

/// With a mean delay of 1 s, they send twenty requests a second.
#[test]
fn the_load_job_has_twenty_clients() {
    let server = Server::start(&[]);
    let mut curl = load_job(&server, 36_000).spawn().expect("curl is installed");
    // The scrape is in flight, too.
    let in_flight = || server.metric("http_requests_in_flight");
    wait_for("all of them to wait", in_flight, |in_flight| *in_flight == Some(21.0));
    wait_for(
        "answers",
        || server.metric(ANSWERED),
        |answered| *answered >= Some(40.0),
    );
    assert!(in_flight() <= Some(21.0));
    curl.kill().unwrap();
    curl.wait().unwrap();
}
