#!/usr/bin/env bash
# Runs every check of the project. As root on Debian or Ubuntu it first installs the real parts that the tests talk to (etcd, containerd,
# runc, CNI plugins, ...); otherwise it uses what is there and prints what was skipped and why.
#
#   ./test.sh            everything
#   ./test.sh --fast     formatting, lints and tests, without the examples
set -euo pipefail
cd "$(dirname "$0")"

fast=0
[ "${1:-}" = --fast ] && fast=1
skipped=()
# Incremental state and debug information only cost time and disk in a run that builds once.
export CARGO_INCREMENTAL=0 CARGO_TERM_COLOR=never

step() { printf '\n== %s (%s)\n' "$*" "$(date +%H:%M:%S)"; }
have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/usr/lib/cni/$1" ]; }

install_parts() {
  local packages=(etcd-server etcd-client containerd runc containernetworking-plugins busybox-static iptables nftables
    iproute2 util-linux procps gcc libc6-dev python3 python3-venv curl)
  local missing=()
  for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  # Packages must not start services of their own: the tests bring up private ones.
  local policy=/usr/sbin/policy-rc.d made=0
  [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy && made=1; }
  apt-get update -q
  for package in "${missing[@]}"; do
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$package" >/dev/null ||
      skipped+=("what needs the package $package: it could not be installed")
  done
  [ $made = 0 ] || rm -f $policy
}

step "the real parts"
if [ "$(id -u)" = 0 ] && have apt-get; then
  install_parts
else
  echo "not root, or no apt-get: using what is installed"
fi
step "the stock clients"
export KUBEWRIGHT_PARTS="${KUBEWRIGHT_PARTS:-$(realpath -m "${CARGO_TARGET_DIR:-target}")/parts}"
if have python3; then
  python3 tests/clients/install.py "$KUBEWRIGHT_PARTS"
fi
[ -e "$KUBEWRIGHT_PARTS/python/installed" ] || skipped+=("flows of the Python client: it could not be installed")
[ -e "$KUBEWRIGHT_PARTS/javascript/installed" ] || skipped+=("flows of the JavaScript client: it could not be installed")
[ "$(ls "$KUBEWRIGHT_PARTS"/bin/helm-* 2>/dev/null)" ] || skipped+=("flows of Helm: none could be installed")
have etcd || skipped+=("tests on a real etcd: no etcd is installed")
have containerd || skipped+=("tests on a real containerd: no containerd is installed")
[ "$(id -u)" = 0 ] || skipped+=("tests that need root (containerd, CNI plugins, full disks): this user is not root")
[ -x /usr/lib/cni/bridge ] || [ -x /opt/cni/bin/bridge ] || skipped+=("tests of real CNI plugins: none are installed")
[ "$(ls /usr/lib/google-cloud-sdk/bin/kubectl.1.* "$KUBEWRIGHT_PARTS"/bin/kubectl.1.* 2>/dev/null)" ] || have kubectl ||
  skipped+=("tests with kubectl: none is installed (1.27 or newer is needed)")

step "formatting"
cargo fmt --all -- --check

step "lints"
cargo clippy --workspace --all-targets --all-features --quiet -- -D warnings

step "tests"
cargo test --workspace --all-features --quiet --no-run
cargo test --workspace --all-features

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features --quiet

step "features"
# Without any piece, each piece that others do not bring along, and what hosts compose most.
for pieces in "" client controllers net runtime storage server server,reconcile server,controllers server,node; do
  cargo check --quiet --no-default-features --features "$pieces"
done
cargo check --quiet -p kubewright-store --no-default-features
cargo check --quiet

if have cargo-deny; then
  step "advisories and licences"
  cargo deny check --hide-inclusion-graph
else
  skipped+=("advisories and licences: cargo-deny is not installed")
fi

if [ $fast = 0 ]; then
  for example in $(find examples -maxdepth 1 -name "*.rs" -exec basename {} .rs \;); do
    step "example $example"
    timeout 120 cargo run --quiet --all-features --example "$example"
  done
  step "example cluster --once"
  data=$(mktemp -d)
  timeout 300 cargo run --quiet --all-features --example cluster -- --data "$data" --listen 127.0.0.1:0 --once
  # Its pods outlive it by design; here they end with their folder.
  pkill -f "$data" || true
  rm -rf "$data" || true
fi

step "done"
if [ ${#skipped[@]} -gt 0 ]; then
  echo "Skipped on this machine:"
  printf '  - %s\n' "${skipped[@]}"
else
  echo "Nothing was skipped."
fi
