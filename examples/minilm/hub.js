/** Where the files of the model are published. */
export const HUB = "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/main";
