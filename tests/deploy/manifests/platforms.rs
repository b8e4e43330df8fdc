//! The manifests on every platform: the user that a pod runs as, the node that it runs on, and who may connect to it.

use std::process::Command;

use serde_json::{Value, json};

use super::{manifests, selects, templates};
use support::manifest::{self, documents, object};

/// The fields that set a pod's user. OpenShift's restricted-v2 rejects a pod that has any of them.
const USER: [&str; 3] = ["runAsUser", "runAsGroup", "fsGroup"];

/// Returns whether the pod runs our images. Their user is a number, so runAsNonRoot is enough everywhere.
fn is_ours(pod: &Value) -> bool {
    let mut containers = pod["containers"].as_array().unwrap().iter();
    containers.all(|container| container["image"].as_str().unwrap().starts_with("localhost/"))
}

#[test]
fn our_pods_set_no_user_and_the_others_set_one_that_is_not_root() {
    for (which, template) in templates() {
        let pod = &template["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{which}");
        for name in &USER[..2] {
            let user = &pod["securityContext"][name];
            if is_ours(pod) {
                assert!(user.is_null(), "{which}: {name}");
            } else {
                assert!(user.as_u64().is_some_and(|id| id != 0), "{which}: {name}");
            }
        }
        for container in pod["containers"].as_array().unwrap() {
            let security = &container["securityContext"];
            assert!(USER.iter().all(|name| security[name].is_null()), "{which}");
        }
    }
}

#[test]
fn the_openshift_patch_removes_the_user_from_every_pod_and_changes_nothing_else() {
    let kustomize = support::root().join("tests/tools/kustomize");
    let kustomize = String::from_utf8(Command::new(kustomize).output().unwrap().stdout).unwrap();
    let output = Command::new(kustomize.trim())
        .arg("build")
        .arg(manifest::folder().join("openshift"))
        .output()
        .expect("kustomize starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rendered = manifest::parse(&String::from_utf8(output.stdout).unwrap());

    for file in manifests()
        .iter()
        .filter(|file| file.starts_with("monitoring/") && !file.contains("autoscaling"))
    {
        for mut object in documents(file) {
            let same = |other: &&Value| other["kind"] == object["kind"] && other["metadata"] == object["metadata"];
            let patched = rendered.iter().find(same);
            let patched = patched.unwrap_or_else(|| panic!("{file}: {} is not rendered", object["kind"]));
            if let Some(security) = object.pointer_mut("/spec/template/spec/securityContext") {
                for name in USER {
                    security.as_object_mut().unwrap().remove(name);
                }
            }
            assert_eq!(*patched, object, "{file}");
        }
    }
    // Every object that runs pods is either rendered or sets no user.
    for (which, template) in templates() {
        let labels = &template["metadata"]["labels"];
        let is_rendered = rendered
            .iter()
            .any(|object| object["spec"]["template"]["metadata"]["labels"] == *labels);
        assert!(is_rendered || is_ours(&template["spec"]), "{which} is not patched");
    }
}

#[test]
fn every_pod_runs_on_a_linux_node() {
    for (which, template) in templates() {
        assert_eq!(
            template["spec"]["nodeSelector"],
            json!({"kubernetes.io/os": "linux"}),
            "{which}"
        );
    }
}

#[test]
fn every_pod_is_covered_by_a_network_policy() {
    let files = manifests();
    let policies: Vec<Value> = files
        .iter()
        .flat_map(|file| documents(file))
        .filter(|object| object["kind"] == "NetworkPolicy")
        .collect();
    for (which, template) in templates() {
        let labels = &template["metadata"]["labels"];
        let covers = |policy: &Value| selects(&policy["spec"]["podSelector"]["matchLabels"], labels);
        assert!(policies.iter().any(covers), "{which} accepts connections from anywhere");
    }
}

#[test]
fn the_example_for_clients_with_a_nodes_address_adds_a_rule_to_the_servers_policy() {
    let policy = object("networkpolicy.yaml", "NetworkPolicy");
    let example = object("examples/networkpolicy-from-nodes.yaml", "NetworkPolicy");
    assert_ne!(example["metadata"]["name"], policy["metadata"]["name"]);
    assert_eq!(example["spec"]["podSelector"], policy["spec"]["podSelector"]);
    assert_eq!(example["spec"]["policyTypes"], json!(["Ingress"]));
    let [rule, policys_rule] = [&example, &policy].map(|policy| &policy["spec"]["ingress"][0]);
    assert_eq!(rule["ports"], policys_rule["ports"]);
    // A documentation address (RFC 5737), which no node has, so that applying the unchanged example allows nothing.
    assert_eq!(rule["from"], json!([{"ipBlock": {"cidr": "192.0.2.0/24"}}]));
}
