//! The committed gRPC code is what the .proto text gives. With `KUBEWRIGHT_REGENERATE=1` it is written anew instead.
//!
//! The build itself needs neither this nor protoc.

use std::path::Path;

fn check(proto: &str, generated_file: &str, target: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile([proto], [root.join("proto")]).unwrap();
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure().build_server(true).out_dir(out.path()).compile_fds(descriptors).unwrap();
    let fresh = std::fs::read_to_string(out.path().join(generated_file)).unwrap();
    let target = root.join(target);
    if std::env::var_os("KUBEWRIGHT_REGENERATE").is_some() {
        std::fs::write(&target, &fresh).unwrap();
    }
    let committed = std::fs::read_to_string(&target).unwrap_or_default();
    assert!(
        fresh == committed,
        "{} does not fit {proto}: run this test with KUBEWRIGHT_REGENERATE=1",
        target.display()
    );
}

#[test]
fn the_generated_code_fits() {
    check("csi.proto", "csi.v1.rs", "src/csi/gen/csi.v1.rs");
}
