//! Paths: the model and version that they name, and the path for the upstream.
//!
//! The router removes a version from the path and chooses the version itself: `KServe`'s servers answer 501 to a versioned path. Servers
//! that expect a version get their own name for the chosen version.
//!
//! Names may contain slashes and colons, as those of Hugging Face do, percent-encoded or not: `/v2/models/org/model/infer`. The part after
//! the name is therefore removed from the end. If that gives no known model, the longest prefix that is a known model is used.

use std::borrow::Cow;

use foldhash::HashMap;
use http::{HeaderMap, Uri, header, uri::PathAndQuery};
use percent_encoding::percent_decode_str;

use crate::{
    config::Config,
    protocol::{Promise, Wire, grpc, openai},
};

/// A parsed request path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four independent facts of a path")]
pub(crate) struct Target<'a> {
    /// The protocol that the path belongs to.
    pub(crate) wire: Wire,
    /// The model, if the path names it.
    pub(crate) model: Option<Cow<'a, str>>,
    /// The version that the path names.
    pub(crate) version: Option<Cow<'a, str>>,
    /// Path up to the version, such as `/v2/models/flights`.
    before: &'a str,
    /// A label of TensorFlow Serving, such as `/labels/canary`. It is the servers' own name for a version and is passed on to them.
    label: &'a str,
    /// Path after the version, such as `/infer`.
    after: &'a str,
    /// Whether a `POST` to the path asks for a prediction.
    pub(crate) infers: bool,
    /// Whether the body names the model.
    pub(crate) model_in_body: bool,
    /// Whether both sides may send messages for an unlimited time.
    pub(crate) both_stream: bool,
    /// Whether the answer is one of `OpenAI`'s language models, which report how they end.
    chats: bool,
}

/// Where a protocol has the model's name, and which verbs may follow it.
struct Shape {
    wire: Wire,
    root: &'static str,
    /// The character before a verb.
    mark: char,
    /// Verbs that ask for a prediction.
    predicts: &'static [&'static str],
    /// Verbs that ask for something else about a model.
    asks: &'static [&'static str],
}

const SHAPES: [Shape; 3] = [
    Shape {
        wire: Wire::V2,
        root: "/v2/models/",
        mark: '/',
        predicts: &["infer", "generate", "generate_stream"],
        asks: &["ready", "config", "stats", "metadata", "load", "unload", "trace/setting"],
    },
    Shape {
        wire: Wire::V1,
        root: "/v1/models/",
        mark: ':',
        predicts: &["predict", "explain", "classify", "regress"],
        asks: &[],
    },
    Shape { wire: Wire::V1, root: "/openai/v1/models/", mark: ':', predicts: &[], asks: &[] },
];

impl<'a> Target<'a> {
    /// Parses a path. `configured` are the paths that the configuration assigns to models.
    pub(crate) fn parse(path: &'a str, headers: &HeaderMap, configured: &'a Paths) -> Self {
        if grpc::is(headers) {
            return Self::grpc(path);
        }
        if let Some(found) = SHAPES.iter().find_map(|shape| Self::of(path, shape)) {
            return found;
        }
        if openai::chats(path) {
            return Self { model_in_body: true, chats: true, ..Self::whole(path, Wire::OpenAi) };
        }
        if let Some(deployment) = openai::deployment(path) {
            let chats = openai::chats_at_deployment(path);
            return Self { model: Some(decoded(deployment)), chats, ..Self::whole(path, Wire::OpenAi) };
        }
        match configured.model(path) {
            Some(model) => Self { model: Some(model.into()), ..Self::whole(path, Wire::Plain) },
            None => Self { model_in_body: true, ..Self::whole(path, Wire::of(path, headers)) },
        }
    }

    fn whole(path: &'a str, wire: Wire) -> Self {
        Self {
            wire,
            model: None,
            version: None,
            before: path,
            label: "",
            after: "",
            infers: true,
            model_in_body: false,
            both_stream: false,
            chats: false,
        }
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

    /// Parses a path `<root><model>[/versions/<version>][<mark><verb>]` from its end.
    fn of(path: &'a str, shape: &Shape) -> Option<Self> {
        let rest = path.strip_prefix(shape.root)?;
        let bare = rest.trim_end_matches('/');
        if bare.is_empty() {
            return None;
        }
        let mut verbs = shape.predicts.iter().chain(shape.asks);
        let verb = verbs.find_map(|verb| without_verb(bare, shape.mark, verb));
        Some(Self::behind(path, shape, shape.root.len() + verb.unwrap_or(bare.len())))
    }

    /// Parses the path again if the name is unknown: the longest prefix that is a known model is the name.
    pub(crate) fn with_known(&self, path: &'a str, known: impl Fn(&str) -> bool) -> Option<Self> {
        let shape = SHAPES.iter().find(|shape| path.starts_with(shape.root))?;
        let rest = path.strip_prefix(shape.root)?;
        // All of the path before a known verb is the name.
        let bare = rest.trim_end_matches('/');
        if shape.predicts.iter().chain(shape.asks).any(|verb| without_verb(bare, shape.mark, verb).is_some()) {
            return None;
        }
        let mut ends = rest.char_indices().rev().map(|(at, _)| at).filter(|&at| at > 0 && is_boundary(&rest[at..]));
        let name = ends.find(|&at| known(&decoded(&rest[..at])))?;
        let found = Self::behind(path, shape, shape.root.len() + name);
        (found.model.as_deref() != self.model.as_deref()).then_some(found)
    }

    /// Parses the path whose verb starts at `end`.
    fn behind(path: &'a str, shape: &Shape, end: usize) -> Self {
        let root = shape.root.len();
        let after = &path[end..];
        let (mut name, mut version, mut label) = (&path[root..end], None, "");
        if let Some(at) = name.rfind('/').filter(|&at| at + 1 < name.len() || name.ends_with("versions/")) {
            let (head, last) = (&name[..at], &name[at + 1..]);
            if let Some(model) = head.strip_suffix("/versions").filter(|model| !model.is_empty()) {
                (name, version) = (model, Some(last).filter(|version| !version.is_empty()));
            } else if let Some(model) = head.strip_suffix("/labels").filter(|model| !model.is_empty())
                && shape.wire == Wire::V1
            {
                label = &name[model.len()..];
                name = model;
            }
        }
        let verb = after.trim_start_matches("%3A").trim_start_matches("%3a").trim_start_matches([shape.mark, ':']);
        let infers = !shape.asks.contains(&verb.trim_end_matches('/'));
        Self {
            model: Some(decoded(name)),
            version: version.map(decoded),
            before: &path[..root + name.len()],
            label,
            after,
            infers,
            ..Self::whole(path, shape.wire)
        }
    }

    /// What the protocol guarantees about an answer.
    pub(crate) fn promise(&self) -> Promise {
        match (self.wire, self.after.trim_end_matches('/')) {
            (Wire::V2, "/infer") => Promise::Tensors,
            (Wire::V1, ":predict" | "%3Apredict" | "%3apredict") => Promise::Predictions,
            // Paths that only look like those of the protocols, such as `/v2/rerank`, guarantee nothing.
            (Wire::V1 | Wire::V2, _) if self.model_in_body => Promise::Nothing,
            (Wire::V1 | Wire::V2, _) => Promise::Json,
            (Wire::OpenAi, _) => openai::promise(self.before),
            (Wire::Grpc, _) if self.model_in_body => Promise::Tensors,
            (Wire::Grpc, _) => Promise::Service,
            (Wire::Plain, _) => Promise::Nothing,
        }
    }

    /// Whether the request asks for the model's description, as `OpenAI`'s clients do.
    pub(crate) fn is_model(&self) -> bool {
        self.wire == Wire::V1
            && self.version.is_none()
            && self.label.is_empty()
            && self.after.trim_matches('/').is_empty()
    }

    /// The path for an upstream: with the servers' name of the version if they expect one, otherwise without a version. `None` if the
    /// result is not a valid path.
    pub(crate) fn upstream(&self, version: Option<&str>, uri: &Uri) -> Option<PathAndQuery> {
        let version = version.filter(|_| matches!(self.wire, Wire::V1 | Wire::V2));
        if let (None, None, Some(same)) = (version, &self.version, uri.path_and_query()) {
            return Some(same.clone());
        }
        let mut path = self.before.to_owned();
        match version {
            Some(version) => {
                path.push_str("/versions/");
                path.push_str(version);
            }
            None => path.push_str(self.label),
        }
        path.push_str(self.after);
        if let Some(query) = uri.query() {
            path.push('?');
            path.push_str(query);
        }
        path.try_into().ok()
    }

    /// Whether servers answer only predictions at this path.
    pub(crate) fn predicts_only(&self) -> bool {
        self.model_in_body && (self.chats || openai::predicts(self.before))
    }

    /// Whether the request asks for a response that its server keeps.
    pub(crate) fn is_response(&self) -> bool {
        self.chats && self.before.trim_end_matches('/').ends_with("/responses")
    }

    /// Whether the answer may be a stream of chunks of a language model.
    pub(crate) fn may_chat(&self) -> bool {
        self.chats
    }
}

/// A percent-decoded name of a path; unchanged if the result is not valid UTF-8.
fn decoded(name: &str) -> Cow<'_, str> {
    percent_decode_str(name).decode_utf8().unwrap_or(Cow::Borrowed(name))
}

/// Whether a slash or a colon starts here, percent-encoded or not.
fn is_boundary(rest: &str) -> bool {
    let encoded = |code: &str| rest.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(code));
    rest.starts_with(['/', ':']) || encoded("%2f") || encoded("%3a")
}

/// The position of a verb including its mark, if the path ends with the verb and has a name before it.
fn without_verb(path: &str, mark: char, verb: &str) -> Option<usize> {
    let before = path.strip_suffix(verb)?;
    let encoded = if mark == ':' { before.strip_suffix("%3A").or_else(|| before.strip_suffix("%3a")) } else { None };
    let before = before.strip_suffix(mark).or(encoded)?;
    (!before.trim_matches('/').is_empty()).then_some(before.len())
}

/// Plain HTTP paths and their models. A path includes all paths below it; the longest match wins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paths(HashMap<String, String>);

impl Paths {
    /// The paths that a configuration assigns to models.
    pub(crate) fn of(config: &Config) -> Self {
        Self::new(config.paths().map(|(model, path)| (path, model)))
    }

    /// Builds the map from pairs of a path and a model.
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
        (target.model.map(Cow::into_owned), target.version.map(Cow::into_owned), target.infers)
    }

    fn named(model: &str, version: Option<&str>, infers: bool) -> (Option<String>, Option<String>, bool) {
        (Some(model.to_owned()), version.map(str::to_owned), infers)
    }

    #[test]
    fn paths_that_name_the_model() {
        assert_eq!(parts("/v2/models/m/infer"), named("m", None, true));
        assert_eq!(parts("/v2/models/m/versions/v2/infer"), named("m", Some("v2"), true));
        assert_eq!(parts("/v2/models/m/versions/v2/ready"), named("m", Some("v2"), false));
        assert_eq!(parts("/v2/models/m"), named("m", None, true));
        assert_eq!(parts("/v2/models/m/ready"), named("m", None, false));
        assert_eq!(parts("/v2/models/m/generate_stream"), named("m", None, true));
        assert_eq!(parts("/v1/models/m:predict"), named("m", None, true));
        assert_eq!(parts("/v1/models/m/versions/7:predict"), named("m", Some("7"), true));
        assert_eq!(parts("/v1/models/m"), named("m", None, true));
        assert_eq!(parts("/v2/models/m/versions//infer"), named("m", None, true));
        for path in ["/v2/models/", "/v2/models//", "/score", "/"] {
            assert_eq!(parts(path).0, None, "{path}");
        }
    }

    #[test]
    fn names_with_slashes_and_colons() {
        for path in ["/v2/models/org/model/infer", "/v2/models/org%2Fmodel/infer", "/v2/models/org%2fmodel/infer/"] {
            assert_eq!(parts(path), named("org/model", None, true), "{path}");
        }
        assert_eq!(parts("/v2/models/org/model/versions/2/ready"), named("org/model", Some("2"), false));
        assert_eq!(parts("/v2/models/org/model/versions/v%2F2"), named("org/model", Some("v/2"), true));
        assert_eq!(parts("/v2/models/a%2Db/infer"), named("a-b", None, true));
        assert_eq!(parts("/v2/models/mod%C3%A8le/infer"), named("modèle", None, true));
        assert_eq!(parts("/v2/models/a%FFb/infer"), named("a%FFb", None, true), "not valid UTF-8");
        for path in
            ["/v1/models/llama3:8b:predict", "/v1/models/llama3%3A8b:predict", "/v1/models/llama3%3A8b%3Apredict"]
        {
            assert_eq!(parts(path), named("llama3:8b", None, true), "{path}");
        }
        assert_eq!(parts("/v1/models/org/model:predict"), named("org/model", None, true));
        assert_eq!(parts("/v1/models/org/model/versions/7:classify"), named("org/model", Some("7"), true));
        assert_eq!(parts("/v1/models/m/labels/stable:regress"), named("m", None, true));
        assert_eq!(parts("/v1/models/org/model").0.as_deref(), Some("org/model"));
        assert_eq!(parts("/openai/v1/models/org/model").0.as_deref(), Some("org/model"));
        assert_eq!(parts("/v2/models/infer/infer"), named("infer", None, true));
        assert_eq!(parts("/v2/models/m/trace/setting"), named("m", None, false));
        assert_eq!(parts("/v2/models/m/load"), named("m", None, false));
    }

    #[test]
    fn the_longest_known_name_is_the_model_of_a_path_with_an_unknown_verb() {
        let known = |name: &str| ["m", "org", "org/model", "a:b"].contains(&name);
        let paths = Paths::default();
        let find = |path: &str| {
            let found = target(path, &paths).with_known(path, known);
            found.map(|found| (found.model.clone().unwrap().into_owned(), found.after.to_owned(), found.infers))
        };
        let some = |name: &str, after: &str| Some((name.to_owned(), after.to_owned(), true));
        assert_eq!(find("/v2/models/m/embed"), some("m", "/embed"));
        assert_eq!(find("/v2/models/org/model/a/b"), some("org/model", "/a/b"));
        assert_eq!(find("/v2/models/org%2Fmodel/a"), some("org/model", "/a"));
        assert_eq!(find("/v2/models/org/other/a"), some("org", "/other/a"));
        assert_eq!(find("/v1/models/a:b:embed"), some("a:b", ":embed"));
        assert_eq!(find("/v1/models/m%3Aembed"), some("m", "%3Aembed"));
        assert_eq!((find("/v2/models/x/embed"), find("/v2/models/x")), (None, None));
        for typo in [
            "/v2/models/m/other/infer",
            "/v2/models/m%2Fother/infer",
            "/v2/models/m/other/ready",
            "/v2/models/m/other/versions/1/generate/",
            "/v1/models/m:typo:predict",
            "/v1/models/m%3Atypo%3Apredict",
            "/v2/models/m%00/infer",
            "/v2/models/m%00",
            "/v2/models/m%20/embed",
            "/v1/models/m%2Dx",
        ] {
            assert_eq!(find(typo), None, "{typo}");
        }
    }

    #[test]
    fn paths_of_the_configuration() {
        let paths = Paths::new([("/score", "a"), ("/score/new/", "b")]);
        let model = |path| target(path, &paths).model.map(Cow::into_owned);
        assert_eq!(model("/score").as_deref(), Some("a"));
        assert_eq!(model("/score/").as_deref(), Some("a"));
        assert_eq!(model("/score/old/x").as_deref(), Some("a"));
        assert_eq!(model("/score/new/x/y").as_deref(), Some("b"));
        assert_eq!(model("/scores"), None);
        assert_eq!(model("/"), None);
        let all = Paths::new([("/", "all")]);
        assert_eq!(target("/any/path", &all).model.as_deref(), Some("all"));
    }

    #[test]
    fn bodies_that_name_the_model() {
        let paths = Paths::default();
        for (path, wire, chats) in [
            ("/v1/chat/completions", Wire::OpenAi, true),
            ("/openai/v1/responses", Wire::OpenAi, true),
            ("/v1/messages", Wire::OpenAi, false),
            ("/v1/rerank", Wire::OpenAi, false),
            ("/v1/audio/transcriptions", Wire::OpenAi, false),
            ("/rerank", Wire::Plain, false),
            ("/v2/rerank", Wire::V2, false),
        ] {
            let found = target(path, &paths);
            assert_eq!((found.wire, found.chats), (wire, chats), "{path}");
            assert!(found.model_in_body && found.infers && found.model.is_none(), "{path}");
        }
        let azure = target("/openai/deployments/gpt%2D4o/chat/completions", &paths);
        assert_eq!((azure.model.as_deref(), azure.model_in_body, azure.chats), (Some("gpt-4o"), false, true));
        let azure = target("/openai/deployments/whisper/audio/transcriptions", &paths);
        assert_eq!((azure.model.as_deref(), azure.chats), (Some("whisper"), false));
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
    fn versions_are_removed_or_set() {
        let paths = Paths::default();
        let target = |path| target(path, &paths);
        let old = target("/v2/models/m/versions/old/infer");
        let upstream = |target: Target<'_>, version, uri| target.upstream(version, &Uri::from_static(uri)).unwrap();
        assert_eq!(upstream(old.clone(), None, "/?a=b"), "/v2/models/m/infer?a=b");
        assert_eq!(upstream(old, Some("v2"), "/"), "/v2/models/m/versions/v2/infer");
        let v1 = "/v1/models/m:predict";
        assert_eq!(upstream(target(v1), Some("2"), v1), "/v1/models/m/versions/2:predict");
        assert_eq!(upstream(target("/score"), Some("2"), "/score?q"), "/score?q");
        let label = "/v1/models/m/labels/canary:predict";
        assert_eq!(upstream(target(label), None, label), label, "the servers' own name for a version");
        assert_eq!(upstream(target(label), Some("2"), label), "/v1/models/m/versions/2:predict");
        let slash = "/v2/models/org/m%3A8b/versions/1/infer/";
        assert_eq!(upstream(target(slash), Some("7"), slash), "/v2/models/org/m%3A8b/versions/7/infer/");
    }
}
