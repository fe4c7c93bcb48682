// The same as app-threads.js, where Vite says the address of the worker.

import worker from "layernorm-wasm/worker.js?url";

globalThis.threadsOptions = { worker };
import("./app-threads.js");
