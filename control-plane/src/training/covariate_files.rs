//! Covariates as files for the trainer: one for each, and a description that names them and the files of usage.

use crate::plane::SeriesView;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Result, Write};
use std::path::{Path, PathBuf};

/// Bytes of one covariate: the trainer reads files of 32 MiB at most, and takes one file for each. Customers that come when it is full have gaps.
const FILE_BYTES: usize = 31 << 20;
/// What is told to the trainer instead of the files of usage.
const DESCRIPTION: &str = "sources.toml";

/// Files that are being written.
#[derive(Debug)]
pub(crate) struct CovariateFiles {
    folder: PathBuf,
    /// By the covariate.
    open: BTreeMap<String, CovariateFile>,
}

#[derive(Debug)]
struct CovariateFile {
    file: BufWriter<File>,
    left_bytes: usize,
}

// === impl CovariateFiles ===

impl CovariateFiles {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            open: BTreeMap::new(),
        }
    }

    /// Adds what was measured of a customer, from the first step to the last of which something is known. Nothing makes no file: an empty one would be
    /// refused.
    pub(crate) fn add(&mut self, mut series: SeriesView) -> Result<()> {
        let (Some(first), Some(last)) = (
            series.usage.iter().position(Option::is_some),
            series.usage.iter().rposition(Option::is_some),
        ) else {
            return Ok(());
        };
        let steps_after = series.usage.len().saturating_sub(last.saturating_add(1));
        series.newest_step = series.newest_step.saturating_sub(steps_after as u64);
        series.usage.truncate(last.saturating_add(1));
        series.usage.drain(..first);
        let mut text = serde_json::to_vec(&series)?;
        text.push(b'\n');
        let one = match self.open.get_mut(&series.resource) {
            Some(one) => one,
            None => {
                let path = self.folder.join(file_of(&series.resource));
                let file = BufWriter::new(File::create_new(path)?);
                let left_bytes = FILE_BYTES;
                self.open
                    .entry(series.resource)
                    .or_insert(CovariateFile { file, left_bytes })
            }
        };
        let left_bytes = one.left_bytes.checked_sub(text.len());
        // Smaller ones that would still fit are no better sample than this one.
        one.left_bytes = left_bytes.unwrap_or(0);
        match left_bytes {
            Some(_) => one.file.write_all(&text),
            None => Ok(()),
        }
    }

    /// The description, if there is any covariate.
    pub(crate) fn finish(self, usage: &[PathBuf]) -> Result<Option<PathBuf>> {
        if self.open.is_empty() {
            return Ok(None);
        }
        let mut text = String::new();
        // Writing to a string cannot fail. No name needs an escape.
        for path in usage {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let _ = writeln!(text, "[[usage]]\nkind = \"file\"\npath = \"{name}\"");
        }
        for (name, mut one) in self.open {
            one.file.flush()?;
            let path = file_of(&name);
            let _ = writeln!(
                text,
                "[[covariates]]\nname = \"{name}\"\nkind = \"file\"\npath = \"{path}\""
            );
        }
        let path = self.folder.join(DESCRIPTION);
        std::fs::write(&path, text)?;
        Ok(Some(path))
    }
}

fn file_of(covariate: &str) -> String {
    format!("covariate-{covariate}.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(covariate: &str, usage: Vec<Option<f32>>) -> SeriesView {
        SeriesView {
            key: "hash:0".to_owned(),
            resource: covariate.to_owned(),
            step_ms: 60_000,
            newest_step: 9,
            usage,
        }
    }

    #[test]
    fn each_covariate_has_a_file_without_gaps_around_it_and_the_description_names_all() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = CovariateFiles::new(folder.path());
        files
            .add(series(
                "cpu",
                vec![None, Some(0.5), None, Some(2.0), None, None],
            ))
            .unwrap();
        files.add(series("cpu", vec![Some(1.0)])).unwrap();
        files
            .add(series("latency_s", vec![Some(0.0), None]))
            .unwrap();
        files.add(series("memory", vec![None, None])).unwrap();
        let path = files
            .finish(&[PathBuf::from("/somewhere/usage-0.json")])
            .unwrap();
        let text = std::fs::read_to_string(path.unwrap()).unwrap();
        assert_eq!(
            text,
            "[[usage]]\nkind = \"file\"\npath = \"usage-0.json\"\n\
             [[covariates]]\nname = \"cpu\"\nkind = \"file\"\npath = \"covariate-cpu.json\"\n\
             [[covariates]]\nname = \"latency_s\"\nkind = \"file\"\npath = \"covariate-latency_s.json\"\n"
        );
        let cpu = std::fs::read_to_string(folder.path().join("covariate-cpu.json")).unwrap();
        assert_eq!(cpu.lines().count(), 2);
        let first = cpu.lines().next().unwrap();
        assert!(
            first.contains("\"newest_step\":7,\"usage\":[0.5,null,2.0]"),
            "{first}"
        );
    }

    #[test]
    fn nothing_measured_is_nothing_to_tell() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = CovariateFiles::new(folder.path());
        files.add(series("cpu", vec![None])).unwrap();
        assert_eq!(files.finish(&[]).unwrap(), None);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn there_is_an_end_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = CovariateFiles::new(folder.path());
        let series = series("cpu", vec![Some(0.123_456_79); 1_000_000]);
        for _ in 0..4 {
            files.add(series.clone()).unwrap();
        }
        files.finish(&[]).unwrap();
        let length = std::fs::metadata(folder.path().join("covariate-cpu.json"))
            .unwrap()
            .len();
        assert!(length > 20 << 20 && length <= FILE_BYTES as u64, "{length}");
    }
}
