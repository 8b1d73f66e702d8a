from __future__ import annotations

import json
import multiprocessing
import os
import signal

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bmrl.errors import DTypeError, MissingFileError, ModelFolderError, RangeError
from bmrl.models import load_model, save_model, weights
from bmrl.models._restorable import Restorable

IMAGES = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
TOKENS = torch.tensor([[[48, 1 + level, 49, 0, 0, 0] for level in range(4)]] * 2)


@pytest.fixture
def saved(make_model, tmp_path):
    return save_model(make_model(), tmp_path / "model")


def test_round_trip(make_model, saved):
    model = make_model()
    loaded = load_model(saved)
    assert loaded.config == model.config
    assert not loaded.training
    with torch.inference_mode():
        assert torch.equal(loaded(IMAGES).logits, model(IMAGES).logits)
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    assert len({path.stat().st_mode for path in saved.iterdir()}) == 1  # who may read one may read both


def test_saving_keeps_other_files_and_replaces_its_own(make_model, saved):
    (saved / "notes.txt").write_text("mine")
    save_model(make_model(edge=None), saved)
    assert (saved / "notes.txt").read_text() == "mine"
    assert load_model(saved).config.edge is None


def test_missing(saved, tmp_path):
    with pytest.raises(MissingFileError, match=r"model: expected a folder with config.json .*, got .*/nowhere"):
        load_model(tmp_path / "nowhere")
    (saved / "model.safetensors").unlink()
    with pytest.raises(MissingFileError, match=r"model: expected .*model.safetensors, got no such file"):
        load_model(saved)
    (saved / "config.json").unlink()
    with pytest.raises(MissingFileError, match=r"model: expected .*config.json, got no such file"):
        load_model(saved)


def change_config(folder, change) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_another_version(saved):
    change_config(saved, lambda content: content.update(format=4, bmrl_version="9.0"))
    with pytest.raises(ModelFolderError, match=r"config.json: expected format 3 .*, got format 4 .* bmrl '9.0'"):
        load_model(saved)
    for older in (1, 2):
        change_config(saved, lambda content, older=older: content.update(format=older))
        with pytest.raises(ModelFolderError, match=rf"config.json: expected format 3 .*, got format {older}"):
            load_model(saved)
    change_config(saved, lambda content: content.update(format=True))
    with pytest.raises(ModelFolderError, match=r"config.json: expected format 3 .*, got format True"):
        load_model(saved)


def set_dotted(model, changes) -> None:
    for name, value in changes.items():
        *path, last = name.split(".")
        part = model
        for step in path:
            part = part[step]
        part[last] = value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.2.bias": torch.zeros(4)}, r"expected head.2.bias \(3,\) as config.json says, got \(4,\) \(1 ten"),
        ({"head.2.bias": None}, r"expected head.2.bias \(3,\) as config.json says, got absent"),
        ({"more": torch.zeros(4)}, r"expected more absent as config.json says, got \(4,\)"),
    ],
)
def test_shapes_are_compared_before_anything_is_read(saved, change, message):
    def changed(tensors):
        tensors.update(change)
        for name in [name for name, tensor in tensors.items() if tensor is None]:
            del tensors[name]

    resave(saved, changed)
    with pytest.raises(ModelFolderError, match=message):
        load_model(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edge.num_heads": 2}, r"edge.num_heads: expected 4, with which the weights were saved, got 2"),
        ({"language.readout": "first_level"}, r"language.readout: expected 'last_level', .* got 'first_level'"),
        ({"head.normalize_embedding": False}, r"head.normalize_embedding: expected True, .* got False"),
        ({"noise.truncation": 3.0}, r"noise.truncation: expected 0.04, .* got 3.0"),
        ({"edge.channels": [4, 6, 9]}, r"edge.channels\[2\]: expected 8, .* got 9"),
        ({"edge.channels": [4, 6], "edge.convs_per_stage": [1, 1]}, r"channels: expected 3 entries, .* got 2"),
        ({"edge.num_blocks": 300}, r"edge.num_blocks: expected 1, .* got 300"),
        ({"edge.num_blocks": 3000}, r"edge.num_blocks: expected an integer >= 1 and <= 1000, got 3000"),
        ({"embed_dim": 10**9}, r"embed_dim: expected 16, .* got 1000000000"),
        ({"language.context_length": 10**9}, r"language.context_length: expected 6, .* got 1000000000"),
        ({"head.dropout": 0.5}, r"head.dropout: expected 0.0, .* got 0.5"),
        ({"image_size": 2**40}, r"image_size: expected an integer >= 1 and <= 2147483647, got 1099511627776"),
        ({"edge.channels": [4, 6, 2**31]}, r"channels\[2\]: expected an integer >= 1 and <= 2147483647, got 21474"),
        ({"decision.thresholds": [7]}, r"decision.thresholds\[0\]: expected a finite number > 0 and < 1, got 7"),
        ({"edge": None}, r"edge: expected a part that is on, .* got None"),
        (
            {"edge": {"kind": "custom", "module": "os.system"}},
            r"edge.kind: expected 'conv_transformer', .* got 'custom'",
        ),
        ({"edge": {"kind": "mine.Encoder"}}, r"edge.kind: expected 'conv_transformer' or .*, got 'mine.Encoder'"),
        ({"views": [{"name": "dct"}]}, r"views: expected 0 entries, .* got 1"),
    ],
)
def test_a_configuration_that_was_edited_is_refused_before_anything_is_built(saved, changes, message):
    change_config(saved, lambda content: set_dotted(content["model"], changes))
    with pytest.raises(ModelFolderError, match=rf"config.json: .*{message}") as error:
        load_model(saved)
    assert "\n" not in str(error.value)


def test_classes_in_another_order_or_under_another_name_are_refused(saved):
    change_config(saved, lambda content: content["model"]["generators"].reverse())
    with pytest.raises(ModelFolderError, match=r"generators\[0\].name: expected 'generator_0', .* got 'generator_2'"):
        load_model(saved)


def leaves(value, name=""):
    """Yield the dotted name and value of each field that is not a part."""
    if not isinstance(value, dict):
        yield name, value
        return
    for key, entry in value.items():
        yield from leaves(entry, f"{name}.{key}".removeprefix("."))


def test_every_field_but_the_decision_is_bound(make_model, saved):
    given = make_model().config.to_dict()
    others = {"image_size": 64, "readout": "first_level", "token_patch": "all", "num_heads": 2, "dropout": 0.5,
              "channels": [4, 6, 10], "convs_per_stage": [1, 1, 2], "truncation": 1.0,
              "generators": given["generators"][::-1], "views": [{"name": "more"}],
              "patches": "all", "statistics": {}}  # fmt: skip
    original = (saved / "config.json").read_text()
    tried = set()
    for name, value in leaves(given):
        if name.startswith("decision."):
            continue
        last = name.rpartition(".")[2]
        other = not value if isinstance(value, bool) else 2 * value if isinstance(value, int) else None
        other = {"fusion.kind": "cross_attention"}.get(name, "custom" if last == "kind" else others.get(last, other))
        assert other not in (None, value), name
        (saved / "config.json").write_text(original)
        change_config(saved, lambda content, name=name, other=other: set_dotted(content["model"], {name: other}))
        with pytest.raises(ModelFolderError):
            load_model(saved)
        tried.add(name)
    assert len(tried) > 50
    (saved / "config.json").write_text(original)
    assert load_model(saved).config.to_dict() == given


def test_the_decision_may_be_edited(saved):
    text = (saved / "config.json").read_text(encoding="utf-8")
    changed = json.loads(text)
    changed["model"]["decision"]["thresholds"] = [0.25]
    (saved / "config.json").write_text(json.dumps(changed), encoding="utf-8-sig")  # as some editors on Windows do
    assert load_model(saved).config.decision.thresholds == (0.25,)


def test_files_of_two_models_do_not_make_one(make_model, saved, tmp_path):
    other = save_model(make_model(language={"readout": "first_level"}), tmp_path / "other")  # of the same shapes
    (saved / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(
        ModelFolderError, match=r"language.readout: expected 'first_level', .* got 'last_level'; the file"
    ):
        load_model(saved)


def test_weights_without_their_configuration_are_refused(saved):
    path = saved / "model.safetensors"
    save_file(load_file(path), path)
    with pytest.raises(ModelFolderError, match=r"expected weights that save_model wrote, got some that do not say"):
        load_model(saved)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[]", r"expected the keys format, bmrl_version and model, got list"),
        (b"null", r"expected the keys format, .*, got NoneType"),
        (b"{", r"expected JSON, got Expecting property name"),
        (b"[" * 100_000, r"expected JSON, got one nested too deeply"),
        (b'{"format": ' + b"1" * 5000 + b"}", r"expected JSON, got Exceeds the limit"),
        (b'{"format": NaN}', r"expected JSON, got NaN, which JSON does not know"),
        (b'{"format": 1, "format": 2}', r"expected JSON, got the key 'format' twice"),
        (b"\xff", r"expected JSON in UTF-8, got"),
        (b" " * (2**24 + 1), r"expected at most 16777216 bytes of JSON, got more"),
        (
            b'{"format": 3, "model": {"generators": [{"name": "a"}]}}',
            r".*got generators\[0\].manipulation: expected a value",
        ),
        (
            b'{"format": 3, "model": {"generators": []}}',
            r".*, got generators: expected at least",
        ),
        (b'{"format": 3, "model": {"depth": 1}}', r"expected a model of bmrl .*, got depth: expected a field of BMRLC"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_damaged_config(saved, content, reason):
    (saved / "config.json").write_bytes(content)
    with pytest.raises(ModelFolderError, match=rf"config.json: {reason}") as error:
        load_model(saved)
    assert "\n" not in str(error.value)


def test_damaged_weights(saved):
    path = saved / "model.safetensors"
    content = path.read_bytes()
    for damaged in (content[:-10], b"", content[:4], b"\xff" * 64, content[:8] + b"[" * 1000):
        path.write_bytes(damaged)
        with pytest.raises(
            ModelFolderError, match=r"model.safetensors: expected safetensors weights, got a damaged file"
        ):
            load_model(saved)


def resave(folder, change) -> None:
    """Change the weights and keep what they say of their configuration."""
    path = folder / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata=metadata)


@pytest.mark.parametrize(
    "dtype", [torch.int32, torch.bool, torch.int64, torch.uint8, torch.float8_e4m3fn, torch.complex64], ids=str
)
def test_weights_of_a_dtype_that_holds_no_weights(saved, dtype):
    resave(saved, lambda tensors: tensors.update({"head.2.weight": tensors["head.2.weight"].to(dtype)}))
    with pytest.raises(ModelFolderError, match=rf"head.2.weight: expected torch.float16 or .*, got {dtype}"):
        load_model(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(saved, value):
    resave(saved, lambda tensors: tensors["head.2.weight"].view(-1)[3:4].fill_(value))
    with pytest.raises(ModelFolderError, match=r"head.2.weight: expected finite values, got NaN or infinity"):
        load_model(saved)


def test_counters_stay_integers(saved):
    name = "visual_encoder.views.edge.encoder.backbone.layers.1.num_batches_tracked"
    resave(saved, lambda tensors: tensors.update({name: tensors[name].float()}))
    with pytest.raises(ModelFolderError, match=rf"{name}: expected torch.int64, got torch.float32"):
        load_model(saved)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_is_kept_in_the_file_and_loaded_in_float32(make_model, tmp_path, dtype):
    model = make_model().to(dtype)
    folder = save_model(model, tmp_path / "model")
    assert load_file(folder / "model.safetensors")["head.2.weight"].dtype == dtype
    loaded = load_model(folder).state_dict()
    for name, tensor in model.state_dict().items():
        wanted = tensor.float() if tensor.is_floating_point() else tensor
        assert loaded[name].dtype == wanted.dtype
        assert torch.equal(loaded[name], wanted)


def test_a_forged_configuration_asks_for_no_memory(make_model, saved):
    """Also where the weights were made to agree with it."""
    for changes in (
        {"embed_dim": 2**30},
        {"language.context_length": 10**9},
        {"image_size": 2**30},
        {"language.vocab_size": 2**31 - 1},
        {"*.mlp_dim": 2**31 - 1},
        {"edge.num_blocks": 1000},
        {"noise.encoder.convs_per_stage": [1, 1, 1000]},
        {"*.channels": [4, 6, 2**31 - 1], "*.token_patch": "all"},
    ):
        config = make_model().config.with_changes(changes)
        path = saved / "model.safetensors"
        tensors = load_file(path)
        path.write_bytes(weights.encoded(Restorable(config, tensors, {})))
        change_config(saved, lambda content, config=config: content.update(model=config.to_dict()))
        with pytest.raises(ModelFolderError, match=r"model.safetensors: expected ") as error:
            load_model(saved)
        assert "\n" not in str(error.value)


def test_loading_draws_no_random_numbers_and_keeps_no_hold_of_the_file(saved):
    before = torch.get_rng_state()
    model = load_model(saved)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.inference_mode():
        expected = model(IMAGES).logits
        path = saved / "model.safetensors"
        path.write_bytes(b"\0" * path.stat().st_size)
        assert torch.equal(model(IMAGES).logits, expected)


@pytest.mark.parametrize("folder", [3, None, b"model", "", "a\0b", ["a"]])
@pytest.mark.parametrize("act", [load_model, lambda folder: save_model(None, folder)])
def test_what_is_no_path(folder, act):
    with pytest.raises((DTypeError, RangeError), match=r"^folder: expected a path, got "):
        act(folder)


def test_a_file_in_the_way(make_model, tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "model"):
        with pytest.raises(ModelFolderError, match=r"folder: expected a folder or a new path, got a file at .*file"):
            save_model(make_model(), place)


def save_until(model, folder, calls) -> None:
    """Save a model, and kill this process at the file that would be the next one to be put into place."""
    replace = os.replace

    def replace_or_die(*names):
        nonlocal calls
        calls -= 1
        if calls < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*names)

    os.replace = replace_or_die
    save_model(model, folder)
    os._exit(0)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # it has threads, but the child needs none
@pytest.mark.parametrize("changes", [{"language": {"readout": "first_level"}}, {"edge": None}, {}], ids=str)
def test_a_kill_leaves_the_old_model_or_the_new_one(make_model, tmp_path, changes):
    models = {"old": make_model(), "new": make_model(**changes)}
    models["new"].head[2].bias.data += 1
    with torch.inference_mode():
        answers = {name: model(IMAGES, tokens=TOKENS) for name, model in models.items()}
    seen = []
    for calls in range(4):
        folder = save_model(models["old"], tmp_path / str(calls))
        process = multiprocessing.get_context("fork").Process(target=save_until, args=(models["new"], folder, calls))
        process.start()
        process.join()
        assert process.exitcode == (-signal.SIGKILL if calls < 3 else 0)
        with torch.inference_mode():
            answer = load_model(folder)(IMAGES, tokens=TOKENS)
        same = [
            name
            for name, expected in answers.items()
            if torch.equal(answer.logits, expected.logits) and torch.equal(answer.language, expected.language)
        ]
        assert len(same) == 1
        seen += same
        save_model(models["new"], folder)
        assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
        with torch.inference_mode():
            assert torch.equal(load_model(folder)(IMAGES).logits, answers["new"].logits)
    assert seen[0] == "old"
    assert seen[-1] == "new"


def test_what_earlier_kills_left_is_cleaned_up(make_model, saved):
    for name in (".saving-abcd", "..model.safetensors.pending.abcd", ".config.json.abcd"):
        (saved / name).mkdir()
        (saved / name / "half").touch()
    (saved / ".config.json.swp").touch()  # of an editor
    save_model(make_model(), saved)
    assert sorted(path.name for path in saved.iterdir()) == [".config.json.swp", "config.json", "model.safetensors"]


def test_equal_models_make_equal_files(make_model, tmp_path):
    contents = {
        (save_model(make_model(), tmp_path / str(index)) / "model.safetensors").read_bytes() for index in range(4)
    }
    assert len(contents) == 1


@pytest.mark.parametrize("damage", ["garbage", "a pipe", "a folder"])
def test_what_is_pending_does_not_matter_where_the_weights_fit(saved, damage):
    pending = saved / ".model.safetensors.pending"
    if damage == "garbage":
        pending.write_bytes(b"abc")
    elif damage == "a pipe":
        os.mkfifo(pending)
    else:
        pending.mkdir()
    assert load_model(saved).config == load_model(saved).config


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", ".model.safetensors.pending"])
def test_a_folder_in_the_place_of_a_file_is_named_before_anything_is_written(make_model, tmp_path, name):
    (tmp_path / "model" / name).mkdir(parents=True)
    with pytest.raises(ModelFolderError, match=rf"^folder: expected a file or none at .*{name}, got a folder$"):
        save_model(make_model(), tmp_path / "model")
    assert [entry.name for entry in (tmp_path / "model").iterdir()] == [name]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_is_not_waited_for(saved, name):
    (saved / name).unlink()
    os.mkfifo(saved / name)
    with pytest.raises(MissingFileError, match=name):
        load_model(saved)


@pytest.mark.parametrize("size", [0, 10 * 2**30])
@pytest.mark.parametrize("keep", [True, False])
def test_a_file_of_any_size_is_no_more_than_damaged(saved, size, keep):
    weights = saved / "model.safetensors"
    if not keep:
        os.truncate(weights, 0)
    os.truncate(weights, size)  # sparse: the disk holds nothing of it
    with pytest.raises(ModelFolderError, match="expected safetensors weights, got a damaged file"):
        load_model(saved)
