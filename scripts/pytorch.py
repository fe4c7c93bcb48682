"""PyTorch's layer_norm on the CPU, one thread, for bench/: float32, eps 1e-5.

pytorch.py version    prints the version
pytorch.py serve      the commands of bench/native.c, one a line, each answered with a line
"""

import sys
import time

import numpy
import torch
from torch.nn.functional import layer_norm

torch.set_num_threads(1)


def serve():
    x = dy = weight = bias = y = None
    for line in sys.stdin:
        command, *words = line.split()
        answer = "ok"
        if command == "load":
            rows, cols = int(words[1]), int(words[2])
            numbers = torch.from_numpy(numpy.fromfile(words[0], dtype=numpy.float32))
            x, dy, weight, bias = numbers.split([rows * cols, rows * cols, cols, cols])
            x, dy = x.reshape(rows, cols).clone(), dy.reshape(rows, cols).clone()
            for tensor in (x, weight, bias):
                tensor.requires_grad_(True)
        elif command == "save":
            y = layer_norm(x, (cols,), weight, bias, 1e-5)
            gradients = torch.autograd.grad(y, (x, weight, bias), dy)
            with open(words[0], "wb") as file:
                for tensor in (y, *gradients):
                    file.write(tensor.detach().numpy().tobytes())
        elif command == "forward":
            with torch.no_grad():
                start = time.perf_counter()
                for _ in range(int(words[0])):
                    layer_norm(x, (cols,), weight, bias, 1e-5)
                answer = str((time.perf_counter() - start) * 1e3 / int(words[0]))
        elif command == "backward":
            # The forward pass is not timed; its statistics are kept for every call.
            y = layer_norm(x, (cols,), weight, bias, 1e-5)
            start = time.perf_counter()
            for _ in range(int(words[0])):
                torch.autograd.grad(y, (x, weight, bias), dy, retain_graph=True)
            answer = str((time.perf_counter() - start) * 1e3 / int(words[0]))
        print(answer, flush=True)


if sys.argv[1] == "version":
    print(torch.__version__)
else:
    serve()
