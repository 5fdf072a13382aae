//! Paths: which model and version they name, and how they go on to an upstream.
//!
//! A version in the path is taken out and decided by the router: `KServe`'s servers answer 501 to it. Servers that want one get
//! the name they have for the version that was chosen.

use foldhash::HashMap;
use http::{HeaderMap, Uri, header, uri::PathAndQuery};

use super::{Promise, Wire, grpc, openai};
use crate::config::Config;

/// A request's path, taken apart. All parts borrow from the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    /// The protocol.
    pub(crate) wire: Wire,
    /// The model, if the path names it.
    pub(crate) model: Option<&'a str>,
    /// The version that the path names.
    pub(crate) version: Option<&'a str>,
    /// Path up to the version, such as `/v2/models/flights`.
    before: &'a str,
    /// Path after the version, such as `/infer`.
    after: &'a str,
    /// Whether the path asks for a prediction.
    pub(crate) infers: bool,
    /// Whether the body names the model.
    pub(crate) model_in_body: bool,
    /// Whether both sides may send messages for as long as they like.
    pub(crate) both_stream: bool,
}

impl<'a> Target<'a> {
    /// Takes a path apart. `configured` are the paths that the configuration gives to models.
    pub(crate) fn parse(path: &'a str, headers: &HeaderMap, configured: &'a Paths) -> Self {
        if grpc::is(headers) {
            return Self::grpc(path);
        }
        Self::of(path, "/v2/models/", '/', &["infer", "generate", "generate_stream"], Wire::V2)
            .or_else(|| Self::of(path, "/v1/models/", ':', &["predict", "explain"], Wire::V1))
            .or_else(|| openai::infers(path).then(|| Self { model_in_body: true, ..Self::whole(path, Wire::OpenAi) }))
            .unwrap_or_else(|| Self { model: configured.model(path), ..Self::whole(path, Wire::Plain) })
    }

    fn whole(path: &'a str, wire: Wire) -> Self {
        let (model, version) = (None, None);
        Self { wire, model, version, before: path, after: "", infers: true, model_in_body: false, both_stream: false }
    }

    fn grpc(path: &'a str) -> Self {
        let method = path.strip_prefix(grpc::SERVICE).and_then(|rest| rest.strip_prefix('/'));
        Self {
            model_in_body: method.is_some_and(grpc::names_model),
            infers: method.is_none_or(|method| matches!(method, "ModelInfer" | "ModelStreamInfer")),
            both_stream: method != Some("ModelInfer"),
            ..Self::whole(path, Wire::Grpc)
        }
    }

    /// A path `<root><model>[/versions/<version>][<mark><verb>]`.
    fn of(path: &'a str, root: &str, mark: char, verbs: &[&str], wire: Wire) -> Option<Self> {
        let rest = path.strip_prefix(root)?;
        let name = rest.find(['/', mark]).unwrap_or(rest.len());
        if name == 0 {
            return None;
        }
        let (before, tail) = path.split_at(root.len() + name);
        let (version, after) = match tail.strip_prefix("/versions/") {
            Some(tail) => {
                let end = tail.find(['/', mark]).unwrap_or(tail.len());
                (Some(&tail[..end]).filter(|version| !version.is_empty()), &tail[end..])
            }
            None => (None, tail),
        };
        let infers = after.strip_prefix(mark).is_some_and(|verb| verbs.contains(&verb));
        Some(Self { model: Some(&rest[..name]), version, before, after, infers, ..Self::whole(path, wire) })
    }

    /// What the protocol promises of an answer.
    pub(crate) fn promise(&self) -> Promise {
        match (self.wire, self.after) {
            (Wire::V2, "/infer") => Promise::Tensors,
            (Wire::V1, ":predict") => Promise::Predictions,
            (Wire::V1 | Wire::V2, _) => Promise::Json,
            (Wire::OpenAi, _) => openai::promise(self.before),
            (Wire::Grpc, _) if self.model_in_body => Promise::Tensors,
            (Wire::Grpc, _) => Promise::Service,
            (Wire::Plain, _) => Promise::Nothing,
        }
    }

    /// The path for an upstream: with the version's name there if its servers want one, else without any.
    /// `None` if that is no path.
    pub(crate) fn upstream(&self, version: Option<&str>, uri: &Uri) -> Option<PathAndQuery> {
        let version = version.filter(|_| matches!(self.wire, Wire::V1 | Wire::V2));
        if let (None, None, Some(same)) = (version, self.version, uri.path_and_query()) {
            return Some(same.clone());
        }
        let mut path = self.before.to_owned();
        if let Some(version) = version {
            path.push_str("/versions/");
            path.push_str(version);
        }
        path.push_str(self.after);
        if let Some(query) = uri.query() {
            path.push('?');
            path.push_str(query);
        }
        path.try_into().ok()
    }

    /// Whether the answer to this may be a stream of chunks of a language model.
    pub(crate) fn may_chat(&self) -> bool {
        self.wire == Wire::OpenAi
    }
}

/// Plain HTTP paths and the models that answer them. A path holds for all below it; the longest one that fits wins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paths(HashMap<String, String>);

impl Paths {
    /// The paths that a configuration gives to models.
    pub(crate) fn of(config: &Config) -> Self {
        Self::new(config.paths().map(|(model, path)| (path, model)))
    }

    /// From pairs of a path and a model.
    fn new<'p>(pairs: impl IntoIterator<Item = (&'p str, &'p str)>) -> Self {
        let plain = |path: &str| path.trim_end_matches('/').to_owned();
        Self(pairs.into_iter().map(|(path, model)| (plain(path), model.to_owned())).collect())
    }

    /// The model of a path.
    fn model(&self, path: &str) -> Option<&str> {
        if self.0.is_empty() {
            return None;
        }
        let mut path = path.trim_end_matches('/');
        loop {
            if let Some(model) = self.0.get(path) {
                return Some(model);
            }
            path = &path[..path.rfind('/')?];
        }
    }
}

/// Whether a request waits for `100 Continue` before it sends its body.
pub(crate) fn asks_first(headers: &HeaderMap) -> bool {
    headers.contains_key(header::EXPECT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target<'a>(path: &'a str, paths: &'a Paths) -> Target<'a> {
        Target::parse(path, &HeaderMap::new(), paths)
    }

    fn parts(path: &str) -> (Option<String>, Option<String>, bool) {
        let paths = Paths::default();
        let target = target(path, &paths);
        (target.model.map(str::to_owned), target.version.map(str::to_owned), target.infers)
    }

    fn named(model: &str, version: Option<&str>, infers: bool) -> (Option<String>, Option<String>, bool) {
        (Some(model.to_owned()), version.map(str::to_owned), infers)
    }

    #[test]
    fn paths_that_name_the_model() {
        assert_eq!(parts("/v2/models/m/infer"), named("m", None, true));
        assert_eq!(parts("/v2/models/m/versions/v2/infer"), named("m", Some("v2"), true));
        assert_eq!(parts("/v2/models/m/versions/v2/ready"), named("m", Some("v2"), false));
        assert_eq!(parts("/v2/models/m"), named("m", None, false));
        assert_eq!(parts("/v2/models/m/ready"), named("m", None, false));
        assert_eq!(parts("/v2/models/m/generate_stream"), named("m", None, true));
        assert_eq!(parts("/v1/models/m:predict"), named("m", None, true));
        assert_eq!(parts("/v1/models/m/versions/7:predict"), named("m", Some("7"), true));
        assert_eq!(parts("/v1/models/m"), named("m", None, false));
        assert_eq!(parts("/v2/models/m/versions//infer"), named("m", None, true));
        for path in ["/v2/models/", "/score", "/"] {
            assert_eq!(parts(path).0, None, "{path}");
        }
    }

    #[test]
    fn paths_of_the_configuration() {
        let paths = Paths::new([("/score", "a"), ("/score/new/", "b")]);
        let model = |path| target(path, &paths).model;
        assert_eq!(model("/score"), Some("a"));
        assert_eq!(model("/score/"), Some("a"));
        assert_eq!(model("/score/old/x"), Some("a"));
        assert_eq!(model("/score/new/x/y"), Some("b"));
        assert_eq!(model("/scores"), None);
        assert_eq!(model("/"), None);
        let all = Paths::new([("/", "all")]);
        assert_eq!(target("/any/path", &all).model, Some("all"));
    }

    #[test]
    fn bodies_that_name_the_model() {
        let paths = Paths::default();
        let chat = target("/v1/chat/completions", &paths);
        assert_eq!((chat.wire, chat.model_in_body, chat.infers), (Wire::OpenAi, true, true));
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "application/grpc+proto".parse().unwrap());
        let grpc = |path| Target::parse(path, &headers, &paths);
        let infer = grpc("/inference.GRPCInferenceService/ModelInfer");
        assert!(infer.model_in_body && infer.infers && !infer.both_stream);
        let stream = grpc("/inference.GRPCInferenceService/ModelStreamInfer");
        assert!(stream.model_in_body && stream.infers && stream.both_stream);
        let ready = grpc("/inference.GRPCInferenceService/ModelReady");
        assert!(ready.model_in_body && !ready.infers);
        let foreign = grpc("/tensorflow.serving.PredictionService/Predict");
        assert!(!foreign.model_in_body && foreign.infers);
    }

    #[test]
    fn versions_are_taken_out_or_put_in() {
        let paths = Paths::default();
        let target = |path| target(path, &paths);
        let old = target("/v2/models/m/versions/old/infer");
        let upstream = |target: Target<'_>, version, uri| target.upstream(version, &Uri::from_static(uri)).unwrap();
        assert_eq!(upstream(old, None, "/?a=b"), "/v2/models/m/infer?a=b");
        assert_eq!(upstream(old, Some("v2"), "/"), "/v2/models/m/versions/v2/infer");
        let v1 = "/v1/models/m:predict";
        assert_eq!(upstream(target(v1), Some("2"), v1), "/v1/models/m/versions/2:predict");
        assert_eq!(upstream(target("/score"), Some("2"), "/score?q"), "/score?q");
    }
}
