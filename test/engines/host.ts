// The suite in Node, Deno and Bun: the report as the last line.

import { run } from "./suite.js";

console.log(JSON.stringify(await run()));
