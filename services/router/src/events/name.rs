//! The default name of a router: unique, and the same after a restart.
//!
//! The fold treats two routers with one name as one writer and accepts only the newer process, so default names must differ. If the
//! platform names a process (a pod, a container), that name is used with a hash of the data directory, because two processes may share a
//! container. Otherwise a name is generated once and stored in the data directory.

use std::{fs, io, path::Path};

use serin_sketches::hash::hash64;

/// File in the data directory with a generated name.
const FILE: &str = "name";
/// Maximum length of the part of a platform's name that is used.
const LONGEST: usize = 180;

/// Determines the name of a router with this data directory.
pub(crate) fn choose(data_dir: &Path, chance: impl Fn() -> u64) -> io::Result<String> {
    match platform() {
        Some(host) => Ok(in_container(&host, &std::path::absolute(data_dir)?)),
        None => kept(data_dir, chance),
    }
}

/// The platform's name of this pod or container, if the process runs in one.
fn platform() -> Option<String> {
    let marks = ["/.dockerenv", "/run/.containerenv"];
    let inside =
        std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() || marks.iter().any(|mark| Path::new(mark).exists());
    let name = || std::env::var("HOSTNAME").ok().or_else(|| fs::read_to_string("/etc/hostname").ok());
    let name = inside.then(name)?.map(|name| name.trim().to_owned())?;
    (!name.is_empty()).then_some(name)
}

fn in_container(host: &str, data_dir: &Path) -> String {
    let mark = hash64(b"serin.router", data_dir.as_os_str().as_encoded_bytes()) & 0xffff;
    format!("{}-{mark:04x}", &host[..host.floor_char_boundary(LONGEST)])
}

fn kept(data_dir: &Path, chance: impl Fn() -> u64) -> io::Result<String> {
    let file = data_dir.join(FILE);
    match fs::read_to_string(&file) {
        Ok(name) if !name.trim().is_empty() => return Ok(name.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let name = format!("router-{:08x}", chance() & 0xffff_ffff);
    // Writes a temporary file and renames it: after a crash the file is complete or missing.
    let aside = data_dir.join("name.new");
    fs::write(&aside, &name)?;
    fs::rename(&aside, &file)?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_name_is_generated_once() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(kept(folder.path(), || 0x1_0000_beef).unwrap(), "router-0000beef");
        assert_eq!(kept(folder.path(), || 7).unwrap(), "router-0000beef");
        fs::write(folder.path().join(FILE), "\n").unwrap();
        assert_eq!(kept(folder.path(), || 7).unwrap(), "router-00000007");
    }

    #[test]
    fn two_processes_in_one_container_have_different_stable_names() {
        let name = |host, folder| in_container(host, Path::new(folder));
        assert_eq!(name("pod-7", "/data/a"), name("pod-7", "/data/a"));
        assert_ne!(name("pod-7", "/data/a"), name("pod-7", "/data/b"));
        assert_ne!(name("pod-7", "/data/a"), name("pod-8", "/data/a"));
        assert!(name("pod-7", "/data/a").starts_with("pod-7-"));
        assert!(name(&"pod".repeat(500), "/").len() <= 200);
    }
}
