import "./norm.js";
import "./drift.js";
import "./exact.js";
import "./learning.js";

export { runWorkerFrom } from "./bench.js";
