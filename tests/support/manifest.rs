//! Access to the manifests in yaml/.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::root;

/// Returns the package's folder yaml/.
pub fn folder() -> PathBuf {
    root().join("yaml")
}

/// Returns every document of a file in yaml/.
pub fn documents(file: &str) -> Vec<Value> {
    parse(&fs::read_to_string(folder().join(file)).unwrap())
}

/// Returns every document of a YAML text.
pub fn parse(text: &str) -> Vec<Value> {
    text.split("\n---\n")
        .map(|document| serde_yaml_ng::from_str(document).unwrap())
        .collect()
}

/// Returns the one object of a kind in a file in yaml/.
pub fn object(file: &str, kind: &str) -> Value {
    let mut objects = documents(file);
    objects.retain(|object| object["kind"] == kind);
    assert_eq!(objects.len(), 1, "{file} has {} of kind {kind}", objects.len());
    objects.remove(0)
}

/// Returns the scrape configuration of Prometheus's ConfigMap. In place of the Kubernetes API it uses a file with the
/// labels that discovery would have found.
pub fn scrape_config(discovered: &Path) -> String {
    let config = object("monitoring/prometheus/configmap.yaml", "ConfigMap")["data"]["prometheus.yml"]
        .as_str()
        .unwrap()
        .to_owned();
    let discovery = "    kubernetes_sd_configs:\n      - role: pod\n";
    assert_eq!(config.matches(discovery).count(), 1, "{config}");
    config.replace(
        discovery,
        &format!("    file_sd_configs:\n      - files: [{:?}]\n", discovered),
    )
}

/// Returns the labels that Prometheus's Kubernetes discovery gives a pod of this template.
pub fn discovered_labels(template: &Value, name: &str, ip: &str, port: u16) -> Value {
    let mut labels = serde_json::json!({
        "__meta_kubernetes_namespace": "default",
        "__meta_kubernetes_pod_name": name,
        "__meta_kubernetes_pod_ip": ip,
        "__meta_kubernetes_pod_phase": "Running",
        "__meta_kubernetes_pod_node_name": "node-1",
        "__meta_kubernetes_pod_container_port_number": port.to_string(),
    });
    for (kind, from) in [("label", "labels"), ("annotation", "annotations")] {
        for (key, value) in template["metadata"][from].as_object().unwrap() {
            // Prometheus replaces characters that are not allowed in label names.
            let key: String = key
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
                .collect();
            labels[format!("__meta_kubernetes_pod_{kind}_{key}")] = value.clone();
            labels[format!("__meta_kubernetes_pod_{kind}present_{key}")] = "true".into();
        }
    }
    labels
}
