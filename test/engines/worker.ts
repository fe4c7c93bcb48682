// The suite in workerd: the report answers a request.

import { run } from "./suite.js";

// modules.test.ts compiles bytes, which is forbidden here, and there are no threads.
export default { fetch: async (): Promise<Response> => Response.json(await run(["modules", "threads"])) };
