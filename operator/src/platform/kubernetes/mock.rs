//! An API server that is none: it keeps objects by their paths, counts versions, and misbehaves as told.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use k8s_openapi::ByteString;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

type Change = Box<dyn FnOnce(&mut Value) + Send>;

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    patches: usize,
    refuse_all: Option<u16>,
    refuse_patches: Option<u16>,
    swallow_patches: bool,
    before_patch: Option<Change>,
}

/// The server.
#[derive(Clone, Default)]
pub(super) struct Mock {
    state: Arc<Mutex<State>>,
}

impl Mock {
    pub(super) fn start() -> Self {
        Self::default()
    }

    pub(super) fn client(&self) -> Client {
        let state = Arc::clone(&self.state);
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let state = Arc::clone(&state);
            async move { Ok::<_, Infallible>(serve(&state, request).await) }
        });
        Client::new(service, "default")
    }

    pub(super) fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().objects.get(path).cloned()
    }

    pub(super) fn paths(&self) -> Vec<String> {
        self.state.lock().objects.keys().cloned().collect()
    }

    pub(super) fn put(&self, path: &str, object: Value) {
        self.state.lock().store(path, object);
    }

    pub(super) fn remove(&self, path: &str) {
        self.state.lock().objects.remove(path);
    }

    pub(super) fn change(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.state.lock();
        let mut object = state.objects[path].clone();
        change(&mut object);
        state.store(path, object);
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
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn handle(&mut self, method: &str, path: &str, body: Value) -> (u16, Value) {
        if let Some(code) = self.refuse_all {
            return refusal(code);
        }
        let object_path = path.strip_suffix("/status").unwrap_or(path).to_owned();
        match method {
            "GET" => match self.objects.get(path) {
                Some(object) => (200, object.clone()),
                None if path.rsplit('/').next().is_some_and(|last| last.ends_with('s')) => (200, self.list(path)),
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
            "DELETE" => match self.objects.remove(&object_path) {
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
        let old = self.objects.get(path).cloned().unwrap_or_else(|| json!({"metadata": {}}));
        let expected = &change["metadata"]["resourceVersion"];
        if !expected.is_null() && *expected != old["metadata"]["resourceVersion"] {
            return refusal(409);
        }
        let mut object = old;
        merge(&mut object, change);
        (200, self.store(path, object))
    }

    fn list(&self, path: &str) -> Value {
        let prefix = format!("{path}/");
        let items: Vec<_> =
            self.objects.iter().filter(|(path, _)| path.starts_with(&prefix)).map(|(_, it)| it).collect();
        json!({"metadata": {"resourceVersion": self.version.to_string()}, "items": items})
    }
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
        _ => "Test",
    };
    (
        code,
        json!({"kind": "Status", "status": "Failure", "code": code, "message": "refused by the test", "reason": reason}),
    )
}

async fn serve(state: &Mutex<State>, request: http::Request<Body>) -> http::Response<Body> {
    let (parts, body) = request.into_parts();
    let bytes = body.collect_bytes().await.unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or_default();
    let (code, answer) = state.lock().handle(parts.method.as_str(), parts.uri.path(), body);
    if parts.method == "PATCH" && state.lock().swallow_patches {
        std::future::pending::<()>().await;
    }
    let body = Body::from(serde_json::to_vec(&answer).unwrap());
    http::Response::builder().status(code).body(body).unwrap()
}
