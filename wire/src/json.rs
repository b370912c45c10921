//! JSON for the plugin that must stay small: a tree, and readers that know where in the document they are.
//!
//! The documents derive serde's traits as well; tools and the control plane use those. In the plugin the derived readers, one for each
//! type and each made for `serde_json`, took 230 KB of the 300 KB that it may have, with the paths of errors. Here the tree is made by one
//! parser, and a reader of a document is a list of calls. A test reads the same documents both ways.

mod fields;
mod parse;

pub(crate) use fields::{Fields, Read, variant};
pub(crate) use parse::parse;

/// A JSON value. A number stays the text that it was, so that decimals are read exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Where a value is: the way to it from the root, kept on the stack while the document is read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    Root,
    Field(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

// === impl Json ===

impl Json {
    /// What it is, for errors. The value is not repeated: keys of customers are among them.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

// === impl Place ===

impl Place<'_> {
    /// As an operator writes it: `rules[0].key`; `.` is the document itself.
    pub(crate) fn render(&self) -> String {
        match self {
            Self::Root => String::from("."),
            Self::Field(Place::Root, name) => String::from(*name),
            Self::Field(parent, name) => parent.render() + "." + name,
            Self::Item(Place::Root, index) => format!("[{index}]"),
            Self::Item(parent, index) => format!("{}[{index}]", parent.render()),
        }
    }
}
