//! What deploy/ ships, read as systemd and Redis read it, and the commands of the guide's pages.
//!
//! systemd itself was the worse alternative: it wants to be the first process of a machine.

use std::path::{Path, PathBuf};

/// The lines of a unit and of its drop-ins, in their order.
pub(crate) struct Unit(Vec<(String, String)>);

/// What stands in a file for something that a test has elsewhere.
pub(crate) type Places<'a> = [(&'a str, &'a str)];

// === impl Unit ===

impl Unit {
    /// Reads the files of deploy/systemd that are one unit.
    pub(crate) fn read(files: &[&str]) -> Self {
        let mut lines: Vec<(String, String)> = Vec::new();
        for file in files {
            let text = shipped(&format!("deploy/systemd/{file}")).replace("\\\n", " ");
            let assigned = text.lines().filter(|line| !line.starts_with('#'));
            for (key, value) in assigned.filter_map(|line| line.split_once('=')) {
                // An empty value takes back what was said before.
                match value.is_empty() && key.starts_with("Exec") {
                    true => lines.retain(|(other, _)| other != key),
                    false => lines.push((key.to_owned(), value.to_owned())),
                }
            }
        }
        Self(lines)
    }

    /// The only value of a key.
    pub(crate) fn value(&self, key: &str) -> &str {
        let mut values = self.0.iter().filter(|(other, _)| other == key);
        let (_, value) = values.next().unwrap_or_else(|| panic!("no {key}="));
        assert_eq!(values.next(), None, "{key}= is there twice");
        value
    }

    /// Program and arguments of `ExecStart`, with variables, and with what a test has elsewhere.
    pub(crate) fn command(
        &self,
        environment: &[(String, String)],
        places: &Places<'_>,
    ) -> Vec<String> {
        let mut line = self.value("ExecStart").to_owned();
        for (name, value) in environment {
            line = line.replace(&format!("${{{name}}}"), value);
        }
        let line = placed(&line, places);
        assert!(!line.contains("${"), "a variable is missing: {line}");
        line.split_whitespace().map(str::to_owned).collect()
    }
}

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap().to_owned()
}

/// A file of the checkout.
pub(crate) fn shipped(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A text with what a test has elsewhere. Each must be there, or nobody would notice that it has changed.
pub(crate) fn placed(text: &str, places: &Places<'_>) -> String {
    let mut text = text.to_owned();
    for (there, here) in places {
        assert!(text.contains(there), "no {there} in: {text}");
        text = text.replace(there, here);
    }
    text
}

/// The block of commands of a page that holds some words.
pub(crate) fn commands(page: &str, words: &str) -> String {
    let text = shipped(&format!("docs/guide/{page}"));
    let blocks = text.split("```").skip(1).step_by(2);
    let mut fitting = blocks.filter(|block| block.contains(words));
    let block = fitting.next();
    let block = block.unwrap_or_else(|| panic!("{page} has no commands with {words}"));
    assert_eq!(fitting.next(), None, "{page} has {words} twice");
    let (_language, commands) = block.split_once('\n').unwrap();
    commands.to_owned()
}

/// The assignments of a file of environment variables.
pub(crate) fn environment(text: &str) -> Vec<(String, String)> {
    let assigned = text.lines().filter_map(|line| line.split_once('='));
    assigned
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The lines of a configuration of Redis, as options of `redis-server`, but for those that a test has its own of.
pub(crate) fn redis_options(text: &str, own: &[&str]) -> Vec<String> {
    let lines = text.lines().map(str::trim);
    let settings = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut missing = own.to_vec();
    let mut options = Vec::new();
    for setting in settings {
        let mut words = setting.split_whitespace();
        let name = words.next().unwrap();
        if own.contains(&name) {
            missing.retain(|other| *other != name);
            continue;
        }
        options.push(format!("--{name}"));
        options.extend(words.map(|word| word.trim_matches('"').to_owned()));
    }
    assert_eq!(missing, [""; 0], "settings of a machine that are gone");
    options
}
