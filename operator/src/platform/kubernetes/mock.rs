//! An API server that is none: it keeps objects by their paths, counts versions, lets itself be watched, and misbehaves as told.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use k8s_openapi::ByteString;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

type Change = Box<dyn FnOnce(&mut Value) + Send>;
type Judge = Box<dyn FnMut(&Call) -> Fate + Send>;

/// What a refusal with 429 asks for.
pub(super) const RETRY_AFTER_SECONDS: u64 = 7;

/// A call, for whoever decides on its [`Fate`].
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) watch: bool,
    pub(super) body: Value,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Served,
    /// With this code, and nothing is done.
    Refused(u16),
    /// Nothing is done, and no answer ever comes.
    Lost,
    /// It is done, and no answer ever comes.
    Unanswered,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    /// Version, kind, path and object of each change, for watches.
    changes: Vec<(u64, &'static str, String, Value)>,
    judge: Option<Judge>,
    patches: usize,
    refuse_all: Option<u16>,
    refuse_patches: Option<u16>,
    refuse_patches_of: Option<(&'static str, u16)>,
    swallow_patches: bool,
    before_patch: Option<Change>,
}

/// The server.
#[derive(Clone, Default)]
pub(super) struct Mock {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

impl Mock {
    pub(super) fn start() -> Self {
        Self::default()
    }

    pub(super) fn client(&self) -> Client {
        let mock = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let mock = mock.clone();
            async move { Ok::<_, Infallible>(mock.serve(request).await) }
        });
        Client::new(service, "default")
    }

    /// A condition of an object that is there: `<status> <reason>: <message>`.
    pub(super) fn condition(&self, path: &str, type_: &str) -> String {
        let object = self.get(path).unwrap();
        let all = object["status"]["conditions"].as_array().unwrap();
        let one = all.iter().find(|condition| condition["type"] == type_).unwrap();
        let text = |key: &str| one[key].as_str().unwrap();
        format!("{} {}: {}", text("status"), text("reason"), text("message"))
    }

    pub(super) fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().objects.get(path).cloned()
    }

    pub(super) fn paths(&self) -> Vec<String> {
        self.state.lock().objects.keys().cloned().collect()
    }

    pub(super) fn put(&self, path: &str, object: Value) {
        self.state.lock().store(path, object);
        self.changed.notify_waiters();
    }

    pub(super) fn remove(&self, path: &str) {
        self.state.lock().remove(path);
        self.changed.notify_waiters();
    }

    /// An object as it was after each of its changes.
    pub(super) fn history(&self, path: &str) -> Vec<Value> {
        let state = self.state.lock();
        state.changes.iter().filter(|(_, _, place, _)| place == path).map(|(.., object)| object.clone()).collect()
    }

    /// Who decides on each call from now on.
    pub(super) fn judge(&self, judge: impl FnMut(&Call) -> Fate + Send + 'static) {
        self.state.lock().judge = Some(Box::new(judge));
    }

    pub(super) fn judge_nothing(&self) {
        self.state.lock().judge = None;
    }

    pub(super) fn change(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.state.lock();
        let mut object = state.objects[path].clone();
        change(&mut object);
        state.store(path, object);
        drop(state);
        self.changed.notify_waiters();
    }

    pub(super) fn before_next_patch(&self, change: impl FnOnce(&mut Value) + Send + 'static) {
        self.state.lock().before_patch = Some(Box::new(change));
    }

    pub(super) fn refuse_all_with(&self, code: u16) {
        self.state.lock().refuse_all = Some(code);
    }

    pub(super) fn refuse_nothing(&self) {
        self.state.lock().refuse_all = None;
    }

    pub(super) fn refuse_patches_with(&self, code: u16) {
        self.state.lock().refuse_patches = Some(code);
    }

    /// Of a kind, by its plural.
    pub(super) fn refuse_patches_of(&self, plural: &'static str, code: u16) {
        self.state.lock().refuse_patches_of = Some((plural, code));
    }

    pub(super) fn refuse_no_patches(&self) {
        self.state.lock().refuse_patches_of = None;
    }

    pub(super) fn swallow_answers_of_patches(&self) {
        self.state.lock().swallow_patches = true;
    }

    pub(super) fn patches(&self) -> usize {
        self.state.lock().patches
    }
}

impl State {
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        if let Some(Value::Object(texts)) = object.get("stringData").cloned() {
            for (key, text) in texts {
                object["data"][key] = json!(ByteString(text.as_str().unwrap().into()));
            }
        }
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        if path.contains("/services/") && object["spec"]["clusterIP"].is_null() {
            object["spec"]["clusterIP"] = "10.96.0.7".into();
        }
        let kind = if self.objects.contains_key(path) { "MODIFIED" } else { "ADDED" };
        self.changes.push((self.version, kind, path.to_owned(), object.clone()));
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn remove(&mut self, path: &str) -> Option<Value> {
        let mut object = self.objects.remove(path)?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.changes.push((self.version, "DELETED", path.to_owned(), object.clone()));
        Some(object)
    }

    fn handle(&mut self, method: &str, path: &str, selector: &[(String, String)], body: Value) -> (u16, Value) {
        if let Some(code) = self.refuse_all {
            return refusal(code);
        }
        let object_path = path.strip_suffix("/status").unwrap_or(path).to_owned();
        match method {
            "GET" => match self.objects.get(path) {
                Some(object) => (200, object.clone()),
                None if is_list(path) => (200, self.list(path, selector)),
                None => refusal(404),
            },
            "POST" => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                let path = format!("{path}/{name}");
                if self.objects.contains_key(&path) { refusal(409) } else { (201, self.store(&path, body)) }
            }
            "PUT" => match self.objects.get(&object_path) {
                None => refusal(404),
                Some(old) if old["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] => refusal(409),
                Some(_) => (200, self.store(&object_path, body)),
            },
            "PATCH" => self.patch(&object_path, body),
            "DELETE" => match self.remove(&object_path) {
                Some(object) => (200, object),
                None => refusal(404),
            },
            _ => refusal(405),
        }
    }

    fn patch(&mut self, path: &str, change: Value) -> (u16, Value) {
        self.patches += 1;
        if let Some(meddle) = self.before_patch.take() {
            let mut object = self.objects.get(path).cloned().unwrap_or_default();
            meddle(&mut object);
            self.store(path, object);
        }
        if let Some(code) = self.refuse_patches {
            return refusal(code);
        }
        if let Some((plural, code)) = self.refuse_patches_of
            && path.contains(&format!("/{plural}/"))
        {
            return refusal(code);
        }
        let old = self.objects.get(path).cloned().unwrap_or_else(|| json!({"metadata": {}}));
        let expected = &change["metadata"]["resourceVersion"];
        if !expected.is_null() && *expected != old["metadata"]["resourceVersion"] {
            return refusal(409);
        }
        let mut object = old;
        merge(&mut object, change);
        (200, self.store(path, object))
    }

    fn list(&self, path: &str, selector: &[(String, String)]) -> Value {
        let wanted = |(place, object): &(&String, &Value)| is_in(path, place) && is_selected(selector, object);
        let items: Vec<_> = self.objects.iter().filter(wanted).map(|(_, it)| it).collect();
        json!({"metadata": {"resourceVersion": self.version.to_string()}, "items": items})
    }

    /// What a watch since then has to tell, one event a line.
    fn since(&self, version: u64, path: &str, selector: &[(String, String)]) -> Vec<u8> {
        let news = self
            .changes
            .iter()
            .filter(|(at, _, place, object)| *at > version && is_in(path, place) && is_selected(selector, object));
        news.flat_map(|(_, kind, _, object)| format!("{}\n", json!({"type": kind, "object": object})).into_bytes())
            .collect()
    }
}

/// Whether an object is listed under a path, which may be that of all namespaces.
fn is_in(list: &str, object: &str) -> bool {
    let Some((parent, _)) = object.rsplit_once('/') else { return false };
    let Some((base, plural)) = list.rsplit_once('/') else { return false };
    let of_a_namespace = parent.strip_prefix(base).and_then(|rest| rest.strip_prefix("/namespaces/"));
    parent == list || of_a_namespace.and_then(|rest| rest.split_once('/')).is_some_and(|(_, last)| last == plural)
}

fn is_selected(selector: &[(String, String)], object: &Value) -> bool {
    selector.iter().all(|(key, value)| object["metadata"]["labels"][key] == *value)
}

/// Of all objects of a kind, in a namespace or in all.
fn is_list(path: &str) -> bool {
    let mut after_namespace = path.split('/').skip_while(|segment| *segment != "namespaces").skip(2);
    after_namespace.next().is_none() || after_namespace.next().is_none()
}

fn merge(into: &mut Value, patch: Value) {
    match patch {
        Value::Object(fields) => {
            if !into.is_object() {
                *into = json!({});
            }
            for (key, value) in fields {
                if value.is_null() {
                    into.as_object_mut().unwrap().remove(&key);
                } else {
                    merge(&mut into[key], value);
                }
            }
        }
        other => *into = other,
    }
}

fn refusal(code: u16) -> (u16, Value) {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        _ => "Test",
    };
    let details = if code == 429 { json!({"retryAfterSeconds": RETRY_AFTER_SECONDS}) } else { json!({}) };
    let status = json!({
        "kind": "Status", "status": "Failure", "code": code, "message": "refused by the test", "reason": reason,
        "details": details,
    });
    (code, status)
}

impl Mock {
    async fn serve(&self, request: http::Request<Body>) -> http::Response<Body> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect_bytes().await.unwrap();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let query = Query::of(&parts.uri);
        let path = parts.uri.path();
        let (method, watch) = (parts.method.to_string(), query.watch_from.is_some());
        let call = Call { method, path: path.to_owned(), watch, body };
        let fate = self.state.lock().judge.as_mut().map_or(Fate::Served, |judge| judge(&call));
        if fate == Fate::Lost {
            return std::future::pending().await;
        }
        if let (Fate::Served, Some(version)) = (fate, query.watch_from) {
            return self.watch(path, version, &query.selector).await;
        }
        let (code, answer) = match fate {
            // What a watch began from is no more: an API server says so inside the watch.
            Fate::Refused(410) if call.watch => (200, json!({"type": "ERROR", "object": refusal(410).1})),
            Fate::Refused(code) => refusal(code),
            _ => self.handle(&call.method, path, &query.selector, call.body),
        };
        if fate == Fate::Unanswered || (parts.method == "PATCH" && self.state.lock().swallow_patches) {
            return std::future::pending().await;
        }
        answer_with(code, serde_json::to_vec(&answer).unwrap())
    }

    fn handle(&self, method: &str, path: &str, selector: &[(String, String)], body: Value) -> (u16, Value) {
        let mut state = self.state.lock();
        let before = state.version;
        let answer = state.handle(method, path, selector, body);
        if state.version != before {
            self.changed.notify_waiters();
        }
        answer
    }

    /// Answers as soon as there is something to tell, and then ends: the next watch goes on from there.
    async fn watch(&self, path: &str, version: u64, selector: &[(String, String)]) -> http::Response<Body> {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            let refused = self.state.lock().refuse_all;
            if let Some(code) = refused {
                return answer_with(code, serde_json::to_vec(&refusal(code).1).unwrap());
            }
            let news = self.state.lock().since(version, path, selector);
            if !news.is_empty() {
                return answer_with(200, news);
            }
            changed.await;
        }
    }
}

fn answer_with(code: u16, body: Vec<u8>) -> http::Response<Body> {
    let mut response = http::Response::builder().status(code);
    if code == 429 {
        response = response.header("Retry-After", RETRY_AFTER_SECONDS);
    }
    response.body(Body::from(body)).unwrap()
}

/// What of a call's query matters here.
#[derive(Default)]
struct Query {
    watch_from: Option<u64>,
    selector: Vec<(String, String)>,
}

impl Query {
    fn of(uri: &http::Uri) -> Self {
        let fields: BTreeMap<_, _> =
            uri.query().unwrap_or_default().split('&').filter_map(|it| it.split_once('=')).collect();
        let version = fields.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
        let selector = fields.get("labelSelector").copied().unwrap_or_default();
        let selector = selector.replace("%2F", "/").replace("%3D", "=").replace("%2C", ",");
        let pairs = selector.split(',').filter_map(|pair| pair.split_once('='));
        Self {
            watch_from: (fields.get("watch") == Some(&"true")).then_some(version),
            selector: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        }
    }
}
