// The suite in Node, Deno and Bun: the report as the last line. Arguments are names of files to leave out.

import { run } from "./suite.js";

console.log(JSON.stringify(await run(process.argv.slice(2))));
