"""Writes the example's model, and copies of it with one thing wrong each. Usage: altered.py EXAMPLES-FOLDER OUT-FOLDER"""
import json
import pathlib
import sys

import onnx

sys.path.insert(0, sys.argv[1])
import bring_your_own as own  # noqa: E402

folder = pathlib.Path(sys.argv[2])
demand = own.made_up_demand()
past, actual = own.windows(demand)
nodes, constants = own.factors_graph(own.learned_factors(past, actual))
own.save(folder / "good.onnx", nodes, constants, own.example_rows(past), "test", demand)


def altered(name, change):
    model = onnx.load(folder / "good.onnx")
    change(model)
    onnx.save(model, folder / f"{name}.onnx")


def golden_output(change):
    def of(model):
        for entry in model.metadata_props:
            if entry.key == "forebay.golden_output":
                values = json.loads(entry.value)
                values[1] = change(values[1])
                entry.value = json.dumps(values)

    return of


def without_calendar(model):
    model.graph.input.remove(model.graph.input[2])


def usage_of_rank_three(model):
    model.graph.input[0].type.tensor_type.shape.dim.add().dim_value = 1


altered("no_calendar", without_calendar)
altered("rank", usage_of_rank_three)
altered("no_metadata", lambda model: model.ClearField("metadata_props"))
altered("nan", golden_output(lambda value: float("nan")))
altered("wrong", golden_output(lambda value: value * 1.01))
altered("near", golden_output(lambda value: value * 1.0005))
