//! The trainer's program: where it is, and whether it can be run at all, found out at the start and not by the first training.

use rustix::fs::{Access, access};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The trainer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(pub PathBuf);

/// Why a program cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Nothing has that name.
    #[error("there is no {}", .0.display())]
    Missing(PathBuf),
    /// It has no slash, and no folder of PATH has such a program.
    #[error("no folder of PATH has a program {}, and without a slash it is looked for nowhere else", .0.display())]
    NotInPath(PathBuf),
    /// A folder, or something that is no file either.
    #[error("{} is no file", .0.display())]
    NotAFile(PathBuf),
    /// This user may not run it.
    #[error("{} cannot be executed by this user (chmod +x)", .0.display())]
    NotExecutable(PathBuf),
}

// === impl Program ===

impl Program {
    /// The trainer beside this program.
    #[must_use]
    pub fn beside_us() -> Self {
        let beside = std::env::current_exe().unwrap_or_default();
        Self(beside.with_file_name("forebay-train"))
    }

    /// As somebody has named it: a name without a slash is looked for in the folders of `search`, as a shell does, and anything else is a path from here.
    /// The path that comes out is absolute, because the trainer runs in a folder of its own.
    ///
    /// # Errors
    /// When there is no program of that name.
    pub fn named(given: &Path, search: &OsStr) -> Result<Self, Unusable> {
        let is_bare = given.file_name() == Some(given.as_os_str());
        if !is_bare {
            let program = Self(absolute(given));
            return program.check().map(|()| program);
        }
        // One that cannot be executed does not hide another one behind it.
        let candidates = std::env::split_paths(search).map(|folder| absolute(&folder.join(given)));
        let found = candidates.map(Self).find(|program| program.check().is_ok());
        found.ok_or_else(|| Unusable::NotInPath(given.to_owned()))
    }

    /// Whether it can be run.
    ///
    /// # Errors
    /// When it is not there, no file, or not for this user.
    pub fn check(&self) -> Result<(), Unusable> {
        let Self(path) = self;
        let Ok(metadata) = std::fs::metadata(path) else {
            return Err(Unusable::Missing(path.clone()));
        };
        if !metadata.is_file() {
            return Err(Unusable::NotAFile(path.clone()));
        }
        access(path, Access::EXEC_OK).map_err(|_| Unusable::NotExecutable(path.clone()))
    }
}

/// Without a working directory nothing can be found from it.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn file(path: &Path, mode: u32) {
        fs::write(path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_name_is_looked_for_in_path_and_everything_else_is_a_path_from_here() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        for place in [&first, &second] {
            fs::create_dir(place).unwrap();
        }
        // A folder and a plain file of that name are no programs.
        fs::create_dir(first.join("trainer")).unwrap();
        file(&first.join("other"), 0o644);
        file(&second.join("trainer"), 0o755);
        file(&second.join("other"), 0o755);
        let search = std::env::join_paths([&first, &second]).unwrap();
        let named = |given: &str| Program::named(given.as_ref(), &search);
        assert_eq!(named("trainer"), Ok(Program(second.join("trainer"))));
        assert_eq!(named("other"), Ok(Program(second.join("other"))));
        assert_eq!(named("none"), Err(Unusable::NotInPath("none".into())));
        let from_here = std::env::current_dir().unwrap().join("trainer");
        assert_eq!(named("./trainer"), Err(Unusable::Missing(from_here)));
    }

    #[test]
    fn what_is_found_from_here_is_absolute() {
        // Tests run in the folder of their crate, whatever that is.
        let here = std::env::current_dir().unwrap();
        let program = std::env::current_exe().unwrap();
        let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
        let relative = up.join(program.strip_prefix("/").unwrap());
        let found = Program::named(&relative, OsStr::new("")).unwrap();
        assert!(found.0.is_absolute(), "{found:?}");
        assert!(found.check().is_ok());
    }

    #[test]
    fn what_cannot_be_run_is_refused_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |path: &Path| Program::named(path, OsStr::new("")).unwrap_err();
        let at = folder.path().to_owned();
        assert_eq!(refused(&at), Unusable::NotAFile(at.clone()));
        let plain = at.join("plain");
        file(&plain, 0o644);
        assert_eq!(refused(&plain), Unusable::NotExecutable(plain.clone()));
        let nowhere = at.join("nowhere");
        assert_eq!(refused(&nowhere), Unusable::Missing(nowhere.clone()));
    }
}
