"""Trains a small network with PyTorch and writes it as a model for Forebay.

The graph is written from the weights and not by `torch.onnx.export`: what that writes changes with its version, and has operators which a gateway
does not know. Beside `onnx`, `numpy` and `onnxruntime` it needs `torch`.

    python bring_your_own_torch.py --out own.onnx
"""
import argparse

import numpy
import torch
from onnx import helper

import bring_your_own as own

HIDDEN = 24
EPOCHS = 30
BATCH = 512


class Network(torch.nn.Module):
    """Usage in units of its mean -> quantiles in the same units. Each is the one below it and something positive: they never cross."""

    def __init__(self):
        super().__init__()
        self.hidden = torch.nn.Linear(own.WINDOW, HIDDEN)
        self.steps = torch.nn.Linear(HIDDEN, len(own.HORIZONS) * len(own.QUANTILES))

    def forward(self, usage, mean):
        scaled = torch.log(usage / mean + 1)
        steps = torch.nn.functional.softplus(self.steps(torch.relu(self.hidden(scaled))))
        return steps.reshape(-1, len(own.HORIZONS), len(own.QUANTILES)).cumsum(dim=-1)


def train(past, actual):
    torch.manual_seed(own.SEED)
    known = past.mean(axis=1) > 0
    past = torch.tensor(past[known])
    mean = past.mean(dim=1, keepdim=True)
    actual = torch.tensor(actual[known]) / mean
    quantiles = torch.tensor(own.QUANTILES)
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(past)).split(BATCH):
            error = actual[rows].unsqueeze(-1) - network(past[rows], mean[rows])
            loss = torch.maximum(quantiles * error, (quantiles - 1) * error).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {name: value.detach().numpy() for name, value in network.named_parameters()}


def network_graph(weights):
    """The same as `Network.forward`, in operators of the contract."""
    count = len(own.QUANTILES)
    constants = {
        "hidden_weight": numpy.ascontiguousarray(weights["hidden.weight"].T),
        "hidden_bias": weights["hidden.bias"],
        "steps_weight": numpy.ascontiguousarray(weights["steps.weight"].T),
        "steps_bias": weights["steps.bias"],
        # A sum of all steps up to each: there is no operator for it that a gateway knows.
        "up_to": numpy.triu(numpy.ones((count, count), dtype=numpy.float32)),
        "along_steps": numpy.array([1], dtype=numpy.int64),
        "last_axis": numpy.array([2], dtype=numpy.int64),
        "shape": numpy.array([-1, len(own.HORIZONS), count], dtype=numpy.int64),
        "one": numpy.array(1, dtype=numpy.float32),
        "little": numpy.array(1e-6, dtype=numpy.float32),
    }
    node = helper.make_node
    nodes = [
        node("Mul", ["usage", "mask"], ["observed"]),
        node("ReduceSum", ["observed", "along_steps"], ["sum"], keepdims=1),
        node("ReduceSum", ["mask", "along_steps"], ["count"], keepdims=1),
        node("Max", ["count", "one"], ["counted"]),
        node("Div", ["sum", "counted"], ["mean"]),
        # Of nobody the mean is 0, and so is what it is multiplied with in the end.
        node("Max", ["mean", "little"], ["divisor"]),
        node("Div", ["usage", "divisor"], ["relative"]),
        node("Add", ["relative", "one"], ["above_zero"]),
        node("Log", ["above_zero"], ["scaled"]),
        node("Gemm", ["scaled", "hidden_weight", "hidden_bias"], ["hidden"]),
        node("Relu", ["hidden"], ["active"]),
        node("Gemm", ["active", "steps_weight", "steps_bias"], ["raw"]),
        node("Softplus", ["raw"], ["positive"]),
        node("Reshape", ["positive", "shape"], ["each"]),
        node("MatMul", ["each", "up_to"], ["ascending"]),
        node("Unsqueeze", ["mean", "last_axis"], ["means"]),
        node("Mul", ["ascending", "means"], ["quantiles"]),
    ]
    return nodes, constants


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="the ONNX file to write")
    path = parser.parse_args().out
    demand = own.made_up_demand()
    past, actual = own.windows(demand)
    nodes, constants = network_graph(train(past, actual))
    own.save(path, nodes, constants, own.example_rows(past), "torch", demand)


if __name__ == "__main__":
    main()
