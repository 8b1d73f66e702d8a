from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from bmrl.data.importers.frames import video_folders


@pytest.mark.parametrize(
    ("paths", "videos"),
    [
        ("frames/anna/1.png frames/bob/2.png", "frames/anna frames/bob"),  # no number twice
        ("vid0/1.png 000_003/2.png id0_id1_0/3.png", "vid0 000_003 id0_id1_0"),
        ("a/1.png b/1.png c/2.png", "a b"),
        ("a/1.png a/2.png a/3.png b/1.png b/2.png b/3.png", ""),  # few large folders
        ("00000/1.png 00001/2.png 1.png", ""),
        ("vid0/1.png vid0/face.png", ""),
    ],
)
def test_video_folders(paths, videos):
    assert video_folders([PurePosixPath(path) for path in paths.split()]) == set(map(PurePosixPath, videos.split()))
