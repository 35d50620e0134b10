//! Single requests, each bounded in time.

use std::time::Duration;

use http::{Request, header};
use jiff::{Timestamp, fmt::rfc2822};
use kube::{
    Client,
    api::{DeleteParams, GetParams, ListParams, PostParams},
    client::Body,
    core::request,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::time::timeout;

use crate::{ApiError, Problem, Resource, Selection, watch::completed};

/// How long the API server may take over one request.
const ANSWER: Duration = Duration::from_secs(30);
/// How many objects are asked for at once.
pub(crate) const PAGE: u32 = 500;
/// How long over a write: a holder of a Lease must know the outcome before the Lease could be another's.
const WRITTEN: Duration = Duration::from_secs(4);

/// A way to a cluster's API server. Clones share connections.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
}

/// What became of a creation.
#[derive(Clone, Debug, PartialEq)]
pub enum Created {
    /// It was made, and is now like this.
    New(Value),
    /// Somebody else was first; theirs stays.
    Existed,
}

/// What became of a replacement.
#[derive(Clone, Debug, PartialEq)]
pub enum Replaced {
    /// It is now like this.
    Done(Value),
    /// Somebody else wrote since it was read, or it is gone: read again.
    Outdated,
}

/// A page of objects.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    pub(crate) metadata: PageMetadata,
    /// `null` where there are none, for some representations.
    #[serde(default)]
    pub(crate) items: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PageMetadata {
    #[serde(default)]
    pub(crate) resource_version: String,
    #[serde(default)]
    pub(crate) r#continue: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    /// The cluster that a client leads to.
    pub fn over(client: Client) -> Self {
        Self { client }
    }

    /// All objects of a resource that there are now, read page by page; `None` where the resource isn't served.
    ///
    /// # Errors
    /// If there is no answer, or the answer is no.
    pub async fn list(
        &self,
        resource: &Resource,
        selection: &Selection,
    ) -> Result<Option<Vec<Value>>, ApiError> {
        let (mut objects, mut next) = (Vec::new(), None);
        loop {
            let page = match self.page(resource, selection, PAGE, next).await {
                Ok(page) => page,
                Err(Problem::NotFound) => return Ok(None),
                Err(problem) => {
                    let path = resource.path(selection.namespace.as_deref());
                    return Err(ApiError { verb: "LIST", path, problem });
                }
            };
            let items = page.items.unwrap_or_default();
            objects.extend(items.into_iter().map(|object| completed(object, resource)));
            if page.metadata.r#continue.is_empty() {
                return Ok(Some(objects));
            }
            next = Some(page.metadata.r#continue);
        }
    }

    /// The namespace that the kubeconfig's context names; `default` if it names none.
    pub fn namespace(&self) -> &str {
        self.client.default_namespace()
    }

    /// What time it is for the API server, to the second; `None` if it doesn't say.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn time(&self) -> Result<Option<Timestamp>, ApiError> {
        const PATH: &str = "/version";
        let failed = |problem| ApiError { verb: "GET", path: PATH.to_owned(), problem };
        let request = Request::get(PATH).body(Body::empty());
        let request = request.map_err(|error| failed(Problem::Refused(error.to_string())))?;
        let answer = timeout(ANSWER, self.client.send(request)).await;
        let answer =
            answer.map_err(|_| failed(Problem::late(ANSWER)))?.map_err(|error| failed(error.into()))?;
        let date = answer.headers().get(header::DATE).and_then(|date| date.to_str().ok());
        // RFC 9110, section 5.6.7: a form of RFC 5322's date.
        Ok(date.and_then(|date| rfc2822::DateTimeParser::new().parse_timestamp(date).ok()))
    }

    /// The object of a name; `None` where there is none.
    ///
    /// # Errors
    /// If there is no answer, or the answer is no.
    pub async fn get(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Value>, ApiError> {
        let path = resource.path(namespace);
        let request = request::Request::new(&path).get(name, &GetParams::default());
        match self.answer(ANSWER, request).await {
            Ok(object) => Ok(Some(object)),
            Err(Problem::NotFound) => Ok(None),
            Err(problem) => Err(ApiError { verb: "GET", path: format!("{path}/{name}"), problem }),
        }
    }

    /// Makes an object, unless there is one of its name. Where neither `metadata.namespace` is set nor the
    /// kind has namespaces, it is the cluster's.
    ///
    /// # Errors
    /// If there is no answer, or the answer is no.
    pub async fn create(&self, resource: &Resource, object: &Value) -> Result<Created, ApiError> {
        let path = resource.path(text(object, "/metadata/namespace"));
        let request =
            request::Request::new(&path).create(&PostParams::default(), object.to_string().into_bytes());
        match self.answer(WRITTEN, request).await {
            Ok(object) => Ok(Created::New(object)),
            Err(Problem::Exists) => Ok(Created::Existed),
            Err(problem) => Err(ApiError { verb: "POST", path, problem }),
        }
    }

    /// Puts an object in place of the one that it was made from, as `metadata.resourceVersion` says.
    ///
    /// # Errors
    /// If there is no answer, or the answer is no.
    pub async fn replace(&self, resource: &Resource, object: &Value) -> Result<Replaced, ApiError> {
        let (path, name) = (resource.path(text(object, "/metadata/namespace")), name_of(object));
        let request = request::Request::new(&path).replace(
            name,
            &PostParams::default(),
            object.to_string().into_bytes(),
        );
        self.replaced(format!("{path}/{name}"), request).await
    }

    /// As [`Cluster::replace`], for its `status` alone.
    ///
    /// # Errors
    /// If there is no answer, or the answer is no.
    pub async fn replace_status(&self, resource: &Resource, object: &Value) -> Result<Replaced, ApiError> {
        let (path, name) = (resource.path(text(object, "/metadata/namespace")), name_of(object));
        let content = object.to_string().into_bytes();
        let request =
            request::Request::new(&path).replace_subresource("status", name, &PostParams::default(), content);
        self.replaced(format!("{path}/{name}/status"), request).await
    }

    /// Deletes an object; `false` where there is none.
    ///
    /// # Errors
    /// If there is no answer, or the answer is no.
    pub async fn delete(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<bool, ApiError> {
        let path = resource.path(namespace);
        let request = request::Request::new(&path).delete(name, &DeleteParams::default());
        match self.answer::<Value>(WRITTEN, request).await {
            Ok(_) => Ok(true),
            Err(Problem::NotFound) => Ok(false),
            Err(problem) => Err(ApiError { verb: "DELETE", path: format!("{path}/{name}"), problem }),
        }
    }

    /// Any document of the API, such as a list of what is served; `None` where there is none.
    ///
    /// # Errors
    /// If there is no answer, or the answer is no.
    pub async fn document(&self, path: &str) -> Result<Option<Value>, ApiError> {
        let failed = |problem| ApiError { verb: "GET", path: path.to_owned(), problem };
        let request = Request::get(path).body(Vec::new());
        let request = request.map_err(|error| failed(Problem::Refused(error.to_string())))?;
        match self.answer(ANSWER, Ok(request)).await {
            Ok(document) => Ok(Some(document)),
            Err(Problem::NotFound) => Ok(None),
            Err(problem) => Err(failed(problem)),
        }
    }

    /// A page of a list.
    pub(crate) async fn page(
        &self,
        resource: &Resource,
        selection: &Selection,
        limit: u32,
        from: Option<String>,
    ) -> Result<Page, Problem> {
        let params = ListParams {
            label_selector: selection.labels.clone(),
            field_selector: selection.fields.clone(),
            limit: Some(limit),
            continue_token: from,
            ..ListParams::default()
        };
        let request = request::Request::new(resource.path(selection.namespace.as_deref()));
        let request =
            if selection.metadata_only { request.list_metadata(&params) } else { request.list(&params) };
        self.answer(ANSWER, request).await
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    async fn replaced(
        &self,
        path: String,
        request: Result<Request<Vec<u8>>, request::Error>,
    ) -> Result<Replaced, ApiError> {
        match self.answer(WRITTEN, request).await {
            Ok(object) => Ok(Replaced::Done(object)),
            Err(Problem::Conflict | Problem::NotFound) => Ok(Replaced::Outdated),
            Err(problem) => Err(ApiError { verb: "PUT", path, problem }),
        }
    }

    /// Sends a request and reads the whole answer. (`Client::request` would log what it can't parse, Secrets included.)
    async fn answer<T: DeserializeOwned>(
        &self,
        within: Duration,
        request: Result<Request<Vec<u8>>, request::Error>,
    ) -> Result<T, Problem> {
        let text = timeout(within, self.client.request_text(request?)).await;
        let text = text.map_err(|_| Problem::late(within))??;
        serde_json::from_str(&text)
            .map_err(|error| Problem::NoAnswer(format!("not what was asked for: {error}")))
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer).and_then(Value::as_str)
}

fn name_of(object: &Value) -> &str {
    text(object, "/metadata/name").unwrap_or_default()
}
