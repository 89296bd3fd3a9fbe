//! A bucket of a store, queried from threads that block.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::str::FromStr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use mill_protocol::{Ending, Error, Result};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientConfigKey, ClientOptions, Error as StoreError, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _,
    RetryConfig,
};

use super::client::{Patience, wait};
use super::options::Options;
use super::place::{Place, Scheme};
use super::whole::{Extent, WholeFiles};

/// How often and how long a request is repeated that the store does not answer, or answers with a failure of its own: while a job
/// runs, and before it, where somebody waits for the plan.
pub(super) const RETRIES: (usize, Duration) = (12, Duration::from_secs(60));
const RETRIES_OF_PLAN: (usize, Duration) = (3, Duration::from_secs(10));
/// How long connecting may take.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How long a server may say nothing in the middle of an answer.
const SILENCE: Duration = Duration::from_secs(20);
/// How long an answer may take as a whole, while bytes of it come.
const WHOLE_WAIT: Duration = Duration::from_secs(3600);
/// What stores call an upload that is not there, or not any more.
const NO_SUCH_UPLOAD: [&str; 3] = ["NoSuchUpload", "InvalidBlockList", "InvalidPart"];
/// Whom clients ask for credentials if none are given: the machine that they run on.
const ASKED_FOR_CREDENTIALS: [&str; 4] = ["169.254.169.254", "/latest/api/token", "/latest/meta-data", "metadata.google.internal"];
/// What stores call a request that they do not allow, where the client has no kind of error for it, as for lists.
const DENIED: [&str; 7] =
    ["AccessDenied", "403 Forbidden", "SignatureDoesNotMatch", "InvalidAccessKeyId", "AuthenticationFailed", "AuthorizationFailure", "PERMISSION_DENIED"];
/// The pauses before an answer that broke off is asked for again.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Parts are this large, but for the last, and larger in objects that would have too many of them.
const PART_BYTES: u64 = 8 << 20;
const PARTS_MAX: u64 = 9_000;
/// So many uploads are given up at the same time.
const ABORTS_AT_ONCE: usize = 16;
/// So much is shown of what a store says.
const SAID_CHARS_MAX: usize = 400;

/// A bucket, or an HDFS, or a host of the web.
pub(crate) struct Bucket {
    scheme: Scheme,
    root: String,
    clients: Clients,
    of_plan: Clients,
    secrets: Vec<String>,
    has_credentials: bool,
}

/// The same client with one or the other patience.
#[derive(Clone)]
struct Clients {
    objects: Arc<dyn ObjectStore>,
    uploads: Uploads,
}

/// How objects are written that become visible later.
#[derive(Clone)]
enum Uploads {
    Parts(Arc<dyn MultipartStore>),
    #[cfg_attr(not(feature = "hdfs"), expect(dead_code, reason = "only HDFS takes whole files"))]
    Whole(Arc<dyn WholeFiles>),
    /// Nobody writes to the web.
    None,
}

/// An upload that has begun: the key, and what the store calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Multipart {
    pub(crate) key: String,
    pub(crate) id: String,
}

/// Clients by bucket, and by what made them.
static BUCKETS: LazyLock<Mutex<HashMap<(String, u64), Arc<Bucket>>>> = LazyLock::new(Mutex::default);
/// More clients are not kept.
const BUCKETS_MAX: usize = 64;

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing of the client, which knows secrets.
        f.write_str(&self.root)
    }
}

impl Bucket {
    /// The client of the bucket that this place is in.
    ///
    /// # Errors
    /// When an option has a value that makes no sense, or one is missing.
    pub(crate) fn of(place: &Place) -> Result<Arc<Bucket>> {
        let root = place.root();
        let options = Options::of(place.scheme, &root);
        let key = (root.clone(), options.print() ^ u64::from(std::process::id()));
        let buckets = || BUCKETS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets().get(&key) {
            return Ok(Arc::clone(bucket));
        }
        let secrets = options.secrets();
        let refused = |e: StoreError| Error::plan(format!("{root}: the options of the store do not fit: {}", cleaned(&e.to_string(), &secrets)));
        let clients = build(place, &options, RETRIES).map_err(refused)?;
        let of_plan = build(place, &options, RETRIES_OF_PLAN).map_err(refused)?;
        let has_credentials = has_credentials(place.scheme, &options);
        let bucket = Arc::new(Bucket { scheme: place.scheme, root: root.clone(), clients, of_plan, secrets, has_credentials });
        let mut buckets = buckets();
        if buckets.len() >= BUCKETS_MAX {
            buckets.clear();
        }
        buckets.insert(key, Arc::clone(&bucket));
        Ok(bucket)
    }

    /// As in `s3://bucket`.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    fn url(&self, key: &str) -> String {
        format!("{}/{key}", self.root)
    }

    /// What the store knows of an object; `None` if there is none.
    pub(crate) fn look(&self, key: &Path, is_plan: bool, ending: Option<&Ending>) -> Result<Option<ObjectMeta>> {
        let (objects, at) = (Arc::clone(&self.patient(is_plan).objects), key.clone());
        match wait(&self.url(key.as_ref()), ending, async move { objects.head(&at).await })? {
            Ok(found) => Ok(Some(found)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("look at", key.as_ref(), &error)),
        }
    }

    /// All objects below a prefix, which ends where a part of a key does.
    pub(crate) fn list(&self, prefix: &str, ending: Option<&Ending>) -> Result<Vec<ObjectMeta>> {
        let (objects, below) = (Arc::clone(&self.of_plan.objects), prefix_of(prefix)?);
        let listing = async move { objects.list(below.as_ref()).try_collect::<Vec<_>>().await };
        wait(&self.url(prefix), ending, listing)?.map_err(|e| self.failed("list", prefix, &e))
    }

    /// One object below a prefix, which ends where a part of a key does, if there is any.
    pub(crate) fn first(&self, prefix: &str, ending: Option<&Ending>) -> Result<Option<ObjectMeta>> {
        let (objects, below) = (Arc::clone(&self.of_plan.objects), prefix_of(prefix)?);
        let listing = async move { objects.list(below.as_ref()).try_next().await };
        wait(&self.url(prefix), ending, listing)?.map_err(|e| self.failed("list", prefix, &e))
    }

    /// The client for requests of a job.
    pub(super) fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.clients.objects)
    }

    /// The client for uploads in parts, if the store has them.
    pub(super) fn parts(&self) -> Option<Arc<dyn MultipartStore>> {
        match &self.clients.uploads {
            Uploads::Parts(parts) => Some(Arc::clone(parts)),
            Uploads::Whole(_) | Uploads::None => None,
        }
    }

    /// Whether an answer says that there is no such bucket.
    pub(super) fn is_gone(error: &StoreError) -> bool {
        let text = error.to_string();
        text.contains("NoSuchBucket") || text.contains("ContainerNotFound")
    }

    /// The objects directly below a prefix, and the prefixes there are below it.
    pub(crate) fn list_level(&self, prefix: &str, ending: Option<&Ending>) -> Result<(Vec<ObjectMeta>, Vec<Path>)> {
        let (objects, below) = (Arc::clone(&self.of_plan.objects), prefix_of(prefix)?);
        let listing = async move { objects.list_with_delimiter(below.as_ref()).await };
        let found = wait(&self.url(prefix), ending, listing)?.map_err(|e| self.failed("list", prefix, &e))?;
        Ok((found.objects, found.common_prefixes))
    }

    /// Some bytes of one version of an object, and what the store says of the object; the bytes are none if the server knows no
    /// ranges.
    pub(crate) fn get(&self, key: &Path, range: Range<u64>, tag: Option<String>) -> Result<(ObjectMeta, Option<Bytes>)> {
        let (objects, at) = (Arc::clone(&self.clients.objects), key.clone());
        let is_web = self.scheme.is_web();
        let request = async move {
            let options = GetOptions { range: Some(GetRange::Bounded(range)), if_match: tag, ..GetOptions::default() };
            let mut pause = PAUSE_MIN;
            loop {
                let found = match objects.get_opts(&at, options.clone()).await {
                    Ok(found) => found,
                    Err(StoreError::NotSupported { .. }) if is_web => return Ok((objects.head(&at).await?, None)),
                    Err(error) => return Err(error),
                };
                let meta = found.meta.clone();
                match found.bytes().await {
                    Ok(bytes) => return Ok((meta, Some(bytes))),
                    // The answer broke off, which the client does not repeat in every case.
                    Err(StoreError::Generic { .. }) if pause < PAUSE_MAX => {
                        tokio::time::sleep(pause).await;
                        pause *= 2;
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        wait(&self.url(key.as_ref()), Patience::Whole, request)?.map_err(|e| self.failed("read", key.as_ref(), &e))
    }

    /// All bytes of an object, piece by piece.
    pub(crate) fn get_all(&self, key: &Path, mut take: impl FnMut(Bytes) -> std::io::Result<()> + Send + 'static) -> Result<ObjectMeta> {
        let (objects, at) = (Arc::clone(&self.clients.objects), key.clone());
        let request = async move {
            let found = objects.get(&at).await?;
            let meta = found.meta.clone();
            let mut pieces = found.into_stream();
            while let Some(piece) = pieces.try_next().await? {
                take(piece).map_err(|e| StoreError::Generic { store: "spool", source: Box::new(e) })?;
            }
            Ok(meta)
        };
        wait(&self.url(key.as_ref()), Patience::Whole, request)?.map_err(|e| self.failed("read", key.as_ref(), &e))
    }

    /// Begins an upload.
    pub(crate) fn create(&self, key: &str, ending: Option<&Ending>) -> Result<Multipart> {
        let at = location(key)?;
        let id = match self.clients.uploads.clone() {
            Uploads::Parts(parts) => self.said(key, ending, "begin an upload of", async move { parts.create_multipart(&at).await })?,
            // What it writes has this in its name, which is noted before.
            Uploads::Whole(_) => format!("{:016x}", crate::directory::fresh_nonce()),
            Uploads::None => return Err(self.only_read()),
        };
        Ok(Multipart { key: key.to_owned(), id })
    }

    /// Sends the bytes of an upload; returns what completes it: the tags of its parts, or the name of the hidden file.
    pub(crate) fn send(&self, upload: &Multipart, data: &Extent, ending: Option<&Ending>) -> Result<Vec<String>> {
        let (at, id) = (location(&upload.key)?, upload.id.clone());
        let reach = || {
            let failed = |e| Error::connector(format!("cannot write {:?}: {e}", self.url(&upload.key))).because(e);
            mill_fault::reach("object.part").map_err(failed)
        };
        match self.clients.uploads.clone() {
            Uploads::Parts(parts) => {
                let part_bytes = PART_BYTES.max(data.bytes.div_ceil(PARTS_MAX));
                let mut tags = Vec::new();
                let mut sent = 0;
                // An object without bytes has one part without bytes.
                while sent < data.bytes || tags.is_empty() {
                    let mut part = vec![0; part_bytes.min(data.bytes - sent) as usize];
                    data.file.read_exact_at(&mut part, data.start + sent).map_err(|e| {
                        Error::connector(format!("cannot read back what is to be written to {:?}: {e}", self.url(&upload.key))).because(e)
                    })?;
                    sent += part.len() as u64;
                    reach()?;
                    let (parts, at, id, index) = (Arc::clone(&parts), at.clone(), id.clone(), tags.len());
                    let put = async move { parts.put_part(&at, &id, index, part.into()).await };
                    tags.push(self.said(&upload.key, ending, "upload", put)?.content_id);
                }
                Ok(tags)
            }
            Uploads::Whole(files) => {
                reach()?;
                let data = data.clone();
                Ok(vec![self.said(&upload.key, ending, "write", async move { files.write(at, id, data).await })?])
            }
            Uploads::None => Err(self.only_read()),
        }
    }

    /// Makes an upload an object; whether the store has answered that it did. An error that says that the upload is not known may
    /// mean that it was completed before.
    ///
    /// Returns whether it is complete now; not, if the store says that there is no such upload.
    pub(crate) fn complete(&self, upload: &Multipart, tags: &[String], ending: Option<&Ending>) -> Result<bool> {
        let (at, id, tags) = (location(&upload.key)?, upload.id.clone(), tags.to_vec());
        let uploads = self.clients.uploads.clone();
        let request = async move {
            match uploads {
                Uploads::Parts(parts) => {
                    let tags = tags.into_iter().map(|tag| PartId { content_id: tag }).collect();
                    parts.complete_multipart(&at, &id, tags).await.map(drop)
                }
                Uploads::Whole(files) => files.complete(at, id, tags.into_iter().next().unwrap_or_default()).await,
                Uploads::None => Ok(()),
            }
        };
        match wait(&self.url(&upload.key), ending, request)? {
            Ok(()) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) if NO_SUCH_UPLOAD.iter().any(|code| error.to_string().contains(code)) => Ok(false),
            Err(error) => Err(self.failed("complete the upload of", &upload.key, &error)),
        }
    }

    /// Aborts uploads, several at a time; one that does not exist counts as aborted.
    ///
    /// # Errors
    /// Of the first that cannot be given up; the others are tried all the same.
    pub(crate) fn abort_all(&self, uploads: &[Multipart], patience: Patience<'_>) -> Result<()> {
        let [first, ..] = uploads else { return Ok(()) };
        let requests = uploads.iter().map(|upload| {
            let (client, at, id, key) = (self.clients.uploads.clone(), location(&upload.key)?, upload.id.clone(), upload.key.clone());
            let request = async move {
                match client {
                    Uploads::Parts(parts) => parts.abort_multipart(&at, &id).await,
                    Uploads::Whole(files) => files.abort(at, id).await,
                    Uploads::None => Ok(()),
                }
            };
            Ok(async move { (key, request.await) })
        });
        let requests = requests.collect::<Result<Vec<_>>>()?;
        let answers = async move { stream::iter(requests).buffer_unordered(ABORTS_AT_ONCE).collect::<Vec<_>>().await };
        let mut answers = wait(&self.url(&first.key), patience, answers)?.into_iter();
        answers.try_for_each(|(key, answer)| match answer {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) if error.to_string().contains("NoSuchUpload") => Ok(()),
            Err(error) => Err(self.failed("give up the upload of", &key, &error)),
        })
    }

    /// Deletes an object; one that is not there is deleted.
    pub(crate) fn delete(&self, key: &str, ending: Option<&Ending>) -> Result<()> {
        let (objects, at) = (Arc::clone(&self.clients.objects), location(key)?);
        match wait(&self.url(key), ending, async move { objects.delete(&at).await })? {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("delete", key, &error)),
        }
    }

    fn patient(&self, is_plan: bool) -> &Clients {
        if is_plan { &self.of_plan } else { &self.clients }
    }

    fn only_read(&self) -> Error {
        Error::plan(format!("{}: the web can only be read", self.root))
    }

    fn said<T: Send + 'static>(
        &self,
        key: &str,
        ending: Option<&Ending>,
        doing: &str,
        request: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<T> {
        wait(&self.url(key), ending, request)?.map_err(|e| self.failed(doing, key, &e))
    }

    /// What a store has answered, as an error that names the object and holds no secret.
    pub(super) fn failed(&self, doing: &str, key: &str, error: &StoreError) -> Error {
        let url = self.url(key);
        let text = error.to_string();
        let said = cleaned(&said_in(&text), &self.secrets);
        let is_denied = matches!(error, StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. })
            || DENIED.iter().any(|part| text.contains(part));
        let message = if ASKED_FOR_CREDENTIALS.iter().any(|part| text.contains(part)) {
            format!("cannot {doing} {url:?}: there are no credentials: give {} with mill.storage() or the environment", self.names())
        } else if Bucket::is_gone(error) {
            format!("cannot {doing} {url:?}: there is no bucket {:?}", self.root)
        } else if matches!(error, StoreError::Precondition { .. }) {
            format!("{url:?} was changed while it was read: run the job again, and write objects under new names instead of replacing them")
        } else if is_denied && self.scheme == Scheme::Hdfs {
            format!("cannot {doing} {url:?}: access is denied: {} names the user ({said})", self.names())
        } else if is_denied && !self.has_credentials {
            format!("cannot {doing} {url:?}: access is denied without credentials: give {} with mill.storage() or the environment ({said})", self.names())
        } else if is_denied {
            format!("cannot {doing} {url:?}: access is denied: check the credentials and what they are allowed to do ({said})")
        } else if matches!(error, StoreError::NotFound { .. }) {
            format!("cannot {doing} {url:?}: it is not there ({said})")
        } else {
            format!("cannot {doing} {url:?}: {said}")
        };
        Error::connector(message)
    }

    fn names(&self) -> &'static str {
        match self.scheme {
            Scheme::S3 => "aws_access_key_id and aws_secret_access_key (or aws_skip_signature=\"true\" for a public bucket)",
            Scheme::Gs => "google_service_account (or google_skip_signature=\"true\" for a public bucket)",
            Scheme::Az => "azure_storage_account_name and azure_storage_account_key (or azure_skip_signature=\"true\")",
            Scheme::Hdfs => "hdfs_user of mill.storage(), or HADOOP_USER_NAME,",
            Scheme::Http | Scheme::Https => "what the server asks for",
        }
    }
}

fn prefix_of(prefix: &str) -> Result<Option<Path>> {
    let prefix = prefix.trim_end_matches('/');
    if prefix.is_empty() { Ok(None) } else { location(prefix).map(Some) }
}

fn location(key: &str) -> Result<Path> {
    super::place::location(key).map_err(|e| Error::plan(format!("{key:?} is no key of an object: {e}")))
}

fn has_credentials(scheme: Scheme, options: &Options) -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some();
    match scheme {
        Scheme::S3 => options.has("access_key_id") || is_set("AWS_ACCESS_KEY_ID"),
        Scheme::Gs => options.has("service_account") || options.has("bearer") || is_set("GOOGLE_SERVICE_ACCOUNT"),
        Scheme::Az => options.has("account_key") || options.has("sas") || is_set("AZURE_STORAGE_ACCOUNT_KEY"),
        Scheme::Hdfs | Scheme::Http | Scheme::Https => true,
    }
}

/// A client with these options over those of the environment.
fn build(place: &Place, options: &Options, (max_retries, retry_timeout): (usize, Duration)) -> object_store::Result<Clients> {
    let backoff = BackoffConfig { init_backoff: Duration::from_millis(50), max_backoff: Duration::from_secs(5), base: 2.0 };
    let retry = RetryConfig { backoff, max_retries, retry_timeout };
    let given = options.0.iter();
    // What was given comes later, and counts.
    let connect = format!("{} seconds", CONNECT_WAIT.as_secs());
    let silence = format!("{} seconds", SILENCE.as_secs());
    let whole = format!("{} seconds", WHOLE_WAIT.as_secs());
    let usual = [
        (ClientConfigKey::ConnectTimeout, connect.as_str()),
        (ClientConfigKey::ReadTimeout, silence.as_str()),
        // A slow answer is none that is missing: that is what the silence is for.
        (ClientConfigKey::Timeout, whole.as_str()),
    ];
    Ok(match place.scheme {
        Scheme::S3 => {
            let mut builder = AmazonS3Builder::from_env().with_bucket_name(&place.bucket).with_retry(retry);
            for (key, value) in usual {
                builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
            }
            for (name, value) in given {
                builder = builder.with_config(AmazonS3ConfigKey::from_str(name)?, value);
            }
            let store = Arc::new(builder.build()?);
            Clients { objects: Arc::clone(&store) as _, uploads: Uploads::Parts(store) }
        }
        Scheme::Gs => {
            let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(&place.bucket).with_retry(retry);
            for (key, value) in usual {
                builder = builder.with_config(GoogleConfigKey::Client(key), value);
            }
            for (name, value) in given {
                builder = builder.with_config(GoogleConfigKey::from_str(name)?, value);
            }
            let store = Arc::new(builder.build()?);
            Clients { objects: Arc::clone(&store) as _, uploads: Uploads::Parts(store) }
        }
        Scheme::Az => {
            let mut builder = MicrosoftAzureBuilder::from_env().with_container_name(&place.bucket).with_retry(retry);
            for (key, value) in usual {
                builder = builder.with_config(AzureConfigKey::Client(key), value);
            }
            for (name, value) in given {
                builder = builder.with_config(AzureConfigKey::from_str(name)?, value);
            }
            let store = Arc::new(builder.build()?);
            Clients { objects: Arc::clone(&store) as _, uploads: Uploads::Parts(store) }
        }
        #[cfg(feature = "hdfs")]
        Scheme::Hdfs => {
            let given = given.map(|(name, value)| (name.clone(), value.clone()));
            let store = Arc::new(super::hdfs::Hdfs::new(&place.bucket, given, (max_retries, retry_timeout))?);
            Clients { objects: Arc::clone(&store) as _, uploads: Uploads::Whole(store) }
        }
        #[cfg(not(feature = "hdfs"))]
        Scheme::Hdfs => {
            let what = "this build of Millstream has no HDFS: build it with its feature \"hdfs\", which the wheels have";
            return Err(StoreError::NotSupported { source: what.into() });
        }
        Scheme::Http | Scheme::Https => {
            // Who writes http:// has said that it may be.
            let mut clients = ClientOptions::new().with_allow_http(place.scheme == Scheme::Http);
            for (key, value) in usual {
                clients = clients.with_config(key, value);
            }
            for (name, value) in given {
                clients = clients.with_config(ClientConfigKey::from_str(name)?, value);
            }
            let builder = HttpBuilder::new().with_url(place.root()).with_retry(retry).with_client_options(clients);
            Clients { objects: Arc::new(builder.build()?), uploads: Uploads::None }
        }
    })
}

/// What matters of the text of an error: the code and the message of the store's answer, if there is one. Otherwise what the client
/// says, and whom it has asked, but not for what: that is in the message already.
fn said_in(text: &str) -> String {
    let within = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        Some(rest.split_once(&format!("</{tag}>"))?.0.trim().to_owned())
    };
    match (within("Code"), within("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code,
        _ => {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let text = text.strip_prefix("Generic HDFS error: ").map(str::to_owned).unwrap_or(text);
            // As in "Generic S3 error: Error performing GET http://host/bucket/key in 3ms, after 2 retries, … - HTTP error".
            let Some((request, said)) = text.split_once("Error performing ").and_then(|(_, rest)| rest.split_once(" - ")) else { return text };
            let mut parts = request.split(", ");
            let url = parts.next().and_then(|first| first.split(' ').nth(1)).unwrap_or_default();
            let host = url.split_inclusive('/').take(3).collect::<String>();
            let tries = parts.find(|part| part.starts_with("after ")).map(|tries| format!(", {tries}")).unwrap_or_default();
            format!("{said} ({}{tries})", host.trim_end_matches('/'))
        }
    }
}

/// A text without queries of URLs, secrets, and what would not be read.
fn cleaned(text: &str, secrets: &[String]) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut is_query = false;
    for (at, char) in text.char_indices() {
        // A query begins right after a URL, and ends where the URL does.
        is_query = match char {
            '?' => {
                let word = text[..at].rsplit(char::is_whitespace).next().unwrap_or("");
                if word.contains("://") {
                    shown.push_str("?…");
                }
                word.contains("://")
            }
            _ => is_query && !char.is_whitespace() && !matches!(char, ')' | '"' | '\''),
        };
        if !is_query {
            shown.push(char);
        }
    }
    for secret in secrets {
        shown = shown.replace(secret.as_str(), "…");
    }
    match shown.char_indices().nth(SAID_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_says_is_short_and_holds_no_secret() {
        let secrets = vec!["hunter2hunter2".to_owned()];
        let text = "error for url (https://a.blob/c/x?sv=1&sig=abc) hunter2hunter2";
        assert_eq!(cleaned(text, &secrets), "error for url (https://a.blob/c/x?…) …");
        assert_eq!(cleaned("is it there?", &secrets), "is it there?");
        let xml = "status 404: <Error>\n<Code>NoSuchBucket</Code><Message>The bucket is not there</Message><Host>x</Host></Error>";
        assert_eq!(said_in(xml), "NoSuchBucket: The bucket is not there");
        let silent = "Generic S3 error: Error performing HEAD http://127.0.0.1:38215/bucket/in/a.csv in 284.501011ms, after 3 retries, \
                      max_retries: 3, retry_timeout: 10s  - HTTP error: error sending request";
        assert_eq!(said_in(silent), "HTTP error: error sending request (http://127.0.0.1:38215, after 3 retries)");
        let denied = "Object at location a.csv not found: Error performing GET https://host/a.csv?sig=abc in 3ms - Server returned 404";
        assert_eq!(said_in(denied), "Server returned 404 (https://host)");
        assert_eq!(said_in("Invalid  header"), "Invalid header");
        assert!(cleaned(&"x".repeat(10_000), &[]).chars().count() <= SAID_CHARS_MAX + 1);
    }
}
