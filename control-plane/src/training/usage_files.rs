//! Usage as files for the trainer: series behind one another, in files of a size that it reads.

use crate::plane::SeriesView;
use std::fs::File;
use std::io::{BufWriter, Result, Write};
use std::path::{Path, PathBuf};

/// Values that are handed over at most: a thousand customers with four thousand steps each teach all that there is to learn, and it takes
/// minutes, not hours.
const VALUES_MOST: usize = 4_000_000;
/// Values in one file: the trainer reads files of 32 MiB at most.
const FILE_VALUES: usize = 1_000_000;

/// Files that are being written.
#[derive(Debug)]
pub(crate) struct UsageFiles {
    folder: PathBuf,
    paths: Vec<PathBuf>,
    open: Option<BufWriter<File>>,
    values: usize,
    values_of_file: usize,
}

// === impl UsageFiles ===

impl UsageFiles {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            paths: Vec::new(),
            open: None,
            values: 0,
            values_of_file: 0,
        }
    }

    /// Whether there is enough.
    pub(crate) fn is_full(&self) -> bool {
        self.values >= VALUES_MOST
    }

    /// Adds a series from the first step on of which something is known; one in which nothing was used teaches nothing. Steps before that are no gaps: nobody has
    /// seen them, and a season is not seen in them. Says whether it has added anything.
    pub(crate) fn add(&mut self, mut series: SeriesView) -> Result<bool> {
        let first = series.usage.iter().position(Option::is_some);
        series.usage.drain(..first.unwrap_or(series.usage.len()));
        if !series.usage.iter().flatten().any(|usage| *usage > 0.0) {
            return Ok(false);
        }
        if self.values_of_file >= FILE_VALUES {
            self.close()?;
        }
        let mut file = match self.open.take() {
            Some(file) => file,
            None => {
                let path = self.folder.join(format!("usage-{}.json", self.paths.len()));
                let file = BufWriter::new(File::create_new(&path)?);
                self.paths.push(path);
                file
            }
        };
        serde_json::to_writer(&mut file, &series)?;
        file.write_all(b"\n")?;
        self.open = Some(file);
        self.values = self.values.saturating_add(series.usage.len());
        self.values_of_file = self.values_of_file.saturating_add(series.usage.len());
        Ok(true)
    }

    /// All files.
    pub(crate) fn finish(mut self) -> Result<Vec<PathBuf>> {
        self.close()?;
        Ok(self.paths)
    }

    fn close(&mut self) -> Result<()> {
        self.values_of_file = 0;
        match self.open.take() {
            Some(mut file) => file.flush(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(usage: Vec<Option<f32>>) -> SeriesView {
        SeriesView {
            key: "hash:0".to_owned(),
            resource: "requests".to_owned(),
            step_ms: 60_000,
            newest_step: 9,
            usage,
        }
    }

    #[test]
    fn files_end_when_they_are_large_and_nobody_is_written_who_used_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = UsageFiles::new(folder.path());
        files.add(series(vec![None, Some(0.0)])).unwrap();
        let large = series(vec![Some(1.0); FILE_VALUES / 2]);
        for _ in 0..3 {
            files.add(large.clone()).unwrap();
        }
        let paths = files.finish().unwrap();
        let lines: Vec<usize> = paths
            .iter()
            .map(|path| std::fs::read_to_string(path).unwrap().lines().count())
            .collect();
        assert_eq!(lines, [2, 1]);
    }

    #[test]
    fn what_is_before_the_first_known_step_is_left_out_and_gaps_behind_it_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = UsageFiles::new(folder.path());
        files
            .add(series(vec![None, None, Some(2.0), None, Some(3.0)]))
            .unwrap();
        let paths = files.finish().unwrap();
        let text = std::fs::read_to_string(&paths[0]).unwrap();
        assert!(text.contains("\"usage\":[2.0,null,3.0]"), "{text}");
    }

    #[test]
    fn there_is_an_end_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = UsageFiles::new(folder.path());
        let series = series(vec![Some(1.0); 100_000]);
        let mut added = 0;
        while !files.is_full() {
            files.add(series.clone()).unwrap();
            added += 1;
        }
        assert_eq!(added, VALUES_MOST / 100_000);
    }
}
