//! Which model a request is for and what it wants: the paths of the Open Inference Protocol V2 and of `KServe`'s V1.
//!
//! A version in the path is taken out and decided by the router: `KServe`'s servers answer 501 to it. Servers that want it get
//! the version that was chosen.

/// A request's path, taken apart. All parts borrow from the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
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
}

impl<'a> Target<'a> {
    /// Takes a path apart. Paths of neither protocol have no model.
    pub(crate) fn parse(path: &'a str) -> Self {
        Self::of(path, "/v2/models/", '/', &["infer", "generate", "generate_stream"])
            .or_else(|| Self::of(path, "/v1/models/", ':', &["predict", "explain"]))
            .unwrap_or(Self { model: None, version: None, before: path, after: "", infers: false })
    }

    /// A path `<root><model>[/versions/<version>][<mark><verb>]`.
    fn of(path: &'a str, root: &str, mark: char, verbs: &[&str]) -> Option<Self> {
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
        Some(Self { model: Some(&rest[..name]), version, before, after, infers })
    }

    /// The path for an upstream: with the chosen version if its servers want one, else without any.
    pub(crate) fn upstream(&self, version: Option<&str>, query: Option<&str>) -> String {
        let mut path = self.before.to_owned();
        if let (Some(version), Some(_)) = (version, self.model) {
            path.push_str("/versions/");
            path.push_str(version);
        }
        path.push_str(self.after);
        if let Some(query) = query {
            path.push('?');
            path.push_str(query);
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> (Option<&str>, Option<&str>, bool) {
        let target = Target::parse(path);
        (target.model, target.version, target.infers)
    }

    #[test]
    fn paths_of_both_protocols() {
        assert_eq!(parts("/v2/models/m/infer"), (Some("m"), None, true));
        assert_eq!(parts("/v2/models/m/versions/v2/infer"), (Some("m"), Some("v2"), true));
        assert_eq!(parts("/v2/models/m/versions/v2/ready"), (Some("m"), Some("v2"), false));
        assert_eq!(parts("/v2/models/m"), (Some("m"), None, false));
        assert_eq!(parts("/v2/models/m/ready"), (Some("m"), None, false));
        assert_eq!(parts("/v2/models/m/generate_stream"), (Some("m"), None, true));
        assert_eq!(parts("/v1/models/m:predict"), (Some("m"), None, true));
        assert_eq!(parts("/v1/models/m/versions/7:predict"), (Some("m"), Some("7"), true));
        assert_eq!(parts("/v1/models/m"), (Some("m"), None, false));
        assert_eq!(parts("/v2/models/"), (None, None, false));
        assert_eq!(parts("/v2/models/m/versions//infer"), (Some("m"), None, true));
        assert_eq!(parts("/score"), (None, None, false));
        assert_eq!(parts("/"), (None, None, false));
    }

    #[test]
    fn versions_are_taken_out_or_put_in() {
        let target = Target::parse("/v2/models/m/versions/old/infer");
        assert_eq!(target.upstream(None, Some("a=b")), "/v2/models/m/infer?a=b");
        assert_eq!(target.upstream(Some("v2"), None), "/v2/models/m/versions/v2/infer");
        assert_eq!(Target::parse("/v1/models/m:predict").upstream(Some("2"), None), "/v1/models/m/versions/2:predict");
        assert_eq!(Target::parse("/score").upstream(Some("2"), Some("q")), "/score?q");
    }
}
