// The suite in a page: the report goes back to the server, and now and then where it is, to be seen when it hangs.

import { run } from "./suite.js";

let last = 0;
const progress = (name: string) => {
  if (Date.now() < last + 1000) return;
  last = Date.now();
  fetch("/progress", { method: "POST", body: name });
};
const given = new URL(location.href).searchParams;
const [part, parts] = [Number(given.get("part")), Number(given.get("parts"))];
const report = await run(given.getAll("without"), progress, part, parts).catch((error: Error) => ({
  passed: 0,
  failures: [`${error}\n${error.stack}`],
  digest: "",
  refusal: "",
}));
await fetch("/report", { method: "POST", body: JSON.stringify(report) });
