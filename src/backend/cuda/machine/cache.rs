//! Compiled programs: on disk for all processes, in memory for this one.

use crate::error::{Error, Result};
use std::collections::HashMap;
use std::ffi::OsString;
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The folder of compiled programs: `$SMOE_LAB_CACHE`, else
/// `$XDG_CACHE_HOME/smoe-lab`, else `~/.cache/smoe-lab`. One that cannot be written
/// is replaced by a folder of this process among the temporary files.
fn folder() -> Result<&'static Path> {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    if let Some(folder) = FOLDER.get() {
        return Ok(folder);
    }
    let folder = wanted_folder(|name| std::env::var_os(name)).filter(|folder| is_writable(folder));
    let folder = folder.map_or_else(own_folder, Ok)?;
    Ok(FOLDER.get_or_init(|| folder))
}

fn wanted_folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("SMOE_LAB_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("smoe-lab")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache").join("smoe-lab")))
}

fn is_writable(folder: &Path) -> bool {
    let probe = temporary(folder, "probe");
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&probe, b""));
    written.and_then(|()| std::fs::remove_file(&probe)).is_ok()
}

/// Nobody else's files are trusted: the folder must be new.
fn own_folder() -> Result<PathBuf> {
    let folder = temporary(&std::env::temp_dir(), "smoe-lab");
    std::fs::create_dir(&folder).map_err(|e| Error::file(&folder, "create", &e))?;
    Ok(folder)
}

/// A name that no other thread or process uses.
fn temporary(folder: &Path, name: &str) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let time = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos());
    let process = std::process::id();
    folder.join(format!("{name}.{process}-{count}-{time:x}"))
}

/// The file `name` of the cache. One that is there is trusted: its name holds the
/// hash of all that it is made of. Else `make` writes it, first under another name,
/// so that several processes may do so at once.
///
/// # Errors
/// Those of `make`; [`Error::File`] if not even a temporary folder can be written.
pub(in crate::backend::cuda) fn file(
    name: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    file_in(folder()?, name, make)
}

fn file_in(folder: &Path, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let path = folder.join(name);
    if path.is_file() {
        return Ok(path);
    }
    let unfinished = temporary(folder, name);
    let made = make(&unfinished).and_then(|()| {
        std::fs::rename(&unfinished, &path).map_err(|e| Error::file(&path, "write", &e))
    });
    if let Err(error) = made {
        // What is left of it, if anything.
        let _ = std::fs::remove_file(&unfinished);
        return Err(error);
    }
    Ok(path)
}

/// Values that are made when first asked for; threads that ask for the same one at
/// once wait for one of them to make it.
#[derive(Debug)]
pub(in crate::backend::cuda) struct MadeOnce<K, V>(Mutex<HashMap<K, Arc<Mutex<Option<V>>>>>);

impl<K: Eq + Hash, V: Clone> MadeOnce<K, V> {
    pub fn new() -> Self {
        MadeOnce(Mutex::new(HashMap::new()))
    }

    /// # Errors
    /// Those of `make`, which is tried again when next asked.
    pub fn get(&self, key: K, make: impl FnOnce() -> Result<V>) -> Result<V> {
        let place = {
            let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            places.entry(key).or_default().clone()
        };
        let mut value = place.lock().unwrap_or_else(PoisonError::into_inner);
        if value.is_none() {
            *value = Some(make()?);
        }
        Ok(value.clone().expect("made above"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(text: &'static str) -> impl FnOnce(&Path) -> Result<()> {
        move |path| std::fs::write(path, text).map_err(|e| Error::file(path, "write", &e))
    }

    #[test]
    fn the_folder_is_that_of_the_first_variable_that_is_set() {
        let folder = |set: &[(&str, &str)]| {
            wanted_folder(|name| {
                let found = set.iter().find(|(known, _)| *known == name)?;
                Some(OsString::from(found.1))
            })
        };
        let home = ("HOME", "/h");
        let own = [("SMOE_LAB_CACHE", "/own"), ("XDG_CACHE_HOME", "/x"), home];
        assert_eq!(folder(&own), Some(PathBuf::from("/own")));
        assert_eq!(folder(&own[1..]), Some(PathBuf::from("/x/smoe-lab")));
        assert_eq!(folder(&own[2..]), Some(PathBuf::from("/h/.cache/smoe-lab")));
        assert_eq!(folder(&[("SMOE_LAB_CACHE", "")]), None);
    }

    #[test]
    fn a_file_is_made_once_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let failing = |path: &Path| {
            std::fs::write(path, "half").unwrap();
            Err(Error::device("x", "no"))
        };
        assert!(file_in(folder.path(), "a", failing).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        file_in(folder.path(), "a", write("first")).unwrap();
        let path = file_in(folder.path(), "a", write("second")).unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "first");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_below_a_file_cannot_be_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!is_writable(&file.path().join("cache")));
        assert!(is_writable(&own_folder().unwrap()));
    }

    #[test]
    fn threads_that_ask_at_once_make_one_value() {
        let made = AtomicU64::new(0);
        let values: MadeOnce<u8, u64> = MadeOnce::new();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let make = || Ok(made.fetch_add(1, Ordering::Relaxed) + 5);
                    assert_eq!(values.get(3, make).unwrap(), 5);
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
        assert!(values.get(4, || Err(Error::device("x", "no"))).is_err());
        assert_eq!(values.get(4, || Ok(1)).unwrap(), 1);
    }
}
