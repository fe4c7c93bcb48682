"""Makes test/fixtures/minilm.safetensors with PyTorch: python3 scripts/minilm_fixture.py FOLDER.

FOLDER has the files of all-MiniLM-L6-v2 (examples/minilm). Python has torch and transformers.

embeddings   those of the first twenty of examples/minilm/sentences.json
tokens       in the metadata: the ids of the tokens of each
questions    in the metadata: what a page may ask, the nearest of all hundred sentences, and its cosine

The model runs in float64, so that what differs from it is the rounding of whoever compares.
"""

import json
import sys

import torch
import transformers
from fixtures import ROOT, save

QUESTIONS = [
    "can I return something I bought?",
    "why does my app stop working?",
    "Which planet has the most moons?",
    "how can I protect my account?",
]

folder = sys.argv[1]
sentences = json.loads((ROOT / "examples" / "minilm" / "sentences.json").read_text())
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").double().eval()


def tokens(text):
    return tokenizer(text, truncation=True, padding=False)["input_ids"]


def embed(text):
    """The mean over the tokens, made as long as 1: no padding, so no mask."""
    with torch.no_grad():
        hidden = model(torch.tensor([tokens(text)])).last_hidden_state[0]
    return torch.nn.functional.normalize(hidden.mean(0), dim=0)


embeddings = torch.stack([embed(sentence) for sentence in sentences])
questions = []
for question in QUESTIONS:
    cosine, index = (embeddings @ embed(question)).max(0)
    questions.append({"question": question, "nearest": sentences[index], "cosine": round(cosine.item(), 7)})
metadata = {
    "transformers": transformers.__version__,
    "tokens": json.dumps([tokens(sentence) for sentence in sentences[:20]]),
    "questions": json.dumps(questions),
}
save("minilm.safetensors", {"embeddings": embeddings[:20].float()}, metadata)
