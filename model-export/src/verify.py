"""Runs an ONNX file in onnxruntime on the inputs given as JSON on standard input and prints the output as JSON.

Input: {"model": PATH, "inputs": {NAME: {"shape": [...], "values": [...]}}}; output: the flat output values.
"""
import json
import sys

import numpy
import onnx
import onnxruntime

request = json.load(sys.stdin)
onnx.checker.check_model(onnx.load(request["model"]), full_check=True)
session = onnxruntime.InferenceSession(request["model"], providers=["CPUExecutionProvider"])
inputs = {
    name: numpy.array(tensor["values"], dtype=numpy.float32).reshape(tensor["shape"])
    for name, tensor in request["inputs"].items()
}
(output,) = session.run(["quantiles"], inputs)
json.dump([float(value) for value in output.ravel()], sys.stdout)
