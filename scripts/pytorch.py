"""PyTorch's layer_norm on the CPU, for bench/accuracy.ts.

pytorch.py version              prints the version
pytorch.py ROWS COLS EPS        float32 x from standard input to float32 y on standard output, weight 1 and bias 0
"""

import sys

import numpy
import torch

if sys.argv[1] == "version":
    print(torch.__version__)
else:
    rows, cols = int(sys.argv[1]), int(sys.argv[2])
    x = torch.from_numpy(numpy.frombuffer(sys.stdin.buffer.read(), dtype=numpy.float32).reshape(rows, cols).copy())
    y = torch.nn.functional.layer_norm(x, (cols,), torch.ones(cols), torch.zeros(cols), float(sys.argv[3]))
    sys.stdout.buffer.write(y.numpy().tobytes())
