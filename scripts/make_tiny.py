"""Make the embedded example from nothing: corpus, tokenizer, language model, sparse autoencoder.

Run `python scripts/make_tiny.py --out data/tiny`. The corpus and the tokenizer are the same bytes
for one seed everywhere; the training is the same up to floating point. `--only` redoes one part
from the files of the others. On two quiet cores it takes about ten minutes; on busy ones set
OMP_WAIT_POLICY=PASSIVE, or most of the time goes into threads that wait for each other.
"""

import argparse
import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import tiny_metrics
import tiny_training
import torch
from tiny_grammar import documents
from transformers import AutoModelForCausalLM, AutoTokenizer

PARTS = ("corpus", "tokenizer", "model", "sae", "metrics")
CORPUS_DOCUMENTS = 2900
TOKENIZER_DOCUMENTS = 20_000


def texts(seed: int, use: str) -> Iterator[str]:
    """Write documents that no other use has seen."""
    return (document.text for document in documents(f"{seed} {use}"))


def make_corpus(out: Path, seed: int) -> None:
    """Write the released corpus, without a time stamp so that its bytes can be compared."""
    lines = (
        json.dumps({"text": new.text, "register": new.register}, ensure_ascii=False)
        for new in islice(documents(f"{seed} corpus"), CORPUS_DOCUMENTS)
    )
    data = "".join(f"{line}\n" for line in lines).encode()
    (out / "corpus.jsonl.gz").write_bytes(gzip.compress(data, 9, mtime=0))


def read_corpus(out: Path) -> list[str]:
    """Read the texts of the released corpus."""
    data = gzip.decompress((out / "corpus.jsonl.gz").read_bytes())
    return [json.loads(line)["text"] for line in data.decode().splitlines()]


def make_tokenizer(out: Path, seed: int) -> None:
    """Train the tokenizer and write it beside the model."""
    sample = islice(texts(seed, "tokenizer"), TOKENIZER_DOCUMENTS)
    tiny_training.train_tokenizer(sample).save_pretrained(out / "model")


def make_model(out: Path, seed: int, recipe: tiny_training.Recipe) -> None:
    """Train the language model and write it in half precision."""
    tokenizer: tiny_training.Encoder = AutoTokenizer.from_pretrained(out / "model")
    model, seen = tiny_training.train_model(texts(seed, "model"), tokenizer, recipe, seed)
    model.half().save_pretrained(out / "model")
    note(out, {"tokens_trained_on": seen, "training_steps": recipe.steps})


def load_model(out: Path) -> tiny_training.Model:
    """Read the model as users will, rounded to half precision but computing in single."""
    model: tiny_training.Model = AutoModelForCausalLM.from_pretrained(
        out / "model", dtype=torch.float32
    )
    return model.eval()


def make_sae(out: Path, seed: int, recipe: tiny_training.Recipe) -> None:
    """Train the autoencoder on activations over fresh text and write it."""
    tokenizer: tiny_training.Encoder = AutoTokenizer.from_pretrained(out / "model")
    stream = tiny_training.batches(texts(seed, "sae"), tokenizer, recipe.batch_tokens, seed)
    rows = tiny_training.residual_rows(load_model(out), stream, recipe.sparse_rows)
    sparse = tiny_training.train_sparse(rows, recipe, seed)
    (out / "sae").mkdir(exist_ok=True)
    torch.save(sparse.state(), out / "sae" / "blocks.2.hook_resid_post.pt")
    note(out, {"sae_tokens": recipe.sparse_rows, "sae_epochs": recipe.sparse_epochs})


def make_metrics(out: Path, seed: int) -> None:
    """Measure everything on the released corpus."""
    tokenizer: tiny_training.Encoder = AutoTokenizer.from_pretrained(out / "model")
    model = load_model(out)
    ids: list[list[int]] = tokenizer(read_corpus(out))["input_ids"]
    windows = tiny_metrics.excerpts(ids)
    state = torch.load(out / "sae" / "blocks.2.hook_resid_post.pt", weights_only=True)
    k = state.pop("activation_state_dict")["k"]
    state.pop("activation")
    figures = {
        "documents": len(ids),
        "tokens": sum(map(len, ids)),
        "excerpts": len(windows),
        "seed": seed,
        "validation_loss": tiny_metrics.validation_loss(model, windows),
        **tiny_metrics.entropies(ids),
        "sae": tiny_metrics.sparse_figures(model, state, k, windows),
        "lookup_correlation": dict(tiny_metrics.lookup_by_layer(model, windows, seed)),
    }
    note(out, figures)


def note(out: Path, figures: dict[str, object]) -> None:
    """Add figures to those already written."""
    path = out / "metrics.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    text = json.dumps(rounded(known | figures), indent=2, sort_keys=True)
    path.write_text(text + "\n")


def rounded(value: object) -> object:
    """Round every float to four digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    """Read the command line and make the parts asked for."""
    parser = argparse.ArgumentParser(description="Make the embedded example from nothing.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="training steps of the language model")
    parser.add_argument("--only", choices=PARTS, action="append", help="make this part alone")
    options = parser.parse_args()
    torch.set_num_threads(2)
    recipe = tiny_training.Recipe()
    if options.steps:
        recipe = replace(recipe, steps=options.steps)
    (options.out / "model").mkdir(parents=True, exist_ok=True)
    makers = {
        "corpus": lambda: make_corpus(options.out, options.seed),
        "tokenizer": lambda: make_tokenizer(options.out, options.seed),
        "model": lambda: make_model(options.out, options.seed, recipe),
        "sae": lambda: make_sae(options.out, options.seed, recipe),
        "metrics": lambda: make_metrics(options.out, options.seed),
    }
    for part in options.only or PARTS:
        print(f"{part} …", flush=True)
        makers[part]()


if __name__ == "__main__":
    main()
