"""Writes a model for Forebay without Forebay's trainer: the newest value, times factors learned from how demand moved before.

Nothing but `onnx` and `numpy` is needed to build it, and `onnxruntime` to say what it must answer. `save` is what a model of another kind
takes over: it adds what docs/reference/onnx.md asks for beside the graph. bring_your_own_torch.py does so.

    python bring_your_own.py --out own.onnx
    forebay model check own.onnx
"""
import argparse
import hashlib
import json

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

WINDOW = 32
HORIZONS = [1, 2, 3, 6]
QUANTILES = [0.1, 0.5, 0.9, 0.99]
STEP_S = 600
SEASON_STEPS = 144
CALENDAR = ["day_sin", "day_cos"]
SEED = 20
# A customer that was silent just now is not silent for ever: this part of the level is the mean of the window.
MEAN_SHARE = 0.2


def made_up_demand(customers=40, days=14, seed=SEED):
    """[customers, steps]: days with a peak, and chance. Put your own here, e.g. of a set that `forebay-train prepare` has made:

    table = pandas.read_parquet("set/requests.parquet").pivot(index="tenant", columns="timestamp_utc", values="amount")
    demand = table.ffill(axis=1).fillna(0).to_numpy()
    """
    rng = numpy.random.default_rng(seed)
    step = numpy.arange(days * SEASON_STEPS)
    level = rng.lognormal(3.0, 1.0, (customers, 1))
    phase = rng.uniform(0, 2 * numpy.pi, (customers, 1))
    day = 1 + 0.6 * numpy.sin(2 * numpy.pi * step / SEASON_STEPS + phase)
    return rng.poisson(level * day).astype(numpy.float32)


def windows(demand, every=7):
    """Windows of the past, and what came after each at HORIZONS: [N, WINDOW] and [N, H]."""
    starts = range(0, demand.shape[1] - WINDOW - HORIZONS[-1], every)
    past = [demand[:, start : start + WINDOW] for start in starts]
    ahead = [start + WINDOW - 1 + numpy.array(HORIZONS) for start in starts]
    return numpy.concatenate(past), numpy.concatenate([demand[:, steps] for steps in ahead])


def learned_factors(past, actual):
    """[H, Q]: by which factor demand was above the level, in so many of the cases. Ascending, as quantiles of one sample are."""
    level = (1 - MEAN_SHARE) * past[:, -1] + MEAN_SHARE * past.mean(axis=1)
    known = level > 0
    ratio = actual[known] / level[known, None]
    return numpy.quantile(ratio, QUANTILES, axis=0).T.astype(numpy.float32)


def factors_graph(factors):
    """Nodes and constants: quantiles = level x factors. Scaling is inside: twice the usage is twice the forecast."""
    constants = {
        "factors": factors.reshape(1, len(HORIZONS), len(QUANTILES)),
        "newest": numpy.array([WINDOW - 1], dtype=numpy.int64),
        "end": numpy.array([WINDOW], dtype=numpy.int64),
        "along_steps": numpy.array([1], dtype=numpy.int64),
        "last_axis": numpy.array([2], dtype=numpy.int64),
        "one": numpy.array(1, dtype=numpy.float32),
        "mean_share": numpy.array(MEAN_SHARE, dtype=numpy.float32),
        "last_share": numpy.array(1 - MEAN_SHARE, dtype=numpy.float32),
    }
    node = helper.make_node
    nodes = [
        node("Slice", ["usage", "newest", "end", "along_steps"], ["last"]),
        # A step that was not observed says nothing of the mean. Nobody's mean is 0 and not 0 / 0.
        node("Mul", ["usage", "mask"], ["observed"]),
        node("ReduceSum", ["observed", "along_steps"], ["sum"], keepdims=1),
        node("ReduceSum", ["mask", "along_steps"], ["count"], keepdims=1),
        node("Max", ["count", "one"], ["counted"]),
        node("Div", ["sum", "counted"], ["mean"]),
        node("Mul", ["mean", "mean_share"], ["mean_part"]),
        node("Mul", ["last", "last_share"], ["last_part"]),
        node("Add", ["mean_part", "last_part"], ["level"]),
        node("Unsqueeze", ["level", "last_axis"], ["levels"]),
        node("Mul", ["levels", "factors"], ["quantiles"]),
    ]
    return nodes, constants


def example_rows(past, rows=3):
    """Rows for the golden vector: two customers, one of them with a gap, and nobody at all."""
    usage = past[[0, len(past) // 2, 0]][:rows].copy()
    mask = numpy.ones_like(usage)
    usage[1, 10], mask[1, 10] = usage[1, 9], 0
    usage[2], mask[2] = 0, 0
    hours = numpy.arange(WINDOW + HORIZONS[-1]) * 2 * numpy.pi / SEASON_STEPS
    steps = numpy.concatenate([numpy.arange(WINDOW), WINDOW - 1 + numpy.array(HORIZONS)])
    waves = numpy.stack([numpy.sin(hours[steps]), numpy.cos(hours[steps])], axis=-1)
    calendar = numpy.broadcast_to(waves, (rows, *waves.shape)).astype(numpy.float32)
    return {"usage": usage, "mask": mask, "calendar": calendar}


def save(path, nodes, constants, example, family, demand):
    """Writes the model with the metadata of contract version 1, and the golden vector as onnxruntime computes it."""
    tensor = helper.make_tensor_value_info
    float_ = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "own",
        [
            tensor("usage", float_, ["N", WINDOW]),
            tensor("mask", float_, ["N", WINDOW]),
            tensor("calendar", float_, ["N", WINDOW + len(HORIZONS), len(CALENDAR)]),
        ],
        [tensor("quantiles", float_, ["N", len(HORIZONS), len(QUANTILES)])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (golden,) = session.run(["quantiles"], example)
    flat = {name: [float(value) for value in values.ravel()] for name, values in example.items()}
    said = {
        "contract_version": 1,
        "step_s": STEP_S,
        "window": WINDOW,
        "horizons": HORIZONS,
        "quantiles": QUANTILES,
        "calendar_features": CALENDAR,
        "past_features": [],
        "season_steps": SEASON_STEPS,
        "family": family,
        "training_start": "2025-01-01T00:00:00Z",
        "training_end": "2025-01-15T00:00:00Z",
        "data_digest": hashlib.sha256(demand.tobytes()).hexdigest(),
        "conformal_offsets": [0.0] * len(QUANTILES) * len(HORIZONS),
        "min_version": "0.1.0",
        "golden_input": {"rows": len(golden), **flat, "past": []},
        "golden_output": [float(value) for value in golden.ravel()],
    }
    helper.set_model_props(model, {f"forebay.{key}": json.dumps(value) for key, value in said.items()})
    onnx.save(model, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="the ONNX file to write")
    path = parser.parse_args().out
    demand = made_up_demand()
    past, actual = windows(demand)
    nodes, constants = factors_graph(learned_factors(past, actual))
    save(path, nodes, constants, example_rows(past), "last value x factors", demand)


if __name__ == "__main__":
    main()
