//! Where the output of a sink goes, and whether that has moved since a checkpoint.

use std::path::{Path, PathBuf, absolute};

use mill_protocol::{Error, Result};

/// A path as a checkpoint keeps it: the same from wherever the job is run.
pub(crate) fn text_of(path: &Path) -> String {
    absolute(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}

/// Refuses a target other than the one that the checkpoint has written to, if that one is still there. One that is gone
/// may have been moved here as a whole.
pub(crate) fn check_unmoved(name: &str, was: &str, is: &Path) -> Result<()> {
    let was = PathBuf::from(was);
    let real = |path: &Path| path.canonicalize().ok();
    let is_absolute = absolute(is).unwrap_or_else(|_| is.to_owned());
    // Of one file there are only its parts until the end.
    let is_there = real(&was).is_some() || crate::directory::parts_of(&was).exists();
    if was == is_absolute || !is_there || (real(&was).is_some() && real(&was) == real(is)) {
        return Ok(());
    }
    Err(Error::checkpoint(format!(
        "{name}: the path was {was:?} when the checkpoint was taken, and is {is_absolute:?}: what the job has written is at \
         the former and would not be continued there; write to the former path again, or move it to the new one as a \
         whole, or {NEW_SINK}"
    )))
}

/// That a sink writes to another `what` than the checkpoint has written to.
pub(crate) fn moved(sink: &str, what: &str, was: &str, is: &str) -> Error {
    Error::checkpoint(format!(
        "{sink}: the {what} was {was} when the checkpoint was taken, and is {is}: what the job has written is in the former and would not be \
         continued there; write to the former {what} again, or {NEW_SINK}"
    ))
}

/// What to do to write elsewhere from now on.
const NEW_SINK: &str = "give the sink another name with .name(…): it is then a new one, which gets what comes from now on";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_place_that_is_still_there_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (directory.path().join("a"), directory.path().join("b"));
        std::fs::create_dir(&a).unwrap();
        let was = text_of(&a);
        check_unmoved("sink", &was, &a).unwrap();
        let error = check_unmoved("sink", &was, &b).unwrap_err();
        assert!(error.message().contains("/a\" when") && error.message().contains("/b\":"), "{error}");
        std::os::unix::fs::symlink(&a, &b).unwrap();
        check_unmoved("sink", &was, &b).unwrap();
        std::fs::remove_file(&b).unwrap();
        std::fs::rename(&a, &b).unwrap();
        check_unmoved("sink", &was, &b).unwrap();
    }
}
