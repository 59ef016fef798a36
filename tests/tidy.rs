//! Checks of the house style that no compiler makes: the arrows between crates, sizes, headers, and the lists of extensions.
//!
//! Sizes only ratchet down: what is over a limit today stands in `tests/tidy/` with its size, and may shrink but not grow.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use syn::visit::Visit;

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;
const EXAMPLE_LINES_MAX: usize = 120;

/// Each crate with the crates of ours that it may name, dev-dependencies included.
const ARROWS: &[(&str, &[&str])] = &[
    ("client", &["core"]),
    ("controllers", &["core", "reconcile", "sched"]),
    ("core", &["derive"]),
    ("core/derive", &[]),
    ("net", &["core"]),
    ("node", &["core", "net", "reconcile", "runtime", "storage"]),
    ("reconcile", &["client", "core"]),
    ("runtime", &["core"]),
    ("sched", &["core"]),
    ("server", &["core", "store"]),
    ("storage", &["core"]),
    ("store", &[]),
];

/// Crates that may do no I/O: no runtime, no sockets, no files, no clock.
const PURE: &[&str] = &["core", "sched"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the project, generated code apart, by its path from the root.
fn sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder").flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && name != "gen" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).expect("a readable file");
                found.insert(relative(&path), text);
            }
        }
    }
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned()
}

/// Fails with all the lines at once.
fn report(what: &str, lines: Vec<String>) {
    assert!(lines.is_empty(), "{what}:\n  {}", lines.join("\n  "));
}

#[test]
fn arrows_point_one_way() {
    let mut wrong = Vec::new();
    for (folder, allowed) in ARROWS {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("a manifest");
        let named: BTreeSet<&str> = manifest
            .lines()
            .filter_map(|line| line.strip_prefix("kubewright-"))
            .filter_map(|rest| rest.split([' ', '=', '.']).next())
            .collect();
        let further = named.iter().filter(|name| !allowed.contains(name));
        wrong.extend(further.map(|name| format!("{folder} names kubewright-{name}")));
        if manifest.lines().any(|line| line.starts_with("kubewright ")) {
            wrong.push(format!("{folder} names the facade"));
        }
    }
    report("these arrows are not in ARCHITECTURE.md", wrong);
}

#[test]
fn pure_crates_do_no_io() {
    let mut wrong = Vec::new();
    for folder in PURE {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("a manifest");
        wrong.extend(manifest.lines().filter(|l| l.starts_with("tokio")).map(|l| format!("{folder}: {l}")));
        for (path, text) in sources() {
            if !path.starts_with(&format!("{folder}/src/")) {
                continue;
            }
            for banned in
                ["std::fs", "std::net::Tcp", "std::time::SystemTime", "std::time::Instant", "std::thread"]
            {
                if text.contains(banned) {
                    wrong.push(format!("{path} names {banned}"));
                }
            }
        }
    }
    report("core and sched take values and give back values", wrong);
}

#[test]
fn every_file_says_why_it_exists() {
    let without = sources().into_iter().filter(|(_, text)| !text.starts_with("//!"));
    report("these files do not open with `//!`", without.map(|(path, _)| path).collect());
}

#[test]
fn examples_are_short() {
    let long = sources().into_iter().filter(|(path, text)| {
        path.starts_with("examples/")
            && path.matches('/').count() == 1
            && path != "examples/cluster.rs"
            && text.lines().count() > EXAMPLE_LINES_MAX
    });
    report("examples over 120 lines", long.map(|(path, _)| path).collect());
}

/// Lines of a file without its unit tests.
fn length(text: &str) -> usize {
    text.find("#[cfg(test)]\nmod tests").map_or(text, |at| &text[..at]).lines().count()
}

/// The functions of a file with their lengths, tests apart.
struct Functions {
    found: Vec<(String, usize)>,
}

impl Functions {
    fn note(&mut self, ident: &syn::Ident, block: &syn::Block) {
        let lines = block.brace_token.span.close().end().line - ident.span().start().line + 1;
        self.found.push((ident.to_string(), lines));
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.ident != "tests" {
            syn::visit::visit_item_mod(self, item);
        }
    }
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.note(&item.sig.ident, &item.block);
        syn::visit::visit_item_fn(self, item);
    }
    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.note(&item.sig.ident, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }
}

/// Compares what is over a limit with the list of what may be.
fn ratchet(list: &str, limit: usize, over: BTreeMap<String, usize>) {
    let path = root().join("tests/tidy").join(list);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let allowed: BTreeMap<String, usize> = text
        .lines()
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, size)| Some((name.to_owned(), size.parse().ok()?)))
        .collect();
    let mut wrong = Vec::new();
    for (name, size) in &over {
        match allowed.get(name) {
            None => wrong.push(format!("{name} has {size} lines; the limit is {limit}")),
            Some(max) if size > max => wrong.push(format!("{name} grew from {max} to {size} lines")),
            Some(max) if size < max => wrong.push(format!("{name} shrank to {size}: lower it in {list}")),
            Some(_) => {}
        }
    }
    let gone = allowed.keys().filter(|name| !over.contains_key(*name));
    wrong.extend(gone.map(|name| format!("{name} is within the limit now: take it out of {list}")));
    if std::env::var_os("TIDY_WRITE").is_some() {
        let lines: Vec<String> = over.iter().map(|(name, size)| format!("{name} {size}\n")).collect();
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, lines.concat()).expect("written");
        return;
    }
    report("sizes (split by meaning; see CONTRIBUTING.md)", wrong);
}

#[test]
fn files_are_short_enough_to_read() {
    let over = sources().into_iter().map(|(path, text)| (path, length(&text)));
    ratchet("files.txt", FILE_LINES_MAX, over.filter(|(_, n)| *n > FILE_LINES_MAX).collect());
}

#[test]
fn functions_are_short_enough_to_read() {
    let mut over = BTreeMap::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !path.contains("tests/")) {
        let file = syn::parse_file(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
        let mut functions = Functions { found: Vec::new() };
        functions.visit_file(&file);
        for (name, lines) in functions.found {
            if lines > FUNCTION_LINES_MAX {
                over.insert(format!("{path} {name}"), lines);
            }
        }
    }
    ratchet("functions.txt", FUNCTION_LINES_MAX, over);
}

/// Folders in which each file is an extension: each must be a module, and the module lines must be in alphabetical order.
#[test]
fn extensions_are_listed_in_order() {
    let mut wrong = Vec::new();
    for folder in ["controllers/src", "sched/src/plugins"] {
        let entry = ["mod.rs", "lib.rs"].iter().map(|f| root().join(folder).join(f)).find(|p| p.exists());
        let text = fs::read_to_string(entry.expect("a module file")).expect("readable");
        let mods: Vec<&str> = text
            .lines()
            .filter_map(|l| {
                l.trim_start_matches("pub ").trim_start_matches("pub(crate) ").strip_prefix("mod ")
            })
            .map(|l| l.trim_end_matches([';', '{', ' ']))
            .filter(|m| *m != "tests")
            .collect();
        if !mods.is_sorted() {
            wrong.push(format!("{folder}: the mod lines are not in order: {mods:?}"));
        }
        for entry in fs::read_dir(root().join(folder)).expect("a folder").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let stem = name.trim_end_matches(".rs");
            if !["mod", "lib"].contains(&stem) && !mods.contains(&stem) {
                wrong.push(format!("{folder}/{name} is no module"));
            }
        }
    }
    report("extensions", wrong);
}

/// The tests that `docs/conformance.md` names as those that hold upstream's behaviours: each must exist.
#[test]
fn the_table_of_conformance_names_tests_that_exist() {
    let sources = sources();
    let text = fs::read_to_string(root().join("docs/conformance.md")).expect("the table");
    let (mut wrong, mut named) = (Vec::new(), 0);
    for line in text.lines().filter(|l| l.starts_with("| ")) {
        let mut file = None;
        // What stands between backticks: a file, then its tests.
        for word in line.split('`').skip(1).step_by(2) {
            if word.ends_with(".rs") {
                let below = ["api/", "webhooks/"].iter().any(|p| word.starts_with(p));
                let path = if below { format!("server/tests/{word}") } else { word.to_owned() };
                file = sources.get(&path);
                if file.is_none() {
                    wrong.push(format!("{path} is not there"));
                }
            } else if let Some(source) = file {
                named += 1;
                if !source.contains(&format!("fn {word}(")) {
                    wrong.push(format!("no test is called {word}"));
                }
            }
        }
    }
    assert!(named > 100, "only {named} tests are named: is the table still one?");
    report("docs/conformance.md names tests that are not there", wrong);
}
