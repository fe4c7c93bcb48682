// The page: the block computed here.

import { compare, loadModel } from "./model.js";

const { block, x, y } = await loadModel();
const start = performance.now();
const got = block.forward(x);
const time = (performance.now() - start).toFixed(1);
(document.querySelector("#result") as Element).textContent = `${compare(got, y)} (${time} ms)`;
