"""A language model as transformers sees it: configuration, model, and its state as cache."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from chela.generation import check
from chela.hub import built, device_for, from_pretrained, kernels_of
from chela.kernels.choice import use_kernels
from chela.kernels.masking import last_token
from chela.mixers.stepping import State, select
from chela.model import TokenModel
from chela.model.encoders import TokenEncoder
from chela.model.stepping import prefill, step
from chela.pretrained import KIND

# what this version of transformers calls it
_OUTPUTS = {each.name for each in fields(CausalLMOutputWithPast)}
CACHE = "cache" if "cache" in _OUTPUTS else "past_key_values"
CHOSEN = ("auto", "balanced", "balanced_low_0", "sequential")  # device_map of transformers' choice


class ChelaConfig(PretrainedConfig):
    """What config.json says; ``chela`` is the record that the model is built of."""

    model_type = KIND

    def __init__(self, chela: dict[str, Any] | None = None, **others: Any) -> None:
        others.pop("sha256", None)  # of weights that may change from here on
        self.chela = chela
        super().__init__(**others)


class StateCache:
    """The state of a batch, as ``generate`` hands it from step to step."""

    is_linear = (True,)  # there is nothing to cut a mask for
    is_compileable = False  # transformers would record it at fixed addresses

    def __init__(self, state: State, tokens: int) -> None:
        self.state = state
        self.tokens = tokens

    def get_seq_length(self, *_: Any) -> int:
        """How many tokens it has seen, padding among them."""
        return self.tokens

    def reorder_cache(self, rows: Tensor) -> None:
        """Go on with these sequences."""
        self.state = select(self.state, rows)


class ChelaForCausalLM(PreTrainedModel, GenerationMixin):
    """A token model of chela, with the weights it starts with.

    Args:
        config: of a run whose model is causal and gives tokens.

    Raises:
        RunError: it is of another run.
    """

    config_class = ChelaConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _is_stateful = True  # it cannot go back: no assisted generation

    def __init__(self, config: ChelaConfig) -> None:
        super().__init__(config)
        assert config.chela is not None, "config.json has no section chela"
        model = built(config.chela, "config.json", torch.device("cpu")).eval()
        self.model: TokenModel = check(model)
        self.post_init()

    def _apply(self, *settings: Any, **others: Any) -> ChelaForCausalLM:
        """Wherever it is moved, it computes as ``chela.from_pretrained`` has it compute there."""
        super()._apply(*settings, **others)
        assert self.config.chela is not None
        use_kernels(self.model, kernels_of(self.config.chela), self.device)
        return self

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str,
        *_: Any,
        config: ChelaConfig | None = None,
        revision: str | None = None,
        device_map: Any = None,
        dtype: Any = None,
        torch_dtype: Any = None,
        **others: Any,
    ) -> ChelaForCausalLM:
        """What ``run.save_pretrained`` wrote, or ``save_pretrained`` of this class.

        Read by ``chela.from_pretrained``, with all its checks.

        Args:
            pretrained_model_name_or_path: a folder, or ``owner/name`` on the hub.
            config: read from there if it is None.
            revision: on the hub.
            device_map: a device, or a mapping of everything to one; where transformers is to
                choose, auto or balanced: a GPU where there is one, for it is not divided.
            dtype: float32; narrower weights are not for norms and long kernels: call the model
                under ``torch.autocast``.
            torch_dtype: the older name of it.
            others: what this model has no use for.

        Raises:
            RunError: see ``chela.from_pretrained``.
            ValueError: the dtype is narrower.
        """
        asked = dtype if dtype is not None else torch_dtype
        if asked not in (None, "auto", torch.float32, "float32"):
            raise ValueError(
                f"dtype={asked}: keep the weights in float32, and call the model under "
                "torch.autocast(device_type, torch.bfloat16)"
            )
        run = from_pretrained(pretrained_model_name_or_path, revision=revision)
        found = config or ChelaConfig(chela=run.record, vocab_size=run.task.spec.vocab_size)
        model = cls(found)
        model.model.load_state_dict(run.model.state_dict())
        where = next(iter(device_map.values())) if isinstance(device_map, dict) else device_map
        where = device_for("auto") if where in CHOSEN else where
        return model.eval() if where is None else model.eval().to(where)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        cache: StateCache | None = None,
        past_key_values: StateCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        **_: Any,
    ) -> Any:
        """Logits, and with ``labels`` the mean loss of the next token.

        Args:
            input_ids: (B, L); with a cache the tokens that follow it.
            attention_mask: (B, L or more), 0 at padding, wherever it is; None for none.
            cache: what an earlier call returned.
            past_key_values: the older name of it.
            labels: (B, L), -100 where nothing is scored; not shifted.
            use_cache: return the state; not in training.
            logits_to_keep: how many of the last positions are wanted; 0: all; 1: that of the last
                true token of each sequence, where padding follows it too.
            num_items_in_batch: targets of the whole step, over which a Trainer that accumulates
                gradients wants the sum of the losses divided; None: those of this batch.

        Returns:
            A ``CausalLMOutputWithPast``: logits (B, L or logits_to_keep, vocabulary), loss, state.

        Raises:
            ValueError: there is padding behind a cache.
        """
        past = cache if cache is not None else past_key_values
        if past is not None:
            return self._following(input_ids, past, attention_mask)
        lengths, order = _real_first(attention_mask)
        values = _taken(input_ids, order)
        only_last = isinstance(logits_to_keep, int) and logits_to_keep == 1 and labels is None
        held = None
        if use_cache and not self.training:
            last, state = prefill(self.model, values, lengths)
            held = StateCache(state, input_ids.shape[1])
            if only_last:
                return _output(last[:, None], held)
        logits = self.model(values, lengths)
        if only_last:  # of the true tokens, as in the cache
            return _output(last_token(logits, lengths)[:, None], None)
        logits = _taken(logits, None if order is None else order.argsort())
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, logits.shape[-1], num_items_in_batch)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        return _output(logits[:, kept], held, loss)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        cache: StateCache | None = None,
        past_key_values: StateCache | None = None,
        attention_mask: Tensor | None = None,
        use_cache: bool | None = True,
        **_: Any,
    ) -> dict[str, Any]:
        """The whole prompt, or what the cache has not seen of it."""
        past = cache if cache is not None else past_key_values
        ids = input_ids if past is None else input_ids[:, past.tokens :]
        return {
            "input_ids": ids,
            "attention_mask": attention_mask,
            CACHE: past,
            "use_cache": use_cache,
            "logits_to_keep": 1,
        }

    def get_input_embeddings(self) -> torch.nn.Module:
        """The embedding of tokens."""
        encoder = self.model.backbone.encoder
        assert isinstance(encoder, TokenEncoder)
        return encoder.embedding

    def save_pretrained(
        self,
        save_directory: str,
        is_main_process: bool = True,
        state_dict: dict[str, Tensor] | None = None,
        *settings: Any,
        **others: Any,
    ) -> None:
        """As of any model of transformers, which refuses weights that share their memory.

        Args:
            save_directory: the folder.
            is_main_process: of several that call this, the one that writes.
            state_dict: the weights, where they are not those of this object.
            settings: of transformers.
            others: of transformers.
        """
        weights = self.state_dict() if state_dict is None else state_dict
        copies = {name: value.clone() for name, value in weights.items()}  # of tied embeddings too
        super().save_pretrained(save_directory, is_main_process, copies, *settings, **others)

    def _following(self, input_ids: Tensor, past: StateCache, mask: Tensor | None) -> Any:
        if mask is not None and not mask[:, -input_ids.shape[1] :].all():
            raise ValueError(
                "there is padding behind a cache, and a state has no place for it; give the "
                "sequences as many tokens more each, or read them anew without the cache"
            )
        found, state = [], past.state
        for token in input_ids.split(1, dim=1):
            logits, state = step(self.model, token, state)
            found.append(logits)
        return _output(
            torch.stack(found, dim=1), StateCache(state, past.tokens + input_ids.shape[1])
        )

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Nothing: each module has drawn its own."""

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """The cache is ours."""
        return False


def _output(
    logits: Tensor, cache: StateCache | None, loss: Tensor | None = None
) -> CausalLMOutputWithPast:
    return CausalLMOutputWithPast(loss=loss, logits=logits, **{CACHE: cache})


def _real_first(mask: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """True lengths (B,), and places (B, L), those of padding last; None where there is none."""
    if mask is None or bool(mask.all()):
        return None, None
    return mask.bool().sum(1), (mask == 0).byte().argsort(dim=1, stable=True)


def _taken(x: Tensor, places: Tensor | None) -> Tensor:
    """What x (B, L, ...) has at places (B, L); None: where it is."""
    return x if places is None else x[torch.arange(len(x), device=x.device)[:, None], places]
