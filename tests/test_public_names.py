"""Names that other people's code depends on, and what importing them costs."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

PUBLIC = {
    "bmrl": "Attribution Attributor BMRL BMRLConfig BMRLOutput Generator View __version__ attribute build_model "
    "calibrate compare data demo encoders enroll errors evaluate evaluation export export_model import_faces "
    "inference load_model losses models ops presets save_model serve simulate train training write_triton_repository",
    "bmrl.ops": "Grayscale NUM_STATISTICS PatchHomogeneity ResidualStatistics RichestPatch SRM STATISTICS Sobel "
    "ViewExtractor Views all_patches grayscale patch_homogeneity residual_statistics richest_patch sobel srm views",
    "bmrl.losses": "BMRLObjective CMCLoss CPCLoss ContrastiveCenterLoss DFACCLoss DFACCTerms LanguageAlignmentLoss "
    "ObjectiveResult contrastive_center_loss contrastive_loss dfacc_loss dfacc_terms language_alignment_loss",
    "bmrl.encoders": "AppearanceEncoder ConvBackbone ConvTransformer ConvTransformerConfig CustomConfig ENCODERS "
    "EdgeEncoder EncoderConfig LanguageConfig LanguageEncoder NoiseEncoder ParsingEncoder PretrainedConfig "
    "PretrainedEncoder SelfAttention StatisticsConfig StatisticsEncoder "
    "TransformerBlock TransformerEncoder build_encoder color_parsing tokenize",
    "bmrl.models": "BMRL BMRLConfig BMRLOutput CalibrationAnswers FittedDecision MultiPerspectiveVisualEncoder "
    "References View build_model load_model paper_views presets save_model",
    "bmrl.data": "ALTERATIONS Alteration FaceDataset FoundImages ImportReport Manifest Row SimulationReport "
    "find_images import_faces simulate",
    "bmrl.evaluation": "Comparison Evaluation MethodResult Predictions Skipped Summary compare evaluate "
    "format_comparison format_metrics predict render_report shortcut_baseline summarize "
    "train_resnet18",
    "bmrl.inference": "Attribution Attributor Decider Decisions Enrollment Limits RiskCoverage attribute "
    "attributions_from_probabilities calibrate conformal_limit decide decider_of enroll fit_temperature format_table "
    "infer limits_of resolve_model risk_coverage risk_limit",
    "bmrl.training": "AttributionTask AugmentationConfig BMRLTask TrainingConfig TrainingRun train",
    "bmrl.export": "Artifact AsyncTritonClient ExportResult FORMATS FormatComparison ServedModel TritonClient "
    "TritonServer compare_formats export_model load_artifact serve write_triton_repository",
    "bmrl.export.triton": "AsyncTritonClient ServedModel TritonClient TritonServer serve write_triton_repository",
}


@pytest.mark.parametrize("module", PUBLIC)
def test_inventory(module):
    loaded = importlib.import_module(module)
    assert sorted(loaded.__all__) == sorted(PUBLIC[module].split())
    for name in loaded.__all__:
        assert getattr(loaded, name) is not None


def modules_after(statement: str) -> set[str]:
    """Every module that a fresh interpreter holds after a statement."""
    code = f"{statement}; import sys; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_import_bmrl_is_lazy():
    loaded = modules_after("import bmrl")
    assert {name for name in loaded if name.startswith("bmrl")} == {"bmrl", "bmrl._version"}
    assert "torch" not in loaded


def test_ops_need_torch_and_einops_alone():
    # what torch itself brings in does not count
    added = modules_after("import bmrl.ops") - modules_after("import torch, einops")
    assert {name.split(".")[0] for name in added} <= {"bmrl"}
    ours = {name for name in added if name.count(".") == 1}
    helpers = "_checks _kernels _precision _ranges _transforms _values _version errors"
    assert ours == {"bmrl.ops", *(f"bmrl.{name}" for name in helpers.split())}


def test_models_know_no_losses_and_no_data():
    loaded = modules_after("import bmrl.models")
    assert not {name for name in loaded if name.startswith(("bmrl.losses", "bmrl.data", "bmrl.training", "lightning"))}


def test_attributing_needs_no_training_packages():
    loaded = modules_after("from bmrl import Attributor")
    assert not {"lightning", "open_clip", "matplotlib", "sklearn", "torchvision"} & loaded
