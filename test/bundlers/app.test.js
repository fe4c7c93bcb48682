// A test of Jest's, in an ES module and, with `import()`, in CommonJS.

test("both entries, in Jest's own realm", async () => {
  const { LayerNorm } = await import("layernorm-wasm");
  const { createThreadedRuntime } = await import("layernorm-wasm/threads");
  const x = new Float32Array([3, 5]);
  expect([...new LayerNorm(2, { eps: 0 }).forward(x)]).toEqual([-1, 1]);
  expect(() => new LayerNorm(0)).toThrow(RangeError);
  const runtime = await createThreadedRuntime({ threads: 2 });
  expect(runtime.threads).toBe(2);
  expect([...(await new LayerNorm(2, { eps: 0, runtime }).forwardAsync(x))]).toEqual([-1, 1]);
  await runtime.close();
});
