use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("evener-runtime-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        Self(root)
    }

    fn dir(&self) -> PathBuf {
        self.0.join("evener")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn it_is_made_private_and_comes_back_when_it_was_removed() {
    let place = Place::new("made");
    let dir = RuntimeDir::at(place.dir()).unwrap();
    assert_eq!(mode(dir.path()), 0o700);
    std::fs::remove_dir(dir.path()).unwrap();
    let file = dir.write_file("a", b"1", 0o640).unwrap();
    assert_eq!(mode(&file), 0o640);
    dir.write_file("a", b"22", 0o600).unwrap();
    assert_eq!((std::fs::read(&file).unwrap(), mode(&file)), (b"22".to_vec(), 0o600));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing temporary is left");
    assert!(dir.write_file("../b", b"", 0o600).is_err());
}

#[test]
fn what_is_not_private_is_refused_with_a_remedy() {
    let place = Place::new("refused");
    let refused = |part: &str| {
        let error = RuntimeDir::at(place.dir()).unwrap_err();
        assert!(matches!(&error, RuntimeDirError::Unfit { .. }), "{error}");
        assert!(error.to_string().contains(part) && error.to_string().contains("chmod 700"), "{error}");
    };
    symlink("/tmp", place.dir()).unwrap();
    refused("is a link");
    std::fs::remove_file(place.dir()).unwrap();
    std::fs::write(place.dir(), "").unwrap();
    refused("is a link or a file");
    std::fs::remove_file(place.dir()).unwrap();
    std::fs::create_dir(place.dir()).unwrap();
    std::fs::set_permissions(place.dir(), std::fs::Permissions::from_mode(0o750)).unwrap();
    refused("750");
    if rustix::process::geteuid().is_root() {
        std::fs::set_permissions(place.dir(), std::fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(place.dir(), Some(12345), None).unwrap();
        refused("belongs to user 12345");
    }
}

#[test]
fn a_folder_that_cannot_be_made_comes_with_a_remedy() {
    let place = Place::new("unmade");
    let error = RuntimeDir::at(place.0.join("missing/evener")).unwrap_err();
    assert!(error.to_string().contains("XDG_RUNTIME_DIR"), "{error}");
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn the_token_is_made_once_also_by_many_at_the_same_time() {
    let place = Place::new("token");
    let dir = RuntimeDir::at(place.dir()).unwrap();
    let threads: Vec<_> =
        std::iter::repeat_n(dir.clone(), 16).map(|dir| std::thread::spawn(move || dir.token().unwrap())).collect();
    let tokens: Vec<Token> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(tokens.iter().all(|token| *token == tokens[0]));
    assert_eq!(tokens[0].as_str().len(), 64);
    assert_eq!(format!("{:?}", tokens[0]), "Token(…)");
    assert_eq!(mode(&dir.path().join("token")), 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_token_that_others_may_read_or_that_is_none_is_refused() {
    let place = Place::new("open-token");
    let dir = RuntimeDir::at(place.dir()).unwrap();
    dir.token().unwrap();
    let file = dir.path().join("token");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(dir.token().unwrap_err().to_string().contains("open to other users"));
    dir.write_file("token", b"secret", 0o600).unwrap();
    assert!(dir.token().unwrap_err().to_string().contains("does not hold a token"));
    std::fs::remove_file(&file).unwrap();
    symlink("/dev/null", &file).unwrap();
    assert!(dir.token().unwrap_err().to_string().contains("is a link"));
}

#[test]
fn the_python_runtime_is_written_once_and_mended() {
    let place = Place::new("python");
    let dir = RuntimeDir::at(place.dir()).unwrap();
    let file = python_runtime(&dir, "print(1)\n").unwrap();
    let inode = || std::fs::metadata(&file).unwrap().ino();
    let before = inode();
    assert_eq!(python_runtime(&dir, "print(1)\n").unwrap(), file);
    assert_eq!(inode(), before, "it is not written again");
    std::fs::write(&file, "print(").unwrap();
    python_runtime(&dir, "print(1)\n").unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "print(1)\n");
    assert_ne!(python_runtime(&dir, "print(2)\n").unwrap(), file);
}
