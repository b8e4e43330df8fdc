//! What Kubernetes' restricted Pod Security Standard demands of a pod, and what else a careful cluster does: after the standard's
//! own list, for pods of Linux. platforms.rs has the user.

use serde_json::Value;

/// Every demand that a pod's specification does not meet; none of a good one.
pub fn violations(pod: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut demand = |met: bool, what: &str| {
        if !met {
            found.push(what.to_owned());
        }
    };

    for host in ["hostNetwork", "hostPID", "hostIPC"] {
        demand(pod[host].is_null() || pod[host] == false, host);
    }
    let security = &pod["securityContext"];
    demand(security["runAsNonRoot"] == true, "runAsNonRoot");
    demand(security["seccompProfile"]["type"] == "RuntimeDefault", "seccompProfile");
    demand(security["sysctls"].is_null(), "sysctls");
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        const ALLOWED: [&str; 7] = [
            "configMap",
            "csi",
            "downwardAPI",
            "emptyDir",
            "persistentVolumeClaim",
            "projected",
            "secret",
        ];
        let kinds = volume.as_object().unwrap().keys().filter(|key| *key != "name");
        demand(
            kinds.into_iter().all(|kind| ALLOWED.contains(&kind.as_str())),
            "volume types",
        );
        demand(
            volume["emptyDir"].is_null() || volume["emptyDir"]["sizeLimit"].is_string(),
            "emptyDir.sizeLimit",
        );
    }

    demand(pod["enableServiceLinks"] == false, "enableServiceLinks");
    // A token only where a service account of its own says what it is for.
    demand(
        pod["automountServiceAccountToken"] == false || pod["serviceAccountName"].is_string(),
        "automountServiceAccountToken",
    );

    demand(
        pod["initContainers"].is_null() && pod["ephemeralContainers"].is_null(),
        "containers only",
    );
    for container in pod["containers"].as_array().unwrap() {
        let security = &container["securityContext"];
        demand(security["privileged"].is_null(), "privileged");
        demand(
            security["allowPrivilegeEscalation"] == false,
            "allowPrivilegeEscalation",
        );
        demand(security["readOnlyRootFilesystem"] == true, "readOnlyRootFilesystem");
        demand(
            security["capabilities"] == serde_json::json!({"drop": ["ALL"]}),
            "capabilities",
        );
        demand(
            security["procMount"].is_null() && security["seLinuxOptions"].is_null(),
            "procMount, seLinuxOptions",
        );
        for port in container["ports"].as_array().into_iter().flatten() {
            demand(port["hostPort"].is_null(), "hostPort");
        }
        for amount in ["requests", "limits"] {
            for resource in ["cpu", "memory"] {
                demand(
                    container["resources"][amount][resource].is_string(),
                    &format!("{amount}.{resource}"),
                );
            }
        }
        let image = container["image"].as_str().unwrap();
        let (_, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
        demand(tag != "latest" && tag.contains('.'), "an image of one version");
        demand(
            image
                .split('/')
                .next()
                .is_some_and(|host| host.contains('.') || host == "localhost"),
            "an image with its registry",
        );
        // What serves is probed.
        if container["ports"].is_array() {
            for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                demand(container[probe].is_object(), probe);
            }
        }
    }
    found
}
