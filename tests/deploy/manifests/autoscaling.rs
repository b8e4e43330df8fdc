//! The autoscalers on requests in flight: KEDA's ScaledObject, and the HorizontalPodAutoscaler for prometheus-adapter.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use support::manifest::{folder, object};
use support::prometheus::Prometheus;
use support::server::Server;
use support::{root, wait_for};

const SCALED_OBJECT: &str = "monitoring/autoscaling/scaledobject.yaml";
const AUTOSCALER: &str = "monitoring/autoscaling/horizontalpodautoscaler.yaml";

/// The version of KEDA whose types check the ScaledObject.
const KEDA: &str = "v2.21.0";

/// Has KEDA's own types check a ScaledObject. The first call builds the program, which takes minutes.
fn check(scaled_object: &str) -> Output {
    let built = Command::new(root().join("tests/tools/go_programs"))
        .args(["keda", "github.com/kedacore/keda/v2", KEDA, "--main"])
        .arg(root().join("tests/deploy/manifests/keda.go"))
        .stderr(Stdio::inherit())
        .output()
        .expect("tests/tools/go_programs starts");
    assert!(built.status.success());
    let program = String::from_utf8(built.stdout).unwrap().trim_end().to_owned() + "/keda";
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    child.stdin.take().unwrap().write_all(scaled_object.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn kedas_own_types_accept_the_scaledobject_and_refuse_mistakes() {
    let text = std::fs::read_to_string(folder().join(SCALED_OBJECT)).unwrap();
    let output = check(&text);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    for (right, wrong) in [
        ("minReplicaCount", "minReplicas"),
        ("maxReplicaCount: 10", "maxReplicaCount: ten"),
        ("maxReplicaCount: 10", "maxReplicaCount: 1"),
    ] {
        assert_eq!(text.matches(right).count(), 1, "{right}");
        assert!(!check(&text.replace(right, wrong)).status.success(), "{wrong}");
    }
}

#[test]
fn both_autoscalers_on_requests_in_flight_have_the_same_target_and_limits_and_replace_the_one_on_cpu() {
    let keda = object(SCALED_OBJECT, "ScaledObject");
    let adapter = object(AUTOSCALER, "HorizontalPodAutoscaler");
    let on_cpu = object("horizontalpodautoscaler.yaml", "HorizontalPodAutoscaler");
    let trigger = &keda["spec"]["triggers"][0];
    let target = &adapter["spec"]["metrics"][0]["pods"]["target"];
    assert_eq!(trigger["type"], "prometheus");
    assert_eq!(trigger["metricType"], target["type"]);
    assert_eq!(trigger["metadata"]["threshold"], target["averageValue"]);
    // KEDA does not report a key that it does not know here.
    let keys: Vec<&String> = trigger["metadata"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["query", "serverAddress", "threshold"]);
    let service = object("monitoring/prometheus/service.yaml", "Service");
    let [name, namespace] = ["name", "namespace"].map(|key| service["metadata"][key].as_str().unwrap());
    let port = &service["spec"]["ports"][0]["port"];
    let address = format!("http://{name}.{namespace}.svc:{port}");
    assert_eq!(trigger["metadata"]["serverAddress"], address);

    for autoscaler in [&adapter, &on_cpu] {
        for (theirs, ours) in [("minReplicas", "minReplicaCount"), ("maxReplicas", "maxReplicaCount")] {
            assert_eq!(autoscaler["spec"][theirs], keda["spec"][ours]);
        }
        assert_eq!(autoscaler["spec"]["scaleTargetRef"], keda["spec"]["scaleTargetRef"]);
        let config = &keda["spec"]["advanced"]["horizontalPodAutoscalerConfig"];
        assert_eq!(autoscaler["metadata"]["name"], config["name"]);
    }
    let annotations = &keda["metadata"]["annotations"];
    assert_eq!(annotations["scaledobject.keda.sh/transfer-hpa-ownership"], "true");
}

#[test]
fn the_query_of_the_scaledobject_adds_up_the_pods_of_the_deployment_that_are_still_there() {
    let pods = [
        ("default", "httpserver-5d9c7b8f6d-abcde"),
        ("default", "httpserver-5d9c7b8f6d-fghij"),
        ("default", "other-5d9c7b8f6d-abcde"),
        ("elsewhere", "httpserver-5d9c7b8f6d-abcde"),
    ];
    // Each has one request in flight while it is scraped: the scrape.
    let mut servers: Vec<Server> = pods.iter().map(|_| Server::start(&[])).collect();
    let targets: String = pods
        .iter()
        .zip(&servers)
        .map(|((namespace, pod), server)| {
            let labels = format!("{{ namespace: {namespace}, pod: {pod} }}");
            format!("  - {{ targets: ['{}'], labels: {labels} }}\n", server.address)
        })
        .collect();
    let prometheus = Prometheus::start(
        &format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\n\
             scrape_configs:\n- job_name: pods\n  static_configs:\n{targets}"
        ),
        &[],
    );
    let every = "count(http_requests_in_flight)";
    wait_for(
        "all to be scraped",
        || prometheus.value(every),
        |count| *count == Some(4.0),
    );
    let scaled_object = object(SCALED_OBJECT, "ScaledObject");
    let query = scaled_object["spec"]["triggers"][0]["metadata"]["query"]
        .as_str()
        .unwrap();
    // A scrape that times out makes its target absent until the next one.
    wait_for("the sum", || prometheus.value(query), |sum| *sum == Some(2.0));
    drop(servers.remove(0));
    let in_the_minute = "count(avg_over_time(http_requests_in_flight[1m]))";
    wait_for(
        "one pod less, while the minute has samples of it",
        || [query, in_the_minute].map(|promql| prometheus.value(promql)),
        |seen| *seen == [Some(1.0), Some(4.0)],
    );
}
