"""Makes test/fixtures/flax.json with Flax: python3 scripts/flax_fixture.py, with jax and flax. Then: npm run fix.

Each case has x, epsilon, the parameters of the layer, and what it gives for x. Where no parameters are given here, they
are those that the layer makes itself from x.
"""

import json
from pathlib import Path

import flax
import jax
import jax.numpy as jnp

x = [1.0, 2.0, 3.0, 4.0]
CASES = {
    "a 1-D input": {"x": x, "epsilon": 1e-5},
    "eps 0.1 is inside the root": {"x": x, "epsilon": 0.1},
    "a constant input, without NaN": {"x": [5.0] * 4, "epsilon": 1e-5},
    "scale 2 and bias 1 loaded by those names": {
        "x": x,
        "epsilon": 1e-5,
        "params": {"scale": [2.0] * 4, "bias": [1.0] * 4},
    },
    "two rows": {"x": [[1.5, 0.25, 2.0], [-0.5, -1.0, 0.25]], "epsilon": 1e-6},
}

cases = {}
for name, case in CASES.items():
    layer = flax.linen.LayerNorm(epsilon=case["epsilon"])
    given = jnp.array(case["x"], dtype=jnp.float32)
    params = case.get("params") or layer.init(jax.random.key(0), given)["params"]
    params = jax.tree.map(jnp.array, params, is_leaf=lambda leaf: isinstance(leaf, list))
    y = layer.apply({"params": params}, given)
    params = {key: value.tolist() for key, value in params.items()}
    cases[name] = {**case, "params": params, "y": y.tolist()}
versions = {"flax": flax.__version__, "jax": jax.__version__}
path = Path(__file__).resolve().parent.parent / "test" / "fixtures" / "flax.json"
path.write_text(json.dumps({"versions": versions, "cases": cases}, indent=2) + "\n")
