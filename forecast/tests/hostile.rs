//! Files that must not get into a gateway: each is refused with an error that says what, where and what to do.

// A step that fails must stop the test, in its helpers too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod fixture;

use fixture::*;
use forebay_forecast::pb::tensor_proto::{DataLocation, DataType};
use forebay_forecast::pb::{ModelProto, StringStringEntryProto};
use forebay_forecast::{Limits, Model, ModelError, verdict};
use proptest::prelude::*;

const ROWS: usize = 4;

fn error_of(model: &ModelProto) -> ModelError {
    Model::load(&bytes(model), &Limits::default(), ROWS).expect_err("the file should be refused")
}

/// Breaks the good model and expects an error that matches and mentions all of `words`.
macro_rules! refused {
    ($break_it:expr, $variant:pat, $($word:expr),+) => {{
        let mut model = good();
        let break_it: fn(&mut ModelProto) = $break_it;
        break_it(&mut model);
        let error = error_of(&model);
        assert!(matches!(error, $variant), "{error:?}");
        let text = error.to_string();
        $(assert!(text.contains($word), "`{}` is not in: {text}", $word);)+
    }};
}

#[test]
fn oversized() {
    let mut model = good();
    model.doc_string = "x".repeat(2 << 20);
    let error = error_of(&model);
    assert!(matches!(error, ModelError::TooLarge { .. }), "{error:?}");
}

#[test]
fn truncated_at_any_byte_or_not_a_protobuf() {
    let good = bytes(&good());
    for len in (0..good.len()).step_by(7) {
        assert!(
            Model::load(&good[..len], &Limits::default(), ROWS).is_err(),
            "{len} bytes were accepted"
        );
    }
    let error = Model::load(&good[..good.len() - 1], &Limits::default(), ROWS).unwrap_err();
    assert!(matches!(error, ModelError::Unreadable { .. }), "{error:?}");
    let error = Model::load(b"<html>not found</html>", &Limits::default(), ROWS).unwrap_err();
    assert!(matches!(error, ModelError::Unreadable { .. }), "{error:?}");
}

#[test]
fn without_a_graph() {
    refused!(
        |model| model.graph = None,
        ModelError::NoGraph,
        "export the whole model"
    );
    let error = Model::load(&[], &Limits::default(), ROWS).unwrap_err();
    assert!(matches!(error, ModelError::NoGraph), "{error:?}");
}

#[test]
fn metadata_missing_or_wrong() {
    refused!(
        |model| model.metadata_props.clear(),
        ModelError::MetadataMissing { .. },
        "forebay.contract_version"
    );
    refused!(
        |model| set_metadata(model, "window", "\"8\""),
        ModelError::MetadataUnreadable { .. },
        "forebay.window"
    );
    refused!(
        |model| set_metadata(model, "quantiles", "[0.9, 0.1]"),
        ModelError::MetadataValue { .. },
        "ascending"
    );
    refused!(
        |model| set_metadata(model, "contract_version", "9"),
        ModelError::ContractVersion { .. },
        "version 9"
    );
    refused!(
        |model| set_metadata(model, "window", "99999999999"),
        ModelError::MetadataValue { .. } | ModelError::MetadataUnreadable { .. },
        "forebay.window"
    );
}

#[test]
#[cfg(not(feature = "full-operators"))]
fn unknown_operators_loops_and_subgraphs() {
    refused!(
        |model| node_of(model, "raw").op_type = "TreeEnsembleRegressor".into(),
        ModelError::UnknownOperator { .. },
        "TreeEnsembleRegressor",
        "make raw",
        "full-operators"
    );
    for op in ["Loop", "Scan", "If", "LSTM", ""] {
        let mut model = good();
        node_of(&mut model, "raw").op_type = op.into();
        assert!(
            matches!(error_of(&model), ModelError::UnknownOperator { .. }),
            "{op}"
        );
    }
}

#[test]
fn inputs_that_differ_from_the_contract() {
    refused!(
        |model| graph(model).input[0] = value("usages", &[WINDOW]),
        ModelError::Input { .. },
        "usages",
        "not an input of the contract"
    );
    refused!(
        |model| graph(model).input.retain(|i| i.name != "mask"),
        ModelError::Input { .. },
        "mask",
        "missing"
    );
    refused!(
        |model| graph(model).input[2] = value("calendar", &[WINDOW, CALENDAR]),
        ModelError::Input { .. },
        "calendar",
        "8 in dimension 1",
        "metadata says 10"
    );
    refused!(
        |model| graph(model).input[3] = value("past", &[WINDOW]),
        ModelError::Input { .. },
        "past",
        "dimensions"
    );
    refused!(
        |model| {
            use forebay_forecast::pb::type_proto::Value;
            let kind = graph(model).input[0].r#type.as_mut().unwrap();
            let Some(Value::TensorType(tensor)) = &mut kind.value else {
                panic!()
            };
            tensor.elem_type = DataType::Double as i32;
        },
        ModelError::Input { .. },
        "usage",
        "element type 11"
    );
    refused!(
        |model| graph(model).input[1].r#type = None,
        ModelError::Input { .. },
        "mask",
        "no tensor type"
    );
}

#[test]
fn outputs_that_differ_from_the_contract() {
    refused!(
        |model| graph(model).output.clear(),
        ModelError::Output { .. },
        "exactly one output"
    );
    refused!(
        |model| graph(model).output[0] = value("forecast", &[HORIZONS, QUANTILES]),
        ModelError::Output { .. },
        "named `quantiles`"
    );
    refused!(
        |model| graph(model).output[0] = value("quantiles", &[HORIZONS, 9]),
        ModelError::Output { .. },
        "9 in dimension 2"
    );
    refused!(
        |model| {
            *tensor_of(model, "rows") = ints("rows", &[-1, (HORIZONS * QUANTILES) as i64]);
            graph(model).output[0].r#type.as_mut().unwrap().value =
                value("x", &[2, 3]).r#type.unwrap().value;
        },
        ModelError::Output { .. },
        "the graph makes"
    );
    refused!(
        |model| node_of(model, "quantiles").output[0] = "x".into(),
        ModelError::Output { .. },
        "no node makes"
    );
}

#[test]
fn operator_sets_out_of_range() {
    refused!(
        |model| model.opset_import[0].version = 99,
        ModelError::Opset { .. },
        "99"
    );
    refused!(
        |model| model.opset_import.clear(),
        ModelError::Opset { .. },
        "operator set 0"
    );
}

#[test]
fn weights_that_are_no_numbers() {
    refused!(
        |model| tensor_of(model, "W").raw_data[8..12].copy_from_slice(&f32::NAN.to_le_bytes()),
        ModelError::NotFinite { index: 2, .. },
        "`W`"
    );
    refused!(
        |model| tensor_of(model, "head").raw_data[..4]
            .copy_from_slice(&f32::INFINITY.to_le_bytes()),
        ModelError::NotFinite { index: 0, .. },
        "`head`"
    );
}

#[test]
fn tensors_of_absurd_or_contradictory_size() {
    refused!(
        |model| tensor_of(model, "R").dims[1] = -1,
        ModelError::TensorSize { .. },
        "`R`",
        "absurd"
    );
    refused!(
        |model| tensor_of(model, "R").dims[1] = 0,
        ModelError::TensorSize { .. },
        "`R`",
        "absurd"
    );
    refused!(
        |model| tensor_of(model, "R").dims = vec![i64::MAX; 3],
        ModelError::TensorSize { .. },
        "`R`",
        "absurd"
    );
    refused!(
        |model| tensor_of(model, "R").dims = vec![1; 100],
        ModelError::TensorSize { .. },
        "100 dimensions"
    );
    refused!(
        |model| tensor_of(model, "R").dims[2] = 1_000,
        ModelError::TensorSize { .. },
        "stores 48"
    );
    refused!(
        |model| tensor_of(model, "R").raw_data.truncate(5),
        ModelError::TensorSize { .. },
        "`R`",
        "raw bytes"
    );
    refused!(
        |model| tensor_of(model, "R").raw_data.clear(),
        ModelError::TensorSize { .. },
        "stores 0"
    );
    refused!(
        |model| *tensor_of(model, "head") = floats("head", &[300_000], &vec![0.0; 250_001]),
        ModelError::TensorSize { .. }
            | ModelError::TooManyWeights { .. }
            | ModelError::TooLarge { .. },
        "head"
    );
}

#[test]
fn too_many_weights() {
    let limits = Limits {
        weights: 100,
        ..Limits::default()
    };
    let error = Model::load(&bytes(&good()), &limits, ROWS).unwrap_err();
    assert!(
        matches!(error, ModelError::TooManyWeights { limit: 100, .. }),
        "{error:?}"
    );
}

#[test]
fn tensors_outside_the_file_or_of_a_strange_type() {
    refused!(
        |model| {
            let tensor = tensor_of(model, "W");
            tensor.data_location = Some(DataLocation::External as i32);
            let entry = StringStringEntryProto {
                key: "location".into(),
                value: "/etc/passwd".into(),
            };
            tensor.external_data = vec![entry];
        },
        ModelError::ExternalData { .. },
        "`W`"
    );
    refused!(
        |model| tensor_of(model, "W").data_type = DataType::Double as i32,
        ModelError::TensorType { .. },
        "`W`",
        "type 11"
    );
    refused!(
        |model| tensor_of(model, "W").data_type = 9_999,
        ModelError::TensorType { .. },
        "`W`",
        "type 9999"
    );
}

#[test]
fn graphs_that_are_too_big_or_too_slow() {
    refused!(
        |model| {
            let identity = node("Identity", &["tokens"], &["ignored"]);
            graph(model).node.extend(vec![identity; 2_000]);
        },
        ModelError::TooManyNodes { .. },
        "2024 nodes"
    );
    // Two vectors broadcast into ever larger tensors.
    refused!(
        |model| {
            let nodes = &mut graph(model).node;
            let last = nodes.pop().unwrap();
            nodes.push(node("Reshape", &["ones", "tall"], &["tall_ones"]));
            nodes.push(node("Mul", &["tall_ones", "ones"], &["square"]));
            nodes.push(last);
            graph(model)
                .initializer
                .push(floats("ones", &[1, 5_000], &[1.0; 5_000]));
            graph(model).initializer.push(ints("tall", &[5_000, 1]));
        },
        ModelError::Operator { .. } | ModelError::TooMuchWork { .. },
        "limit"
    );
    let limits = Limits {
        flops_per_row: 100,
        ..Limits::default()
    };
    let error = Model::load(&bytes(&good()), &limits, ROWS).unwrap_err();
    assert!(
        matches!(error, ModelError::TooMuchWork { limit: 400, .. }),
        "{error:?}"
    );
    let limits = Limits {
        loop_steps: 3,
        ..Limits::default()
    };
    let error = Model::load(&bytes(&good()), &limits, ROWS).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("4 steps are more than the limit of 3"),
        "{error}"
    );
}

#[test]
fn nodes_that_do_not_fit_together() {
    refused!(
        |model| node_of(model, "raw").input[0] = "ghost".into(),
        ModelError::Operator { .. },
        "ghost",
        "make raw"
    );
    refused!(
        |model| node_of(model, "raw").input.clear(),
        ModelError::Operator { .. },
        "input number 0 is missing"
    );
    refused!(
        |model| node_of(model, "tokens").output[0] = "raw".into(),
        ModelError::DuplicateValue { .. },
        "`raw`"
    );
    refused!(
        |model| node_of(model, "raw").input[1] = "ascending".into(),
        ModelError::Operator { .. },
        "cannot be multiplied"
    );
    refused!(
        |model| *tensor_of(model, "patches") = ints("patches", &[4, 4, 3]),
        ModelError::Operator { .. },
        "batch dimension"
    );
    refused!(
        |model| *tensor_of(model, "patches") = ints("patches", &[-1, -1]),
        ModelError::Operator { .. },
        "cannot become"
    );
    refused!(
        |model| *tensor_of(model, "axis_1") = ints("axis_1", &[7]),
        ModelError::Operator { .. },
        "axis 7"
    );
    refused!(
        |model| *tensor_of(model, "ahead_start") = ints("ahead_start", &[100]),
        ModelError::Operator { .. },
        "is empty"
    );
    refused!(
        |model| node_of(model, "by_step").attribute[0].ints = vec![0, 0, 0],
        ModelError::Operator { .. },
        "no order"
    );
    refused!(
        |model| node_of(model, "sequence").attribute[0].r#type = 1,
        ModelError::Operator { .. },
        "attribute `axis`"
    );
    refused!(
        |model| node_of(model, "mean").input[0] = "scaled".into(),
        ModelError::Operator { .. },
        "scaled"
    );
    refused!(
        |model| node_of(model, "seen").input[1] = "patches".into(),
        ModelError::Operator { .. },
        "floats"
    );
}

#[test]
fn recurrent_layers_that_cannot_run() {
    refused!(
        |model| node_of(model, "state")
            .attribute
            .retain(|a| a.name != "linear_before_reset"),
        ModelError::Operator { .. },
        "linear_before_reset must be 1"
    );
    refused!(
        |model| node_of(model, "state").input[1] = "R".into(),
        ModelError::Operator { .. },
        "do not fit together"
    );
    refused!(
        |model| node_of(model, "state")
            .input
            .extend([String::new(), "state".into()]),
        ModelError::Operator { .. },
        "state"
    );
    refused!(
        |model| *tensor_of(model, "B") = floats("B", &[1, 7], &[0.0; 7]),
        ModelError::Operator { .. },
        "B has shape [1, 7]"
    );
}

#[test]
fn golden_vectors_that_are_missing_wrong_or_not_met() {
    refused!(
        |model| model
            .metadata_props
            .retain(|entry| entry.key != "forebay.golden_output"),
        ModelError::MetadataMissing { .. },
        "forebay.golden_output"
    );
    refused!(
        |model| set_metadata(model, "golden_output", "[1.0]"),
        ModelError::Golden { .. },
        "the output has 1"
    );
    refused!(
        |model| set_metadata(model, "golden_input", "{}"),
        ModelError::MetadataUnreadable { .. },
        "golden_input"
    );
    refused!(
        |model| {
            let mut golden = golden();
            golden.quantiles[7] += 1.0;
            set_metadata(model, "golden_output", &golden.to_metadata()[1].1);
        },
        ModelError::GoldenMismatch {
            row: 1,
            index: 1,
            ..
        },
        "row 1 at 1"
    );
    // The weights were changed after the export.
    refused!(
        |model| tensor_of(model, "head").raw_data[..4].copy_from_slice(&3.0_f32.to_le_bytes()),
        ModelError::GoldenMismatch { .. },
        "the file was changed"
    );
}

#[test]
fn forecasts_that_are_none() {
    // Subtracting twice the tokens makes them negative.
    refused!(
        |model| {
            node_of(model, "quantiles").input[0] = "negative".into();
            let nodes = &mut graph(model).node;
            let last = nodes.pop().unwrap();
            nodes.push(node("Neg", &["tokens"], &["negative"]));
            nodes.push(last);
        },
        ModelError::Forecast { .. },
        "golden row 0"
    );
    // Without the guard an empty row divides zero by zero.
    refused!(
        |model| node_of(model, "at_least_one").input[1] = "count".into(),
        ModelError::Forecast { .. },
        "an empty row"
    );
}

#[test]
fn graphs_that_mix_customers() {
    refused!(
        |model| {
            // The scale becomes that of the row before, by way of a roll over the batch.
            let nodes = &mut graph(model).node;
            let at = nodes
                .iter()
                .position(|node| node.output[0] == "scale")
                .unwrap();
            nodes[at].output[0] = "own".into();
            nodes.insert(
                at + 1,
                with(
                    node("ReduceMax", &["own"], &["scale"]),
                    int_list("axes", &[0]),
                ),
            );
            let mut golden = golden();
            golden.rows = 1;
            for (values, len) in [
                (&mut golden.usage, WINDOW),
                (&mut golden.mask, WINDOW),
                (&mut golden.calendar, (WINDOW + HORIZONS) * CALENDAR),
                (&mut golden.past, WINDOW * PAST),
                (&mut golden.quantiles, HORIZONS * QUANTILES),
            ] {
                values.truncate(len);
            }
            for (i, entry) in golden.to_metadata().into_iter().enumerate() {
                set_metadata(model, ["golden_input", "golden_output"][i], &entry.1);
            }
            // Only the first row counts: what it gets depends on where it stands.
            let last = graph(model).node.pop().unwrap();
            graph(model).initializer.push(ints("first", &[0]));
            graph(model).initializer.push(ints("second", &[1]));
            let slice = node(
                "Slice",
                &["tokens", "first", "second", "axis_0"],
                &["row_0"],
            );
            let add = node("Add", &["tokens", "row_0"], &["mixed"]);
            let subtract = node("Sub", &["mixed", "row_0"], &["unmixed"]);
            let halve = node("Max", &["unmixed", "row_0"], &["leaky"]);
            graph(model).node.extend([slice, add, subtract, halve]);
            let mut last = last;
            last.input[0] = "leaky".into();
            graph(model).node.push(last);
        },
        ModelError::RowsMixed { .. } | ModelError::Forecast { .. },
        "row"
    );
}

#[test]
fn the_message_of_every_error_says_what_to_do() {
    let hints = [
        "shrink", "upload", "export", "check", "contract", "must", "use", "name", "save", "train",
        "changed",
    ];
    let mut model = good();
    tensor_of(&mut model, "W").raw_data.truncate(4);
    let text = error_of(&model).to_string();
    assert!(
        !text.is_empty()
            && (hints.iter().any(|hint| text.contains(hint)) || text.contains("stores")),
        "{text}"
    );
}

#[test]
fn the_verdict_is_json_either_way() {
    let read = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
    let good = read(verdict(&bytes(&good()), &Limits::default(), ROWS));
    assert_eq!(good["ok"], true);
    assert_eq!(
        (&good["family"], &good["window"], &good["nodes"]),
        (&"gru".into(), &8.into(), &24.into())
    );
    let bad = read(verdict(b"\xff", &Limits::default(), ROWS));
    assert_eq!(bad["ok"], false);
    assert!(
        bad["message"]
            .as_str()
            .unwrap()
            .contains("not a complete ONNX protobuf"),
        "{bad}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Any damage to the bytes is an error or a model that still keeps every promise; never a panic.
    #[test]
    fn damaged_bytes_never_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = bytes(&good());
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()) + 1);
        }
        let _ = Model::load(&bytes, &Limits::default(), ROWS);
    }

    /// Dimensions, types, names and numbers of a well-formed file, set to anything.
    #[test]
    fn damaged_fields_never_panic(
        node_at in any::<prop::sample::Index>(),
        input_at in any::<prop::sample::Index>(),
        source_at in any::<prop::sample::Index>(),
        tensor_at in any::<prop::sample::Index>(),
        dims in prop::collection::vec(prop_oneof![-2_i64..9, any::<i64>()], 0..5),
        ints_of in prop::collection::vec(prop_oneof![-3_i64..9, any::<i64>()], 0..5),
        what in 0_u8..4,
    ) {
        let mut model = good();
        let graph = graph(&mut model);
        match what {
            0 => {
                let tensor = tensor_at.index(graph.initializer.len());
                graph.initializer[tensor].dims = dims;
            }
            1 => {
                let tensor = tensor_at.index(graph.initializer.len());
                let name = graph.initializer[tensor].name.clone();
                graph.initializer[tensor] = ints(&name, &ints_of);
            }
            2 => {
                let source = source_at.index(graph.node.len());
                let source = graph.node[source].output.last().unwrap().clone();
                let node = node_at.index(graph.node.len());
                let input = input_at.index(graph.node[node].input.len());
                graph.node[node].input[input] = source;
            }
            _ => {
                let ops = ["Add", "MatMul", "Gemm", "Concat", "Reshape", "Slice", "Squeeze", "Unsqueeze", "Transpose",
                    "ReduceSum", "ReduceMean", "GRU", "Clip", "Relu", "Log", "Sqrt", "Identity", "Constant", "Max"];
                let node = node_at.index(graph.node.len());
                graph.node[node].op_type = ops[source_at.index(ops.len())].into();
            }
        }
        let _ = Model::load(&bytes(&model), &Limits::default(), ROWS);
    }
}
