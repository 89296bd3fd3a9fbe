//! How a server is reached: the URL, TLS, and what messages may show of either.
//!
//! A password is in the options of the client and nowhere else: what is shown is put together from host, port, user and database,
//! and what the client or the server says is looked through for the password before anybody sees it.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use ::mysql::prelude::Queryable as _;
use ::mysql::{Conn, DriverError, Opts, OptsBuilder, SslOpts};
use mill_protocol::{Error, Result};

pub(super) use crate::attempt::{Attempt, Failure};
use crate::url::{unescaped, without};

/// How long a server is waited for when a connection is made, unless the URL says otherwise.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// How long a connection may be silent before its server is asked whether it is there.
const IDLE_MS: u32 = 30_000;
/// How long a server may leave what was sent unacknowledged.
const SILENCE_MS: u32 = 60_000;
const PORT: u16 = 3306;

/// How the server has to show who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    /// No TLS.
    Disabled,
    /// TLS if the server has it.
    Preferred,
    /// TLS, with whoever answers.
    Required,
    /// A certificate that is signed by somebody who is trusted.
    VerifyCa,
    /// The same, of this very host.
    VerifyIdentity,
}

/// A database of a server.
#[derive(Clone)]
pub(super) struct Address {
    plain: Opts,
    /// The same with TLS, if it is wanted.
    encrypted: Option<Opts>,
    tls: Tls,
    pub(super) database: Option<String>,
    has_password: bool,
    shown: String,
    secrets: Vec<String>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Address {
    /// Reads a URL; `password` is that of the environment, for a URL without one.
    ///
    /// # Errors
    /// When it is not a URL of MySQL, or an option of it does not exist.
    pub(super) fn new(call: &str, url: &str, password: Option<&str>) -> Result<Address> {
        // No message repeats what was not understood: it may be a part of a password.
        let unreadable = |why: &str| {
            Error::plan(format!(
                "{call}: the URL cannot be read: {why}; it is written mysql://user@host:3306/database?ssl-mode=required, and characters \
                 such as @ : / ? # % in a name or password are written %40 %3A %2F %3F %23 %25"
            ))
        };
        let Some(rest) = ["mysql://", "mariadb://"].iter().find_map(|scheme| url.strip_prefix(scheme)) else {
            return Err(unreadable("it does not begin with mysql:// or mariadb://"));
        };
        let (base, query) = rest.split_once('?').unwrap_or((rest, ""));
        if query.contains('@') {
            return Err(unreadable("there is an @ after the first ?"));
        }
        let (authority, database) = base.split_once('/').unwrap_or((base, ""));
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (login, place),
            None => ("", authority),
        };
        if database.contains(['/', '@']) {
            return Err(unreadable("there is more than the name of a database after the host"));
        }
        let plain_text = |text: &str| unescaped(text).ok_or_else(|| unreadable("a part of it is not UTF-8"));
        let (user, in_url) = match login.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (login, None),
        };
        let mut secrets: Vec<String> = in_url.iter().map(|password| (*password).to_owned()).collect();
        let user = Some(plain_text(user)?).filter(|user| !user.is_empty());
        let password = match in_url {
            Some(password) => Some(plain_text(password)?),
            None => password.map(str::to_owned),
        };
        let (host, port) = host_and_port(place).ok_or_else(|| unreadable("the host or its port has no such form"))?;
        let host = plain_text(&host)?;
        let database = Some(plain_text(database)?).filter(|name| !name.is_empty());
        let (mut tls, mut root, mut socket, mut wait) = (None, None, None, CONNECT_WAIT);
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let Some((name, value)) = option.split_once('=') else { return Err(unreadable("an option has no value")) };
            match name {
                "ssl-mode" | "ssl_mode" | "sslmode" => {
                    tls = Some(match value.to_ascii_lowercase().replace('_', "-").as_str() {
                        "disabled" => Tls::Disabled,
                        "preferred" => Tls::Preferred,
                        "required" => Tls::Required,
                        "verify-ca" => Tls::VerifyCa,
                        "verify-identity" => Tls::VerifyIdentity,
                        _ => {
                            return Err(Error::plan(format!(
                                "{call}: {name} is {value:?}; it is disabled, preferred, required, verify-ca or verify-identity"
                            )));
                        }
                    });
                }
                "ssl-ca" | "ssl_ca" => root = Some(plain_text(value)?),
                "socket" => socket = Some(plain_text(value)?),
                "connect-timeout" | "connect_timeout" => {
                    wait = value.parse().ok().filter(|seconds| (1..=3600).contains(seconds)).map(Duration::from_secs).ok_or_else(|| {
                        Error::plan(format!("{call}: {name} is {value:?}; it is a whole number of seconds from 1 to 3600"))
                    })?;
                }
                _ => {
                    return Err(unreadable("it has an option that there is not: there are ssl-mode, ssl-ca, socket and connect-timeout"));
                }
            }
        }
        let tls = match (tls, &root) {
            // Who names certificates to trust wants them to be looked at.
            (None | Some(Tls::Required | Tls::Preferred), Some(_)) => Tls::VerifyCa,
            (tls, _) => tls.unwrap_or(if socket.is_some() { Tls::Disabled } else { Tls::Preferred }),
        };
        secrets.extend(password.clone());
        secrets.retain(|secret| !secret.is_empty());
        let shown = format!(
            "mysql://{}{}:{port}{}",
            user.as_deref().map(|user| format!("{user}@")).unwrap_or_default(),
            if host.contains(':') { format!("[{host}]") } else { host.clone() },
            database.as_deref().map(|name| format!("/{name}")).unwrap_or_default()
        );
        let has_password = password.is_some();
        let options = OptsBuilder::new()
            .ip_or_hostname(Some(host))
            .tcp_port(port)
            .socket(socket)
            .user(user)
            .pass(password)
            .db_name(database.clone())
            // Another way than the one that was named is not taken.
            .prefer_socket(false)
            .tcp_connect_timeout(Some(wait))
            .tcp_keepalive_time_ms(Some(IDLE_MS));
        #[cfg(target_os = "linux")]
        let options = options
            .tcp_keepalive_probe_interval_secs(Some(10))
            .tcp_keepalive_probe_count(Some(3))
            .tcp_user_timeout_ms(Some(SILENCE_MS));
        let ssl = SslOpts::default()
            .with_root_cert_path(root.map(std::path::PathBuf::from))
            .with_danger_skip_domain_validation(tls != Tls::VerifyIdentity)
            .with_danger_accept_invalid_certs(!matches!(tls, Tls::VerifyCa | Tls::VerifyIdentity));
        let encrypted = (tls != Tls::Disabled).then(|| Opts::from(options.clone().ssl_opts(ssl)));
        Ok(Address { plain: Opts::from(options), encrypted, tls, database, has_password, shown, secrets })
    }

    /// The server as messages have it, without a password.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Connects. Times are in UTC and texts in UTF-8, whatever the server is set to.
    pub(super) fn connect(&self, call: &str) -> Attempt<Conn> {
        let doing = format!("connect to {}", self.shown);
        let connected = match &self.encrypted {
            None => Conn::new(self.plain.clone()),
            Some(encrypted) => match Conn::new(encrypted.clone()) {
                Err(::mysql::Error::DriverError(DriverError::TlsNotSupported)) if self.tls == Tls::Preferred => Conn::new(self.plain.clone()),
                connected => connected,
            },
        };
        let mut client = connected.map_err(|e| self.failure(call, &doing, &e))?;
        for setting in ["SET NAMES utf8mb4", "SET time_zone = '+00:00'"] {
            client.query_drop(setting).map_err(|e| self.failure(call, &doing, &e))?;
        }
        Ok(client)
    }

    /// Ends a connection. If that does not arrive, its query ends when it finds nobody to send rows to.
    pub(super) fn end(&self, number: u32, call: &str) {
        if let Ok(mut client) = self.connect(call) {
            let _ = client.query_drop(format!("KILL CONNECTION {number}"));
        }
    }

    /// What went wrong, in the words of the server and without a password; and whether it passes.
    pub(super) fn failure(&self, call: &str, doing: &str, error: &::mysql::Error) -> Failure {
        use ::mysql::Error as E;
        let (mut text, is_passing) = match error {
            E::MySqlError(error) => {
                let text = format!("{} [error {}]", error.message.trim_end_matches('.'), error.code);
                (text, passes(error.code))
            }
            E::IoError(error) => (error.to_string(), true),
            E::CodecError(error) => {
                let text = error.to_string();
                let is_passing = !text.contains("too large");
                (text, is_passing)
            }
            E::DriverError(error) => {
                let is_passing = matches!(
                    error,
                    DriverError::ConnectTimeout
                        | DriverError::CouldNotConnect(_)
                        | DriverError::Timeout
                        | DriverError::PacketOutOfSync
                        | DriverError::UnexpectedPacket
                );
                (error.to_string(), is_passing)
            }
            E::TlsError(error) => {
                let text = error.to_string();
                let is_passing = !text.contains("certificate");
                (text, is_passing)
            }
            other => (other.to_string(), false),
        };
        let mut cause = error.source();
        while let Some(inner) = cause {
            let words = inner.to_string();
            if !text.contains(&words) && !matches!(error, E::MySqlError(_)) {
                text.push_str(&format!(": {words}"));
            }
            cause = inner.source();
        }
        if matches!(error, E::MySqlError(error) if error.code == 1045) && !self.has_password {
            text.push_str("; the password belongs into the URL, or into the environment variable MYSQL_PWD");
        }
        let error = Error::connector(format!("{call}: cannot {doing}: {}", without(&self.secrets, &text)));
        if is_passing { Failure::Again(error) } else { Failure::Final(error) }
    }
}

/// Whether an error of a server passes: it is about the connection, the load or the order of things, not about what was asked.
fn passes(code: u16) -> bool {
    matches!(
        code,
        // Too many connections; a server that goes down; a connection that was ended; a query that was interrupted.
        1040 | 1203 | 1226 | 1053 | 1077 | 1079 | 1080 | 1152 | 1184 | 1927 | 1317 | 1969 | 3024 | 3169
        // The network.
        | 1042 | 1043 | 1158..=1161
        // A transaction that met another.
        | 1205 | 1213 | 1020 | 1180
        // A server that only reads for now, or is not part of its cluster yet; memory and disk that are used up for now.
        | 1290 | 1792 | 1836 | 1047 | 3101 | 1037 | 1038 | 1041 | 1021 | 1114
    )
}

/// Takes `host:port` apart; an address of IPv6 is in brackets.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let host = if host.is_empty() { "localhost" } else { host };
    Some((host.to_owned(), port.map_or(Some(PORT), |port| port.parse().ok().filter(|port| *port > 0))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_has_no_password() {
        for (url, shown) in [
            ("mysql://ann:hunter2@db:3307/shop?ssl-mode=disabled", "mysql://ann@db:3307/shop"),
            ("mariadb://ann@db/shop", "mysql://ann@db:3306/shop"),
            ("mysql://ann:h%40nter2%3F@[::1]:99", "mysql://ann@[::1]:99"),
            ("mysql://", "mysql://localhost:3306"),
        ] {
            let address = Address::new("read_sql()", url, None).unwrap();
            assert_eq!(address.shown(), shown);
            assert!(!format!("{address:?}").contains("nter2"));
        }
    }

    #[test]
    fn a_url_that_cannot_be_read_is_not_repeated() {
        for url in ["mysql://ann:hunter2/x@db/shop", "mysql://ann:hunter2@db:port/x", "mysql://a:hunter2@b/x?y=1", "mysql://a@b/x?ssl-ca", "my:hunter2"] {
            let error = Address::new("read_sql()", url, None).unwrap_err();
            assert!(!error.message().contains("hunter2"), "{error}");
        }
    }
}
