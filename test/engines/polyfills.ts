// What the tests and their libraries call that Chromium 92 lacks. The package calls none of it: its types are checked without it
// (tsconfig.build.json), and the digest is computed before this file is loaded.

Object.hasOwn ??= (object, key) => Reflect.getOwnPropertyDescriptor(Object(object), key) !== undefined;

// Only for what is transferred. The value isn't returned.
globalThis.structuredClone ??= (value: unknown, options?: StructuredSerializeOptions) => {
  new MessageChannel().port1.postMessage(value, options);
  return undefined as never;
};
