/** Runs named functions one after the other, prints what became of each, and ends the process: with 1 if any failed. */
export async function runCases(cases) {
  let failed = 0;
  for (const [name, run] of Object.entries(cases)) {
    const start = Date.now();
    try {
      await run();
      console.log(`ok      ${name}, ${((Date.now() - start) / 1000).toFixed(1)} s`);
    } catch (error) {
      failed++;
      console.log(`failed  ${name}\n${error.stack}`);
    }
  }
  process.exit(failed > 0 ? 1 : 0);
}
