//! This process and others, as leases name them.

use std::path::Path;

use mill_snapshot::Holder;

/// What is known of the process that has a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is this process.
    This,
    /// It runs on this machine.
    Alive,
    /// It ran on this machine, and is gone.
    Gone,
    /// It is of another machine, or of another space of processes of this one: only time will tell.
    Elsewhere,
}

/// This process.
pub(crate) fn this() -> Holder {
    let pid = std::process::id();
    Holder {
        host: host(),
        boot: line("/proc/sys/kernel/random/boot_id"),
        space: std::fs::read_link("/proc/self/ns/pid").map_or_else(|_| String::new(), |space| space.display().to_string()),
        pid,
        started: stat(pid).map_or(0, |(_, started)| started),
    }
}

/// What is known of the process that has a lease, seen from another.
pub(crate) fn standing(holder: &Holder, this: &Holder) -> Standing {
    if holder == this {
        return Standing::This;
    }
    if (&holder.host, &holder.boot, &holder.space) != (&this.host, &this.boot, &this.space) {
        return Standing::Elsewhere;
    }
    match Path::new("/proc/self/stat").exists() {
        true if stat(holder.pid).is_some_and(|(state, started)| started == holder.started && !matches!(state, 'Z' | 'X')) => Standing::Alive,
        true => Standing::Gone,
        false if exists(holder.pid) => Standing::Alive,
        false => Standing::Gone,
    }
}

/// State and start of a process, where the system shows them as Linux does.
fn stat(pid: u32) -> Option<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program may have blanks and brackets.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn exists(pid: u32) -> bool {
    // SAFETY: signal 0 is sent to nobody; the call only says whether it could be.
    let outcome = unsafe { libc::kill(pid as libc::pid_t, 0) };
    outcome == 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

fn line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn host() -> String {
    let mut name = [0_u8; 256];
    // SAFETY: the buffer has the length that is given, less one for the zero at the end.
    let outcome = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) };
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(0);
    if outcome == 0 { String::from_utf8_lossy(&name[..end]).into_owned() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_known_by_number_and_start() {
        let this = this();
        assert!(!this.host.is_empty() && this.pid > 0);
        assert_eq!(standing(&this, &super::this()), Standing::This);
        let other = |change: &dyn Fn(&mut Holder)| {
            let mut holder = this.clone();
            change(&mut holder);
            standing(&holder, &this)
        };
        assert_eq!(other(&|holder| holder.host.push('x')), Standing::Elsewhere);
        assert_eq!(other(&|holder| holder.boot.push('x')), Standing::Elsewhere);
        assert_eq!(other(&|holder| holder.space.push('x')), Standing::Elsewhere);
        if this.started > 0 {
            // The number of a process that is gone was given to this one.
            assert_eq!(other(&|holder| holder.started -= 1), Standing::Gone);
            let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
            let started = stat(child.id()).unwrap().1;
            let pid = child.id();
            let of_child = |holder: &mut Holder| (holder.pid, holder.started) = (pid, started);
            assert_eq!(other(&of_child), Standing::Alive);
            child.kill().unwrap();
            // Dead, and not yet waited for.
            while stat(pid).is_some_and(|(state, _)| state != 'Z') {
                std::thread::yield_now();
            }
            assert_eq!(other(&of_child), Standing::Gone);
            child.wait().unwrap();
            assert_eq!(other(&of_child), Standing::Gone);
        }
    }
}
