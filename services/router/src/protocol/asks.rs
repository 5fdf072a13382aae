//! The values that the rules of a route request from bodies. Pure.

/// The values that are requested from bodies.
#[derive(Clone, Debug)]
pub(crate) struct Asks {
    /// The first node is the body itself.
    pub(super) nodes: Vec<Node>,
}

/// A position in a body.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    /// Positions below it.
    pub(super) below: Vec<Child>,
    /// Whether a scalar is requested here. In nested lists it is the first scalar.
    pub(super) scalar: bool,
    /// Names of the requested tensors, if this is a list of tensors.
    pub(super) tensors: Vec<String>,
}

/// A position below another one.
#[derive(Clone, Debug)]
pub(super) struct Child {
    pub(super) token: String,
    /// The token as a list index.
    pub(super) index: Option<usize>,
    pub(super) node: usize,
}

/// A scalar, or the first scalar of nested lists.
pub(super) const SCALAR: usize = 1;
/// A tensor: the fields that locate its first value, in the JSON part or after it.
pub(super) const TENSOR: usize = 2;
/// The parameters of a tensor.
const PARAMETERS: usize = 3;

impl Default for Asks {
    fn default() -> Self {
        let child = |token: &str, node| Child { token: token.to_owned(), index: None, node };
        let node = |below| Node { below, ..Node::default() };
        let tensor = vec![
            child("name", SCALAR),
            child("data", SCALAR),
            child("datatype", SCALAR),
            child("shape", SCALAR),
            child("parameters", PARAMETERS),
        ];
        let scalar = Node { scalar: true, ..Node::default() };
        Self { nodes: vec![node(Vec::new()), scalar, node(tensor), node(vec![child("binary_data_size", SCALAR)])] }
    }
}

impl Asks {
    /// Whether nothing is requested.
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes[0].below.is_empty()
    }

    /// Requests the scalar at a JSON pointer (RFC 6901).
    pub(crate) fn pointer(&mut self, pointer: &str) {
        let Some(path) = pointer.strip_prefix('/') else { return };
        let mut at = 0;
        for token in path.split('/') {
            at = self.child(at, &token.replace("~1", "/").replace("~0", "~"));
        }
        self.scalar(at);
    }

    /// Requests the first value of a named tensor in a list of tensors.
    pub(crate) fn tensor(&mut self, list: &str, name: &str) {
        let at = self.child(0, list);
        self.nodes[at].tensors.push(name.to_owned());
        let below: Vec<usize> =
            self.nodes[at].below.iter().filter(|child| child.index.is_some()).map(|child| child.node).collect();
        for node in below {
            self.as_tensor(node);
        }
    }

    /// Whether a value at or below this key is requested.
    pub(super) fn wants(&self, key: &str) -> bool {
        self.nodes[0].below.iter().any(|child| child.token == key)
    }

    /// Whether a value of this tensor of a list is requested.
    pub(super) fn wants_tensor(&self, list: &str, index: usize, name: Option<&str>) -> bool {
        let Some(child) = self.nodes[0].below.iter().find(|child| child.token == list) else { return false };
        let node = &self.nodes[child.node];
        node.below.iter().any(|child| child.index == Some(index))
            || name.is_some_and(|name| node.tensors.iter().any(|tensor| tensor == name))
    }

    /// Requests a scalar at a node, or the first scalar of nested lists there.
    fn scalar(&mut self, mut at: usize) {
        loop {
            self.nodes[at].scalar = true;
            match self.nodes[at].below.iter().find(|child| child.index == Some(0)) {
                Some(child) => at = child.node,
                None => return,
            }
        }
    }

    fn as_tensor(&mut self, at: usize) {
        for name in ["name", "data", "datatype", "shape"] {
            let node = self.child(at, name);
            self.scalar(node);
        }
        let parameters = self.child(at, "parameters");
        let size = self.child(parameters, "binary_data_size");
        self.scalar(size);
    }

    fn child(&mut self, at: usize, token: &str) -> usize {
        if let Some(child) = self.nodes[at].below.iter().find(|child| child.token == token) {
            return child.node;
        }
        let node = self.nodes.len();
        // Like a JSON pointer in `serde_json`: no sign and no leading zeros.
        let plain = !token.starts_with('+') && (token == "0" || !token.starts_with('0'));
        let index = if plain { token.parse().ok() } else { None };
        let first = index == Some(0) && self.nodes[at].scalar;
        self.nodes.push(Node { scalar: first, ..Node::default() });
        self.nodes[at].below.push(Child { token: token.to_owned(), index, node });
        if index.is_some() && !self.nodes[at].tensors.is_empty() {
            self.as_tensor(node);
        }
        node
    }
}
