/** Where the files of the model are published. */
export const HUB = "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/main";
/** Bytes of the largest, model.safetensors. A server that compresses doesn't say. */
export const SIZE = 90_868_376;
