from __future__ import annotations

import pytest
import torch

from bmrl.encoders import LanguageEncoder, tokenize
from bmrl.errors import DTypeError, RangeError, ShapeError

SMALL = {"embed_dim": 8, "vocab_size": 20, "context_length": 5, "num_blocks": 1, "num_heads": 2, "mlp_dim": 8}


def sample() -> torch.Tensor:
    return torch.tensor([[[18, level + 1, 19, 0, 0] for level in range(4)]])


@pytest.mark.parametrize(
    ("readout", "reaches"), [("last_level", [True] * 4), ("first_level", [True, False, False, False])]
)
def test_which_levels_reach_the_embedding(readout, reaches):
    torch.manual_seed(0)
    encoder = LanguageEncoder(readout=readout, **SMALL).eval()
    with torch.inference_mode():
        before = encoder(sample())
        for level, expected in enumerate(reaches):
            changed = sample()
            changed[0, level, 1] = 9
            assert (not torch.equal(encoder(changed), before)) == expected


def test_words_after_the_end_of_text_do_not_matter():
    encoder = LanguageEncoder(**SMALL).eval()
    changed = sample()
    changed[0, 3, 3:] = 7
    with torch.inference_mode():
        assert torch.equal(encoder(changed), encoder(sample()))


def test_paper_reads_308_tokens_of_the_whole_vocabulary():
    encoder = LanguageEncoder(embed_dim=8, num_blocks=1, num_heads=2, mlp_dim=8)
    assert encoder.position_embedding.shape == (308, 8)
    assert encoder.word_embedding.num_embeddings == 49408


def test_tokenize():
    tokens = tokenize(["a photo of a cat", "word " * 200])
    assert (tokens.shape, tokens.dtype) == ((2, 77), torch.int64)
    assert tokens[0].tolist()[:7] == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert not tokens[0, 7:].any()
    assert tokens[1, -1] == 49407  # a long text is cut before its end token
    assert tokenize([]).shape == (0, 77)
    with pytest.raises(RangeError, match=r"texts: expected a sequence of strings, got the string 'face'"):
        tokenize("face")


def test_rejects_bad_input():
    encoder = LanguageEncoder(**SMALL)
    with pytest.raises(ShapeError, match=r"tokens: expected levels = 4, got 3"):
        encoder(torch.zeros(1, 3, 5, dtype=torch.int64))
    with pytest.raises(DTypeError, match=r"tokens: expected torch.int64, got torch.float32"):
        encoder(torch.zeros(1, 4, 5))
