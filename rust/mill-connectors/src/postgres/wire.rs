//! A connection that replicates: the same server, URL and TLS as the client's, with the messages that the client does not have.
//!
//! ```text
//!   connect    TLS? ─► startup with replication=database ─► authentication ─► ready
//!   query      text in, rows of texts out
//!   stream     START_REPLICATION ─► CopyData in both directions until one of the two ends it
//! ```
//!
//! Messages and authentication are those of `postgres-protocol`, which the client is made of. Reads end after [`POLL`] at the latest,
//! so that whoever reads can look whether it is still wanted, and answer the server.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ::postgres::config::{ChannelBinding as Binding, Host, SslMode, TargetSessionAttrs};
use ::postgres::fallible_iterator::FallibleIterator;
use bytes::{Buf, Bytes, BytesMut};
use mill_protocol::Error;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::ssl::SslRef;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::message::backend::{ErrorResponseBody, Header, Message};
use postgres_protocol::message::frontend;

use super::address::{Address, Attempt, Failure};

/// How long a read waits at most.
pub(super) const POLL: Duration = Duration::from_millis(100);
/// How long the server may take for what it is sent.
const WRITE_WAIT: Duration = Duration::from_secs(30);
/// How many bytes are read at once.
const READ_BYTES: usize = 256 << 10;
/// What the server begins a stream with, which the client does not know.
const COPY_BOTH_TAG: u8 = b'W';

trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// A connection.
pub(super) struct Wire {
    address: Address,
    call: String,
    stream: Box<dyn Stream>,
    input: BytesMut,
    chunk: Box<[u8]>,
    /// What ties a password to the connection, where it has TLS.
    binding: Option<Vec<u8>>,
}

/// What a stream brings.
pub(super) enum Streamed {
    /// A message of the server.
    Data(Bytes),
    /// Nothing for now.
    Nothing,
}

impl Wire {
    /// Connects as this user to this database.
    pub(super) fn connect(address: &Address, call: &str, user: &str, database: &str) -> Attempt<Wire> {
        let config = address.config();
        let ports = config.get_ports();
        let wait = config.get_connect_timeout().copied().unwrap_or(Duration::from_secs(10));
        let count = config.get_hosts().len().max(config.get_hostaddrs().len());
        let mut last = None;
        for index in 0..count {
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            let host = config.get_hosts().get(index);
            let number = config.get_hostaddrs().get(index);
            match Wire::connect_to(address, call, host, number, port, wait).and_then(|wire| wire.begin(user, database)) {
                Ok(wire) => return Ok(wire),
                Err(failure @ Failure::Final(_)) if count == 1 => return Err(failure),
                Err(failure) => last = Some(failure),
            }
        }
        Err(last.unwrap_or_else(|| Failure::Final(Error::internal("an address has a host"))))
    }

    fn connect_to(address: &Address, call: &str, host: Option<&Host>, number: Option<&IpAddr>, port: u16, wait: Duration) -> Attempt<Wire> {
        let failed = |error: std::io::Error| again(address, call, &format!("connect to {}", address.shown()), &error.to_string());
        let wire = |stream: Box<dyn Stream>, binding| Wire {
            address: address.clone(),
            call: call.to_owned(),
            stream,
            input: BytesMut::new(),
            chunk: vec![0; READ_BYTES].into_boxed_slice(),
            binding,
        };
        let name = match (host, number) {
            (Some(Host::Unix(folder)), None) => {
                let socket = UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).map_err(failed)?;
                socket.set_read_timeout(Some(POLL)).and_then(|()| socket.set_write_timeout(Some(WRITE_WAIT))).map_err(failed)?;
                return Ok(wire(Box::new(socket), None));
            }
            (Some(Host::Tcp(name)), _) => name.clone(),
            (_, Some(number)) => number.to_string(),
            (_, None) => return Err(Failure::Final(Error::internal("an address has a host"))),
        };
        let targets = match number {
            Some(number) => vec![(*number, port).into()],
            None => (name.as_str(), port).to_socket_addrs().map_err(failed)?.collect::<Vec<_>>(),
        };
        let mut found = Err(std::io::Error::new(ErrorKind::NotFound, "the name has no address"));
        for target in targets {
            found = TcpStream::connect_timeout(&target, wait);
            if found.is_ok() {
                break;
            }
        }
        let mut socket = found.map_err(failed)?;
        // A handshake is not interrupted: it may take as long as a connection may.
        let waits = |socket: &TcpStream, wait| socket.set_read_timeout(Some(wait)).and_then(|()| socket.set_write_timeout(Some(WRITE_WAIT)));
        socket.set_nodelay(true).and_then(|()| waits(&socket, wait)).map_err(failed)?;
        let Some((connector, is_host_verified)) = address.connector(call)? else {
            waits(&socket, POLL).map_err(failed)?;
            return Ok(wire(Box::new(socket), None));
        };
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        let mut answer = [0];
        socket.write_all(&request).and_then(|()| socket.read_exact(&mut answer)).map_err(failed)?;
        if answer != *b"S" {
            if address.config().get_ssl_mode() == SslMode::Prefer {
                waits(&socket, POLL).map_err(failed)?;
                return Ok(wire(Box::new(socket), None));
            }
            return Err(Failure::Final(Error::connector(format!("{call}: cannot connect to {}: server does not support TLS", address.shown()))));
        }
        let timer = socket.try_clone().map_err(failed)?;
        let configured = connector.configure().map(|config| config.verify_hostname(is_host_verified));
        let configured = configured.map_err(|e| Failure::Final(Error::connector(format!("{call}: TLS cannot be set up: {e}")).because(e)))?;
        let secret = configured.connect(&name, socket).map_err(|e| {
            let text = e.to_string();
            let failure = again(address, call, &format!("connect to {}", address.shown()), &format!("error performing TLS handshake: {text}"));
            if text.contains("certificate verify failed") { Failure::Final(failure.into_error()) } else { failure }
        })?;
        waits(&timer, POLL).map_err(failed)?;
        let binding = end_point(secret.ssl());
        Ok(wire(Box::new(secret), binding))
    }

    /// Says who asks, and shows it.
    fn begin(mut self, user: &str, database: &str) -> Attempt<Wire> {
        let config = self.address.config().clone();
        let doing = format!("connect to {}", self.address.shown());
        let mut parameters = vec![("user", user), ("database", database), ("replication", "database"), ("client_encoding", "UTF8")];
        parameters.extend(config.get_application_name().map(|name| ("application_name", name)));
        parameters.extend(config.get_options().map(|options| ("options", options)));
        let mut out = BytesMut::new();
        frontend::startup_message(parameters, &mut out).map_err(|e| self.again(&doing, &e.to_string()))?;
        self.write(&out)?;
        let end = Instant::now() + config.get_connect_timeout().copied().unwrap_or(Duration::from_secs(10)).max(POLL) * 3;
        let password = |what: &Wire| {
            config.get_password().ok_or_else(|| {
                Failure::Final(Error::connector(format!(
                    "{}: cannot {doing}: password missing; put it into the URL, or into the environment variable PGPASSWORD",
                    what.call
                )))
            })
        };
        let mut scram: Option<ScramSha256> = None;
        loop {
            let Some(message) = self.message()? else {
                if Instant::now() >= end {
                    return Err(self.again(&doing, "the server does not answer"));
                }
                continue;
            };
            let mut out = BytesMut::new();
            let mut wrong = |e: std::io::Error| refused(&self.call, &doing, &format!("authentication error: {e}"));
            match message {
                Message::AuthenticationOk => {
                    if config.get_channel_binding() == Binding::Require && scram.is_none() {
                        return Err(refused(&self.call, &doing, "authentication error: server did not use channel binding"));
                    }
                }
                Message::AuthenticationCleartextPassword => frontend::password_message(password(&self)?, &mut out).map_err(&mut wrong)?,
                Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(user.as_bytes(), password(&self)?, body.salt());
                    frontend::password_message(hash.as_bytes(), &mut out).map_err(&mut wrong)?;
                }
                Message::AuthenticationSasl(body) => {
                    let mechanisms: Vec<String> = body.mechanisms().map(|name| Ok(name.to_owned())).collect().map_err(&mut wrong)?;
                    let binding = self.binding.clone().filter(|_| config.get_channel_binding() != Binding::Disable);
                    let is_bound = mechanisms.iter().any(|name| name == SCRAM_SHA_256_PLUS) && binding.is_some();
                    if !is_bound && config.get_channel_binding() == Binding::Require {
                        return Err(refused(&self.call, &doing, "authentication error: server did not use channel binding"));
                    }
                    let (mechanism, binding) = match binding {
                        Some(binding) if is_bound => (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(binding)),
                        Some(_) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
                        None => (SCRAM_SHA_256, ChannelBinding::unsupported()),
                    };
                    if !is_bound && !mechanisms.iter().any(|name| name == SCRAM_SHA_256) {
                        return Err(refused(&self.call, &doing, "authentication error: the server asks for a way that is not known"));
                    }
                    let begun = scram.insert(ScramSha256::new(password(&self)?, binding));
                    frontend::sasl_initial_response(mechanism, begun.message(), &mut out).map_err(&mut wrong)?;
                }
                Message::AuthenticationSaslContinue(body) => {
                    let Some(scram) = &mut scram else { return Err(self.again(&doing, "unexpected message")) };
                    scram.update(body.data()).map_err(&mut wrong)?;
                    frontend::sasl_response(scram.message(), &mut out).map_err(&mut wrong)?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    let Some(scram) = &mut scram else { return Err(self.again(&doing, "unexpected message")) };
                    scram.finish(body.data()).map_err(&mut wrong)?;
                }
                Message::ErrorResponse(body) => return Err(self.refusal(&doing, &body)),
                Message::BackendKeyData(_) | Message::ParameterStatus(_) | Message::NoticeResponse(_) => {}
                Message::ReadyForQuery(_) => break,
                _ => return Err(refused(&self.call, &doing, "authentication error: the server asks for a way that is not known")),
            }
            self.write(&out)?;
        }
        if config.get_target_session_attrs() == TargetSessionAttrs::ReadWrite {
            let rows = self.query("SHOW transaction_read_only", &|| false)?;
            if rows.first().and_then(|row| row.first()).and_then(Option::as_deref) == Some("on") {
                return Err(self.again(&doing, "database does not allow writes"));
            }
        }
        Ok(self)
    }

    /// Asks something; returns the rows. Whoever is not wanted any more gives up.
    pub(super) fn query(&mut self, sql: &str, is_over: &dyn Fn() -> bool) -> Attempt<Vec<Vec<Option<String>>>> {
        let doing = "read changes";
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out).map_err(|e| self.again(doing, &e.to_string()))?;
        self.write(&out)?;
        let (mut rows, mut failed) = (Vec::new(), None);
        loop {
            let Some(message) = self.message()? else {
                if is_over() {
                    return Err(self.again(doing, "the job ends"));
                }
                continue;
            };
            match message {
                Message::DataRow(body) => {
                    let (buffer, mut ranges, mut row) = (body.buffer(), body.ranges(), Vec::new());
                    while let Some(range) = ranges.next().map_err(|e| self.again(doing, &e.to_string()))? {
                        row.push(range.map(|range| String::from_utf8_lossy(&buffer[range]).into_owned()));
                    }
                    rows.push(row);
                }
                Message::ErrorResponse(body) => failed = Some(self.refusal(doing, &body)),
                Message::ReadyForQuery(_) => return failed.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    /// Begins a stream.
    pub(super) fn start(&mut self, sql: &str, is_over: &dyn Fn() -> bool) -> Attempt<()> {
        let doing = "read changes";
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out).map_err(|e| self.again(doing, &e.to_string()))?;
        self.write(&out)?;
        loop {
            if self.take_copy_both() {
                return Ok(());
            }
            match self.parsed()? {
                Some(Message::ErrorResponse(body)) => return Err(self.refusal(doing, &body)),
                Some(_) => {}
                None if !self.fill()? && is_over() => return Err(self.again(doing, "the job ends")),
                None => {}
            }
        }
    }

    /// What comes next in a stream, waiting no longer than [`POLL`].
    pub(super) fn next(&mut self) -> Attempt<Streamed> {
        let doing = "read changes";
        match self.message()? {
            Some(Message::CopyData(body)) => Ok(Streamed::Data(body.into_bytes())),
            Some(Message::ErrorResponse(body)) => Err(self.refusal(doing, &body)),
            Some(Message::CopyDone | Message::CommandComplete(_)) => Err(self.again(doing, "the server has ended the stream")),
            Some(_) | None => Ok(Streamed::Nothing),
        }
    }

    /// Whether the next message has come as a whole, so that it is not waited for.
    pub(super) fn has_message(&self) -> bool {
        matches!(Header::parse(&self.input), Ok(Some(header)) if self.input.len() > header.len() as usize)
    }

    /// Sends something in a stream.
    pub(super) fn send(&mut self, data: &[u8]) -> Attempt<()> {
        let mut out = BytesMut::new();
        frontend::CopyData::new(data).map_err(|e| self.again("read changes", &e.to_string()))?.write(&mut out);
        self.write(&out)
    }

    /// Takes the message that a stream begins with, if that one is the next and has come.
    fn take_copy_both(&mut self) -> bool {
        match Header::parse(&self.input) {
            Ok(Some(header)) if header.tag() == COPY_BOTH_TAG && self.has_message() => {
                self.input.advance(header.len() as usize + 1);
                true
            }
            _ => false,
        }
    }

    /// The next message of those that have come, and that the client knows.
    fn parsed(&mut self) -> Attempt<Option<Message>> {
        if self.input.first() == Some(&COPY_BOTH_TAG) {
            return Ok(None);
        }
        Message::parse(&mut self.input).map_err(|e| self.again("understand the server", &e.to_string()))
    }

    /// The next message, or nothing if it has not come in time.
    fn message(&mut self) -> Attempt<Option<Message>> {
        for is_last in [false, true] {
            if let Some(message) = self.parsed()? {
                return Ok(Some(message));
            }
            if is_last || !self.fill()? {
                break;
            }
        }
        Ok(None)
    }

    /// Reads what there is; `false` if nothing has come in time.
    fn fill(&mut self) -> Attempt<bool> {
        let mut chunk = std::mem::take(&mut self.chunk);
        let read = loop {
            match self.stream.read(&mut chunk) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let outcome = match read {
            Ok(0) => Err(self.again("read changes", "connection closed")),
            Ok(count) => {
                self.input.extend_from_slice(&chunk[..count]);
                Ok(true)
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(e) => Err(self.again("read changes", &e.to_string())),
        };
        self.chunk = chunk;
        outcome
    }

    fn write(&mut self, out: &[u8]) -> Attempt<()> {
        let written = self.stream.write_all(out).and_then(|()| self.stream.flush());
        written.map_err(|e| self.again("send to the server", &e.to_string()))
    }

    fn again(&self, doing: &str, why: &str) -> Failure {
        again(&self.address, &self.call, doing, why)
    }

    /// What the server says.
    fn refusal(&self, doing: &str, body: &ErrorResponseBody) -> Failure {
        let (mut code, mut text, mut detail) = (String::new(), String::new(), String::new());
        let mut fields = body.fields();
        while let Ok(Some(field)) = fields.next() {
            let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'C' => code = value,
                b'M' => text = value,
                b'D' => detail = format!(" ({})", value.trim_end_matches('.')),
                _ => {}
            }
        }
        self.address.refused(&self.call, doing, &code, &format!("{text}{detail}"))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let mut out = BytesMut::new();
        frontend::terminate(&mut out);
        // The server ends the session at the end of the connection, too.
        let _ = self.write(&out);
    }
}

fn again(address: &Address, call: &str, doing: &str, why: &str) -> Failure {
    Failure::Again(Error::connector(format!("{call}: cannot {doing}: {}", address.without_secrets(why))))
}

fn refused(call: &str, doing: &str, why: &str) -> Failure {
    Failure::Final(Error::connector(format!("{call}: cannot {doing}: {why}")))
}

/// What ties a password to this very connection: the hash of the server's certificate (RFC 5929).
fn end_point(ssl: &SslRef) -> Option<Vec<u8>> {
    let certificate = ssl.peer_certificate()?;
    let algorithms = certificate.signature_algorithm().object().nid().signature_algorithms()?;
    let digest = match algorithms.digest {
        Nid::MD5 | Nid::SHA1 => MessageDigest::sha256(),
        digest => MessageDigest::from_nid(digest)?,
    };
    Some(certificate.digest(digest).ok()?.to_vec())
}

#[cfg(test)]
mod tests;
