//! `--once`: up, shown, and down again, with an exit code that scripts can use.

use crate::common::{Folder, Launch};

const GOOD: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: text}
data: {a: b}
---
apiVersion: example.org/v1
kind: Widget
metadata: {name: one}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object}}
---
apiVersion: v1
kind: Pod
metadata: {name: main}
spec:
  containers: [{name: main, image: 'example.org/any:1'}]
";

const NEVER_READY: &str = "
apiVersion: v1
kind: Pod
metadata: {name: missing}
spec:
  containers: [{name: main, image: 'nowhere.invalid/nothing:1', imagePullPolicy: Never}]
---
apiVersion: v1
kind: Pod
metadata: {name: huge}
spec:
  containers: [{name: main, image: 'nowhere.invalid/nothing:1', resources: {requests: {cpu: '1000'}}}]
";

#[test]
fn once_ends_well_when_all_is_ready() {
    let folder = Folder::new();
    let launch = || Launch::new(folder.path()).args(&["--once", "--runtime", "fake", "--manifest"]);
    let first = launch().args(&[&folder.write("good.yaml", GOOD)]).finish();
    assert_eq!(first.code, Some(0), "{first:?}");
    assert!(first.stdout.contains("main") && first.stdout.contains("1/1"), "{first:?}");
    assert_eq!(first.stderr, "", "nothing to complain of");
    // The same again, from the standard input: all is there already.
    let again = launch().args(&["-"]).stdin(GOOD).finish();
    assert_eq!((again.code, again.stderr.as_str()), (Some(0), ""), "{again:?}");
}

#[test]
fn once_tells_what_is_not_ready_and_why() {
    let folder = Folder::new();
    let manifest = folder.write("never.yaml", NEVER_READY);
    let launch = Launch::new(folder.path()).args(&["--once", "--nodes", "1", "--timeout", "3"]);
    let run = launch.args(&["--manifest", &manifest]).finish();
    assert_eq!(run.code, Some(1), "{run:?}");
    for words in ["not ready after 3 s", "Pod missing", "ErrImageNeverPull", "Pod huge", "Insufficient cpu"] {
        assert!(run.stderr.contains(words), "{words:?} is missing in {}", run.stderr);
    }
    assert_eq!(run.stderr.matches("Pod missing").count(), 1, "told once: {}", run.stderr);
}
