"""Language models of chela for the library transformers: ``import chela.hf`` registers them.

    import chela.hf
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained("my-model")  # what run.save_pretrained wrote
    model.generate(input_ids, attention_mask=mask, max_new_tokens=20)

The cache of ``generate`` is the state of ``chela.mixers.stepping``. Batches may be padded on either
side. It needs the extra ``chela[hf]``.
"""

from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from chela.hf.model import CACHE, ChelaConfig, ChelaForCausalLM
from chela.hf.tokenizer import ChelaTokenizer
from chela.pretrained import KIND

__all__ = ["CACHE", "ChelaConfig", "ChelaForCausalLM", "ChelaTokenizer"]

AutoConfig.register(KIND, ChelaConfig)
AutoModelForCausalLM.register(ChelaConfig, ChelaForCausalLM)
AutoTokenizer.register(ChelaConfig, ChelaTokenizer)
