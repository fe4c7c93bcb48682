"""Layer normalization by a Python library on the CPU, one thread, for bench/: float32, eps 1e-5.

rivals.py LIBRARY version    prints the version; an error says what is missing
rivals.py LIBRARY serve      the commands of bench/native.c, one a line, each answered with a line

LIBRARY is pytorch, flax or keras. Each is called as its users call it where speed matters: PyTorch as it is, Flax under
jit, Keras in a tf.function. Backward is by the library's own differentiation. Its forward pass is not timed.
"""

import os
import sys
import time

EPS = 1e-5
# Before the libraries are loaded, as they read it then.
os.environ.update(
    JAX_PLATFORMS="cpu",
    KERAS_BACKEND="tensorflow",
    NPROC="1",
    OMP_NUM_THREADS="1",
    TF_CPP_MIN_LOG_LEVEL="3",
    XLA_FLAGS="--xla_cpu_multi_thread_eigen=false",
)


class PyTorch:
    def __init__(self):
        import torch

        torch.set_num_threads(1)
        self.torch, self.version = torch, torch.__version__.split("+")[0]

    def load(self, x, dy, weight, bias):
        self.dy, *self.inputs = map(self.torch.from_numpy, (dy, x, weight, bias))
        for tensor in self.inputs:
            tensor.requires_grad_(True)
        self.kept = self.norm()

    def norm(self):
        x, weight, bias = self.inputs
        return self.torch.nn.functional.layer_norm(x, weight.shape, weight, bias, EPS)

    def forward(self):
        with self.torch.no_grad():
            return self.norm()

    def backward(self):
        return self.torch.autograd.grad(self.kept, self.inputs, self.dy, retain_graph=True)


class Flax:
    def __init__(self):
        import flax
        import jax

        self.jax, self.version = jax, f"{flax.__version__}, JAX {jax.__version__}"
        layer = flax.linen.LayerNorm(epsilon=EPS)
        self.norm = jax.jit(lambda x, scale, bias: layer.apply({"params": {"scale": scale, "bias": bias}}, x))
        self.pull = jax.jit(lambda pullback, dy: pullback(dy))

    def load(self, x, dy, weight, bias):
        self.dy, *self.inputs = map(self.jax.numpy.asarray, (dy, x, weight, bias))
        self.pullback = self.jax.vjp(self.norm, *self.inputs)[1]

    def forward(self):
        return self.norm(*self.inputs).block_until_ready()

    def backward(self):
        return self.jax.block_until_ready(self.pull(self.pullback, self.dy))


class Keras:
    def __init__(self):
        import keras
        import tensorflow

        tensorflow.config.threading.set_intra_op_parallelism_threads(1)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
        self.keras, self.tf = keras, tensorflow
        self.version = f"{keras.__version__}, TensorFlow {tensorflow.__version__}"

    def load(self, x, dy, weight, bias):
        self.x, self.dy = map(self.tf.constant, (x, dy))
        layer = self.keras.layers.LayerNormalization(epsilon=EPS)
        layer.build(x.shape)
        layer.set_weights([weight, bias])
        self.norm = self.tf.function(layer)
        with self.tf.GradientTape(persistent=True) as self.tape:
            self.tape.watch(self.x)
            self.kept = self.norm(self.x)
        self.inputs = [self.x, *layer.trainable_variables]

    def forward(self):
        return self.norm(self.x)

    def backward(self):
        return self.tape.gradient(self.kept, self.inputs, self.dy)


def serve(library):
    import numpy  # here, so that `version` names the library if that is what is missing

    for line in sys.stdin:
        command, *words = line.split()
        answer = "ok"
        if command == "load":
            rows, cols = int(words[1]), int(words[2])
            numbers = numpy.fromfile(words[0], dtype=numpy.float32)
            x, dy, weight, bias = numpy.split(numbers, numpy.cumsum([rows * cols, rows * cols, cols]))
            library.load(x.reshape(rows, cols).copy(), dy.reshape(rows, cols).copy(), weight.copy(), bias.copy())
        elif command == "save":
            with open(words[0], "wb") as file:
                for array in (library.forward(), *library.backward()):
                    file.write(numpy.asarray(array.detach() if hasattr(array, "detach") else array).tobytes())
        else:
            call = {"forward": library.forward, "backward": library.backward}[command]
            start = time.perf_counter()
            for _ in range(int(words[0])):
                call()
            answer = str((time.perf_counter() - start) * 1e3 / int(words[0]))
        print(answer, flush=True)


library = {"pytorch": PyTorch, "flax": Flax, "keras": Keras}[sys.argv[1]]()
if sys.argv[2] == "version":
    print(library.version)
else:
    serve(library)
