// The suite in workerd: the report answers a request.

import { run } from "./suite.js";

export default {
  fetch: async ({ url }: Request): Promise<Response> =>
    Response.json(await run(new URL(url).searchParams.getAll("without"))),
};
