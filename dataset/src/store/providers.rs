//! Connects to an object store by its URL, with settings from the environment.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::memory::InMemory;
use object_store::multipart::MultipartStore;
use object_store::path::Path as Key;
use object_store::{ClientConfigKey, ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig};

use crate::error::StoreFault;
use crate::store::connection::{Connection, Provider};
use crate::store::location::{RemoteUrl, is_azure};
use crate::store::request_errors::texts;
use crate::store::secrets::Secrets;

const S3: Provider = Provider {
    settings: "AWS_",
    credentials: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true if everybody may read",
    bucket: "create it, or set AWS_REGION or AWS_ENDPOINT_URL to where it is",
    network: "is the network up, and AWS_ENDPOINT_URL right?",
};
const GOOGLE: Provider = Provider {
    settings: "GOOGLE_",
    credentials: "set GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT to a key file, or \
                  GOOGLE_SKIP_SIGNATURE=true if everybody may read",
    bucket: "create it, or check its name",
    network: "is the network up?",
};
const AZURE: Provider = Provider {
    settings: "AZURE_",
    credentials: "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or AZURE_STORAGE_SAS_TOKEN), or \
                  AZURE_SKIP_SIGNATURE=true if everybody may read",
    bucket: "create the container, or check AZURE_STORAGE_ACCOUNT_NAME",
    network: "is the network up, and AZURE_STORAGE_ACCOUNT_NAME right?",
};
const WEB: Provider = Provider {
    settings: "proxy",
    credentials: "copy the dataset to a folder or an object store",
    bucket: "check the address",
    network: "is the network up, and the address right?",
};
const MEMORY: Provider = Provider { settings: "", credentials: "", bucket: "", network: "" };

/// Connects to the store of a URL; also returns the key that its prefix is. No request is made.
///
/// # Errors
/// When the URL or a setting is invalid.
pub(crate) fn connect(url: &RemoteUrl, settings: &[(String, String)]) -> Result<(Connection, Key), StoreFault> {
    let prefix = || Key::parse(&url.prefix).map_err(|_| StoreFault::Location);
    match url.scheme.as_str() {
        "s3" | "s3a" => Ok((s3(|builder| builder.with_bucket_name(&url.authority), settings)?, prefix()?)),
        "gs" => Ok((google(&url.authority, settings)?, prefix()?)),
        "memory" => Ok((memory(&url.authority), prefix()?)),
        scheme if is_azure(scheme) => Ok((azure(&url.url, settings)?, prefix()?)),
        _ => {
            let parsed = url::Url::parse(&url.url).map_err(|_| StoreFault::Location)?;
            if parsed.query().is_some() || parsed.fragment().is_some() {
                return Err(StoreFault::Location);
            }
            let (scheme, prefix) = ObjectStoreScheme::parse(&parsed).map_err(|_| StoreFault::Location)?;
            let connection = match scheme {
                ObjectStoreScheme::AmazonS3 => s3(|builder| builder.with_url(&url.url), settings)?,
                ObjectStoreScheme::MicrosoftAzure => azure(&url.url, settings)?,
                _ => web(&parsed)?,
            };
            Ok((connection, prefix))
        }
    }
}

/// `object_store` does not retry; [`crate::store::retry`] does.
fn once() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// The settings whose names begin with `start`, with the keys that they set.
fn keyed<K: std::str::FromStr>(start: &str, settings: &[(String, String)]) -> Vec<(K, String)> {
    let key = |(name, value): &(String, String)| {
        let key = name.starts_with(start).then(|| name.to_ascii_lowercase().parse().ok()).flatten()?;
        Some((key, value.clone()))
    };
    settings.iter().filter_map(key).collect()
}

fn s3(
    named: impl FnOnce(AmazonS3Builder) -> AmazonS3Builder,
    settings: &[(String, String)],
) -> Result<Connection, StoreFault> {
    let set = |builder: AmazonS3Builder, (key, value)| builder.with_config(key, value);
    let builder = keyed::<AmazonS3ConfigKey>("AWS_", settings).into_iter().fold(AmazonS3Builder::new(), set);
    let builder = named(builder).with_retry(once());
    let value = |key: AmazonS3ConfigKey| builder.get_config_value(&key);
    let endpoint = value(AmazonS3ConfigKey::S3Endpoint).or_else(|| value(AmazonS3ConfigKey::Endpoint));
    let plain = value(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp)).unwrap_or_default().to_lowercase();
    let plain = ["1", "true", "on", "yes", "y"].contains(&plain.as_str());
    let secrets = Secrets::with_endpoint(settings, endpoint.as_deref());
    let shown = endpoint.as_deref().map_or_else(|| "Amazon S3".to_owned(), |endpoint| secrets.hidden(endpoint));
    if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) && !plain {
        return Err(StoreFault::PlainHttp { endpoint: shown });
    }
    let store = builder.build().map_err(|error| refused(&error, &secrets))?;
    Ok(connection(Arc::new(store), &S3, shown, secrets))
}

fn google(bucket: &str, settings: &[(String, String)]) -> Result<Connection, StoreFault> {
    let set = |builder: GoogleCloudStorageBuilder, (key, value)| builder.with_config(key, value);
    let builder = keyed::<GoogleConfigKey>("GOOGLE_", settings).into_iter().fold(GoogleCloudStorageBuilder::new(), set);
    let builder = builder.with_bucket_name(bucket).with_retry(once());
    let endpoint = builder.get_config_value(&GoogleConfigKey::BaseUrl);
    let secrets = Secrets::with_endpoint(settings, endpoint.as_deref());
    let shown =
        endpoint.as_deref().map_or_else(|| "Google Cloud Storage".to_owned(), |endpoint| secrets.hidden(endpoint));
    let store = builder.build().map_err(|error| refused(&error, &secrets))?;
    Ok(connection(Arc::new(store), &GOOGLE, shown, secrets))
}

fn azure(url: &str, settings: &[(String, String)]) -> Result<Connection, StoreFault> {
    let set = |builder: MicrosoftAzureBuilder, (key, value)| builder.with_config(key, value);
    let builder = keyed::<AzureConfigKey>("AZURE_", settings).into_iter().fold(MicrosoftAzureBuilder::new(), set);
    let builder = builder.with_url(url).with_retry(once());
    let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
    let secrets = Secrets::with_endpoint(settings, endpoint.as_deref());
    let shown = endpoint.as_deref().map_or_else(|| "Azure".to_owned(), |endpoint| secrets.hidden(endpoint));
    // In practice the account is missing.
    let store = builder.build().map_err(|error| StoreFault::Credentials {
        cause: secrets.hidden(&texts(&error).1),
        remedy: AZURE.credentials,
    })?;
    Ok(connection(Arc::new(store), &AZURE, shown, secrets))
}

fn web(url: &url::Url) -> Result<Connection, StoreFault> {
    let origin = url.origin().ascii_serialization();
    let options = ClientOptions::new().with_allow_http(url.scheme() == "http");
    let builder = HttpBuilder::new().with_url(&origin).with_client_options(options).with_retry(once());
    let store = builder.build().map_err(|error| refused(&error, &Secrets::default()))?;
    Ok(Connection {
        store: Arc::new(store),
        multipart: None,
        provider: &WEB,
        endpoint: origin,
        secrets: Secrets::default(),
    })
}

/// The store of a name in the memory of this process.
fn memory(name: &str) -> Connection {
    static STORES: LazyLock<Mutex<BTreeMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    let store = stores.entry(name.to_owned()).or_default().clone();
    connection(store, &MEMORY, format!("memory://{name}"), Secrets::default())
}

fn connection<S: ObjectStore + MultipartStore>(
    store: Arc<S>,
    provider: &'static Provider,
    endpoint: String,
    secrets: Secrets,
) -> Connection {
    Connection { store: store.clone(), multipart: Some(store), provider, endpoint, secrets }
}

fn refused(error: &object_store::Error, secrets: &Secrets) -> StoreFault {
    StoreFault::Other(secrets.hidden(&texts(error).1))
}
