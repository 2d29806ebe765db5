//! A drawing, before it is put into anybody's words: nodes, groups of them, and edges.

/// What is drawn of a service. The order of everything in it follows the service file.
#[derive(Debug, Default)]
pub(super) struct Drawing {
    /// The name of the service.
    pub(super) title: String,
    pub(super) parts: Vec<Part>,
    pub(super) edges: Vec<Edge>,
}

/// Something with a place in the drawing.
#[derive(Debug)]
pub(super) enum Part {
    Node(Node),
    Group(Group),
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: Id,
    pub(super) shape: Shape,
    /// What is written in it; plain text, to be escaped by whoever writes it down.
    pub(super) lines: Vec<String>,
}

/// A frame around parts.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: Id,
    pub(super) title: String,
    pub(super) parts: Vec<Part>,
}

#[derive(Debug)]
pub(super) struct Edge {
    pub(super) from: Id,
    pub(super) to: Id,
    pub(super) dashed: bool,
    /// Plain text; empty for none.
    pub(super) label: String,
}

/// The number of a node or group. Names are for people only, so nothing in them can break the drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(pub(super) usize);

/// What a node looks like, by what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A client, on either side.
    Outside,
    /// A route or a trigger.
    WayIn,
    /// A stage with workers of its own.
    Workers,
    /// A stage that runs in the node.
    InNode,
    /// Where branches part or come together.
    Branching,
    /// A pipeline that is drawn elsewhere.
    Elsewhere,
    FunctionPool,
}
