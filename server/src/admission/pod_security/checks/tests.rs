//! Every check by pods that break it and pods that do not.

use super::*;
use serde_json::json;

const HARD: &str = r#"{"runAsNonRoot": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"}}"#;

fn check(level: Level, version: Version, spec: Value, want: &str) {
    let pod = json!({"metadata": {}, "spec": spec});
    assert_eq!(told(&evaluate(LevelVersion { level, version }, &pod)), want, "{pod}");
}

fn baseline(spec: Value, want: &str) {
    check(Level::Baseline, Version::Latest, spec, want);
}

fn with(context: Value) -> Value {
    json!({"containers": [{"name": "c", "securityContext": context}]})
}

#[test]
fn the_baseline_forbids_ways_out() {
    baseline(with(json!({})), "");
    baseline(
        with(json!({"privileged": true})),
        "privileged (container \"c\" must not set securityContext.privileged=true)",
    );
    baseline(
        json!({"hostNetwork": true, "hostPID": true, "volumes": [{"name": "v", "hostPath": {}}, {"name": "w", "hostPath": {}}]}),
        "host namespaces (hostNetwork=true, hostPID=true), hostPath volumes (volumes \"v\", \"w\")",
    );
    baseline(
        json!({"containers": [{"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 443}]}, {"name": "b", "ports": [{"hostPort": 80}]}]}),
        "hostPort (containers \"a\", \"b\" use hostPorts 443, 80)",
    );
    baseline(
        with(json!({"capabilities": {"add": ["NET_RAW", "CHOWN"]}})),
        "non-default capabilities (container \"c\" must not include \"NET_RAW\" in securityContext.capabilities.add)",
    );
    baseline(
        json!({"securityContext": {"seLinuxOptions": {"type": "odd", "role": "r"}}, "containers": [{"name": "c", "securityContext": {"seLinuxOptions": {"user": "u"}}}]}),
        "seLinuxOptions (pod and container \"c\" set forbidden securityContext.seLinuxOptions: type \"odd\"; user may not be set; role may not be set)",
    );
    baseline(
        json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}, {"name": "kernel.odd"}]}}),
        "forbidden sysctls (kernel.odd)",
    );
    check(
        Level::Baseline,
        Version::Minor(31),
        json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}}),
        "forbidden sysctls (net.ipv4.tcp_rmem)",
    );
    baseline(
        with(
            json!({"seccompProfile": {"type": "Unconfined"}, "appArmorProfile": {"type": "Unconfined"}, "procMount": "Unmasked"}),
        ),
        "forbidden AppArmor profile (container \"c\" must not set AppArmor profile type to \"Unconfined\"), \
         procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\"), \
         seccompProfile (container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
    );
    let probed = json!({"containers": [{"name": "c", "livenessProbe": {"httpGet": {"host": "h"}}}]});
    baseline(probed.clone(), "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"h\")");
    check(Level::Baseline, Version::Minor(33), probed, "");
    baseline(
        json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
        "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
    );
}

#[test]
fn the_restricted_level_wants_hardened_pods() {
    let restricted = |spec, want| check(Level::Restricted, Version::Latest, spec, want);
    let hard: Value = serde_json::from_str(HARD).unwrap();
    restricted(with(hard.clone()), "");
    restricted(
        json!({"containers": [{"name": "x"}]}),
        "allowPrivilegeEscalation != false (container \"x\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"x\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         runAsNonRoot != true (pod or container \"x\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or container \"x\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
    );
    let mut spec = with(hard.clone());
    spec["volumes"] = json!([{"name": "v", "hostPath": {}}, {"name": "w", "secret": {}}]);
    spec["securityContext"] = json!({"runAsUser": 0});
    restricted(
        spec,
        "restricted volume types (volume \"v\" uses restricted volume type \"hostPath\"), runAsUser=0 (pod must not set runAsUser=0)",
    );
    let mut spec = with(hard.clone());
    spec["containers"][0]["securityContext"]["capabilities"] =
        json!({"drop": ["ALL"], "add": ["NET_RAW", "NET_BIND_SERVICE"]});
    restricted(
        spec,
        "unrestricted capabilities (container \"c\" must not include \"NET_RAW\" in securityContext.capabilities.add)",
    );
    let mut spec = with(hard);
    spec["containers"][0]["securityContext"]["runAsNonRoot"] = json!(false);
    restricted(
        spec.clone(),
        "runAsNonRoot != true (container \"c\" must not set securityContext.runAsNonRoot=false)",
    );
    spec["hostUsers"] = json!(false);
    restricted(spec.clone(), "");
    check(
        Level::Restricted,
        Version::Minor(34),
        spec,
        "runAsNonRoot != true (container \"c\" must not set securityContext.runAsNonRoot=false)",
    );
    check(
        Level::Restricted,
        Version::Minor(7),
        json!({"securityContext": {"runAsNonRoot": true}, "containers": [{"name": "c"}]}),
        "",
    );
    restricted(
        json!({"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": true}, "containers": [{"name": "c"}]}),
        "",
    );
}
