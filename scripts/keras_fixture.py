"""Makes test/fixtures/keras.json with Keras on TensorFlow: python3 scripts/keras_fixture.py. Then: npm run fix.

The losses and gradients of a small model, layer normalization before a dense layer, under SGD.
"""

import json
import os
import platform
from pathlib import Path

os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3")

import keras
import numpy
import tensorflow

ROWS, COLS = 30, 7
BATCH_SIZE, EPOCHS = 6, 5
EPSILON = 1e-3
LEARNING_RATE = 0.0625  # a power of two: exact in float32

random = numpy.random.default_rng(0)


def numbers(*shape, center=0):
    """Numbers of three decimals in (center - 1, center + 1): short in JSON, and the same float32 for every reader."""
    return numpy.round(random.uniform(center - 1, center + 1, shape), 3)


x = numbers(ROWS, COLS, center=0.5)
# Of the size of epsilon, so that the losses tell one epsilon from another.
x[::3] = numpy.round(x[::3] * 0.05, 3)
targets = numbers(ROWS, 1, center=1)
initial = {"gamma": numbers(COLS, center=1), "beta": numbers(COLS), "kernel": numbers(COLS, 1), "bias": numbers(1)}

model = keras.Sequential([keras.layers.LayerNormalization(epsilon=EPSILON), keras.layers.Dense(1)])
model.build((None, COLS))
model.compile(optimizer=keras.optimizers.SGD(LEARNING_RATE), loss="mse")
model.set_weights(list(initial.values()))

inputs = tensorflow.constant(x, dtype="float32")
with tensorflow.GradientTape() as tape:
    tape.watch(inputs)
    loss = tensorflow.reduce_mean((model(inputs) - targets.astype("float32")) ** 2)
dx = tape.gradient(loss, inputs).numpy()



def step(batch):
    model.reset_metrics()  # or else it returns the mean of all losses so far
    return float(model.train_on_batch(x[batch], targets[batch]))


batches = [slice(start, start + BATCH_SIZE) for start in range(0, ROWS, BATCH_SIZE)]
losses = [[step(batch) for batch in batches] for _ in range(EPOCHS)]
trained = dict(zip(initial, model.get_weights()))


def flat(arrays):
    return {name: array.ravel().tolist() for name, array in arrays.items()}


fixture = {
    "versions": {
        "keras": keras.__version__,
        "backend": f"tensorflow {tensorflow.__version__}",
        "python": platform.python_version(),
    },
    "cols": COLS,
    "batchSize": BATCH_SIZE,
    "epsilon": EPSILON,
    "learningRate": LEARNING_RATE,
    "x": x.ravel().tolist(),
    "targets": targets.ravel().tolist(),
    "initial": flat(initial),
    "dx": dx.ravel().tolist(),
    "losses": losses,
    "trained": flat(trained),
}
path = Path(__file__).resolve().parent.parent / "test" / "fixtures" / "keras.json"
path.write_text(json.dumps(fixture, indent=2) + "\n")
