//! The requirements of Kubernetes's restricted Pod Security Standard for Linux pods, and further ones that careful
//! clusters have. platforms.rs checks the user.

use serde_json::Value;

/// Returns every requirement that a pod's specification does not meet.
pub fn violations(pod: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut require = |met: bool, what: &str| {
        if !met {
            found.push(what.to_owned());
        }
    };

    for host in ["hostNetwork", "hostPID", "hostIPC"] {
        require(pod[host].is_null() || pod[host] == false, host);
    }
    let security = &pod["securityContext"];
    require(security["runAsNonRoot"] == true, "runAsNonRoot");
    require(security["seccompProfile"]["type"] == "RuntimeDefault", "seccompProfile");
    require(security["sysctls"].is_null(), "sysctls");
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
        require(
            kinds.into_iter().all(|kind| ALLOWED.contains(&kind.as_str())),
            "volume types",
        );
        require(
            volume["emptyDir"].is_null() || volume["emptyDir"]["sizeLimit"].is_string(),
            "emptyDir.sizeLimit",
        );
    }

    require(pod["enableServiceLinks"] == false, "enableServiceLinks");
    // A pod has a token only if it has its own service account, which limits what the token is for.
    require(
        pod["automountServiceAccountToken"] == false || pod["serviceAccountName"].is_string(),
        "automountServiceAccountToken",
    );

    require(
        pod["initContainers"].is_null() && pod["ephemeralContainers"].is_null(),
        "containers only",
    );
    for container in pod["containers"].as_array().unwrap() {
        let security = &container["securityContext"];
        require(security["privileged"].is_null(), "privileged");
        require(
            security["allowPrivilegeEscalation"] == false,
            "allowPrivilegeEscalation",
        );
        require(security["readOnlyRootFilesystem"] == true, "readOnlyRootFilesystem");
        require(
            security["capabilities"] == serde_json::json!({"drop": ["ALL"]}),
            "capabilities",
        );
        require(
            security["procMount"].is_null() && security["seLinuxOptions"].is_null(),
            "procMount, seLinuxOptions",
        );
        for port in container["ports"].as_array().into_iter().flatten() {
            require(port["hostPort"].is_null(), "hostPort");
        }
        for amount in ["requests", "limits"] {
            for resource in ["cpu", "memory"] {
                require(
                    container["resources"][amount][resource].is_string(),
                    &format!("{amount}.{resource}"),
                );
            }
        }
        let image = container["image"].as_str().unwrap();
        let (_, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
        require(tag != "latest" && tag.contains('.'), "an image of one version");
        require(
            image
                .split('/')
                .next()
                .is_some_and(|host| host.contains('.') || host == "localhost"),
            "an image with its registry",
        );
        // A container that serves is probed.
        if container["ports"].is_array() {
            for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                require(container[probe].is_object(), probe);
            }
        }
    }
    found
}
