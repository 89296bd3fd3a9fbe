//! The options that `mill.storage()` has set for clients, for all stores or for those below a URL.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use mill_protocol::{Error, Result};
use object_store::ClientConfigKey;
use object_store::aws::AmazonS3ConfigKey;
use object_store::azure::AzureConfigKey;
use object_store::gcp::GoogleConfigKey;
use xxhash_rust::xxh3::xxh3_64;

use super::place::Scheme;
use crate::nearest::did_you_mean;

/// By what URLs begin with; the empty text is for all.
static GIVEN: Mutex<BTreeMap<String, BTreeMap<String, String>>> = Mutex::new(BTreeMap::new());

/// The names that are suggested. The client knows more spellings of them.
const NAMES: &[&str] = &[
    "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_region", "aws_default_region", "aws_endpoint",
    "aws_endpoint_url", "aws_allow_http", "aws_virtual_hosted_style_request", "aws_skip_signature", "aws_unsigned_payload",
    "aws_checksum_algorithm", "aws_role_arn", "aws_role_session_name", "aws_web_identity_token_file", "aws_metadata_endpoint",
    "aws_container_credentials_relative_uri", "aws_container_credentials_full_uri", "aws_server_side_encryption",
    "aws_sse_kms_key_id", "aws_sse_bucket_key_enabled", "aws_sse_customer_key_base64", "aws_request_payer", "aws_s3_express",
    "google_service_account", "google_service_account_key", "google_application_credentials", "google_base_url",
    "google_bearer_token", "google_skip_signature", "azure_storage_account_name", "azure_storage_account_key",
    "azure_storage_client_id", "azure_storage_client_secret", "azure_storage_tenant_id", "azure_storage_sas_key",
    "azure_storage_token", "azure_storage_endpoint", "azure_storage_use_emulator", "azure_use_azure_cli", "azure_skip_signature",
    "allow_http", "allow_invalid_certificates", "connect_timeout", "timeout", "read_timeout", "proxy_url",
    "proxy_ca_certificate", "proxy_excludes", "pool_idle_timeout", "pool_max_idle_per_host", "http1_only", "http2_only",
    "user_agent", "hdfs_user",
];

/// What the names of Hadoop's own options begin with.
const OF_HADOOP: [&str; 4] = ["dfs.", "fs.", "hadoop.", "ipc."];

/// Whose option a name is; none if nobody knows it. A name of clients in general is everybody's.
fn is_of(name: &str, scheme: Scheme) -> bool {
    match scheme {
        Scheme::S3 => AmazonS3ConfigKey::from_str(name).is_ok(),
        Scheme::Gs => GoogleConfigKey::from_str(name).is_ok(),
        Scheme::Az => AzureConfigKey::from_str(name).is_ok(),
        Scheme::Hdfs => name == "hdfs_user" || is_of_hadoop(name),
        Scheme::Http | Scheme::Https => ClientConfigKey::from_str(name).is_ok(),
    }
}

fn is_of_hadoop(name: &str) -> bool {
    OF_HADOOP.iter().any(|beginning| name.starts_with(beginning))
}

/// The bucket is in the URL.
fn is_bucket(name: &str) -> bool {
    name.ends_with("bucket") || name.ends_with("bucket_name") || name.ends_with("container_name")
}

/// Whether nobody but the store is to see the value.
fn is_secret(name: &str) -> bool {
    ["secret", "token", "key", "sas", "password", "account_key", "proxy_url"].iter().any(|part| name.contains(part))
        && !name.ends_with("key_enabled")
}

/// Sets the options of stores whose URLs begin with this, instead of those that were set for it before. The empty text is for
/// all stores.
///
/// # Errors
/// When an option is unknown; nothing is changed then.
pub fn configure(prefix: &str, options: impl IntoIterator<Item = (String, String)>) -> Result<()> {
    let is_whole = prefix.split_once("://").is_none_or(|(_, rest)| !rest.trim_end_matches('/').contains('/'));
    if !is_whole {
        return Err(Error::plan(format!("mill.storage(): url={prefix:?} has a path; options are those of a whole bucket, as in \"s3://bucket\"")));
    }
    let mut checked = BTreeMap::new();
    for (name, value) in options {
        // Those of Hadoop have names of clusters in them, in letters of both kinds.
        let lower = if is_of_hadoop(&name) { name.clone() } else { name.to_ascii_lowercase() };
        if is_bucket(&lower) {
            return Err(Error::plan(format!("mill.storage(): {name:?} is part of the URL, as in \"s3://bucket/path\"; leave it out")));
        }
        let is_known = [Scheme::S3, Scheme::Gs, Scheme::Az, Scheme::Hdfs, Scheme::Https].into_iter().any(|scheme| is_of(&lower, scheme));
        if !is_known {
            let near = did_you_mean(&lower, NAMES.iter().copied());
            return Err(Error::plan(format!("mill.storage(): there is no option {name:?}{near}")));
        }
        checked.insert(lower, value);
    }
    // One insertion or removal, so a panic elsewhere leaves the map whole.
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    if checked.is_empty() {
        given.remove(prefix);
    } else {
        given.insert(prefix.to_owned(), checked);
    }
    Ok(())
}

/// The options of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options(pub(super) BTreeMap<String, String>);

impl Options {
    /// Those of a bucket: the longer what they were given for, the more they count.
    pub(super) fn of(scheme: Scheme, root: &str) -> Options {
        let given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
        let url = format!("{root}/");
        let mut options = BTreeMap::new();
        // Sorted, a beginning comes before what it begins.
        let is_meant = |prefix: &str| match prefix.trim_end_matches('/') {
            all if all.is_empty() || all.ends_with(':') => url.starts_with(all),
            bucket => bucket == root,
        };
        for (_, of_prefix) in given.iter().filter(|(prefix, _)| is_meant(prefix)) {
            options.extend(of_prefix.iter().filter(|(name, _)| is_of(name, scheme)).map(|(name, value)| (name.clone(), value.clone())));
        }
        Options(options)
    }

    pub(super) fn has(&self, part: &str) -> bool {
        self.0.keys().any(|name| name.contains(part))
    }

    /// What must be in no message: of the options, and of the environment.
    pub(super) fn secrets(&self) -> Vec<String> {
        let of_environment = std::env::vars().filter(|(name, _)| is_of_stores(name)).map(|(name, value)| (name.to_ascii_lowercase(), value));
        let all = self.0.clone().into_iter().chain(of_environment);
        // A short text would also be found where it means nothing.
        all.filter(|(name, value)| is_secret(name) && value.len() >= 6).map(|(_, value)| value).collect()
    }

    /// Tells these options and the environment from others.
    pub(super) fn print(&self) -> u64 {
        let mut environment: Vec<(String, String)> = std::env::vars().filter(|(name, _)| is_of_stores(name)).collect();
        environment.sort();
        xxh3_64(format!("{:?} {environment:?}", self.0).as_bytes())
    }
}

fn is_of_stores(name: &str) -> bool {
    ["AWS_", "GOOGLE_", "AZURE_", "HADOOP_"].iter().any(|prefix| name.starts_with(prefix))
}
