//! The cargo feature `full-operators`: an operator outside the register loads with it, and without it is refused by name.

// A step that fails must stop the test, in its helpers too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod fixture;

use fixture::*;
use forebay_forecast::pb::ModelProto;
use forebay_forecast::{Limits, Model, ModelError};

/// The good model with an `Elu` behind its softplus. What it sees is positive, so it changes nothing and the golden
/// output of the plain forward pass still holds.
fn with_elu() -> ModelProto {
    let mut model = good();
    node_of(&mut model, "increments").output = vec!["positive".into()];
    let place = graph(&mut model)
        .node
        .iter()
        .position(|node| node.output[0] == "relative")
        .unwrap();
    let mut elu = node("Elu", &["positive"], &["increments"]);
    elu.name = "keep increments".into();
    graph(&mut model).node.insert(place, elu);
    model
}

fn load(model: &ModelProto) -> Result<Model, ModelError> {
    Model::load(&bytes(model), &Limits::default(), 4)
}

#[test]
#[cfg(feature = "full-operators")]
fn an_operator_outside_the_register_loads_and_meets_the_golden_output() {
    let model = load(&with_elu()).unwrap();
    assert!(
        model.check().golden_difference < 1e-5,
        "{:?}",
        model.check()
    );
}

#[test]
#[cfg(not(feature = "full-operators"))]
fn an_operator_outside_the_register_is_refused_with_its_name_and_the_remedy() {
    let error = load(&with_elu()).unwrap_err();
    assert!(
        matches!(error, ModelError::UnknownOperator { .. }),
        "{error}"
    );
    let text = error.to_string();
    for part in ["Elu", "keep increments", "full-operators"] {
        assert!(text.contains(part), "{text}");
    }
}
