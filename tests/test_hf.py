"""The library transformers loads, runs and continues our language models, with our state.

It is large and optional (the extra ``chela[hf]``), so CI goes without: here the tests are skipped
where it is not installed.
"""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import chela
from chela.errors import RunError
from chela.generation import generate
from chela.training.run import run
from tasks.errors import DataError
from tasks.language.own import Bytes
from tests.conftest import TINY, composed_of
from tests.test_generation import MQAR
from tests.test_pretrained import model_of_words
from tests.training.runs import folder_of

transformers = pytest.importorskip("transformers", reason="chela[hf] is not installed")
from chela.hf import CACHE, ChelaForCausalLM, ChelaTokenizer  # noqa: E402  # the module registers the classes

pytestmark = pytest.mark.training

PROMPTS = [[3, 40, 5, 50], [7], [1, 2, 3]]


MODELS = {
    "chela": ["model=chela"],
    "tied": ["model=chela", "model.tie_embeddings=true", "model.head=linear"],
    "transformer": ["model=transformer"],
    "mega_chunk": ["model=mega_chunk"],
}


@pytest.fixture(scope="module", params=MODELS)
def saved(request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("hf")
    torch.set_num_threads(1)
    places = [f"data_dir={place / 'data'}", f"output_dir={place / 'outputs'}"]
    config = composed_of(*MQAR, *places, *MODELS[request.param])
    run(config)
    return chela.load_run(folder_of(config)).save_pretrained(place / "saved")


@pytest.fixture(scope="module")
def model(saved: Path):
    return transformers.AutoModelForCausalLM.from_pretrained(saved)


def padded(side: str) -> dict[str, torch.Tensor]:
    width = max(map(len, PROMPTS))
    ids, mask = torch.zeros(3, width, dtype=torch.long), torch.zeros(3, width, dtype=torch.long)
    for row, prompt in enumerate(PROMPTS):
        where = slice(width - len(prompt), None) if side == "left" else slice(len(prompt))
        ids[row, where], mask[row, where] = torch.tensor(prompt), 1
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_are_those_of_the_model(saved: Path, model, side: str) -> None:
    own = chela.from_pretrained(saved).model
    with torch.no_grad():
        logits = model(**padded(side)).logits
        for row, prompt in enumerate(PROMPTS):
            where = padded(side)["attention_mask"][row].bool()
            torch.testing.assert_close(logits[row][where], own(torch.tensor([prompt]))[0])


def test_generate_says_what_chela_says(saved: Path, model) -> None:
    """Greedy, of padded prompts, with the state as its cache; without a cache it is the same.

    Without one and with padding on the right, the padding stands between prompt and answer.
    """
    own = chela.from_pretrained(saved).model
    expected = torch.stack([*generate(own, PROMPTS, 8, temperature=0)], dim=1)
    settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    for side, use_cache in itertools.product(("left", "right"), (True, False)):
        said = model.generate(**padded(side), **settings, use_cache=use_cache)
        assert torch.equal(said[:, -8:], expected)


def test_generate_goes_on_with_the_cache_that_it_returned(model) -> None:
    """Also where more than a token has come since: what the other side of a talk has said."""
    settings = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    first = model.generate(**padded("left"), **settings, return_dict_in_generate=True)
    ids = torch.cat([first.sequences, torch.tensor([[9, 8], [7, 6], [5, 4]])], dim=1)
    mask = F.pad(padded("left")["attention_mask"], (0, 5), value=1)
    whole = model.generate(input_ids=ids, attention_mask=mask, **settings)
    cache = {CACHE: first[CACHE]}
    with pytest.raises(ValueError, match="padding behind a cache"):
        model(ids[:, -3:], attention_mask=mask.index_fill(1, torch.tensor([8]), 0), **cache)
    said = model.generate(input_ids=ids, attention_mask=mask, **settings, **cache)
    assert torch.equal(said, whole)


def test_beams_take_the_state_along(model) -> None:
    settings = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False, "pad_token_id": 0}
    with_state = model.generate(**padded("left"), **settings)
    without = model.generate(**padded("left"), **settings, use_cache=False)
    assert torch.equal(with_state, without)


def test_a_loss_is_that_of_the_next_token_and_trains(model) -> None:
    ids = torch.randint(64, (2, 9))
    labels = ids.clone()
    labels[:, :4] = -100
    output = model.train()(ids, labels=labels)
    scores = output.logits[:, 3:-1].flatten(0, 1)
    torch.testing.assert_close(
        output.loss, torch.nn.functional.cross_entropy(scores, ids[:, 4:].flatten())
    )
    output.loss.backward()
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0
    model.zero_grad()
    whole = model.eval()(ids, labels=labels).loss
    rows = zip(ids, labels, strict=True)  # as a Trainer accumulates them
    halves = [model(row[None], labels=each[None], num_items_in_batch=10).loss for row, each in rows]
    torch.testing.assert_close(sum(halves), whole)


def test_what_transformers_saves_it_and_chela_load(saved: Path, model, tmp_path: Path) -> None:
    """Also after its weights have changed."""
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        model.get_input_embeddings().weight[1] += 1
        model.save_pretrained(tmp_path)
        logits = model(ids).logits
        model.get_input_embeddings().weight[1] -= 1
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
        torch.testing.assert_close(again(ids).logits, logits)
        torch.testing.assert_close(chela.from_pretrained(tmp_path).model(ids), logits)
        fresh = transformers.AutoModelForCausalLM.from_config(again.config)
        assert fresh(ids).logits.shape == logits.shape


def test_arguments_have_the_places_that_transformers_gives_them(model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "other", False)
    assert not [*tmp_path.rglob("*.safetensors")]
    weights = {name: value + 1 for name, value in model.state_dict().items()}
    model.save_pretrained(tmp_path / "own", True, weights)
    model.save_pretrained(save_directory=tmp_path / "named", state_dict=weights)
    for name in ("own", "named"):
        again = type(model).from_pretrained(pretrained_model_name_or_path=tmp_path / name)
        assert all(torch.equal(value, weights[key]) for key, value in again.state_dict().items())


def test_it_is_put_where_there_is_a_gpu_if_any_place_will_do(saved: Path, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ChelaForCausalLM, "to", lambda _, device: device)
    load = transformers.AutoModelForCausalLM.from_pretrained
    for name in ("auto", "balanced", "sequential"):
        assert load(saved, device_map=name) == torch.device("cuda")
    assert load(saved, device_map={"": 0}) == 0


@pytest.mark.parametrize("asked", ["auto", "torch"])
def test_it_has_the_kernels_of_where_it_is(saved: Path, monkeypatch, asked: str) -> None:
    """As if a GPU were wherever it is moved to; a run that did without kernels has none there."""
    model = transformers.AutoModelForCausalLM.from_pretrained(saved)
    monkeypatch.setitem(model.config.chela["config"], "kernels", asked)
    monkeypatch.setattr(
        "chela.kernels.choice.choose", lambda asked, _: "torch" if asked == "torch" else "triton"
    )
    own, ours = chela.from_pretrained(saved).model, model.to("cpu").model
    chosen, found = (
        [getattr(each, "implementation", None) for each in of.modules()] for of in (own, ours)
    )
    assert found == chosen if asked == "auto" else "triton" in chosen and "triton" not in found


def test_the_tokenizer_is_the_tasks(saved: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved)
    batch = tokenizer(["3 40 5 50", "7"], return_tensors="pt", padding=True)
    assert batch["input_ids"].tolist() == [[3, 40, 5, 50], [7, 0, 0, 0]]
    assert batch["attention_mask"].sum(1).tolist() == [4, 1]
    assert tokenizer.decode([3, 0, 40], skip_special_tokens=True) == "3 0 40"
    assert (tokenizer.vocab_size, tokenizer.model_max_length) == (64, 16)
    with pytest.raises(DataError, match="symbol 64 is unknown"):
        tokenizer("64")


def test_a_tokenizer_is_saved_with_its_words(tmp_path: Path) -> None:
    of_words = model_of_words(tmp_path)
    model, tokenizer = (
        each.from_pretrained(of_words)
        for each in (transformers.AutoModelForCausalLM, transformers.AutoTokenizer)
    )
    model.save_pretrained(tmp_path / "again"), tokenizer.save_pretrained(tmp_path / "again")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    said = "the cät\nsaw the <unk>"  # the first of these is token 0
    found = again.decode(again(said)["input_ids"], skip_special_tokens=True)
    assert found == said.replace("\n", " \n") and again.decode(again.eos_token_id) == "\n"


def test_the_end_of_a_document_can_be_left_out(tmp_path: Path) -> None:
    tokenizer = ChelaTokenizer(Bytes(Bytes.Config(), tmp_path))
    batch = tokenizer(["ab", "ü"], padding=True)["input_ids"]
    assert batch == [[97, 98], [195, 188]] and tokenizer.eos_token_id == 0
    assert tokenizer.decode([*b"ab\0\0"], skip_special_tokens=True) == "ab"


@torch.no_grad()
def test_lm_eval_scores_it(saved: Path, tmp_path: Path) -> None:
    """`lm_eval --model hf` on a task of two rows: its sums are those of the model's own logits."""
    lm_eval = pytest.importorskip("lm_eval", reason="the harness is not installed")
    pytest.importorskip("lm_eval.models.huggingface", reason="its extra hf is not installed")
    rows = [{"text": "3 40 5", "end": " 50"}, {"text": "7", "end": " 1 2"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = {
        "task": "tiny",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "loglikelihood",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{end}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
    }
    found = lm_eval.simple_evaluate(
        model="hf", model_args={"pretrained": str(saved), "dtype": "float32"}, tasks=[task],
        device="cpu", batch_size=2, bootstrap_iters=0,
    )  # fmt: skip
    own, total = chela.from_pretrained(saved).model, 0.0
    for row in rows:
        ids = [int(each) for each in (row["text"] + row["end"]).split()]
        scores = own(torch.tensor([ids]))[0].log_softmax(-1)
        first = len(row["text"].split())
        total += sum(float(scores[place - 1, ids[place]]) for place in range(first, len(ids)))
    expected = math.exp(-total / len(rows))
    assert found["results"]["tiny"]["perplexity,none"] == pytest.approx(expected, rel=1e-4)


def test_what_it_cannot_be_is_said(saved: Path, shared_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"keep the weights in float32.*torch\.autocast"):
        transformers.AutoModelForCausalLM.from_pretrained(saved, dtype=torch.bfloat16)
    config = composed_of(*TINY, f"data_dir={shared_data}", f"output_dir={tmp_path}")
    run(config)
    classifier = chela.load_run(folder_of(config)).save_pretrained(tmp_path / "classifier")
    with pytest.raises(RunError, match="is a classifier"):
        transformers.AutoModelForCausalLM.from_pretrained(classifier)
