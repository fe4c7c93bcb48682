// What esbuild makes of this import in the bundle of the suite.

declare module "*.safetensors" {
  const bytes: Uint8Array;
  export default bytes;
}
