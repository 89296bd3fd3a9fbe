//! How a server is reached: the URL, TLS, and what messages may show of either.
//!
//! A password is in the configuration of the client and nowhere else: what is shown is put together from host, port, user and
//! database, and what the client or the server says is looked through for the password before anybody sees it.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use ::postgres::config::{Host, SslMode};
use ::postgres::{CancelToken, Client, Config, NoTls};
use mill_protocol::{Error, Result};
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use postgres_openssl::MakeTlsConnector;

pub(super) use crate::attempt::{Attempt, Failure};
use crate::url::{unescaped, without};

/// How long a server is waited for when a connection is made, unless the URL says otherwise.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// How long a connection may be silent before its server is asked whether it is there.
const IDLE_WAIT: Duration = Duration::from_secs(30);
/// How long a server may leave what was sent unacknowledged.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How the server has to show who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    /// No TLS.
    Disable,
    /// TLS if the server has it.
    Prefer,
    /// TLS, with whoever answers.
    Require,
    /// A certificate that is signed by somebody who is trusted.
    VerifyCa,
    /// The same, of this very host.
    VerifyFull,
}

/// A database of a server.
#[derive(Clone)]
pub(super) struct Address {
    config: Config,
    tls: Tls,
    root: Option<String>,
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
    /// When it is not a URL of PostgreSQL, or an option of it does not exist.
    pub(super) fn new(call: &str, url: &str, password: Option<&str>) -> Result<Address> {
        // No message repeats what was not understood: it may be a part of a password.
        let unreadable = |why: &str| {
            Error::plan(format!(
                "{call}: the URL cannot be read: {why}; it is written postgresql://user@host:5432/database?sslmode=require, and \
                 characters such as @ : / ? # % in a name or password are written %40 %3A %2F %3F %23 %25"
            ))
        };
        if !["postgresql://", "postgres://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(unreadable("it does not begin with postgresql://"));
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        if query.contains('@') {
            return Err(unreadable("there is an @ after the first ?"));
        }
        let (mut tls, mut root, mut rest) = (Tls::Prefer, None, Vec::new());
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let Some((name, value)) = option.split_once('=') else { return Err(unreadable("an option has no value")) };
            match name {
                "sslmode" => {
                    tls = match value {
                        "disable" => Tls::Disable,
                        "prefer" | "allow" => Tls::Prefer,
                        "require" => Tls::Require,
                        "verify-ca" => Tls::VerifyCa,
                        "verify-full" => Tls::VerifyFull,
                        _ => {
                            return Err(Error::plan(format!(
                                "{call}: sslmode is {value:?}; it is disable, prefer, require, verify-ca or verify-full"
                            )));
                        }
                    };
                }
                "sslrootcert" => root = Some(unescaped(value).ok_or_else(|| unreadable("sslrootcert is not UTF-8"))?),
                "target_session_attrs" | "connect_timeout" | "application_name" | "options" | "keepalives" | "keepalives_idle"
                | "keepalives_interval" | "keepalives_retries" | "tcp_user_timeout" | "user" | "password" | "host" | "port"
                | "dbname" | "hostaddr" | "channel_binding" | "load_balance_hosts" => rest.push(option),
                _ => return Err(unreadable("it has an option that there is not")),
            }
        }
        // As libpq has it: who names certificates to trust wants them to be looked at.
        if root.is_some() && tls == Tls::Require {
            tls = Tls::VerifyCa;
        }
        let plain = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
        let mut config: Config = plain.parse().map_err(|_| unreadable("a part of it has no such form"))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            config.host("localhost");
        }
        if let (None, Some(password)) = (config.get_password(), password) {
            config.password(password);
        }
        if config.get_application_name().is_none() {
            config.application_name("millstream");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_WAIT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(SILENCE_MAX);
        }
        if config.get_keepalives_idle() > Duration::from_secs(3600) {
            config.keepalives_idle(IDLE_WAIT);
        }
        config.ssl_mode(match tls {
            Tls::Disable => SslMode::Disable,
            Tls::Prefer => SslMode::Prefer,
            Tls::Require | Tls::VerifyCa | Tls::VerifyFull => SslMode::Require,
        });
        let mut secrets: Vec<String> = Vec::new();
        if let Some(password) = config.get_password() {
            secrets.push(String::from_utf8_lossy(password).into_owned());
            let authority = base.split_once("//").map_or("", |(_, rest)| rest);
            if let Some((user, _)) = authority.rsplit_once('@') {
                secrets.extend(user.split_once(':').map(|(_, password)| password.to_owned()));
            }
            secrets.retain(|secret| !secret.is_empty());
        }
        let shown = shown(&config);
        Ok(Address { config, tls, root, shown, secrets })
    }

    /// The server as messages have it, without a password.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Connects.
    pub(super) fn connect(&self, call: &str) -> Attempt<Client> {
        let doing = format!("connect to {}", self.shown);
        match self.tls(call)? {
            None => self.config.connect(NoTls),
            Some(connector) => self.config.connect(connector),
        }
        .map_err(|e| self.failure(call, &doing, &e))
    }

    /// The configuration of the client.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Cancels a query of a connection. If that does not arrive, the query ends with its connection.
    pub(super) fn cancel(&self, token: &CancelToken, call: &str) {
        let _ = match self.tls(call) {
            Ok(Some(connector)) => token.cancel_query(connector),
            _ => token.cancel_query(NoTls),
        };
    }

    /// What makes connections of the client secret; nothing where none is to be.
    pub(super) fn tls(&self, call: &str) -> Result<Option<MakeTlsConnector>> {
        let Some((connector, is_host_verified)) = self.connector(call)? else { return Ok(None) };
        let mut connector = MakeTlsConnector::new(connector);
        if !is_host_verified {
            connector.set_callback(|config, _| {
                config.set_verify_hostname(false);
                Ok(())
            });
        }
        Ok(Some(connector))
    }

    /// What makes a connection secret, and whether the certificate has to be of the host.
    pub(super) fn connector(&self, call: &str) -> Result<Option<(SslConnector, bool)>> {
        if self.tls == Tls::Disable {
            return Ok(None);
        }
        let failed = |what: &str, e: openssl::error::ErrorStack| {
            Error::connector(format!("{call}: {what}: {e}")).because(e)
        };
        let mut builder = SslConnector::builder(SslMethod::tls()).map_err(|e| failed("TLS cannot be set up", e))?;
        let is_verified = matches!(self.tls, Tls::VerifyCa | Tls::VerifyFull);
        builder.set_verify(if is_verified { SslVerifyMode::PEER } else { SslVerifyMode::NONE });
        match (&self.root, is_verified) {
            (Some(root), true) => {
                builder.set_ca_file(root).map_err(|e| failed(&format!("sslrootcert {root:?} cannot be read"), e))?;
            }
            // An OpenSSL that comes with the package does not know where this system has its certificates.
            (None, true) => {
                if let Some(file) = openssl_probe::probe().cert_file {
                    builder.set_ca_file(&file).map_err(|e| failed(&format!("{file:?} cannot be read"), e))?;
                }
            }
            _ => {}
        }
        Ok(Some((builder.build(), self.tls == Tls::VerifyFull)))
    }

    /// What went wrong, in the words of the server and without a password; and whether it passes.
    pub(super) fn failure(&self, call: &str, doing: &str, error: &::postgres::Error) -> Failure {
        let (mut text, mut is_passing) = (String::new(), true);
        match error.as_db_error() {
            Some(error) => {
                text.push_str(error.message());
                if let Some(detail) = error.detail() {
                    text.push_str(&format!(" ({})", detail.trim_end_matches('.')));
                }
                if let Some(place) = error.where_() {
                    text.push_str(&format!(" (at {place})"));
                }
                text.push_str(&format!(" [SQLSTATE {}]", error.code().code()));
                is_passing = passes(error.code().code());
            }
            None => {
                text.push_str(&error.to_string());
                let mut cause = error.source();
                while let Some(inner) = cause {
                    let words = inner.to_string();
                    if !text.contains(&words) {
                        text.push_str(&format!(": {words}"));
                    }
                    cause = inner.source();
                }
                // What the client itself refuses (a wrong kind of parameter, no password) stays wrong.
                let is_ours = ["invalid configuration", "authentication error", "error serializing", "error deserializing"];
                if is_ours.iter().any(|ours| text.starts_with(ours)) || text.contains("certificate verify failed") {
                    is_passing = false;
                }
                if text.starts_with("invalid configuration: password missing") {
                    text.push_str("; put it into the URL, or into the environment variable PGPASSWORD");
                }
            }
        }
        let error = Error::connector(format!("{call}: cannot {doing}: {}", self.without_secrets(&text)));
        if is_passing { Failure::Again(error) } else { Failure::Final(error) }
    }

    /// What the server has refused with this code; and whether it passes.
    pub(super) fn refused(&self, call: &str, doing: &str, code: &str, text: &str) -> Failure {
        let error = Error::connector(format!("{call}: cannot {doing}: {} [SQLSTATE {code}]", self.without_secrets(text)));
        if passes(code) { Failure::Again(error) } else { Failure::Final(error) }
    }

    /// A text without the password.
    pub(super) fn without_secrets(&self, text: &str) -> String {
        without(&self.secrets, text)
    }
}

/// Whether an error of a server passes: it is about the connection, the load or the order of things, not about what was asked.
fn passes(code: &str) -> bool {
    // Connections; the operator intervenes; resources; a transaction that met another; a lock or a slot that was not free.
    code.starts_with("08")
        || matches!(
            code,
            "57P01" | "57P02" | "57P03" | "57P05" | "57014" | "53300" | "53200" | "53000" | "40001" | "40P01" | "40003" | "55P03" | "55006"
                | "25006" | "25P03"
        )
}

fn shown(config: &Config) -> String {
    let user = config.get_user().map(|user| format!("{user}@")).unwrap_or_default();
    let ports = config.get_ports();
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
    let mut hosts: Vec<String> = Vec::new();
    for (index, host) in config.get_hosts().iter().enumerate() {
        let name = match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.to_string_lossy().into_owned(),
        };
        hosts.push(format!("{name}:{}", port(index)));
    }
    if hosts.is_empty() {
        hosts = config.get_hostaddrs().iter().enumerate().map(|(index, ip)| format!("{ip}:{}", port(index))).collect();
    }
    let database = config.get_dbname().map(|name| format!("/{name}")).unwrap_or_default();
    format!("postgresql://{user}{}{database}", hosts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Address {
        Address::new("read_postgres()", url, None).unwrap()
    }

    #[test]
    fn what_is_shown_has_no_password() {
        for (url, shown) in [
            ("postgresql://ann:hunter2@db:5433/shop?sslmode=disable", "postgresql://ann@db:5433/shop"),
            ("postgres://ann@db/shop?password=hunter2", "postgresql://ann@db:5432/shop"),
            ("postgresql://ann:h%40nter2%3F@a,b/shop?application_name=x", "postgresql://ann@a:5432,b:5432/shop"),
        ] {
            let address = address(url);
            assert_eq!(address.shown(), shown);
            assert!(!format!("{address:?}").contains("nter2"), "{address:?}");
        }
    }

    #[test]
    fn a_url_that_cannot_be_read_is_not_repeated() {
        for url in [
            "db:hunter2@host/x", "postgresql://ann:hun?ter2=1@db/shop", "postgresql://ann@db/shop?hunter2=x",
            "postgresql://ann@db:hunter2/x", "host=db password=hunter2",
        ] {
            let error = Address::new("read_postgres()", url, None).unwrap_err();
            assert!(error.message().contains("postgresql://user@host") && !error.message().contains("ter2"), "{error}");
        }
    }

    #[test]
    fn a_text_is_cleared_of_the_password() {
        let address = address("postgresql://ann:h%40nter2@db/shop");
        assert_eq!(address.without_secrets("no h@nter2 and no h%40nter2"), "no … and no …");
    }

    #[test]
    fn certificates_that_are_named_are_looked_at() {
        let verified = |url| address(url).tls;
        assert_eq!(verified("postgresql://db/shop"), Tls::Prefer);
        assert_eq!(verified("postgresql://db/shop?sslmode=require"), Tls::Require);
        assert_eq!(verified("postgresql://db/shop?sslmode=require&sslrootcert=%2Fca.pem"), Tls::VerifyCa);
        assert_eq!(verified("postgresql://db/shop?sslmode=verify-full"), Tls::VerifyFull);
    }
}
